"""Made-up records of the verb ``gradients``, of the shape that docs/design.md gives them."""

import math
from itertools import combinations

import numpy as np

TASKS = ("signs", "letters", "sites")
MARKS = (1, 2, 4)
ALPHAS = (0.0, 1 / 3, 0.5, 1.0)
IMAGES, N = 120, 100
RATES = (0.01, 0.02, 0.04)
LAYERS = ("conv1", "resblocks.0", "proj")
MODES = ("nonlinear", "linear")


def make_record(regime: str = "gd", tasks=TASKS, seed: int = 0, **changes) -> dict:
    """Return a whole record; its numbers are drawn, and agree where the contract says so."""
    source = np.random.default_rng(seed)
    K = MARKS[-1]
    record = {
        "encoder": "miniature",
        "encoder_digest": "e" * 64,
        "tasks": list(tasks),
        "titles": {task: task.capitalize() for task in tasks},
        "modes": list(MODES),
        "regime": regime,
        "rate": dict.fromkeys(MODES, 0.02),
        "epochs": K,
        "seed": seed,
        "batch": None if regime == "gd" else 24,
        "steps_per_epoch": 1 if regime == "gd" else 5,
        "images": dict.fromkeys(tasks, IMAGES),
        "n_test": dict.fromkeys(tasks, N),
        "n_validation": dict.fromkeys(tasks, N),
        "precision": "float64",
        "exact": True,
        "note": "made up for a test",
        "split_digests": {
            task: dict.fromkeys(("train", "validation", "test"), "d" * 64) for task in tasks
        },
        "layers": list(LAYERS),
        "seconds": 12.5,
        "versions": {},
        "commit": "test",
        "exactness": {mode: _exactness(tasks) for mode in MODES} if regime == "gd" else None,
        "trajectory": {mode: _trajectory(source, tasks, K) for mode in MODES},
        "merged": {mode: _merged(source, tasks) for mode in MODES},
        "iterative": {mode: _iterative(source, tasks) for mode in MODES},
        "bridge": _bridge(source, tasks, regime),
    }
    record["early"] = {mode: _early(record["merged"][mode], tasks) for mode in MODES}
    return {**record, **changes}


def _exactness(tasks) -> dict:
    raw, corrected = [r**2 for r in RATES], [r**3 for r in RATES]
    lines = {"displacement": list(RATES), "raw": raw, "corrected": corrected}
    one = {"rate": 0.02, "ulps": 0.5, "relative": 1e-16}
    one |= {"ulps_float32": 0.5, "relative_float32": 3e-4}
    slopes = {"slope_raw": 2.0, "slope_corrected": 3.0}
    ulps = {"one_step_ulps": 0.5, "telescoping_ulps": 1.5}
    found = {
        task: {
            "gradient_norm": 1.0 + place,
            "beta": 4.0,
            "beta_note": "an estimate from below, not a certificate",
            "one_step": dict(one),
            "telescoping": {"ulps": 1.5, "relative": 2e-16},
            **lines,
            "bound_posteriori": [3 * value for value in raw],
            "bound_priori": [*(9 * value for value in raw[:-1]), None],
            **slopes,
            "fitted": list(RATES),
            "layers": {layer: {**lines, **slopes, **ulps} for layer in LAYERS},
        }
        for place, task in enumerate(tasks)
    }
    merge = {"alphas": [0.5, 1.0], "ulps": [0.5, 1.0]}
    head = {"steps": 4, "images": dict.fromkeys(tasks, 60), "rates": list(RATES), "floor": 1e-15}
    return {**head, "tasks": found, "merge": merge}


def _trajectory(source, tasks, K: int) -> dict:
    T = len(tasks)

    def shares() -> tuple[list, list]:
        values = np.sort(source.random(K) + 0.1)[::-1]
        return values.tolist(), (values / values.sum()).tolist()

    def task() -> dict:
        found = {"loss": np.linspace(2.0, 1.0, K + 1).tolist()}
        found["tau_norm"] = np.linspace(0.0, 1.0, K + 1).tolist()
        for name in ("displacement", "gradient", "used_gradient"):
            found[name], found[f"{name}_share"] = shares()
        found["cosine_descent"] = np.linspace(1.0, 0.5, K).tolist()
        found["cosine_final"] = np.linspace(0.6, 1.0, K).tolist()
        found["cosine_gradients"] = _cosines(source, K)
        found["telescoping"] = 1e-16
        found["layers"] = {
            layer: {"displacement_share_first": 0.4, "cosine_descent": found["cosine_descent"]}
            for layer in LAYERS
        }
        return found

    origin = np.array([0.3, -0.1])
    steps = source.normal(size=(T, K + 1, 2)) * 0.1 + 0.2
    steps[:, 0] = 0
    paths = origin + steps.cumsum(axis=1)
    merge = origin + (paths - origin).sum(axis=0) / T
    return {
        "uniform": 1 / K,
        "tasks": {name: task() for name in tasks},
        "cosine_gradients_tasks": _cosines(source, T),
        "cosine_taus": {"epochs": list(MARKS), "matrices": [_cosines(source, T) for _ in MARKS]},
        "projection": {
            "explained": [0.7, 0.2],
            "alpha": 1 / T,
            "paths": {name: paths[place].tolist() for place, name in enumerate(tasks)},
            "joint": (merge + 0.01).tolist(),
            "merge": merge.tolist(),
        },
    }


