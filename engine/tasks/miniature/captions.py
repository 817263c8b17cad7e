"""Sentences for pre-training: the class, and some of what else is truly in the picture."""

import re

from .draws import Draws
from .elementary import Array
from .family import Family, Painting
from .ground import KINDS
from .palette import NAMES

NEAR, FAR = 1.05, 0.95  # zoom of a scene seen from nearby, from far away
SMALL, LARGE = 0.68, 0.82  # scale of a small figure, of a large one
BRIGHT, DIM = 1.0, 0.87  # gain of a bright picture, of a dim one
ASIDE = 0.13  # how far from the middle a figure must lie to be on one side
_BEFORE_VOWEL = re.compile(r"\ba (?=[aeio]|hour|umb|und)")


def _size(scale: float) -> str:
    """Return a word for the size of a figure."""
    return "small" if scale < SMALL else "large" if scale > LARGE else ""


def _zoom(scale: float) -> str:
    """Return a phrase for the distance of a scene."""
    return "from nearby" if scale > NEAR else "from far away" if scale < FAR else ""


def _brightness(gain: float) -> str:
    """Return a word for the brightness of a picture."""
    return "bright" if gain > BRIGHT else "dim" if gain < DIM else ""


def _place(x: float, y: float) -> str:
    """Return a phrase for the side of the picture the figure lies on."""
    if max(abs(x), abs(y)) < ASIDE:
        return "in the centre"
    if abs(x) >= abs(y):
        return "on the left" if x < 0 else "on the right"
    return "at the top" if y < 0 else "at the bottom"


def words(painting: Painting, i: int) -> dict[str, str]:
    """Say in words what is known about one picture.

    Args:
        painting: N pictures and their traits.
        i: Which picture.

    Returns:
        Words by what they describe; an empty word is one not worth saying.
    """
    known = {key: values[i] for key, values in painting.traits.items()}
    said = {key: NAMES[known[key]] for key in ("colour", "ground") if key in known}
    if "scale" in known:
        said |= {"size": _size(known["scale"]), "place": _place(known["x"], known["y"])}
        said["kind"] = KINDS[known["kind"]]
    if "zoom" in known:
        said |= {"zoom": _zoom(known["zoom"]), "light": _brightness(known["gain"])}
    return said


def fill(sentence: str, classname: str, said: dict[str, str]) -> str:
    """Put the class and words into a sentence and mend its articles.

    Args:
        sentence: With ``{}`` for the class, and words' names in braces.
        classname: The class.
        said: Words; those missing are left out.

    Returns:
        The sentence; before a vowel "a" is "an".
    """
    for key in re.findall(r"{(\w+)}", sentence):
        sentence = sentence.replace(f"{{{key}}}", said.get(key, ""))
    sentence = " ".join(sentence.replace("{}", classname).split())
    return _BEFORE_VOWEL.sub("an ", sentence)


def write_captions(family: Family, painting: Painting, labels: Array, draws: Draws) -> list[str]:
    """Write one caption a picture: a prompt template, or a sentence with some of the traits.

    Args:
        family: The pictures' family.
        painting: N pictures and their traits.
        labels: Classes, int64 (N,).
        draws: Random numbers of the N pictures.

    Returns:
        N sentences; each names the class, and a random part of the traits.
    """
    plain = draws.chance("plain sentence", 0.35)
    template = draws.integer("template", len(family.templates))
    form = draws.integer("sentence", len(family.caption))
    kept = {key: draws.chance(f"tells {key}", 0.5) for key in ("size", "colour", "light", "zoom")}
    on_ground, in_place = draws.chance("tells ground", 0.5), draws.chance("tells place", 0.3)
    sentences = []
    for i, label in enumerate(labels):
        name = family.classnames[label]
        if plain[i]:
            sentences.append(family.templates[template[i]].format(name))
            continue
        said = words(painting, i)
        told = {key: word for key, word in said.items() if key not in kept or kept[key][i]}
        if family.name == "textures":
            told = said
        sentence = family.caption[form[i]]
        if "kind" in said and on_ground[i]:
            sentence += " on a {kind} {ground} background"
        if "place" in said and in_place[i]:
            sentence += ", {place}"
        sentences.append(fill(sentence, name, told))
    return sentences
