"""Fine-tune: launch background jobs, watch them, stop and resume them."""

import streamlit as st

from app import state, widgets
from app.compute import jobs
from app.pages.finetuning.choice import restore
from app.pages.finetuning.form import form
from app.pages.finetuning.panel import IDLE, LIVE, panel

st.title("Fine-tune")
st.markdown(
    "Make task vectors in the background: jobs go on when this page, the browser or the server "
    "is closed."
)
restore()
st.session_state.setdefault(state.FINETUNE_OPEN, True)
unfolded = st.expander(
    "New fine-tunes",
    icon=":material/add_circle:",
    key=state.FINETUNE_OPEN,
    on_change="rerun",
)
if unfolded.open:
    with unfolded:
        form()
st.subheader("Jobs")
with widgets.engine_errors():
    active = any(not job.finished for job in jobs.queue().list())
pace = LIVE if active else IDLE
st.fragment(panel, run_every=pace)(pace)
