"""Figures of merged models: accuracy a task at one setting, and settings against each other."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app.figures import style


def readout(
    titles: Sequence[str],
    zeroshot: Sequence[float],
    single: Sequence[float | None],
    merged: Sequence[float],
    interval: Sequence[tuple[float, float]],
    n: Sequence[int],
    caption: str,
) -> go.Figure:
    """Draw accuracy a task: merged as a bar with its interval, zero-shot and single as marks.

    Args:
        titles: What a reader sees, one a task.
        zeroshot: Fractions.
        single: Fractions; None for the control task, which has no vector of its own.
        merged: Fractions.
        interval: 95 % Wilson intervals of ``merged``.
        n: Images a task.
        caption: Stands above the figure, so that a saved picture says what it shows.

    Returns:
        The figure; tasks are rows.
    """
    rows = list(titles)
    figure = go.Figure()
    figure.add_bar(
        y=rows,
        x=list(merged),
        orientation="h",
        name="merged",
        marker={"color": style.BLUE},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - value for value, (_, high) in zip(merged, interval, strict=True)],
            "arrayminus": [value - low for value, (low, _) in zip(merged, interval, strict=True)],
            "thickness": 1.2,
            "width": 3,
            "color": style.GREY,
        },
        customdata=list(n),
        hovertemplate="%{y}: merged %{x:.1%}, n = %{customdata:,}<extra></extra>",
    )
    marks = (
        ("zero-shot", zeroshot, style.ORANGE, "circle"),
        ("own vector alone", single, style.GREEN, "diamond"),
    )
    for name, values, colour, symbol in marks:
        figure.add_scatter(
            y=[row for row, value in zip(rows, values, strict=True) if value is not None],
            x=[value for value in values if value is not None],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 1}},
            hovertemplate=f"%{{y}}: {name} %{{x:.1%}}<extra></extra>",
        )
    style.layout(
        figure,
        180 + 34 * len(rows),
        margin={"t": 52, "r": 20},
        title={"text": caption, "font": {"size": 13}, "x": 0, "xanchor": "left"},
        # below: above, it would run into the title on a narrow screen
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(style.percent_axis("top-1 accuracy on test (%)"))
    return figure


def pins(settings: Sequence[Mapping], titles: Mapping[str, str]) -> go.Figure:
    """Draw pinned settings side by side: a row a task, a mark a setting.

    Args:
        settings: {"name", "metrics": {"tasks": {task: fraction}}} in the order they were pinned.
        titles: Of the tasks, by name; only these are drawn.

    Returns:
        The figure; colour and shape both tell the settings apart.
    """
    symbols = ("circle", "diamond", "square", "triangle-up", "x", "star")
    figure = go.Figure()
    for place, setting in enumerate(settings):
        tasks = [task for task in titles if setting["metrics"]["tasks"].get(task) is not None]
        figure.add_scatter(
            y=[titles[task] for task in tasks],
            x=[setting["metrics"]["tasks"][task] for task in tasks],
            mode="markers",
            name=setting["name"],
            marker={
                "color": style.CYCLE[place % len(style.CYCLE)],
                "symbol": symbols[place % len(symbols)],
                "size": 12,
            },
            hovertemplate=f"{setting['name']}, %{{y}}: %{{x:.1%}}<extra></extra>",
        )
    style.layout(figure, 110 + 30 * len(titles))
    figure.update_yaxes(
        autorange="reversed", categoryorder="array", categoryarray=list(titles.values())
    )
    figure.update_xaxes(style.percent_axis("top-1 accuracy on test (%)"))
    return figure
