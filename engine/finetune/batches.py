"""Which images a step sees, and how they are varied: a function of seed and step alone."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from engine.tasks import Split

SHIFT = 2  # pixels
CROP_AREA = 0.9  # smallest share of the area kept


def generator(seed: int, subject: str, number: int) -> torch.Generator:
    """Make a source of random numbers that depends on its arguments alone.

    Args:
        seed: Of the run.
        subject: What the numbers are for: "order" or "augment".
        number: Epoch or step.

    Returns:
        A generator on the CPU.
    """
    text = f"{subject}/{seed}/{number}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1)


def batch_indices(seed: int, step: int, n: int, batch: int) -> Tensor:
    """Name the images of one step: the next ones in an endless run of shuffled epochs.

    Args:
        seed: Of the run.
        step: Steps already taken.
        n: Images of the split.
        batch: Images a step; may exceed ``n``.

    Returns:
        int64, shape (batch,). Every image appears once an epoch.
    """
    pieces, position, missing = [], step * batch, batch
    while missing:
        epoch, offset = divmod(position, n)
        piece = _epoch_order(seed, epoch, n)[offset : offset + missing]
        pieces.append(piece)
        position, missing = position + len(piece), missing - len(piece)
    return torch.cat(pieces)


class Feed:
    """The images of each step, on the device; on a GPU those of the next step are on their way.

    While a GPU computes, a thread gathers the next batch from the split, which may lie in a mapped
    file, into page-locked memory, from where it is copied beside the computation. Which images a
    step gets depends on (seed, step) alone, so nothing else changes. On a CPU, where gathering and
    computing share the cores, nothing is fetched ahead.
    """

    def __init__(
        self,
        split: "Split",
        seed: int,
        batch: int,
        device: torch.device,
        ahead: bool | None = None,
    ) -> None:
        """Start.

        Args:
            split: Images and labels.
            seed: Of the order.
            batch: Images a step.
            device: Where they are wanted.
            ahead: Whether to fetch the next batch early; by default on CUDA.
        """
        self.split, self.seed, self.batch, self.device = split, seed, batch, device
        ahead = device.type == "cuda" if ahead is None else ahead
        self._pool = ThreadPoolExecutor(1, "batches", self._begin) if ahead else None
        self._next: tuple[int, Future] | None = None

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Give the batch of a step.

        Args:
            step: Steps already taken.

        Returns:
            uint8 images, shape (batch, 3, H, W), and int64 labels, shape (batch,).
        """
        if self._next is not None and self._next[0] == step:
            images, labels = self._next[1].result()
        else:
            images, labels = self._gathered(step)
        if self._pool is not None:
            self._next = step + 1, self._pool.submit(self._gathered, step + 1)
        # page-locked memory is copied beside the computation; elsewhere that is not safe
        beside = self.device.type == "cuda"
        return (
            images.to(self.device, non_blocking=beside),
            labels.to(self.device, non_blocking=beside),
        )

    def close(self) -> None:
        """End the thread."""
        self._next = None
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> None:
        """Tell the thread which GPU is this process's: it would lock memory by way of the first."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def _gathered(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels of a step in memory the device can fetch them from."""
        index = batch_indices(self.seed, step, len(self.split.labels), self.batch)
        found = self.split.images[index], self.split.labels[index]
        if self.device.type != "cuda":
            return found
        return found[0].pin_memory(), found[1].pin_memory()


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, n: int) -> Tensor:
    """Return the order of one epoch; only ever read."""
    return torch.randperm(n, generator=generator(seed, "order", epoch))


def augmented(images: Tensor, how: str, source: torch.Generator) -> Tensor:
    """Vary images at random.

    Args:
        images: uint8, shape (N, 3, H, W), on any device.
        how: "none", "shift" or "crop".
        source: On the CPU, so that the draw is the same on every device.

    Returns:
        uint8, the same shape.

    Raises:
        ValueError: If ``how`` is something else.
    """
    if how == "none":
        return images
    if how == "shift":
        return _shifted(images, source)
    if how == "crop":
        return _cropped(images, source)
    raise ValueError(f"augment is {how!r}, expected none, shift or crop")


def _shifted(images: Tensor, source: torch.Generator) -> Tensor:
    """Return each image moved by up to SHIFT pixels each way; the edge is repeated."""
    N, channels, H, W = images.shape
    moves = torch.randint(-SHIFT, SHIFT + 1, (2, N, 1), generator=source)
    rows = (torch.arange(H) + moves[0]).clamp(0, H - 1).to(images.device)  # (N, H)
    columns = (torch.arange(W) + moves[1]).clamp(0, W - 1).to(images.device)  # (N, W)
    n = torch.arange(N, device=images.device)[:, None, None, None]
    c = torch.arange(channels, device=images.device)[None, :, None, None]
    return images[n, c, rows[:, None, :, None], columns[:, None, None, :]]


def _cropped(images: Tensor, source: torch.Generator) -> Tensor:
    """Return a box of CROP_AREA to 1 of each image's area, scaled up bicubically.

    Area uniform, aspect ratio log-uniform in what fits into the image. (torchvision's crop draws
    ratios in 3/4 .. 4/3 and draws again when the box does not fit: nearly the same boxes.)
    """
    N, _, H, W = images.shape
    area = 1 - (1 - CROP_AREA) * torch.rand(N, generator=source)
    slant = (2 * torch.rand(N, generator=source) - 1) * -area.log() / 2  # half a log ratio
    width, height = area.sqrt() * slant.exp(), area.sqrt() * (-slant).exp()  # of a side of 1
    right, down = 2 * torch.rand(2, N, generator=source) - 1
    zero = torch.zeros(N)
    box = torch.stack(  # in coordinates from -1 to 1
        [
            torch.stack([width, zero, right * (1 - width)], dim=1),
            torch.stack([zero, height, down * (1 - height)], dim=1),
        ],
        dim=1,
    )  # (N, 2, 3)
    grid = F.affine_grid(box.to(images.device), [N, 1, H, W], align_corners=False)
    pixels = F.grid_sample(
        images.float(), grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return pixels.round().clamp(0, 255).to(torch.uint8)
