"""Traffic signs: a rim, a face and a symbol, each in the sign's own colour."""

import math
from functools import cache

import numpy as np

from .bank import Bank, stack
from .canvas import broad_light, broad_pose, coverage, develop, paint, place
from .draws import Draws
from .elementary import Array, lerp
from .family import Family, Painting
from .fields import Plane, both, curve, regular, union
from .glyphs import line
from .ground import broad_ground, lay, set_kind
from .palette import COLOURS, NAMES, jitter

SIZE, EXTENT = 72, 1.25
RED, YELLOW, BLUE, BLACK, WHITE = (
    NAMES.index(name) for name in ("red", "yellow", "blue", "black", "white")
)


def _arrow(plane: Plane, *points: float) -> Array:
    """Return a bent arrow through the points, its head at the last one."""
    shaft = line(*points)
    (px, py), (qx, qy) = shaft[-2:]
    length = math.sqrt((qx - px) ** 2 + (qy - py) ** 2)
    dx, dy = (qx - px) / length, (qy - py) / length
    tip = (qx + 0.2 * dx, qy + 0.2 * dy)
    bx, by = qx - 0.2 * dx, qy - 0.2 * dy
    head = [tip, (bx - 0.36 * dy, by + 0.36 * dx), (bx + 0.36 * dy, by - 0.36 * dx)]
    return union(plane.stroke(shaft, 0.13), plane.polygon(head))


def _disc(plane: Plane, symbol: Array, rim: float) -> list[Array]:
    """Return a round sign."""
    return [plane.circle(0, 0, 0.98), plane.circle(0, 0, 0.98 - rim), symbol]


def _triangle(plane: Plane, symbol: Array, turn: float = 0.0) -> list[Array]:
    """Return a triangular sign with a broad rim."""
    shift = 0.18 if turn == 0.0 else -0.18
    return [
        plane.polygon(regular(0, shift, 1.1, 3, turn), 0.08),
        plane.polygon(regular(0, shift, 0.72, 3, turn), 0.02),
        symbol,
    ]


def _square(plane: Plane, symbol: Array) -> list[Array]:
    """Return a square sign with a thin rim."""
    return [plane.box(0, 0, 0.92, 0.92, 0.15), plane.box(0, 0, 0.83, 0.83, 0.1), symbol]


def _stop(plane: Plane) -> list[Array]:
    """Return the octagon with its word."""
    word = [
        curve(
            line(
                -0.5,
                -0.22,
                -0.64,
                -0.28,
                -0.72,
                -0.14,
                -0.6,
                0.0,
                -0.5,
                0.14,
                -0.6,
                0.28,
                -0.74,
                0.2,
            )
        ),
        line(-0.4, -0.27, -0.08, -0.27),
        line(-0.24, -0.27, -0.24, 0.28),
        curve(line(0.16, -0.28, 0.28, 0.0, 0.16, 0.28, 0.04, 0.0), closed=True),
        line(0.46, 0.28, 0.46, -0.27),
        curve(line(0.46, -0.27, 0.7, -0.2, 0.66, 0.02, 0.46, 0.04)),
    ]
    turn = 0.0625
    letters = union(*(plane.stroke(stroke, 0.055) for stroke in word))
    return [
        plane.polygon(regular(0, 0, 1.04, 8, turn)),
        plane.polygon(regular(0, 0, 0.92, 8, turn)),
        letters,
    ]


def _fifty(plane: Plane) -> Array:
    """Return the number 50 of a speed limit."""
    five = [
        line(-0.12, -0.36, -0.42, -0.36, -0.44, -0.04),
        curve(line(-0.44, -0.04, -0.22, -0.1, -0.1, 0.12, -0.24, 0.36, -0.48, 0.3)),
    ]
    nought = curve(line(0.26, -0.38, 0.42, 0.0, 0.26, 0.38, 0.1, 0.0), closed=True)
    return union(*(plane.stroke(stroke, 0.085) for stroke in [*five, nought]))


def _walker(plane: Plane) -> Array:
    """Return a walking person."""
    limbs = [
        line(0.0, -0.3, -0.02, 0.12), line(-0.02, 0.12, 0.26, 0.62), line(-0.02, 0.12, -0.3, 0.62),
        line(0.0, -0.24, 0.32, 0.06), line(0.0, -0.24, -0.32, 0.06),
    ]  # fmt: skip
    return union(plane.circle(0.02, -0.56, 0.15), *(plane.stroke(limb, 0.1) for limb in limbs))


def _bend(plane: Plane) -> Array:
    """Return a winding road's arrowless S."""
    return plane.stroke(curve(line(0.14, -0.3, -0.2, 0.0, 0.2, 0.26, -0.06, 0.56)), 0.11)


