"""A map over two alphas that redraws at once: cells on a canvas, the rest in one small drawing.

A page packs a map's tables and mounts it; a click on a cell, or Enter, is a pick:

    xi_map(pack(alphas, tables, ...), key, on_pick=lambda: take(read_pick(st.session_state[key])))
"""

import math
from collections.abc import Callable, Mapping, Sequence

from app.components.mounting import component
from app.components.ximap.payload import pack

__all__ = ["pack", "read_pick", "xi_map"]

SCRIPTS = ("../buffers.js", "drawing.js", "saving.js", "ximap.js")
STYLES = ("ximap.css",)


def xi_map(payload: bytes, key: str, on_pick: Callable[[], None]) -> None:
    """Mount a map; nothing is sent while it is pointed at.

    Args:
        payload: What :func:`pack` made; the same bytes are not sent to the browser again.
        key: Of the component; its raw state is ``st.session_state[key]``.
        on_pick: Called before the rerun that follows a pick.
    """
    component("ximap", "xi-map", SCRIPTS, STYLES)(key=key, data=payload, on_pick_change=on_pick)


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
