"""Textures: repeating patterns of two colours."""

from functools import cache

import numpy as np

from .bank import Bank, stack
from .canvas import broad_light, broad_pose, develop, paint, place
from .draws import Dice, Draws
from .elementary import Array, column, lerp, ramp, sin_turns
from .family import Family, Painting
from .fields import Plane
from .ground import smooth_noise
from .palette import companion, pick

SIZE = 64
VARIANTS = 4  # of the patterns that are irregular
# width and height of a tile in picture units at scale 1
PERIOD = {
    "striped": (0.62, 0.62), "checkered": (0.86, 0.86), "dotted": (0.62, 0.62), "wavy": (1.5, 0.75),
    "zigzagged": (0.9, 0.75), "gridded": (0.62, 0.62), "bricked": (1.0, 0.8),
    "honeycombed": (0.8, 1.386),
    "marbled": (2.4, 2.4), "ringed": (3.2, 3.2), "scaly": (0.8, 0.8), "woven": (1.1, 1.1),
}  # fmt: skip


def _scales(plane: Plane) -> Array:
    """Return overlapping round scales, row upon row, each with a dark lower rim."""
    value = np.zeros_like(plane.x)
    for row in range(3, -4, -1):
        far = [plane.circle(column + row % 2, row, 0.0) for column in (-4, -2, 0, 2)]
        distance = np.minimum.reduce(far)
        value = np.where(distance < 1.0, ramp(6.0 * (distance - 0.7)), value)
    return value


def _weave(plane: Plane) -> Array:
    """Return basket weave: quarters of stripes, alternately lying and standing."""
    lying = (plane.x < 0) == (plane.y < 0)
    across = np.where(lying, plane.y, plane.x)
    return ramp(0.5 + 1.6 * sin_turns(2.0 * across - 0.25))


def _honeycomb(plane: Plane) -> Array:
    """Return the walls between hexagonal cells: where the two nearest centres are equally far."""
    ratio = PERIOD["honeycombed"][1] / PERIOD["honeycombed"][0]
    centres = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if (i + j) % 2]
    far = [np.sqrt((plane.x - i) ** 2 + (ratio * (plane.y - j)) ** 2) for i, j in centres]
    nearest = np.sort(np.stack(far), axis=0)
    return ramp(1.0 - 5.0 * (nearest[1] - nearest[0] - 0.2))


def _brick(plane: Plane) -> Array:
    """Return mortar between bricks laid in a running bond."""
    joint = np.where(plane.y < 0, np.abs(plane.x), 1.0 - np.abs(plane.x))
    bed = np.minimum(np.abs(plane.y), 1.0 - np.abs(plane.y))
    return ramp(1.0 - 9.0 * (np.minimum(joint * 1.25, bed) - 0.09))


def _marble(dice: Dice) -> Array:
    """Return veins: thin bands where smooth noise passes its middle."""
    noise = 0.7 * smooth_noise(dice, 4, SIZE) + 0.3 * smooth_noise(dice, 8, SIZE)
    return ramp(1.35 - 13.0 * np.abs(noise - 0.5))


def _tile(name: str, plane: Plane, dice: Dice) -> Array:
    """Return one tile, values in [0, 1]."""
    x, y = plane.x, plane.y
    if name == "striped":
        return ramp(0.5 + 2.5 * sin_turns(0.5 * x))
    if name == "checkered":
        return ramp(0.5 + 6.0 * sin_turns(0.5 * x) * sin_turns(0.5 * y))
    if name == "dotted":
        return ramp(0.5 - 6.0 * plane.circle(0.0, 0.0, 0.56))
    if name == "wavy":
        return ramp(0.5 + 2.0 * sin_turns(0.5 * y + 0.22 * sin_turns(0.5 * x)))
    if name == "zigzagged":
        return ramp(0.5 + 2.0 * sin_turns(0.5 * y + 0.62 * (np.abs(x) - 0.5)))
    if name == "gridded":
        return ramp(1.0 - 6.0 * (np.minimum(1.0 - np.abs(x), 1.0 - np.abs(y)) - 0.2))
    if name == "bricked":
        return _brick(plane)
    if name == "honeycombed":
        return _honeycomb(plane)
    if name == "marbled":
        return _marble(dice)
    if name == "ringed":
        return ramp(0.5 + 2.0 * sin_turns(2.5 * (plane.circle(0.0, 0.0, 0.0)) + 0.25))
    return _scales(plane) if name == "scaly" else _weave(plane)


