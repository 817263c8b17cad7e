"""Everyday things, drawn flat: the control family."""

from functools import cache

import numpy as np

from .bank import Bank, stack
from .canvas import broad_light, broad_pose, coverage, develop, paint, place
from .characters import traits
from .draws import Draws
from .elementary import Array, lerp
from .family import Family, Painting
from .fields import Plane, arc, both, curve, minus, regular, union
from .glyphs import line
from .ground import broad_ground, lay
from .palette import keep_apart, luminance, pick

SIZE, EXTENT = 72, 1.25
Layers = list[Array]  # figure, details


def _star(p: Plane) -> Layers:
    outer, inner = regular(0, 0.06, 1.0, 5), regular(0, 0.06, 0.42, 5, 0.1)
    return [p.polygon([q for pair in zip(outer, inner, strict=True) for q in pair]), p.nothing()]


def _heart(p: Plane) -> Layers:
    outline = line(0, -0.4, 0.3, -0.78, 0.78, -0.7, 0.94, -0.26, 0.66, 0.24, 0, 0.92, -0.66, 0.24,
                   -0.94, -0.26, -0.78, -0.7, -0.3, -0.78)  # fmt: skip
    return [p.polygon(curve(outline, closed=True)), p.nothing()]


def _house(p: Plane) -> Layers:
    roof = p.polygon(line(-0.98, -0.08, 0, -0.92, 0.98, -0.08))
    body = union(roof, p.box(0, 0.4, 0.72, 0.5), p.box(0.5, -0.62, 0.12, 0.24))
    return [body, union(p.box(-0.28, 0.56, 0.18, 0.34), p.box(0.3, 0.3, 0.18, 0.18))]


def _tree(p: Plane) -> Layers:
    crown = union(p.circle(0, -0.5, 0.44), p.circle(-0.36, -0.14, 0.4), p.circle(0.36, -0.14, 0.4))
    trunk = p.box(0, 0.52, 0.13, 0.45)
    return [union(crown, trunk), trunk]


def _flower(p: Plane) -> Layers:
    petals = union(*(p.circle(x, y, 0.3) for x, y in regular(0, -0.4, 0.36, 5)))
    stem = union(
        p.stroke(line(0, -0.1, 0, 0.96), 0.06),
        p.ellipse(0.26, 0.5, 0.28, 0.12, -0.08),
        p.ellipse(-0.26, 0.66, 0.28, 0.12, 0.08),
    )
    return [union(petals, stem), p.circle(0, -0.4, 0.2)]


def _fish(p: Plane) -> Layers:
    body = union(
        p.ellipse(0.14, 0, 0.78, 0.46),
        p.polygon(line(-0.42, 0, -0.98, -0.5, -0.84, 0, -0.98, 0.5), 0.03),
    )
    fin = p.polygon(line(-0.1, -0.38, 0.1, -0.7, 0.36, -0.36))
    stripe = both(p.ellipse(0.14, 0, 0.78, 0.46), np.abs(p.circle(0.9, 0, 0.72)) - 0.06)
    return [union(body, fin), union(p.circle(0.56, -0.12, 0.1), stripe)]


def _mug(p: Plane) -> Layers:
    handle = p.ring(0.5, 0.02, 0.36, 0.1)
    return [union(p.box(-0.2, 0.06, 0.58, 0.72, 0.1), handle), p.box(-0.2, -0.5, 0.48, 0.08, 0.04)]


def _key(p: Plane) -> Layers:
    bow = p.ring(-0.58, 0, 0.32, 0.13)
    bits = union(
        p.box(0.3, 0, 0.64, 0.1), p.box(0.84, 0.2, 0.09, 0.22), p.box(0.52, 0.17, 0.08, 0.18)
    )
    return [union(bow, bits), p.nothing()]


def _bottle(p: Plane) -> Layers:
    body = union(
        p.box(0, 0.36, 0.4, 0.6, 0.14),
        p.box(0, -0.6, 0.15, 0.38, 0.04),
        p.polygon(line(-0.3, -0.14, -0.1, -0.4, 0.1, -0.4, 0.3, -0.14), 0.06),
    )
    return [body, p.box(0, 0.4, 0.4, 0.24)]


