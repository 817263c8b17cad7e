"""Local energies and their scores as tables, for figures and downloads, with their provenance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.compute import catalogue, records
from app.compute.energies import (
    ARRANGEMENTS,
    BLOCKS,
    TITLES,
    Shown,
    kind_of,
    score_of,
    table_of,
)
from app.compute.geometry import parts_of
from app.compute.ntk_pairs import Pair


def point_rows(shown: Sequence[Shown], setting: str) -> list[dict]:
    """Return local energies as a table: a point of an arrangement a row.

    Args:
        shown: Encoders.
        setting: A key of :func:`settings`.
    """
    rows = []
    for item in shown:
        for arrangement in ARRANGEMENTS:
            table = table_of(item.energy, arrangement, setting)
            rows += _point_rows(item, arrangement, table)
    return rows


def weighted_rows(shown: Sequence[Shown]) -> list[dict]:
    """Return weighted energies as a table.

    Args:
        shown: Encoders; those without a linear task vector are left out.
    """
    able = [item for item in shown if item.energy.energy_weighted is not None]
    return [
        row
        for item in able
        for row in _point_rows(item, "paper", item.energy.energy_weighted.numpy().astype(float))
    ]


def _point_rows(item: Shown, arrangement: str, table: np.ndarray) -> list[dict]:
    n = table.shape[1] // 2
    rows = []
    for block, name in enumerate(BLOCKS[arrangement]):
        labels, classes = item.labels(name), item.classes(name)
        places = item.energy.indices[name].tolist()
        for k in range(n):
            values = table[:, block * n + k]
            rows.append(
                {
                    "encoder": item.encoder,
                    "arrangement": arrangement,
                    "points": name,
                    "index": places[k],
                    "class": classes[labels[k]],
                    "mean": float(values.mean()),
                    "std": float(values.std()),
                }
                | {
                    f"logit {logit}": float(value)
                    for logit, value in zip(item.energy.logits, values, strict=True)
                }
            )
    return rows


def score_rows(shown: Sequence[Shown], setting: str) -> list[dict]:
    """Return scores at a setting as a table: an encoder's arrangement a row.

    Args:
        shown: Encoders.
        setting: A key of :func:`settings`.
    """
    rows = []
    for item in shown:
        for arrangement in ARRANGEMENTS:
            score = score_of(item.energy, arrangement, setting)
            rows.append({
                "encoder": item.encoder,
                "columns": TITLES[arrangement],
                "auc": float(score["auc"]),
                "auc_low": float(score["auc_interval"][0]),
                "auc_high": float(score["auc_interval"][1]),
                "difference": float(score["difference"]),
                "difference_low": float(score["difference_interval"][0]),
                "difference_high": float(score["difference_interval"][1]),
                "n": int(item.energy.n),
            })
    return rows


def provenance(what: str, shown: Sequence[Shown], rounded: bool = True, **facts: Any) -> dict:
    """Return what made the energies.

    Args:
        what: The quantity, in words.
        shown: Encoders.
        rounded: As for ``energies.kind_of``.
        **facts: Further plain values.

    Returns:
        Plain values; "kind" is "exact", "exact to float16" or "approximate".
    """
    energy = shown[0].energy
    if rounded:
        facts["rounding"] = "energies are kept in float16: within 5e-4 of what was computed"
    found = records.provenance(
        what,
        exact=all(item.energy.exact for item in shown),
        encoders={item.encoder: item.energy.encoder_digest for item in shown},
        task=energy.task,
        control=energy.control,
        n=energy.n,
        seed=energy.seed,
        split="train",
        split_digests=dict(energy.split_digests),
        logits=list(energy.logits),
        readout=energy.readout,
        computed={item.encoder: dict(item.energy.made) for item in shown},
        **facts,
    )
    return {**found, "kind": kind_of(shown, rounded)}


def layer_shares(shown: Sequence[Shown], by: str) -> tuple[list[str], dict[str, list[float]]]:
    """Return which part of the kernel's trace each layer makes, from input to output.

    Args:
        shown: Encoders.
        by: "block", or "module": weight and bias together.

    Returns:
        Names, and by encoder a share each; 0 for what an encoder does not have.
    """
    tables = {}
    for item in shown:
        parts = parts_of(list(item.energy.layers))
        of = {name: part for part, names in parts.items() for name in names}
        tables[item.encoder] = table = dict.fromkeys(parts, 0.0) if by == "block" else {}
        for name in [name for names in parts.values() for name in names]:
            module = name.removesuffix("weight").removesuffix("bias").rstrip("._") or name
            label = of[name] if by == "block" else module.removeprefix("transformer.")
            table[label] = table.get(label, 0.0) + float(item.energy.layers[name])
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    return names, {
        encoder: [table.get(name, 0.0) for name in names] for encoder, table in tables.items()
    }


def spectrum_rows(shown: Sequence[Shown]) -> list[dict]:
    """Return singular values and the eigenvalues of the square kernel: a number a row.

    Args:
        shown: Encoders.
    """
    rows = []
    for item in shown:
        square = item.energy.eigvals
        for place, logit in enumerate(item.energy.logits):
            for k, value in enumerate(item.energy.spectrum[0][place].tolist()):
                own = None if square is None else float(square[place][k])
                rows.append({
                    "encoder": item.encoder,
                    "logit": str(logit),
                    "number": k + 1,
                    "value": value,
                    "eigenvalue_of_the_square_kernel": own,
                })
    return rows


def block_scores(shown: Sequence[Shown]) -> tuple[list[str], dict, dict]:
    """Return the held-out score of each block's own kernel.

    Args:
        shown: Encoders; those whose blocks were not scored are left out.

    Returns:
        Blocks from input to output; areas by encoder, and their intervals.
    """
    able = {item.encoder: item.energy.layer_scores for item in shown if item.energy.layer_scores}
    names = list(dict.fromkeys(name for table in able.values() for name in table))
    nothing = {"auc": float("nan"), "auc_interval": [float("nan")] * 2}
    cells = {
        encoder: [table.get(name, nothing) for name in names] for encoder, table in able.items()
    }
    values = {encoder: [cell["auc"] for cell in row] for encoder, row in cells.items()}
    intervals = {
        encoder: [tuple(cell["auc_interval"]) for cell in row] for encoder, row in cells.items()
    }
    return names, values, intervals


def block_rows(shown: Sequence[Shown]) -> list[dict]:
    """Return the held-out scores of blocks as a table: a block of an encoder a row.

    Args:
        shown: Encoders.
    """
    return [
        {
            "encoder": item.encoder,
            "block": name,
            "auc": score["auc"],
            "auc_low": score["auc_interval"][0],
            "auc_high": score["auc_interval"][1],
            "difference": score["difference"],
            "vectors": score["rank"],
            "n": int(item.energy.n),
        }
        for item in shown
        for name, score in (item.energy.layer_scores or {}).items()
    ]


def pair_matrix(found: Mapping[tuple[str, str], Pair], arrangement: str) -> tuple:
    """Arrange pairs as tasks by controls, the miniature's in their order.

    Args:
        found: Kept pairs.
        arrangement: One of :data:`ARRANGEMENTS`.

    Returns:
        Titles of the rows and of the columns; areas under the ROC curve and half the width of
        their intervals (None where a pair is not kept); what each cell says.
    """
    names, control = catalogue.task_names()
    order = {name: place for place, name in enumerate((*names, control))}

    def sort(those: set[str]) -> list[str]:
        return sorted(those, key=lambda name: (order.get(name, len(order)), name))

    tasks = sort({task for task, _ in found})
    controls = sort({other for _, other in found})
    rows, columns = catalogue.titles(tasks), catalogue.titles(controls)
    values, halves, hover = [], [], []
    for task, row in zip(tasks, rows, strict=True):
        cells = [found.get((task, other)) for other in controls]
        values.append([
            None if pair is None else float(pair.scores[arrangement]["auc"]) for pair in cells
        ])
        halves.append([None if pair is None else _half(pair, arrangement) for pair in cells])
        hover.append([
            f"{row} / {column}: " + _said(pair, arrangement)
            for pair, column in zip(cells, columns, strict=True)
        ])
    return rows, columns, values, halves, hover


def _half(pair: Pair, arrangement: str) -> float:
    """Return half the width of a pair's interval."""
    low, high = pair.scores[arrangement]["auc_interval"]
    return (high - low) / 2


def _said(pair: Pair | None, arrangement: str) -> str:
    """Say a pair's score with its interval."""
    if pair is None:
        return "not computed"
    score = pair.scores[arrangement]
    low, high = score["auc_interval"]
    return f"{score['auc']:.3f}, 95 % interval {low:.3f} to {high:.3f}, n = {pair.points}"


def pair_rows(found: Mapping[tuple[str, str], Pair]) -> list[dict]:
    """Return the scores of pairs as a table: a pair's arrangement a row.

    Args:
        found: Kept pairs.
    """
    return [
        {
            "task": pair.task,
            "control": pair.control,
            "columns": arrangement,
            "auc": float(score["auc"]),
            "auc_low": float(score["auc_interval"][0]),
            "auc_high": float(score["auc_interval"][1]),
            "difference": float(score["difference"]),
            "difference_low": float(score["difference_interval"][0]),
            "difference_high": float(score["difference_interval"][1]),
            "n": pair.points,
        }
        for pair in found.values()
        for arrangement, score in pair.scores.items()
    ]
