"""Task vectors as power series in the rate: what is predicted of them and of their merge."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.finetune.adamw import Layout
from engine.gradients.objective import Objective
from engine.task_vectors import layer_of

FLOOR = 30.0  # errors below so many rounding floors are rounding


def descend(objectives: Sequence[Objective], rate: float, steps: int) -> list[Tensor]:
    r"""Take full-batch steps on a sum of losses, every point kept.

    .. math:: \theta^{k+1} = \theta^k - \eta \sum_t g_t(\theta^k)

    Args:
        objectives: One or several.
        rate: eta.
        steps: K.

    Returns:
        theta^0 .. theta^K, each shape (P,): for small networks and few steps.
    """
    points = [objectives[0].theta0.clone()]
    for _ in range(steps):
        total = sum(o.gradient(points[-1]) for o in objectives)
        points.append(points[-1] - rate * total)
    return points


def second_order(rate: float, steps: int, curved: Tensor) -> Tensor:
    r"""Give the second-order term of a task vector.

    .. math:: \tau^{(K)} = -\eta K g + \eta^2 \frac{K (K - 1)}{2} H g + O(\eta^3)

    Args:
        rate: eta.
        steps: K.
        curved: H g at theta_0, shape (P,).

    Returns:
        :math:`\eta^2 K (K - 1) / 2 \; H g`, shape (P,).

    Source:
        Derived: g(theta^k) = g - eta k H g + O(eta^2), summed over k < K.
    """
    return rate**2 * steps * (steps - 1) / 2 * curved


def shadow_correction(
    objectives: Sequence[Objective], shadow: Sequence[Tensor], alpha: float
) -> Tensor:
    r"""Give what parts the sum of task vectors from the gradients along the joint path.

    .. math:: C = \sum_t \sum_{j=1}^{K-1} H_t(\theta_{MT}^j) \sum_{m<j} \Big[
              \alpha \sum_{t' \ne t} g_{t'}(\theta_{MT}^m)
              + (\alpha - 1) g_t(\theta_{MT}^m) \Big]

    so that sum_t tau_t = -eta sum_t sum_{j<K} g_t(theta_MT^j) - eta^2 C + O(eta^3).

    Args:
        objectives: The tasks.
        shadow: theta_MT^0 .. theta_MT^K, of descent on the sum at rate alpha eta.
        alpha: The merging coefficient.

    Returns:
        C, shape (P,). Costs T (K - 1) Hessian-vector products.

    Source:
        Derived; the coefficient of C is -1.
    """
    total = torch.zeros_like(objectives[0].theta0)
    summed = [torch.zeros_like(total) for _ in objectives]
    for j, theta in enumerate(shadow[:-1]):
        if j:
            everything = alpha * sum(summed)
            for objective, own in zip(objectives, summed, strict=True):
                total += objective.hvp(theta, everything - own)
        summed = [s + o.gradient(theta) for s, o in zip(summed, objectives, strict=True)]
    return total


def predicted_merge_error(
    curved: Mapping[str, Mapping[str, Tensor]], alpha: float, rate: float, steps: int
) -> Tensor:
    r"""Predict by how much a merge misses the endpoint of joint training.

    .. math:: E = \theta_0 + \alpha \sum_t \tau_t - \theta_{MT}^K
              = -\alpha \eta^2 \frac{K (K - 1)}{2} \sum_t H_t (\alpha G - g_t) + O(\eta^3)

    with G the sum of the gradients. At alpha = 1/T it is a covariance of curvature and gradient
    over the tasks: equal Hessians leave no leading error.

    Args:
        curved: H_t g_t' at theta_0, by t and t', over the same tasks.
        alpha: The merging coefficient.
        rate: eta of the task vectors; the joint path's is alpha eta.
        steps: K.

    Returns:
        The leading term, shape (P,); zero at K = 1.

    Source:
        Derived, from the expansions of both sides.
    """
    inner = sum(
        alpha * sum(products.values()) - products[task] for task, products in curved.items()
    )
    return -alpha * rate**2 * steps * (steps - 1) / 2 * inner


def slope(
    rates: Sequence[float], errors: Sequence[float], floor: float = 0.0
) -> tuple[float | None, list[float]]:
    """Fit the power with which an error goes down with the rate.

    Args:
        rates: Ascending or not.
        errors: One a rate.
        floor: What rounding alone leaves; errors below 30 of it are left out.

    Returns:
        The slope of the least-squares line through the logarithms, None with fewer than three
        points; and the rates it rests on.
    """
    points = [
        (rate, error)
        for rate, error in zip(rates, errors, strict=True)
        if error > FLOOR * floor and error > 0
    ]
    used = [rate for rate, _ in points]
    if len(points) < 3:
        return None, used
    x = [math.log(rate) for rate in used]
    y = [math.log(error) for _, error in points]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return rise / sum((a - x_mean) ** 2 for a in x), used


def ulp(values: Tensor) -> Tensor:
    """Give the distance from each value to the next larger in size of its dtype."""
    size = values.abs()
    return torch.nextafter(size, torch.full_like(size, torch.inf)) - size


def in_ulps(difference: Tensor, *sizes: Tensor) -> float:
    """Tell the largest difference in units of the last place of the largest of some values.

    Args:
        difference: Shape (P,).
        *sizes: Values whose rounding is meant, each shape (P,).

    Returns:
        max |difference| / ulp(max |sizes|), coordinate by coordinate.
    """
    return float(_ulps(difference, *sizes).max())


def in_ulps_by_layer(difference: Tensor, layout: Layout, *sizes: Tensor) -> dict[str, float]:
    """Tell the same of each layer; the largest of them is ``in_ulps``.

    Args:
        difference: Shape (P,).
        layout: Where the layers lie.
        *sizes: Values whose rounding is meant, each shape (P,).

    Returns:
        By layer, in the order of the parameters: max |difference| / ulp(max |sizes|).
    """
    found: dict[str, float] = {}
    for name, part in layout.split(_ulps(difference, *sizes)).items():
        layer = layer_of(name)
        found[layer] = max(found.get(layer, 0.0), float(part.max()))
    return found


def _ulps(difference: Tensor, *sizes: Tensor) -> Tensor:
    """Return |difference| / ulp(max |sizes|), shape (P,)."""
    largest = torch.stack([size.abs() for size in sizes]).amax(dim=0)
    return difference.abs() / ulp(largest)
