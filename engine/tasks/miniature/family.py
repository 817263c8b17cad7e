"""What a family of pictures is, and the strength of every task's shift."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .draws import Draws
from .elementary import Array

# How far each task's test style lies from the broad style the encoder is pre-trained in: 0 is the
# broad style exactly, 1 the shift as designed. Measures change by this share of the way; choices
# (a palette, a kind of ground) are made for this share of the images.
SHIFT_STRENGTH: dict[str, float] = {
    "handwriting": 1.0,
    "housenumbers": 1.0,
    "letters": 1.0,
    "signs": 1.0,
    "textures": 1.0,
    "landuse": 1.0,
    "sites": 1.0,
    "vehicles": 1.0,
    "objects": 1.0,
}


@dataclass(frozen=True)
class Painting:
    """N finished pictures and what is known about them.

    Attributes:
        images: uint8 (N, 3, 32, 32).
        mask: Share of each pixel that the figure covers, float32 (N, 1024); for a texture or a
            scene, the share of its leading layer.
        traits: What a caption may mention, each an array of shape (N,).
    """

    images: Array
    mask: Array
    traits: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A task of the miniature world.

    Attributes:
        name: Its name in code, on disk and on the command line.
        title: Its name for people.
        classnames: What the pictures show, in the order of the labels.
        templates: Prompts, each with one ``{}``.
        description: What the pictures are.
        shift: How the task's style differs from the broad one: a sentence.
        paint: The painter: random numbers, labels and the shift's strength to pictures.
        caption: Sentences for pre-training; ``{}`` is the class, ``{size}`` a trait.
    """

    name: str
    title: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    description: str
    shift: str
    paint: Callable[[Draws, Array, float], Painting] = field(repr=False, compare=False)
    caption: tuple[str, ...] = field(default=("{}",), repr=False)
