"""Synthetic scores for the alpha widget: eight tasks and a control, eight task vectors."""

from collections.abc import Mapping

import numpy as np

from app.components.alpha import EvaluatedTask

SLIDERS = {
    "digits": "Digits",
    "house_numbers": "House numbers",
    "letters": "Letters",
    "signs": "Traffic signs",
    "textures": "Textures",
    "land": "Land use",
    "scenes": "Aerial scenes",
    "shapes": "Silhouettes",
}
CLASSES = 11
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "dotted")
PICTURES = 24


def raw_scores(e: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and scores (1 + T, N, C) of task e: its own vector helps, the others disturb."""
    rng = np.random.default_rng(e)
    labels = rng.integers(0, CLASSES, images)
    scores = rng.normal(0, 1, (1 + len(SLIDERS), images, CLASSES)).astype(np.float32)
    rows = np.arange(images)
    scores[0, rows, labels] += 0.9 + 0.1 * e
    scores[1:] *= 0.55
    if e < len(SLIDERS):
        scores[1 + e, rows, labels] += 3.4
    coarse = images // 5  # of these, many scores tie when alphas are multiples of a half
    scores[:, :coarse] = np.round(2 * scores[:, :coarse]) / 2
    return labels, scores


def exact_right(e: int, images: int, coefficients, saturating: bool = False) -> int:
    """How many images are right, written with numpy in the engine's order.

    With ``saturating``, of the demo's non-linear model: float32 scores, tanh of each coefficient.
    """
    labels, scores = raw_scores(e, images)
    if saturating:
        merged = saturated(scores, coefficients)
        return int((merged.argmax(axis=1) == labels).sum())
    merged = scores[0].astype(np.float64)
    for t, coefficient in enumerate(coefficients):
        merged = merged + coefficient * scores[1 + t].astype(np.float64)
    return int((merged.argmax(axis=1) == labels).sum())


def saturated(scores: np.ndarray, coefficients) -> np.ndarray:
    """The demo's non-linear model: each task vector's effect flattens out."""
    merged = scores[0].copy()
    for t, coefficient in enumerate(coefficients):
        merged += np.float32(np.tanh(coefficient)) * scores[1 + t]
    return merged


def demo_tasks(images: int, anchor: Mapping[str, float] | None = None) -> list[EvaluatedTask]:
    """The evaluated tasks; with an anchor, as a non-linear model (here: slightly saturating)."""
    tasks = []
    for e, (name, title) in enumerate([*SLIDERS.items(), ("objects", "Objects")]):
        labels, scores = raw_scores(e, images)
        extra = {}
        if anchor is not None:
            extra = {"zeroshot_predictions": scores[0].argmax(1), "single_accuracy": 0.93}
            scores = np.concatenate([saturated(scores, anchor.values())[None], scores[1:]])
        pictures, indices = _pictures(e, images)
        tasks.append(
            EvaluatedTask(
                name=name,
                title=title,
                labels=labels,
                scores=scores,
                classnames=NAMES,
                is_control=name == "objects",
                pictures=pictures,
                picture_indices=indices,
                **extra,
            )
        )
    return tasks


def _pictures(e: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Coloured discs, one a picture."""
    rng = np.random.default_rng(100 + e)
    count = min(PICTURES, images)
    y, x = np.mgrid[:32, :32]
    colours = rng.integers(0, 256, (2, count, 1, 1, 3))
    radius = rng.uniform(6, 14, (count, 1, 1, 1))
    inside = ((x - 16) ** 2 + (y - 16) ** 2)[None, :, :, None] < radius**2
    pictures = np.where(inside, colours[0], colours[1]).astype(np.uint8)
    return pictures, np.arange(count)
