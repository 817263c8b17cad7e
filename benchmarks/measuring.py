"""How the scripts here measure: clocks that wait for the device, fresh processes, ceilings.

Both ceilings are measured in the same run as what is compared with them: a rate of matrix products
on random numbers (zeros are faster) and a rate of copying.
"""

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
# kernels the registry does not name, and those of the same arguments that it does
_ALIKE = {
    aten.addmm_: aten.addmm,
    aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        aten._scaled_dot_product_flash_attention_backward
    ),
}
ROOT = Path(__file__).resolve().parents[1]
MALLOC = {  # as `make app` has it
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_MMAP_THRESHOLD_": "100000000000",
}
LINUX = Path("/proc/self/clear_refs").exists()


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def spent_by(action: Callable[[], object], device: str) -> tuple[float, float]:
    """Return the seconds one call takes by the clock, and of the processor's time."""
    wait(device)
    began, worked = time.perf_counter(), time.process_time()
    action()
    wait(device)
    return time.perf_counter() - began, time.process_time() - worked


def seconds_of(action: Callable[[], object], device: str) -> float:
    """Return the seconds one call takes by the clock."""
    return spent_by(action, device)[0]


def alternating(
    routes: Mapping[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, dict]:
    """Time routes in turns, so that what else the machine does falls on all of them.

    Args:
        routes: By name; each is called once before the clock runs.
        repeats: Rounds.
        device: "cpu" or "cuda".

    Returns:
        By name {"seconds": median by the clock, "spread": (least, most), "work": median of the
        processor's seconds, which a busy machine disturbs less}; {"failed": why} for one that
        raises.
    """
    found: dict[str, dict] = {}
    for name, route in routes.items():
        try:
            route()
        except Exception as error:  # one route must not cost the others: said in the table
            found[name] = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
    spent = {name: [] for name in routes if name not in found}
    for _ in range(repeats):
        for name, times in spent.items():
            times.append(spent_by(routes[name], device))
    for name, times in spent.items():
        clock, work = zip(*times, strict=True)
        found[name] = {
            "seconds": statistics.median(clock),
            "spread": (min(clock), max(clock)),
            "work": statistics.median(work),
        }
    return {name: found[name] for name in routes}


class _Operations(TorchDispatchMode):
    """Counts operations by torch's own formulas; its counter knows no backward pass in another."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run a function and count it, if it multiplies matrices."""
        out = func(*args, **(kwargs or {}))
        packet = _ALIKE.get(func._overloadpacket, func._overloadpacket)
        if packet in flop_registry:
            self.total += int(flop_registry[packet](*args, **(kwargs or {}), out_val=out))
        return out


def operations(action: Callable[[], object]) -> int:
    """Return the floating-point operations of a call's matrix products and convolutions."""
    with _Operations() as counter:
        action()
    return counter.total


def reset_peak(device: str) -> int:
    """Give freed memory back, forget the peak so far, and return the bytes held now."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if LINUX:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return peak("cpu")


def peak(device: str) -> int:
    """Return the most bytes held since the reset: of the GPU's allocator, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines() if LINUX else ["VmHWM: 0"]
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def fresh(module: str, words: Sequence[str], timeout: float | None = None) -> dict:
    """Run a script of this folder in a process of its own and read the JSON of its last line.

    Args:
        module: As ``python -m`` takes it.
        words: Its arguments.
        timeout: Seconds.

    Returns:
        What it printed; {"failed": why} if it ended otherwise.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=ROOT,
            env={**os.environ, **MALLOC},
            capture_output=True,
            timeout=timeout,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {timeout:.0f} s"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return {"failed": last[:200]}


def matrix_rate(dtype: torch.dtype, device: str, size: int, repeats: int = 10) -> float:
    """Return the operations a second of a product of two random square matrices."""
    source = torch.Generator(device).manual_seed(0)
    a, b = torch.randn(2, size, size, device=device, generator=source).to(dtype).unbind()
    for _ in range(3):
        a @ b
    return repeats * 2 * size**3 / seconds_of(lambda: [a @ b for _ in range(repeats)], device)


def copy_rate(device: str, size: int) -> float:
    """Return the bytes a second, read and written, of a copy of ``size`` bytes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 10 * 2 * size / seconds_of(lambda: [target.copy_(source) for _ in range(10)], device)


def ceilings(device: str, quick: bool = False) -> dict[str, float]:
    """Return what this machine can do at most.

    Args:
        device: "cpu" or "cuda".
        quick: On small matrices, to try the scripts out.

    Returns:
        {"bfloat16", "float32"} in operations a second, {"copy"} in bytes a second.
    """
    size = 256 if quick else 8192 if device == "cuda" else 2048
    rates = {
        name: matrix_rate(getattr(torch, name), device, size, 2 if device == "cpu" else 10)
        for name in ("bfloat16", "float32")
    }
    return {
        **rates,
        "copy": copy_rate(device, 2**22 if quick else 2**31 if device == "cuda" else 2**28),
    }
