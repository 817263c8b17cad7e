"""Plain text for a terminal: tables, sizes, percentages, progress on the error stream."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

NUMBER = re.compile(r"-|[-+]?[\d,]*\.?\d+(e[-+]?\d+)?( MB)?")


class Outcome(NamedTuple):
    """What a verb answers: ``record`` for ``--json``, ``text`` for a reader."""

    record: dict
    text: str


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Set rows in columns: text to the left, numbers to the right.

    Args:
        heads: One head a column.
        rows: Cells; floats are written as they come, so round or format them first.

    Returns:
        Lines of equal columns, without a final newline.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    numeric = [
        bool(rows) and all(_is_number(row[column]) for row in cells) for column in range(len(heads))
    ]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join(line(row) for row in [list(heads), *cells])


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number, with or without unit, or the dash of a missing one."""
    return NUMBER.fullmatch(cell) is not None


def percent(fraction: float | None) -> str:
    """Return a fraction in [0, 1] as per cent with one decimal; "-" for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def duration(seconds: float | None) -> str:
    """Write a duration: "8 s", "3 min 20 s", "2 h 05 min"; "-" for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def megabytes(size: int) -> str:
    """Return bytes as megabytes (10^6) with one decimal."""
    return f"{size / 1e6:.1f} MB"


def say(message: str) -> None:
    """Write one line of progress on the error stream, so that standard output stays the answer."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def paced(seconds: float = 2.0) -> Callable[[str, bool], None]:
    """Make a ``say`` that speaks at most once in so many seconds.

    Args:
        seconds: The least time between two lines.

    Returns:
        ``speak(message, now)``: drops the message when it comes too soon, unless ``now``.
    """
    spoken = -float("inf")

    def speak(message: str, now: bool = False) -> None:
        nonlocal spoken
        if now or time.monotonic() - spoken >= seconds:
            spoken = time.monotonic()
            say(message)

    return speak
