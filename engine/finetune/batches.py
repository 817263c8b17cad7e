"""Which images a step sees, and how they are varied: a function of seed and step alone."""

import hashlib
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

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
