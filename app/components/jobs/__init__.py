"""The table of jobs: rows are ticked at once in the browser, and the script answers right after.

Streamlit's own table holds a selection back for 150 ms before it tells the script; this one does
not, and knows rows by the jobs' names, so that a tick stays with its job wherever the row moves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.components.mounting import component, nothing

SCRIPTS = ("jobs.js",)
STYLES = ("jobs.css",)


def read_ticked(raw: object) -> tuple[list[str], float | None]:
    """Return the jobs that were ticked last, and when.

    Args:
        raw: ``st.session_state.get(key)``: {"ticked": {"ids": [...], "at": number}} or None.

    Returns:
        Their names and the browser's time of it; none and None where nothing well-formed was said.
    """
    said = raw.get("ticked") if isinstance(raw, Mapping) else None
    ids, at = (said.get("ids"), said.get("at")) if isinstance(said, Mapping) else (None, None)
    if not isinstance(ids, list) or isinstance(at, bool) or not isinstance(at, int | float):
        return [], None
    return [name for name in ids if isinstance(name, str)], at


def jobs_table(
    columns: Sequence[Mapping[str, str]],
    rows: Sequence[Mapping[str, Any]],
    chosen: Sequence[str],
    heard: float | None,
    key: str,
) -> None:
    """Mount the table; the script runs again whenever a tick changes.

    Args:
        columns: {"title", "kind"}; kind is "text", "number" or "progress" (a fraction).
        rows: {"id", "cells": [[text, value to sort by or None], ...]}, a cell a column.
        chosen: Names of the rows that are ticked.
        heard: The time of the tick that ``chosen`` answers: the browser holds on to later ones.
        key: Of the component; its raw state is ``st.session_state[key]``, for ``read_ticked``.
    """
    data = {"columns": list(columns), "rows": list(rows), "chosen": list(chosen), "heard": heard}
    component("jobs", "jobs-table", SCRIPTS, STYLES)(key=key, data=data, on_ticked_change=nothing)