def _umbrella(p: Plane) -> Layers:
    dome = both(p.circle(0, 0.1, 0.98), p.y - 0.06)
    scallops = union(*(p.circle(x, 0.12, 0.25) for x in (-0.66, 0.0, 0.66)))
    shaft = union(
        p.stroke(line(0, -0.1, 0, 0.72), 0.06), p.stroke(arc(0.17, 0.72, 0.17, 0.0, 0.5), 0.06)
    )
    rib = curve(line(-0.05, -0.9, -0.3, -0.4, -0.34, 0.1))
    ribs = both(dome, p.stroke(rib, 0.03))
    return [union(minus(dome, scallops), shaft, p.box(0, -0.92, 0.05, 0.08)), ribs]


def _moon(p: Plane) -> Layers:
    return [minus(p.circle(-0.06, 0, 0.94), p.circle(0.4, -0.14, 0.78)), p.nothing()]


def _cloud(p: Plane) -> Layers:
    puffs = union(
        p.circle(-0.5, 0.16, 0.36), p.circle(-0.1, -0.16, 0.46), p.circle(0.44, 0.04, 0.42)
    )
    return [union(puffs, p.box(0, 0.34, 0.84, 0.2, 0.18)), p.nothing()]


def _arrow(p: Plane) -> Layers:
    return [
        union(p.polygon(line(0.16, -0.72, 0.98, 0, 0.16, 0.72)), p.box(-0.38, 0, 0.6, 0.25)),
        p.nothing(),
    ]


def _mushroom(p: Plane) -> Layers:
    cap = both(p.ellipse(0, 0.0, 0.94, 0.88), p.y - 0.04)
    spots = union(
        p.circle(-0.4, -0.28, 0.16), p.circle(0.14, -0.52, 0.16), p.circle(0.5, -0.2, 0.14)
    )
    return [union(cap, p.box(0, 0.42, 0.28, 0.5, 0.14)), spots]


def _apple(p: Plane) -> Layers:
    flesh = union(p.ellipse(-0.3, 0.2, 0.52, 0.68), p.ellipse(0.3, 0.2, 0.52, 0.68))
    stalk = p.stroke(curve(line(0, -0.34, 0.04, -0.6, 0.16, -0.86)), 0.07)
    leaf = p.ellipse(0.4, -0.7, 0.28, 0.13, -0.06)
    return [
        union(minus(flesh, p.circle(0, -0.56, 0.24)), stalk, leaf),
        p.ellipse(-0.42, 0.0, 0.12, 0.22, 0.05),
    ]


def _butterfly(p: Plane) -> Layers:
    wings = union(
        *(p.ellipse(s * 0.52, -0.36, 0.5, 0.4, -s * 0.1) for s in (-1, 1)),
        *(p.ellipse(s * 0.42, 0.42, 0.38, 0.34, s * 0.1) for s in (-1, 1)),
    )
    feelers = union(
        p.stroke(line(0, -0.5, 0.2, -0.92), 0.04), p.stroke(line(0, -0.5, -0.2, -0.92), 0.04)
    )
    body = p.ellipse(0, 0.06, 0.09, 0.62)
    spots = union(*(p.circle(s * 0.58, -0.38, 0.17) for s in (-1, 1)))
    return [union(wings, feelers, body), union(body, spots)]


def _chair(p: Plane) -> Layers:
    legs = union(p.box(-0.44, 0.56, 0.09, 0.4), p.box(0.5, 0.56, 0.09, 0.4))
    back = p.box(-0.44, -0.46, 0.1, 0.5, 0.03)
    return [union(legs, p.box(0.03, 0.12, 0.6, 0.11, 0.03), back), p.nothing()]


