"""Figures of the ring: waves are the eigenfunctions, and their energy is the same everywhere."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures import style


def energy(atoms: np.ndarray, table: np.ndarray, R: int, shown: Sequence[int] = (1, 3, 5)):
    """Draw some eigenfunctions and the local energy of the first R of them along the ring.

    Args:
        atoms: Eigenfunctions as columns, shape (N, N).
        table: Row R - 1 is the local energy of the first R, shape (>= R, N).
        R: How many.
        shown: Which eigenfunctions are drawn themselves.

    Returns:
        The figure; the task's half of the ring is shaded.
    """
    N = len(atoms)
    angle = (360 * np.arange(N) / N).tolist()
    figure = go.Figure()
    for place, k in enumerate(shown):
        figure.add_scatter(
            x=angle,
            y=atoms[:, k].tolist(),
            mode="lines",
            name=f"eigenfunction {k + 1}",
            line={"color": (style.SKY, style.PURPLE, style.GREEN)[place % 3], "width": 1.2},
            hovertemplate=f"eigenfunction {k + 1} at %{{x:.0f}}°: %{{y:.3f}}<extra></extra>",
        )
    figure.add_scatter(
        x=angle,
        y=table[R - 1].tolist(),
        mode="lines",
        name=f"local energy, R = {R}",
        line={"color": style.VERMILION, "width": 3},
        hovertemplate=f"local energy of the first {R} at %{{x:.0f}}°: %{{y:.3f}}<extra></extra>",
    )
    figure.add_vrect(
        0,
        180,
        fillcolor=style.GREY,
        opacity=0.14,
        line_width=0,
        annotation_text="task",
        annotation_position="bottom left",
    )
    style.layout(figure, 330, margin={"t": 66})
    figure.update_xaxes(title="place on the ring (degrees)", range=[0, 360], dtick=90)
    figure.update_yaxes(title="value (no unit)", zeroline=False)
    return figure


def eigenvalues(frequency: np.ndarray, curves: dict[str, np.ndarray]) -> go.Figure:
    """Draw what each Fourier atom takes of the kernel, against its frequency.

    Args:
        frequency: Of every atom, shape (N,).
        curves: Eigenvalues by kernel, each shape (N,).

    Returns:
        The figure; the vertical axis is logarithmic.
    """
    figure = go.Figure()
    looks = ((style.BLUE, "circle"), (style.ORANGE, "x"))
    for place, (name, values) in enumerate(curves.items()):
        colour, symbol = looks[place % 2]
        figure.add_scatter(
            x=frequency.tolist(),
            y=[float(value) if value > 0 else None for value in values],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 7},
            hovertemplate=f"{name}: frequency %{{x}}, %{{y:.3e}}<extra></extra>",
        )
    style.layout(figure, 330, margin={"t": 66})
    figure.update_yaxes(type="log", dtick=1, title="eigenvalue", exponentformat="power")
    figure.update_xaxes(title="frequency (turns)")
    return figure
