"""Accuracies of a merged model at released alphas, and what the widget reads out of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from app.components.alpha import EvaluatedTask
from app.compute import catalogue, models, scores
from app.compute.merging import Choice, Measured, Sample, right

PICTURES = 24  # examples a task to watch flip


@dataclass(frozen=True)
class Readout:
    """Accuracies at one setting, fractions by task; ``control`` is the control task's pair."""

    zeroshot: dict[str, float]
    single: dict[str, float]
    merged: dict[str, float]
    interval: dict[str, tuple[float, float]]
    n: dict[str, int]
    titles: dict[str, str]
    absolute: float
    normalized: float | None
    control: str | None

    @property
    def tasks(self) -> list[str]:
        """The merged tasks, without the control."""
        return [name for name in self.merged if name != self.control]


def readout(
    choice: Choice,
    sample: Sample,
    alphas: Mapping[str, float],
    measured: Measured | None,
) -> Readout:
    """Return the exact accuracies at released alphas on the sample.

    Args:
        choice: What is merged.
        sample: What the sliders move over.
        alphas: By slider.
        measured: Of the non-linear merged model, complete; None for linearized readings.
    """
    from engine.evaluate import wilson_interval

    control = catalogue.task_names()[1]
    factors = list(choice.coefficients(alphas).values())
    zero = [0.0] * len(factors)
    counts = {
        task.name: right(task.scores, factors, task.labels)
        if measured is None
        else measured.answers[place].correct
        for place, task in enumerate(sample.tasks)
    }
    n = {task.name: len(task.labels) for task in sample.tasks}
    merged = {name: counts[name] / n[name] for name in counts}
    return Readout(
        zeroshot={
            task.name: right(task.scores, zero, task.labels) / n[task.name] for task in sample.tasks
        },
        single=sample.single,
        merged=merged,
        interval={name: wilson_interval(counts[name], n[name]) for name in counts},
        n=n,
        titles={task.name: task.title for task in sample.tasks},
        absolute=_mean([merged[name] for name in choice.names]),
        normalized=_normalized(choice, merged, sample.single),
        control=control if control not in choice.checkpoints else None,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _normalized(choice: Choice, merged: Mapping[str, float], single: Mapping) -> float | None:
    """Return the normalized accuracy; None where a single-task accuracy is 0."""
    from engine.evaluate import normalized_accuracy

    if not all(single[name] for name in choice.names):
        return None
    return normalized_accuracy({name: merged[name] for name in choice.names}, dict(single))


def full_split(
    choice: Choice, alphas: Mapping[str, float], counts: Mapping[str, tuple[int, int]]
) -> dict:
    """Return what the widget shows of the whole split.

    Args:
        choice: What is merged.
        alphas: The setting measured.
        counts: Right answers and images, by evaluated task.

    Returns:
        As ``pack`` takes it; "normalized" only where every checkpoint was measured by itself on
        the same images.
    """
    merged = {name: right / n for name, (right, n) in counts.items()}
    control = [name for name in merged if name not in choice.checkpoints]
    alone = {
        name: item.test
        for name, item in choice.checkpoints.items()
        if item.test is not None and item.n_test == counts[name][1]
    }
    complete = set(alone) == set(choice.checkpoints)
    return {
        "n": min(n for _, n in counts.values()),
        "alphas": dict(alphas),
        "tasks": merged,
        "absolute": _mean([merged[name] for name in choice.names]),
        "normalized": _normalized(choice, merged, alone) if complete else None,
        "control": merged[control[0]] if control else None,
    }


def evaluated(
    choice: Choice,
    sample: Sample,
    measured: Measured | None,
    before: Measured | None = None,
) -> list[EvaluatedTask]:
    """Return the evaluated tasks as the widget takes them.

    Args:
        choice: What is merged.
        sample: What the sliders move over.
        measured: Exact scores of the non-linear merged model at the anchor; they take the place
            of the first plane, and those of the first order do where one is not known yet. None
            for linearized readings.
        before: Where such an estimate starts from, of the same choice; from theta_0 without one.
    """
    size = models.encoder(choice.encoder).image_size
    control = catalogue.task_names()[1]
    found = []
    for place, task in enumerate(sample.tasks):
        planes = task.scores
        answer = None if measured is None else measured.answers[place]
        if measured is not None:
            here = _estimate(planes, place, measured, before) if answer is None else answer.scores
            planes = np.concatenate([here[None], planes[1:]]).astype(np.float32)
        shown = min(PICTURES, len(task.labels))
        nonlinear = measured is not None
        given = nonlinear or choice.method is not None  # else the browser derives it
        found.append(
            EvaluatedTask(
                name=task.name,
                title=task.title,
                labels=task.labels,
                scores=planes,
                classnames=task.classnames,
                is_control=task.name == control and control not in choice.checkpoints,
                zeroshot_predictions=task.scores[0].argmax(axis=1) if nonlinear else None,
                single_accuracy=sample.single.get(task.name) if given else None,
                pictures=models.pictures(task.reference, size, scores.SAMPLE, shown),
                picture_indices=np.arange(shown),
                pending=nonlinear and answer is None,
                note=_note(sample.cosines.get(task.name)),
            )
        )
    return found


def _estimate(
    planes: np.ndarray, place: int, measured: Measured, before: Measured | None
) -> np.ndarray:
    """Return scores of the first order around the nearest ones that are known.

    Args:
        planes: Scores at theta_0, then of each slider's vector, shape (1 + T, N, C).
        place: Of the task.
        measured: The setting.
        before: A setting at which every answer is known; theta_0 without one.
    """
    moved, start = np.array(measured.factors), planes[0]
    if before is not None:
        moved, start = moved - before.factors, before.answers[place].scores
    return start + np.tensordot(moved, planes[1:], 1)


def _note(cosine: float | None) -> str:
    """Say how much of a task vector a direction has kept."""
    return "" if cosine is None else f"cosine {cosine:.2f}".replace("-", "−")
