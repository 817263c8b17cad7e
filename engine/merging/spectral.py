"""Methods on the singular vectors of each matrix: TSV-M, Iso-C, Iso-CTS.

Tensors that are not matrices take the mean of the task vectors. Attention's queries, keys and
values are one matrix here, as open_clip holds them (``in_proj_weight``): apart, the result differs.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Vectors = Mapping[str, Mapping[str, Tensor]]


def tsv_merge(taus: Vectors) -> dict[str, Tensor]:
    r"""Keep a T-th of each task's singular directions, and make them orthogonal.

    .. math:: U = [U_t^{(k)}]_t, \; S = [S_t^{(k)}]_t, \; V = [V_t^{(k)}]_t, \quad
              W = \mathrm{polar}(U) \, \mathrm{diag}(S) \, \mathrm{polar}(V)^\top

    with k = floor(r / T) leading triplets of each task, r the smaller side (at least one).

    Args:
        taus: Task vectors by task; not changed.

    Returns:
        The direction, in the precision of the task vectors; the usual alpha is 1.

    Source:
        Gargiulo et al. (2024), "Task Singular Vectors", arXiv:2412.00081, Sec. 4.2, Algorithm 1.
    """

    def merge(parts: Sequence[Tensor]) -> Tensor:
        k = max(1, min(parts[0].shape) // len(parts))
        triplets = [torch.linalg.svd(part, full_matrices=False) for part in parts]
        return _joined([(U[:, :k], S[:k], V[:k]) for U, S, V in triplets])

    return _by_matrix(taus, merge)


def iso_c(taus: Vectors) -> dict[str, Tensor]:
    r"""Give the sum's singular directions one size.

    .. math:: \sum_t W_t = U S V^\top \;\to\; \bar S\, U V^\top

    Args:
        taus: Task vectors by task; not changed.

    Returns:
        The direction, in the precision of the task vectors; the usual alpha is 1 to 1.5.

    Source:
        Marczak et al. (2025), "No Task Left Behind", arXiv:2502.04959, Sec. 4, Algorithm 1.
    """

    def merge(parts: Sequence[Tensor]) -> Tensor:
        U, S, V = torch.linalg.svd(sum(parts), full_matrices=False)
        return S.mean() * U @ V

    return _by_matrix(taus, merge)


def iso_cts(taus: Vectors, *, common: float = 0.8) -> dict[str, Tensor]:
    r"""As ``iso_c``, with some directions kept for each task alone.

    The common subspace is the c leading directions of the sum; each task adds the n leading ones of
    :math:`W_t - U_c U_c^\top W_t`; all are made orthogonal and given the mean singular value.

    Args:
        taus: Task vectors by task; not changed.
        common: Share of the r directions that are common, before rounding: n = round((r -
            int(common r)) / T), c = r - n T; n is at most floor(r / T), so that c is never
            negative (the authors' code, which rounds alone, has no answer there).

    Returns:
        The direction, in the precision of the task vectors; the usual alpha is 1.5.

    Source:
        Marczak et al. (2025), "No Task Left Behind", arXiv:2502.04959, Sec. 4, Algorithm 2.
    """

    def merge(parts: Sequence[Tensor]) -> Tensor:
        r, T = min(parts[0].shape), len(parts)
        n = min(round((r - int(common * r)) / T), r // T)
        c = r - n * T
        U, S, V = torch.linalg.svd(sum(parts), full_matrices=False)
        pieces = [(U[:, :c], S[:c], V[:c])]
        for part in parts:
            rest = part - U[:, :c] @ (U[:, :c].T @ part)
            u, s, v = torch.linalg.svd(rest, full_matrices=False)
            pieces.append((u[:, :n], s[:n], v[:n]))
        sizes = torch.cat([s for _, s, _ in pieces])
        return _joined([(u, torch.full_like(s, sizes.mean()), v) for u, s, v in pieces])

    return _by_matrix(taus, merge)


def _by_matrix(taus: Vectors, merge: Callable[[Sequence[Tensor]], Tensor]) -> dict[str, Tensor]:
    """Merge each matrix by a function, and take the mean of the rest."""
    direction = {}
    for name in next(iter(taus.values())):
        parts = [tau[name] for tau in taus.values()]
        direction[name] = merge(parts) if parts[0].ndim == 2 else sum(parts) / len(parts)
    return direction


def _joined(pieces: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return polar(U) diag(S) polar(V^T) of triplets put side by side."""
    U = torch.cat([u for u, _, _ in pieces], dim=1)
    V = torch.cat([v for _, _, v in pieces], dim=0)
    return (_polar(U) * torch.cat([s for _, s, _ in pieces])) @ _polar(V)


def _polar(matrix: Tensor) -> Tensor:
    """Return the nearest matrix with orthonormal rows or columns, U V^T of the thin SVD."""
    U, _, V = torch.linalg.svd(matrix, full_matrices=False)
    return U @ V
