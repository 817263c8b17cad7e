"""Figures as SVG: readable without a browser, in a light and a dark page, by every colour vision.

Drawn by matplotlib, imported when first needed. Text and axes take the colour of the page.
"""

import io
import math
import re
from collections.abc import Mapping
from typing import Any

from engine.exhibits.definitions import READINGS
from engine.exhibits.exhibit import Figure

# Okabe and Ito (2008); the same for the same reading on the dashboard
COLOURS = {
    "pretrained": "#8A939C",
    "nonlinear": "#0072B2",
    "posthoc": "#CC79A7",
    "linear": "#009E73",
}
MARKS = {"pretrained": "o", "nonlinear": "D", "posthoc": "s", "linear": "^"}
OTHERS = ("#0072B2", "#E69F00")  # logits, one after the other
INK = "#010203"  # stands for the page's own colour
WIDTH = 5.2  # inches; a telephone shows it whole, a desk 1.7 times as large
SETTINGS = {
    "svg.fonttype": "none",  # letters stay letters
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}
_PATH = re.compile(r'\bd="[^"]*"')
_LONG = re.compile(r"-?\d+\.\d{3,}")
_NAMED = re.compile(r'(\bid="|url\(#|href="#)')


def svg(figure: Figure) -> str:
    """Draw a figure.

    Args:
        figure: What ``filled`` gave.

    Returns:
        One ``svg`` element, without prologue; its names begin with the figure's, so that several
        fit on a page.

    Raises:
        ValueError: If the figure is of no known kind.
    """
    drawers = {"bars": _bars, "points": _points, "lines": _lines, "maps": _maps, "energy": _energy}
    if figure.kind not in drawers:
        raise ValueError(f"got a figure of kind {figure.kind!r}, expected one of {list(drawers)}")
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with rc_context({**SETTINGS, "svg.hashsalt": figure.name}):
        drawn = drawers[figure.kind](figure.data)
        FigureCanvasSVG(drawn)
        out = io.StringIO()
        drawn.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _cleaned(out.getvalue(), figure)


def standing_alone(drawing: str) -> str:
    """Return a drawing as a file: on white, in dark ink."""
    style = "<style>svg{color:#222;background:#fff}</style>"
    head, close, rest = drawing.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{close}{style}{rest}\n'


def _cleaned(text: str, figure: Figure) -> str:
    """Return matplotlib's SVG as an element of a page."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _NAMED.sub(rf"\g<1>{figure.name}-", text)
    # a tenth of a point is less than an eye sees, and a third of the file
    text = _PATH.sub(lambda path: _LONG.sub(lambda m: f"{float(m[0]):.1f}", path[0]), text)
    text = _LONG.sub(lambda match: f"{float(match[0]):.3f}", text)
    # its own size would not give way on a narrow screen
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    title = figure.title.replace("&", "&amp;").replace("<", "&lt;")
    text = text.replace("<svg", '<svg role="img"', 1).replace(INK, "currentColor")
    head, close, rest = text.partition(">")
    return f"{head}{close}<title>{title}</title>{rest}"


def _new(rows: int = 1, columns: int = 1, height: float = 3.0, **more):
    """Return a new figure and its axes, an array of rows and columns."""
    from matplotlib.figure import Figure as Canvas

    drawn = Canvas(figsize=(WIDTH, height), layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False, **more)


def _percent(axis) -> None:
    """Write fractions as per cent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.1f}".removesuffix(".0"))


def _bars(data: Mapping[str, Any]):
    """Draw one line a group and one mark a series: bars of points, with their intervals."""
    groups, series = data["groups"], data["series"]
    drawn, axes = _new(height=0.55 + 0.34 * len(groups))
    ax, ends = axes[0, 0], []
    for k, one in enumerate(series):
        shift = 0.62 * (k - (len(series) - 1) / 2) / max(len(series), 2)
        for place, value in enumerate(one["values"]):
            if value is None:
                continue
            y, low, high = place + shift, one["low"][place], one["high"][place]
            colour = COLOURS.get(one["name"], OTHERS[k % 2])
            ends += [value] if low is None else [low, high]
            if low is not None:
                ax.plot([low, high], [y, y], color=colour, linewidth=1.1, alpha=0.75)
            ax.plot([value], [y], MARKS.get(one["name"], "o"), color=colour, markersize=4.2)
        ax.plot([], [], MARKS.get(one["name"], "o"), color=COLOURS.get(one["name"], OTHERS[k % 2]),
                markersize=4.2, label=one["title"])  # fmt: skip
    for place in range(len(groups) - 1):
        ax.axhline(place + 0.5, color=INK, alpha=0.12, linewidth=0.5)
    ax.set_yticks(range(len(groups)), groups)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    # marks need no zero, but a range that holds most of the scale may as well show it all
    least, most = min(ends), max(ends)
    ax.set_xlim(-0.01 if least < 0.5 else least - 0.02, 1.015 if most > 0.9 else most + 0.02)
    ax.set_xlabel(f"{data['axis']}, %")
    ax.grid(axis="x")
    _percent(ax.xaxis)
    drawn.legend(loc="outside upper left", ncols=2 if len(series) > 3 else len(series))
    return drawn


