"""The report folder: one HTML file, CSV, SVG and JSON, written of filled exhibits."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.exhibits.drawing import standing_alone, svg
from engine.exhibits.exhibit import Filled
from engine.exhibits.paper import page
from engine.store import KINDS, Store, write_bytes

# of an entry's meta, what tells how a number came about
TOLD = (
    "what", "encoder", "encoder_digest", "mode", "task", "tasks", "split", "split_digest", "n",
    "taus", "checkpoints", "key", "commit", "versions", "device", "points", "logits", "seed",
)  # fmt: skip
OF_THE_ANSWER = (
    "alpha", "method", "options", "convention", "keep", "control_task", "seeds", "checkpoints",
    "split_digests", "n", "n_validation", "commit", "versions", "exact", "encoder_digest",
)  # fmt: skip


def provenance_of(store: Store, fillings: Sequence[Filled]) -> dict[str, dict]:
    """Tell of every entry that a number was read from what made it.

    Args:
        store: Where the entries lie.
        fillings: Whose numbers.

    Returns:
        By digest: kind, time, and of its meta the checkpoints, splits, versions and commit.
    """
    wanted = {
        digest for item in fillings for run in item.runs for digest in run.sources
    }  # every cell and figure rests on runs
    told = {}
    for kind in KINDS:
        for entry in store.find(kind):
            if entry.digest in wanted:
                meta = entry.meta
                told[entry.digest] = {
                    "kind": kind,
                    "created": entry.created,
                    **{key: meta[key] for key in TOLD if key in meta},
                    "answer": _told(meta.get("record") or {}),
                }
    return told


def _told(record: Mapping[str, Any]) -> dict:
    """Return of an answer what tells how it came about; of local energies that of the first."""
    energies = record.get("energies")
    if energies:
        first = next(iter(energies.values()))
        record = {**first, **(first.get("made") or {})}
        return {
            key: record[key]
            for key in ("n", "seed", "split_digests", "exact", "made", "precision")
            if key in record
        }
    return {key: record[key] for key in OF_THE_ANSWER if key in record}


def write_report(
    folder: Path,
    encoder: str,
    fillings: Sequence[Filled],
    about: Mapping[str, Any],
    entries: Mapping[str, dict],
) -> dict[str, list[str]]:
    """Write the report of an encoder; what lay there under the same names is replaced.

    Args:
        folder: Where.
        encoder: Whose report.
        fillings: In the order to be shown.
        about: Plain values: when, by which command, with which versions and commit.
        entries: From ``provenance_of``.

    Returns:
        {"files": names within the folder}.

    Raises:
        EngineError: If the folder cannot be written.
    """
    drawings = {
        figure.name: svg(figure) for item in fillings for figure in item.figures
    }  # each drawn once, shown twice
    files = {f"figures/{name}.svg": standing_alone(text) for name, text in drawings.items()}
    for item in fillings:
        for table in item.tables:
            files[f"tables/{table.name}.csv"] = _csv(table.records())
    files["tables/published.csv"] = _csv(comparison_records(fillings))
    record = {
        "encoder": encoder,
        "about": dict(about),
        "exhibits": [item.record() for item in fillings],
        "entries": dict(entries),
    }
    files["report.json"] = json.dumps(_rounded(record), indent=None, allow_nan=False) + "\n"
    files["index.html"] = page(encoder, fillings, drawings, about)
    for name, text in files.items():
        write_bytes(Path(folder) / name, text.encode())
    return {"files": sorted(files)}


def comparison_records(fillings: Sequence[Filled]) -> list[dict[str, Any]]:
    """Return published / here / why they differ as flat lines; published figures in per cent."""
    return [
        {
            "exhibit": item.exhibit,
            "where": item.published.where,
            "paper": item.published.paper,
            "family": item.published.family,
            "encoder": item.published.encoder,
            "row": item.row,
            "column": item.column,
            "published_percent": item.published.printed,
            "here": item.cell.value if item.cell.state == "kept" else item.cell.state,
            "why": item.why,
            "order": item.order,
        }
        for filling in fillings
        for item in filling.comparison
    ]


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return lines as CSV with a head; None is empty."""
    out = io.StringIO()
    names = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rounded(dict(line)) for line in lines)
    return out.getvalue()


def _rounded(value: Any) -> Any:
    """Return plain values with floats of at most nine digits: sums of floats end in noise."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
