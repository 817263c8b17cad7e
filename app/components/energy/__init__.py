"""The energy explorer: local energy follows the sliders while one is dragged; points are pictures.

A page packs every setting's energies, computed beforehand, and mounts the explorer:

    held = read_view(st.session_state.get(key), keys, setting, order, revision)
    view = energy_explorer(pack(settings, blocks, curves, setting=held.setting, ...), key)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.components.energy.payload import ORDERS, SIDE, Block, Curve, Setting, pack
from app.components.mounting import component, nothing

__all__ = [
    "ORDERS",
    "SIDE",
    "Block",
    "Curve",
    "Setting",
    "View",
    "energy_explorer",
    "pack",
    "read_view",
]

SCRIPTS = ("../buffers.js", "panels.js", "energy.js")
STYLES = ("energy.css",)


@dataclass(frozen=True)
class View:
    """Where the explorer stands: the key of a setting, and the order of the points."""

    setting: str
    order: str


def read_view(raw: object, keys: Sequence[str], setting: str, order: str, revision: int) -> View:
    """Turn the component's raw state into a view.

    Args:
        raw: ``st.session_state.get(key)`` or the component's result:
            {"view": {"revision": int, "setting": str, "order": str}}.
        keys: The settings offered.
        setting: Used where the state gives none of them.
        order: Used where the state gives none.
        revision: Of the payload; a state of another one is out of date and ignored.

    Returns:
        A view that can be drawn; anything malformed counts as not given.
    """
    held = raw.get("view") if isinstance(raw, Mapping) else None
    held = held if isinstance(held, Mapping) and held.get("revision") == revision else {}
    return View(
        held["setting"] if held.get("setting") in keys else setting,
        held["order"] if held.get("order") in ORDERS else order,
    )


def energy_explorer(payload: bytes, key: str) -> None:
    """Mount the explorer; the script runs again when a slider is released.

    Args:
        payload: What :func:`pack` made; the same bytes are not sent to the browser again.
        key: Of the component; its raw state is ``st.session_state[key]``.
    """
    component("energy", "energy-explorer", SCRIPTS, STYLES)(
        key=key, data=payload, on_view_change=nothing
    )
