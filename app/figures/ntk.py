"""Figures of the tangent kernel: where its eigenfunctions live, its spectrum, its layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures import style

FIRST, SECOND = style.BLUE, style.ORANGE  # the task's points, and those it is held against
ORDERS = ("sorted", "class", "drawn")
KINDS = ("ecdf", "histogram")
_BINS = 25
_ENERGY = "local energy (no unit)"


@dataclass(frozen=True, eq=False)
class Panel:
    """Local energy of two blocks of points under one encoder.

    Attributes:
        title: Stands above the panel.
        names: Of the two blocks, as a reader sees them.
        energy: One array a block, shape (L, points): a row a logit.
        labels: Class of every point, one array a block.
        classes: Class names, by block.
        place: Row and column in the grid, from 0.
    """

    title: str
    names: tuple[str, str]
    energy: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray, np.ndarray]
    classes: tuple[Sequence[str], Sequence[str]]
    place: tuple[int, int]


def order_of(energy: np.ndarray, labels: np.ndarray, order: str) -> np.ndarray:
    """Say in which order points are drawn.

    Args:
        energy: Mean over the logits, shape (points,).
        labels: Class of every point.
        order: "sorted" by energy from high to low; "class", and by energy within one; "drawn", as
            the points were.

    Returns:
        Indices, shape (points,).
    """
    if order == "sorted":
        return np.argsort(-energy, kind="stable")
    if order == "class":
        return np.lexsort((-energy, labels))
    return np.arange(len(energy))


def local_energy(
    panels: Sequence[Panel], order: str, logits: Sequence[str], bounded: bool = True
) -> go.Figure:
    """Draw local energy point by point, a thin line for each logit and their mean with a band.

    The band is one standard deviation over the logits to either side, not below 0.

    Args:
        panels: All with the same axes.
        order: One of :data:`ORDERS`.
        logits: What a reader sees of each row of the energies.
        bounded: Whether energies reach from 0 to 1; weighted ones do not.

    Returns:
        The figure.
    """
    figure = _grid(panels)
    for panel in panels:
        start = 0
        for block, colour in enumerate((FIRST, SECOND)):
            _draw_block(figure, panel, block, colour, start, order, logits)
            start += panel.energy[block].shape[1]
    for panel in panels:
        edge = panel.energy[0].shape[1] - 0.5
        figure.add_vline(
            edge, line={"color": style.GREY, "width": 1, "dash": "dot"}, **_cell(panel)
        )
    limits = {"range": [-0.03, 1.03], "dtick": 0.25} if bounded else {"rangemode": "tozero"}
    figure.update_yaxes(zeroline=False, **limits)
    figure.update_xaxes(showgrid=False)
    _label_edges(figure, panels, "point", _ENERGY)
    return figure


def _draw_block(figure, panel, block, colour, start, order, logits) -> None:
    """Draw one block's lines and band."""
    energy = panel.energy[block]
    mean, spread = energy.mean(axis=0), energy.std(axis=0)
    sequence = order_of(mean, panel.labels[block], order)
    x = (start + np.arange(len(sequence))).tolist()
    named = [
        f"{panel.classes[block][panel.labels[block][i]]}, point {i}" for i in sequence.tolist()
    ]
    first = panel.place == (0, 0)
    for row, logit in zip(energy, logits, strict=True):
        figure.add_scatter(
            x=x,
            y=row[sequence].tolist(),
            mode="lines",
            line={"color": colour, "width": 0.8},
            opacity=0.45,
            name=f"logit {logit}",
            showlegend=False,
            hoverinfo="skip",
            **_cell(panel),
        )
    low, high = np.maximum(mean - spread, 0)[sequence], (mean + spread)[sequence]
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high.tolist(), *low[::-1].tolist()],
        fill="toself",
        fillcolor=_faint(colour),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        **_cell(panel),
    )
    figure.add_scatter(
        x=x,
        y=mean[sequence].tolist(),
        mode="lines",
        line={"color": colour, "width": 2.4, "dash": "solid" if block == 0 else "dash"},
        name="task's points" if block == 0 else "control or held-out points",
        legendgroup=str(block),
        showlegend=first,
        customdata=np.stack([spread[sequence]], axis=1),
        text=named,
        hovertemplate=f"{panel.names[block]}: %{{text}}<br>local energy %{{y:.3f}}, standard "
        "deviation over logits %{customdata[0]:.3f}<extra></extra>",
        **_cell(panel),
    )