@cache
def tiles() -> Bank:
    """Return `VARIANTS` tiles a texture, in the order of `PERIOD`."""
    plane = Plane(SIZE, 1.0)
    names = [(name, i) for name in PERIOD for i in range(VARIANTS)]
    return stack(
        [[_tile(name, plane, Dice("texture", name, i))] for name, i in names], 1.0, wraps=True
    )


_PERIODS = np.array(list(PERIOD.values()), dtype=np.float32)
_CENTRED = np.array([name == "ringed" for name in PERIOD])


def paint_textures(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of a texture; shifted: a grey relief under oblique light, foreshortened."""
    pose, light = broad_pose(draws, 0.85, 1.25), broad_light(draws)
    pose.rotation = np.where(_CENTRED[labels], pose.rotation, draws.bell("turn", 0.0, 0.11))
    ink, colours = pick(draws, "ink")
    name, ground = companion(draws, "ground", ink, colours)

    relief = draws.chance("relief", strength)
    pose.aspect = lerp(strength, pose.aspect, draws.uniform("shift aspect", 1.25, 1.45))
    pose.slant = lerp(strength, pose.slant, draws.bell("shift slant", 0.28, 0.1))
    pose.scale = lerp(strength, pose.scale, draws.uniform("shift scale", 1.0, 1.3))
    light.slope = lerp(strength, light.slope, draws.uniform("shift slope", 0.25, 0.4))

    u, v = place(pose)
    free = np.where(_CENTRED[labels], np.float32(0.0), np.float32(1.0))
    u, v = u * column(2.0 / _PERIODS[labels, 0]), v * column(2.0 / _PERIODS[labels, 1])
    u += column(free * draws.uniform("offset x", -1.0, 1.0))
    v += column(free * draws.uniform("offset y", -1.0, 1.0))
    which = labels * VARIANTS + draws.integer("variant", VARIANTS)
    (value,) = tiles().sample(which, u, v)
    picture = np.repeat(ground[:, :, None], u.shape[1], axis=2)
    paint(picture, colours, value)
    if relief.any():
        emboss(picture, value, draws, which, (u, v), _PERIODS[labels], relief)
    return Painting(develop(picture, light, draws), value, {"colour": ink, "ground": name})


def emboss(
    picture: Array,
    value: Array,
    draws: Draws,
    which: Array,
    at: tuple[Array, Array],
    periods: Array,
    takes: Array,
) -> None:
    """Replace some pictures by a relief: bright and dark slopes on a stone ground, in place."""
    u, v = at
    du, dv = column(0.09 / periods[:, 0]), column(0.17 / periods[:, 1])
    (ahead,) = tiles().sample(which, u + du, v + dv)
    (behind,) = tiles().sample(which, u - du, v - dv)
    stone = np.stack(
        [draws.bell(f"stone {c}", t, 0.06) for c, t in zip("rgb", (0.5, 0.46, 0.42), strict=True)],
        1,
    )
    slope = 0.34 * (behind - ahead) + 0.2 * (value - 0.5)
    carved = stone[:, :, None] + slope[:, None, :]
    picture += np.where(takes, np.float32(1.0), np.float32(0.0))[:, None, None] * (carved - picture)


TEXTURES = Family(
    name="textures",
    title="Textures",
    classnames=tuple(PERIOD),
    templates=(
        "a {} texture.",
        "a photo of a {} pattern.",
        "a {} surface.",
        "something {}.",
    ),
    description="Repeating patterns, twelve classes; stands in for DTD.",
    shift="Carved into stone and lit obliquely: slopes instead of colours, sheared and stretched.",
    paint=paint_textures,
    caption=(
        "a {} texture in {colour} and {ground}",
        "a {colour} and {ground} {} pattern",
        "a {} texture",
    ),
)
