"""Which jobs the Fine-tune page looks at: kept by their ids, in the session and the address."""

import streamlit as st

from app import state
from app.widgets import addresses

COMPARED = 6  # jobs drawn together at most


def field(name: str) -> str:
    """Return the session's key of one of the form's fields."""
    return state.FINETUNE_FORM + name


def restore() -> None:
    """Take over the jobs that the address names, when it was opened, reloaded or gone back to."""
    asked = list(state.jobs_of(addresses.opened(state.FINETUNE_ADDRESS)))
    if asked:
        st.session_state[state.FINETUNE_CHOSEN] = asked
        st.session_state.setdefault(state.FINETUNE_OPEN, False)


def choose(chosen: list[str]) -> None:
    """Look at these jobs from now on, and write them into the address."""
    st.session_state[state.FINETUNE_CHOSEN] = chosen
    query = {state.QUERY_JOB: ",".join(chosen)} if chosen else {}
    addresses.write(state.FINETUNE_ADDRESS, query)
