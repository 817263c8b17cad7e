"""95 % intervals: of a mean over seeds, and of a mean over tasks on finite splits."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

NORMAL = 1.959963984540054  # 97.5 % quantile


def student_quantile(freedom: int, share: float = 0.975) -> float:
    r"""Return a quantile of Student's t distribution.

    .. math:: F_\nu(t) = \frac{1}{2} + \frac{\Gamma(\frac{\nu+1}{2})}
              {\sqrt{\nu\pi}\, \Gamma(\frac{\nu}{2})} \int_0^t (1 + s^2/\nu)^{-(\nu+1)/2} ds

    With s = sqrt(nu) tan(u) the integral is that of cos(u)^(nu-1) over a finite range, taken by
    Simpson's rule; F is inverted by bisection.

    Args:
        freedom: Degrees of freedom, at least 1.
        share: At least 1/2.

    Returns:
        t with F(t) = share, to about 1e-9 relative.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        The density is the textbook one; tests compare with tabulated quantiles.
    """
    if freedom < 1 or not 0.5 <= share < 1:
        raise ValueError(f"got {freedom} degrees of freedom and share {share}, expected >= 1")
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    scale = math.exp(log_scale)

    def above_half(angle: float, pieces: int = 400) -> float:
        step = angle / pieces
        weights = (1 if k in (0, pieces) else 4 if k % 2 else 2 for k in range(pieces + 1))
        powers = (math.cos(k * step) ** (freedom - 1) for k in range(pieces + 1))
        return scale * step / 3 * sum(w * p for w, p in zip(weights, powers, strict=True))

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above_half(middle) < share - 0.5 else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    r"""Return the mean of one number a seed and its 95 % interval by Student's t.

    .. math:: \bar v \pm t_{k-1}\, s / \sqrt{k}

    Args:
        values: One a seed, k of them, at least 2.

    Returns:
        Mean, low, high.
    """
    mean, k = fmean(values), len(values)
    reach = student_quantile(k - 1) * stdev(values) / math.sqrt(k)
    return mean, mean - reach, mean + reach


def over_images(accuracies: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    r"""Return the 95 % interval of a mean of accuracies, over the draw of the images.

    .. math:: \bar p \pm 1.96\, \frac{1}{T} \sqrt{\sum_t p_t (1 - p_t) / n_t}

    Args:
        accuracies: Of T tasks.
        counts: Images of each.

    Returns:
        Low and high, within [0, 1].
    """
    T, mean = len(accuracies), fmean(accuracies)
    variance = sum(p * (1 - p) / n for p, n in zip(accuracies, counts, strict=True))
    reach = NORMAL * math.sqrt(variance) / T
    return max(mean - reach, 0.0), min(mean + reach, 1.0)
