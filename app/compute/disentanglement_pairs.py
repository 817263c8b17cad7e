"""All pairs of tasks at one alpha, and all tasks at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import streamlit as st

from app.compute import forward, models
from app.compute.background import Work, board
from app.compute.disentanglement import Vectors, planes
from app.compute.disentanglement_passes import BATCH, Watched
from app.compute.scores import TaskScores


@dataclass(frozen=True, eq=False)
class Pairs:
    """xi of every pair at one alpha: arrays of shape (T, T), NaN on the diagonal."""

    mode: str
    names: tuple[str, ...]
    alpha: float
    xi: np.ndarray
    terms: np.ndarray
    n: tuple[int, ...]


def linearized_pairs(vectors: Vectors, alpha: float, loaded: Mapping[str, TaskScores]) -> Pairs:
    """Return the matrix of a linearized reading, remembered.

    Args:
        vectors: A linearized reading.
        alpha: Of both vectors of each pair.
        loaded: Class scores of all tasks.
    """
    return _linearized_pairs(vectors, float(alpha), loaded)


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs={Vectors: repr})
def _linearized_pairs(vectors: Vectors, alpha: float, _loaded) -> Pairs:
    from engine.disentanglement import linearized_matrix

    names = vectors.names
    every = {name: planes(vectors, names, _loaded[name]) for name in names}
    return _pairs(vectors, linearized_matrix(every, names, alpha))


def nonlinear_pairs(vectors: Vectors, alpha: float, visitor: str) -> Work:
    """Start, or find, forward passes for the matrix of the non-linear reading.

    Args:
        vectors: The non-linear reading.
        alpha: Of both vectors of each pair.
        visitor: Who asks.

    Returns:
        Work whose result is :class:`Pairs`, on the first images of each test split.
    """

    def compute(work: Work) -> Pairs:
        from engine.disentanglement import nonlinear_matrix

        encoder = models.encoder(vectors.encoder)
        items = vectors.checkpoints
        batches = len(items) ** 2 * -(-forward.SAMPLE // BATCH)
        watched = Watched(encoder, work, batches)
        found = nonlinear_matrix(
            watched,
            {name: models.task(item.reference) for name, item in items.items()},
            {name: models.vector(item.digest) for name, item in items.items()},
            {
                name: models.split(item.reference, "test", encoder.image_size, forward.SAMPLE)
                for name, item in items.items()
            },
            alpha,
            images=forward.SAMPLE,
            batch=BATCH,
        )
        return _pairs(vectors, found)

    return board().start("non-linear pairs", visitor, (vectors, float(alpha)), compute)


def _pairs(vectors: Vectors, found) -> Pairs:
    return Pairs(
        vectors.mode,
        found.names,
        found.alpha,
        found.xi.numpy(),
        found.terms.numpy(),
        tuple(found.n[name] for name in found.names),
    )


def diagonal(vectors: Vectors, loaded: Mapping[str, TaskScores]) -> dict[str, np.ndarray]:
    """Return xi of all tasks at once along alpha, of a linearized reading, remembered.

    Args:
        vectors: A linearized reading.
        loaded: Class scores of all tasks.

    Returns:
        {"alphas", "xi"}, 31 values in [0, 1.5].
    """
    return _diagonal(vectors, loaded)


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs={Vectors: repr})
def _diagonal(vectors: Vectors, _loaded) -> dict[str, np.ndarray]:
    import torch

    from engine.disentanglement import linearized_diagonal

    names = vectors.names
    every = {name: planes(vectors, names, _loaded[name]) for name in names}
    alphas = torch.arange(31, dtype=torch.float64) / 20
    found = linearized_diagonal(every, names, alphas)
    return {"alphas": alphas.numpy(), "xi": found.xi.numpy()}
