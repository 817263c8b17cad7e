"""A page's address: read where it was opened or gone back to, written when the view changes.

The browser sends its address with every message. One that is under way while the page writes a new
address still carries the last one: it is no wish of anybody's to go back there.
"""

import time

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app import state

UNDER_WAY = 10.0  # seconds in which a message can still carry an address that was replaced


def opened(key: str) -> dict[str, str]:
    """Return the address where it asks for a view; once, whatever breaks off the run that asks.

    Args:
        key: Of the session, where the page's own address is kept.

    Returns:
        The parameters of an address that was opened, reloaded or gone back to; none otherwise.
    """
    query = st.query_params.to_dict()
    if not state.elsewhere(query, st.session_state.get(key)):
        return {}
    if any(query == old for _, old in _left_lately(key)) and not _gone_back():
        return {}
    _keep(key, query)
    return query


def write(key: str, query: dict[str, str]) -> None:
    """Write a view into the address.

    Args:
        key: Of the session, where the page's own address is kept.
        query: The address's parameters.
    """
    _keep(key, query)
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


def _keep(key: str, query: dict[str, str]) -> None:
    """Keep an address, and until when the one before was the page's."""
    before = st.session_state.get(key)
    if before is not None and before != query:
        st.session_state[f"{key}_left"] = [*_left_lately(key), (time.monotonic(), before)]
    st.session_state[key] = query


def _left_lately(key: str) -> list[tuple[float, dict[str, str]]]:
    """Return the page's own addresses replaced a moment ago, each with when it was."""
    since = time.monotonic() - UNDER_WAY
    return [pair for pair in st.session_state.get(f"{key}_left", []) if pair[0] > since]


def _gone_back() -> bool:
    """Whether this run follows the browser's own Back or Forward."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation
