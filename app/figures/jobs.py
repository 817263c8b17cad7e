"""Figures of fine-tuning runs as they go: loss and validation accuracy, several runs together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from app.figures import style

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star")
HEIGHT = 300
MARKED = 60  # points up to which each has a mark


@dataclass(frozen=True)
class Curve:
    """One run's log, as far as it is written.

    Attributes:
        name: What a reader sees.
        points: {"step", "loss", "validation"}; what a point lacks is not drawn.
        steps: How long the run will be, where that is known.
    """

    name: str
    points: Sequence[Mapping[str, float]]
    steps: int | None = None


def loss_curves(curves: Sequence[Curve]) -> go.Figure:
    """Draw training losses in nats against the step."""
    figure = _lines(curves, "loss", "%{y:.4f} nats", marks=False)
    figure.update_yaxes(title="training loss (nats)", rangemode="tozero")
    return figure


def validation_curves(curves: Sequence[Curve]) -> go.Figure:
    """Draw accuracies on the validation split against the step."""
    figure = _lines(curves, "validation", "%{y:.1%}", marks=True)
    figure.update_yaxes(style.percent_axis("validation accuracy (%)"))
    return figure


def _lines(curves: Sequence[Curve], field: str, value: str, *, marks: bool) -> go.Figure:
    """Draw one quantity of every run: colour, dash and mark each tell them apart."""
    figure = go.Figure()
    for place, curve in enumerate(curves):
        points = [point for point in curve.points if point.get(field) is not None]
        figure.add_scatter(
            x=[point["step"] for point in points],
            y=[point[field] for point in points],
            name=curve.name,
            mode="lines+markers" if marks or len(points) <= MARKED else "lines",
            line={
                "color": style.CYCLE[place % len(style.CYCLE)],
                "dash": DASHES[place % len(DASHES)],
                "width": 2,
            },
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 9 if marks else 5},
            hovertemplate=f"{curve.name}, step %{{x:,}}: {value}<extra></extra>",
        )
    many = len(curves) > 1
    style.layout(
        figure,
        HEIGHT + 22 * (len(curves) if many else 0),
        showlegend=many,
        # below and in a column: names are long, and a phone is narrow
        legend={"orientation": "v", "x": 0, "y": -0.24, "yanchor": "top"},
        uirevision="runs",  # a zoom outlives the next point
        margin={"t": 14},
    )
    longest = max((curve.steps or 0 for curve in curves), default=0)
    # as long as the run will be, so that the axis stands still while the line grows
    settings = {"range": [0, longest * 1.02]} if longest else {"rangemode": "tozero"}
    figure.update_xaxes(title="step", **settings)
    return figure
