"""Sentences for pre-training: the class, and some of what else is truly in the picture."""

import numpy as np

from .draws import Draws
from .family import Family, Painting
from .ground import KINDS
from .palette import NAMES

NEAR, FAR = 1.05, 0.95  # zoom of a scene seen from nearby, from far away
SMALL, LARGE = 0.68, 0.82
ASIDE = 0.13  # how far from the middle counts as beside it
_GROUND_WORDS = {"plain": "plain ", "shaded": "shaded ", "cloudy": "cloudy ", "striped": "striped ", "spotted": "spotted "}  # fmt: skip


def _size(scale: float) -> str:
    return "small" if scale < SMALL else "large" if scale > LARGE else ""


def _zoom(scale: float) -> str:
    return "nearby" if scale > NEAR else "far away" if scale < FAR else ""


def _brightness(gain: float) -> str:
    return "bright" if gain > 1.0 else "dim" if gain < 0.87 else ""


def _where(x: float, y: float) -> str:
    """Name the side of the picture the figure lies on."""
    if max(abs(x), abs(y)) < ASIDE:
        return "in the centre"
    if abs(x) >= abs(y):
        return "on the left" if x < 0 else "on the right"
    return "at the top" if y < 0 else "at the bottom"


def words(painting: Painting, i: int) -> dict[str, str]:
    """Say in words what is known about picture ``i``; an empty word is one not worth saying."""
    said: dict[str, str] = {}
    for key, value in painting.traits.items():
        value = value[i]
        if key in {"colour", "ground"}:
            said[key] = NAMES[value]
        elif key == "kind":
            said[key] = _GROUND_WORDS.get(KINDS[value], "")
        elif key == "scale":
            said["size"] = _size(value)
        elif key == "zoom":
            said["zoom"] = _zoom(value)
        elif key == "gain":
            said["light"] = _brightness(value)
    if "x" in painting.traits:
        said["place"] = _where(painting.traits["x"][i], painting.traits["y"][i])
    return said


def _fill(sentence: str, classname: str, said: dict[str, str], keep: dict[str, bool]) -> str:
    """Put class and words into a sentence; drop words not kept, and tidy the spaces."""
    for key, word in said.items():
        sentence = sentence.replace(f"{{{key}}}", word if keep.get(key, True) else "")
    return " ".join(sentence.replace("{}", classname).split())


def captions(family: Family, painting: Painting, labels: np.ndarray, draws: Draws) -> list[str]:
    """Write one caption a picture.

    Args:
        family: The pictures' family.
        painting: The pictures and their traits.
        labels: Classes, int64 (N,).
        draws: Random numbers of the N pictures.

    Returns:
        N sentences; each names the class, and a random part of the traits.
    """
    chosen = draws.integer("sentence", len(family.caption))
    plain = draws.chance("plain sentence", 0.35)
    template = draws.integer("template", len(family.templates))
    keeps = {key: draws.chance(f"keep {key}", 0.5) for key in ("size", "colour", "light")}
    tells_ground, tells_place = draws.chance("tells ground", 0.5), draws.chance("tells place", 0.3)
    sentences = []
    for i, label in enumerate(labels):
        name, said = family.classnames[label], words(painting, i)
        if plain[i]:
            sentences.append(family.templates[template[i]].format(name))
            continue
        keep = {key: bool(kept[i]) for key, kept in keeps.items()}
        form = family.caption[chosen[i]]
        if any(f"{{{key}}}" in form and not said.get(key) for key in ("zoom",)):
            form = family.caption[0]
        if form.count("{colour}") and "{ground}" in form:
            keep["colour"] = True
        sentence = _fill(form, name, said, keep).replace(" in", " in")
        if "kind" in said and tells_ground[i]:
            sentence += f" on a {said['kind']}{said['ground']} background"
        if "place" in said and tells_place[i]:
            sentence += f", {said['place']}"
        sentences.append(sentence)
    return sentences
