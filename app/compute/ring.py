"""Appendix C's worked example, computed: a fully-connected kernel on a ring."""

from dataclasses import dataclass

import numpy as np
import streamlit as st

POINTS = 64
LAYERS = 3
WIDTH = 128  # of the finite network


@dataclass(frozen=True, eq=False)
class Ring:
    """What the example gives.

    Attributes:
        atoms: Fourier atoms as columns, by frequency, shape (N, N).
        infinite: Their eigenvalues under the kernel of infinite width, shape (N,).
        finite: What they take of the kernel of one network of finite width, shape (N,).
        residual: Largest entry off the diagonal of the rotated kernel of infinite width, relative
            to the largest on it.
        energy: Row R - 1 is the local energy of the first R atoms, shape (N / 2, N).
    """

    atoms: np.ndarray
    infinite: np.ndarray
    finite: np.ndarray
    residual: float
    energy: np.ndarray

    @property
    def frequency(self) -> np.ndarray:
        """Frequency of each atom, shape (N,)."""
        return (np.arange(len(self.infinite)) + 1) // 2


@st.cache_data(max_entries=1, show_spinner=False)
def example() -> Ring:
    """Compute the example: the first half of the ring is the task, the other the control."""
    from engine.ntk.ring import empirical_kernel, ring, ring_example

    found = ring_example(POINTS, LAYERS)
    atoms = found["atoms"]
    finite = atoms.T @ empirical_kernel(ring(POINTS), WIDTH, LAYERS) @ atoms
    return Ring(
        atoms.numpy(),
        found["eigenvalues"].numpy(),
        finite.diagonal().detach().numpy(),
        float(found["residual"]),
        found["energy"].numpy(),
    )


def rows(found: Ring) -> list[dict]:
    """Return the example as a table: an atom a row.

    Args:
        found: Of :func:`example`.

    Returns:
        Frequency, both eigenvalues, and each atom's energy on the task's half of the ring.
    """
    half = len(found.atoms) // 2
    return [
        {
            "atom": k,
            "frequency": int(found.frequency[k]),
            "eigenvalue_infinite_width": float(found.infinite[k]),
            "eigenvalue_finite_width": float(found.finite[k]),
            "energy_on_task": float((found.atoms[:half, k] ** 2).sum()),
        }
        for k in range(len(found.infinite))
    ]
