"""What is read off a kernel's eigenfunctions: energies, scores, coefficients, block by block."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import UsageError
from engine.ntk.energy import ARRANGEMENTS, BLOCKS
from engine.ntk.kernels import Kernel
from engine.ntk.scores import scored
from engine.ntk.spectrum import (
    eigenfunctions,
    leading_energy,
    ridge_energy,
    right_singular,
    vector_energy,
)

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)


def read_energies(
    made: Kernel,
    where: Mapping[str, int],
    leading: tuple[int, ...],
    ridges: tuple[float, ...],
    change: Tensor | None,
    dtype: torch.dtype,
    facts: dict,
) -> dict:
    """Read all that the eigenfunctions of the three arrangements tell.

    Args:
        made: Kernel between a task's points and those of all blocks.
        where: At which column each block begins.
        leading: Values of R, the last is n.
        ridges: Values of lambda, as fractions of the largest singular value.
        change: Delta f of each logit at all points, shape (L, m); None without a task vector.
        dtype: In which the kernel's products ran.
        facts: How it was made, to be completed.

    Returns:
        Fields of ``LocalEnergy``.
    """
    n = leading[-1]
    spectra, energies, leadings, ridged, noise = [], [], [], [], {}
    weighted: dict = {}
    for arrangement in ARRANGEMENTS:
        columns = torch.cat([torch.arange(where[b], where[b] + n) for b in BLOCKS[arrangement]])
        singular, vectors = right_singular(made.values[:, :, columns])
        spectra.append(singular)
        energies.append(vector_energy(vectors))
        leadings.append(leading_energy(vectors, leading))
        ridged.append(ridge_energy(singular, vectors, ridges))
        below = ~above_rounding(singular, dtype)
        noise[arrangement] = int(below.sum(1).max())
        if change is not None and arrangement == "paper":
            weighted = coefficients(vectors, change[:, columns])
    energy = torch.stack(energies)
    return {
        "spectrum": torch.stack(spectra),
        "energy": energy.float(),
        "leading": leading,
        "energy_leading": torch.stack(leadings).float(),
        "ridges": ridges,
        "energy_ridge": torch.stack(ridged).float(),
        "scores": {name: scored(e) for name, e in zip(ARRANGEMENTS, energy, strict=True)},
        "layer_scores": _layer_scores(made, where, n, dtype),
        "eigvals": eigenfunctions(made.values[:, :, :n])[0],
        "made": {**facts, "vectors_below_rounding": noise},
        **weighted,
    }


def block_energy(kernel: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    r"""Measure where the eigenfunctions of one block's kernel live.

    .. math:: K = \sum_b K_b, \qquad K_b = J_b J_b^\top, \qquad
        E_b(x_j) = \sum_{\rho: \, s_\rho > \epsilon s_1} \phi_{b \rho}(x_j)^2

    A block may have fewer directions than there are points: vectors of singular values within
    rounding of 0 say nothing and are left out.

    Args:
        kernel: K_b of each logit, shape (L, n, m), n < m.
        dtype: In which its products ran; epsilon is ten times its precision.

    Returns:
        Energy, shape (L, m), and how many vectors it has of the logit that has the fewest.
    """
    singular, vectors = right_singular(kernel)
    above = above_rounding(singular, dtype)
    return vector_energy(vectors, above.double()), int(above.sum(-1).min())


def above_rounding(singular: Tensor, dtype: torch.dtype) -> Tensor:
    """Say which singular values are more than rounding.

    Args:
        singular: Largest first, shape (L, n).
        dtype: In which the kernel's products ran.

    Returns:
        Their shape, True where they are.
    """
    return singular > 10 * torch.finfo(dtype).eps * singular[..., :1]


def _layer_scores(
    made: Kernel, where: Mapping[str, int], n: int, dtype: torch.dtype
) -> dict[str, dict] | None:
    """Return the held-out scores of each block's kernel; None where blocks were not kept."""
    columns = torch.cat([torch.arange(where[b], where[b] + n) for b in BLOCKS["heldout"]])
    found = {}
    for label, kernel in made.blocks.items():
        energy, rank = block_energy(kernel[:, :, columns], dtype)
        found[label] = {**scored(energy), "rank": rank}
    return found or None


def coefficients(vectors: Tensor, change: Tensor) -> dict[str, Tensor]:
    r"""Find which eigenfunctions a fine-tuned change of the logit is made of, and where they live.

    .. math:: c_\rho = \sum_j \phi_\rho(x_j) \, \Delta f(x_j), \qquad
        E_c(x_j) = \frac{\sum_\rho c_\rho^2 \phi_\rho(x_j)^2}{\sum_\rho c_\rho^2}

    Args:
        vectors: Orthonormal columns, shape (L, m, n).
        change: Delta f of each logit at the points, shape (L, m).

    Returns:
        "coefficients", shape (L, n), float64; "energy_weighted", shape (L, m), sums to 1; and
        "captured", shape (L,): sum_rho c^2 / sum_j Delta f^2, the share within their span.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1 (the coefficients c_rho of f in
        the kernel's basis); the weighting is not in the paper.
    """
    found = (vectors.transpose(-2, -1) @ change[..., None].double())[..., 0]
    total = found.square().sum(-1, keepdim=True).clamp_min(1e-300)
    return {
        "coefficients": found,
        "energy_weighted": vector_energy(vectors, found.square() / total).float(),
        "captured": (total[..., 0] / change.double().square().sum(-1).clamp_min(1e-300)).float(),
    }


def leading_grid(n: int) -> tuple[int, ...]:
    """Return about a dozen values of R from 1 to n, each about 1.6 times the one before."""
    grid = {1, n}
    value = 1.6
    while value < n:
        grid.add(round(value))
        value *= 1.6
    return tuple(sorted(grid))


def check_settings(leading: Sequence[int], ridges: Sequence[float], n: int) -> None:
    """Refuse settings that energies cannot be read at.

    Args:
        leading: Values of R.
        ridges: Values of lambda, as fractions of the largest singular value.
        n: Points of a block, as many as there are eigenfunctions.

    Raises:
        UsageError: With what to change.
    """
    wrong = [R for R in leading if not 1 <= R <= n]
    if wrong:
        raise UsageError(f"--leading {wrong[0]}: {n} points have {n} eigenfunctions; give 1 to {n}")
    negative = [ridge for ridge in ridges if ridge <= 0]
    if negative:
        raise UsageError(
            f"--ridge {negative[0]:g} is not above 0; leave it out for all eigenfunctions alike"
        )
