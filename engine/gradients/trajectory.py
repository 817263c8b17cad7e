"""What paths tell: norm shares, cosines, a projection; all from inner products alone."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import UsageError
from engine.finetune.adamw import Layout
from engine.gradients.path import Compact, Path
from engine.task_vectors import layer_of

COLUMNS = 100_000  # parameters at once


def grams(vectors: Sequence[Compact], layout: Layout) -> dict[str, Tensor]:
    """Give the inner products of vectors, layer by layer, in float64.

    Args:
        vectors: M of them, each shape (P,).
        layout: Where the layers lie.

    Returns:
        Shape (M, M) by layer; their sum is the Gram matrix.
    """
    found: dict[str, Tensor] = {}
    begin = 0
    for name, size in zip(layout.shapes, layout.sizes, strict=True):
        layer = layer_of(name)
        total = found.setdefault(layer, torch.zeros(len(vectors), len(vectors)).double())
        for first in range(begin, begin + size, COLUMNS):
            last = min(first + COLUMNS, begin + size)
            rows = torch.stack([v.values[first:last].double() * v.scale for v in vectors])
            total += rows @ rows.T
        begin += size
    return found


def trajectory(
    paths: Mapping[str, Path], joint: Path, layout: Layout, alpha: float, marks: Sequence[int]
) -> dict:
    r"""Describe the paths of several tasks beside the joint one.

    .. math:: \frac{\lVert \theta^k - \theta^{k-1} \rVert}{\sum_j \lVert \cdot \rVert}, \qquad
              \frac{\lVert g_k \rVert}{\sum_j \lVert g_j \rVert}, \qquad
              \cos(\tau^{(k)}, -g_0), \quad \cos(\tau^{(k)}, \tau^{(K)}), \quad \cos(g_i, g_j),
              \quad \cos(\tau_t, \tau_{t'})

    Args:
        paths: By task, all of K epochs from theta_0.
        joint: The shadow path, of K epochs.
        layout: Of the parameters.
        alpha: Of the merge that the projection shows.
        marks: Epochs at which the tasks' vectors are compared.

    Returns:
        The section "trajectory" of one mode, as docs/design.md says.

    Source:
        Zhou et al., On Task Vectors and Gradients (abstract): the first epoch's gradient dominates.
    """
    names, K = list(paths), joint.epochs
    walks = [*paths.values(), joint]
    vectors = [d for walk in walks for d in walk.differences]
    vectors += [path.gradients[0] for path in paths.values()]
    layers = grams(vectors, layout)
    whole = sum(layers.values())
    sums = _partial_sums(len(walks), K, len(vectors))
    tasks = {}
    for t, (name, path) in enumerate(paths.items()):
        rows, start = sums[t], torch.eye(len(vectors), dtype=torch.float64)[len(walks) * K + t]
        tasks[name] = {
            **_norms(path),
            "tau_norm": [_length(whole, row) for row in rows],
            "cosine_descent": [-_cosine(whole, row, start) for row in rows[1:]],
            "cosine_final": [_cosine(whole, row, rows[-1]) for row in rows[1:]],
            "cosine_gradients": _cosines(sum(grams(path.gradients, layout).values())),
            "telescoping": path.telescoping(),
            "layers": {
                layer: _in_layer(gram, rows, start, t * K, K) for layer, gram in layers.items()
            },
        }
    ends = {k: torch.stack([sums[t][k] for t in range(len(names))]) for k in marks}
    return {
        "uniform": 1 / K,
        "tasks": tasks,
        "cosine_gradients_tasks": _cosines(whole[len(walks) * K :, len(walks) * K :]),
        "cosine_taus": {
            "epochs": list(marks),
            "matrices": [_cosines(rows @ whole @ rows.T) for rows in ends.values()],
        },
        "projection": _projection(whole, sums, names, alpha),
    }


def shares(values: Sequence[float]) -> list[float]:
    """Give each value's share of their sum; uniform where all are 0."""
    total = sum(values)
    return [value / total for value in values] if total else [1 / len(values)] * len(values)


def off_the_full_step(length: float, cosine: float, step: float) -> float | None:
    r"""Tell how far an epoch of minibatches ends from one full-batch step of the same length.

    .. math:: \frac{\lVert \tau^{(1)} + \eta B g \rVert}{\lVert \eta B g \rVert}

    of norms and cosine alone. For SGD on B equal minibatches it is O(eta), never 0 but by chance:
    the equality is of full-batch descent.

    Args:
        length: :math:`\lVert \tau^{(1)} \rVert`.
        cosine: Of tau^(1) with -g.
        step: :math:`\eta B \lVert g \rVert`.

    Returns:
        The distance relative to the step; None where the gradient is zero.

    Source:
        Derived: the law of cosines; the order in eta from the expansion of the B steps.
    """
    square = length**2 + step**2 - 2 * length * step * cosine
    return math.sqrt(max(square, 0.0)) / step if step else None


def _norms(path: Path) -> dict[str, list[float]]:
    """Return losses, norms and shares of a path."""
    if not path.gradients:
        raise UsageError("this path was walked without measuring its gradients; walk it again")
    found = {"loss": list(path.losses)}
    for kind in ("displacement", "gradient", "used_gradient"):
        values = getattr(path, kind)
        found |= {kind: list(values), f"{kind}_share": shares(values)}
    return found


def _partial_sums(walks: int, K: int, M: int) -> list[Tensor]:
    """Return what makes theta^k - theta_0 of the differences: (K + 1, M) for each walk."""
    found = []
    for walk in range(walks):
        rows = torch.zeros(K + 1, M, dtype=torch.float64)
        for k in range(1, K + 1):
            rows[k] = rows[k - 1]
            rows[k, walk * K + k - 1] = 1.0
        found.append(rows)
    return found


def _length(gram: Tensor, row: Tensor) -> float:
    """Return the norm of a combination of vectors."""
    return float((row @ gram @ row).clamp(min=0).sqrt())


def _cosine(gram: Tensor, a: Tensor, b: Tensor) -> float | None:
    """Return the cosine between two combinations of vectors; None where one is zero."""
    lengths = _length(gram, a) * _length(gram, b)
    return float(a @ gram @ b) / lengths if lengths else None


def _cosines(gram: Tensor) -> list[list[float | None]]:
    """Return the cosines that a Gram matrix holds."""
    rows = torch.eye(len(gram), dtype=torch.float64)
    return [[_cosine(gram, a, b) for b in rows] for a in rows]


def _in_layer(gram: Tensor, rows: Tensor, start: Tensor, first: int, K: int) -> dict:
    """Return what a layer's part of a path tells."""
    steps = [float(gram[first + k, first + k].clamp(min=0).sqrt()) for k in range(K)]
    cosines = [_cosine(gram, row, start) for row in rows[1:]]
    return {
        "displacement_share_first": shares(steps)[0],
        "cosine_descent": [None if value is None else -value for value in cosines],
    }


def _projection(whole: Tensor, sums: Sequence[Tensor], names: Sequence[str], alpha: float) -> dict:
    """Return paths and merge in the plane of their largest spread, theta_0 at its origin."""
    *own, joint = sums
    merge = alpha * sum(own)
    rows = torch.cat([*own, joint, merge])  # ((T + 2) (K + 1), M)
    centred = rows - rows.mean(dim=0)
    spread, axes = torch.linalg.eigh(centred @ whole @ centred.T)
    spread, axes = spread.flip(0).clamp(min=0), axes.flip(1)
    points = axes[:, :2] * spread[:2].sqrt()
    points = points - points[0]
    # an axis has no sign of its own: the merge ends to the right and above
    points = points * torch.where(points[-1] < 0, -1.0, 1.0)
    total = float(spread.sum()) or 1.0
    pieces = [piece.tolist() for piece in points.split(len(joint))]
    return {
        "explained": [float(value) / total for value in spread[:2]],
        "alpha": alpha,
        "paths": dict(zip(names, pieces, strict=False)),
        "joint": pieces[-2],
        "merge": pieces[-1],
    }
