"""The images whose prediction a second task vector changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.compute import forward, models
from app.compute.disentanglement import Vectors, planes
from app.compute.scores import TaskScores


@dataclass(frozen=True, eq=False)
class Changes:
    """The images of one task whose prediction a second task vector changes.

    Attributes:
        task: Name.
        title: What a reader sees.
        indices: Of the changed images.
        single: Class names that the task's own vector alone predicts.
        merged: Class names that both together predict.
        labels: True class names.
        pictures: uint8, shape (shown, 32, 32, 3), of the first ones.
        n: Images looked at.
        split_digest: Of these images.
    """

    task: str
    title: str
    indices: np.ndarray
    single: list[str]
    merged: list[str]
    labels: list[str]
    pictures: np.ndarray
    n: int
    split_digest: str


def changes(
    vectors: Vectors,
    tasks: tuple[str, str],
    alphas: Sequence[float],
    loaded: Mapping[str, TaskScores] | None,
    shown: int,
) -> list[Changes]:
    """Return the images of both tasks whose prediction differs from the single-task model's.

    Args:
        vectors: The reading.
        tasks: The pair.
        alphas: Of both vectors.
        loaded: Class scores of a linearized reading; None for forward passes, made now.
        shown: Pictures a task at most.
    """
    found = []
    for place, name in enumerate(tasks):
        alone = [alpha if k == place else 0.0 for k, alpha in enumerate(alphas)]
        if loaded is not None:
            answers = [_linear_answer(vectors, tasks, loaded[name], a) for a in (alone, alphas)]
            digest, labels = loaded[name].split_digest, loaded[name].labels
        else:
            runs = [_forward(vectors, tasks, a, name) for a in (alone, alphas)]
            answers = [run.scores.argmax(axis=1) for run in runs]
            digest, labels = runs[0].split_digest, runs[0].labels
        found.append(_changes(vectors, name, *answers, labels, digest, shown))
    return found


def _linear_answer(vectors, tasks, loaded: TaskScores, alphas) -> np.ndarray:
    """Return the predictions of a linearized merge."""
    import torch

    from engine.responses import merged_scores, predictions

    chosen = torch.from_numpy(planes(vectors, tasks, loaded))
    return predictions(merged_scores(chosen, list(alphas))).numpy()


def _forward(vectors: Vectors, tasks, alphas, name: str) -> forward.Forward:
    """Run the merged model on one task's images, now: a visitor waits."""
    chosen = vectors.of(tasks)
    used = tuple(
        (task, item.digest, float(alpha))
        for (task, item), alpha in zip(chosen.items(), alphas, strict=True)
    )
    reference = (chosen[name].reference,)
    return forward.sample(
        vectors.encoder,
        vectors.encoder_digest,
        used,
        reference,
        forward.SAMPLE,
        vectors.home,
        lambda name: models.vector(chosen[name].digest),
    )[0]


def _changes(
    vectors: Vectors, name: str, single, merged, labels, digest: str, shown: int
) -> Changes:
    """Collect what is shown of the images whose prediction differs."""
    item = vectors.checkpoints[name]
    task, size = models.task(item.reference), models.encoder(vectors.encoder).image_size
    at = np.flatnonzero(single != merged)
    pictures = models.pictures(item.reference, size, len(labels), len(labels))[at[:shown]]

    def named(classes: np.ndarray) -> list[str]:
        return [task.classnames[place] for place in classes[at]]

    return Changes(
        task=name,
        title=task.title,
        indices=at,
        single=named(single),
        merged=named(merged),
        labels=named(labels),
        pictures=pictures,
        n=len(labels),
        split_digest=digest,
    )
