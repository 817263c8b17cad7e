"""The exhibit of local energies: where the tangent kernel's eigenfunctions live."""

from dataclasses import dataclass
from typing import Any

from engine.exhibits.cells import Parts
from engine.exhibits.definitions import LOGITS, POINTS
from engine.exhibits.exhibit import KEPT, NOT_RUN, Cell, Exhibit, Figure, Row, Run, Table
from engine.exhibits.standing import Standing
from engine.ntk import ARRANGEMENTS, energy_entries, read_energy
from engine.store import Entry
from engine.tasks import Task

BACKWARD = 3.0  # forward passes that one point's Jacobian of one logit costs, about


@dataclass(frozen=True)
class _Found:
    """Local energy of a task against the control, or what makes it."""

    task: Task
    run: Run
    scores: dict[str, Any] | None
    entry: Entry | None


def energy(held: Standing, exhibit: Exhibit, random: Standing) -> Parts:
    """Fill Figures 6, 15 and 16: every task against the control, of the encoder and its twin.

    Args:
        held: Of the encoder.
        exhibit: What is filled.
        random: Of the randomly initialised twin; the encoder itself if it is random.

    Returns:
        A table of areas and a figure a twin, and the runs.
    """
    found = {held.encoder: [_found(held, task) for task in held.tasks.values()]}
    if random.encoder != held.encoder:
        found[random.encoder] = [_found(random, task) for task in random.tasks.values()]
    names = {"energy": (held, "Figures 6 and 15"), "energy-random": (random, "Figure 16")}
    tables, figures = [], []
    for name, (standing, where) in names.items():
        if name == "energy" or random.encoder != held.encoder:
            items = found[standing.encoder]
            rows = tuple(Row(item.task.name, item.task.title, _cells(item)) for item in items)
            title = f"{standing.encoder}, {held.control.title.lower()} as control"
            tables.append(Table(name, title, exhibit.columns, rows))
            figures.append(_figure(name, where, standing, items))
    runs = tuple(item.run for items in found.values() for item in items)
    return tuple(tables), tuple(figures), runs


def _found(held: Standing, task: Task) -> _Found:
    """Look up the newest local energy of a task with the paper's number of points."""
    typed = [t.name if t.source == "miniature" else t.source for t in (task, held.control)]
    words = (
        "ntk", "--encoder", held.encoder, "--task", typed[0], "--control", typed[1],
        "--points", str(POINTS), "--logits", str(LOGITS), "--precision", "float32",
    )  # fmt: skip
    title, asked = f"local energy, {held.encoder}, {task.name}", {"encoder": held.encoder}
    if held.digest:
        asked |= {"encoder_digest": held.digest}
    for entry in energy_entries(held.store, task=task.name, points=POINTS, **asked):
        energies = entry.meta["record"]["energies"]
        if held.control.name in energies:
            run = Run(words, title, KEPT, 0, None, (), (entry.digest,))
            return _Found(task, run, energies[held.control.name]["scores"], entry)
    # three blocks of points, each with its Jacobians
    passes = round(3 * POINTS * (1 + BACKWARD * LOGITS))
    return _Found(task, Run(words, title, NOT_RUN, passes), None, None)


def _cells(item: _Found) -> dict[str, Cell]:
    """Return the area of each arrangement of the columns."""
    if item.scores is None:
        return dict.fromkeys(ARRANGEMENTS, Cell(NOT_RUN, words=item.run.words))
    return {
        name: Cell(
            KEPT,
            item.scores[name]["auc"],
            *item.scores[name]["auc_interval"],
            interval="DeLong, points",
            n=POINTS,
            sources=item.run.sources,
        )
        for name in ARRANGEMENTS
    }


def _figure(name: str, where: str, held: Standing, items: list[_Found]) -> Figure:
    """Return the energy of every point: task, then control, a line a logit."""
    panels = [_panel(held, item) for item in items]
    sources = tuple(dict.fromkeys(s for item in items for s in item.run.sources))
    title = f"Local energy, {held.encoder}, as the paper draws it ({where})"
    return Figure(name, title, "energy", {"panels": panels}, sources)


def _panel(held: Standing, item: _Found) -> dict[str, Any]:
    """Return one panel's lines."""
    panel: dict[str, Any] = {
        "title": item.task.title,
        "task": item.task.name,
        "control": held.control.name,
        "task_energy": None,
        "control_energy": None,
        "logits": [],
        "words": list(item.run.words) if item.entry is None else [],
    }
    if item.entry is not None:
        found = read_energy(held.store, item.entry, held.control.name)
        panel |= {
            "task_energy": _short(found.task_energy().tolist()),
            "control_energy": _short(found.control_energy().tolist()),
            "logits": list(found.logits),
        }
    return panel


def _short(lines: list[list[float]]) -> list[list[float]]:
    """Round to what float16, in which energies are kept, can tell apart."""
    return [[round(value, 4) for value in line] for line in lines]