def densities(panels: Sequence[Panel], kind: str) -> go.Figure:
    """Draw how local energy is distributed in both blocks.

    Args:
        panels: All with the same axes; energies are averaged over the logits.
        kind: "ecdf", the share of points below each energy; "histogram", the share in each of 25
            equal bins.

    Returns:
        The figure.
    """
    figure = _grid(panels)
    for panel in panels:
        for block, colour in enumerate((FIRST, SECOND)):
            values = np.sort(panel.energy[block].mean(axis=0))
            shared = {
                "name": "task's points" if block == 0 else "control or held-out points",
                "legendgroup": str(block),
                "showlegend": panel.place == (0, 0),
                **_cell(panel),
            }
            if kind == "ecdf":
                share = np.arange(1, len(values) + 1) / len(values)
                figure.add_scatter(
                    x=[0.0, *values.tolist(), 1.0],
                    y=[0.0, *share.tolist(), 1.0],
                    mode="lines",
                    line={
                        "shape": "hv",
                        "color": colour,
                        "width": 2,
                        "dash": "solid" if block == 0 else "dash",
                    },
                    hovertemplate=f"{panel.names[block]}: %{{y:.1%}} at or below %{{x:.3f}}"
                    "<extra></extra>",
                    **shared,
                )
                continue
            counts, edges = np.histogram(values, bins=_BINS, range=(0, 1))
            figure.add_bar(
                x=((edges[1:] + edges[:-1]) / 2).tolist(),
                y=(counts / max(1, len(values))).tolist(),
                width=1 / _BINS,
                marker={"color": colour, "pattern": {"shape": "" if block == 0 else "/"}},
                opacity=0.7,
                hovertemplate=f"{panel.names[block]}: %{{y:.1%}} of points near %{{x:.2f}}"
                "<extra></extra>",
                **shared,
            )
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(range=[-0.02, 1.02], dtick=0.25, zeroline=False)
    limits = {"range": [-0.03, 1.05], "dtick": 0.25} if kind == "ecdf" else {"rangemode": "tozero"}
    figure.update_yaxes(tickformat=".0%", zeroline=False, **limits)
    title = "share at or below" if kind == "ecdf" else "share of points"
    _label_edges(figure, panels, _ENERGY, f"{title} (%)")
    return figure


def spectrum(
    curves: Mapping[str, np.ndarray],
    rank: Mapping[str, float],
    square: Mapping[str, np.ndarray] | None = None,
) -> go.Figure:
    """Draw singular values from large to small, each curve relative to its largest.

    Args:
        curves: By encoder: singular values of each logit's kernel, shape (L, R), largest first.
        rank: Effective rank of each, the mean over its logits: a vertical mark.
        square: By encoder: eigenvalues of the square kernel on the task's points, as ``curves``.

    Returns:
        The figure; the vertical axis is logarithmic.
    """
    figure = go.Figure()
    for place, (name, values) in enumerate(curves.items()):
        colour, dash = _encoder_look(place)
        share = values / np.maximum(values[:, :1], np.finfo(float).tiny)
        numbers = list(range(1, values.shape[1] + 1))
        for row in share:
            figure.add_scatter(
                x=numbers,
                y=_positive(row),
                mode="lines",
                line={"color": colour, "width": 0.7},
                opacity=0.4,
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=numbers,
            y=_positive(share.mean(axis=0)),
            mode="lines",
            line={"color": colour, "width": 2.4, "dash": dash},
            name=f"{name}, effective rank {rank[name]:.1f}",
            customdata=np.stack([values.mean(axis=0)], axis=1),
            hovertemplate=f"{name}: number %{{x}}, %{{y:.2e}} of the largest, "
            "%{customdata[0]:.3e}<extra></extra>",
        )
        figure.add_vline(rank[name], line={"color": colour, "width": 1.4, "dash": "dot"})
    for place, (name, values) in enumerate((square or {}).items()):
        share = values / np.maximum(values[:, :1], np.finfo(float).tiny)
        figure.add_scatter(
            x=list(range(1, values.shape[1] + 1)),
            y=_positive(share.mean(axis=0)),
            mode="lines",
            line={"color": _encoder_look(place)[0], "width": 1.6, "dash": "dashdot"},
            name=f"{name}, square kernel",
            hovertemplate=f"{name}, square kernel: number %{{x}}, %{{y:.2e}} of the largest"
            "<extra></extra>",
        )
    style.layout(figure, 340)
    figure.update_yaxes(type="log", dtick=1, title="value / the largest", exponentformat="power")
    figure.update_xaxes(title="number of the eigenfunction", rangemode="tozero")
    return figure


def layers(names: Sequence[str], shares: Mapping[str, Sequence[float]]) -> go.Figure:
    """Draw which part of the kernel's trace each layer makes, encoders side by side.

    Args:
        names: Layers from input to output.
        shares: By encoder: fractions that sum to 1.

    Returns:
        The figure.
    """
    figure = go.Figure()
    for place, (name, values) in enumerate(shares.items()):
        figure.add_bar(
            y=list(names),
            x=list(values),
            orientation="h",
            name=name,
            marker={
                "color": _encoder_look(place)[0],
                "pattern": {"shape": style.PATTERNS[place % len(style.PATTERNS)]},
            },
            hovertemplate=f"{name}, %{{y}}: %{{x:.2%}} of the trace<extra></extra>",
        )
    style.layout(figure, 120 + 30 * len(names), barmode="group")
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="share of the kernel's trace (%)", tickformat=".0%")
    return figure


