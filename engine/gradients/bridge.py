"""The bridge to the tangent space: what a merge misses, against how far tasks are disentangled."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from engine.disentanglement import linearized_matrix, nonlinear_matrix
from engine.disentanglement.maps import PairMatrix
from engine.gradients.accuracies import Reader
from engine.gradients.expansion import predicted_merge_error
from engine.gradients.objective import Objective
from engine.gradients.path import Path, doubled, follow, norm
from engine.gradients.pieces import Pieces
from engine.gradients.regimes import Regime
from engine.responses import responses

ALPHAS = (1.0, 0.5)


def bridge(
    paths: Mapping[str, Path],
    objectives: Mapping[str, Objective],
    regime: Regime,
    test: Reader,
    alphas: Sequence[float] = ALPHAS,
    pieces: Pieces | None = None,
) -> dict:
    r"""Compare, for every pair of tasks, the error of their merge with its prediction and with xi.

    .. math:: E = \theta_0 + \alpha (\tau_a + \tau_b) - \theta_{MT}^K, \qquad
              \frac{\lVert H_t g_{t'} \rVert}{\lVert H_t g_t \rVert}, \qquad
              \frac{\lVert J_a \tau_b \rVert}{\lVert J_a \tau_a \rVert}

    In linearized models without a cross-task kernel the second task never moves the outputs on
    the first one's images, and at alpha = 1 the merge is the joint endpoint for every K.

    Args:
        paths: By task, of K epochs.
        objectives: By task.
        regime: Of the paths.
        test: Reads predictions for xi.
        alphas: Coefficients of both task vectors.
        pieces: To go on from.

    Returns:
        The part of one mode: "interference", "points" and "summary", as docs/design.md says.

    Source:
        Derived; xi is Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (6).
    """
    pieces, names = pieces or Pieces(), list(paths)
    mode = next(iter(objectives.values())).mode
    products = curved_products(objectives, pieces)
    moved = pieces.value("moved", lambda: _moved(paths, objectives))
    points, pairs = [], list(combinations(names, 2))
    for alpha in alphas:
        xi = pieces.value(f"xi-{alpha:g}", lambda a=alpha: _xi(paths, test, a))
        for i, pair in enumerate(pairs):
            pieces.told(f"pairs at alpha {alpha:g}", i, len(pairs))
            error = pieces.value(
                f"pair-{alpha:g}-{'-'.join(pair)}",
                lambda a=alpha, p=pair: _error(p, paths, objectives, regime, products, a),
            )
            (a, b), (i, j) = pair, (names.index(pair[0]), names.index(pair[1]))
            terms = {a: xi["terms"][i][j], b: xi["terms"][j][i]}
            points.append({
                "pair": list(pair),
                "mode": mode,
                "alpha": alpha,
                **error,
                "xi": sum(terms.values()),
                "xi_task": terms,
                "n": {name: xi["n"][name] for name in pair},
                "interference": [_ratio(products, a, b), _ratio(products, b, a)],
                "leak": [moved[i][j], moved[j][i]],
            })
        pieces.told(f"pairs at alpha {alpha:g}", len(pairs), len(pairs))
    return {
        "interference": [[_ratio(products, t, s) for s in names] for t in names],
        "points": points,
        "summary": summary(points, alphas),
    }


def curved_products(
    objectives: Mapping[str, Objective], pieces: Pieces | None = None
) -> dict[str, dict[str, Tensor]]:
    r"""Give every :math:`H_t g_{t'}` at theta_0.

    Args:
        objectives: T tasks by name.
        pieces: Who is told how far it is.

    Returns:
        By t and t', each shape (P,). Costs T^2 Hessian-vector products, holds T^2 vectors.
    """
    pieces = pieces or Pieces()
    gradients = {name: o.gradient(o.theta0) for name, o in objectives.items()}
    found: dict[str, dict[str, Tensor]] = {}
    for name, objective in objectives.items():
        pieces.told("interference", len(found), len(objectives))
        found[name] = {s: objective.hvp(objective.theta0, g) for s, g in gradients.items()}
    pieces.told("interference", len(objectives), len(objectives))
    return found


def summary(points: Sequence[Mapping], alphas: Sequence[float]) -> list[dict]:
    """Tell, for each alpha, how far the points go together.

    Args:
        points: From ``bridge``.
        alphas: Coefficients.

    Returns:
        Means, and rank correlations with a bootstrap interval over pairs, None below 4 pairs.
    """
    rows = []
    for alpha in alphas:
        chosen = [point for point in points if point["alpha"] == alpha]
        relative = [point["relative"] for point in chosen]
        columns = {
            "predicted_measured": ([point["predicted"] for point in chosen], "measured"),
            "xi_relative": ([point["xi"] for point in chosen], "relative"),
            "interference_relative": (
                [sum(point["interference"]) / 2 for point in chosen], "relative",
            ),
            "leak_relative": ([sum(point["leak"]) / 2 for point in chosen], "relative"),
        }  # fmt: skip
        row = {
            "alpha": alpha,
            "points": len(chosen),
            "relative_mean": sum(relative) / len(chosen),
            "xi_mean": sum(point["xi"] for point in chosen) / len(chosen),
        }
        for name, (x, other) in columns.items():
            rank = None if None in x else rank_correlation(x, [p[other] for p in chosen])
            row[f"spearman_{name}"] = rank
        rows.append(row)
    return rows


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    r"""Correlate the ranks of two lists; equals share the mean of their ranks.

    Args:
        x: Values.
        y: As many.

    Returns:
        In [-1, 1]; None below 4 values or where one list is constant.

    Source:
        Spearman (1904), Am. J. Psychol. 15, 72-101.
    """
    if len(x) < 4:
        return None
    ranks = torch.stack([_ranks(values) for values in (x, y)])
    centred = ranks - ranks.mean(dim=1, keepdim=True)
    lengths = centred.norm(dim=1)
    return float(centred[0] @ centred[1] / lengths.prod()) if lengths.prod() else None


def _ranks(values: Sequence[float]) -> Tensor:
    """Return ranks from 0, shared among equals."""
    column = torch.tensor(list(values), dtype=torch.float64)
    below = (column[:, None] > column[None, :]).sum(dim=1)
    equal = (column[:, None] == column[None, :]).sum(dim=1)
    return below.double() + (equal.double() - 1) / 2


def _error(
    pair: tuple[str, str],
    paths: Mapping[str, Path],
    objectives: Mapping[str, Objective],
    regime: Regime,
    products: Mapping[str, Mapping[str, Tensor]],
    alpha: float,
) -> dict:
    """Return what the merge of a pair misses, measured and predicted."""
    chosen, K = [objectives[name] for name in pair], paths[pair[0]].epochs
    merge = alpha * sum(paths[name].last for name in pair)
    joint = follow(chosen, regime, K, alpha, measured=False).last
    error = merge - joint
    found = {
        "measured": norm(error),
        "displacement": norm(merge),
        "relative": norm(error) / norm(merge) if norm(merge) else 0.0,
        "predicted": None,
        "cosine": None,
    }
    if regime.name == "gd":
        curved = {t: {s: products[t][s] for s in pair} for t in pair}
        guess = predicted_merge_error(curved, alpha, regime.rate, K)
        lengths = norm(guess) * norm(error)
        found["predicted"] = norm(guess)
        found["cosine"] = float(doubled(guess) @ doubled(error)) / lengths if lengths else None
    return found


def _ratio(products: Mapping[str, Mapping[str, Tensor]], task: str, other: str) -> float | None:
    """Return ||H_t g_t'|| / ||H_t g_t||; None where the task's own product is zero."""
    own = norm(products[task][task])
    return norm(products[task][other]) / own if own else None


def _moved(
    paths: Mapping[str, Path], objectives: Mapping[str, Objective]
) -> list[list[float | None]]:
    """Return ||J_a tau_b|| / ||J_a tau_a|| at theta_0 on the images of a, for all a and b."""
    taus, found = [path.last for path in paths.values()], []
    for a, name in enumerate(paths):
        sizes = [float(part.double().norm()) for part in objectives[name].moved(taus)]
        found.append([size / sizes[a] if sizes[a] else None for size in sizes])
    return found


def _xi(paths: Mapping[str, Path], test: Reader, alpha: float) -> dict:
    """Return the disentanglement error of every pair at one alpha."""
    theta0 = test.encoder.theta0
    taus = {name: _named(path.last, theta0) for name, path in paths.items()}
    if test.mode == "linear":
        scores = {
            name: responses(test.encoder, task, test.splits[name], taus, test.batch).scores()
            for name, task in test.tasks.items()
        }
        found: PairMatrix = linearized_matrix(scores, tuple(taus), alpha)
    else:
        found = nonlinear_matrix(
            test.encoder, test.tasks, taus, test.splits, alpha, images=None, batch=test.batch,
            progress=lambda done, total: test.tick(),
        )  # fmt: skip
    terms = found.terms.tolist()
    return {
        "terms": [[None if math.isnan(value) else value for value in row] for row in terms],
        "n": dict(found.n),
    }


def _named(flat: Tensor, theta0: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a vector by parameter name, in the dtype of theta_0."""
    sizes = [value.numel() for value in theta0.values()]
    pieces = zip(theta0.items(), flat.split(sizes), strict=True)
    return {name: piece.view(value.shape).to(value) for (name, value), piece in pieces}
