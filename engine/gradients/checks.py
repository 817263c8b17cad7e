"""Every statement on task vectors and gradients, checked in float64 on small networks."""

import time
from collections.abc import Sequence

import torch

from engine.gradients.bounds import (
    bound_posteriori,
    bound_priori,
    feed_forward_curvature,
    spectral_norm,
)
from engine.gradients.expansion import (
    descend,
    in_ulps,
    predicted_merge_error,
    second_order,
    shadow_correction,
    slope,
)
from engine.gradients.objective import Objective
from engine.gradients.path import follow
from engine.gradients.regimes import Regime
from engine.gradients.smooth import disjoint_objectives, relu_objective, tanh_objectives
from engine.task_vectors import cosine

RATES = tuple(2.0**-k for k in range(5, 11))
STEPS, ALPHAS = 6, (-0.7, 1 / 3, 0.5, 1.0, 1.3)
ULPS = 8.0  # of a few sums, each rounded: three tasks, alpha up to 1.3


def check(seed: int = 0) -> dict:
    """Check the statements and say which hold.

    Args:
        seed: Of the small networks.

    Returns:
        Numbers by name, "checks" with what each must be, "curves", "passed" and "seconds".

    Source:
        Zhou et al., On Task Vectors and Gradients (abstract), for equality after one step and the
        second-order error; the other statements are derived, and named where they are coded.
    """
    began = time.perf_counter()
    tasks = tanh_objectives(seed=seed)
    curves = expansion_curves(tasks[0], RATES, STEPS)
    found = {
        **_equalities(tasks),
        "slope_raw": slope(RATES, curves["raw"])[0],
        "slope_corrected": slope(RATES, curves["corrected"])[0],
        **_shadow_slopes(tasks),
        **_merge_slopes(tasks),
        **_disjoint(seed),
        "self_cosine_error": _self_cosine(tasks[0]),
        "minibatch_slope": _minibatch_slope(tasks[0]),
        "bounds": _bounds(tasks[0], curves, seed),
    }
    rows = _judged(found)
    return {
        **found,
        "checks": rows,
        "curves": curves,
        "passed": all(row["passed"] for row in rows),
        "seconds": time.perf_counter() - began,
    }


def expansion_curves(objective: Objective, rates: Sequence[float], steps: int) -> dict:
    """Measure the error of -eta K g with and without the second-order term, and its bounds.

    Args:
        objective: Small: the path is kept whole.
        rates: Learning rates.
        steps: K.

    Returns:
        "rates", "raw", "corrected", "bound_posteriori", "bound_priori", "beta": a value a rate.
    """
    theta0 = objective.theta0
    gradient = objective.gradient(theta0)
    curved = objective.hvp(theta0, gradient)
    curves = {name: [] for name in ("raw", "corrected", "bound_posteriori", "bound_priori", "beta")}
    for rate in rates:
        points = descend([objective], rate, steps)
        rest = points[-1] - theta0 + rate * steps * gradient
        ends = torch.stack([theta0, (theta0 + points[-1]) / 2, points[-1]])
        beta = max(spectral_norm(objective, theta, 60, 1e-6).norm for theta in ends)
        distances = [float((theta - theta0).norm()) for theta in points[:-1]]
        curves["raw"].append(float(rest.norm()))
        curves["corrected"].append(float((rest - second_order(rate, steps, curved)).norm()))
        curves["bound_posteriori"].append(bound_posteriori(rate, beta, distances))
        curves["bound_priori"].append(bound_priori(rate, beta, steps, float(gradient.norm())))
        curves["beta"].append(beta)
    return {"rates": list(rates), **curves}


def _equalities(tasks: Sequence[Objective]) -> dict[str, float]:
    """Return what is exact after one step, for any number of steps, and at any alpha."""
    theta0, rate = tasks[0].theta0, RATES[-1] / 8  # few coordinates cross 0 in a step
    gradients = [task.gradient(theta0) for task in tasks]
    own = [descend([task], rate, 1)[1] for task in tasks]
    one = [
        in_ulps((theta - theta0) + rate * g, theta0, theta)
        for theta, g in zip(own, gradients, strict=True)
    ]
    path = follow(tasks[:1], Regime("gd", rate), STEPS)
    residue = path.last + rate * path.summed
    summed = sum(theta - theta0 for theta in own)
    merges, negations = [], []
    for alpha in ALPHAS:
        joint = theta0 - alpha * rate * sum(gradients)
        merges.append(in_ulps(theta0 + alpha * summed - joint, theta0, joint))
        ascent = theta0 + alpha * rate * gradients[0]
        negated = theta0 - alpha * (own[0] - theta0)
        negations.append(in_ulps(negated - ascent, theta0, ascent))
    return {
        "one_step_ulps": max(one),
        "telescoping_ulps": in_ulps(residue, theta0, theta0 + path.last),
        "merge_ulps": max(merges),
        "negation_ulps": max(negations),
    }


