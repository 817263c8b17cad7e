"""Figures of checkpoints: what is trained, the loss, and how task vectors lie to each other."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures import style


def accuracy_matrix(
    tasks: Sequence[str], modes: Sequence[str], values: Sequence[Sequence]
) -> go.Figure:
    """Draw test accuracies as tasks by modes.

    Args:
        tasks: What a reader sees, one a row.
        modes: Training modes.
        values: Fractions, tasks by modes; None where there is no checkpoint.

    Returns:
        The figure.
    """
    columns = [style.MODE_TITLES[mode] for mode in modes]
    hover = [
        [
            f"{title}, {column}: " + ("no checkpoint" if cell is None else f"{cell:.1%} on test")
            for column, cell in zip(columns, row, strict=True)
        ]
        for title, row in zip(tasks, values, strict=True)
    ]
    text = [["–" if cell is None else f"{100 * cell:.1f}" for cell in row] for row in values]
    heatmap = style.matrix(
        [list(row) for row in values],
        text,
        columns,
        list(tasks),
        hover,
        colorscale=style.SEQUENTIAL,
        zmin=0,
        zmax=1,
        colorbar={"title": "test<br>accuracy", "tickformat": ".0%", "thickness": 12},
    )
    figure = style.layout(go.Figure(heatmap), 60 + 34 * len(tasks), margin={"t": 30})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(side="top", showgrid=False, title="training mode, accuracy in %")
    return figure


def loss_curve(steps: Sequence[int], losses: Sequence[float]) -> go.Figure:
    """Draw a training loss in nats against the step."""
    line = go.Scatter(
        x=list(steps),
        y=list(losses),
        mode="lines+markers" if len(steps) < 60 else "lines",
        line={"color": style.BLUE, "width": 2},
        marker={"size": 5},
        hovertemplate="step %{x}: %{y:.4f} nats<extra></extra>",
    )
    figure = style.layout(go.Figure(line), 280, showlegend=False)
    figure.update_xaxes(title="step", rangemode="tozero")
    figure.update_yaxes(title="training loss (nats)", rangemode="tozero")
    return figure


def cosines(titles: Sequence[str], matrix: np.ndarray) -> go.Figure:
    """Draw the cosines between task vectors with their numbers."""
    text = [[f"{value:.2f}" for value in row] for row in matrix]
    hover = [
        [f"{a} and {b}: cosine {value:.4f}" for b, value in zip(titles, row, strict=True)]
        for a, row in zip(titles, matrix, strict=True)
    ]
    heatmap = style.matrix(
        matrix.tolist(),
        text,
        list(titles),
        list(titles),
        hover,
        colorscale=style.DIVERGING,
        zmin=-1,
        zmax=1,
        colorbar={"title": "cosine", "thickness": 12, "dtick": 0.5},
    )
    figure = style.layout(go.Figure(heatmap), 130 + 38 * len(titles), margin={"t": 14})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=-35)
    return figure


def norms(
    titles: Sequence[str], norm: np.ndarray, groups: Sequence[str], share: np.ndarray
) -> go.Figure:
    """Draw the norm of each task vector as a bar, parted by where in the network it is.

    Args:
        titles: One a task vector.
        norm: Euclidean norms, shape (T,).
        groups: Parts of the network.
        share: Part of the squared norm in each group, shape (T, groups): each bar is as long as
            the norm, its parts as the shares.

    Returns:
        The figure.
    """
    figure = go.Figure()
    rounds = len(style.CYCLE)
    for index, group in enumerate(groups):
        figure.add_bar(
            y=list(titles),
            x=(norm * share[:, index]).tolist(),
            orientation="h",
            name=group,
            marker={
                "color": style.CYCLE[index % rounds],
                "pattern": {"shape": style.PATTERNS[(index // rounds) % len(style.PATTERNS)]},
            },
            customdata=np.stack([share[:, index], norm], axis=1),
            hovertemplate=(
                f"%{{y}}, {group}: %{{customdata[0]:.1%}} of the squared norm; "
                "norm %{customdata[1]:.3f}<extra></extra>"
            ),
        )
    for title, value in zip(titles, norm, strict=True):
        figure.add_annotation(
            x=value, y=title, text=f"{value:.2f}", showarrow=False, xanchor="left", xshift=4
        )
    style.layout(
        figure,
        130 + 38 * len(titles),
        barmode="stack",
        margin={"t": 60},
        legend_traceorder="normal",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(
        title="Euclidean norm, parted by its square",
        range=[0, float(norm.max()) * 1.12 or 1.0],
    )
    return figure
