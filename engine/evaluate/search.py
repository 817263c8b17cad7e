"""The search for alpha in function space, where a linearized model costs only algebra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import UsageError
from engine.evaluate.addition import (
    ALPHAS,
    FARTHER,
    MERGED,
    Measure,
    best_of,
    linearized_measure,
    shared_curve,
    shared_setting,
    single_accuracies,
)
from engine.evaluate.measures import normalized_accuracy
from engine.merging import share
from engine.responses import Responses

RANDOM_STARTS, MAX_SWEEPS = 12, 50
EQUAL = 1e-12  # gains below it are rounding


def search_alpha(
    readings: Mapping[str, Responses], convention: str = "sum", alphas: Sequence[float] = ALPHAS
) -> dict:
    """Choose one alpha for every task vector, as ``addition`` does on validation.

    Args:
        readings: Responses by task name, of the tasks whose vectors are merged.
        convention: "sum" or "mean".
        alphas: To choose from.

    Returns:
        {"alpha", "absolute", "normalized", "validation": [{"alpha", "absolute", "normalized"}]}.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Appendix A, Eq. (7).
    """
    n = {name: len(reading.labels) for name, reading in readings.items()}
    curve = shared_curve(
        linearized_measure(readings, tuple(n)), n, shared_setting(tuple(n), convention), alphas
    )
    return {**best_of(curve), "validation": curve}


def search_direction(readings: Mapping[str, Responses], alphas: Sequence[float] = FARTHER) -> dict:
    """Choose how far to go along a merged direction, as ``addition`` does on validation.

    Args:
        readings: Responses by task name, to the task vectors merged and to ``MERGED``.
        alphas: To choose from.

    Returns:
        As :func:`search_alpha`.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Appendix A, Eq. (7).
    """
    n = {name: len(reading.labels) for name, reading in readings.items()}
    measure = linearized_measure(readings, (*n, MERGED))
    curve = shared_curve(measure, n, shared_setting([MERGED], "sum"), alphas)
    return {**best_of(curve), "validation": curve}


def search_alphas(
    readings: Mapping[str, Responses],
    lo: float = -1.0,
    hi: float = 2.0,
    step: float = 0.01,
    convention: str = "sum",
    seed: int = 0,
) -> dict:
    r"""Choose an alpha for each task vector of a linearized reading.

    .. math:: \max_{\alpha \in [lo, hi]^T} \frac{1}{T} \sum_t
              \frac{acc_t[f_{lin}(x; \theta_0 + \sum_s \alpha_s \tau_s)]}
                   {acc_t[f_{lin}(x; \theta_0 + \tau_t)]}

    by coordinate ascent from several starts, the best shared alpha among them. Along one
    coordinate an image is right on one interval, so the whole line is measured at once and not
    tried point by point. Deterministic. A local optimum, though never below the best shared alpha.

    Args:
        readings: Responses by task name, of the tasks whose vectors are merged.
        lo: Smallest alpha.
        hi: Largest alpha.
        step: Between neighbouring alphas.
        convention: "sum" or "mean": what an alpha means.
        seed: Of the random starts.

    Returns:
        {"alphas": {task: alpha}, "absolute", "normalized", "shared": {"alpha", "absolute",
        "normalized"}}: exact accuracies on the images given.

    Raises:
        UsageError: If the box holds none of the shared alphas, or a single-task accuracy is 0.
    """
    names = tuple(readings)
    allowed = [alpha for alpha in ALPHAS if lo <= alpha <= hi]
    if not allowed or step <= 0:
        raise UsageError(
            f"the box from {lo} to {hi} in steps of {step} has none of the alphas 0 to 1; widen it"
        )
    n = {name: len(reading.labels) for name, reading in readings.items()}
    measure = linearized_measure(readings, names)
    single = single_accuracies(measure, n)
    shared = best_of(shared_curve(measure, n, shared_setting(tuple(n), convention), allowed))
    margins = _margins(readings, names, single, share(convention, len(names)))
    grid = torch.arange(round((hi - lo) / step) + 1, dtype=torch.float64) * step + lo
    grid = (grid * 1e10).round() / 1e10
    starts = _starts(shared["alpha"], len(names), grid, seed)
    ends = [_ascend(margins, grid, start) for start in starts]
    # what counts in the end is the exact measure; the first of equals wins, so the shared alpha
    # stays where nothing is better
    found = [torch.full((len(names),), shared["alpha"], dtype=torch.float64), *ends]
    settings = [dict(zip(names, alphas.tolist(), strict=True)) for alphas in found]
    results = [_exact(measure, n, single, alphas, convention) for alphas in settings]
    best = max(results, key=lambda result: result["normalized"])
    return {**best, "shared": shared}


@dataclass(frozen=True, eq=False)
class _Margins:
    """By how much each image's class leads each other class: base + sum_t alpha_t slope_t."""

    base: Tensor  # (N, C); infinite for its own class and where a task has fewer classes
    slopes: Tensor  # (T, N, C)
    weights: Tensor  # (N,): what an image adds to the objective when it is right

    def at(self, alphas: Tensor) -> Tensor:
        """Return the margins at a setting, shape (N, C)."""
        return self.base + torch.tensordot(alphas, self.slopes, dims=1)


