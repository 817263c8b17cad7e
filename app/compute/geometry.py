"""How task vectors lie to each other: norms, cosines, and where in the network they are long."""

from dataclasses import dataclass

import numpy as np
import streamlit as st

from app.compute import models


@dataclass(frozen=True)
class Geometry:
    """Task vectors compared.

    Attributes:
        cosine: Shape (T, T), in [-1, 1].
        norm: Euclidean norms over all parameters, shape (T,).
        groups: Parts of the network, from input to output.
        share: Part of the squared norm in each group, shape (T, groups); rows sum to 1.
    """

    cosine: np.ndarray
    norm: np.ndarray
    groups: tuple[str, ...]
    share: np.ndarray


@st.cache_data(max_entries=16, show_spinner="Comparing task vectors")
def compare(digests: tuple[str, ...]) -> Geometry:
    """Compare task vectors.

    Args:
        digests: Of the checkpoints, in the order of rows and columns.

    Returns:
        Cosines, norms and where in the network they lie.
    """
    from engine.task_vectors import cosine_matrix, norm

    taus = {digest: models.vector(digest) for digest in digests}
    matrix = cosine_matrix(taus)
    groups = parts_of(list(taus[digests[0]]))
    parts = np.array([
        [norm({name: tau[name] for name in names}) ** 2 for names in groups.values()]
        for tau in taus.values()
    ])
    return Geometry(
        cosine=np.asarray(matrix),
        norm=np.array([float(norm(tau)) for tau in taus.values()]),
        groups=tuple(groups),
        share=parts / parts.sum(axis=1, keepdims=True),
    )


def parts_of(names: list[str]) -> dict[str, list[str]]:
    """Return parameter names by the part of the network they belong to, from input to output."""
    from engine.task_vectors import parts_of as sorted_by_part

    return sorted_by_part(names)
