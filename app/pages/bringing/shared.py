"""What the parts of the Import & export page share: who asks, waiting, facts, command lines."""

from collections.abc import Sequence
from html import escape
from typing import Any

import streamlit as st

from app import state, widgets
from app.compute.background import Work, follow
from app.widgets.rerunning import again


def ask(label: str, key: str, into: str, asked: object, **look: Any) -> bool:
    """Draw a button that notes what it is pressed for, and that it was pressed once more.

    No callback does it: that would be given what the run before drew, not what a field just left
    says, nor a file that has come since.

    Args:
        label: On the button.
        key: Of the button.
        into: Key of the session that :func:`pressed` is asked about.
        asked: What it is pressed for.
        look: What else ``st.button`` takes.

    Returns:
        Whether it was pressed just now; where it then gives way to something, run the page again.
    """
    if not st.button(label, key=key, **look):
        return False
    times = st.session_state.get(state.BRING_TIMES, 0) + 1
    st.session_state[state.BRING_TIMES] = times
    st.session_state[into] = (asked, times)
    return True


def pressed(key: str, asked: object) -> int | None:
    """Return which press a button was for the same question; None where it was for another."""
    before, times = st.session_state.get(key, (None, 0))
    return times if before is not None and before == asked else None


def waited(work: Work) -> object | None:
    """Return finished work's result; None while it runs, or where it failed, both drawn."""
    follow(work)
    if not work.finished.is_set():
        watch(work)
        return None
    if work.error is not None:
        from engine.errors import EngineError

        if not isinstance(work.error, EngineError):
            raise work.error
        widgets.show_error(work.error)
        return None
    return work.result


@st.fragment(run_every=0.5)
def watch(work: Work) -> None:
    """Draw progress until the work is finished, then run the page again."""
    if work.finished.is_set():
        again()
    st.progress(work.fraction, text=f"{work.note[:1].upper()}{work.note[1:]} …")


def facts(rows: Sequence[tuple[str, str]], key: str) -> None:
    """Draw names and values; every text is escaped, for files and folders name themselves."""
    lines = "".join(
        f'<div style="opacity:.7">{escape(name)}</div>'
        f'<div style="overflow-wrap:anywhere">{escape(value)}</div>'
        for name, value in rows
    )
    with st.container(key=key):
        st.html(
            '<div style="display:grid;grid-template-columns:minmax(6.5rem,auto) 1fr;'
            f'gap:.3rem 1rem;font-size:.93rem">{lines}</div>'
        )


def command_line(text: str) -> None:
    """Draw what does the same without the page."""
    st.caption("The same without this page:")
    st.code(text, language="bash", wrap_lines=True)