def _cosines(source, size: int) -> list:
    found = source.uniform(-0.2, 0.9, size=(size, size))
    found = (found + found.T) / 2
    np.fill_diagonal(found, 1.0)
    return found.tolist()


def _merged(source, tasks) -> dict:
    E, A = len(MARKS), len(ALPHAS)
    accuracy = {task: (source.integers(30, 90, size=(E, A)) / N) for task in tasks}
    zeroshot = {task: 0.3 for task in tasks}
    for table in accuracy.values():
        table[:, 0] = 0.3  # at alpha 0 every merge is theta_0
    single = {task: np.linspace(0.8, 0.9, E).tolist() for task in tasks}
    absolute = sum(accuracy.values()) / len(tasks)
    own = [np.array(single[task])[:, None] for task in tasks]
    normalized = sum(a / s for a, s in zip(accuracy.values(), own, strict=True)) / len(tasks)
    converged = sum(accuracy.values()) / 0.9 / len(tasks)
    return {
        "epochs": list(MARKS),
        "alphas": list(ALPHAS),
        "n": dict.fromkeys(tasks, N),
        "zeroshot": zeroshot,
        "accuracy": {task: table.tolist() for task, table in accuracy.items()},
        "single": single,
        "absolute": absolute.tolist(),
        "normalized": normalized.tolist(),
        "normalized_converged": converged.tolist(),
        "validation": {
            "absolute": absolute.tolist(),
            "normalized": normalized.tolist(),
            "n": dict.fromkeys(tasks, N),
        },
    }


def _early(merged, tasks) -> list:
    rows, mean = [], int(np.argmin(np.abs(np.array(merged["alphas"]) - 1 / len(tasks))))
    for e, epoch in enumerate(merged["epochs"]):
        best = int(np.argmax(merged["validation"]["normalized"][e]))
        for a, at_mean in ((best, False), (mean, True)):
            means = {
                key: merged[key][e][a] for key in ("absolute", "normalized", "normalized_converged")
            }
            low, high = means["absolute"] - 0.05, means["absolute"] + 0.05
            rows.append({
                "epoch": epoch,
                "alpha": merged["alphas"][a],
                "at_mean": at_mean,
                **means,
                "low": low,
                "high": high,
                "tasks": {
                    task: {
                        "accuracy": merged["accuracy"][task][e][a],
                        "low": max(0.0, merged["accuracy"][task][e][a] - 0.08),
                        "high": min(1.0, merged["accuracy"][task][e][a] + 0.08),
                        "single": merged["single"][task][e],
                    }
                    for task in tasks
                },
            })
    return rows


def _iterative(source, tasks) -> dict:
    def rows(name: str) -> list:
        found = []
        for e in (0, *MARKS):
            value = 0.3 + 0.4 * (1 - math.exp(-e * (2 if name == "joint" else 1)))
            found.append({
                "epochs": e,
                "rounds": {"one-shot": min(e, 1), "ATM": e, "joint": 0}[name],
                "evaluations": e * IMAGES * len(tasks),
                "absolute": value,
                "low": value - 0.03,
                "high": value + 0.03,
                "normalized": value / 0.9,
                "tasks": dict.fromkeys(tasks, value),
            })
        return found

    return {
        "unit": "images differentiated",
        "rate": 0.02,
        "alpha": 1 / len(tasks),
        "single": dict.fromkeys(tasks, 0.9),
        "methods": {name: rows(name) for name in ("one-shot", "ATM", "joint")},
    }


def _bridge(source, tasks, regime: str) -> dict:
    T, points = len(tasks), []
    for alpha in (1.0, 0.5):
        for a, b in combinations(tasks, 2):
            for mode in MODES:
                measured = float(source.uniform(0.01, 0.1))
                xi = {a: 0.1, b: float(source.uniform(0.0, 0.3))}
                points.append({
                    "pair": [a, b],
                    "mode": mode,
                    "alpha": alpha,
                    "predicted": measured * 1.1 if regime == "gd" else None,
                    "measured": measured,
                    "cosine": 0.98 if regime == "gd" else None,
                    "displacement": 0.5,
                    "relative": measured / 0.5,
                    "xi": sum(xi.values()),
                    "xi_task": xi,
                    "n": {a: N, b: N},
                    "interference": [0.4, 0.6],
                    "leak": [0.1, 0.2],
                })
    measured = 1.0 if regime == "gd" else None
    summary = {
        mode: [
            {
                "alpha": alpha,
                "points": math.comb(T, 2),
                "relative_mean": 0.1,
                "xi_mean": 0.2,
                "spearman_predicted_measured": measured,
                "spearman_xi_relative": 0.3,
                "spearman_interference_relative": 0.4,
                "spearman_leak_relative": None,
            }
            for alpha in (1.0, 0.5)
        ]
        for mode in MODES
    }
    table = (source.random((T, T)) + np.eye(T)).tolist()
    return {
        "alphas": [1.0, 0.5],
        "steps": 4,
        "interference": dict.fromkeys(MODES, table),
        "points": points,
        "summary": summary,
    }
