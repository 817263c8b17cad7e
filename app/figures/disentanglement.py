"""Figures of disentanglement: a difference of maps, cross-sections, pairs; the maps' colours."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.colors import get_colorscale

from app.figures import style

# light is low, as in the paper's Figure 3
SCALE = "Cividis_r"
RED = "#E3000B"
# one reading, one line: colour, dash and mark all tell it
LINES = {
    "nonlinear": (style.VERMILION, "solid", "circle"),
    "posthoc": (style.BLUE, "dash", "square"),
    "linear": (style.GREEN, "dot", "diamond"),
}


def upper_end(tables: Sequence[np.ndarray]) -> float:
    """Choose the end of a colour range that several maps share.

    Args:
        tables: Values of xi, NaN where not computed.

    Returns:
        The largest value, rounded up to a quarter, at least 0.25.
    """
    seen = [table[~np.isnan(table)] for table in tables]
    most = max((part.max() for part in seen if part.size), default=0.0)
    return max(0.25, float(np.ceil(most * 4 - 1e-9) / 4))


def colours() -> list[tuple[float, str]]:
    """Return the stops of the colour scale of maps, each from 0 to 1 with its colour."""
    return [(float(at), colour) for at, colour in get_colorscale(SCALE)]


def difference(
    alphas: np.ndarray,
    values: np.ndarray,
    hover: Mapping[str, np.ndarray],
    titles: tuple[str, str],
    *,
    limits: tuple[float, float],
    chosen: tuple[float, float],
    lines: Sequence[str],
    title: str,
    height: int = 440,
) -> go.Figure:
    """Draw the difference of two maps, white where they agree.

    A heat-map's clicks never reach Streamlit. So the picture says nothing when pointed at, and a
    point lies invisibly on every cell: it carries the words and takes the clicks. ``maxdisplayed``
    keeps the browser from making a shape of each.

    Args:
        alphas: Of both axes, shape (G,).
        values: First minus second, shape (G, G).
        hover: Tables of that shape, named in ``lines``; the difference itself is "xi".
        titles: Of the two tasks.
        limits: What both axes show.
        chosen: The alphas in force.
        lines: What a cell says.
        title: Stands above the figure.
        height: Pixels.

    Returns:
        The figure; the colour range is symmetric.
    """
    most = upper_end([np.abs(values)])
    return _map(
        alphas,
        values,
        {"xi": values, **hover},
        titles,
        limits,
        chosen,
        lines,
        title,
        height,
        colorscale=style.DIVERGING,
        zmin=-most,
        zmax=most,
        colorbar=_bar("Δξ"),
    )


def cross_section(
    readings: Mapping[str, Mapping],
    axis_title: str,
    at: float,
    limits: tuple[float, float],
    title: str,
    height: int = 360,
) -> go.Figure:
    """Draw xi along one alpha while the other stands still.

    Args:
        readings: {"alphas", "xi", "low", "high", "title"} by reading; arrays of shape (G,).
        axis_title: Of the alpha that moves.
        at: Where it stands.
        limits: What the axis shows.
        title: Stands above the figure.
        height: Pixels.

    Returns:
        The figure: a line and its band a reading.
    """
    figure = go.Figure()
    for mode, line in readings.items():
        colour, dash, symbol = LINES[mode]
        known = ~np.isnan(line["xi"])
        x, xi = line["alphas"][known], line["xi"][known]
        low, high = line["low"][known], line["high"][known]
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=_faint(colour),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            mode="lines",
        )
        figure.add_scatter(
            x=x,
            y=xi,
            mode="lines+markers" if len(x) <= 41 else "lines",
            name=line["title"],
            line={"color": colour, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 6},
            customdata=np.stack([low, high], axis=-1) if len(x) else None,
            hovertemplate="α %{x:.2f}: ξ %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
            f"<extra>{line['title']}</extra>",
        )
    figure.add_vline(x=at, line={"color": style.GREY, "dash": "dot", "width": 1.5})
    figure.add_vrect(x0=0, x1=1, line={"color": RED, "width": 1}, layer="below")
    style.layout(
        figure,
        height,
        margin={"t": 62},
        title=_title(title),
        legend={"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"},
    )
    figure.update_xaxes(title=axis_title, range=list(limits), zeroline=False)
    figure.update_yaxes(title="ξ", rangemode="tozero", zeroline=False)
    return figure


def pairs(
    names: Sequence[str],
    xi: np.ndarray,
    terms: np.ndarray,
    n: Sequence[int],
    chosen: tuple[str, str],
    title: str,
    height: int = 520,
) -> go.Figure:
    """Draw xi of every pair of tasks at one alpha; a click on a cell is a pair.

    Args:
        names: Titles of the T tasks.
        xi: Shape (T, T), symmetric, NaN on the diagonal.
        terms: Shape (T, T): [a][b] on the images of a.
        n: Images, by task.
        chosen: Titles of the pair shown above.
        title: Stands above the figure.
        height: Pixels.

    Returns:
        The figure.
    """
    T = len(names)
    figure = go.Figure()
    shown = [[None if np.isnan(value) else float(value) for value in row] for row in xi]
    figure.add_trace(
        style.matrix(
            shown,
            [["" if value is None else f"{value:.2f}" for value in row] for row in shown],
            list(names),
            list(names),
            [["" for _ in names] for _ in names],
            colorscale=SCALE,
            zmin=0,
            zmax=upper_end([xi]),
            colorbar=_bar("ξ"),
        )
    )
    figure.data[0].update(hoverinfo="skip", hovertemplate=None, customdata=None)
    cells = [(a, b) for a in range(T) for b in range(T) if a != b and not np.isnan(xi[a, b])]
    figure.add_scatter(
        x=[names[b] for _, b in cells],
        y=[names[a] for a, _ in cells],
        mode="markers",
        marker={"color": "rgba(0,0,0,0)", "size": 20, "symbol": "square"},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=[[a, b, xi[a, b], terms[a, b], terms[b, a], n[a], n[b]] for a, b in cells],
        hovertemplate="%{y} with %{x}<br>ξ %{customdata[2]:.3f}<br>on %{y}: %{customdata[3]:.3f}, "
        "n = %{customdata[5]:,}<br>on %{x}: %{customdata[4]:.3f}, n = %{customdata[6]:,}"
        "<extra></extra>",
        showlegend=False,
    )
    if set(chosen) <= set(names):
        first, second = (list(names).index(title) for title in chosen)
        for x, y in ((first, second), (second, first)):
            corners = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
            figure.add_shape(type="rect", **corners, line={"color": RED, "width": 2.5})
    style.layout(
        figure,
        height,
        margin={"t": 62},
        title=_title(title),
        hovermode="closest",
        clickmode="event+select",
        dragmode=False,
        hoverdistance=60,
        showlegend=False,
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(tickangle=-40)
    return figure


def diagonal(
    readings: Mapping[str, Mapping], tasks: int, at: float, title: str, height: int = 360
) -> go.Figure:
    """Draw the error of all tasks at once against the alpha on all of them.

    Args:
        readings: {"alphas", "xi", "title"} by reading; arrays of shape (G,).
        tasks: How many tasks: xi lies between 0 and that.
        at: The alpha of the matrix.
        title: Stands above the figure.
        height: Pixels.

    Returns:
        The figure.
    """
    figure = go.Figure()
    for mode, line in readings.items():
        colour, dash, _ = LINES[mode]
        figure.add_scatter(
            x=line["alphas"],
            y=line["xi"],
            mode="lines",
            name=line["title"],
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate=f"α %{{x:.2f}}: ξ %{{y:.3f}} of {tasks}<extra>{line['title']}</extra>",
        )
    figure.add_vline(x=at, line={"color": style.GREY, "dash": "dot", "width": 1.5})
    style.layout(
        figure,
        height,
        margin={"t": 62},
        title=_title(title),
        legend={"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"},
    )
    figure.update_xaxes(title="α on every task vector", zeroline=False)
    figure.update_yaxes(title=f"ξ of all {tasks} tasks", rangemode="tozero", zeroline=False)
    return figure


def _map(
    alphas: np.ndarray,
    values: np.ndarray,
    tables: Mapping[str, np.ndarray],
    titles: tuple[str, str],
    limits: tuple[float, float],
    chosen: tuple[float, float],
    lines: Sequence[str],
    title: str,
    height: int,
    **heat,
) -> go.Figure:
    """Draw a map and what lies over it; Plotly's rows are the second alpha."""
    figure = go.Figure()
    figure.add_heatmap(x=alphas, y=alphas, z=values.T.astype(np.float32), hoverinfo="skip", **heat)
    x, y = np.meshgrid(alphas.astype(np.float32), alphas.astype(np.float32))
    known = ~np.isnan(values.T)  # rows are the second alpha
    columns = {key: place for place, key in enumerate(tables)}
    carried = np.stack([table.T[known] for table in tables.values()], axis=-1)
    words = "<br>".join(
        line.format(**{key: f"%{{customdata[{place}]:.3f}}" for key, place in columns.items()})
        for line in lines
    )
    figure.add_scatter(
        x=x[known],
        y=y[known],
        mode="markers",
        marker={"color": "rgba(0,0,0,0)", "size": 6, "symbol": "square", "maxdisplayed": 1},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=carried.astype(np.float32),
        hovertemplate=f"α₁ %{{x:.2f}}, α₂ %{{y:.2f}}<br>{words}<extra></extra>",
    )
    for colour, size in (("white", 4), (RED, 2)):
        figure.add_shape(type="rect", x0=0, x1=1, y0=0, y1=1, line={"color": colour, "width": size})
    # theta_0 and the chosen alphas, each first in white and then in black
    symbols = ["cross-thin", "circle-open"] * 2
    colours = ["white", "white", "black", "black"]
    figure.add_scatter(
        x=[0.0, chosen[0]] * 2,
        y=[0.0, chosen[1]] * 2,
        mode="markers",
        hoverinfo="skip",
        marker={
            "symbol": symbols,
            "size": 14,
            "color": colours,
            "line": {"color": colours, "width": [4.5, 4.5, 2, 2]},
        },
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
    )
    # margins are given, not sought: seeking them lays everything out several times
    figure.update_layout(
        height=height,
        margin={"l": 58, "r": 8, "t": 62, "b": 50, "pad": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 13},
        title=_title(title),
        hoverlabel={"namelength": -1},
        showlegend=False,
        hovermode="closest",
        clickmode="event+select",
        dragmode=False,
        hoverdistance=80,
    )
    edge = (limits[1] - limits[0]) / (2 * max(1, len(alphas) - 1))  # outer cells are drawn whole
    limits = (limits[0] - edge, limits[1] + edge)
    shared = {"range": list(limits), "zeroline": False, "showgrid": False, "automargin": False}
    figure.update_xaxes(title=f"α₁, {titles[0]}", title_standoff=6, **shared)
    figure.update_yaxes(title=f"α₂, {titles[1]}", title_standoff=6, **shared)
    return figure


def _bar(name: str) -> dict:
    return {"title": {"text": name}, "thickness": 12, "outlinewidth": 0, "len": 0.9}


def _title(text: str) -> dict:
    return {"text": text, "font": {"size": 13}, "x": 0, "xanchor": "left"}


def _faint(colour: str) -> str:
    """Turn "#RRGGBB" into the same colour, mostly transparent."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
