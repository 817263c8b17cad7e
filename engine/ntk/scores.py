"""How far local energy tells two sets of points apart: one number and its interval."""

from torch import Tensor


def separation(first: Tensor, second: Tensor, z: float = 1.96) -> dict[str, float | list[float]]:
    r"""Compare the energy of two sets of points.

    .. math:: A = P(E_i > E_j) + \tfrac{1}{2} P(E_i = E_j), \qquad
        \Delta = \overline{E_\text{first}} - \overline{E_\text{second}}

    A is the area under the ROC curve: 1 when every point of the first set lies higher, 1/2 when
    nothing tells them apart. Intervals are those of points drawn independently: DeLong's variance
    for A (around A, cut to [0, 1]; with A = 0 or 1 by the rule of three on the smaller set),
    Welch's for the difference.

    Args:
        first: Energy at the points of the task, shape (n,).
        second: Energy at those of the control, shape (m,).
        z: Quantile of the interval; 1.96 for 95 %.

    Returns:
        {"auc", "auc_interval": [low, high], "difference", "difference_interval": [low, high]}.

    Raises:
        ValueError: If a set has fewer than 2 points.

    Source:
        DeLong et al. (1988), Biometrics 44, pp. 837-845; Hanley and Lippman-Hand (1983), JAMA
        249, pp. 1743-1745 (rule of three).
    """
    first, second = first.double().cpu(), second.double().cpu()
    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise ValueError(f"got {n} and {m} points, expected at least 2 of each")
    wins = (first[:, None] > second).double() + 0.5 * (first[:, None] == second).double()
    area = float(wins.mean())
    spread = float(wins.mean(1).var() / n + wins.mean(0).var() / m) ** 0.5
    half = z * spread if spread > 0 else 3 / min(n, m)
    gap = float(first.mean() - second.mean())
    width = z * float(first.var() / n + second.var() / m) ** 0.5
    return {
        "auc": area,
        "auc_interval": [max(0.0, area - half), min(1.0, area + half)],
        "difference": gap,
        "difference_interval": [gap - width, gap + width],
    }


def scored(energy: Tensor) -> dict:
    """Score energies of several logits, whose first half of points is the first set.

    Args:
        energy: Shape (L, 2 n).

    Returns:
        ``separation`` of the energy averaged over the logits, and under "logits" the area for
        each of them.
    """
    n = energy.shape[1] // 2
    mean = energy.double().mean(0)
    each = [separation(row[:n], row[n:])["auc"] for row in energy]
    return {**separation(mean[:n], mean[n:]), "logits": each}
