"""Kept results of task negation, as the Negate page shows them; those that lack become jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.compute import catalogue, jobs
from app.compute.merging import TRAINED
from app.compute.records import provenance
from app.state import READINGS


@dataclass(frozen=True)
class Forgotten:
    """One task negated in one reading; accuracies are fractions.

    Attributes:
        alpha: Chosen on validation.
        curve: [{"alpha", "target_validation", "control_validation"}].
        target_pretrained: Zero-shot accuracy on test.
        target: On test, at alpha.
        control: Of the control task on test, at alpha.
        control_pretrained: On test, before.
        intact: Of the control task on validation, before.
        intervals: {"target", "control"}: Wilson's, on test.
        n: Test images of target and control.
        n_validation: The same of validation.
        keep: Share of the control that had to be left.
        control_task: Its name.
        record: All that was kept.
    """

    alpha: float
    curve: tuple[Mapping[str, float], ...]
    target_pretrained: float
    target: float
    control: float
    control_pretrained: float
    intact: float
    intervals: Mapping[str, Sequence[float]]
    n: tuple[int, int]
    n_validation: tuple[int, int]
    keep: float
    control_task: str
    record: Mapping[str, Any]


def kept(encoder: str) -> dict[str, dict[str, Forgotten]]:
    """Return what was measured of an encoder's newest task vectors.

    Args:
        encoder: Its name.

    Returns:
        By reading, then by task; only results of the vectors that are there now, the newest first,
        by the verb's own settings: whole splits, the usual control and share of it, a task at a
        time.
    """
    from engine.store import default_store

    items = catalogue.checkpoints()
    found: dict[str, dict[str, Forgotten]] = {reading: {} for reading in READINGS}
    now = {reading: _tau_digests(items, encoder, TRAINED[reading]) for reading in READINGS}
    for entry in default_store().find("result", what="negation", encoder=encoder):
        record = entry.meta["record"]
        reading = record["mode"]
        if not _is_usual(record):
            continue
        for task in record["tasks"]:
            if record["taus"][task] == now[reading].get(task):
                found[reading].setdefault(task, _forgotten(record, task))
    return found


def _is_usual(record: Mapping[str, Any]) -> bool:
    """Return whether a result answers what the page asks, and not another question."""
    from engine.evaluate import KEEP

    asked = (record["limit"], record["keep"], record["control_task"], record.get("method"))
    return asked == (None, KEEP, catalogue.task_names()[1], None)


def tasks(encoder: str) -> list[str]:
    """Return the tasks an encoder has vectors of, the miniature's first."""
    items = catalogue.checkpoints()
    both = [catalogue.newest(items, encoder, mode) for mode in catalogue.MODES]
    return list(dict.fromkeys(name for found in both for name in found))


def lacking(encoder: str, found: Mapping[str, Mapping[str, Forgotten]]) -> dict[str, list[str]]:
    """Return the tasks that could be measured and were not, by reading.

    Args:
        encoder: Its name.
        found: What :func:`kept` gave.
    """
    items = catalogue.checkpoints()
    control = catalogue.task_names()[1]
    lacks = {
        reading: [
            item.reference
            for name, item in catalogue.newest(items, encoder, TRAINED[reading]).items()
            if name not in found[reading] and name != control
        ]
        for reading in READINGS
    }
    return {reading: names for reading, names in lacks.items() if names}


def launch(encoder: str, lacks: Mapping[str, Sequence[str]]) -> list[str]:
    """Queue a job a reading that measures what lacks, unless one is at it already.

    Args:
        encoder: Its name.
        lacks: Of :func:`lacking`.

    Returns:
        Ids of the jobs.
    """
    queue = jobs.queue()
    at_work = {job.arguments: job.id for job in queue.list() if not job.finished}
    ids = []
    for reading, references in lacks.items():
        words = ("negation", "--encoder", encoder, "--mode", reading, "--tasks", *references)
        ids.append(at_work.get(words[1:]) or queue.submit(list(words)).id)
    return ids


