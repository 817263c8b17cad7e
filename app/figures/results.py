"""Figures of the papers' exhibits, from their plain values: bars, points, lines, maps, energies."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures import style

# the same reading has the same colour and mark as in the report
LOOKS = {
    "pretrained": (style.ORANGE, "circle"),
    "nonlinear": (style.BLUE, "diamond"),
    "posthoc": (style.PURPLE, "square"),
    "linear": (style.GREEN, "triangle-up"),
}
OTHERS = ("circle", "x", "star", "cross", "hexagon", "triangle-down")
MAPS = "Cividis_r"
MODES = ("nonlinear", "posthoc", "linear")


def draw(kind: str, data: Mapping[str, Any], title: str) -> go.Figure:
    """Draw a figure of an exhibit.

    Args:
        kind: "bars", "points", "lines", "maps" or "energy".
        data: As docs/design.md says; fractions, None where a value is missing.
        title: Stands above the figure, so that a saved picture says what it shows.

    Returns:
        The figure, of fixed height.

    Raises:
        ValueError: If there is no such kind.
    """
    drawers = {"bars": _bars, "points": _points, "lines": _lines, "maps": _maps, "energy": _energy}
    if kind not in drawers:
        raise ValueError(f"got a figure of kind {kind!r}, expected one of {', '.join(drawers)}")
    figure, height = drawers[kind](data)
    style.layout(
        figure,
        height,
        margin={"t": 74 if kind in ("maps", "energy") else 52, "r": 20},
        title={"text": title, "font": {"size": 13}, "x": 0, "xanchor": "left", "y": 1,
               "yanchor": "top", "pad": {"t": 10}},
        # below: above, it would run into the title on a narrow screen
        legend={"orientation": "h", "x": 0, "y": -70 / height, "yanchor": "top"},
    )  # fmt: skip
    return figure


def _look(name: str, place: int) -> tuple[str, str]:
    usual = (style.CYCLE[place % len(style.CYCLE)], OTHERS[place % len(OTHERS)])
    return LOOKS.get(name, usual)


def _bars(data: Mapping[str, Any]) -> tuple[go.Figure, int]:
    """Draw a row a group, a mark with its interval a series."""
    figure = go.Figure()
    for place, one in enumerate(data["series"]):
        colour, symbol = _look(one["name"], place)
        known = [k for k, value in enumerate(one["values"]) if value is not None]
        values = [one["values"][k] for k in known]
        low = [_end(one, "low", k) for k in known]
        high = [_end(one, "high", k) for k in known]
        figure.add_scatter(
            x=values,
            y=[data["groups"][k] for k in known],
            mode="markers",
            name=one["title"],
            marker={"color": colour, "symbol": symbol, "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [end - value for end, value in zip(high, values, strict=True)],
                "arrayminus": [value - end for end, value in zip(low, values, strict=True)],
                "thickness": 1.2,
                "width": 3,
                "color": style.GREY,
            },
            customdata=list(zip(low, high, strict=True)),
            hovertemplate="%{y}, " + one["title"] + ": %{x:.1%} "
            "[%{customdata[0]:.1%}, %{customdata[1]:.1%}]<extra></extra>",
        )
    figure.update_yaxes(
        autorange="reversed", categoryorder="array", categoryarray=list(data["groups"])
    )
    figure.update_xaxes(style.percent_axis(f"{data['axis']} (%)"))
    return figure, 200 + 32 * len(data["groups"])


def _end(one: Mapping[str, Any], key: str, place: int) -> float:
    """Return an end of an interval; the value itself where there is none."""
    end = (one.get(key) or [None] * len(one["values"]))[place]
    return one["values"][place] if end is None else end


def _points(data: Mapping[str, Any]) -> tuple[go.Figure, int]:
    """Draw a point a task, one accuracy against another."""
    known = [p for p in data["points"] if p["x"] is not None and p["y"] is not None]
    figure = go.Figure()
    low = min((p[side] for p in known for side in "xy"), default=0.0)
    low = max(0.0, low - 0.02)
    if data.get("diagonal"):
        figure.add_scatter(
            x=[low, 1], y=[low, 1], mode="lines", line={"color": style.GREY, "dash": "dash"},
            hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    figure.add_scatter(
        x=[p["x"] for p in known],
        y=[p["y"] for p in known],
        mode="markers",
        text=[p["label"] for p in known],
        marker={"color": style.BLUE, "size": 11, "line": {"width": 1, "color": "white"}},
        hovertemplate="%{text}: %{x:.1%}, %{y:.1%}<extra></extra>",
        showlegend=False,
    )
    for axis, key in ((figure.update_xaxes, "x_axis"), (figure.update_yaxes, "y_axis")):
        digits = ".0%" if low < 0.9 else ".1%"
        axis(title=data[key], range=[low, 1.005], tickformat=digits, zeroline=False)
    return figure, 400


def _lines(data: Mapping[str, Any]) -> tuple[go.Figure, int]:
    """Draw a curve a series; what was chosen is marked on it."""
    figure = go.Figure()
    for place, one in enumerate(data["series"]):
        colour, symbol = _look(one["name"], place)
        figure.add_scatter(
            x=data["x"],
            y=one["values"],
            mode="lines+markers",
            name=one["title"],
            line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 6},
            hovertemplate=f"{one['title']}: %{{y:.1%}} at %{{x:g}}<extra></extra>",
        )
        at = (data.get("chosen") or {}).get(one["name"])
        if at in data["x"]:
            figure.add_scatter(
                x=[at],
                y=[one["values"][data["x"].index(at)]],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 14,
                        "line": {"color": style.GREY, "width": 2}},
                hovertemplate=f"{one['title']}: chosen, %{{x:g}}<extra></extra>",
                showlegend=False,
            )  # fmt: skip
    figure.update_xaxes(title=data["x_axis"], zeroline=False)
    figure.update_yaxes(title=f"{data['axis']} (%)", tickformat=".0%", rangemode="tozero")
    return figure, 400


def _maps(data: Mapping[str, Any]) -> tuple[go.Figure, int]:
    """Draw a heat-map a pair and reading: a row a pair, a column a reading, one colour range."""
    panels = data["panels"]
    pairs = list(dict.fromkeys(panel["title"] for panel in panels))
    modes = [mode for mode in MODES if any(panel["mode"] == mode for panel in panels)]
    figure = make_subplots(
        rows=len(pairs),
        cols=len(modes),
        column_titles=[style.MODE_TITLES[mode] for mode in modes],
        horizontal_spacing=0.05,
        vertical_spacing=min(0.08, 0.3 / len(pairs)),
    )
    for panel in panels:
        cell = {"row": pairs.index(panel["title"]) + 1, "col": modes.index(panel["mode"]) + 1}
        _map(figure, panel, data, cell)
        place = (cell["row"] - 1) * len(modes) + cell["col"]
        # both alphas on one scale: the box is a square
        figure.update_yaxes(scaleanchor=f"x{place if place > 1 else ''}", **cell)
        figure.update_xaxes(constrain="domain", **cell)
        if cell["col"] == 1:
            figure.update_yaxes(title=_wrapped(panel["title"]), **cell)
    figure.update_layout(
        coloraxis={
            "colorscale": MAPS,
            "cmin": data["range"][0],
            "cmax": data["range"][1],
            "colorbar": {"title": "ξ", "thickness": 12, "len": 0.9},
        }
    )
    return figure, 120 + 210 * len(pairs)


def _map(figure: go.Figure, panel: Mapping, data: Mapping, cell: Mapping) -> None:
    """Draw one map with its box; where it was not run, say so."""
    if panel["values"] is None:
        figure.add_scatter(
            x=[0], y=[0], mode="text", text=["not run yet"], hoverinfo="skip", showlegend=False,
            **cell,
        )  # fmt: skip
        figure.update_xaxes(visible=False, **cell)
        figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False, **cell)
        return
    first, second = panel["tasks"]
    # kept as [alpha of the first][alpha of the second]; drawn with the first to the right
    turned = [list(column) for column in zip(*panel["values"], strict=True)]
    figure.add_heatmap(
        x=panel["alphas"],
        y=panel["alphas"],
        z=turned,
        coloraxis="coloraxis",
        hovertemplate=f"α of {first} %{{x:.2f}}<br>α of {second} %{{y:.2f}}<br>ξ %{{z:.3f}}"
        f"<extra>n = {panel['n']:,}</extra>",
        **cell,
    )
    low, high = data["box"]
    figure.add_shape(
        type="rect", x0=low, x1=high, y0=low, y1=high, line={"color": "#E3000B", "width": 1.5},
        **cell,
    )  # fmt: skip
    figure.update_xaxes(showgrid=False, zeroline=False, **cell)
    figure.update_yaxes(showgrid=False, zeroline=False, **cell)


def _wrapped(title: str) -> str:
    """Break the name of a pair in two lines."""
    return title.replace(" and ", "<br>and ")


def _energy(data: Mapping[str, Any]) -> tuple[go.Figure, int]:
    """Draw a panel a task: its points, then the control's, a line a logit."""
    panels, columns = data["panels"], 2
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[panel["title"] for panel in panels],
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=min(0.12, 0.4 / rows),
    )
    for place, panel in enumerate(panels):
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        _panel(figure, panel, cell, place == 0)
    figure.update_annotations(font_size=12)
    figure.update_yaxes(range=[-0.03, 1.03], dtick=0.5, zeroline=False)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(title="local energy", col=1)
    return figure, 160 + 150 * rows


def _panel(figure: go.Figure, panel: Mapping, cell: Mapping, named: bool) -> None:
    """Draw one task against its control."""
    if panel["task_energy"] is None:
        figure.add_scatter(
            x=[0.5], y=[0.5], mode="text", text=["not run yet"], hoverinfo="skip",
            showlegend=False, **cell,
        )  # fmt: skip
        return
    start = 0
    for key, title, colour in (
        ("task_energy", "the task's points", style.BLUE),
        ("control_energy", "the control's", style.ORANGE),
    ):
        for logit, line in zip(panel["logits"], panel[key], strict=True):
            figure.add_scatter(
                x=list(range(start, start + len(line))),
                y=line,
                mode="lines",
                line={"color": colour, "width": 1},
                opacity=0.75,
                name=title,
                legendgroup=key,
                showlegend=named and logit == panel["logits"][0],
                hovertemplate=f"{title}, logit {logit}, point %{{x}}: %{{y:.3f}}<extra></extra>",
                **cell,
            )
        start += len(panel[key][0])
