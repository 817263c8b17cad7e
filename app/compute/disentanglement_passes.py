"""Forward passes for disentanglement that a page waits for, and the maps that jobs have kept."""

import time
from collections.abc import Mapping

import numpy as np

from app.compute import models
from app.compute.background import Work, board
from app.compute.disentanglement import Map, Vectors, as_map, is_on

BATCH = 250


class Watched(models.Polite):
    """An encoder for background work that can be left at every batch.

    Attributes:
        note: What is being done.
        total: Batches in all, where that is known.
    """

    def __init__(self, encoder, work: Work, total: int = 0) -> None:
        super().__init__(encoder)
        self._work = work
        self.note, self.done, self.total = "", 0, total
        self.started = time.monotonic()

    def features(self, theta, x):
        """Return the encoder's features, when no visitor waits; leave if nobody waits for them."""
        self._work.step(self.done, max(self.total, self.done + 1), self._said())
        found = super().features(theta, x)
        self.done += 1
        return found

    def _said(self) -> str:
        """Say what is done, and how long the rest takes at this pace."""
        if not self.total or self.done < 3:
            return self.note or "starting"
        pace = (time.monotonic() - self.started) / self.done
        return f"{self.note}, {time_left(pace * (self.total - self.done))} left"


def time_left(seconds: float) -> str:
    """Write a time to wait in words: "about 20 s", "about 3 min"."""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5)):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def feature_norms(
    vectors: Vectors, tasks: tuple[str, str], n: Mapping[str, int], visitor: str
) -> Work:
    """Start, or find, what the distances between soft-maxes need beside class scores.

    Args:
        vectors: A linearized reading.
        tasks: The pair.
        n: Images of each, as many as there are class scores of.
        visitor: Who asks.

    Returns:
        Work whose result is products of features by task.
    """

    def compute(work: Work) -> dict:
        from engine.disentanglement import feature_products
        from engine.responses import responses

        encoder = models.encoder(vectors.encoder)
        watched = Watched(encoder, work)
        chosen = vectors.of(tasks)
        taus = {name: models.vector(item.digest) for name, item in chosen.items()}
        found = {}
        for name, item in chosen.items():
            task = models.task(item.reference)
            watched.note = f"{task.title}: features"
            split = models.split(item.reference, "test", encoder.image_size, n[name])
            found[name] = feature_products(responses(watched, task, split, taus, BATCH))
        return found

    title = f"features, {vectors.encoder}, {vectors.mode}"
    return board().start(title, visitor, (vectors, tasks, tuple(n.items())), compute)


def kept_nonlinear(
    vectors: Vectors, tasks: tuple[str, str], alphas: np.ndarray, distance: str, images: int
) -> Map | None:
    """Return the kept map of the non-linear reading that fits best.

    Args:
        vectors: The non-linear reading.
        tasks: The pair.
        alphas: The axis wanted.
        distance: "error", "tv" or "kl".
        images: Images a task wanted.

    Returns:
        One on just these alphas and images if there is one; else on these alphas; else the finest.
    """
    from engine.disentanglement.keeping import kept_maps
    from engine.remembering import tau_digests
    from engine.store import default_store

    entries = {name: item.entry for name, item in vectors.of(tasks).items()}
    found = [
        as_map(kept if kept.tasks == tasks else kept.swapped())
        for kept in kept_maps(
            default_store(), vectors.encoder_digest, tau_digests(entries), distance
        )
        if set(kept.tasks) == set(tasks) and kept.mode == "nonlinear"
    ]

    def fit(found: Map) -> tuple:
        fits = is_on(found, alphas)
        return fits, fits and max(found.n) == images, len(found.alphas), max(found.n)

    return max(found, key=fit, default=None)
