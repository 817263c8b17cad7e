"""What leaves the Merge page: the readout's rows, its provenance, the merged weights."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.compute import models, records
from app.compute.merging import Choice, Sample
from app.compute.readouts import Readout
from app.state import DIRECTION


def rows(found: Readout, alphas: Mapping[str, float]) -> list[dict]:
    """Return a readout as rows: a task a row, then the means.

    Args:
        found: Accuracies.
        alphas: By task, or of the direction; the control task has none.

    Returns:
        Plain values under the same keys; None where there is no such number.
    """
    tasks = found.tasks
    table = [
        {
            "task": name,
            "title": found.titles[name],
            "alpha": alphas.get(name, alphas.get(DIRECTION) if name in tasks else None),
            "zeroshot": found.zeroshot[name],
            "single": found.single.get(name),
            "merged": found.merged[name],
            "low": found.interval[name][0],
            "high": found.interval[name][1],
            "n": found.n[name],
            "control": name == found.control,
        }
        for name in found.merged
    ]
    empty = dict.fromkeys(table[0])
    return [
        *table,
        {**empty, "task": "mean absolute", "merged": found.absolute, "n": _total(found)},
        {**empty, "task": "mean normalized", "merged": found.normalized, "n": _total(found)},
        {
            **empty,
            "task": "mean zero-shot",
            "merged": sum(found.zeroshot[name] for name in tasks) / len(tasks),
            "n": _total(found),
        },
    ]


def _total(found: Readout) -> int:
    return sum(found.n[name] for name in found.tasks)


def pin_rows(pins: Sequence[Mapping]) -> list[dict]:
    """Return pinned settings as a table: a measure a row, a setting a column.

    Args:
        pins: {"name", "alphas", "metrics", "exact", "context"}.

    Returns:
        Rows under the same keys; with exactly two settings, their difference as well.
    """
    names = [pin["name"] for pin in pins]
    rows = [
        {"measure": "reading"} | {pin["name"]: pin["context"]["reading"] for pin in pins},
        {"measure": "encoder"} | {pin["name"]: pin["context"]["encoder"] for pin in pins},
        {"measure": "kind"}
        | {pin["name"]: "exact" if pin["exact"] else "approximate" for pin in pins},
        {"measure": "method"} | {pin["name"]: method_of(pin["context"]) for pin in pins},
    ]
    measures = {
        f"mean {key}": [pin["metrics"].get(key) for pin in pins]
        for key in ("absolute", "normalized")
    }
    measures["control"] = [pin["metrics"].get("control") for pin in pins]
    for kind, source in (("accuracy", "tasks"), ("alpha", "alphas")):
        tables = [pin["alphas"] if source == "alphas" else pin["metrics"]["tasks"] for pin in pins]
        for task in dict.fromkeys(name for table in tables for name in table):
            label = "the direction" if task == DIRECTION else task
            measures[f"{kind}, {label}"] = [table.get(task) for table in tables]
    for label, values in measures.items():
        row = {"measure": label} | dict(zip(names, values, strict=True))
        if len(pins) == 2:
            both = None not in values
            row[f"{names[1]} − {names[0]}"] = values[1] - values[0] if both else None
        rows.append(row)
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def method_of(context: Mapping) -> str:
    """Say how a pinned setting was merged.

    Args:
        context: Of the setting.

    Returns:
        "sum", "mean", or a method with its options.
    """
    options = ", ".join(f"{name} {value:g}" for name, value in context.get("options", {}).items())
    return context.get("method", context["convention"]) + (f" ({options})" if options else "")


def pin_provenance(pins: Sequence[Mapping]) -> dict[str, Any]:
    """Return what made pinned settings: the settings themselves, digests among them.

    Args:
        pins: As ``pin_rows`` takes them.

    Returns:
        Plain JSON values.
    """
    exact = all(pin["exact"] for pin in pins)
    return records.provenance("pinned settings of the Merge page", exact=exact, settings=list(pins))


def provenance(choice: Choice, sample: Sample, alphas: Mapping[str, float]) -> dict[str, Any]:
    """Return what made a readout.

    Args:
        choice: What is merged.
        sample: What it is measured on.
        alphas: By slider.

    Returns:
        Plain JSON values.
    """
    return records.provenance(
        "top-1 accuracy of the merged model on the first images of each test split",
        exact=True,
        **_setting(choice, alphas),
        split="test",
        split_digests={task.name: task.split_digest for task in sample.tasks},
        n={task.name: len(task.labels) for task in sample.tasks},
        interval="Wilson, 95 %",
    )


def _setting(choice: Choice, alphas: Mapping[str, float]) -> dict[str, Any]:
    """Return what a merged model is made of, as every record of one says it."""
    return {
        "checkpoints": {name: item.digest for name, item in choice.checkpoints.items()},
        "seeds": {name: item.seed for name, item in choice.checkpoints.items()},
        "encoder": choice.encoder,
        "encoder_digest": choice.encoder_digest,
        "reading": choice.reading,
        "convention": choice.convention,
        "method": choice.method or choice.convention,
        "options": dict(choice.options),
        "alphas": dict(alphas),
        "coefficients": choice.coefficients(alphas),
    }


def merged_file(choice: Choice, alphas: Mapping[str, float]) -> bytes:
    """Return the merged weights as a safetensors file, the one ``python -m engine merge`` writes.

    Args:
        choice: What is merged.
        alphas: By slider.

    Returns:
        ``visual.*`` for the non-linear reading; ``tau.visual.*`` for a linearized one, which is
        no single set of weights: f_lin needs theta_0 and tau apart.
    """
    import safetensors.torch

    from engine.merging.weights import merged_tensors

    encoder = models.encoder(choice.encoder)
    factors = choice.coefficients(alphas)
    taus = {name: choice.vector(name) for name in factors}
    tensors = merged_tensors(encoder, choice.reading, taus, factors)
    record = records.provenance(
        "merged weights" if choice.reading == "nonlinear" else "merged task vector",
        exact=True,
        **_setting(choice, alphas),
    )
    metadata = {"format": "pt", "tauscope": json.dumps(record, sort_keys=True)}
    return safetensors.torch.save({k: v.cpu() for k, v in tensors.items()}, metadata)
