"""Digits as handwriting and as house numbers, and capital letters."""

from functools import cache

import numpy as np

from .canvas import Pose, broad_light, broad_pose, coverage, develop, paint, place
from .draws import Draws
from .elementary import Array, column, lerp
from .family import Family, Painting
from .glyphs import LETTERS, digit_bank, letter_bank
from .ground import Ground, broad_ground, lay, set_kind
from .palette import jitter, pick

DIGITS = cache(digit_bank)
ALPHABET = cache(letter_bank)
NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def traits(pose: Pose, ground: Ground, ink: Array) -> dict[str, Array]:
    """Return what a caption may say about a figure on a ground."""
    return {
        "colour": ink,
        "ground": ground.name,
        "kind": ground.kind,
        "scale": pose.scale,
        "x": pose.x,
        "y": pose.y,
    }


def repaint(
    takes: Array,
    draws: Draws,
    colours: Array,
    ground: Ground,
    palette: tuple[tuple[float, ...], ...],
) -> Array:
    """Give some images another palette: figure, ground, and the ground's pattern.

    Args:
        takes: Which images, bool (N,).
        draws: Random numbers.
        colours: The figure's colour, float32 (N, 3).
        ground: The ground, changed in place.
        palette: Figure, ground and pattern as red, green, blue.

    Returns:
        The figure's new colour, float32 (N, 3).
    """
    tones = [
        jitter(draws, f"palette {i}", np.tile(np.float32(tone), (len(draws), 1)))
        for i, tone in enumerate(palette)
    ]
    ground.first = np.where(column(takes), tones[1], ground.first)
    ground.second = np.where(column(takes), tones[2], ground.second)
    return np.where(column(takes), tones[0], colours)