def _margins(readings, names, single, factor) -> _Margins:
    """Return the margins of every image of every task, one below the other."""
    widest = max(len(reading.head) for reading in readings.values())
    bases, slopes, weights = [], [], []
    for task, reading in readings.items():
        scores = reading.select(names).scores().double()  # (1 + T, N, C)
        _, N, C = scores.shape
        own = reading.labels[None, :, None].expand(len(scores), N, 1)
        leads = scores.gather(2, own) - scores
        leads[0].scatter_(1, reading.labels[:, None], torch.inf)
        bases.append(torch.nn.functional.pad(leads[0], (0, widest - C), value=torch.inf))
        slopes.append(torch.nn.functional.pad(leads[1:] * factor, (0, widest - C)))
        weight = 1 / (len(names) * N * single[task])
        weights.append(torch.full((N,), weight, dtype=torch.float64))
    return _Margins(torch.cat(bases), torch.cat(slopes, dim=1), torch.cat(weights))


def _starts(shared: float, T: int, grid: Tensor, seed: int) -> list[Tensor]:
    """Return settings to start from: the shared alpha, zero, and random ones around them."""
    source = torch.Generator().manual_seed(seed)
    reach = max(2 * shared, 0.5)
    draws = reach * torch.rand(RANDOM_STARTS, T, generator=source, dtype=torch.float64)
    starts = [torch.full((T,), shared, dtype=torch.float64), torch.zeros(T, dtype=torch.float64)]
    starts += list(draws)
    nearest = [(start[:, None] - grid).abs().argmin(dim=1) for start in starts]
    return [grid[index] for index in nearest]


def _ascend(margins: _Margins, grid: Tensor, start: Tensor) -> Tensor:
    """Return the setting reached by moving one alpha at a time while that gains."""
    alphas = start.clone()
    for _ in range(MAX_SWEEPS):
        gained = False
        current = margins.at(alphas)  # anew each sweep, so that rounding does not pile up
        for t in range(len(alphas)):
            slope = margins.slopes[t]
            rest = current - alphas[t] * slope
            values = _along(rest, slope, margins.weights, grid)
            here = int((grid - alphas[t]).abs().argmin())
            if values.max() > values[here] + EQUAL:
                alphas[t] = grid[_middle_of_best(values)]
                current = rest + alphas[t] * slope
                gained = True
        if not gained:
            break
    return alphas


def _along(rest: Tensor, slope: Tensor, weights: Tensor, grid: Tensor) -> Tensor:
    r"""Return the objective at every alpha of the grid, shape (G,).

    An image is right where :math:`r_c + \alpha s_c \ge 0` for all classes c: from
    the largest :math:`-r_c / s_c` with s_c > 0 to the smallest with s_c < 0.
    """
    G, step = len(grid), grid[1] - grid[0]
    root = (-rest / slope - grid[0]) / step  # in steps of the grid; not used where slope is 0
    first = root.ceil().where(slope > 0, -torch.inf).amax(dim=1)
    last = root.floor().where(slope < 0, torch.inf).amin(dim=1)
    first = first.where(((slope != 0) | (rest > 0)).all(dim=1), torch.inf)  # a lead lost for good
    first, last = first.clamp(0, G).long(), last.clamp(-1, G - 1).long()
    right = first <= last
    changes = torch.zeros(G + 1, dtype=torch.float64)
    changes.index_add_(0, first[right], weights[right])
    changes.index_add_(0, last[right] + 1, -weights[right])
    return changes.cumsum(0)[:G]


def _middle_of_best(values: Tensor) -> int:
    """Return the middle of the longest run of best values, the first among equally long ones."""
    best = [0, *(values >= values.max() - EQUAL).int().tolist(), 0]
    starts = [i for i in range(len(values)) if best[i + 1] > best[i]]
    ends = [i for i in range(len(values)) if best[i + 1] > best[i + 2]]
    start, end = max(zip(starts, ends, strict=True), key=lambda run: run[1] - run[0])
    return (start + end) // 2


def _exact(
    measure: Measure,
    n: Mapping[str, int],
    single: Mapping[str, float],
    alphas: dict[str, float],
    convention: str,
) -> dict:
    """Return a setting with its exact accuracies."""
    factor = share(convention, len(n))
    counts = measure({name: alpha * factor for name, alpha in alphas.items()}, tuple(n))
    merged = {name: counts[name] / n[name] for name in n}
    absolute = sum(merged.values()) / len(merged)
    normalized = normalized_accuracy(merged, single)
    return {"alphas": alphas, "absolute": absolute, "normalized": normalized}
