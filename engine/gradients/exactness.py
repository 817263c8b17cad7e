"""Exactness: -eta g and the task vector, step by step and over a range of rates."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.gradients.bounds import NOTE, bound_posteriori, bound_priori, spectral_norm
from engine.gradients.expansion import in_ulps, in_ulps_by_layer, second_order, slope, ulp
from engine.gradients.objective import Objective
from engine.gradients.path import follow, norm
from engine.gradients.pieces import Pieces
from engine.gradients.regimes import Regime
from engine.task_vectors import norms_by_layer

SHARE = 0.2  # of eta K beta = 1: the largest of the rates chosen
COUNT = 6  # of rates, each half of the one before
KINDS = ("displacement", "raw", "corrected", "bound_posteriori", "bound_priori")


def choose_rates(beta: float, steps: int, count: int = COUNT) -> list[float]:
    """Choose rates at which the expansion holds.

    Args:
        beta: Estimated curvature.
        steps: K.
        count: How many.

    Returns:
        Ascending, each twice the one before; at the largest eta K beta is 0.2.
    """
    top = SHARE / (max(beta, 1e-12) * steps)
    return [top / 2**k for k in reversed(range(count))]


def exactness(
    objectives: Mapping[str, Objective],
    *,
    rates: Sequence[float] | None = None,
    steps: int = 4,
    alphas: Sequence[float] = (-1.0, 0.3, 0.5, 1.0),
    singles: Mapping[str, Objective] | None = None,
    iterations: int = 12,
    pieces: Pieces | None = None,
) -> dict:
    r"""Measure how far task vectors are gradients, in full-batch gradient descent.

    .. math:: \tau^{(1)} = -\eta g, \qquad
              \tau^{(K)} = -\eta K g + \eta^2 \frac{K (K - 1)}{2} H g + O(\eta^3)

    Args:
        objectives: By task, in float64.
        rates: Ascending; chosen by the curvature if None.
        steps: K.
        alphas: Of the merge after one step.
        singles: The same in float32, to show what single precision hides.
        iterations: Most Hessian-vector products of a power iteration.
        pieces: To go on from.

    Returns:
        The section "exactness" of one mode, as docs/design.md says. Displacements, errors, slopes
        and equalities are told layer by layer as well as in all. The bounds are not: beta is the
        curvature of the loss in all parameters at once, and no layer has one of its own, since
        its gradient changes with the others.

    Source:
        Zhou et al., On Task Vectors and Gradients (abstract); the second-order term is derived.
    """
    pieces = pieces or Pieces()
    found = {}
    for name, objective in objectives.items():
        pieces.told("curvature", len(found), len(objectives))
        found[name] = pieces.value(f"beta-{name}", lambda o=objective: _curvature(o, iterations))
    chosen = list(rates or choose_rates(max(found.values()), steps))
    tasks = {}
    for name, objective in objectives.items():
        pieces.told("exactness", len(tasks), len(objectives))
        single = (singles or {}).get(name)
        tasks[name] = pieces.value(
            f"exactness-{name}",
            lambda o=objective, s=single, b=found[name]: _task(o, s, chosen, steps, b, iterations),
        )
    pieces.told("exactness", len(objectives), len(objectives))
    first = next(iter(objectives.values()))
    return {
        "steps": steps,
        "rates": chosen,
        "floor": norm(ulp(first.theta0)),
        "tasks": tasks,
        "merge": pieces.value("merge", lambda: _merge(objectives, chosen[0], alphas)),
    }


def one_step(objective: Objective, rate: float) -> dict[str, float]:
    r"""Compare the task vector of one full-batch step with -eta g.

    Args:
        objective: The loss, in the precision to look at.
        rate: eta.

    Returns:
        "ulps": the largest |tau + eta g| in units of the last place of max(|theta_0|, |theta_1|);
        "relative": ||tau + eta g|| / ||eta g||.

    Source:
        Zhou et al., On Task Vectors and Gradients (abstract): "exactly equivalent".
    """
    return _equality(objective, *_after_one_step(objective, rate))


def _equality(objective: Objective, rest: Tensor, whole: Tensor, theta: Tensor) -> dict[str, float]:
    """Return how far an equality is from holding, in ulps and relative to what is equal."""
    return {
        "ulps": in_ulps(rest, objective.theta0, theta),
        "relative": norm(rest) / norm(whole),
    }


def _after_one_step(objective: Objective, rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return tau + eta g, eta g and theta^1, each shape (P,)."""
    step = rate * objective.gradient(objective.theta0)
    path = follow([objective], Regime("gd", rate), 1, measured=False)
    return path.last + step, step, objective.theta0 + path.last


