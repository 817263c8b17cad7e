"""Pictures from above: a ground, two layers of shapes and a mottling, looked up and recoloured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .bank import Bank, stack
from .canvas import Light, Pose, coverage, develop, paint, place
from .draws import Dice, Draws
from .elementary import Array
from .family import Painting
from .fields import Plane
from .ground import smooth_noise
from .palette import jitter

SIZE, EXTENT = 80, 1.5
VARIANTS = 12  # drawings of every class
Colour = tuple[float, float, float]
Drawing = tuple[Array, Array]  # distances of the two layers


@dataclass(frozen=True)
class Scene:
    """How one class is drawn and coloured.

    Attributes:
        draw: Draws one variant: distances of the first and the second layer.
        ground: Colour of the ground.
        first: Colour of the first layer.
        second: Colour of the second layer.
        mottle: Half-width of the ground's mottling, a fraction of brightness.
    """

    draw: Callable[[Plane, Dice], Drawing]
    ground: Colour
    first: Colour
    second: Colour
    mottle: float = 0.1


def scene_bank(family: str, scenes: Sequence[Scene]) -> Bank:
    """Draw every variant of every class.

    Args:
        family: The family's name, part of the random key.
        scenes: One a class.

    Returns:
        A bank of len(scenes) * VARIANTS templates with three layers: two distances and a mottling.
    """
    plane = Plane(SIZE, EXTENT)
    templates = []
    for label, scene in enumerate(scenes):
        for variant in range(VARIANTS):
            dice = Dice(family, label, variant)
            mottle = (2.0 * smooth_noise(dice, 9, SIZE) - 1.0) * scene.mottle
            templates.append([*scene.draw(plane, dice), mottle])
    return stack(templates, EXTENT)


def scene_colours(scenes: Sequence[Scene]) -> Array:
    """Return colours of every class, float32 (C, 3 layers, 3 channels)."""
    return np.array([(s.ground, s.first, s.second) for s in scenes], dtype=np.float32)


def any_direction(draws: Draws, pose: Pose, low: float, high: float) -> Pose:
    """Return a pose one from above: any direction, filling the picture, in place."""
    pose.scale = draws.uniform("zoom", low, high)
    pose.x, pose.y = draws.bell("scene x", 0.0, 0.15), draws.bell("scene y", 0.0, 0.15)
    pose.rotation = draws.uniform("direction")
    pose.slant = pose.slant * 0.4
    return pose


def tones(draws: Draws, colours: Array, labels: Array, spread: float) -> list[Array]:
    """Return colours of the three layers with their jitter, each float32 (N, 3)."""
    season = jitter(draws, "season", np.full((len(draws), 3), 0.5, dtype=np.float32), spread) - 0.5
    return [jitter(draws, f"layer {i}", colours[labels, i] + season, 0.05) for i in range(3)]


def paint_scene(
    draws: Draws,
    bank: Bank,
    labels: Array,
    pose: Pose,
    light: Light,
    layers: list[Array],
    filters: Callable[[Array], None],
) -> Painting:
    """Look a scene up, colour it and develop it.

    Args:
        draws: Random numbers of N images.
        bank: From `scene_bank`.
        labels: Classes, int64 (N,).
        pose: How the scene lies.
        light: How it is lit.
        layers: Colours of ground and layers, each (N, 3).
        filters: Changes the coloured picture (N, 3, 1024) in place before it is developed.

    Returns:
        The painting; its mask is the first layer.
    """
    which = labels * VARIANTS + draws.integer("variant", VARIANTS)
    first, second, mottle = bank.sample(which, *place(pose))
    cover = coverage(first, pose.scale)
    picture = np.repeat(layers[0][:, :, None], cover.shape[1], axis=2)
    paint(picture, layers[1], cover)
    paint(picture, layers[2], coverage(second, pose.scale))
    picture += mottle[:, None, :]
    filters(picture)
    traits = {"zoom": pose.scale, "gain": light.gain}
    return Painting(develop(picture, light, draws), cover, traits)
