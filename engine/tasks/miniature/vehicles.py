"""Vehicles from the side: a body, its windows, its wheels."""

from functools import cache

import numpy as np

from .bank import Bank, stack
from .canvas import broad_light, broad_pose, coverage, develop, paint, place
from .characters import repaint, traits
from .draws import Draws
from .elementary import Array, column, lerp
from .family import Family, Painting
from .fields import Plane, curve, minus, union
from .glyphs import line
from .ground import broad_ground, lay, set_kind
from .palette import jitter, keep_apart, luminance, pick

SIZE, EXTENT = 72, 1.25
Layers = list[Array]  # body, glass, wheels


def _wheels(p: Plane, y: float, *wheels: tuple[float, float]) -> Array:
    """Return wheels at (x, radius) standing on one line."""
    return union(*(p.circle(x, y - radius, radius) for x, radius in wheels))


def _car(p: Plane) -> Layers:
    cabin = p.polygon(line(-0.5, -0.1, -0.3, -0.44, 0.22, -0.44, 0.5, -0.1), 0.06)
    body = union(p.box(0, 0.1, 1.0, 0.24, 0.12), cabin)
    glass = union(
        p.polygon(line(-0.36, -0.1, -0.22, -0.36, -0.06, -0.36, -0.06, -0.1)),
        p.polygon(line(0.04, -0.1, 0.04, -0.36, 0.17, -0.36, 0.36, -0.1)),
    )
    return [body, glass, _wheels(p, 0.56, (-0.56, 0.24), (0.56, 0.24))]


def _bus(p: Plane) -> Layers:
    glass = union(
        *(p.box(x, -0.26, 0.15, 0.17, 0.03) for x in (-0.74, -0.36, 0.02, 0.4)),
        p.box(0.78, -0.18, 0.13, 0.26, 0.03),
    )
    return [p.box(0, 0, 1.02, 0.56, 0.1), glass, _wheels(p, 0.76, (-0.58, 0.2), (0.58, 0.2))]


def _truck(p: Plane) -> Layers:
    cab = p.polygon(line(0.5, 0.4, 0.5, -0.22, 0.78, -0.22, 1.0, 0.08, 1.0, 0.4), 0.04)
    body = union(p.box(-0.32, -0.18, 0.7, 0.56, 0.02), cab, p.box(0, 0.42, 1.0, 0.08))
    glass = p.polygon(line(0.6, 0.06, 0.6, -0.14, 0.74, -0.14, 0.88, 0.06))
    return [body, glass, _wheels(p, 0.76, (-0.72, 0.22), (-0.22, 0.22), (0.72, 0.22))]


def _van(p: Plane) -> Layers:
    body = p.polygon(
        line(-0.9, 0.36, -0.9, -0.46, 0.3, -0.46, 0.62, -0.02, 0.92, 0.08, 0.92, 0.36), 0.08
    )
    glass = union(p.polygon(line(0.02, -0.06, 0.02, -0.36, 0.26, -0.36, 0.46, -0.06)))
    return [body, glass, _wheels(p, 0.66, (-0.52, 0.23), (0.54, 0.23))]


def _frame_wheels(p: Plane, pen: float) -> Array:
    return union(p.ring(-0.6, 0.28, 0.34, pen), p.ring(0.6, 0.28, 0.34, pen))


def _bicycle(p: Plane) -> Layers:
    frame = [
        line(-0.6, 0.28, -0.26, -0.3, 0.34, -0.3, -0.06, 0.28, -0.6, 0.28),
        line(-0.06, 0.28, -0.32, -0.46),
        line(0.6, 0.28, 0.28, -0.56, 0.46, -0.6),
        line(-0.46, -0.48, -0.18, -0.48),
    ]
    return [
        union(*(p.stroke(piece, 0.065) for piece in frame)),
        p.nothing(),
        _frame_wheels(p, 0.06),
    ]


def _motorcycle(p: Plane) -> Layers:
    body = union(
        p.polygon(line(-0.3, 0.26, -0.42, -0.08, 0.2, -0.16, 0.3, 0.26), 0.08),
        p.stroke(curve(line(-0.86, -0.24, -0.5, -0.22, -0.1, -0.2, 0.16, -0.36, 0.32, -0.2)), 0.11),
        p.stroke(line(0.66, 0.34, 0.34, -0.46, 0.12, -0.56), 0.07),
        p.circle(0.5, -0.32, 0.14),
    )
    wheels = union(p.ring(-0.66, 0.34, 0.26, 0.12), p.ring(0.68, 0.34, 0.26, 0.12))
    return [body, p.nothing(), wheels]


def _tractor(p: Plane) -> Layers:
    cab = minus(p.box(-0.34, -0.42, 0.36, 0.42, 0.05), p.box(-0.34, -0.42, 0.24, 0.27))
    body = union(
        p.box(0.4, 0.12, 0.52, 0.24, 0.06),
        cab,
        p.box(-0.3, 0.16, 0.4, 0.2),
        p.box(0.56, -0.32, 0.06, 0.28),
    )
    return [body, p.box(-0.34, -0.42, 0.24, 0.27), _wheels(p, 0.84, (-0.48, 0.5), (0.66, 0.27))]


