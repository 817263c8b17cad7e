"""The merged model itself: one forward pass over images at given alphas, exact for any reading."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from app.compute import models
from app.compute.background import Work
from app.compute.catalogue import Checkpoint

SAMPLE = 250  # images a task on the page's sample; the whole split follows
_BATCH = 250


@dataclass(frozen=True, eq=False)
class Forward:
    """What the merged non-linear model answers on one task.

    Attributes:
        scores: Features times the head's unit rows, before normalisation, shape (N, C): logits up
            to a positive factor an image.
        labels: Shape (N,).
        split_digest: Of images and labels.
    """

    scores: np.ndarray
    labels: np.ndarray
    split_digest: str

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, a fraction; ties go to the lowest class."""
        from engine.evaluate import accuracy

        return accuracy(*_tensors(self.scores, self.labels))


def _tensors(*arrays: np.ndarray):
    import torch

    return tuple(torch.from_numpy(array) for array in arrays)


def merged(
    encoder_name: str,
    checkpoints: Mapping[str, Checkpoint],
    coefficients: Mapping[str, float],
    references: Mapping[str, str],
    limit: int | None,
    work: Work | None = None,
) -> dict[str, Forward]:
    """Run the non-linear merged model on the test images of tasks.

    Args:
        encoder_name: Of the encoder.
        checkpoints: Task vectors by name.
        coefficients: What each is multiplied with, the convention applied.
        references: Evaluated tasks, name to ``load_task``'s argument.
        limit: Images a task; the whole split with None.
        work: Given for background work: told of the progress, and visitors go before it.

    Returns:
        By evaluated task.
    """
    from engine.task_vectors import combine

    encoder = models.encoder(encoder_name)
    taus = models.vectors(list(checkpoints.values()))
    theta = combine(encoder.theta0, taus, dict(coefficients))
    answers = {}
    for done, (name, reference) in enumerate(references.items()):
        if work is not None:
            work.step(done, len(references), f"{name}: whole split")
        answers[name] = _one(encoder, theta, reference, limit, work)
    return answers


def _one(encoder, theta, reference: str, limit: int | None, work: Work | None) -> Forward:
    """Run one task in batches."""
    import torch

    split = models.split(reference, "test", encoder.image_size, limit)
    head = models.head(encoder, reference)
    parts = []
    for images in split.images.split(_BATCH):
        held = models.lock().foreground if work is None else models.lock().background
        with held(), torch.inference_mode():
            features = encoder.features(theta, encoder.preprocess(images))
            parts.append((features @ head.T).float().cpu())
    return Forward(torch.cat(parts).numpy(), split.labels.numpy(), split.digest)