def _hourglass(p: Plane) -> Layers:
    glass = union(
        p.polygon(line(-0.56, -0.8, 0.56, -0.8, 0.05, 0, -0.05, 0), 0.03),
        p.polygon(line(-0.05, 0, 0.05, 0, 0.56, 0.8, -0.56, 0.8), 0.03),
    )
    caps = union(p.box(0, -0.86, 0.7, 0.1, 0.04), p.box(0, 0.86, 0.7, 0.1, 0.04))
    sand = union(
        p.polygon(line(-0.36, 0.74, 0, 0.34, 0.36, 0.74)),
        p.polygon(line(-0.3, -0.5, 0.3, -0.5, 0, -0.08)),
    )
    return [union(glass, caps), sand]


def _snowman(p: Plane) -> Layers:
    balls = union(p.circle(0, 0.5, 0.46), p.circle(0, -0.22, 0.34))
    hat = union(p.box(0, -0.56, 0.4, 0.06), p.box(0, -0.78, 0.24, 0.2))
    arms = union(
        p.stroke(line(-0.26, -0.16, -0.8, -0.4), 0.05), p.stroke(line(0.26, -0.16, 0.8, -0.4), 0.05)
    )
    return [
        union(balls, hat, arms),
        union(hat, p.circle(0, -0.24, 0.08), p.circle(0, 0.36, 0.09), p.circle(0, 0.64, 0.09)),
    ]


def _lamp(p: Plane) -> Layers:
    shade = p.polygon(line(-0.36, -0.92, 0.36, -0.92, 0.72, -0.1, -0.72, -0.1))
    return [
        union(shade, p.box(0, 0.3, 0.08, 0.5), p.box(0, 0.84, 0.46, 0.1, 0.06)),
        both(shade, np.abs(p.y + 0.24) - 0.06),
    ]


DRAWINGS = {
    "star": _star,
    "heart": _heart,
    "house": _house,
    "tree": _tree,
    "flower": _flower,
    "fish": _fish,
    "mug": _mug,
    "key": _key,
    "bottle": _bottle,
    "umbrella": _umbrella,
    "crescent moon": _moon,
    "cloud": _cloud,
    "arrow": _arrow,
    "mushroom": _mushroom,
    "apple": _apple,
    "butterfly": _butterfly,
    "chair": _chair,
    "hourglass": _hourglass,
    "snowman": _snowman,
    "lamp": _lamp,
}


@cache
def things() -> Bank:
    """Return one template a thing: its figure and its details."""
    plane = Plane(SIZE, EXTENT)
    return stack([draw(plane) for draw in DRAWINGS.values()], EXTENT)


def paint_objects(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of an everyday thing; shifted: a little tilted, in warm slanting light."""
    pose, light = broad_pose(draws, flips=True), broad_light(draws)
    ink, colours = pick(draws, "ink")
    ground = broad_ground(draws, ink, colours)
    tilt = np.where(draws.chance("shift side", 0.5), np.float32(0.05), np.float32(-0.05))
    pose.rotation = lerp(strength, pose.rotation, tilt + draws.bell("shift rotation", 0.0, 0.02))
    light.slope = lerp(strength, light.slope, draws.uniform("shift slope", 0.2, 0.35))
    warm = np.float32((1.0, 0.9, 0.75)) * np.ones((len(draws), 1), dtype=np.float32)
    light.tint = lerp(strength, light.tint, warm)

    figure, details = things().sample(labels, *place(pose))
    cover = coverage(figure, pose.scale)
    accent = keep_apart(colours, colours, luminance(colours) < 0.5, 0.3)
    picture = lay(draws, ground)
    paint(picture, colours, cover)
    paint(picture, accent, coverage(details, pose.scale) * cover)
    return Painting(develop(picture, light, draws), cover, traits(pose, ground, ink))


OBJECTS = Family(
    name="objects",
    title="Everyday things",
    classnames=tuple(DRAWINGS),
    templates=(
        "a picture of the {}.",
        "a drawing: {}.",
        "a thing called {}.",
        "an icon of the {}.",
    ),
    description="Everyday things, twenty classes: the control task, standing in for ImageNet.",
    shift="A mild one: tilted a little, in warm slanting light.",
    paint=paint_objects,
    caption=("a {size} {colour} {}", "a drawing of a {colour} {}"),
)