def paint_handwriting(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of a digit in pen; shifted: slanted chalk on a dark ruled board."""
    pose, light = broad_pose(draws), broad_light(draws)
    ink, colours = pick(draws, "ink")
    ground = broad_ground(draws, ink, colours)
    pen = draws.uniform("pen", 0.09, 0.17)

    takes = draws.chance("shift palette", strength)
    colours = repaint(
        takes, draws, colours, ground, ((0.93, 0.93, 0.86), (0.13, 0.24, 0.2), (0.34, 0.46, 0.42))
    )
    set_kind(draws, ground, "ruled", strength, draws.bell("rule turn", 0.0, 0.02))
    pose.slant = lerp(strength, pose.slant, draws.bell("shift slant", 0.33, 0.1))
    pose.rotation = lerp(strength, pose.rotation, draws.bell("shift rotation", 0.03, 0.02))
    pose.aspect = lerp(strength, pose.aspect, draws.bell("shift aspect", 0.92, 0.08))
    pose.wave = lerp(strength, pose.wave, draws.bell("shift wave", 0.05, 0.03))
    pose.scale = lerp(strength, pose.scale, draws.uniform("shift scale", 0.62, 0.78))
    pose.x, pose.y = lerp(strength, pose.x, 0.4 * pose.x), lerp(strength, pose.y, 0.4 * pose.y)
    pen = lerp(strength, pen, draws.uniform("shift pen", 0.17, 0.21))

    (distance,) = DIGITS().sample(2 * labels + draws.integer("way", 2), *place(pose))
    cover = coverage(distance - column(pen), pose.scale)
    picture = lay(draws, ground)
    paint(picture, colours, cover)
    return Painting(develop(picture, light, draws), cover, traits(pose, ground, ink))


def neighbours(draws: Draws, pose: Pose, pen: Array, gap: Array) -> Array:
    """Return the cover of two other digits, one to each side of the one that counts, (N, 1024)."""
    cover = None
    for side in (-1.0, 1.0):
        other = draws.integer(f"neighbour {side}", 20)
        beside = Pose(**vars(pose))
        beside.x = pose.x + np.float32(side) * gap * pose.scale * np.sqrt(pose.aspect)
        (distance,) = DIGITS().sample(other, *place(beside))
        one = coverage(distance - column(pen), pose.scale)
        cover = one if cover is None else np.maximum(cover, one)
    return cover


def paint_housenumbers(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of a digit, the middle one of three; shifted: narrow, on shaded brick."""
    pose, light = broad_pose(draws, 0.62, 0.9), broad_light(draws)
    pose.x, pose.wave = pose.x * 0.4, pose.wave * 0.0
    pose.slant = pose.slant * 0.5
    ink, colours = pick(draws, "ink")
    ground = broad_ground(draws, ink, colours)
    pen = draws.uniform("pen", 0.13, 0.21)
    gap = draws.uniform("gap", 1.75, 2.1)
    presence = np.where(
        draws.chance("has neighbours", 0.5), draws.uniform("presence", 0.3, 0.7), 0.0
    )

    takes = draws.chance("shift palette", strength)
    tones = ((0.95, 0.86, 0.55), (0.5, 0.2, 0.14), (0.62, 0.4, 0.34))
    colours = repaint(takes, draws, colours, ground, tones)
    set_kind(draws, ground, "brick", strength, draws.bell("brick turn", 0.0, 0.01))
    presence = lerp(strength, presence, draws.uniform("shift presence", 0.4, 0.6))
    gap = lerp(strength, gap, draws.uniform("shift gap", 1.68, 1.85))
    pose.aspect = lerp(strength, pose.aspect, draws.bell("shift aspect", 0.7, 0.06))
    pose.scale = lerp(strength, pose.scale, draws.uniform("shift scale", 0.62, 0.74))
    pen = lerp(strength, pen, draws.uniform("shift pen", 0.13, 0.16))
    pose.rotation = lerp(strength, pose.rotation, draws.bell("shift rotation", 0.035, 0.02))
    light.slope = lerp(strength, light.slope, draws.uniform("shift slope", 0.4, 0.5))

    u, v = place(pose)
    (distance,) = DIGITS().sample(2 * labels + draws.integer("way", 2), u, v)
    cover = coverage(distance - column(pen), pose.scale)
    picture = lay(draws, ground)
    paint(picture, colours, neighbours(draws, pose, pen, gap) * column(np.float32(presence)))
    paint(picture, colours, cover)
    return Painting(develop(picture, light, draws), cover, traits(pose, ground, ink))


def paint_letters(draws: Draws, labels: Array, strength: float) -> Painting:
    """Return pictures of a capital letter; shifted: hollow, turned, over a chequered ground."""
    pose, light = broad_pose(draws), broad_light(draws)
    ink, colours = pick(draws, "ink")
    ground = broad_ground(draws, ink, colours)
    pen = draws.uniform("pen", 0.1, 0.22)

    set_kind(draws, ground, "checkered", strength, draws.uniform("check turn"))
    pose.rotation = lerp(strength, pose.rotation, draws.bell("shift rotation", 0.028, 0.02))
    pose.scale = lerp(strength, pose.scale, draws.uniform("shift scale", 0.72, 0.84))
    pose.x, pose.y = lerp(strength, pose.x, 0.3 * pose.x), lerp(strength, pose.y, 0.3 * pose.y)
    hollow = draws.chance("hollow", strength)
    pen = lerp(strength, pen, draws.uniform("shift pen", 0.19, 0.22))

    (distance,) = ALPHABET().sample(labels, *place(pose))
    edge = distance - column(pen)
    outline = np.abs(edge + np.float32(0.03)) - np.float32(0.08)
    cover = coverage(np.where(column(hollow), outline, edge), pose.scale)
    picture = lay(draws, ground)
    paint(picture, colours, cover)
    return Painting(develop(picture, light, draws), cover, traits(pose, ground, ink))


HANDWRITING = Family(
    name="handwriting",
    title="Handwritten digits",
    classnames=NUMERALS,
    templates=(
        "a handwritten digit {}.",
        "the digit {} written with a pen.",
        "a picture of the handwritten number {}.",
        "{}, written by hand.",
    ),
    description="Digits drawn with a pen, ten classes; stands in for MNIST.",
    shift="Chalk on a dark ruled board: thick, wavy strokes leaning strongly to the right.",
    paint=paint_handwriting,
    caption=("a {size} {colour} handwritten digit {}", "the digit {} written with a {colour} pen"),
)
HOUSENUMBERS = Family(
    name="housenumbers",
    title="House numbers",
    classnames=NUMERALS,
    templates=(
        "a house number {}.",
        "the house number {} on a wall.",
        "a street number plate showing {}.",
        "a photo of the number {} on a house.",
    ),
    description="The middle digit of a house number, ten classes; stands in for SVHN.",
    shift="Narrow yellow digits on a brick wall, crowded by neighbours, half in the shade.",
    paint=paint_housenumbers,
    caption=("a {size} {colour} house number {}", "a house number plate with a {colour} {}"),
)
LETTER = Family(
    name="letters",
    title="Capital letters",
    classnames=tuple(LETTERS),
    templates=(
        "the letter {}.",
        "a capital letter {}.",
        "a printed letter {}.",
        "the character {} of the alphabet.",
    ),
    description="Printed capital letters, fifteen classes.",
    shift="Hollow letters, turned clockwise, over a chequered ground.",
    paint=paint_letters,
    caption=("a {size} {colour} letter {}", "a {size} {colour} capital letter {}"),
)
