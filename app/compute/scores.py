"""Class scores on a split, from which every alpha of a linearized reading follows by algebra.

They are kept in the store (kind "responses"), so that a view is slow once; what is kept for many
task vectors serves every part of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.compute import models
from app.compute.background import Work
from app.compute.catalogue import Checkpoint

SAMPLE = 500  # images a task


@dataclass(frozen=True, eq=False)
class TaskScores:
    """Scores of one evaluated task.

    Attributes:
        name: Of the task.
        title: What a reader sees.
        reference: Name or path for ``load_task``.
        classnames: C names.
        labels: Class indices, shape (N,).
        scores: float32, shape (1 + T, N, C): of f(x; theta_0), then of each J tau_t.
        split_digest: Of the images and labels these were first computed on.
    """

    name: str
    title: str
    reference: str
    classnames: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    split_digest: str

    def first(self, n: int) -> "TaskScores":
        """Return the first n images alone."""
        return replace(self, labels=self.labels[:n], scores=self.scores[:, :n])


def responder(encoder_name: str, checkpoints: Mapping[str, Checkpoint], mode: str):
    """Return ``respond(task, split)``, which computes in the background and keeps its answers.

    Args:
        encoder_name: Of the encoder.
        checkpoints: Task vectors, in the order of the planes.
        mode: "posthoc" or "linear", for the record.
    """
    from engine.remembering import remembered_responses
    from engine.store import default_store

    return remembered_responses(
        default_store(),
        models.Polite(models.encoder(encoder_name)),
        {name: item.entry for name, item in checkpoints.items()},
        {name: models.vector(item.digest) for name, item in checkpoints.items()},
        mode,
    )


def compute(
    encoder_name: str,
    checkpoints: Mapping[str, Checkpoint],
    references: Sequence[str],
    mode: str,
    work: Work,
) -> list[TaskScores]:
    """Return the test scores of tasks, from the store or computed and kept.

    Args:
        encoder_name: Of the encoder.
        checkpoints: Task vectors, in the order of the planes.
        references: Names or paths of the evaluated tasks.
        mode: "posthoc" or "linear", for the record.
        work: Told of the progress; may be cancelled.
    """
    respond = responder(encoder_name, checkpoints, mode)
    entries = {name: item.entry for name, item in checkpoints.items()}
    return _sampled(encoder_name, respond, entries, references, work)


def along(
    encoder_name: str,
    checkpoints: Mapping[str, Checkpoint],
    direction: Mapping,
    references: Sequence[str],
    mode: str,
    work: Work,
) -> list[TaskScores]:
    """Return the test scores of one direction, from the store or computed and kept.

    Args:
        encoder_name: Of the encoder.
        checkpoints: Task vectors it was made of.
        direction: What a merging method made.
        references: Names or paths of the evaluated tasks.
        mode: "posthoc" or "linear", for the record.
        work: Told of the progress; may be cancelled.

    Returns:
        Scores of shape (2, N, C): of f(x; theta_0), then of J tau.
    """
    from engine.evaluate import MERGED
    from engine.remembering import remembered_responses, stand_in
    from engine.store import default_store

    entries = {MERGED: stand_in({name: c.entry for name, c in checkpoints.items()}, direction)}
    encoder = models.Polite(models.encoder(encoder_name))
    respond = remembered_responses(default_store(), encoder, entries, {MERGED: direction}, mode)
    return _sampled(encoder_name, respond, entries, references, work)


def _sampled(encoder_name: str, respond, entries: Mapping, references, work: Work) -> list:
    """Ask for the test sample of each task, or for the whole split where that is kept."""
    encoder = models.encoder(encoder_name)
    found = []
    for done, reference in enumerate(references):
        task = models.task(reference)
        work.step(done, len(references), f"{task.title}, {SAMPLE} test images")
        limit = None if _whole_is_kept(encoder, task, entries) else SAMPLE
        split = models.split(reference, "test", encoder.image_size, limit)
        planes = respond(task, split).scores().numpy()
        found.append(
            TaskScores(
                name=task.name,
                title=task.title,
                reference=reference,
                classnames=tuple(task.classnames),
                labels=split.labels.numpy(),
                scores=planes,
                split_digest=split.digest,
            )
        )
    return found


def _whole_is_kept(encoder, task, entries: Mapping) -> bool:
    """Return whether scores of more than the sample are kept: the sample is their beginning."""
    from engine.remembering import CONTENT, tau_digests
    from engine.store import default_store

    wanted = set(tau_digests(entries).values())
    found = default_store().find(
        "responses",
        content=CONTENT,
        encoder_digest=encoder.digest,
        task=task.name,
        split="test",
    )
    return any(entry.meta["n"] > SAMPLE and wanted <= set(entry.meta["planes"]) for entry in found)
