"""Figure of task negation: what is left of each task, reading by reading."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from app.figures import style

MARKS = (
    (style.BLUE, "diamond"),
    (style.PURPLE, "square"),
    (style.GREEN, "triangle-up"),
)


def negated(rows: Sequence[Mapping[str, Any]], readings: Sequence[str], caption: str) -> go.Figure:
    """Draw the accuracy left on each target task beside its zero-shot accuracy.

    Args:
        rows: {"task", "reading", "alpha", "zero-shot", "negated", "negated low", "negated high",
            "n"}; accuracies are fractions.
        readings: Titles, in the order of the marks.
        caption: Stands above the figure, so that a saved picture says what it shows.

    Returns:
        The figure; tasks are rows.
    """
    figure = go.Figure()
    before = {row["task"]: row["zero-shot"] for row in rows}
    figure.add_scatter(
        x=list(before.values()),
        y=list(before),
        mode="markers",
        name="zero-shot",
        marker={"color": style.ORANGE, "symbol": "circle", "size": 11, "line": {"width": 1}},
        hovertemplate="%{y}: zero-shot %{x:.1%}<extra></extra>",
    )
    for reading, (colour, symbol) in zip(readings, MARKS, strict=False):
        mine = [row for row in rows if row["reading"] == reading]
        if not mine:
            continue
        figure.add_scatter(
            x=[row["negated"] for row in mine],
            y=[row["task"] for row in mine],
            mode="markers",
            name=reading,
            marker={"color": colour, "symbol": symbol, "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [row["negated high"] - row["negated"] for row in mine],
                "arrayminus": [row["negated"] - row["negated low"] for row in mine],
                "thickness": 1.2,
                "width": 3,
                "color": style.GREY,
            },
            customdata=[(row["alpha"], row["n"]) for row in mine],
            hovertemplate="%{y}, " + reading + ": %{x:.1%} left at α = %{customdata[0]:.2f}, "
            "n = %{customdata[1]:,}<extra></extra>",
        )
    style.layout(
        figure,
        200 + 32 * len(before),
        margin={"t": 52, "r": 20},
        title={"text": caption, "font": {"size": 13}, "x": 0, "xanchor": "left"},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(style.percent_axis("top-1 accuracy on the target's test split (%)"))
    return figure
