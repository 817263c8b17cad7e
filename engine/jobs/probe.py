"""How long a step takes and what memory it holds, measured on two small batches."""

import contextlib
import math
import os
import platform
import time
import weakref
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine import linearize
from engine.encoders import load_encoder
from engine.finetune import checkpointed, head_loss
from engine.jobs import folder as files

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.store import Store

IMAGES, HELD = (4, 16), (16, 48)  # of the batches that are timed, and whose memory is counted
SHORT = (16, 24)  # in the place of HELD where memory is short
CAUTION = 1.1  # for what allocators and workspaces take beside the tensors
REPEATS = 2
SEEN = (1 + REPEATS) * sum(IMAGES) + sum(HELD)  # images that measuring takes


@dataclass(frozen=True)
class Probe:
    """A step on n images takes ``start + image n`` seconds and holds ``fixed + each n`` bytes.

    Attributes:
        start: Seconds a step takes whatever the batch.
        image: Seconds an image adds.
        fixed: Bytes a step holds whatever the batch, without weights and moments.
        each: Bytes an image adds.
        parameters: Trainable parameters P.
        weights: Bytes of all of the encoder's weights.
        image_size: Pixels a side.
    """

    start: float
    image: float
    fixed: float
    each: float
    parameters: int
    weights: int
    image_size: int


def probed(
    store: "Store",
    encoder_name: str,
    mode: str,
    precision: str,
    device: str,
    checkpointing: bool = False,
) -> Probe:
    """Measure a step, or recall what was measured on this machine.

    Args:
        store: Where encoders lie; the answer is kept in its ``jobs/rates.json``.
        encoder_name: As ``load_encoder`` takes it.
        mode: "nonlinear" or "linear".
        precision: "float32" or "bfloat16".
        device: "cpu", "cuda" or "mps".
        checkpointing: Whether blocks are computed again on the way back.

    Returns:
        What was measured.

    Raises:
        UsageError: If the encoder has no blocks to be computed again.
    """
    kept = recalled(store, encoder_name, mode, precision, device, checkpointing)
    if kept is not None:
        return kept
    encoder = load_encoder(encoder_name, store, device)
    encoder = checkpointed(encoder) if checkpointing else encoder
    found = _measured(encoder, mode, precision)
    path, key = _rates(store), _key(store, encoder_name, mode, precision, device, checkpointing)
    with contextlib.suppress(OSError):  # it is measured again the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(path.with_suffix(".lock")):
            try:
                known = files.read_table(path)
            except (OSError, ValueError):
                known = {}
            files.replace_table(path, {**known, key: asdict(found)})
    return found


def recalled(
    store: "Store",
    encoder_name: str,
    mode: str,
    precision: str,
    device: str,
    checkpointing: bool = False,
) -> Probe | None:
    """Recall what was measured on this machine.

    Args:
        store: Whose ``jobs/rates.json`` is read.
        encoder_name: As ``load_encoder`` takes it.
        mode: "nonlinear" or "linear".
        precision: "float32" or "bfloat16".
        device: "cpu", "cuda" or "mps".
        checkpointing: Whether blocks are computed again on the way back.

    Returns:
        What was measured; None if nothing was, or it cannot be read.
    """
    key = _key(store, encoder_name, mode, precision, device, checkpointing)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = Probe(**files.read_table(_rates(store))[key])
        if all(math.isfinite(value) for value in asdict(kept).values()):
            return kept
    return None


def _rates(store: "Store") -> Path:
    """Return where measurements are kept."""
    return store.home / "jobs" / "rates.json"


def _key(
    store: "Store", name: str, mode: str, precision: str, device: str, checkpointing: bool
) -> str:
    """Return what a measurement depends on."""
    entries = store.find("encoder", name=name)
    weights = entries[0].digest[:16] if entries else ""
    if not entries and Path(name.partition(":")[2]).is_file():
        weights = str(Path(name.partition(":")[2]).stat().st_mtime_ns)
    chip = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()}"
    parts = (platform.node(), device, chip, torch.__version__, name, weights, mode, precision)
    return " | ".join(parts) + " | checkpointing" * checkpointing


