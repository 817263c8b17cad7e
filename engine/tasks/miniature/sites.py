"""Sites from an aeroplane."""

from functools import cache

import numpy as np

from .bank import Bank
from .canvas import broad_light, broad_pose
from .draws import Dice, Draws
from .elementary import Array, column, lerp, sin_turns
from .family import Family, Painting
from .fields import Plane, both, minus, union
from .scenes import Drawing, Scene, any_direction, paint_scene, scene_bank, scene_colours, tones


def _runway(p: Plane, dice: Dice) -> Drawing:
    """Return a broad strip, its threshold bars, a dashed middle and a taxiway joining it."""
    end = dice.uniform(-0.95, -0.75)
    strip = both(np.abs(p.y) - 0.34, end - p.x)
    bars = both(
        np.abs(np.abs(p.y) % 0.13 - 0.065) - 0.033,
        np.abs(p.x - end - 0.22) - 0.13,
        np.abs(p.y) - 0.27,
    )
    middle = both(np.abs(p.y) - 0.035, np.abs((p.x - end) % 0.4 - 0.2) - 0.12, end + 0.45 - p.x)
    x = dice.uniform(0.2, 0.6)
    return union(strip, p.box(x, 0.9, 0.14, 0.8)), union(bars, middle)


def _harbor(p: Plane, dice: Dice) -> Drawing:
    """Return water with a quay, piers, and boats between them."""
    quay = dice.uniform(0.6, 0.8)
    piers, boats = p.y * -1.0 + quay, p.nothing()
    for i in range(4):
        x = -1.2 + 0.8 * i + dice.uniform(-0.05, 0.05)
        piers = np.minimum(piers, p.box(x, quay - 0.55, 0.07, 0.65))
        for j in range(3):
            if dice.uniform() < 0.85:
                boats = np.minimum(boats, p.ellipse(x + 0.27, quay - 0.3 - 0.36 * j, 0.17, 0.085))
    return piers, boats


def _stadium(p: Plane, dice: Dice) -> Drawing:
    """Return oval stands round a pitch with a halfway line."""
    a, b = dice.uniform(0.85, 0.95), dice.uniform(0.62, 0.72)
    outer, inner = p.ellipse(0, 0, a, b), p.ellipse(0, 0, a - 0.3, b - 0.3)
    pitch = p.box(0, 0, a - 0.45, b - 0.4)
    lines = both(union(np.abs(pitch) - 0.03, both(pitch, np.abs(p.x) - 0.03)), pitch - 0.04)
    return minus(outer, inner), lines


def _roundabout(p: Plane, dice: Dice) -> Drawing:
    """Return a ring of road, roads joining it, an island with a round bed."""
    ring = p.ring(0, 0, 0.52, 0.17)
    arms = p.nothing()
    for turn in (0.0, 0.25, 0.5, 0.75):
        x, y = p.turned(0, 0, turn + dice.uniform(-0.02, 0.02))
        arms = np.minimum(arms, both(np.abs(y) - 0.14, 0.5 - x))
    return union(ring, arms), p.circle(0, 0, 0.17)


def _tennis(p: Plane, dice: Dice) -> Drawing:
    """Return one court with its lines."""
    a, b = dice.uniform(0.86, 0.92), dice.uniform(0.52, 0.58)
    court = p.box(0, 0, a, b)
    lines = union(
        np.abs(court + 0.12) - 0.035,
        both(np.abs(p.x) - 0.04, np.abs(p.y) - b),
        both(np.abs(np.abs(p.x) - 0.42) - 0.03, np.abs(p.y) - b + 0.14),
        both(np.abs(p.y) - 0.03, np.abs(p.x) - 0.42),
    )
    return court, lines


def _tanks(p: Plane, dice: Dice) -> Drawing:
    """Return round tanks in two rows, each with a shaded half."""
    tanks, shades = p.nothing(), p.nothing()
    for i in range(3):
        for j in range(3):
            x, y, r = -0.76 + 0.76 * i, -0.76 + 0.76 * j, dice.uniform(0.26, 0.32)
            tank = p.circle(x, y, r)
            tanks = np.minimum(tanks, tank)
            shades = np.minimum(shades, minus(tank, p.circle(x - 0.09, y - 0.09, r)))
    return tanks, shades


def _bridge(p: Plane, dice: Dice) -> Drawing:
    """Return a road across a band of water."""
    bank = 0.05 * sin_turns(0.5 * p.x + dice.uniform())
    water = np.abs(p.y - bank) - dice.uniform(0.55, 0.68)
    lean = dice.uniform(-0.04, 0.04)
    x, _ = p.turned(dice.uniform(-0.2, 0.2), 0, lean)
    return water, both(np.abs(x) - 0.17, 0.045 - np.abs(x))


def _parking(p: Plane, dice: Dice) -> Drawing:
    """Return rows of parked cars between painted lines."""
    cars, lines = p.nothing(), p.nothing()
    for row, y in enumerate((-1.0, -0.45, 0.45, 1.0)):
        lines = np.minimum(
            lines, both(np.abs((p.x + 3.0) % 0.3 - 0.15) - 0.02, np.abs(p.y - y) - 0.24)
        )
        for i in range(-5, 5):
            if dice.uniform() < 0.82:
                cars = np.minimum(
                    cars, p.box(0.3 * i + 0.3, y + 0.02 * (row % 2), 0.095, 0.19, 0.04)
                )
    return cars, lines


