"""Land use from a satellite."""

from functools import cache

import numpy as np

from .bank import Bank
from .canvas import broad_light, broad_pose
from .draws import Dice, Draws
from .elementary import Array, column, lerp, sin_turns
from .family import Family, Painting
from .fields import Plane, both, minus, union
from .scenes import Drawing, Scene, any_direction, paint_scene, scene_bank, scene_colours, tones


def _forest(p: Plane, dice: Dice) -> Drawing:
    """Return crowns side by side, each with a lit spot."""
    crowns, spots = p.nothing(), p.nothing()
    for i in range(10):
        for j in range(10):
            x, y = (
                -1.5 + 0.33 * i + dice.uniform(-0.08, 0.08),
                -1.5 + 0.33 * j + dice.uniform(-0.08, 0.08),
            )
            r = dice.uniform(0.12, 0.17)
            crowns = np.minimum(crowns, p.circle(x, y, r))
            spots = np.minimum(spots, p.circle(x - 0.04, y - 0.05, 0.4 * r))
    return crowns, spots


def _river(p: Plane, dice: Dice) -> Drawing:
    """Return a meandering band with bushes along it."""
    phase, swing, width = dice.uniform(), dice.uniform(0.26, 0.42), dice.uniform(0.2, 0.28)
    middle = swing * sin_turns(dice.uniform(0.38, 0.5) * p.x + phase)
    water = 0.85 * (np.abs(p.y - middle) - width)
    bushes = union(
        *(p.circle(dice.uniform(-1.4, 1.4), dice.uniform(-1.4, 1.4), 0.09) for _ in range(14))
    )
    return water, both(bushes, 0.06 - water)


def _highway(p: Plane, dice: Dice) -> Drawing:
    """Return two carriageways, a central reserve with a dashed line in each."""
    width, bend = dice.uniform(0.34, 0.42), dice.uniform(-0.06, 0.06)
    y = p.y - bend * p.x * p.x
    road = np.abs(y) - width
    lane = both(np.abs(np.abs(y) - 0.5 * width) - 0.035, 0.16 - np.abs(p.x % 0.5 - 0.25))
    return road, union(lane, np.abs(y) - 0.04, np.abs(np.abs(y) - width) - 0.03)


def _residential(p: Plane, dice: Dice) -> Drawing:
    """Return rows of small houses along a grid of streets."""
    roofs = p.nothing()
    for i in range(-4, 4):
        for j in range(-4, 4):
            x, y = 0.4 * i + 0.2 + 0.04 * (i % 2 * 2 - 1), 0.4 * j + 0.2 + 0.06 * (j % 2 * 2 - 1)
            if dice.uniform() < 0.92:
                a, b = dice.uniform(0.1, 0.14), dice.uniform(0.09, 0.12)
                roofs = np.minimum(roofs, p.box(x, y, a, b, 0.0, dice.uniform(-0.01, 0.01)))
    streets = union(
        np.abs((p.y + 0.4) % 0.8 - 0.4) - 0.055, np.abs((p.x + 2.0) % 1.6 - 0.8) - 0.055
    )
    return roofs, minus(streets, roofs - 0.03)


def _crops(p: Plane, dice: Dice) -> Drawing:
    """Return rectangular fields with furrows in different directions."""
    x0, y0 = dice.uniform(-0.35, 0.35), dice.uniform(-0.35, 0.35)
    side = (p.x > x0) == (p.y > y0)
    across = np.where(side, p.x, p.y)
    furrows = np.abs((across + 3.0) % 0.26 - 0.13) - 0.065
    edge = np.minimum(np.abs(p.x - x0), np.abs(p.y - y0)) - 0.045
    return minus(furrows, edge - 0.03), edge


def _pasture(p: Plane, dice: Dice) -> Drawing:
    """Return open grass between hedges, a few animals."""
    hedge = p.nothing()
    for turn in (dice.uniform(-0.03, 0.03), dice.uniform(0.22, 0.28)):
        x, y = p.turned(0.0, dice.uniform(0.3, 0.8) * (1 if dice.uniform() < 0.5 else -1), turn)
        wobble = 0.05 * sin_turns(1.6 * x + dice.uniform())
        hedge = np.minimum(hedge, np.abs(y - wobble) - 0.07)
    herd = union(
        *(p.circle(dice.uniform(-1.2, 1.2), dice.uniform(-1.2, 1.2), 0.06) for _ in range(16))
    )
    return hedge, minus(herd, hedge - 0.08)


def _sea(p: Plane, dice: Dice) -> Drawing:
    """Return rows of short swell crests, some breaking."""
    lean = 0.1 * sin_turns(0.5 * p.x + dice.uniform())
    y = p.y + lean
    row = np.floor((y + 3.0) / 0.34)
    shift = (row * 0.618) % 1.0
    along = (p.x * 0.8 + shift + dice.uniform()) % 1.0
    crest = np.abs((y + 3.0) % 0.34 - 0.17 - 0.05 * (1.0 - (4.0 * along - 2.0) ** 2)) - 0.05
    swell = np.maximum(crest, 1.2 * (np.abs(along - 0.5) - 0.36))
    foam = np.maximum(crest + 0.015, 1.2 * (np.abs(along - 0.5) - 0.12))
    return swell, np.where(row % 3 == dice.integer(3), foam, np.float32(1.0))