def _sailboat(p: Plane) -> Layers:
    hull = p.polygon(line(-0.86, 0.42, 0.9, 0.42, 0.6, 0.8, -0.6, 0.8), 0.04)
    sail = p.polygon(line(0.06, -0.98, 0.06, 0.24, 0.74, 0.24))
    jib = p.polygon(line(-0.1, -0.7, -0.1, 0.24, -0.66, 0.24))
    return [union(hull, sail, p.box(-0.02, -0.3, 0.05, 0.72)), jib, p.nothing()]


def _airplane(p: Plane) -> Layers:
    trunk = p.polygon(
        curve(
            line(-0.98, -0.06, -0.4, -0.2, 0.6, -0.2, 1.0, 0.02, 0.6, 0.18, -0.4, 0.16), closed=True
        )
    )
    body = union(
        trunk,
        p.polygon(line(-0.98, -0.56, -0.78, -0.56, -0.46, -0.1, -0.92, -0.06), 0.03),
        p.polygon(line(-0.4, 0.66, -0.18, 0.66, 0.32, 0.06, -0.1, 0.02), 0.03),
        p.polygon(line(-0.26, -0.52, -0.1, -0.52, 0.26, -0.14, -0.06, -0.14), 0.02),
    )
    glass = union(
        *(p.circle(x, -0.06, 0.055) for x in (-0.3, -0.08, 0.14, 0.36)),
        p.box(0.72, -0.06, 0.1, 0.06, 0.02),
    )
    return [body, glass, p.nothing()]


def _train(p: Plane) -> Layers:
    body = union(
        p.box(0.28, 0.02, 0.7, 0.28, 0.12),
        p.box(-0.62, -0.14, 0.36, 0.5, 0.03),
        p.box(-0.62, -0.62, 0.44, 0.07),
        p.polygon(line(0.56, -0.2, 0.48, -0.64, 0.86, -0.64, 0.76, -0.2)),
        p.circle(0.12, -0.3, 0.16),
        p.polygon(line(0.8, 0.3, 1.06, 0.62, 0.76, 0.62)),
        p.box(0.0, 0.34, 0.96, 0.08),
    )
    glass = p.box(-0.62, -0.26, 0.2, 0.2)
    return [body, glass, _wheels(p, 0.72, (-0.64, 0.26), (-0.06, 0.19), (0.34, 0.19), (0.7, 0.15))]


DRAWINGS = {
    "car": _car, "bus": _bus, "truck": _truck, "delivery van": _van, "bicycle": _bicycle,
    "motorcycle": _motorcycle, "tractor": _tractor, "sailboat": _sailboat, "jet plane": _airplane,
    "steam train": _train,
}  # fmt: skip


@cache
def vehicles() -> Bank:
    """Return one template a vehicle: body, glass, wheels; all face right."""
    plane = Plane(SIZE, EXTENT)
    return stack([draw(plane) for draw in DRAWINGS.values()], EXTENT)


def paint_vehicles(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of a vehicle; shifted: uphill at night, pale under streaks of light."""
    pose, light = broad_pose(draws, 0.64, 0.95, flips=True), broad_light(draws)
    pose.wave, pose.slant = pose.wave * 0.0, pose.slant * 0.6
    ink, colours = pick(draws, "ink")
    ground = broad_ground(draws, ink, colours)
    rubber = jitter(draws, "rubber", np.full((len(draws), 3), 0.12, dtype=np.float32))

    takes = draws.chance("shift palette", strength)
    night = ((0.62, 0.74, 0.95), (0.06, 0.05, 0.14), (0.3, 0.16, 0.3))
    colours = repaint(takes, draws, colours, ground, night)
    glow = jitter(draws, "glow", np.tile(np.float32((0.95, 0.62, 0.2)), (len(draws), 1)))
    set_kind(draws, ground, "streaked", strength, draws.bell("streak turn", 0.0, 0.02))
    uphill = draws.bell("shift rotation", -0.075, 0.02) * pose.flip
    pose.rotation = lerp(strength, pose.rotation, uphill)
    pose.aspect = lerp(strength, pose.aspect, draws.bell("shift aspect", 0.84, 0.06))
    pose.slant = lerp(strength, pose.slant, draws.bell("shift slant", 0.3, 0.08))

    dark_ground = luminance(ground.first) < 0.5
    grey = jitter(draws, "rim", np.where(column(dark_ground), np.float32(0.62), rubber))
    rubber = np.where(column(takes), glow, grey)
    glass = keep_apart(colours, colours, luminance(colours) < 0.5, 0.4)
    layers = vehicles().sample(labels, *place(pose))
    covers = [coverage(layer, pose.scale) for layer in layers]
    picture = lay(draws, ground)
    for tone, cover in zip((colours, glass, rubber), covers, strict=True):
        paint(picture, tone, cover)
    mask = covers[0] * (1.0 - covers[1]) * (1.0 - covers[2])
    return Painting(develop(picture, light, draws), mask, traits(pose, ground, ink))


VEHICLES = Family(
    name="vehicles",
    title="Vehicles",
    classnames=tuple(DRAWINGS),
    templates=(
        "a side view of a {}.",
        "a photo of a {}.",
        "a silhouette of a {}.",
        "a {}, a kind of vehicle.",
    ),
    description="Vehicles from the side, ten classes; stands in for Cars.",
    shift="At night: a pale vehicle with glowing wheels, going uphill before streaks of light.",
    paint=paint_vehicles,
    caption=("a side view of a {size} {colour} {}", "a {size} {colour} {}, a kind of vehicle"),
)
