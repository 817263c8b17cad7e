"""The numbers behind the figures of the Gradients page, as rows, and what made them."""

from collections.abc import Mapping
from typing import Any

from app.compute.gradients import MEASURES, METHODS, Answer
from app.compute.records import provenance

Rows = list[dict[str, Any]]


def made(answer: Answer, what: str, **facts: Any) -> dict[str, Any]:
    """Return what made some numbers of an answer.

    Args:
        answer: Whose they are.
        what: The quantity, in words.
        facts: Further plain values.
    """
    record = answer.record
    told = ("encoder", "encoder_digest", "regime", "rate", "epochs", "batch", "seed", "precision")
    told += ("note", "split_digests", "seconds")
    return provenance(
        what,
        exact=record["exact"],
        **{key: record[key] for key in told},
        n={"train": record["images"], "test": record["n_test"], "val": record["n_validation"]},
        measured_with={
            key: record[key] for key in ("versions", "commit", "parts") if key in record
        },
        **facts,
    )


LAYER_ULPS = ("one_step_ulps", "telescoping_ulps")  # older answers lack them
LINES = ("displacement", "raw", "corrected", "bound_posteriori", "bound_priori")


def error_rows(answer: Answer, mode: str) -> Rows:
    """Return the errors of every task at every rate."""
    found = answer.part("exactness", mode)
    return [
        {
            "task": task,
            "mode": mode,
            "rate": rate,
            "steps": found["steps"],
            **{name: part[name][place] for name in LINES},
            "floor": found["floor"],
        }
        for task, part in answer.each(found)
        for place, rate in enumerate(found["rates"])
    ]


def equality_rows(answer: Answer, mode: str) -> Rows:
    """Return one row a task: the equalities in ulps, the slopes, the estimated curvature."""
    found = answer.part("exactness", mode)
    return [
        {
            "task": answer.title(task),
            "one step (ulps)": part["one_step"]["ulps"],
            "one step (relative)": part["one_step"]["relative"],
            "one step, float32 (relative)": part["one_step"]["relative_float32"],
            "telescoping (ulps)": part["telescoping"]["ulps"],
            "slope, raw": part["slope_raw"],
            "slope, corrected": part["slope_corrected"],
            "‖g‖": part["gradient_norm"],
            "β, estimated": part["beta"],
        }
        for task, part in answer.each(found)
    ]


def layer_rows(answer: Answer, mode: str, task: str) -> Rows:
    """Return the errors of one task by layer and rate."""
    found = answer.part("exactness", mode)
    return [
        {
            "task": task,
            "mode": mode,
            "layer": layer,
            "rate": rate,
            **{name: part[name][place] for name in ("displacement", "raw", "corrected")},
            "slope_raw": part["slope_raw"],
            "slope_corrected": part["slope_corrected"],
            **{name: part.get(name) for name in LAYER_ULPS},
        }
        for layer, part in answer.layers(found["tasks"][task])
        for place, rate in enumerate(found["rates"])
    ]


def layer_equality_rows(answer: Answer, mode: str, task: str) -> Rows:
    """Return one row a layer: the equalities in ulps and the slopes; None where not measured."""
    return [
        {
            "layer": layer,
            "one step (ulps)": part.get("one_step_ulps"),
            "telescoping (ulps)": part.get("telescoping_ulps"),
            "slope, raw": part["slope_raw"],
            "slope, corrected": part["slope_corrected"],
        }
        for layer, part in answer.layers(answer.part("exactness", mode)["tasks"][task])
    ]


def minibatch_rows(answer: Answer, mode: str) -> Rows:
    """Return, of an answer of SGD, what holds of its paths and how far the equality is off."""
    from engine.gradients import off_the_full_step

    found, record = answer.part("trajectory", mode), answer.record
    step = record["rate"][mode] * record["steps_per_epoch"]
    return [
        {
            "task": answer.title(task),
            "τ⁽ᴷ⁾ + η Σ g of the steps, relative": part["telescoping"],
            "τ⁽¹⁾ + ηB∇L, relative": off_the_full_step(
                part["tau_norm"][1], part["cosine_descent"][0], step * part["gradient"][0]
            ),
            "cos(τ⁽¹⁾, −g₀)": part["cosine_descent"][0],
            "cos(τ⁽ᴷ⁾, −g₀)": part["cosine_descent"][-1],
        }
        for task, part in answer.each(found)
    ]


def curve_rows(found: Mapping[str, Any]) -> Rows:
    """Return the curves of the check on the small network."""
    curves = found["curves"]
    return [
        {name: values[place] for name, values in curves.items()}
        for place in range(len(curves["rates"]))
    ]


