"""The first-order expansion of an encoder at theta_0: tangents, f_lin and its gradient."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from engine.checks import check_same_parameters
from engine.linearize.duals import Dual, dual, split

__all__ = ["MODES", "Dual", "dual", "linear_gradient", "linearized", "split", "tangents"]

# how one set of weights is read: f(theta0 + tau), f_lin(theta0 + tau) with tau trained
# non-linearly, f_lin(theta0 + tau) with tau trained in the tangent space
MODES = ("nonlinear", "posthoc", "linear")

Parameters = Mapping[str, Tensor]
Features = Callable[[Parameters, Tensor], Tensor]


def tangents(
    features: Features, theta0: Parameters, taus: Sequence[Parameters], x: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Push several task vectors through the Jacobian in one pass over the images.

    .. math:: z_0 = f(x; \theta_0), \quad J\tau_k = \sum_p \tau_{k,p} \, \partial_p f(x; \theta_0)

    The values are computed once for all k. Costs 1 + 2 K forward passes in products and holds
    1 + K times the largest activation: batches of 50 to 250 images suit the miniature.

    Args:
        features: Trunk f, such as ``Encoder.features``.
        theta0: Pre-trained parameters.
        taus: K task vectors with the names of ``theta0``, of any floating type; K may be 0.
        x: Normalised pixels, shape (N, 3, H, W). Not made under ``torch.inference_mode``.

    Returns:
        z_0, shape (N, d), and J tau, shape (K, N, d), both without a graph.

    Raises:
        ParameterMismatchError: If a task vector has other names or shapes.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3, Eq. (3), second term.
    """
    with torch.no_grad():
        z0, jz = _expand(features, theta0, taus, x)
        return z0, torch.stack(jz) if jz else z0.new_empty(0, *z0.shape)


def linearized(features: Features, theta0: Parameters, tau: Parameters, x: Tensor) -> Tensor:
    r"""Evaluate the first-order expansion of the encoder at one task vector.

    .. math:: f_{lin}(x; \theta_0 + \tau) = f(x; \theta_0) + \tau^\top \nabla_\theta f(x; \theta_0)

    Args:
        features: Trunk f.
        theta0: Pre-trained parameters.
        tau: Task vector, already scaled by its alpha.
        x: Normalised pixels, shape (N, 3, H, W).

    Returns:
        Features, shape (N, d), not L2-normalised, without a graph.

    Raises:
        ParameterMismatchError: If the task vector has other names or shapes.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3, Eq. (3).
    """
    z0, jz = tangents(features, theta0, [tau], x)
    return z0 + jz[0]


def linear_gradient(
    features: Features,
    theta0: Parameters,
    tau: Parameters,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Differentiate a loss of the linearized encoder in its task vector.

    .. math:: \nabla_\tau L(f_{lin}(x; \theta_0 + \tau)) =
        J(\theta_0)^\top \, L'(z_0 + J \tau)

    The Jacobian does not depend on tau, so the gradient is one ordinary backward pass at theta_0
    with the cotangent taken at the linearized output. The tangent is computed beside that pass's
    forward half and stays out of its graph: 5/3 of an ordinary training step in products, and
    little more memory. Under autocast the products run in the lower precision.

    Args:
        features: Trunk f.
        theta0: Pre-trained parameters.
        tau: Task vector being trained.
        x: Normalised pixels, shape (N, 3, H, W).
        loss: From linearized features, shape (N, d), to a scalar.

    Returns:
        The loss, detached, and its gradient by parameter name.

    Raises:
        ParameterMismatchError: If the task vector has other names or shapes.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, App. B, which differentiates through the
        Jacobian-vector product instead: the same gradient at 1.4 times this cost and twice the
        memory.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in theta0.items()}
    with torch.enable_grad():
        z0, (jz,) = _expand(features, leaves, [tau], x)
        z = (z0.detach() + jz).requires_grad_()
        value = loss(z)
        (cotangent,) = torch.autograd.grad(value, z)
        # of a number: for a vector's gradient torch would import its symbolic shapes, for a second
        slope = (z0 * cotangent.to(z0.dtype)).sum()
    grads = torch.autograd.grad(slope, list(leaves.values()))
    return value.detach(), dict(zip(leaves, grads, strict=True))


def _expand(
    features: Features, theta: Parameters, taus: Sequence[Parameters], x: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the trunk of parameters that carry the task vectors as tangents."""
    for k, tau in enumerate(taus):
        check_same_parameters(f"task vector {k + 1} of {len(taus)}", tau, theta)
    if not taus:
        return features(theta, x), ()
    paired = {
        name: dual(value, [tau[name].to(value.detach()) for tau in taus])
        for name, value in theta.items()
    }
    return split(features(paired, x))