def _curvature(objective: Objective, iterations: int) -> float:
    """Return the estimated curvature at theta_0."""
    return spectral_norm(objective, objective.theta0, iterations).norm


def _task(
    objective: Objective,
    single: Objective | None,
    rates: Sequence[float],
    steps: int,
    beta: float,
    iterations: int,
) -> dict:
    """Return what one task tells over all rates."""
    theta0 = objective.theta0
    gradient = objective.gradient(theta0)
    floor = norm(ulp(theta0))
    points = [_walk(objective, rate, steps) for rate in rates]
    beta = max(beta, spectral_norm(objective, points[-1][0], iterations, start=gradient).norm)
    values, layers = _lines(objective, gradient, rates, points, beta)
    theta, summed, _ = points[-1]
    tau = theta - theta0
    telescoped = tau + rates[-1] * summed, tau, theta
    stepped = _after_one_step(objective, rates[0])
    for name, (rest, _, end) in (("one_step", stepped), ("telescoping", telescoped)):
        for layer, ulps in in_ulps_by_layer(rest, objective.layout, theta0, end).items():
            layers[layer][f"{name}_ulps"] = ulps
    return {
        "gradient_norm": norm(gradient),
        "beta": beta,
        "beta_note": NOTE,
        "one_step": {
            "rate": rates[0],
            **_equality(objective, *stepped),
            **_in_single_precision(single, rates[0]),
        },
        "telescoping": _equality(objective, *telescoped),
        **values,
        **_slopes(rates, values, floor),
        "fitted": slope(rates, values["corrected"], floor)[1],
        "layers": {
            layer: {**parts, **_slopes(rates, parts, floor)} for layer, parts in layers.items()
        },
    }


def _lines(
    objective: Objective,
    gradient: Tensor,
    rates: Sequence[float],
    points: Sequence[tuple[Tensor, Tensor, list[float]]],
    beta: float,
) -> tuple[dict[str, list], dict[str, dict]]:
    """Return displacement, errors and bounds at every rate: in all, and but for bounds by layer."""
    curved, steps = objective.hvp(objective.theta0, gradient), len(points[0][-1])
    values: dict[str, list] = {name: [] for name in KINDS}
    layers: dict[str, dict] = {}
    for rate, (theta, _, distances) in zip(rates, points, strict=True):
        tau = theta - objective.theta0
        raw = tau + rate * steps * gradient
        corrected = raw - second_order(rate, steps, curved)
        vectors = {"displacement": tau, "raw": raw, "corrected": corrected}
        for kind, vector in vectors.items():
            values[kind].append(norm(vector))
            for layer, size in norms_by_layer(objective.layout.split(vector)).items():
                layers.setdefault(layer, {k: [] for k in vectors})[kind].append(size)
        values["bound_posteriori"].append(bound_posteriori(rate, beta, distances))
        values["bound_priori"].append(bound_priori(rate, beta, steps, norm(gradient)))
    return values, layers


def _in_single_precision(single: Objective | None, rate: float) -> dict[str, float | None]:
    """Return the equality after one step where rounding hides it; None where it is not asked."""
    found = {"ulps": None, "relative": None} if single is None else one_step(single, rate)
    return {f"{name}_float32": value for name, value in found.items()}


def _slopes(rates: Sequence[float], values: Mapping[str, list], floor: float) -> dict:
    """Return the fitted slopes of both errors."""
    return {f"slope_{kind}": slope(rates, values[kind], floor)[0] for kind in ("raw", "corrected")}


def _walk(objective: Objective, rate: float, steps: int) -> tuple[Tensor, Tensor, list[float]]:
    """Return theta^K, the sum of the gradients, and ||theta^k - theta_0|| for k < K."""
    theta, distances = objective.theta0.clone(), []
    summed = torch.zeros_like(theta)
    for _ in range(steps):
        distances.append(norm(theta - objective.theta0))
        gradient = objective.gradient(theta)
        summed += gradient
        theta = theta - rate * gradient
    return theta, summed, distances


def _merge(objectives: Mapping[str, Objective], rate: float, alphas: Sequence[float]) -> dict:
    """Return how far the merge after one step is from the joint step, at each alpha."""
    every = list(objectives.values())
    theta0, regime = every[0].theta0, Regime("gd", rate)
    own = [follow([o], regime, 1, measured=False).last for o in every]
    found = []
    for alpha in alphas:
        joint = theta0 + follow(every, regime, 1, alpha, measured=False).last
        # where theta_0 is 0 and task vectors cancel, what was rounded are the task vectors
        sizes = (theta0, joint, *(alpha * tau for tau in own))
        found.append(in_ulps(theta0 + alpha * sum(own) - joint, *sizes))
    return {"alphas": list(alphas), "ulps": found}
