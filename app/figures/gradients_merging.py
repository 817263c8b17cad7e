"""Figures of merging early, of iterative merging, and of the bridge to disentanglement."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app.figures import style
from app.figures.gradients import below, cell, heading, look

# one mode, one line: colour, dash and mark all tell it
MODES = {
    "nonlinear": ("Non-linear", style.VERMILION, "solid", "circle"),
    "linear": ("Linear", style.GREEN, "dash", "diamond"),
}
METHODS = {
    "one-shot": ("one-shot merging", style.BLUE, "solid", "circle"),
    "ATM": ("iterative merging (ATM)", style.VERMILION, "dash", "diamond"),
    "joint": ("joint training", style.GREEN, "dot", "square"),
}


def early(
    lines: Mapping[str, Sequence[Mapping]],
    measure: str,
    axis: str,
    title: str,
    zeroshot: float | None,
) -> go.Figure:
    """Draw the mean accuracy of a merge against the epochs of each task before it.

    Args:
        lines: By mode, rows of ``early``, ascending in epochs.
        measure: Which key of a row; "absolute" has an interval.
        axis: Title of the vertical axis, with its unit.
        title: Stands above the figure.
        zeroshot: Mean zero-shot accuracy; None where the measure has none.

    Returns:
        The figure; epochs are on a logarithmic axis, a dotted line marks the last merge.
    """
    figure = go.Figure()
    epochs = sorted({row["epoch"] for rows in lines.values() for row in rows})
    for mode, rows in lines.items():
        name, colour, dash, symbol = MODES[mode]
        whiskers = None
        if measure == "absolute":
            whiskers = between(
                [row[measure] for row in rows],
                [row["low"] for row in rows],
                [row["high"] for row in rows],
            )
        figure.add_scatter(
            x=[row["epoch"] for row in rows],
            y=[row[measure] for row in rows],
            mode="lines+markers",
            name=name,
            line={"color": colour, "dash": dash, "width": 2.5},
            marker={"symbol": symbol, "size": 9},
            error_y=whiskers,
            customdata=[row["alpha"] for row in rows],
            hovertemplate="%{x} epochs, α = %{customdata:.3f}: %{y:.1%}<extra>" + f"{name}</extra>",
        )
        figure.add_scatter(
            x=[epochs[0], epochs[-1]],
            y=[rows[-1][measure]] * 2,
            mode="lines",
            line={"color": colour, "dash": "dot", "width": 1.2},
            hoverinfo="skip",
            showlegend=False,
        )
    if zeroshot is not None:
        figure.add_scatter(
            x=[epochs[0], epochs[-1]],
            y=[zeroshot] * 2,
            mode="lines",
            name="zero-shot",
            line={"color": style.ORANGE, "dash": "longdash", "width": 1.5},
            hovertemplate="zero-shot %{y:.1%}<extra></extra>",
        )
    style.layout(figure, 390, margin={"t": 52}, title=heading(title), legend=below(390))
    figure.update_xaxes(
        title="epochs of each task before the merge",
        type="log",
        tickvals=epochs,
        ticktext=[str(epoch) for epoch in epochs],
    )
    figure.update_yaxes(title=axis, tickformat=".0%", zeroline=False)
    return figure


def early_tasks(
    rows: Sequence[Mapping],
    titles: Mapping[str, str],
    zeroshot: Mapping[str, float],
    title: str,
) -> go.Figure:
    """Draw the merge's accuracy on each task, a mark for each number of epochs.

    Args:
        rows: Of ``early``, one mode, ascending in epochs.
        titles: Of the tasks, by name.
        zeroshot: Accuracy of theta_0, by name.
        title: Stands above the figure.

    Returns:
        The figure; tasks are rows, the first and the last merge have whiskers.
    """
    figure = go.Figure()
    names = list(titles.values())
    figure.add_scatter(
        x=[zeroshot[task] for task in titles],
        y=names,
        mode="markers",
        name="zero-shot",
        marker={"color": style.ORANGE, "symbol": "line-ns-open", "size": 14, "line": {"width": 3}},
        hovertemplate="%{y}: zero-shot %{x:.1%}<extra></extra>",
    )
    for place, row in enumerate(rows):
        colour, _, symbol = look(place)
        ends = place in (0, len(rows) - 1)
        parts = [row["tasks"][task] for task in titles]
        label = f"{row['epoch']} epoch{'s' if row['epoch'] > 1 else ''}"
        label += " (last)" if place == len(rows) - 1 else ""
        values = [part["accuracy"] for part in parts]
        low, high = [part["low"] for part in parts], [part["high"] for part in parts]
        figure.add_scatter(
            x=values,
            y=names,
            mode="markers",
            name=label,
            marker={"color": colour, "symbol": symbol, "size": 10 if ends else 7},
            error_x=between(values, low, high) if ends else None,
            customdata=list(zip(low, high, strict=True)),
            hovertemplate=f"%{{y}}, {label}: %{{x:.1%}} [%{{customdata[0]:.1%}}, "
            "%{customdata[1]:.1%}]<extra></extra>",
        )
    height = 220 + 34 * len(names)
    style.layout(figure, height, margin={"t": 52, "r": 16}, title=heading(title))
    figure.update_layout(legend=below(height))
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(style.percent_axis("merged top-1 accuracy on test (%)"))
    return figure


def iterative(
    methods: Mapping[str, Sequence[Mapping]], unit: str, measure: str, axis: str, title: str
) -> go.Figure:
    """Draw accuracy against compute: one-shot, iterative and joint.

    Args:
        methods: By method, rows {"epochs", "rounds", "evaluations", "absolute", "low", "high",
            "normalized"}.
        unit: Of the compute.
        measure: "absolute" or "normalized"; the first has an interval.
        axis: Title of the vertical axis, with its unit.
        title: Stands above the figure.

    Returns:
        The figure.
    """
    figure = go.Figure()
    for method, (name, colour, dash, symbol) in METHODS.items():
        rows = methods.get(method, ())
        known = [row for row in rows if row[measure] is not None]
        values = [row[measure] for row in known]
        whiskers = None
        if measure == "absolute":
            ends = ([row["low"] for row in known], [row["high"] for row in known])
            whiskers = between(values, *ends)
        figure.add_scatter(
            x=[row["evaluations"] for row in known],
            y=values,
            mode="lines+markers",
            name=name,
            line={"color": colour, "dash": dash, "width": 2.2},
            marker={"symbol": symbol, "size": 8},
            error_y=whiskers,
            customdata=[_effort(row) for row in known],
            hovertemplate=f"%{{customdata}}, %{{x:,.0f}} {unit}: %{{y:.1%}}<extra>{name}</extra>",
        )
    style.layout(figure, 390, margin={"t": 52}, title=heading(title), legend=below(390))
    figure.update_xaxes(title=unit, rangemode="tozero", zeroline=False, tickformat="~s")
    figure.update_yaxes(title=axis, tickformat=".0%", zeroline=False)
    return figure


def _effort(row: Mapping) -> str:
    """Say how far each task was trained, and how often it was merged."""
    rounds = row["rounds"]
    merges = "" if rounds is None else f", merged {rounds} time{'' if rounds == 1 else 's'}"
    return f"{row['epochs']:g} epochs{merges}"


def scatter(
    points: Sequence[Mapping],
    titles: Mapping[str, str],
    axes: tuple[tuple[str, str], tuple[str, str]],
    chosen: tuple[str, ...],
    title: str,
    *,
    diagonal: bool = False,
) -> go.Figure:
    """Draw a point for each pair and mode; a click chooses the pair.

    Args:
        points: {"pair", "mode", "predicted", "measured", "relative", "xi", "leak", "cosine"}.
        titles: Of the tasks, by name.
        axes: (key, title) of the horizontal axis and of the vertical one.
        chosen: The pair shown beside; its points are ringed.
        title: Stands above the figure.
        diagonal: Whether both axes are logarithmic with a line where they agree.

    Returns:
        The figure; each point carries its pair's and mode's names.
    """
    figure = go.Figure()
    (x, x_title), (y, y_title) = axes
    drawn = [point for point in points if point[x] is not None and point[y] is not None]
    if diagonal and drawn:
        ends = [point[key] for point in drawn for key in (x, y) if point[key] > 0]
        if ends:
            figure.add_scatter(
                x=[min(ends), max(ends)],
                y=[min(ends), max(ends)],
                mode="lines",
                name="prediction = measure",
                line={"color": style.GREY, "dash": "dot", "width": 2},
                hoverinfo="skip",
            )
    for mode, (name, colour, _, symbol) in MODES.items():
        mine = [point for point in drawn if point["mode"] == mode]
        if not mine:
            continue
        ringed = [set(point["pair"]) == set(chosen) for point in mine]
        figure.add_scatter(
            x=[point[x] for point in mine],
            y=[point[y] for point in mine],
            mode="markers",
            name=name,
            marker={
                "color": colour,
                "symbol": symbol,
                "size": [15 if ring else 10 for ring in ringed],
                "line": {
                    "color": ["#808080" if ring else colour for ring in ringed],
                    "width": [4 if ring else 0.5 for ring in ringed],
                },
            },
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
            customdata=[[*point["pair"], mode] for point in mine],
            text=[words(point, titles) for point in mine],
            hovertemplate=f"%{{text}}<extra>{name}</extra>",
        )
    style.layout(
        figure,
        430,
        margin={"t": 66},
        title=heading(title),
        legend=below(430),
        hovermode="closest",
        clickmode="event+select",
        dragmode=False,
    )
    kind = {"type": "log", "exponentformat": "power"} if diagonal else {"rangemode": "tozero"}
    figure.update_xaxes(title=x_title, zeroline=False, **kind)
    figure.update_yaxes(title=y_title, zeroline=False, **kind)
    return figure


def words(point: Mapping, titles: Mapping[str, str]) -> str:
    """Say all numbers of a point of the bridge, a line each."""
    first, second = (titles[task] for task in point["pair"])
    n = " + ".join(f"{point['n'][task]:,}" for task in point["pair"])
    predicted = "–" if point["predicted"] is None else f"{point['predicted']:.3e}"
    return "<br>".join([
        f"{first} with {second}, α = {point['alpha']:g}",
        f"predicted ‖E‖ {predicted}",
        f"measured ‖E‖ {point['measured']:.3e}",
        f"{point['relative']:.2%} of the merge’s displacement",
        f"ξ {point['xi']:.3f}, n = {n}",
    ])


def interference(
    matrix: Sequence[Sequence[float]],
    names: Sequence[str],
    chosen: tuple[str, ...],
    top: float,
    title: str,
) -> go.Figure:
    """Draw ||H_t g_t'|| / ||H_t g_t||: how much of a task's curvature another's gradient meets.

    Args:
        matrix: Row t, column t'.
        names: Titles of the tasks.
        chosen: Titles of the pair shown beside.
        top: Upper end of the colours, shared by the modes.
        title: Stands above the figure.

    Returns:
        The figure; the diagonal is 1.
    """
    few = len(names) <= 10
    figure = go.Figure(
        style.matrix(
            [list(row) for row in matrix],
            [[cell(value, ".2f") if few else "" for value in row] for row in matrix],
            list(names),
            list(names),
            [
                [
                    f"curvature of {a}<br>gradient of {b}<br>{row[j]:.4f}"
                    for j, b in enumerate(names)
                ]
                for a, row in zip(names, matrix, strict=True)
            ],
            colorscale="Cividis_r",
            zmin=0,
            zmax=top,
            colorbar={"title": {"text": "ratio"}, "thickness": 12, "outlinewidth": 0},
        )
    )
    if len(chosen) == 2 and set(chosen) <= set(names):
        first, second = (list(names).index(title) for title in chosen)
        for x, y in ((first, second), (second, first)):
            corners = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
            figure.add_shape(type="rect", **corners, line={"color": "#E3000B", "width": 2.5})
    style.layout(figure, 430, margin={"t": 52}, title=heading(title))
    figure.update_yaxes(autorange="reversed", title="curvature of t", tickfont={"size": 11})
    figure.update_xaxes(title="gradient of t′", tickangle=-40, tickfont={"size": 11})
    return figure


def between(
    values: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> dict[str, object]:
    """Give the settings of whiskers from low to high."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [top - value for value, top in zip(values, high, strict=True)],
        "arrayminus": [value - end for value, end in zip(values, low, strict=True)],
        "thickness": 1.2,
        "width": 3,
        "color": style.GREY,
    }
