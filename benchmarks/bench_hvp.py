"""Cost of an exact Hessian-vector product in gradient passes, and its memory (Linux).

The miniature and ViT-B/32 with random weights, both modes. Gradient and product of the same
images take turns in one process and are counted in processor time, on which other work does not
fall; peaks are taken in fresh processes. Run from the repository's root as
``python -m benchmarks.bench_hvp``; prints JSON. Quote it from an idle machine.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# encoder -> images and turns
CASES = {"miniature": (64, 15), "ViT-B-32-quickgelu:random": (8, 7)}
MODES = ("nonlinear", "linear")
LIMIT = 3.5  # gradient passes
MALLOC = {  # as `make app` has it
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_MMAP_THRESHOLD_": "100000000000",
}


def objective(encoder_name: str, mode: str, images: int, dtype: str):
    """Make the loss of an encoder on random pictures against a random head.

    Args:
        encoder_name: Which encoder.
        mode: "nonlinear" or "linear".
        images: How many.
        dtype: "float32" or "float64".

    Returns:
        The objective, and a direction.
    """
    import torch

    from engine.encoders import load_encoder
    from engine.finetune import head_loss
    from engine.finetune.adamw import Layout
    from engine.gradients import Objective
    from engine.store import default_store

    encoder = load_encoder(encoder_name, default_store())
    encoder.free_text()
    encoder = encoder.to("cpu", getattr(torch, dtype))
    source = torch.Generator().manual_seed(0)
    size = encoder.image_size
    pictures = torch.randint(0, 256, (images, 3, size, size), generator=source).to(torch.uint8)
    labels = torch.randint(0, 10, (images,), generator=source)
    head = torch.randn(10, encoder.embed_dim, generator=source)
    head = torch.nn.functional.normalize(head, dim=1).to(getattr(torch, dtype))
    layout = Layout(encoder.theta0)
    v = torch.randn(layout.theta0.shape, generator=source).to(layout.theta0)

    def loss(z, y):
        return head_loss(z, head, encoder.logit_scale, y)

    made = Objective("random", layout, encoder.features, encoder.preprocess, pictures, labels,
                     loss, mode)  # fmt: skip
    return made, v / v.norm()


def ratio(encoder_name: str, mode: str, dtype: str) -> dict:
    """Time gradients and products in turns.

    Args:
        encoder_name: Which encoder.
        mode: "nonlinear" or "linear".
        dtype: Precision.

    Returns:
        Median processor seconds of both, the median of the turns' ratios and their spread.
    """
    images, turns = CASES[encoder_name]
    made, v = objective(encoder_name, mode, images, dtype)
    theta = made.theta0

    def timed(call) -> tuple[float, float]:
        """Return seconds by the clock and of the processor: other work falls on the first alone."""
        begun = time.perf_counter(), time.process_time()
        call()
        return time.perf_counter() - begun[0], time.process_time() - begun[1]

    for _ in range(2):  # the libraries' own first-time costs are neither's
        made.gradient(theta)
        made.hvp(theta, v)
    pairs = [
        (timed(lambda: made.gradient(theta)), timed(lambda: made.hvp(theta, v)))
        for _ in range(turns)
    ]
    clock, processor = (
        sorted(product[which] / gradient[which] for gradient, product in pairs) for which in (0, 1)
    )
    return {
        "images": images,
        "turns": turns,
        "gradient_seconds": statistics.median(gradient[1] for gradient, _ in pairs),
        "hvp_seconds": statistics.median(product[1] for _, product in pairs),
        "gradient_passes": statistics.median(processor),
        "spread": [processor[0], processor[-1]],
        "gradient_passes_by_the_clock": statistics.median(clock),
    }


def peak(encoder_name: str, mode: str, dtype: str, what: str) -> dict:
    """Take the peak of one call in this process, beyond what the loaded encoder holds.

    Args:
        encoder_name: Which encoder.
        mode: "nonlinear" or "linear".
        dtype: Precision.
        what: "gradient" or "hvp".

    Returns:
        Bytes.
    """
    made, v = objective(encoder_name, mode, CASES[encoder_name][0], dtype)
    theta, one = made.theta0, made.take(slice(0, 1))
    call = {
        "gradient": lambda o: o.gradient(theta),
        "hvp": lambda o: o.hvp(theta, v),
    }[what]
    call(one)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _high_water()
    call(made)
    return {"bytes": _high_water() - before}


def _high_water() -> int:
    """Return the most bytes this process has held since the reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def child(*words: str) -> dict:
    """Measure in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_hvp", "--child", *words],
        cwd=ROOT,
        env={**os.environ, **MALLOC},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs="+")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    args = parser.parse_args()
    if args.child:
        call = {"ratio": ratio, "peak": peak}[args.child[0]]
        print(json.dumps(call(*args.child[1:])))  # noqa: T201
        return
    import torch

    from engine.provenance import provenance

    rows = []
    for encoder in CASES:
        for mode in MODES:
            row = {"encoder": encoder, "mode": mode, "precision": args.precision}
            row |= child("ratio", encoder, mode, args.precision)
            for what in ("gradient", "hvp"):
                found = child("peak", encoder, mode, args.precision, what)
                row[f"{what}_bytes"] = found["bytes"]
            rows.append(row)
            sys.stderr.write(f"{row}\n")
    record = {
        "rows": rows,
        "limit": LIMIT,
        "within": all(row["gradient_passes"] <= LIMIT for row in rows),
        "threads": torch.get_num_threads(),
        **provenance(),
    }
    print(json.dumps(record, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
