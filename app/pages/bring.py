"""Import & export: bring checkpoints and tasks of one's own, take merged models away."""

import streamlit as st

from app import state, widgets
from app.pages.bringing import checkpoint, export, task
from app.widgets import addresses

SECTIONS = {
    "checkpoint": (":material/upload_file: Bring a checkpoint", checkpoint.section),
    "task": (":material/photo_library: Bring a task", task.section),
    "export": (":material/download: Take a model away", export.section),
}


def restore() -> None:
    """Take over what the address asks for, when it was opened, reloaded or gone back to."""
    query = addresses.opened(state.BRING_ADDRESS)
    if not query:
        return
    asked = state.bring_from_query(query)
    st.session_state[state.BRING_SECTION] = asked.section
    if asked.section == "export" and asked.merge.tasks:
        export.take_over(asked.merge)


def remember(view: state.BringView) -> None:
    """Write the view into the address."""
    query = state.bring_to_query(view)
    addresses.write(state.BRING_ADDRESS, query)


st.title("Import & export")
restore()
if st.session_state.get(state.BRING_SECTION) not in state.BRING_SECTIONS:
    st.session_state[state.BRING_SECTION] = state.BRING_SECTIONS[0]
chosen = st.segmented_control(
    "What to do",
    state.BRING_SECTIONS,
    required=True,
    format_func=lambda name: SECTIONS[name][0],
    key=state.BRING_SECTION,
    label_visibility="collapsed",
    persist_state="session",
)
with widgets.engine_errors():
    merge = SECTIONS[chosen][1]()
remember(state.BringView(chosen, merge or state.MergeView()))
