"""What all figures share: colours, marks, sizes and axis manners."""

import plotly.graph_objects as go

# Okabe and Ito (2008)
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#8A939C"

SEQUENTIAL = "Cividis"
# blue - white - orange, both ends told apart by every kind of colour vision
DIVERGING = [[0.0, "#0072B2"], [0.5, "#F7F7F7"], [1.0, "#D55E00"]]

MODE_TITLES = {
    "nonlinear": "Non-linear",
    "posthoc": "Post-hoc linearized",
    "linear": "Linear",
}
# blocks of a network, as many as there are; colour repeats, the pattern tells the rounds apart
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GREY)
PATTERNS = ("", "/", ".", "x", "-", "+")


def layout(figure: go.Figure, height: int, **settings) -> go.Figure:
    """Give a figure its fixed height, narrow margins and a legend above it.

    Args:
        figure: Changed in place.
        height: Pixels.
        settings: Further settings of Plotly's layout, over the shared ones.

    Returns:
        The same figure.
    """
    shared = {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 34, "b": 8, "pad": 0},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 13},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "title": None},
        "hoverlabel": {"namelength": -1},
        "bargap": 0.25,
    }
    margin = shared["margin"] | settings.pop("margin", {})
    figure.update_layout(shared | settings | {"margin": margin})
    figure.update_xaxes(automargin=True, title_standoff=8)
    figure.update_yaxes(automargin=True, title_standoff=8)
    return figure


def percent_axis(title: str) -> dict:
    """Give the settings of an axis of accuracies: values are fractions, ticks are per cent."""
    return {
        "title": title,
        "range": [0, 1.02],  # a mark at 100 % is drawn whole
        "tickformat": ".0%",
        "dtick": 0.2,
        "zeroline": False,
    }


def matrix(
    values: list[list],
    text: list[list[str]],
    columns: list[str],
    rows: list[str],
    hover: list[list[str]],
    **settings,
) -> go.Heatmap:
    """Draw a matrix with its numbers in the cells; a missing one stays empty and says so.

    Args:
        values: Numbers or None, rows by columns.
        text: What stands in each cell.
        columns: Their names.
        rows: Their names.
        hover: What each cell says when pointed at.
        settings: Further settings of the heat-map.

    Returns:
        The heat-map, to be put into a figure.
    """
    return go.Heatmap(
        z=values,
        x=columns,
        y=rows,
        text=text,
        texttemplate="%{text}",
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=True,
        xgap=2,
        ygap=2,
        **settings,
    )
