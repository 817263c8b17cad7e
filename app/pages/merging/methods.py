"""The Merge page's choice of a method, and its hyper-parameters, explained where they are set."""

from collections.abc import Mapping

import streamlit as st

from app import state
from app.compute import directions

SLIDERS = "Task arithmetic"
HELP = (
    "Task arithmetic adds the task vectors, a slider each. The others make one direction of all of "
    "them, and one slider goes along it; alpha is kept when the method changes."
)


def choose_method() -> str | None:
    """Draw the choice of a method, and return its name; None for a slider a task."""
    offered = directions.methods()
    names = (state.ARITHMETIC, *offered)
    if st.session_state.get(state.MERGE_METHOD) not in names:
        st.session_state[state.MERGE_METHOD] = state.ARITHMETIC
    chosen = st.selectbox(
        "Method",
        names,
        key=state.MERGE_METHOD,
        format_func=lambda name: offered[name].title if name in offered else SLIDERS,
        width=190,
        help=HELP,
        persist_state="session",
    )
    return None if chosen == state.ARITHMETIC else chosen


def set_options(method: str) -> dict[str, float]:
    """Draw a method's hyper-parameters, and return their values.

    Args:
        method: One of ``directions.methods()``.

    Returns:
        By name; empty where it has none, and without those that do nothing as they stand.
    """
    options = directions.methods()[method].options
    values = {name: _set(method, name, option) for name, option in options.items()}
    return directions.said(method, values)


def explain(method: str) -> None:
    """Say what a method does, and what each of its hyper-parameters.

    Args:
        method: One of ``directions.methods()``.
    """
    about = directions.methods()[method]
    said = [
        f"*{name.capitalize()}*: {option.does}; usually {option.usual:g}."
        for name, option in about.options.items()
    ]
    st.caption(" ".join([f"**{about.title}.** {about.does} Usual α: {about.alpha:g}.", *said]))


def _set(method: str, name: str, option) -> float:
    """Draw one hyper-parameter, and return its value."""
    key = f"{state.MERGE_OPTION}{method}_{name}"
    kind = type(option.usual)
    st.session_state[key] = kind(
        state.within(st.session_state.get(key), option.low, option.high, option.usual)
    )
    return st.number_input(
        name.capitalize(),
        min_value=kind(option.low),
        max_value=kind(option.high),
        step=1 if kind is int else 0.05,
        format="%d" if kind is int else "%.4g",
        key=key,
        width=150,
        help=f"{option.does[:1].upper()}{option.does[1:]}; from {option.low:g} to {option.high:g}.",
        persist_state="session",
    )


def restore(method: str | None, options: Mapping[str, float]) -> None:
    """Take over the method that an address asks for; the page keeps what exists of it.

    Args:
        method: Its name, or None for a slider a task.
        options: Hyper-parameters by name.
    """
    st.session_state[state.MERGE_METHOD] = method or state.ARITHMETIC
    for name, value in options.items():
        st.session_state[f"{state.MERGE_OPTION}{method}_{name}"] = value
