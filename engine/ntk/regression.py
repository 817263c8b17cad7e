"""Kernel regression in the dual: the linearized model's predictor without its parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.checks import check_finite

RIDGE = 1e-6  # of the largest eigenvalue: below it a kernel computed in float32 is rounding


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


def fine_tuned(
    kernels: Tensor, start: Tensor, change: Tensor, labels: Tensor, classes: Sequence[int]
) -> dict:
    r"""Compare kernel regression on the task's points with the linearly fine-tuned model.

    .. math:: \beta = (K_{tt} + \lambda I)^{-1} \Delta f(X_t), \qquad
        \widehat{\Delta f}(x) = \sum_\nu \beta_\nu \, k(x_\nu, x)

    with :math:`\Delta f = J \tau`, what fine-tuning changed. By the representer theorem the two are
    equal where tau lies in the span of the gradients of these points; fine-tuning saw more points
    and all logits, so what is lacking says how far these n points determine it.

    Args:
        kernels: Rows: the task's n points; columns: those, n held-out ones, then any; shape
            (L, n, m).
        start: f at theta_0 at the columns, shape (L, m).
        change: Delta f at the columns, shape (L, m).
        labels: Classes of the held-out points, shape (n,).
        classes: Which class each logit is of, L entries.

    Returns:
        {"ridge": lambda / the largest eigenvalue, "n", "explained": 1 - |residual|^2 / |Delta f|^2
        on the held-out points, a logit each, "correlation": the same way, "accuracy": {"n",
        "classes", "zeroshot", "linear", "dual"} among the logits' classes on the held-out points
        of these classes, None with fewer than two classes or no such point}.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1 (representer theorem).
    """
    n = kernels.shape[1]
    held, true = slice(n, 2 * n), change[:, n : 2 * n]
    predicted = []
    for K, f in zip(kernels, change, strict=True):
        ridge = RIDGE * float(torch.linalg.eigvalsh(K[:, :n])[-1])
        beta = dual_coefficients(K[:, :n], f[:n], ridge)
        predicted.append(predict(torch.zeros(n), K[:, held], beta))
    dual = torch.stack(predicted)
    lacking = (dual - true).square().sum(1) / true.square().sum(1).clamp_min(1e-300)
    both = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(dual, true, strict=True)]
    # a logit that does not vary is correlated with nothing
    correlation = [float(value) if value.isfinite() else 0.0 for value in both]
    readings = {"zeroshot": 0 * dual, "linear": true, "dual": dual}
    return {
        "ridge": RIDGE,
        "n": n,
        "explained": (1 - lacking).tolist(),
        "correlation": correlation,
        "accuracy": _accuracies(start[:, held], readings, labels, classes),
    }


def _accuracies(
    start: Tensor, readings: dict[str, Tensor], labels: Tensor, classes: Sequence[int]
) -> dict | None:
    """Return accuracy among some classes, on the points that belong to them."""
    known = torch.tensor(list(classes))
    inside = torch.isin(labels.cpu(), known)
    if len(known) < 2 or not inside.any():
        return None
    right = {
        name: float((known[(start + change).argmax(0)] == labels.cpu())[inside].double().mean())
        for name, change in readings.items()
    }
    return {"n": int(inside.sum()), "classes": len(known), **right}
