"""Running a page once more without breaking off the run that is drawing it.

Streamlit forgets, at the end of a run of the whole page, the files of every download button that
the run did not come to, while the buttons still stand in the browser: a click on them is lost. So
a run that finds it is out of date is drawn to its end before the next one begins.
"""

from collections.abc import Generator
from contextlib import contextmanager

import streamlit as st

from app import state


@contextmanager
def whole_run() -> Generator[None]:
    """Draw the whole page in here; runs it once more at its end where :func:`again` was called."""
    # a table, not keys of the session: those cannot be written any more once a page has stopped
    run = st.session_state.setdefault(state.WHOLE_RUN, {})
    run.update(drawing=True, outdated=False)
    try:
        yield
    finally:
        run["drawing"] = False
    if run["outdated"]:
        st.rerun()


def by_itself() -> bool:
    """Whether a fragment runs, and not the whole page around it."""
    return not st.session_state.get(state.WHOLE_RUN, {"drawing": True})["drawing"]


def again() -> None:
    """Run the page once more: at once from a fragment's own run, else when all of it is drawn."""
    run = st.session_state.get(state.WHOLE_RUN, {})
    if run.get("drawing"):
        run["outdated"] = True
    else:
        st.rerun()
