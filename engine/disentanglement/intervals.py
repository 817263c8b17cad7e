r"""How often a second vector changes a prediction, from where class scores draw level.

A merged score is affine in both alphas. On a row of the grid (one alpha fixed) the class that the
single-task model predicts, p, stays the winner exactly while D_c = s_p - s_c > 0 for all other c,
an interval of the other alpha. So a row takes O(N C) operations and not O(G N C), the whole map
O(G N C) + O(G N). Where D_c = 0 is a line over the own alpha, the same for all rows that p wins:
it is found once for each such run of rows. Cells within rounding of an interval's end are decided
by ``merged_scores`` itself, so the map has its bits.
"""

import math

import torch
from torch import Tensor

from engine.errors import UsageError
from engine.responses import predictions

ROUNDING = 1e-12  # of the largest score: far above what float64 sums of three terms lose
FAR = 1e-18  # of the margin: the slope given to a rival that has none
CELLS = 1 << 18  # values in a chunk
TIES = 1 << 16  # undecided cells in a chunk


def kept_shares(scores: Tensor, alphas: Tensor, own: int, other: int) -> Tensor:
    r"""Measure how often a second vector changes what the first one's model predicts.

    Args:
        scores: Shape (3, N, C), float32, finite.
        alphas: Shape (G,), ascending, float64.
        own: Plane of the task's own vector, 1 or 2.
        other: Plane of the second one.

    Returns:
        Shares of changed predictions, shape (G, G), float64: rows are alphas of ``own``.

    Raises:
        UsageError: If the alphas do not ascend.
    """
    G, N, C = len(alphas), scores.shape[1], scores.shape[2]
    if G and bool((alphas.diff() <= 0).any()):
        raise UsageError("the alphas of a map must ascend, each once; sort them")
    largest = scores.abs().amax(dim=(1, 2)).double()
    scale = largest[0] + alphas.abs().max() * (largest[1] + largest[2])
    margin = float(ROUNDING * scale) or 1.0  # all scores 0: every cell is left open
    pair = scores[0].double(), scores[own].double(), scores[other].double()
    winners, bounds = [], []
    for some in alphas.split(max(1, CELLS // (N * C))):
        winner, ends = _intervals(*pair, some, alphas, margin)
        winners.append(winner)
        bounds.append(ends)
    # all (G, N); [first, last) holds every cell that may keep its winner, [low, high) those sure to
    first, low, high, last = torch.cat(bounds, dim=1)
    kept = torch.zeros(G, G + 1, dtype=torch.int64)
    ones = torch.ones_like(low)
    kept.scatter_add_(1, low, ones).scatter_add_(1, high, -ones)
    kept = kept.cumsum(dim=1)[:, :G]
    rows = ((low > first) | (last > high)).nonzero()
    if len(rows):
        ends = (first, low, high, last)
        kept = kept + _decided(scores, alphas, own, torch.cat(winners), rows, ends)
    return (N - kept).double() / N


def _intervals(
    s0: Tensor, s_own: Tensor, s_other: Tensor, some: Tensor, alphas: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    """Return for rows ``some`` the winners, (R, N), and the ends of their intervals, (4, R, N)."""
    N = len(s0)
    winner = predictions(s0 + some[:, None, None] * s_own)  # (R, N)
    # rows share their winners: what an image and its winner give is computed once
    fresh = torch.ones_like(winner, dtype=torch.bool)
    fresh[1:] = winner[1:] != winner[:-1]
    image, row = fresh.T.nonzero(as_tuple=True)  # U runs of rows, image by image
    run = fresh.cumsum(dim=0) - 1
    run[:, 1:] += fresh.sum(dim=0).cumsum(dim=0)[:-1]
    run = run.flatten()
    own, ends = some.repeat_interleave(N)[:, None], []
    lines = _roots(s0, s_own, s_other, image, winner[row, image], margin)
    for constant, slope, width in lines:
        sure, by = torch.addcmul(
            constant.index_select(0, run), own, slope.index_select(0, run)
        ).max(dim=1)
        ends.append(torch.stack([sure - 2 * width[run, by], sure]))
    low, high = ends[0], -ends[1].flip(0)  # [maybe, sure] and [sure, maybe]
    left = torch.searchsorted(alphas, low, right=False)
    right = torch.searchsorted(alphas, high, right=True)
    right[0] = torch.maximum(right[0], left[1])  # an empty interval
    right[1] = torch.maximum(right[1], right[0])
    return winner, torch.cat([left, right]).reshape(4, *winner.shape)


def _roots(
    s0: Tensor, s_own: Tensor, s_other: Tensor, image: Tensor, winner: Tensor, margin: float
) -> list[tuple[Tensor, Tensor, Tensor]]:
    r"""Return where rivals draw level with a winner, each a line over the own alpha.

    .. math:: D_c = d_0 + \alpha d_1 + \alpha' d_2 = 0 \iff \alpha' = -d_0/d_2 - \alpha d_1/d_2

    Args:
        s0: Shape (N, C), as the other two planes.
        s_own: Of the task's own vector.
        s_other: Of the second one.
        image: Shape (U,).
        winner: The class that wins there, shape (U,).
        margin: What D_c must be above to be sure of its sign.

    Returns:
        Constant, slope and width, each (U, C), of the lines that bound :math:`\alpha'` from below;
        then of those that bound :math:`-\alpha'` so. The constant is moved inwards by the width,
        which is the margin's; it is -infinity where a rival does not bound.
    """
    d0, d1, d2 = (s[image].gather(1, winner[:, None]) - s[image] for s in (s0, s_own, s_other))
    rival = torch.ones_like(d2, dtype=torch.bool).scatter_(1, winner[:, None], value=False)
    # one that never catches up, or always did, draws level far away
    d2 = torch.where(rival & (d2 == 0), margin * FAR, d2)
    constant, slope, width = -d0 / d2, -d1 / d2, (margin / d2).abs()
    found = []
    for bounds, sign in ((rival & (d2 > 0), 1), (rival & (d2 < 0), -1)):
        moved = torch.where(bounds, sign * constant + width, -math.inf)
        found.append((moved, *(torch.where(bounds, x, 0.0) for x in (sign * slope, width))))
    return found


def _decided(
    scores: Tensor,
    alphas: Tensor,
    own: int,
    winner: Tensor,
    rows: Tensor,
    bounds: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Tensor:
    """Count kept predictions among the cells that rounding leaves open, shape (G, G)."""
    G = len(alphas)
    at = torch.arange(G)
    kept = torch.zeros(G * G, dtype=torch.int64)
    for part in rows.split(max(1, TIES // G)):
        i, image = part.unbind(1)
        first, low, high, last = (bound[i, image][:, None] for bound in bounds)
        undecided = ((at >= first) & (at < low)) | ((at >= high) & (at < last))
        row, j = undecided.nonzero().unbind(1)
        i, image = i[row], image[row]
        merged = scores[0, image].double()
        for plane in (1, 2):  # the order of merged_scores
            alpha = alphas[i if plane == own else j][:, None]
            change = alpha * scores[plane, image].double()
            merged = merged + change
        same = predictions(merged) == winner[i, image]
        kept += torch.bincount((i * G + j)[same], minlength=G * G)
    return kept.reshape(G, G)