def running() -> list:
    """Return the jobs that measure negation and are not over."""
    return [job for job in jobs.listed() if job.verb == "negation" and not job.finished]


def grid(
    found: Mapping[str, Mapping[str, Forgotten]], names: Sequence[str], titles: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the negation grid draws.

    Args:
        found: Of :func:`kept`; at least one cell.
        names: Tasks, a row each.
        titles: Of tasks and readings, by name.

    Returns:
        As ``negation_grid`` takes it, without "alpha"; only cells measured on the common stops.
    """
    cells = [cell for column in found.values() for cell in column.values()]
    alphas = [point["alpha"] for point in cells[0].curve]
    return {
        "alphas": alphas,
        "keep": cells[0].keep,
        "control": f"{titles[cells[0].control_task]} (control)",
        "readings": [{"key": reading, "title": titles[reading]} for reading in READINGS],
        "tasks": [
            {
                "name": name,
                "title": titles[name],
                "cells": {
                    reading: _drawn(column[name])
                    for reading, column in found.items()
                    if name in column and [p["alpha"] for p in column[name].curve] == alphas
                },
            }
            for name in names
        ],
    }


def rows(
    found: Mapping[str, Mapping[str, Forgotten]], names: Sequence[str], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the test figures as a table's rows.

    Args:
        found: Of :func:`kept`.
        names: Tasks, in order.
        titles: Of tasks and readings, by name.
    """
    return [
        {
            "task": titles[name],
            "reading": titles[reading],
            "alpha": cell.alpha,
            "zero-shot": cell.target_pretrained,
            "negated": cell.target,
            "negated low": cell.intervals["target"][0],
            "negated high": cell.intervals["target"][1],
            "control": cell.control,
            "control before": cell.control_pretrained,
            "n": cell.n[0],
            "n control": cell.n[1],
        }
        for name in names
        for reading, column in found.items()
        if (cell := column.get(name))
    ]


def made(found: Mapping[str, Mapping[str, Forgotten]]) -> dict[str, Any]:
    """Return what made the figures.

    Args:
        found: Of :func:`kept`.
    """
    records = {
        reading: [dict(record) for record in _records(column)] for reading, column in found.items()
    }
    return provenance(
        "task negation: alpha chosen on validation, accuracies on test", exact=True, records=records
    )


def _records(column: Mapping[str, Forgotten]) -> list[Mapping[str, Any]]:
    """Return the records behind some cells, each once."""
    seen = []
    for cell in column.values():
        if not any(cell.record is record for record in seen):
            seen.append(cell.record)
    return seen


def _drawn(cell: Forgotten) -> dict[str, Any]:
    return {
        "target": [point["target_validation"] for point in cell.curve],
        "control": [point["control_validation"] for point in cell.curve],
        "chosen": cell.alpha,
        "intact": cell.intact,
    }


def _tau_digests(items: list[catalogue.Checkpoint], encoder: str, mode: str) -> dict[str, str]:
    """Return the digest of the newest task vector of each task."""
    newest = catalogue.newest(items, encoder, mode)
    return {name: item.meta.get("tau_digest", item.digest) for name, item in newest.items()}


def _forgotten(record: Mapping[str, Any], task: str) -> Forgotten:
    row, control = record["tasks"][task], record["control_task"]
    return Forgotten(
        alpha=row["alpha"],
        curve=tuple(row["curve"]),
        target_pretrained=row["target_pretrained"],
        target=row["target"],
        control=row["control"],
        control_pretrained=record["control_pretrained"],
        intact=record["control_validation_pretrained"],
        intervals=row["intervals"],
        n=(record["n"][task], record["n"][control]),
        n_validation=(record["n_validation"][task], record["n_validation"][control]),
        keep=record["keep"],
        control_task=control,
        record=record,
    )
