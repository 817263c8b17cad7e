"""The miniature world: eight tasks and a control task, rendered from nothing but numbers.

Every picture is a function of (task, split, index, seed) alone, to the byte, however it is batched
and whatever machine renders it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .canvas import IMAGE_SIZE
from .captions import write_captions
from .characters import HANDWRITING, HOUSENUMBERS, LETTER
from .draws import Draws, balanced_labels, image_keys
from .family import SHIFT_STRENGTH, Family, Painting
from .landuse import LANDUSE
from .objects import OBJECTS
from .signs import SIGNS
from .sites import SITES
from .textures import TEXTURES
from .vehicles import VEHICLES

__all__ = [
    "IMAGE_SIZE",
    "SHIFT_STRENGTH",
    "SIZES",
    "Family",
    "Painting",
    "captioned",
    "captioned_with_labels",
    "class_list",
    "family",
    "family_names",
    "paintings",
    "render",
]

SIZES = {"train": 5000, "test": 1000}
_FAMILIES = {
    one.name: one
    for one in (
        HANDWRITING, HOUSENUMBERS, LETTER, SIGNS, TEXTURES, LANDUSE, SITES, VEHICLES, OBJECTS,
    )
}  # fmt: skip
_CHUNK = 64  # images painted at once: their planes stay in the processor's cache


def family_names() -> tuple[str, ...]:
    """Return the eight tasks in their order, then the control task."""
    return tuple(_FAMILIES)


def family(name: str) -> Family:
    """Look a family up.

    Args:
        name: One of `family_names`.

    Returns:
        The family.

    Raises:
        ValueError: If there is no such family.
    """
    if name not in _FAMILIES:
        raise ValueError(
            f"No family {name!r} in the miniature world; expected one of {family_names()}."
        )
    return _FAMILIES[name]


def class_list() -> list[tuple[str, str]]:
    """Return (family, class name) of every class; the place in the list is the global class id."""
    return [(one.name, label) for one in _FAMILIES.values() for label in one.classnames]


def _indices(indices: Tensor | Sequence[int] | range) -> np.ndarray:
    """Take indices in any form.

    Args:
        indices: Tensor, list or range of N.

    Returns:
        int64, shape (N,).

    Raises:
        ValueError: If one is negative.
    """
    array = indices.cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    array = array.astype(np.int64, copy=False).reshape(-1)
    if len(array) and array.min() < 0:
        raise ValueError(f"Image indices start at 0; received {array.min()}.")
    return array


def paintings(
    task: str,
    split: str,
    indices: Tensor | Sequence[int] | range,
    seed: int = 0,
    strength: float = 0.0,
) -> tuple[Painting, np.ndarray]:
    """Paint pictures and keep what is known about them.

    Args:
        task: One of `family_names`.
        split: One of `SIZES`.
        indices: Non-negative places in the split, N of them.
        seed: Which world.
        strength: Strength of the shift; 0 is the broad style.

    Returns:
        The painting (images, figure masks, traits), and labels, int64 (N,).

    Raises:
        ValueError: If the family or the split is unknown, or an index is negative.
    """
    if split not in SIZES:
        raise ValueError(
            f"No split {split!r} in the miniature world; expected one of {tuple(SIZES)}."
        )
    chosen, places = family(task), _indices(indices)
    labels = balanced_labels(places, len(chosen.classnames), task, split, seed)
    return _paint(chosen, image_keys(places, task, split, seed), labels, strength), labels


def _paint(chosen: Family, keys: np.ndarray, labels: np.ndarray, strength: float) -> Painting:
    """Return pictures painted in chunks that fit the cache."""
    parts = [
        chosen.paint(Draws(keys[at : at + _CHUNK]), labels[at : at + _CHUNK], strength)
        for at in range(0, max(len(keys), 1), _CHUNK)
    ]
    return Painting(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.mask for part in parts]),
        {key: np.concatenate([part.traits[key] for part in parts]) for key in parts[0].traits},
    )


def render(
    task: str,
    split: str,
    indices: Tensor | Sequence[int] | range,
    seed: int = 0,
    shifted: bool = True,
) -> tuple[Tensor, Tensor]:
    """Render pictures of a task.

    Args:
        task: One of `family_names`.
        split: One of `SIZES`.
        indices: Non-negative places in the split, N of them.
        seed: Which world.
        shifted: In the task's own style, `SHIFT_STRENGTH` away from the broad one; else the latter.

    Returns:
        Images, uint8 (N, 3, 32, 32), and labels, int64 (N,): the same bytes however batched.

    Raises:
        ValueError: If the family or the split is unknown, or an index is negative.
    """
    strength = SHIFT_STRENGTH[family(task).name] if shifted else 0.0
    painting, labels = paintings(task, split, indices, seed, strength)
    return torch.from_numpy(painting.images), torch.from_numpy(labels)


def captioned_with_labels(
    indices: Tensor | Sequence[int] | range, seed: int = 0
) -> tuple[Tensor, list[str], Tensor]:
    """Render pre-training pictures of every family in the broad style, with captions and classes.

    Args:
        indices: Non-negative, N of them; every round of len(class_list()) holds each class once.
        seed: Which world.

    Returns:
        Images, uint8 (N, 3, 32, 32); captions, N sentences; global class ids as in `class_list`,
        int64 (N,).

    Raises:
        ValueError: If an index is negative.
    """
    places, classes = _indices(indices), class_list()
    ids = balanced_labels(places, len(classes), "captioned", seed)
    keys = image_keys(places, "captioned", seed)
    images = np.empty((len(places), 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    sentences = [""] * len(places)
    first = 0
    for one in _FAMILIES.values():
        (rows,) = np.nonzero((ids >= first) & (ids < first + len(one.classnames)))
        if len(rows):
            labels = ids[rows] - first
            painting = _paint(one, keys[rows], labels, 0.0)
            images[rows] = painting.images
            for row, sentence in zip(
                rows, write_captions(one, painting, labels, Draws(keys[rows])), strict=True
            ):
                sentences[row] = sentence
        first += len(one.classnames)
    return torch.from_numpy(images), sentences, torch.from_numpy(ids)


def captioned(indices: Tensor | Sequence[int] | range, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Return pre-training pictures and their captions; see `captioned_with_labels`."""
    images, sentences, _ = captioned_with_labels(indices, seed)
    return images, sentences