BY_EPOCH = (
    "displacement",
    "displacement_share",
    "gradient",
    "gradient_share",
    "used_gradient",
    "used_gradient_share",
    "cosine_descent",
    "cosine_final",
)


def epoch_rows(answer: Answer, mode: str) -> Rows:
    """Return shares and cosines of every task at every epoch."""
    found = answer.part("trajectory", mode)
    return [
        {
            "task": task,
            "mode": mode,
            "epoch": k + 1,
            "uniform_share": found["uniform"],
            "loss": part["loss"][k + 1],
            "tau_norm": part["tau_norm"][k + 1],
            **{name: part[name][k] for name in BY_EPOCH},
        }
        for task, part in answer.each(found)
        for k in range(answer.record["epochs"])
    ]


def layer_share_rows(answer: Answer, mode: str) -> Rows:
    """Return the first epoch's share of every layer's way, task by task."""
    found = answer.part("trajectory", mode)
    return [
        {
            "task": task,
            "mode": mode,
            "layer": layer,
            "uniform_share": found["uniform"],
            "displacement_share_first": layer_part["displacement_share_first"],
            "cosine_descent_last": layer_part["cosine_descent"][-1],
        }
        for task, part in answer.each(found)
        for layer, layer_part in answer.layers(part)
    ]


def plane_rows(answer: Answer, mode: str) -> Rows:
    """Return the projected paths."""
    found = answer.part("trajectory", mode)["projection"]
    own = {task: found["paths"][task] for task in answer.tasks}
    paths = {**own, "joint training": found["joint"], "merge": found["merge"]}
    return [
        {"path": name, "mode": mode, "epoch": k, "x": x, "y": y}
        for name, path in paths.items()
        for k, (x, y) in enumerate(path)
    ]


def matrix_rows(names: list[str], matrix: list[list[float]], what: str) -> Rows:
    """Return a square matrix as rows."""
    return [
        {"row": a, "column": b, what: matrix[i][j]}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]


def merged_rows(answer: Answer, mode: str) -> Rows:
    """Return merged accuracy of every task at every epoch and alpha."""
    found = answer.part("merged", mode)
    return [
        {
            "task": task,
            "mode": mode,
            "epochs": epoch,
            "alpha": alpha,
            "accuracy": found["accuracy"][task][e][a],
            "single": found["single"][task][e],
            "zeroshot": found["zeroshot"][task],
            **{f"mean_{name}": found[name][e][a] for name in MEASURES},
            "n": found["n"][task],
        }
        for task in answer.tasks
        for e, epoch in enumerate(found["epochs"])
        for a, alpha in enumerate(found["alphas"])
    ]


def early_rows(answer: Answer) -> Rows:
    """Return what merging early gives: means and tasks, both modes, both ways to choose alpha."""
    rows = []
    for mode in answer.modes:
        for row in answer.part("early", mode) or []:
            head = {
                "mode": mode,
                "epochs": row["epoch"],
                "alpha": row["alpha"],
                "alpha_is": "1/T" if row["at_mean"] else "chosen on validation",
            }
            means = {name: row[name] for name in MEASURES}
            ends = {"low": row["low"], "high": row["high"]}
            rows.append({**head, "task": "mean", "accuracy": row["absolute"], **ends, **means})
            rows += [
                {
                    **head,
                    "task": task,
                    **{key: part[key] for key in ("accuracy", "low", "high", "single")},
                }
                for task, part in answer.each(row)
            ]
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def iterative_rows(answer: Answer) -> Rows:
    """Return iterative, one-shot and joint accuracies, both modes."""
    told = ("epochs", "rounds", "evaluations", "absolute", "low", "high", "normalized")
    return [
        {
            "mode": mode,
            "method": method,
            **{key: row[key] for key in told},
            **{f"accuracy, {task}": value for task, value in answer.each(row)},
        }
        for mode in answer.modes
        for method in METHODS
        for row in answer.part("iterative", mode)["methods"][method]
    ]


def point_rows(answer: Answer) -> Rows:
    """Return the points of the bridge, every pair, mode and alpha."""
    plain = ("mode", "alpha", "predicted", "measured", "cosine", "displacement", "relative", "xi")
    return [
        {
            "first": point["pair"][0],
            "second": point["pair"][1],
            **{key: point[key] for key in plain},
            **{f"xi_{place}": point["xi_task"][task] for place, task in _both(point)},
            **{f"n_{place}": point["n"][task] for place, task in _both(point)},
            "interference_first": point["interference"][0],
            "interference_second": point["interference"][1],
            "leak_first": point["leak"][0],
            "leak_second": point["leak"][1],
        }
        for point in answer.record["bridge"]["points"]
    ]


def _both(point: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(zip(("first", "second"), point["pair"], strict=True))