def _golf(p: Plane, dice: Dice) -> Drawing:
    """Return a winding fairway and pale bunkers."""
    phase = dice.uniform()
    fairway = np.abs(p.y - 0.3 * sin_turns(0.35 * p.x + phase)) - 0.36
    bunkers = p.nothing()
    for i in range(5):
        x = -1.0 + 0.5 * i + dice.uniform(-0.08, 0.08)
        y = 0.3 * float(sin_turns(0.35 * x + phase)) + (0.42 if i % 2 else -0.42)
        bunkers = np.minimum(
            bunkers, union(p.ellipse(x, y, 0.17, 0.12), p.ellipse(x + 0.1, y + 0.05, 0.12, 0.11))
        )
    return fairway, bunkers


def _railway(p: Plane, dice: Dice) -> Drawing:
    """Return two tracks: ballast with sleepers, and the rails over them."""
    bend = dice.uniform(-0.08, 0.08)
    y = p.y - bend * p.x * p.x
    tracks, rails = p.nothing(), p.nothing()
    for offset in (-0.4, 0.4):
        sleepers = both(np.abs((p.x + 3.0) % 0.22 - 0.11) - 0.06, np.abs(y - offset) - 0.26)
        tracks = np.minimum(tracks, sleepers)
        rails = np.minimum(rails, np.abs(np.abs(y - offset) - 0.14) - 0.035)
    return tracks, rails


SCENES: dict[str, Scene] = {
    "airport runway": Scene(_runway, (0.46, 0.6, 0.34), (0.24, 0.24, 0.26), (0.95, 0.95, 0.93)),
    "harbor": Scene(_harbor, (0.12, 0.3, 0.46), (0.62, 0.56, 0.48), (0.96, 0.96, 0.96)),
    "stadium": Scene(_stadium, (0.3, 0.56, 0.26), (0.8, 0.78, 0.8), (0.96, 0.97, 0.95)),
    "roundabout": Scene(_roundabout, (0.44, 0.64, 0.32), (0.27, 0.27, 0.3), (0.92, 0.8, 0.4)),
    "tennis court": Scene(_tennis, (0.24, 0.46, 0.28), (0.76, 0.4, 0.26), (0.97, 0.97, 0.97)),
    "tank farm": Scene(_tanks, (0.5, 0.44, 0.34), (0.93, 0.93, 0.92), (0.34, 0.32, 0.34)),
    "bridge": Scene(_bridge, (0.42, 0.54, 0.3), (0.12, 0.28, 0.46), (0.82, 0.8, 0.78)),
    "parking lot": Scene(_parking, (0.3, 0.3, 0.32), (0.78, 0.3, 0.26), (0.93, 0.93, 0.9)),
    "golf course": Scene(_golf, (0.16, 0.36, 0.15), (0.5, 0.76, 0.36), (0.96, 0.9, 0.7)),
    "railway line": Scene(_railway, (0.68, 0.63, 0.55), (0.36, 0.25, 0.17), (0.14, 0.14, 0.17)),
}


@cache
def places() -> Bank:
    """Return the templates."""
    return scene_bank("sites", list(SCENES.values()))


_COLOURS = scene_colours(list(SCENES.values()))
_WINTER = np.float32(((0.92, 0.95, 1.0), (0.24, 0.29, 0.42), (0.88, 0.55, 0.3)))


def paint_sites(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of a site from above; shifted: under snow in a low sun, sheared."""
    pose = any_direction(draws, broad_pose(draws, flips=True), 0.8, 1.1)
    light = broad_light(draws)
    snow = draws.chance("snow", strength)
    pose.slant = lerp(strength, pose.slant, draws.bell("shift slant", 0.2, 0.1))
    pose.aspect = lerp(strength, pose.aspect, draws.bell("shift aspect", 1.1, 0.08))
    light.slope = lerp(strength, light.slope, draws.uniform("shift slope", 0.25, 0.4))
    winter = [np.tile(tone, (len(draws), 1)) for tone in _WINTER]
    layers = [
        np.where(column(snow), cold + 0.2 * (warm - 0.5), warm)
        for warm, cold in zip(tones(draws, _COLOURS, labels, 0.14), winter, strict=True)
    ]
    return paint_scene(draws, places(), labels, pose, light, layers, lambda picture: None)


SITES = Family(
    name="sites",
    title="Aerial sites",
    classnames=tuple(SCENES),
    templates=(
        "an aerial photo: {}.",
        "{} from above.",
        "aerial imagery, {}.",
        "an aerial view showing {}.",
    ),
    description="Sites from an aeroplane, ten classes; stands in for RESISC45 and SUN397.",
    shift="Under snow in a low sun: a white ground with dark shapes, sheared and stretched.",
    paint=paint_sites,
    caption=("a {light} aerial photo of a {}", "a {light} aerial photo of a {} {zoom}"),
)
