"""A component is its files: one element, its styles, and scripts that are one module there."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent


@cache
def component(name: str, mark: str, scripts: tuple[str, ...], styles: tuple[str, ...]) -> Callable:
    """Return a component, registered once.

    Args:
        name: Of its folder beside this file; its element has the class ``tauscope-<name>``.
        mark: The element's ``data-testid``.
        scripts: Of its folder, in the order in which the browser reads them; the last one has the
            default export. ``elements.js`` goes before them.
        styles: Of its folder; ``theme.css`` goes before them.

    Returns:
        What mounts it: ``component(...)(key=, data=, on_<state>_change=)``.
    """
    return st.components.v2.component(
        f"tauscope_{name}",
        html=f'<div class="tauscope tauscope-{name}" data-testid="{mark}"></div>',
        css=_joined(name, "../theme.css", *styles),
        js=_joined(name, "../elements.js", *scripts),
    )


def nothing() -> None:
    """Stand in for a callback: a state or event without one is not returned by Streamlit."""


def _joined(folder: str, *names: str) -> str:
    return "\n".join((HERE / folder / name).read_text(encoding="utf-8") for name in names)
