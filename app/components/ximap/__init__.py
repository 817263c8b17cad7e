"""A map over two alphas that redraws at once: cells on a canvas, the rest in one small drawing.

A page packs a map's tables and mounts it; a click on a cell, or Enter, is a pick:

    xi_map(pack(alphas, tables, ...), key, on_pick=lambda: take(read_pick(st.session_state[key])))
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import streamlit as st

from app.components.ximap.payload import pack

__all__ = ["pack", "read_pick", "xi_map"]

# the buffer and the small helpers of building a page are those of the alpha widget
SCRIPTS = ("../alpha/payload.js", "../alpha/elements.js", "drawing.js", "saving.js", "ximap.js")
STYLES = ("ximap.css",)


def xi_map(payload: bytes, key: str, on_pick: Callable[[], None]) -> None:
    """Mount a map; nothing is sent while it is pointed at.

    Args:
        payload: What :func:`pack` made; the same bytes are not sent to the browser again.
        key: Of the component; its raw state is ``st.session_state[key]``.
        on_pick: Called before the rerun that follows a pick.
    """
    _component()(key=key, data=payload, on_pick_change=on_pick)


def read_pick(raw: object) -> tuple[float, float] | None:
    """Read which cell was picked.

    Args:
        raw: ``st.session_state.get(key)``: {"pick": [alpha_1, alpha_2]} in the run after a pick.

    Returns:
        Both alphas, rounded to what a grid can hold; None for no pick, and for what is malformed.
    """
    pick = raw.get("pick") if isinstance(raw, Mapping) else None
    if not isinstance(pick, Sequence) or isinstance(pick, str) or len(pick) != 2:
        return None
    if any(isinstance(a, bool) or not isinstance(a, int | float) for a in pick):
        return None
    if not all(math.isfinite(alpha) for alpha in pick):
        return None
    return tuple(round(float(alpha), 9) + 0.0 for alpha in pick)


@cache
def _component() -> Callable:
    """Return the component, registered once; its scripts are one module for the browser."""
    return st.components.v2.component(
        "tauscope_ximap",
        html='<div class="tauscope-ximap" data-testid="xi-map"></div>',
        css=_joined(STYLES),
        js=_joined(SCRIPTS),
    )


def _joined(names: Sequence[str]) -> str:
    """Return the text of files beside this one, one after another."""
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
