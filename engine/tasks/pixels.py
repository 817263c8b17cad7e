"""From encoded pictures to uint8 tensors of the encoder's size."""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.errors import CheckpointError

_CHUNK = 256  # encoded pictures in memory at a time
_PIXELS = 2**26  # of a resized picture before it is cropped


def fit(image: Image.Image, size: int) -> np.ndarray:
    """Bring a picture to the encoder's input: RGB, shorter side to size (bicubic), centre crop.

    The same arithmetic as torchvision's Resize and CenterCrop on a PIL image.

    Args:
        image: Any mode; 16-bit greys are scaled to 8 bits, transparency is dropped.
        size: S, pixels a side.

    Returns:
        uint8 (3, S, S).

    Raises:
        ValueError: If the picture is so narrow that it would not fit into memory.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    image = image.convert("RGB")
    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = int(size * width / short), int(size * height / short)
        if width * height > _PIXELS:
            raise ValueError("its sides differ too much")
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    return pixels.transpose(2, 0, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """Bring pictures that are tensors already to another size, as ``fit`` does.

    Args:
        images: uint8 (N, 3, H, W).
        size: S, pixels a side.

    Returns:
        uint8 (N, 3, S, S).
    """
    if tuple(images.shape[2:]) == (size, size):
        return images
    pictures = [Image.fromarray(row) for row in images.permute(0, 2, 3, 1).numpy()]
    fitted = [fit(picture, size) for picture in pictures]
    return torch.from_numpy(np.stack(fitted)) if fitted else images.new_empty((0, 3, size, size))


def decode(
    fetch: Callable[[Sequence[int]], list[tuple[str, bytes]]],
    rows: Sequence[int],
    size: int,
    where: str,
) -> Tensor:
    """Decode encoded pictures, several at a time.

    Args:
        fetch: Gives name and encoded bytes for rows; the bytes are empty where they are missing.
        rows: Which, in order.
        size: S, pixels a side.
        where: Whose pictures they are, for the message.

    Returns:
        uint8 (N, 3, S, S). Holds N·3·S² bytes: 150 KB a picture at 224 pixels.

    Raises:
        CheckpointError: If pictures cannot be decoded: how many, and the first three names.
    """
    images = np.empty((len(rows), 3, size, size), dtype=np.uint8)
    damaged = []

    def place(item: tuple[int, tuple[str, bytes]]) -> None:
        """Decode one picture into its place."""
        position, (name, data) = item
        try:
            with Image.open(io.BytesIO(data)) as image:
                images[position] = fit(image, size)
        except Exception:  # what is damaged can raise almost anything
            damaged.append((position, name))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no one's concern here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for start in range(0, len(rows), _CHUNK):
            encoded = fetch(rows[start : start + _CHUNK])
            list(pool.map(place, enumerate(encoded, start)))
    if damaged:
        names = ", ".join(name for _, name in sorted(damaged)[:3])
        raise CheckpointError(
            f"{len(damaged)} of {len(rows)} images of {where} cannot be read ({names}"
            f"{', ...' if len(damaged) > 3 else ''}); replace or remove them and load it again"
        )
    return torch.from_numpy(images)