def _points(data: Mapping[str, Any]):
    """Draw one point a task, x against y, with the diagonal; labels keep out of their way."""
    drawn, axes = _new(height=3.6)
    ax = axes[0, 0]
    known = [p for p in data["points"] if p["x"] is not None and p["y"] is not None]
    least = min(value for p in known for value in (p["x"], p["y"]))
    low = max(least - 0.25 * (1 - least) - 0.002, 0.0)
    if data.get("diagonal"):
        ax.plot([low, 1], [low, 1], color=INK, linewidth=0.6, linestyle=(0, (4, 3)))
    # most tasks lie close together at the right edge: labels stand to the left, spread in height
    order = sorted(known, key=lambda p: -p["y"])
    step = (1.0 - low) * 0.052
    height = math.inf
    for point in order:
        height = min(point["y"], height - step)
        ax.plot([point["x"]], [point["y"]], "o", color=COLOURS["nonlinear"], markersize=4.5)
        ax.annotate(
            point["label"],
            (point["x"], point["y"]),
            (min(p["x"] for p in known) - 0.06 * (1 - low), height),
            ha="right",
            va="center",
            fontsize=7.5,
            arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.35, "linewidth": 0.5},
        )
    ax.set_xlim(low, 1.0 + (1 - low) * 0.02)
    ax.set_ylim(min(low, height - step), 1.0 + (1 - low) * 0.02)
    ax.set_xlabel(f"{data['x_axis']}, %")
    ax.set_ylabel(f"{data['y_axis']}, %")
    ax.grid()
    for axis in (ax.xaxis, ax.yaxis):
        _percent(axis)
    return drawn


def _lines(data: Mapping[str, Any]):
    """Draw curves over x; what was chosen is marked."""
    drawn, axes = _new(height=2.9)
    ax = axes[0, 0]
    for k, one in enumerate(data["series"]):
        colour = COLOURS.get(one["name"], OTHERS[k % 2])
        ax.plot(data["x"], one["values"], color=colour, linewidth=1.4, label=one["title"])
        chosen = data.get("chosen", {}).get(one["name"])
        if chosen in data["x"]:
            value = one["values"][data["x"].index(chosen)]
            ax.plot([chosen], [value], MARKS.get(one["name"], "o"), color=colour, markersize=5.5)
    ax.set_xlabel(data["x_axis"])
    ax.set_ylabel(f"{data['axis']}, %")
    ax.grid()
    _percent(ax.yaxis)
    drawn.legend(loc="outside upper left", ncols=len(data["series"]))
    return drawn


def _maps(data: Mapping[str, Any]):
    """Draw small heat maps: a row a pair of tasks, a column a reading."""
    from matplotlib.patches import Rectangle

    panels = data["panels"]
    modes = list(dict.fromkeys(panel["mode"] for panel in panels))
    rows = [panels[k : k + len(modes)] for k in range(0, len(panels), len(modes))]
    drawn, axes = _new(len(rows), len(modes), 0.75 + 1.62 * len(rows), sharex=True, sharey=True)
    image, (low, high) = None, data["box"]
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            ax = axes[i, j]
            ax.set_box_aspect(1)
            if i == 0:
                ax.set_title(READINGS[panel["mode"]])
            if i == len(rows) - 1:
                ax.set_xlabel(r"alpha of the second")
            if panel["values"] is None:
                ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center")
                continue
            reach = _edges(panel["alphas"])
            image = ax.imshow(
                panel["values"], cmap="cividis_r", vmin=data["range"][0], vmax=data["range"][1],
                origin="lower", extent=(*reach, *reach), interpolation="none", aspect="auto",
            )  # fmt: skip
            for colour, width in (("#FFFFFF", 1.8), ("#D55E00", 1.0)):
                ax.add_patch(Rectangle((low, low), high - low, high - low, fill=False,
                                       edgecolor=colour, linewidth=width))  # fmt: skip
        first, second = (row[0]["title"].split(" and ") + [""])[:2]
        n = next((panel["n"] for panel in row if panel["n"]), None)
        images = f"\nn = {n}" if n else ""
        axes[i, 0].set_ylabel(f"{first},\n{second}{images}", fontsize=7.5)
    if image is not None:
        bar = drawn.colorbar(image, ax=axes, location="top", fraction=0.03, aspect=45)
        bar.set_label("xi, %: light is disentangled; the box is where alpha is looked for")
        bar.ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.1f}".removesuffix(".0"))
        bar.outline.set_linewidth(0.4)
    return drawn


def _edges(alphas: list[float]) -> tuple[float, float]:
    """Return where an image of cells around these alphas begins and ends."""
    half = (alphas[-1] - alphas[0]) / (len(alphas) - 1) / 2
    return alphas[0] - half, alphas[-1] + half


def _energy(data: Mapping[str, Any]):
    """Draw the energy of every point: those of the task, then those of the control."""
    panels = data["panels"]
    columns = 2
    rows = math.ceil(len(panels) / columns)
    drawn, axes = _new(rows, columns, 0.5 + 1.15 * rows, sharey=True, sharex=True)
    for k, ax in enumerate(axes.flat):
        if k >= len(panels):
            ax.set_axis_off()
            continue
        panel = panels[k]
        ax.set_title(f"{panel['title']} | {panel['control']}", loc="left")
        if panel["task_energy"] is None:
            ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center")
            continue
        n = len(panel["task_energy"][0])
        pairs = zip(panel["task_energy"], panel["control_energy"], strict=True)
        for place, (own, other) in enumerate(pairs):
            ax.plot(range(n), own, color=OTHERS[0], linewidth=0.5, alpha=0.9 - 0.3 * (place > 0))
            ax.plot(range(n, 2 * n), other, color=OTHERS[1], linewidth=0.5,
                    alpha=0.9 - 0.3 * (place > 0))  # fmt: skip
        ax.axvline(n - 0.5, color=INK, linewidth=0.5, alpha=0.5)
        ax.set_ylim(0, 1.04)
        ax.set_xticks([n / 2, 3 * n / 2], ["task", "control"])
        if k % columns == 0:
            ax.set_ylabel("local energy")
    return drawn
