"""Class scores on a split, from which every alpha of a linearized reading follows by algebra.

They are kept in the store (kind "responses"), so that a view is slow once; what is kept for many
task vectors serves every part of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.compute import models
from app.compute.background import Work
from app.compute.catalogue import Checkpoint

SAMPLE = 500  # images a task
_CHUNK = 125  # images between two steps of a progress bar


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

    def readings(self, names: Sequence[str]):
        """Return what the engine's measures take.

        The scores stand in the place of features, with the identity for a head.
        """
        import torch

        from engine.responses import Responses

        planes = torch.from_numpy(self.scores)
        head = torch.eye(len(self.classnames))
        labels = torch.from_numpy(self.labels)
        return Responses(self.name, "", tuple(names), planes[0], planes[1:], labels, head)

    def first(self, n: int) -> "TaskScores":
        """Return the first n images alone."""
        return TaskScores(
            self.name,
            self.title,
            self.reference,
            self.classnames,
            self.labels[:n],
            self.scores[:, :n],
            self.split_digest,
        )


def scores(
    encoder_name: str,
    checkpoints: Mapping[str, Checkpoint],
    reference: str,
    split_name: str,
    limit: int,
    work: Work,
    base: int,
    total: int,
) -> TaskScores:
    """Return the scores of one task, from the store or computed and kept.

    Args:
        encoder_name: Of the encoder.
        checkpoints: Task vectors, in the order of the planes.
        reference: Name or path of the evaluated task.
        split_name: "validation" or "test".
        limit: Images at most.
        work: Told of the progress; may be cancelled.
        base: Images done before.
        total: Images in all.
    """
    encoder = models.encoder(encoder_name)
    task = models.task(reference)
    work.step(base, total, f"{task.title}: images")
    split = models.split(reference, split_name, encoder.image_size, limit)
    found = _find(encoder, split, checkpoints)
    if found is None:
        found = _compute(encoder, task, split, checkpoints, work, base, total)
        _keep(encoder, split, checkpoints, found)
    return TaskScores(
        name=task.name,
        title=task.title,
        reference=reference,
        classnames=tuple(task.classnames),
        labels=split.labels.numpy(),
        scores=found,
        split_digest=split.digest,
    )


def _find(encoder, split, checkpoints: Mapping[str, Checkpoint]) -> np.ndarray | None:
    """Return stored scores that cover these task vectors on this split, None without any."""
    from engine.store import default_store

    store = default_store()
    wanted = [item.digest for item in checkpoints.values()]
    for entry in store.find(
        "responses", content="scores", encoder_digest=encoder.digest, split_digest=split.digest
    ):
        kept = list(entry.meta["checkpoints"].values())
        if set(wanted) <= set(kept):
            planes = [0] + [1 + kept.index(digest) for digest in wanted]
            return store.get(entry)["scores"][planes].numpy()
    return None


def _compute(encoder, task, split, checkpoints, work: Work, base: int, total: int) -> np.ndarray:
    """Return scores computed in chunks, so that progress is seen and the work can be left."""
    from dataclasses import replace

    from engine.responses import responses

    taus = models.vectors(list(checkpoints.values()))
    polite = models.Polite(encoder)
    parts = []
    N = len(split.labels)
    for start in range(0, N, _CHUNK):
        work.step(base + start, total, f"{task.title}: {start} of {N} images")
        end = min(N, start + _CHUNK)
        chunk = replace(split, images=split.images[start:end], labels=split.labels[start:end])
        parts.append(responses(polite, task, chunk, taus).scores().numpy())
    return np.concatenate(parts, axis=1)


def _keep(encoder, split, checkpoints: Mapping[str, Checkpoint], found: np.ndarray) -> None:
    """Store scores for the next view."""
    import torch

    from engine.provenance import provenance
    from engine.store import default_store

    first = next(iter(checkpoints.values()))
    default_store().put(
        "responses",
        {"scores": torch.from_numpy(found)},
        {
            "content": "scores",
            "key": f"scores-{split.name}-{len(split.labels)}",
            "encoder": encoder.name,
            "encoder_digest": encoder.digest,
            "task": split.task,
            "mode": first.mode,
            "split": split.name,
            "split_digest": split.digest,
            "n": len(split.labels),
            "checkpoints": {name: item.digest for name, item in checkpoints.items()},
            "taus": {
                name: item.meta["tau_digest"]
                for name, item in checkpoints.items()
                if "tau_digest" in item.meta
            },
            **provenance(),
        },
    )