def _measured(encoder: "Encoder", mode: str, precision: str) -> Probe:
    """Return what two batches tell."""
    seconds = []
    for images in IMAGES:
        _step(encoder, mode, precision, images)  # warm-up
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            _step(encoder, mode, precision, images)
            times.append(time.perf_counter() - began)
        seconds.append(min(times))
    counted = _held_images(_held_by(encoder, mode, precision, HELD[0]), encoder)
    held = [_held_by(encoder, mode, precision, images) for images in counted]
    few, many = IMAGES
    image = max(seconds[1] - seconds[0], 0.1 * seconds[1]) / (many - few)
    each = CAUTION * max(held[1] - held[0], 0) / (counted[1] - counted[0])
    return Probe(
        start=max(0.0, seconds[1] - image * many),
        image=image,
        fixed=max(0.0, held[0] - each * counted[0]),
        each=each,
        parameters=sum(value.numel() for value in encoder.theta0.values()),
        weights=sum(value.numel() * value.element_size() for value in encoder.theta0.values()),
        image_size=encoder.image_size,
    )


def _held_images(held: int, encoder: "Encoder") -> tuple[int, int]:
    """Return the batches whose memory is counted: closer ones where the larger might not fit.

    Not smaller ones: with few images the weights' gradients are the peak, which hides the slope.
    """
    there = memory_there(next(iter(encoder.theta0.values())).device.type)
    return HELD if there is None or 4 * held < there else SHORT


def _step(encoder: "Encoder", mode: str, precision: str, images: int) -> None:
    """Compute one gradient as training does, on noise."""
    device = next(iter(encoder.theta0.values())).device
    source, size = torch.Generator().manual_seed(0), encoder.image_size
    pixels = torch.randint(0, 256, (images, 3, size, size), generator=source).to(torch.uint8)
    head = torch.nn.functional.normalize(torch.randn(10, encoder.embed_dim, generator=source))
    head, labels = head.to(device), torch.zeros(images, dtype=torch.int64, device=device)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return head_loss(z, head, encoder.logit_scale, labels)

    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        x = encoder.preprocess(pixels.to(device))
        if mode == "linear":
            tau = {name: torch.zeros_like(value) for name, value in encoder.theta0.items()}
            linearize.linear_gradient(encoder.features, encoder.theta0, tau, x, loss)
        else:
            theta = {
                name: value.detach().clone().requires_grad_()
                for name, value in encoder.theta0.items()
            }
            torch.autograd.grad(loss(encoder.features(theta, x)), list(theta.values()))
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def _held_by(encoder: "Encoder", mode: str, precision: str, images: int) -> int:
    """Return the most bytes a step holds at once beside the weights."""
    if next(iter(encoder.theta0.values())).device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _step(encoder, mode, precision, images)
        return torch.cuda.max_memory_allocated() - before
    with _counted() as count:
        _step(encoder, mode, precision, images)
    return count.most


class _Count(TorchDispatchMode):
    """Counts the bytes of the tensors alive that were made under it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and count what it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        """Count a storage once, until it is freed."""
        place, size = storage._cdata, storage.nbytes()
        if place in self.known:
            return

        def freed(_: object) -> None:
            self.now -= size
            self.known.pop(place, None)

        self.known[place] = weakref.ref(storage, freed)
        self.now += size
        self.most = max(self.most, self.now)


@contextlib.contextmanager
def _counted() -> Generator[_Count, None, None]:
    """Count inside; yields the count."""
    with _Count() as count:
        yield count


def memory_there(device: str) -> int | None:
    """Return the bytes a job may take: the GPU's, or what this machine can still give.

    Args:
        device: "cpu", "cuda" or "mps".

    Returns:
        Bytes; None where the system does not say.
    """
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(x for x in lines if x.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError):  # a container's own limit; "max" is none
        group = Path("/sys/fs/cgroup")
        most, now = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        found.append(int(most) - int(now))
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)
