"""Grounds: what lies behind a figure, mixed of two colours by a tile that repeats."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .bank import Bank, stack
from .canvas import PIXEL_X, PIXEL_Y
from .draws import Dice, Draws
from .elementary import Array, column, cos_turns, ramp, sin_turns
from .fields import Plane
from .palette import companion, luminance

SIZE = 64
BROAD_KINDS = ("plain", "shaded", "cloudy", "striped", "spotted")
SHIFT_KINDS = ("ruled", "brick", "checkered", "tangled", "streaked")
KINDS = BROAD_KINDS + SHIFT_KINDS
# tiles across half a picture: least and most
FREQUENCY = {
    "plain": (0.2, 0.3), "shaded": (0.2, 0.35), "cloudy": (0.25, 0.5), "striped": (1.2, 2.2),
    "spotted": (1.2, 2.0), "ruled": (2.1, 2.7), "brick": (0.9, 1.2), "checkered": (0.9, 1.3),
    "tangled": (0.35, 0.5), "streaked": (0.3, 0.45),
}  # fmt: skip


@dataclass
class Ground:
    """The ground of N images.

    Attributes:
        kind: Place in `KINDS`, int64 (N,).
        name: Place of the first colour in `palette.NAMES`, int64 (N,).
        first: Colour where the tile is 0, float32 (N, 3).
        second: Colour where the tile is 1, float32 (N, 3).
        rotation: Turns, float32 (N,).
    """

    kind: Array
    name: Array
    first: Array
    second: Array
    rotation: Array


def smooth_noise(dice: Dice, cells: int, size: int = SIZE) -> Array:
    """Value noise that repeats, in [0, 1], shape (size, size): a lattice smoothed by a cubic.

    Args:
        dice: Randomness.
        cells: Lattice cells a side.
        size: Grid points a side.

    Returns:
        float32 (size, size).
    """
    lattice = np.array([[dice.uniform() for _ in range(cells)] for _ in range(cells)])
    at = (np.arange(size) + 0.5) * (cells / size)
    before = np.floor(at).astype(int)
    part = at - before
    part = part * part * (3.0 - 2.0 * part)
    before, after = before % cells, (before + 1) % cells
    rows = lattice[before] + part[:, None] * (lattice[after] - lattice[before])
    mixed = rows[:, before] + part[None, :] * (rows[:, after] - rows[:, before])
    return mixed.astype(np.float32)


def _tile(kind: str) -> Array:
    """Return one tile, values in [0, 1], over the square [-1, 1), repeating."""
    plane, dice = Plane(SIZE, 1.0), Dice("ground", kind)
    x, y = plane.x, plane.y
    if kind == "plain":
        return np.zeros_like(x)
    if kind == "shaded":
        return 0.5 + 0.5 * sin_turns(0.5 * x)
    if kind == "cloudy":
        return ramp(1.5 * (0.65 * smooth_noise(dice, 4) + 0.35 * smooth_noise(dice, 9)) - 0.25)
    if kind == "striped":
        return ramp(0.5 + 1.5 * sin_turns(0.5 * x))
    if kind == "spotted":
        return ramp(0.5 - 5.0 * plane.circle(0.0, 0.0, 0.55))
    if kind == "ruled":
        return ramp(1.0 - 4.0 * (np.abs(y) - 0.12))
    if kind == "brick":
        mortar = np.minimum(np.abs(np.abs(y) - 0.5), 1.0)
        joint = np.where(np.abs(y) < 0.5, np.abs(x), 1.0 - np.abs(x))
        return ramp(1.0 - 9.0 * (np.minimum(mortar, joint) - 0.05))
    if kind == "checkered":
        return ramp(0.5 + 12.0 * sin_turns(0.5 * x) * sin_turns(0.5 * y))
    if kind == "streaked":
        return ramp(2.2 * smooth_noise(dice, 12)[:, :1] * np.ones_like(x) - 0.6)
    return _tangle(plane, dice)


def _tangle(plane: Plane, dice: Dice) -> Array:
    """Return short strokes strewn about, wrapped round the tile's edges."""
    line = plane.nothing()
    for _ in range(14):
        px, py = dice.uniform(-1.0, 1.0), dice.uniform(-1.0, 1.0)
        turn = dice.uniform()
        dx, dy = 0.28 * float(cos_turns(turn)), 0.28 * float(sin_turns(turn))
        for ox in (-2.0, 0.0, 2.0):
            for oy in (-2.0, 0.0, 2.0):
                p, q = (px - dx + ox, py - dy + oy), (px + dx + ox, py + dy + oy)
                line = np.minimum(line, plane.segment(p, q))
    return ramp(1.0 - 14.0 * (line - 0.07))


@cache
def tiles() -> Bank:
    """Return the tiles of every kind, in the order of `KINDS`."""
    return stack([[_tile(kind)] for kind in KINDS], 1.0, wraps=True)


_LOW, _HIGH = np.array([FREQUENCY[kind] for kind in KINDS], dtype=np.float32).T


def broad_ground(draws: Draws, figure: Array, colours: Array) -> Ground:
    """Draw a ground of the broad style that a figure stands out from everywhere.

    The second colour lies between the first and another companion of the figure on the same side,
    so that every mixture of the two stands out as well.

    Args:
        draws: Random numbers of N images.
        figure: The figure's colour name, int64 (N,).
        colours: The figure's colour, float32 (N, 3).

    Returns:
        The ground.
    """
    name, first = companion(draws, "ground", figure, colours)
    _, other = companion(draws, "ground 2", figure, colours)
    kind = draws.integer("ground kind", len(BROAD_KINDS) + 1) - 1  # a plain ground twice as often
    second = same_side(first, other, colours, draws.uniform("ground mix", 0.25, 0.7))
    return Ground(np.maximum(kind, 0), name, first, second, draws.uniform("ground turn"))


def same_side(first: Array, other: Array, figure: Array, share: Array) -> Array:
    """Return ``first`` moved towards ``other``; towards white or black where that is opposite."""
    level = luminance(figure)
    above = luminance(first) > level
    agrees = above == (luminance(other) > level)
    further = np.where(column(above), np.float32(1.0), np.float32(0.0))
    target = np.where(column(agrees), other, further * np.ones_like(first))
    return first + column(share) * (target - first)


def set_kind(draws: Draws, ground: Ground, kind: str, strength: float, rotation: Array) -> None:
    """Give the share ``strength`` of the images another kind and direction, in place."""
    takes = draws.chance("shift ground kind", strength)
    ground.kind = np.where(takes, KINDS.index(kind), ground.kind)
    ground.rotation = np.where(takes, rotation, ground.rotation)


def lay(draws: Draws, ground: Ground) -> Array:
    """Paint the ground.

    Args:
        draws: Random numbers of N images.
        ground: What to paint.

    Returns:
        Picture, float32 (N, 3, 1024).
    """
    frequency = _LOW[ground.kind] + (_HIGH - _LOW)[ground.kind] * draws.uniform("ground frequency")
    frequency = 2.0 * frequency  # a tile is two units wide
    c, s = cos_turns(ground.rotation) * frequency, sin_turns(ground.rotation) * frequency
    u = column(c) * PIXEL_X + column(s) * PIXEL_Y + column(draws.uniform("ground x", -1.0, 1.0))
    v = column(c) * PIXEL_Y - column(s) * PIXEL_X + column(draws.uniform("ground y", -1.0, 1.0))
    (tile,) = tiles().sample(ground.kind, u, v)
    return ground.first[:, :, None] + tile[:, None, :] * (ground.second - ground.first)[:, :, None]
