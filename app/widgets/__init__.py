"""Shared controls: engine errors as messages, figures with their downloads, numbers as words.

What several pages choose is in ``choosing``; how a page is run once more, in ``rerunning``.
"""

from app.widgets.errors import engine_errors, plain, show_error
from app.widgets.figures import chart_config, downloads, figure, to_csv, to_json
from app.widgets.wording import megabytes, percent

__all__ = [
    "chart_config",
    "downloads",
    "engine_errors",
    "figure",
    "megabytes",
    "percent",
    "plain",
    "show_error",
    "to_csv",
    "to_json",
]
