"""What several pages choose in the same way, and the name a visitor's work is done under."""

import secrets
from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import state
from app.compute import catalogue

NO_ENCODER = "No encoder is in the cache. Make the miniature with `python -m engine pretrain`."


def visitor() -> str:
    """Return this session's name, under which it starts background work."""
    return st.session_state.setdefault(state.VISITOR, secrets.token_hex(8))


def keep(key: str, options: Sequence[Any], default: Any = None) -> None:
    """Make sure a control starts from an option that exists.

    Args:
        key: Of the control.
        options: What it offers, at least one.
        default: What it starts from where nothing was chosen; the first option where not given.
    """
    if st.session_state.get(key) not in options:
        st.session_state[key] = state.choose(default, options)


def encoder_names() -> list[str]:
    """Return the encoders there are to choose from; say what to do and stop where there is none."""
    names = catalogue.encoder_names()
    if not names:
        st.info(NO_ENCODER, icon=":material/info:")
        st.stop()
    return names


def convention(key: str) -> str:
    """Draw the choice of what an alpha means, and return it."""
    return st.segmented_control(
        "Convention",
        state.CONVENTIONS,
        required=True,
        format_func=str.capitalize,
        key=key,
        help="Sum: each task vector times its alpha. Mean: times alpha / T, T tasks merged.",
        persist_state="session",
    )
