r"""How far two outputs are from each other, image by image, and how sure a mean of it is."""

import math

import torch
from torch import Tensor

from engine.errors import UsageError
from engine.evaluate.measures import wilson_interval

DISTANCES = ("error", "tv", "kl")
BOOTSTRAP = 200  # samples behind an interval of tv and kl


def check_distance(distance: str) -> None:
    """Refuse a distance that does not exist.

    Args:
        distance: A name.

    Raises:
        UsageError: If it is not one of ``DISTANCES``.
    """
    if distance not in DISTANCES:
        raise UsageError(f"there is no distance {distance!r}; choose {', '.join(DISTANCES)}")


def between(distance: str, first: Tensor, second: Tensor) -> Tensor:
    r"""Measure the distance of two models' outputs on each image.

    .. math:: error = 1(\hat y_1 \ne \hat y_2), \quad
              tv = \tfrac12 \sum_c |p_c - q_c|, \quad
              kl = \tfrac12 \sum_c (p_c - q_c)(\log p_c - \log q_c)

    with p and q the soft-max of the logits; kl is the mean of both Kullback-Leibler divergences.

    Args:
        distance: One of ``DISTANCES``.
        first: Predicted classes, shape (..., N), for "error"; logits, shape (..., N, C), else.
        second: The other model's; the two shapes broadcast.

    Returns:
        Shape (..., N), float64: in [0, 1] for "error" and "tv", in nats for "kl".

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 4, Eq. (6), for "error".
    """
    if distance == "error":
        return (first != second).double()
    p, q = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    change = p.exp() - q.exp()
    if distance == "tv":
        return change.abs().sum(dim=-1).double() / 2
    return (change * (p - q)).sum(dim=-1).double() / 2


def wilson_intervals(terms: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Bound shares of n images at 95 %.

    Args:
        terms: Shares, any shape; NaN where not known.
        n: Images behind each.

    Returns:
        Lower and upper bounds, the same shape, NaN where ``terms`` is.
    """
    table = torch.tensor([wilson_interval(count, n) for count in range(n + 1)], dtype=torch.float64)
    known = ~terms.isnan()
    bounds = torch.full((*terms.shape, 2), math.nan, dtype=torch.float64)
    bounds[known] = table[(terms[known] * n).round().long()]
    return bounds[..., 0], bounds[..., 1]


def interval_of_sum(terms: list[Tensor], low: list[Tensor], high: list[Tensor]) -> tuple:
    r"""Bound a sum of independent shares from the bounds of each.

    .. math:: \sum_t \hat p_t - \sqrt{\sum_t (\hat p_t - l_t)^2}, \qquad
              \sum_t \hat p_t + \sqrt{\sum_t (u_t - \hat p_t)^2}

    Args:
        terms: Shares, equal shapes.
        low: Their lower bounds.
        high: Their upper bounds.

    Returns:
        Lower and upper bound of the sum.

    Source:
        Zou and Donner (2008), Statistics in Medicine 27, 1693-1702 (square-and-add).
    """
    total = torch.stack(terms).sum(dim=0)
    below = (torch.stack(terms) - torch.stack(low)).square().sum(dim=0).sqrt()
    above = (torch.stack(high) - torch.stack(terms)).square().sum(dim=0).sqrt()
    return (total - below).clamp(min=0), (total + above).clamp(max=len(terms))


def bootstrap_counts(n: int, seed: int) -> Tensor:
    """Draw how often each image is in each bootstrap sample.

    Args:
        n: Images.
        seed: Of the draw; two tasks take two.

    Returns:
        Shape (BOOTSTRAP, n), float64; rows sum to n.
    """
    source = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (BOOTSTRAP, n), generator=source)
    ones = torch.ones(BOOTSTRAP, n, dtype=torch.float64)
    return torch.zeros(BOOTSTRAP, n, dtype=torch.float64).scatter_add_(1, drawn, ones)


def percentile_interval(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 2.5 % and 97.5 % points of bootstrap means, over the first axis.

    Args:
        samples: Shape (BOOTSTRAP, ...).

    Returns:
        Lower and upper bound, shape (...).

    Source:
        Efron (1979), Ann. Statist. 7, 1-26.
    """
    ends = torch.tensor([0.025, 0.975], dtype=samples.dtype)
    low, high = samples.quantile(ends, dim=0)
    return low, high
