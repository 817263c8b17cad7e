"""Singular vectors of a tangent kernel, and how much of them lives at each point."""

import torch
from torch import Tensor

from engine.checks import check_finite


def right_singular(kernel: Tensor) -> tuple[Tensor, Tensor]:
    r"""Decompose a kernel between n rows and m >= n columns.

    .. math:: K = U S V^\top, \qquad \phi_\rho(x_j) = V_{j \rho}

    The *right* vectors, n of them: they have an entry for each column. The left ones live on the
    rows alone, and ``full_matrices=True`` would add m - n vectors that the kernel does not have.

    Args:
        kernel: Shape (..., n, m), n <= m.

    Returns:
        Singular values, largest first, shape (..., n), and V, shape (..., m, n), both float64.

    Raises:
        ValueError: If there are more rows than columns.
        NonFiniteError: If the kernel holds NaN or infinity.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1 and App. A.
    """
    n, m = kernel.shape[-2:]
    if n > m:
        raise ValueError(f"got a kernel of {n} x {m}, expected no more rows than columns")
    check_finite("the tangent kernel", {"K": kernel})
    _, singular, transposed = torch.linalg.svd(kernel.double(), full_matrices=False)
    return singular, transposed.transpose(-2, -1)


def vector_energy(vectors: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Measure where orthonormal eigenfunctions live, point by point.

    .. math:: E_{loc}(x_j) = \sum_\rho w_\rho \, \phi_\rho(x_j)^2

    With all right singular vectors of an n x 2n kernel and w = 1: the diagonal of a projector of
    rank n, in [0, 1], mean 1/2, blind to the scale and to the spectrum of the kernel.

    Args:
        vectors: Orthonormal columns, shape (..., m, R), R < m.
        weights: Of the columns, shape (..., R); None for 1.

    Returns:
        Energy, shape (..., m); sums to R, or to the sum of the weights.

    Raises:
        ValueError: If R is not below m: a complete basis has energy 1 at every point, whatever
            the kernel. Left singular vectors, those of ``full_matrices=True`` and all
            eigenvectors of a square kernel are such bases.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1.
    """
    m, R = vectors.shape[-2:]
    if R >= m:
        raise ValueError(
            f"got {R} vectors on {m} points, expected fewer vectors than points: "
            "the energy of a complete basis is 1 everywhere"
        )
    squares = vectors.square()
    return squares.sum(-1) if weights is None else (squares * weights[..., None, :]).sum(-1)


def leading_energy(vectors: Tensor, leading: tuple[int, ...]) -> Tensor:
    r"""Sum the energy of the leading eigenfunctions alone.

    .. math:: E_R(x_j) = \sum_{\rho \le R} \phi_\rho(x_j)^2

    Args:
        vectors: Shape (..., m, n), largest singular value first, n < m.
        leading: The values of R, each from 1 to n.

    Returns:
        Shape (..., G, m), one row for each R; each sums to its R.
    """
    return torch.stack([vector_energy(vectors[..., :R]) for R in leading], dim=-2)


def ridge_energy(singular: Tensor, vectors: Tensor, ridges: tuple[float, ...]) -> Tensor:
    r"""Weight eigenfunctions by what a ridge leaves of them.

    .. math:: E_\lambda(x_j) = \sum_\rho \frac{s_\rho^2}{s_\rho^2 + \lambda^2} \phi_\rho(x_j)^2

    Args:
        singular: Shape (..., n).
        vectors: Shape (..., m, n), n < m.
        ridges: Values of lambda, as fractions of the largest singular value.

    Returns:
        Shape (..., H, m).
    """
    squares, top = singular.square(), singular[..., :1].square()
    weighted = [
        vector_energy(vectors, squares / (squares + ridge**2 * top).clamp_min(1e-300))
        for ridge in ridges
    ]
    return torch.stack(weighted, dim=-2)


def eigenfunctions(kernel: Tensor) -> tuple[Tensor, Tensor]:
    r"""Decompose a square kernel.

    .. math:: K \phi_\rho = \lambda_\rho \phi_\rho

    Args:
        kernel: Symmetric, shape (..., N, N).

    Returns:
        Eigenvalues, largest first, shape (..., N), and orthonormal eigenvectors as columns,
        shape (..., N, N), float64. The energy of all of them together is 1 everywhere: choose
        some.

    Raises:
        ValueError: If the kernel is not symmetric.
        NonFiniteError: If it holds NaN or infinity.
    """
    check_finite("the tangent kernel", {"K": kernel})
    kernel = kernel.double()
    turned = kernel.transpose(-2, -1)
    if kernel.shape != turned.shape or not torch.allclose(
        kernel, turned, rtol=1e-4, atol=1e-5 * float(kernel.abs().max())
    ):
        raise ValueError("expected a symmetric kernel: the same points as rows and columns")
    values, vectors = torch.linalg.eigh((kernel + turned) / 2)
    return values.flip(-1), vectors.flip(-1)


def effective_rank(singular: Tensor) -> Tensor:
    r"""Count the directions that carry a spectrum.

    .. math:: \exp\Big(-\sum_\rho p_\rho \log p_\rho\Big), \qquad
        p_\rho = s_\rho / \textstyle\sum_\sigma s_\sigma

    Args:
        singular: Shape (..., n), not negative.

    Returns:
        Shape (...), from 1 to n.

    Source:
        Roy and Vetterli (2007), "The effective rank", Eq. (4).
    """
    shares = singular / singular.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1).exp()
