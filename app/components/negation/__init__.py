"""The negation grid: one slider, and target and control accuracy of every task follow it.

A row a task, a column a reading; all values are measured ones, the slider stops where they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.components.mounting import component, nothing

SCRIPTS = ("negation.js",)
STYLES = ("negation.css",)


def read_alpha(raw: object, alphas: Sequence[float], initial: float | None) -> float | None:
    """Return where the slider was left.

    Args:
        raw: ``st.session_state.get(key)`` or the component's result: {"alpha": number or None}.
        alphas: The stops offered.
        initial: Where it stands without a state.

    Returns:
        One of ``alphas``, or None: every task at the alpha chosen for it. What is malformed counts
        as not given.
    """
    alpha = raw["alpha"] if isinstance(raw, Mapping) and "alpha" in raw else initial
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | None):
        alpha = initial
    return None if alpha is None else min(alphas, key=lambda stop: abs(stop - alpha))


def negation_grid(data: Mapping[str, Any], key: str) -> Any:
    """Mount the grid; the script runs again when the slider is released.

    Args:
        data: {"alpha": number or None, "alphas": [...], "keep", "control": title,
            "readings": [{"key", "title"}], "tasks": [{"name", "title", "cells":
            {reading: {"target": [...], "control": [...], "chosen", "intact"}}}]}; fractions, one
            an alpha; intact is the control accuracy at alpha 0.
        key: Of the component; its raw state is ``st.session_state[key]``.

    Returns:
        The component's result.
    """
    return component("negation", "negation-grid", SCRIPTS, STYLES)(
        key=key, data=data, on_alpha_change=nothing
    )
