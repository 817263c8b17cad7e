"""The energy explorer: local energy follows the sliders while one is dragged; points are pictures.

A page packs every setting's energies, computed beforehand, and mounts the explorer:

    held = read_view(st.session_state.get(key), keys, setting, order, revision)
    view = energy_explorer(pack(settings, blocks, curves, setting=held.setting, ...), key)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import streamlit as st

from app.components.energy.payload import ORDERS, SIDE, Block, Curve, Setting, pack

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

# the buffer and the small helpers of building a page are those of the alpha widget
SCRIPTS = ("../alpha/payload.js", "../alpha/elements.js", "panels.js", "energy.js")
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
    _component()(key=key, data=payload, on_view_change=_nothing)


def _nothing() -> None:
    """Stand in for a callback: a state without one is not returned by Streamlit."""


@cache
def _component() -> Callable:
    """Return the component, registered once; its scripts are one module for the browser."""
    return st.components.v2.component(
        "tauscope_energy",
        html='<div class="tauscope-energy" data-testid="energy-explorer"></div>',
        css=_joined(STYLES),
        js=_joined(SCRIPTS),
    )


def _joined(names: Sequence[str]) -> str:
    """Return the text of files beside this one, one after another."""
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
