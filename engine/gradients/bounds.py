"""How large the second-order term can be, given how curved the loss is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.gradients.objective import Objective

NOTE = (
    "an estimate from below, by power iteration on Hessian-vector products at sampled points of "
    "the path; not a certificate"
)


@dataclass(frozen=True, eq=False)
class Curvature:
    """The largest curvature found at a point.

    Attributes:
        norm: Estimate of the Hessian's spectral norm, from below.
        vector: The direction it was found in, unit length, shape (P,).
        iterations: Hessian-vector products taken.
        settled: Whether the last two estimates agree within the tolerance.
    """

    norm: float
    vector: Tensor
    iterations: int
    settled: bool


def spectral_norm(
    objective: Objective,
    theta: Tensor,
    iterations: int = 20,
    tolerance: float = 1e-2,
    seed: int = 0,
    start: Tensor | None = None,
) -> Curvature:
    r"""Estimate the spectral norm of the Hessian by power iteration.

    .. math:: v_{i+1} = H v_i / \lVert H v_i \rVert, \qquad
              \lVert H v_i \rVert \le \lVert H \rVert

    Every estimate is a lower end: what is found is a curvature the loss has, not the largest it
    may have.

    Args:
        objective: The loss.
        theta: Where, shape (P,).
        iterations: Most products.
        tolerance: Relative change from which it has settled.
        seed: Of the first direction.
        start: A first direction instead, shape (P,).

    Returns:
        The estimate; 0 where the Hessian kills the first direction.

    Source:
        Golub and Van Loan (2013), Matrix Computations, 4th ed., Sec. 7.3.1.
    """
    if start is None:
        source = torch.Generator().manual_seed(seed)
        start = torch.randn(theta.shape, generator=source, dtype=torch.float64)
        start = start.to(theta.dtype).to(theta.device)
    v, found = start / start.norm(), 0.0
    for i in range(1, iterations + 1):
        product = objective.hvp(theta, v)
        length = float(product.norm())
        settled = abs(length - found) <= tolerance * length
        found = max(found, length)
        if not length:
            return Curvature(0.0, v, i, True)
        v = product / length
        if settled:
            return Curvature(found, v, i, True)
    return Curvature(found, v, iterations, False)


def bound_posteriori(rate: float, beta: float, distances: Sequence[float]) -> float:
    r"""Bound the second-order term once the path is known.

    .. math:: \lVert \tau + \eta K g \rVert \le
              \eta \beta \sum_{k<K} \lVert \theta^k - \theta_0 \rVert

    Args:
        rate: eta.
        beta: Largest spectral norm of the Hessian on the segments from theta_0.
        distances: ||theta^k - theta_0|| for k from 0 to K - 1.

    Returns:
        A bound if ``beta`` is one, else an estimate of it.

    Source:
        Derived: the gradient is beta-Lipschitz on the segments.
    """
    return rate * beta * math.fsum(distances)


def bound_priori(rate: float, beta: float, steps: int, gradient_norm: float) -> float | None:
    r"""Bound the second-order term before any step is taken.

    .. math:: \lVert g \rVert \left[ \frac{(1 + \eta \beta)^K - 1}{\beta} - \eta K \right]
              = \lVert g \rVert \, \eta \sum_{j=2}^K \binom{K}{j} (\eta \beta)^{j-1}

    The right-hand form is summed: the left one cancels where eta beta is small.

    Args:
        rate: eta.
        beta: As for ``bound_posteriori``.
        steps: K.
        gradient_norm: ||g|| at theta_0.

    Returns:
        The bound; None where it is beyond all numbers.

    Source:
        Derived: ||theta^k - theta_0|| grows at most like ((1 + eta beta)^k - 1) ||g|| / beta.
    """
    term, total = rate * steps, 0.0
    for j in range(2, steps + 1):
        term *= (steps - j + 1) / j * rate * beta
        total += term
    bound = gradient_norm * total
    return bound if math.isfinite(bound) else None


def feed_forward_curvature(norms: Sequence[float], radius: float) -> float:
    r"""Bound the curvature of a bias-free ReLU network with soft-max cross-entropy.

    .. math:: \beta \le \frac{R^2}{2} \sum_l \prod_{j \ne l} s_j^2
              + \sqrt{2} R \max_l \sum_{l' \ne l} \prod_{j \ne l, l'} s_j

    A loose bound, and told as one: norms of layers multiply.

    Args:
        norms: Spectral norms s_l of the layers' weights, or bounds of them.
        radius: R, the largest norm of an input.

    Returns:
        A bound of the Hessian's spectral norm wherever the loss is twice differentiable.

    Source:
        Zhou et al., On Task Vectors and Gradients, bounds feed-forward networks (abstract); this
        form is derived: Gauss-Newton term, and the term of the soft-max's slope.
    """
    layers = range(len(norms))

    def product(*left_out: int) -> float:
        return math.prod(norms[j] for j in layers if j not in left_out)

    gauss = radius**2 / 2 * sum(product(layer) ** 2 for layer in layers)
    mixed = max(sum(product(a, b) for b in layers if b != a) for a in layers)
    return gauss + math.sqrt(2) * radius * mixed
