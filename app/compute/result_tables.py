"""An exhibit's table as the page draws it: words for every cell, one side or two and between."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.compute.results import KEPT, NOT_RUN, Pending, Side
from app.state import READINGS


def table(
    tables: Sequence,
    sides: Sequence[Side],
    published: Sequence,
    at_work: Mapping[tuple[str, ...], Pending],
    readings: Sequence[str],
    lacking: bool,
) -> dict[str, Any]:
    """Put a table into words.

    Args:
        tables: The same table of each side; None for a side that has none like it.
        sides: One, or two to be compared.
        published: Figures of the papers for the first side's own encoder.
        at_work: Jobs that are not over, by words.
        readings: Those to be shown; rows and columns of others are left out.
        lacking: Leave out rows that are complete.

    Returns:
        {"title", "columns": [{"title", "hint"}], "sides": [titles], "rows": [{"title", "cells":
        [{"sides": [cell, ..], "between": text, "published": text}]}]}, each cell {"text", "note",
        "hint", "state", "best", "run"}; "run" names a cell that can be run.
    """
    first = tables[0]
    hidden = set(READINGS) - set(readings)
    columns = [column for column in first.columns if column.name not in hidden]
    rows = []
    for row in first.rows:
        pairs = {c.name: [_cell(one, row.name, c.name) for one in tables] for c in columns}
        complete = all(_done(cell) for cells in pairs.values() for cell in cells)
        if row.name in hidden or (lacking and complete):
            continue
        rows.append((row, pairs))
    best = _best_ones(first, columns, rows)
    printed = {(item.row, item.column): item for item in published}
    return {
        "title": first.title,
        "columns": [{"title": _head(column), "hint": _hint(column)} for column in columns],
        "sides": [side.title for side in sides],
        "rows": [
            {
                "title": row.title,
                "cells": [
                    {
                        "sides": [
                            _words(cell, column, at_work, f"{place}/{row.name}/{column.name}")
                            | {"best": id(cell) in best}
                            for place, cell in enumerate(pairs[column.name])
                        ],
                        "between": _between(pairs[column.name], column),
                        "published": _printed(printed.get((row.name, column.name))),
                    }
                    for column in columns
                ],
            }
            for row, pairs in rows
        ],
    }


def cells(tables: Sequence) -> dict[str, Any]:
    """Return the cells that can be run, by the name they have in :func:`table`.

    Args:
        tables: As of :func:`table`.
    """
    return {
        f"{place}/{row.name}/{name}": cell
        for place, one in enumerate(tables)
        if one is not None
        for row in one.rows
        for name, cell in row.cells.items()
        if cell.state == NOT_RUN
    }


def rows(tables: Sequence, sides: Sequence[Side]) -> list[dict[str, Any]]:
    """Return a table as flat lines, for a file.

    Args:
        tables: As of :func:`table`.
        sides: Whose.
    """
    if len(sides) == 1:
        return tables[0].records()
    return [
        {"of": side.title, **line}
        for one, side in zip(tables, sides, strict=True)
        if one is not None
        for line in one.records()
    ]


def standing(filled) -> tuple[int, int]:
    """Return how many cells of an exhibit are there, and how many there are to be."""
    states = [
        cell.state for one in filled.tables for row in one.rows for cell in row.cells.values()
    ]
    return states.count(KEPT), states.count(KEPT) + states.count(NOT_RUN)


def _cell(one, row: str, column: str):
    """Return a side's cell; None where it has no such row."""
    rows = [] if one is None else [r for r in one.rows if r.name == row]
    return rows[0].cells.get(column) if rows else None


def _done(cell) -> bool:
    return cell is None or cell.state != NOT_RUN


def _best_ones(one, columns: Sequence, rows: Sequence[tuple[Any, Mapping]]) -> set[int]:
    """Return the ids of the best cells: among readings, or methods, never among tasks."""
    beside = [column for column in columns if column.name in READINGS]
    methods = one.name.split("-")[0] == "merging"
    if beside and not methods:  # readings stand side by side
        lines = [(beside[0].better, [pairs[column.name] for column in beside]) for _, pairs in rows]
    else:  # or one below the other, as methods do
        below = [pairs for row, pairs in rows if methods or row.name in READINGS]
        lines = [(column.better, [pairs[column.name] for pairs in below]) for column in columns]
    sets = [
        (better, [pair[place] for pair in pairs])
        for better, pairs in lines
        for place in range(len(pairs[0]) if pairs else 0)
    ]
    return {id(cell) for better, found in sets for cell in _best(better, found)}


def _best(better: str, found: Sequence) -> list:
    """Return the best of some cells, all equals; none where none is better."""
    kept = [cell for cell in found if cell is not None and cell.state == KEPT]
    if better not in ("up", "down") or len(kept) < 2:
        return []
    end = (max if better == "up" else min)(cell.value for cell in kept)
    return [cell for cell in kept if cell.value == end]


def _words(cell, column, at_work: Mapping, name: str) -> dict[str, Any]:
    """Put one cell into words."""
    blank = {"text": "–", "note": "", "hint": "", "state": "absent", "run": None}
    if cell is None or cell.state not in (KEPT, NOT_RUN):
        return blank
    if cell.state == KEPT:
        return {
            **blank,
            "text": _number(cell.value, column.unit),
            "note": _interval(cell, column.unit),
            "hint": _rests_on(cell),
            "state": "kept",
        }
    job = at_work.get(tuple(cell.words)) or next(
        (at_work[tuple(words)] for words in cell.before if tuple(words) in at_work), None
    )
    if job is not None:
        text = f"running {job.fraction:.0%}" if job.state == "running" else job.state
        return {**blank, "text": text, "state": "at work"}
    return {**blank, "text": "not run yet", "state": "not run", "run": name}


def _number(value: object, unit: str) -> str:
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{100 * value:.1f}" if unit == "fraction" else f"{value:.3g}"


def _interval(cell, unit: str) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f"{_number(cell.low, unit)} – {_number(cell.high, unit)}"


def _rests_on(cell) -> str:
    """Say what a number rests on."""
    parts = [f"95 % interval: {cell.interval}"] if cell.interval and cell.low is not None else []
    parts += [f"n = {cell.n:,}"] if cell.n else []
    if cell.seeds:
        parts.append("seed " + ", ".join(map(str, cell.seeds)))
    parts += [f"from {digest[:12]}" for digest in cell.sources[:3]]
    return "; ".join(parts)


def _between(pair: Sequence, column) -> str:
    """Write the second side minus the first, in points or as it is."""
    if len(pair) < 2 or any(cell is None or cell.state != KEPT for cell in pair):
        return ""
    values = [cell.value for cell in pair]
    if not all(isinstance(value, int | float) for value in values):
        return ""
    difference = values[1] - values[0]
    text = _number(abs(difference), column.unit)
    return f"{'−' if difference < 0 else '+'}{text}"


def _printed(item) -> str:
    return "" if item is None else item.published.printed


def _head(column) -> str:
    return column.title + (", %" if column.unit == "fraction" else "")


def _hint(column) -> str:
    return {"up": "more is better", "down": "less is better"}.get(column.better, "")
