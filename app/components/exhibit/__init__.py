"""A table of results whose cells say what they rest on, and that are run from where they lack."""

from collections.abc import Mapping
from typing import Any

from app.components.mounting import component, nothing

SCRIPTS = ("exhibit.js",)
STYLES = ("exhibit.css",)


def exhibit_table(data: Mapping[str, Any], key: str) -> Any:
    """Mount the table.

    Args:
        data: As ``app.compute.result_tables.table`` gives it.
        key: Of the component.

    Returns:
        The component's result; its ``run`` is the cell whose button was pressed, in one run.
    """
    return component("exhibit", "exhibit-table", SCRIPTS, STYLES)(
        key=key, data=data, on_run_change=nothing
    )