def _signs() -> dict[str, tuple[list[Array], tuple[int, int, int]]]:
    """Return every sign: its layers, and the colours of rim, face and symbol."""
    p = Plane(SIZE, EXTENT)
    parking = union(
        p.stroke(line(-0.28, 0.56, -0.28, -0.54), 0.12),
        p.stroke(curve(line(-0.28, -0.54, 0.2, -0.5, 0.36, -0.22, 0.2, 0.04, -0.28, 0.08)), 0.12),
    )
    strokes = union(
        *(
            p.stroke(line(-0.62 + s, 0.36 + s, 0.36 + s, -0.62 + s), 0.045)
            for s in (0.0, 0.13, 0.26)
        )
    )
    slash = both(strokes, p.circle(0, 0, 0.82))
    cross = union(
        p.stroke(line(-0.8, -0.8, 0.8, 0.8), 0.22), p.stroke(line(-0.8, 0.8, 0.8, -0.8), 0.22)
    )
    cross_face = union(
        p.stroke(line(-0.78, -0.78, 0.78, 0.78), 0.12),
        p.stroke(line(-0.78, 0.78, 0.78, -0.78), 0.12),
    )
    caution = union(p.stroke(line(0, -0.32, 0, 0.18), 0.11), p.circle(0, 0.5, 0.12))
    plus = union(
        p.stroke(line(0, -0.36, 0, 0.56), 0.11), p.stroke(line(-0.4, 0.22, 0.4, 0.22), 0.11)
    )
    diamond = [
        p.polygon(regular(0, 0, 1.08, 4)),
        p.polygon(regular(0, 0, 0.88, 4)),
        p.polygon(regular(0, 0, 0.62, 4)),
    ]
    return {
        "stop": (_stop(p), (WHITE, RED, WHITE)),
        "yield": (_triangle(p, p.nothing(), 0.5), (RED, WHITE, WHITE)),
        "no entry": (_disc(p, p.box(0, 0, 0.66, 0.17, 0.04), 0.07), (WHITE, RED, WHITE)),
        "speed limit": (_disc(p, _fifty(p), 0.25), (RED, WHITE, BLACK)),
        "priority road": (diamond, (BLACK, WHITE, YELLOW)),
        "turn left": (
            _disc(p, _arrow(p, 0.26, 0.56, 0.26, -0.06, -0.36, -0.06), 0.08),
            (WHITE, BLUE, WHITE),
        ),
        "turn right": (
            _disc(p, _arrow(p, -0.26, 0.56, -0.26, -0.06, 0.36, -0.06), 0.08),
            (WHITE, BLUE, WHITE),
        ),
        "straight ahead": (_disc(p, _arrow(p, 0, 0.62, 0, -0.3), 0.08), (WHITE, BLUE, WHITE)),
        "parking": (_square(p, parking), (WHITE, BLUE, WHITE)),
        "pedestrian crossing": (_square(p, _walker(p)), (BLACK, YELLOW, BLACK)),
        "general caution": (_triangle(p, caution), (RED, WHITE, BLACK)),
        "crossroads": (_triangle(p, plus), (RED, YELLOW, BLACK)),
        "end of all limits": (_disc(p, slash, 0.08), (BLACK, WHITE, BLACK)),
        "level crossing": ([cross, cross_face, p.nothing()], (RED, WHITE, WHITE)),
    }


@cache
def signs() -> tuple[Bank, Array]:
    """Return the templates, and the colours of rim, face and symbol, int64 (C, 3)."""
    table = _signs()
    return stack([layers for layers, _ in table.values()], EXTENT), np.array([
        c for _, c in table.values()
    ])


def paint_signs(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of a traffic sign; shifted: leaning, at dusk, blurred, before clutter."""
    bank, colours = signs()
    pose, light = broad_pose(draws, 0.66, 0.94), broad_light(draws)
    pose.wave, pose.slant = pose.wave * 0.0, pose.slant * 0.5
    rim = colours[labels, 0]
    tones = [jitter(draws, f"layer {i}", COLOURS[colours[labels, i]], 0.08) for i in range(3)]
    ground = broad_ground(draws, rim, tones[0])

    set_kind(draws, ground, "tangled", strength, draws.uniform("tangle turn"))
    pose.rotation = lerp(strength, pose.rotation, draws.bell("shift rotation", -0.06, 0.02))
    pose.slant = lerp(strength, pose.slant, draws.bell("shift slant", -0.3, 0.08))
    pose.aspect = lerp(strength, pose.aspect, draws.bell("shift aspect", 0.8, 0.06))
    pose.scale = lerp(strength, pose.scale, draws.uniform("shift scale", 0.76, 0.92))
    light.motion = lerp(strength, light.motion, draws.uniform("shift motion", 0.35, 0.65))
    dusk = np.stack(
        [draws.bell(f"dusk {c}", t, 0.04) for c, t in zip("rgb", (0.58, 0.55, 0.9), strict=True)], 1
    )
    light.tint = lerp(strength, light.tint, dusk)

    layers = bank.sample(labels, *place(pose))
    covers = [coverage(layer, pose.scale) for layer in layers]
    picture = lay(draws, ground)
    for tone, cover in zip(tones, covers, strict=True):
        paint(picture, tone, cover)
    traits = {
        "ground": ground.name,
        "kind": ground.kind,
        "scale": pose.scale,
        "x": pose.x,
        "y": pose.y,
    }
    return Painting(develop(picture, light, draws), covers[0], traits)


SIGNS = Family(
    name="signs",
    title="Traffic signs",
    classnames=(
        "stop", "yield", "no entry", "speed limit", "priority road", "turn left", "turn right",
        "straight ahead", "parking", "pedestrian crossing", "general caution", "crossroads",
        "end of all limits", "level crossing",
    ),
    templates=(
        "a traffic sign: {}.",
        "a photo of the {} traffic sign.",
        "a road sign that means {}.",
        "the {} sign beside a road.",
    ),
    description="Traffic signs, fourteen classes; stands in for GTSRB.",
    shift="At dusk from a moving car: bluish and dim, smeared sideways, leaning, before clutter.",
    paint=paint_signs,
    caption=("a {size} traffic sign: {}", "a road sign that means {}"),
)  # fmt: skip
