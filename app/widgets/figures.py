"""Figures and tables with what can be taken away of them."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = Sequence[Mapping[str, Any]] | Callable[[], Sequence[Mapping[str, Any]]]


def figure(
    figure: "go.Figure",
    name: str,
    rows: Rows,
    provenance: Mapping[str, Any],
    *,
    key: str,
    alt: str,
    **chart: Any,
) -> None:
    """Draw a figure with its downloads: CSV, JSON with provenance, and PNG or SVG in the browser.

    Args:
        figure: What to draw; its height is fixed.
        name: Of the files, without a suffix.
        rows: The numbers drawn, one dictionary a row; or what gives them, called at the click.
        provenance: What made them; it says "exact" or "approximate", n, digests and versions.
        key: Of the figure; its controls derive theirs from it.
        alt: What it shows, for those who do not see it.
        **chart: Further settings of ``st.plotly_chart``, as ``on_select``.
    """
    kind = st.session_state.get(f"{key}_kind", "png")
    config = chart_config(name, kind)
    st.plotly_chart(figure, key=key, theme="streamlit", config=config, alt=alt, **chart)
    with st.popover("Download", icon=":material/download:", key=f"{key}_download"):
        with st.container(horizontal=True):
            downloads(name, rows, provenance, key=key)
        st.segmented_control(
            "The camera above the figure saves",
            ("png", "svg"),
            default="png",
            required=True,
            format_func=str.upper,
            key=f"{key}_kind",
        )


def downloads(name: str, rows: Rows, provenance: Mapping[str, Any], *, key: str) -> None:
    """Draw the buttons for CSV and for JSON with provenance.

    Args:
        name: Of the files, without a suffix.
        rows: As of :func:`figure`; many of them are better given by a function.
        provenance: What made them.
        key: The controls derive theirs from it.
    """
    as_csv, as_json = (lambda: to_csv(rows())), (lambda: _record(rows(), provenance))
    if not callable(rows):
        as_csv, as_json = to_csv(rows), _record(rows, provenance)
    st.download_button(
        "CSV",
        as_csv,
        f"{name}.csv",
        "text/csv",
        key=f"{key}_csv",
        on_click="ignore",
    )
    st.download_button(
        "JSON",
        as_json,
        f"{name}.json",
        "application/json",
        key=f"{key}_json",
        on_click="ignore",
    )


def chart_config(name: str, kind: str) -> dict:
    """Say what a figure's toolbar offers: the camera alone, saving as PNG or SVG."""
    image = {"format": kind, "filename": name}
    if kind == "png":
        image["scale"] = 2  # sharp in print; an SVG needs none
    return {
        "displaylogo": False,
        "toImageButtonOptions": image,
        "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    }


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV, a column a key; what a row lacks stays empty.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.

    Args:
        rows: Values by head, all with the same heads.

    Returns:
        CSV with a head line; empty without rows.
    """
    text = io.StringIO()
    if rows:
        heads = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(text, fieldnames=heads, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _record(rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> str:
    return to_json({"rows": list(rows), "provenance": dict(provenance)})


def to_json(record: Mapping[str, Any]) -> str:
    """Write a record as JSON a person can read; NaN is refused."""
    return json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Disarm a text that would be a formula in a spreadsheet."""
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t"}:
        return f"'{value}"
    return value
