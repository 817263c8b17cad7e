"""The merged non-linear model itself: forward passes over test images at given alphas, exact."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import streamlit as st

from app.compute import models
from app.compute.background import Work

SAMPLE = 250  # images a task on the page's sample; the whole split follows


@dataclass(frozen=True, eq=False)
class Forward:
    """What a merged model answers on one task.

    Attributes:
        scores: Class scores, shape (N, C): logits up to a positive factor an image.
        labels: Shape (N,).
        split_digest: Of images and labels.
    """

    scores: np.ndarray
    labels: np.ndarray
    split_digest: str

    @property
    def correct(self) -> int:
        """How many are right; ties go to the lowest class."""
        return int((self.scores.argmax(axis=1) == self.labels).sum())


@st.cache_data(max_entries=64, show_spinner=False)
def sample(
    encoder_name: str,
    encoder_digest: str,
    coefficients: tuple[tuple[str, str, float], ...],
    references: tuple[str, ...],
    limit: int | None,
    home: str,
    _vector: Callable[[str], Mapping],
) -> list[Forward]:
    """Run a merged model on the first images of each task, now: a visitor waits.

    Args:
        encoder_name: Of the encoder.
        encoder_digest: Of its weights.
        coefficients: Name of a vector, what it is known by, what it is multiplied with.
        references: Evaluated tasks, as ``load_task`` takes them.
        limit: Images a task.
        home: Of the store.
        _vector: Gives those of ``coefficients``, by name.

    Returns:
        One answer a task, in order.
    """
    factors = {name: factor for name, _, factor in coefficients}
    return run(encoder_name, _vector, factors, references, limit)


def run(
    encoder_name: str,
    vector: Callable[[str], Mapping],
    coefficients: Mapping[str, float],
    references: tuple[str, ...],
    limit: int | None,
    work: Work | None = None,
) -> list[Forward]:
    """Run a merged model on test images.

    Args:
        encoder_name: Of the encoder.
        vector: Gives task vectors, or directions, by name.
        coefficients: What each is multiplied with; those not named are left out.
        references: Evaluated tasks.
        limit: Images a task; the whole split with None.
        work: Given for background work: told of the progress, and visitors go before it.

    Returns:
        One answer a task, in order.
    """
    from engine.evaluate import nonlinear_scores
    from engine.task_vectors import combine

    encoder = models.encoder(encoder_name)
    taus = {name: vector(name) for name in coefficients}
    theta = combine(encoder.theta0, taus, dict(coefficients))
    if work is None:
        return _at_once(encoder, theta, references, limit)
    answers = []
    for done, reference in enumerate(references):
        work.step(done, len(references), models.task(reference).title)
        split, head = _asked(encoder, reference, limit)
        scores = nonlinear_scores(models.Polite(encoder), theta, split.images, head)
        answers.append(_answer(scores, split))
    return answers


def _at_once(encoder, theta, references: tuple[str, ...], limit: int | None) -> list[Forward]:
    """Return every task's answer: a visitor waits."""
    from engine.evaluate import scores_of_tasks

    asked = [_asked(encoder, reference, limit) for reference in references]
    with models.lock().foreground():
        scores = scores_of_tasks(encoder, theta, [(split.images, head) for split, head in asked])
    return [_answer(each, split) for each, (split, _) in zip(scores, asked, strict=True)]


def _asked(encoder, reference: str, limit: int | None):
    """Return a task's test images and its head."""
    split = models.split(reference, "test", encoder.image_size, limit)
    return split, encoder.head(models.task(reference))


def _answer(scores, split) -> Forward:
    """Return what a model answers on a split."""
    return Forward(scores.numpy(), split.labels.numpy(), split.digest)