def _industrial(p: Plane, dice: Dice) -> Drawing:
    """Return large halls with ridged roofs on a paved yard."""
    halls, ridges = p.nothing(), p.nothing()
    split = dice.uniform(-0.2, 0.2)
    for x, a in ((split - 0.68, 0.56), (split + 0.62, 0.5)):
        cut = dice.uniform(-0.3, 0.3)
        for y, b in ((cut - 0.72, 0.58), (cut + 0.56, 0.48)):
            hall = p.box(x, y, a, b)
            lines = np.abs((p.x - x + 3.0) % 0.36 - 0.18) - 0.035
            halls, ridges = np.minimum(halls, hall), np.minimum(ridges, both(lines, hall + 0.05))
    return halls, ridges


def _orchard(p: Plane, dice: Dice) -> Drawing:
    """Return round trees planted in a square lattice."""
    step, x0, y0 = dice.uniform(0.4, 0.46), dice.uniform(), dice.uniform()
    x, y = (p.x + x0 + 3.0) % step - step / 2, (p.y + y0 + 3.0) % step - step / 2
    far = np.sqrt(x * x + y * y)
    return far - 0.14, np.sqrt((x + 0.04) ** 2 + (y + 0.04) ** 2) - 0.05


def _beach(p: Plane, dice: Dice) -> Drawing:
    """Return water on one side of a curved shore, two lines of foam."""
    shore = dice.uniform(-0.3, 0.3) + 0.16 * sin_turns(0.4 * p.x + dice.uniform())
    depth = p.y - shore
    return -depth, union(np.abs(depth - 0.06) - 0.06, np.abs(depth - 0.34) - 0.035)


SCENES: dict[str, Scene] = {
    "forest": Scene(_forest, (0.07, 0.17, 0.08), (0.17, 0.42, 0.15), (0.42, 0.66, 0.3)),
    "river": Scene(_river, (0.5, 0.62, 0.32), (0.14, 0.27, 0.5), (0.16, 0.34, 0.14)),
    "highway": Scene(_highway, (0.46, 0.6, 0.32), (0.26, 0.26, 0.28), (0.93, 0.92, 0.86)),
    "residential area": Scene(
        _residential, (0.42, 0.56, 0.32), (0.76, 0.32, 0.22), (0.8, 0.79, 0.76)
    ),
    "crop field": Scene(_crops, (0.84, 0.75, 0.42), (0.56, 0.42, 0.2), (0.34, 0.5, 0.2)),
    "pasture": Scene(_pasture, (0.5, 0.72, 0.32), (0.12, 0.3, 0.11), (0.95, 0.94, 0.88)),
    "open sea": Scene(_sea, (0.06, 0.2, 0.4), (0.24, 0.48, 0.66), (0.9, 0.95, 0.97), 0.06),
    "industrial area": Scene(_industrial, (0.36, 0.36, 0.37), (0.84, 0.85, 0.88), (0.4, 0.5, 0.66)),
    "orchard": Scene(_orchard, (0.74, 0.62, 0.4), (0.18, 0.38, 0.14), (0.38, 0.58, 0.26)),
    "beach": Scene(_beach, (0.93, 0.84, 0.6), (0.12, 0.42, 0.6), (0.97, 0.98, 0.98)),
}


@cache
def landscapes() -> Bank:
    """Return the templates."""
    return scene_bank("landuse", list(SCENES.values()))


_COLOURS = scene_colours(list(SCENES.values()))


def paint_landuse(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of land from above; shifted: infrared shown as colours, under haze."""
    pose = any_direction(draws, broad_pose(draws, flips=True), 0.85, 1.2)
    light = broad_light(draws)
    swapped = draws.chance("swap", strength)
    haze = lerp(strength, draws.uniform("haze", 0.0, 0.1), draws.uniform("shift haze", 0.1, 0.2))
    pose.wave = lerp(strength, pose.wave, draws.bell("shift wave", 0.06, 0.03))
    pose.scale = lerp(strength, pose.scale, draws.uniform("shift zoom", 0.95, 1.2))
    veil = np.float32((0.8, 0.74, 0.84))

    def infrared(picture: Array) -> None:
        red, green, blue = picture[:, 0].copy(), picture[:, 1].copy(), picture[:, 2].copy()
        takes = column(swapped)
        picture[:, 0] = np.where(takes, 1.05 - 0.9 * blue, red)
        picture[:, 1] = np.where(takes, 0.95 - 0.9 * red, green)
        picture[:, 2] = np.where(takes, 0.9 - 0.75 * green, blue)
        picture += haze[:, None, None] * (veil[None, :, None] - picture)

    layers = tones(draws, _COLOURS, labels, 0.14)
    return paint_scene(draws, landscapes(), labels, pose, light, layers, infrared)


LANDUSE = Family(
    name="landuse",
    title="Land use",
    classnames=tuple(SCENES),
    templates=(
        "a satellite photo: {}.",
        "satellite imagery, {}.",
        "{} seen from space.",
        "land use: {}.",
    ),
    description="Pieces of land from a satellite, ten classes; stands in for EuroSAT.",
    shift="A false-colour infrared image: channels swapped and inverted, hazy, warped.",
    paint=paint_landuse,
    caption=("a {light} satellite photo of a {}", "a {light} satellite photo of a {} {zoom}"),
)
