"""Methods that keep or drop single entries of the task vectors: TIES, DARE, Breadcrumbs, masks."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

Vectors = Mapping[str, Mapping[str, Tensor]]


def ties(
    taus: Vectors, *, density: float = 0.2, average: int = 0, drop: float = 0.0, seed: int = 0
) -> dict[str, Tensor]:
    r"""Trim, elect signs, merge.

    Each task vector keeps the share ``density`` of its entries that is largest in magnitude over
    the whole model. Entry by entry the sign of the kept sum is elected (where it is 0, that of the
    majority of all nonzero elections), and the kept entries of that sign are summed, or averaged
    over how many there are. With ``drop``, entries are dropped at random and the rest rescaled
    before all that, as by ``dare``.

    Args:
        taus: Task vectors by task; not changed.
        density: Share kept, in (0, 1].
        average: 0 for the sum, 1 for the average.
        drop: p of DARE, in [0, 1); 0 for TIES alone.
        seed: Of what is dropped.

    Returns:
        The direction, in the precision of the task vectors.

    Source:
        Yadav et al. (2023), "TIES-Merging", arXiv:2306.01708, Sec. 3, Algorithm 1, whose
        last step averages. DARE before it: Yu et al. (2023), arXiv:2311.03099.
    """
    names = list(next(iter(taus.values())))
    thinned = _dropped(taus, drop, seed) if drop else taus
    kept = {task: _trimmed(tau, density) for task, tau in thinned.items()}
    sums = {name: sum(tau[name] for tau in kept.values()) for name in names}
    balance = sum(float(value.sign().double().sum()) for value in sums.values())
    majority = 1.0 if balance >= 0 else -1.0
    direction = {}
    for name in names:
        sign = sums[name].sign()
        sign = torch.where(sign == 0, torch.full_like(sign, majority), sign)
        agreeing = [torch.where(tau[name] * sign > 0, tau[name], 0) for tau in kept.values()]
        merged = sum(agreeing)
        if average:
            merged = merged / sum((part != 0).to(merged) for part in agreeing).clamp(min=1)
        direction[name] = merged
    return direction


def dare(taus: Vectors, *, drop: float = 0.5, seed: int = 0) -> dict[str, Tensor]:
    r"""Drop entries at random and rescale the rest, then sum.

    .. math:: \hat\tau_t = m_t \odot \tau_t / (1 - p), \quad m_t \sim \mathrm{Bernoulli}(1 - p)

    Args:
        taus: Task vectors by task; not changed.
        drop: p, in [0, 1).
        seed: Of the masks; drawn on the CPU, so that every device gets the same.

    Returns:
        The direction, in the precision of the task vectors; its expectation is the sum.

    Source:
        Yu et al. (2023), "Language Models are Super Mario", arXiv:2311.03099, Eq. (1) to (3).
    """
    parts = _dropped(taus, drop, seed)
    # in the order of the masks, so that that of the tasks does not matter
    return {
        name: functools.reduce(torch.add, [parts[task][name] for task in sorted(parts)])
        for name in next(iter(taus.values()))
    }


def breadcrumbs(taus: Vectors, *, density: float = 0.9, gamma: float = 0.01) -> dict[str, Tensor]:
    r"""Drop each tensor's outliers and its smallest entries, then sum.

    Of each tensor of each task vector the share ``gamma`` of largest magnitude and the share
    :math:`\max(0, 1 - density - \gamma)` of smallest magnitude are set to 0 (both rounded down, so
    a tensor of fewer than 1 / gamma entries loses none at the top).

    Args:
        taus: Task vectors by task; not changed.
        density: Share kept, in (0, 1].
        gamma: Share dropped at the top, in [0, 1).

    Returns:
        The direction, in the precision of the task vectors.

    Source:
        Davari and Belilovsky (2023), "Model Breadcrumbs", arXiv:2312.06795, Sec. 3.
    """
    direction: dict[str, Tensor] = {}
    for tau in taus.values():
        for name, value in tau.items():
            flat = value.flatten()
            bottom = int(max(0.0, 1 - density - gamma) * flat.numel())
            top = flat.numel() - int(gamma * flat.numel())
            order = flat.abs().argsort(stable=True)
            part = torch.zeros_like(flat)
            part[order[bottom:top]] = flat[order[bottom:top]]
            part = part.view(value.shape)
            direction[name] = direction[name] + part if name in direction else part
    return direction


def consensus(taus: Vectors, *, threshold: float = 0.4, agree: int = 2) -> dict[str, Tensor]:
    r"""Keep the entries of the sum that matter to at least ``agree`` tasks.

    .. math:: m_t = [\,|\tau_t| > \lambda |\tau - \tau_t|\,], \quad \tau = \textstyle\sum_t \tau_t,
              \qquad \tau \odot [\textstyle\sum_t m_t \ge k]

    Args:
        taus: Task vectors by task; not changed.
        threshold: lambda, one for all tasks; the paper chooses one a task of 0.2 to 0.6 on
            validation, which a direction made of task vectors alone cannot.
        agree: k; 1 keeps what any task needs, 2 drops what only one does.

    Returns:
        The direction, in the precision of the task vectors.

    Source:
        Wang et al. (2024), "Localizing Task Information", arXiv:2405.07813, Eq. (5) and (6).
    """
    direction = {}
    for name in next(iter(taus.values())):
        parts = [tau[name] for tau in taus.values()]
        total = sum(parts)
        votes = sum((part.abs() > threshold * (total - part).abs()).int() for part in parts)
        direction[name] = torch.where(votes >= agree, total, 0)
    return direction


def _dropped(taus: Vectors, drop: float, seed: int) -> dict[str, dict[str, Tensor]]:
    """Return task vectors with entries dropped at random and the rest rescaled."""
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, dict[str, Tensor]] = {}
    for task in sorted(taus):
        parts[task] = {}
        for name in sorted(taus[task]):  # a file gives its names in any order
            value = taus[task][name]
            mask = torch.rand(value.shape, generator=generator) >= drop
            parts[task][name] = value * mask.to(value.device) / (1 - drop)
    return parts


def _trimmed(tau: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Return a task vector with only its largest entries, over the whole model."""
    flat = torch.cat([value.flatten().abs() for value in tau.values()])
    keep = max(1, int(density * flat.numel()))
    bound = flat.kthvalue(flat.numel() - keep + 1).values
    return {name: torch.where(value.abs() >= bound, value, 0) for name, value in tau.items()}
