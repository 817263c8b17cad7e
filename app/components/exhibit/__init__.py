"""A table of results whose cells say what they rest on, and that are run from where they lack."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

SCRIPTS = ("../alpha/elements.js", "exhibit.js")


def exhibit_table(data: Mapping[str, Any], key: str) -> Any:
    """Mount the table.

    Args:
        data: As ``app.compute.result_tables.table`` gives it.
        key: Of the component.

    Returns:
        The component's result; its ``run`` is the cell whose button was pressed, in one run.
    """
    return _component()(key=key, data=data, on_run_change=_nothing)


def _nothing() -> None:
    """Stand in for a callback: an event without one is not returned by Streamlit."""


@cache
def _component() -> Callable:
    """Return the component, registered once."""
    folder = Path(__file__).parent
    return st.components.v2.component(
        "tauscope_exhibit",
        html='<div class="tauscope-exhibit" data-testid="exhibit-table"></div>',
        css=(folder / "exhibit.css").read_text(encoding="utf-8"),
        js="\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
    )
