"""What the energy explorer needs, in one buffer: every setting's energies, and the pictures."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.components.buffers import LARGEST_PAYLOAD, Arrays, frame

FORMAT = 1
ORDERS = ("sorted", "class", "drawn")
SIDE = 32  # pixels of a picture


@dataclass(frozen=True)
class Setting:
    """One stop of a slider: ``key`` names it in the address, ``kind`` says on which slider."""

    key: str
    kind: str  # "leading" or "ridge"
    label: str


@dataclass(frozen=True, eq=False)
class Block:
    """Points that are drawn together.

    Attributes:
        title: What a reader sees.
        labels: Class of every point, shape (n,).
        classnames: By class.
        pictures: uint8, shape (n, 32, 32, 3); None where there is no room for them.
    """

    title: str
    labels: np.ndarray
    classnames: Sequence[str]
    pictures: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """Energies of two blocks under one encoder at every setting.

    Attributes:
        encoder: What a reader sees.
        arrangement: Which columns the kernel has; panels of one arrangement share a row.
        title: Stands above the panel.
        note: Explains it in a sentence.
        blocks: Places of the two blocks.
        mean: Over the logits, float, shape (settings, n + m), the first block first.
        spread: Standard deviation over the logits, the same shape.
        scores: A setting each: area under the ROC curve and its interval (auc, low, high).
    """

    encoder: str
    arrangement: str
    title: str
    note: str
    blocks: tuple[int, int]
    mean: np.ndarray
    spread: np.ndarray
    scores: Sequence[tuple[float, float, float]]


def pack(
    settings: Sequence[Setting],
    blocks: Sequence[Block],
    curves: Sequence[Curve],
    *,
    setting: str,
    order: str = "sorted",
    revision: int = 0,
    status: str = "",
) -> bytes:
    """Pack the explorer's view; pictures are left out where they would not fit.

    Args:
        settings: Stops of the sliders, in their order.
        blocks: Points.
        curves: Panels, in the order of their rows.
        setting: Key of the one shown first.
        order: One of :data:`ORDERS`.
        revision: Raise it to move a mounted explorer to ``setting`` and ``order``.
        status: Says what the numbers are: exact, n.

    Returns:
        The buffer for ``energy_explorer``.

    Raises:
        ValueError: If shapes do not agree, or even the numbers alone do not fit.
    """
    keys = [item.key for item in settings]
    if setting not in keys or order not in ORDERS:
        raise ValueError(f"setting {setting!r} and order {order!r}, expected one of those offered")
    for curve in curves:
        width = sum(len(blocks[place].labels) for place in curve.blocks)
        shape = (len(settings), width)
        if curve.mean.shape != shape or curve.spread.shape != shape:
            raise ValueError(f"{curve.title}: energies of {curve.mean.shape}, expected {shape}")
        if len(curve.scores) != len(settings):
            raise ValueError(f"{curve.title}: {len(curve.scores)} scores for {len(settings)}")
    for pictures in (True, False):
        arrays = Arrays()
        header = {
            "format": FORMAT,
            "revision": int(revision),
            "status": status,
            "settings": [vars(item) for item in settings],
            "setting": setting,
            "order": order,
            "blocks": [_block(block, arrays, pictures) for block in blocks],
            "curves": [_curve(curve, arrays) for curve in curves],
        }
        body = arrays.bytes()
        header["digest"] = hashlib.blake2b(body, digest_size=16).hexdigest()
        payload = frame(header, body)
        if len(payload) <= LARGEST_PAYLOAD:
            return payload
    raise ValueError(
        f"the explorer's payload is {len(payload) / 2**20:.1f} MB, at most "
        f"{LARGEST_PAYLOAD / 2**20:.0f} MB fit: show fewer points or settings"
    )


def _block(block: Block, arrays: Arrays, pictures: bool) -> dict:
    """Return a block's part of the header; appends its arrays."""
    shown = pictures and block.pictures is not None
    return {
        "title": block.title,
        "classes": [str(name) for name in block.classnames],
        "labels": arrays.add(np.asarray(block.labels), "u2"),
        "pictures": arrays.add(block.pictures, "u1") if shown else None,
    }


def _curve(curve: Curve, arrays: Arrays) -> dict:
    """Return a curve's part of the header; appends its arrays."""
    return {
        "encoder": curve.encoder,
        "arrangement": curve.arrangement,
        "title": curve.title,
        "note": curve.note,
        "blocks": list(curve.blocks),
        "mean": arrays.add(curve.mean, "f4"),
        "spread": arrays.add(curve.spread, "f4"),
        "scores": [[float(value) for value in score] for score in curve.scores],
    }
