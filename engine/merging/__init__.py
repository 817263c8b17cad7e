"""Merging methods: `prepare` a direction once, `apply` it at any alpha."""

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.task_vectors import combine

METHODS = ("sum", "mean")


def share(method: str, T: int) -> float:
    """Give the factor between the slider of a task and the coefficient of its task vector.

    Args:
        method: "sum" or "mean".
        T: How many tasks are merged.

    Returns:
        1 for the sum, 1 / T for the mean.

    Raises:
        ValueError: If there is no such method, or no task.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if T < 1:
        raise ValueError(f"got {T} task vectors, expected at least one")
    return 1.0 if method == "sum" else 1.0 / T


def prepare(taus: Mapping[str, Mapping[str, Tensor]], method: str) -> dict[str, Tensor]:
    r"""Merge task vectors into one direction.

    .. math:: \text{sum: } \sum_t \tau_t, \qquad \text{mean: } \frac{1}{T} \sum_t \tau_t

    Args:
        taus: Task vectors by task name; not changed.
        method: "sum" or "mean".

    Returns:
        The direction, in at least single precision, named as the task vectors.

    Raises:
        ParameterMismatchError: If names or shapes differ.
        NonFiniteError: If a task vector holds NaN or infinity.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3 ("Task addition") for the sum; the
        mean is the sum at alpha / T.
    """
    factor = share(method, len(taus))
    first = next(iter(taus.values()))
    zero = {
        name: torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32))
        for name, value in first.items()
    }
    return combine(zero, taus, dict.fromkeys(taus, factor))


def apply(
    theta0: Mapping[str, Tensor], direction: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    r"""Move the pre-trained weights along a direction, :math:`\theta_0 + \alpha \tau`.

    Args:
        theta0: Pre-trained parameters; not changed.
        direction: From ``prepare``.
        alpha: How far.

    Returns:
        Merged parameters, in the dtype and on the device of ``theta0``.

    Raises:
        ParameterMismatchError: If the direction has other names or shapes.
        NonFiniteError: If the result holds NaN or infinity.
    """
    return combine(theta0, {"merged": direction}, {"merged": alpha})
