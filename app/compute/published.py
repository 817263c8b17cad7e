"""What the papers report, beside what is measured here and never among it."""

from itertools import groupby
from typing import Any


def gradients() -> tuple[str, list[tuple[str, list[dict[str, Any]]]]]:
    """Return what "On Task Vectors and Gradients" reports.

    Returns:
        How and on what it was measured, a sentence; and tables, each what it shows and its rows,
        whose figures are as printed, in per cent.
    """
    from engine.exhibits import published
    from engine.exhibits.published import protocol

    figures = published("gradients")
    about = protocol(figures[0].source)
    said = f"{about['title']}, arXiv:{about['paper']}, {figures[0].where}: {about['protocol']}"
    tables = []
    for note, group in groupby(figures, key=lambda figure: figure.note):
        rows: dict[str, dict[str, Any]] = {}
        for figure in group:
            row = rows.setdefault(figure.row, {"": figure.row})
            row[f"{figure.column.replace('_', ' ')}, %"] = figure.printed
        tables.append((note, list(rows.values())))
    return said, tables
