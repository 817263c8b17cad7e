"""Kernel regression in the dual: the linearized model's predictor without its parameters."""

import torch
from torch import Tensor

from engine.checks import check_finite


def dual_coefficients(kernel: Tensor, residual: Tensor, ridge: float = 0.0) -> Tensor:
    r"""Solve for the coefficients of the training points.

    .. math:: \beta = (K + \lambda I)^{-1} (y - f_0)

    The minimiser over tau of sum_i (f_lin(x_i; theta_0 + tau) - y_i)^2 + lambda |tau|^2, of least
    norm for lambda = 0, is tau = J^T beta: gradient descent from tau = 0 converges to it.

    Args:
        kernel: K between the n training points, symmetric, shape (..., n, n).
        residual: Targets less the outputs at theta_0, shape (..., n).
        ridge: lambda, not negative. 0 solves in the least-squares sense where K is singular.

    Returns:
        beta, shape (..., n), float64.

    Raises:
        ValueError: If the ridge is negative.
        NonFiniteError: If the kernel holds NaN or infinity.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1 (representer theorem); Schoelkopf,
        Herbrich and Smola (2001), "A generalized representer theorem".
    """
    if ridge < 0:
        raise ValueError(f"got a ridge of {ridge}, expected 0 or more")
    check_finite("the tangent kernel", {"K": kernel})
    kernel, residual = kernel.double(), residual.double()
    if ridge == 0:
        inverse = torch.linalg.pinv(kernel, hermitian=True)
        return (inverse @ residual[..., None])[..., 0]
    added = kernel + ridge * torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    factor = torch.linalg.cholesky(added)
    return torch.cholesky_solve(residual[..., None], factor)[..., 0]


def predict(start: Tensor, kernel: Tensor, beta: Tensor) -> Tensor:
    r"""Evaluate the linearly fine-tuned logit at new points.

    .. math:: f_{lin}(x) = f(x; \theta_0) + \sum_\nu \beta_\nu \, k(x_\nu, x)

    Args:
        start: f at theta_0 at the m new points, shape (..., m).
        kernel: Between training points and new points, shape (..., n, m).
        beta: From ``dual_coefficients``, shape (..., n).

    Returns:
        Shape (..., m), float64.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1.
    """
    return start.double() + (beta.double()[..., None, :] @ kernel.double())[..., 0, :]
