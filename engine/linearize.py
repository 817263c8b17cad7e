"""The first-order expansion of an encoder at theta_0: tangents, f_lin and its gradient."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import jvp, vmap

from engine.checks import check_same_parameters
from engine.encoders.attention import plain_attention

MODES = ("nonlinear", "posthoc", "linear")

Features = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def tangents(
    features: Features,
    theta0: Mapping[str, Tensor],
    taus: Sequence[Mapping[str, Tensor]],
    x: Tensor,
) -> tuple[Tensor, Tensor]:
    theta0 = dict(theta0)
    for k, tau in enumerate(taus):
        check_same_parameters(f"task vector {k}", tau, theta0)
    with torch.no_grad(), plain_attention():
        if not taus:
            z0 = features(theta0, x)
            return z0, z0.new_empty(0, *z0.shape)
        stacked = {name: torch.stack([tau[name] for tau in taus]) for name in theta0}

        def one(tau):
            return jvp(lambda theta: features(theta, x), (theta0,), (tau,))

        return vmap(one, out_dims=(None, 0))(stacked)


def linearized(
    features: Features, theta0: Mapping[str, Tensor], tau: Mapping[str, Tensor], x: Tensor
) -> Tensor:
    z0, jz = tangents(features, theta0, [tau], x)
    return z0 + jz[0]


def linear_gradient(
    features: Features,
    theta0: Mapping[str, Tensor],
    tau: Mapping[str, Tensor],
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    z = linearized(features, theta0, tau, x).detach().requires_grad_()
    value = loss(z)
    (cotangent,) = torch.autograd.grad(value, z)
    leaves = {name: value.detach().requires_grad_() for name, value in theta0.items()}
    z0 = features(leaves, x)
    grads = torch.autograd.grad(z0, list(leaves.values()), cotangent)
    return value.detach(), dict(zip(leaves, grads, strict=True))