def _shadow_slopes(tasks: Sequence[Objective]) -> dict[str, float | None]:
    """Return the slopes of the joint shadow path's expansion with C, half of C, and none."""
    theta0, alpha = tasks[0].theta0, 0.6
    errors: dict[str, list[float]] = {"slope_shadow": [], "slope_shadow_half": []}
    plain = []
    for rate in RATES:
        shadow = descend(tasks, alpha * rate, STEPS)
        summed = sum(descend([task], rate, STEPS)[-1] - theta0 for task in tasks)
        along = sum(task.gradient(theta) for task in tasks for theta in shadow[:-1])
        rest = summed + rate * along
        correction = rate**2 * shadow_correction(tasks, shadow, alpha)
        plain.append(float(rest.norm()))
        errors["slope_shadow"].append(float((rest + correction).norm()))
        errors["slope_shadow_half"].append(float((rest + correction / 2).norm()))
    return {"slope_shadow_raw": slope(RATES, plain)[0]} | {
        name: slope(RATES, values)[0] for name, values in errors.items()
    }


def _merge_slopes(tasks: Sequence[Objective]) -> dict[str, float | None]:
    """Return the slopes of the merge's error and of what its prediction leaves."""
    theta0, alpha = tasks[0].theta0, 1 / len(tasks)
    gradients = {task.name: task.gradient(theta0) for task in tasks}
    curved = {
        task.name: {name: task.hvp(theta0, g) for name, g in gradients.items()} for task in tasks
    }
    errors, rests = [], []
    for rate in RATES:
        summed = sum(descend([task], rate, STEPS)[-1] - theta0 for task in tasks)
        error = theta0 + alpha * summed - descend(tasks, alpha * rate, STEPS)[-1]
        errors.append(float(error.norm()))
        rests.append(float((error - predicted_merge_error(curved, alpha, rate, STEPS)).norm()))
    return {
        "slope_merge_error": slope(RATES, errors)[0],
        "slope_merge_error_corrected": slope(RATES, rests)[0],
    }


def _disjoint(seed: int) -> dict[str, float]:
    """Return error and xi of a merge of a linear model whose tasks share no feature."""
    tasks = disjoint_objectives(seed=seed)
    theta0, worst, wrong = tasks[0].theta0, 0.0, 0.0
    for rate, steps in ((0.1, 1), (0.5, 7), (2.0, 40)):
        taus = [descend([task], rate, steps)[-1] - theta0 for task in tasks]
        merged, joint = theta0 + sum(taus), descend(tasks, rate, steps)[-1]
        worst = max(worst, float((merged - joint).norm() / sum(taus).norm()))
        for task, tau in zip(tasks, taus, strict=True):
            alone = task.outputs(theta0 + tau).argmax(dim=1)
            together = task.outputs(merged).argmax(dim=1)
            wrong += float((alone != together).double().mean())
    return {"disjoint_error": worst, "disjoint_xi": wrong}


def _self_cosine(task: Objective) -> float:
    """Return how far the cosine of a vector with itself is from 1."""
    gradient = task.layout.split(task.gradient(task.theta0).float())
    return abs(1 - cosine(gradient, gradient))


def _minibatch_slope(task: Objective) -> float | None:
    """Return the slope of what parts an epoch of B equal batches from -eta B g."""
    gradient, errors = task.gradient(task.theta0), []
    for rate in RATES:
        path = follow([task], Regime("sgd", rate, batch=task.n // 4), 1)
        errors.append(float((path.last + 4 * rate * gradient).norm()))
    return slope(RATES, errors)[0]


def _bounds(task: Objective, curves: dict, seed: int) -> dict[str, float]:
    """Return the largest share of each bound that is taken up; above 1 it would be broken."""
    network, norms, radius = relu_objective(seed)
    beta = spectral_norm(network, network.theta0, 200, 1e-8).norm
    return {
        name: max(raw / bound for raw, bound in zip(curves["raw"], curves[name], strict=True))
        for name in ("bound_posteriori", "bound_priori")
    } | {"feed_forward": beta / feed_forward_curvature(norms, radius)}


def _judged(found: dict) -> list[dict]:
    """Return a row for each check: what was found, what it must be, whether it is."""
    eps = torch.finfo(torch.float64).eps
    near = {"slope_raw": (2.0, 0.1), "slope_corrected": (3.0, 0.15), "slope_shadow": (3.0, 0.15),
            "slope_shadow_half": (2.0, 0.1), "slope_merge_error": (2.0, 0.1),
            "slope_merge_error_corrected": (3.0, 0.15), "minibatch_slope": (2.0, 0.1)}  # fmt: skip
    below = {"one_step_ulps": 1.0, "telescoping_ulps": STEPS * ULPS,
             "merge_ulps": ULPS, "negation_ulps": ULPS,
             "disjoint_error": 1000 * eps, "disjoint_xi": 0.0,
             "self_cosine_error": 1e-12}  # fmt: skip
    rows = [
        (name, found[name], f"{centre:g} +- {width:g}", abs((found[name] or 0) - centre) <= width)
        for name, (centre, width) in near.items()
    ]
    rows += [
        (name, found[name], f"at most {limit:.3g}", found[name] <= limit)
        for name, limit in below.items()
    ]
    rows += [(f"share of {name}", v, "at most 1", v <= 1) for name, v in found["bounds"].items()]
    return [
        {"name": name, "value": value, "passes_when": rule, "passed": passed}
        for name, value, rule, passed in rows
    ]