def scores(
    rows: Sequence[str],
    values: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float]]],
) -> go.Figure:
    """Draw areas under the ROC curve with their intervals, a row a comparison.

    Args:
        rows: What is compared.
        values: By encoder, one a row.
        intervals: 95 % intervals of ``values``.

    Returns:
        The figure; one half, no separation, is marked.
    """
    figure = go.Figure()
    symbols = ("circle", "diamond", "square")
    for place, (name, points) in enumerate(values.items()):
        shift = 0.28 * (place - (len(values) - 1) / 2)
        figure.add_scatter(
            y=[row + shift for row in range(len(rows))],
            x=list(points),
            mode="markers",
            name=name,
            marker={"color": _encoder_look(place)[0], "symbol": symbols[place % 3], "size": 11},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - v for v, (_, high) in zip(points, intervals[name], strict=True)],
                "arrayminus": [
                    v - low for v, (low, _) in zip(points, intervals[name], strict=True)
                ],
                "thickness": 1.4,
                "width": 4,
            },
            text=list(rows),
            customdata=[list(pair) for pair in intervals[name]],
            hovertemplate=f"{name}, %{{text}}: %{{x:.3f}}, 95 % interval %{{customdata[0]:.3f}} to "
            "%{customdata[1]:.3f}<extra></extra>",
        )
    style.layout(figure, 120 + 52 * len(rows))
    figure.add_vline(0.5, line={"color": style.GREY, "width": 1.2, "dash": "dash"})
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.5],
        tickvals=list(range(len(rows))),
        ticktext=list(rows),
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(title="area under the ROC curve", range=[-0.02, 1.02], zeroline=False)
    return figure


def localization(
    tasks: Sequence[str],
    controls: Sequence[str],
    values: Sequence[Sequence[float | None]],
    halves: Sequence[Sequence[float | None]],
    hover: Sequence[Sequence[str]],
) -> go.Figure:
    """Draw the localization score of every pair.

    Args:
        tasks: Titles, a row each: whose points are the kernel's rows.
        controls: Titles, a column each.
        values: Scores in [0, 1]; None where the pair is not computed.
        halves: Half the width of each interval.
        hover: What each cell says.

    Returns:
        The figure.
    """
    text = [
        [
            "" if value is None else f"{value:.2f}<br>±{half:.2f}"
            for value, half in zip(row, wide, strict=True)
        ]
        for row, wide in zip(values, halves, strict=True)
    ]
    heatmap = style.matrix(
        [list(row) for row in values],
        text,
        list(controls),
        list(tasks),
        [list(row) for row in hover],
        colorscale=style.DIVERGING,
        zmin=0,
        zmax=1,
        showscale=False,
        textfont={"size": 11},
    )
    figure = style.layout(go.Figure(heatmap), 150 + 38 * len(tasks), margin={"t": 14})
    figure.update_yaxes(autorange="reversed", showgrid=False, title="task (rows of the kernel)")
    figure.update_xaxes(showgrid=False, tickangle=-35, title="control")
    return figure


def _grid(panels: Sequence[Panel]) -> go.Figure:
    """Return empty panels with their titles, all with the same axes."""
    rows = 1 + max(panel.place[0] for panel in panels)
    columns = 1 + max(panel.place[1] for panel in panels)
    titles = {panel.place: panel.title for panel in panels}
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.04,
        vertical_spacing=0.27 / rows,
        subplot_titles=[titles.get((r, c), "") for r in range(rows) for c in range(columns)],
    )
    style.layout(figure, 90 + 215 * rows, margin={"t": 78})
    figure.update_annotations(font={"size": 12.5})
    figure.update_layout(legend={"y": 1.0 + 48 / (215 * rows)})
    return figure


def _label_edges(figure: go.Figure, panels: Sequence[Panel], x: str, y: str) -> None:
    """Write axis titles at the grid's left and lower edge alone."""
    last = max(panel.place[0] for panel in panels)
    for panel in panels:
        row, column = panel.place
        if row == last:
            figure.update_xaxes(title=x, row=row + 1, col=column + 1)
        if column == 0 and row == last // 2:
            figure.update_yaxes(title=y, row=row + 1, col=1)


def _cell(panel: Panel) -> dict:
    return {"row": panel.place[0] + 1, "col": panel.place[1] + 1}


def _encoder_look(place: int) -> tuple[str, str]:
    """Return an encoder's colour and dash: the chosen one, the one beside it."""
    looks = ((style.GREEN, "solid"), (style.PURPLE, "dash"), (style.SKY, "dot"))
    return looks[place % len(looks)]


def _faint(colour: str) -> str:
    """Return a colour as a faint fill."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _positive(values: np.ndarray) -> list[float | None]:
    """Leave out what a logarithmic axis cannot show."""
    return [float(value) if value > 0 else None for value in values]
