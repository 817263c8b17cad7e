"""Figures of task vectors against gradients: errors against the rate, shares, cosines."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app.figures import style

# what an error line is called, its colour, dash and mark
ERRORS = {
    "raw": ("‖τ + ηKg‖, raw", style.VERMILION, "solid", "circle"),
    "corrected": ("with the Hessian term", style.BLUE, "solid", "diamond"),
    "bound_posteriori": ("bound along the path, estimated β", style.PURPLE, "dash", "square"),
    "bound_priori": ("bound before the path, estimated β", style.GREY, "dot", "x"),
}
SLOPES = {"raw": "slope_raw", "corrected": "slope_corrected"}
NORM = "error ‖·‖₂ (units of the weights)"


def errors(found: Mapping, rates: Sequence[float], floor: float | None, title: str) -> go.Figure:
    """Draw how far tau is from -eta K g against the rate, on logarithmic axes.

    Args:
        found: {"raw", "corrected", "bound_posteriori", "bound_priori": a value a rate or None,
            "slope_raw", "slope_corrected": number or None}.
        rates: Learning rates, ascending.
        floor: What rounding alone leaves; None where it is not known.
        title: Stands above the figure, so that a saved picture says what it shows.

    Returns:
        The figure; fitted slopes stand in the legend.
    """
    figure = go.Figure()
    for key, (name, colour, dash, symbol) in ERRORS.items():
        slope = found.get(SLOPES.get(key, ""))
        if key in SLOPES:
            name += ": slope not fitted" if slope is None else f": slope {slope:.2f}"
        figure.add_scatter(
            x=list(rates),
            y=positive(found[key]),
            mode="lines+markers",
            name=name,
            line={"color": colour, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 8},
            hovertemplate=f"η %{{x:.3g}}: %{{y:.3e}}<extra>{name}</extra>",
        )
    if floor:
        figure.add_scatter(
            x=[rates[0], rates[-1]],
            y=[floor, floor],
            mode="lines",
            name="rounding floor",
            line={"color": style.GREEN, "dash": "dot", "width": 2},
            hovertemplate="rounding floor %{y:.3e}<extra></extra>",
        )
    style.layout(figure, 430, margin={"t": 52}, title=heading(title), legend=BELOW)
    marks = list(rates) if len(rates) <= 8 else list(rates)[:: len(rates) // 6]
    figure.update_xaxes(
        title="learning rate η",
        type="log",
        tickvals=marks,
        ticktext=[f"{rate:.3g}" for rate in marks],
    )
    figure.update_yaxes(title=NORM, type="log", exponentformat="power")
    return figure


def layers(found: Mapping[str, Mapping[str, float | None]], title: str) -> go.Figure:
    """Draw how large the error is in each layer, against how far the layer moved.

    Args:
        found: By layer: {"raw", "corrected"}: error over displacement, or None.
        title: Stands above the figure.

    Returns:
        The figure; layers are rows, the axis is logarithmic.
    """
    figure = go.Figure()
    for key in SLOPES:
        name, colour, _, symbol = ERRORS[key]
        figure.add_scatter(
            x=positive([found[layer][key] for layer in found]),
            y=list(found),
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate=f"%{{y}}: %{{x:.3e}}<extra>{name}</extra>",
        )
    height = 170 + 22 * len(found)
    style.layout(figure, height, margin={"t": 52}, title=heading(title), legend=below(height))
    figure.update_yaxes(autorange="reversed", tickfont={"size": 11})
    figure.update_xaxes(title="error / ‖τ‖ of the layer", type="log", exponentformat="power")
    return figure


def by_epoch(
    lines: Mapping[str, Sequence[float | None]],
    axis: str,
    title: str,
    *,
    first: int = 1,
    level: tuple[float, str] | None = None,
    share: bool = False,
    height: int = 380,
) -> go.Figure:
    """Draw a line a task against the epochs.

    Args:
        lines: By title of the task, a value an epoch.
        axis: Title of the vertical axis, with its unit.
        title: Stands above the figure.
        first: The first value's epoch.
        level: A height to compare with, and its name.
        share: Whether values are fractions, shown as per cent.
        height: Pixels.

    Returns:
        The figure.
    """
    figure = go.Figure()
    form = ".1%" if share else ".4f"
    for place, (name, values) in enumerate(lines.items()):
        colour, dash, symbol = look(place)
        figure.add_scatter(
            x=list(range(first, first + len(values))),
            y=list(values),
            mode="lines+markers",
            name=name,
            line={"color": colour, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 7},
            hovertemplate=f"%{{y:{form}}}<extra>{name}, epoch %{{x}}</extra>",
        )
    if level is not None:
        ends = [first, first + max(len(values) for values in lines.values()) - 1]
        figure.add_scatter(
            x=ends,
            y=[level[0]] * 2,
            mode="lines",
            name=level[1],
            line={"color": style.GREY, "dash": "dot", "width": 2},
            hovertemplate=f"{level[1]}: %{{y:{form}}}<extra></extra>",
        )
    legend = below(height, 0.2)
    style.layout(figure, height, margin={"t": 52}, title=heading(title), legend=legend)
    most = max(len(values) for values in lines.values())
    figure.update_xaxes(
        title="epoch", tickformat="d", zeroline=False, dtick=1 if most < 13 else None
    )
    figure.update_yaxes(title=axis, zeroline=False, tickformat=".0%" if share else None)
    if share:
        figure.update_yaxes(rangemode="tozero")
    return figure


FIRST = {
    "displacement_share": ("displacements ‖θᵏ − θᵏ⁻¹‖", style.BLUE, "circle"),
    "gradient_share": ("gradients ‖g‖ where the epoch begins", style.VERMILION, "diamond"),
    "used_gradient_share": ("mean gradient its steps took", style.GREEN, "square-open"),
}


def first_shares(found: Mapping[str, Mapping], uniform: float, title: str) -> go.Figure:
    """Draw the first epoch's share of all norms, a row a task.

    Args:
        found: By title of the task, with the keys of ``FIRST``, a list by epoch each.
        uniform: 1 / K.
        title: Stands above the figure.

    Returns:
        The figure.
    """
    figure = go.Figure()
    for key, (name, colour, symbol) in FIRST.items():
        figure.add_scatter(
            x=[part[key][0] for part in found.values()],
            y=list(found),
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 10, "line": {"width": 1.5}},
            hovertemplate=f"%{{y}}: %{{x:.1%}}<extra>{name}</extra>",
        )
    return _shares(figure, uniform, title, max(340, 200 + 24 * len(found)))


def layer_shares(found: Mapping[str, float], uniform: float, title: str) -> go.Figure:
    """Draw the first epoch's share of each layer's displacements, a row a layer.

    Args:
        found: Share by layer.
        uniform: 1 / K.
        title: Stands above the figure.

    Returns:
        The figure.
    """
    name, colour, symbol = FIRST["displacement_share"]
    figure = go.Figure(
        go.Scatter(
            x=list(found.values()),
            y=list(found),
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    return _shares(figure, uniform, title, max(420, 190 + 20 * len(found)))


def _shares(figure: go.Figure, uniform: float, title: str, height: int) -> go.Figure:
    """Lay out first shares: rows from the top, the uniform share as a line."""
    figure.add_vline(
        uniform,
        line={"color": style.GREY, "dash": "dot", "width": 2},
        annotation={"text": f"uniform {uniform:.1%}", "font": {"size": 12}},
        annotation_position="top",
    )
    style.layout(figure, height, margin={"t": 66}, title=heading(title), legend=below(height))
    figure.update_yaxes(autorange="reversed", tickfont={"size": 11})
    figure.update_xaxes(
        title="share of the first epoch (%)", tickformat=".0%", rangemode="tozero", zeroline=False
    )
    return figure


def cosines(
    matrix: Sequence[Sequence[float | None]], names: Sequence[str], title: str, axis: str = ""
) -> go.Figure:
    """Draw a matrix of cosines from -1 to 1.

    Args:
        matrix: Square.
        names: Of rows and columns.
        title: Stands above the figure.
        axis: Title of both axes.

    Returns:
        The figure; numbers stand in the cells while they are few.
    """
    few = len(names) <= 10
    figure = go.Figure(
        style.matrix(
            [list(row) for row in matrix],
            [[cell(value, ".2f") if few else "" for value in row] for row in matrix],
            list(names),
            list(names),
            [
                [f"{a} · {b}<br>cosine {cell(matrix[i][j], '.4f')}" for j, b in enumerate(names)]
                for i, a in enumerate(names)
            ],
            colorscale=style.DIVERGING,
            zmin=-1,
            zmax=1,
            colorbar={"title": {"text": "cosine"}, "thickness": 12, "outlinewidth": 0},
        )
    )
    style.layout(figure, 420, margin={"t": 52}, title=heading(title))
    figure.update_yaxes(autorange="reversed", title=axis, type="category", tickfont={"size": 11})
    figure.update_xaxes(title=axis, type="category", tickangle=-40, tickfont={"size": 11})
    return figure


def cell(value: float | None, form: str) -> str:
    """Write a number of a matrix; a missing one is an en dash, never zero."""
    return "–" if value is None else format(value, form)


def look(place: int) -> tuple[str, str, str]:
    """Give a line its colour, dash and mark: no two of the first forty agree in all."""
    dashes = ("solid", "dash", "dot", "dashdot", "longdash")
    symbols = ("circle", "diamond", "square", "triangle-up", "x", "cross", "star", "pentagon")
    rounds = place // len(style.CYCLE)
    return style.CYCLE[place % 8], dashes[(place + rounds) % 5], symbols[place % 8]


def positive(values: Sequence[float | None]) -> list[float | None]:
    """Keep what a logarithmic axis can show."""
    return [value if value is not None and value > 0 else None for value in values]


def heading(text: str) -> dict:
    """Give the settings of a title within the figure."""
    return {"text": text, "font": {"size": 13}, "x": 0, "xanchor": "left"}


def below(height: int, least: float = 0.0) -> dict:
    """Put the legend under the axis: above, it would run into the title on a narrow screen."""
    return {"orientation": "h", "x": 0, "y": -max(62 / (height - 120), least), "yanchor": "top"}


BELOW = below(430)
