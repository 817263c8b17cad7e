"""What can be done with jobs on the Fine-tune page: buttons, and the question before deleting."""

import streamlit as st

from app import state, widgets
from app.compute import jobs, launching
from app.pages.finetuning.choice import choose, field

CHANGES = {  # what a button does to each chosen job: states it is for, icon, help
    "cancel": (("queued", "running"), "stop_circle", "Saves the working state, then leaves."),
    "resume": (jobs.RESUMABLE, "resume", "Goes on from the last working state."),
    "retry": (jobs.RESUMABLE, "replay", "Starts again from the first step."),
}


def copy(job) -> None:
    """Fill the form with what a job was launched with, and unfold it."""
    for name, value in launching.form_of(job).items():
        st.session_state[field(name)] = value
    st.session_state[state.FINETUNE_OPEN] = True


def act(chosen: list) -> None:
    """Draw what can be done with the chosen jobs."""
    st.subheader(jobs.name_of(chosen[0]) if len(chosen) == 1 else f"{len(chosen)} jobs chosen")
    with st.container(horizontal=True, gap="small"):
        for name, (states, icon, about) in CHANGES.items():
            fit = [job.id for job in chosen if job.state in states]
            if st.button(
                name.capitalize(),
                icon=f":material/{icon}:",
                key=f"finetune_{name}",
                disabled=not fit,
                help=about,
            ):
                with widgets.engine_errors():
                    jobs.change(name, fit)
                st.rerun()
        copied = chosen[0] if len(chosen) == 1 and chosen[0].verb == "finetune" else None
        if st.button(
            "Duplicate with changes",
            icon=":material/content_copy:",
            key="finetune_duplicate",
            disabled=copied is None,
            help="Fills the form above with this job's choices.",
            on_click=copy,
            args=(copied,),
        ):
            st.rerun()  # the whole page: the form is another fragment
        over = [job for job in chosen if job.finished]
        if st.button(
            "Delete",
            icon=":material/delete:",
            key="finetune_delete",
            disabled=not over,
            help="Asks first. A job at work is cancelled before it can be deleted.",
        ):
            st.session_state[state.FINETUNE_ASKED] = [job.id for job in over]
        with st.popover("Copy link", icon=":material/link:", key="finetune_link"):
            ids = ",".join(job.id for job in chosen)
            address = (st.context.url or "").split("?")[0]
            st.code(f"{address}?{state.QUERY_JOB}={ids}", language=None, wrap_lines=True)
    asked = st.session_state.get(state.FINETUNE_ASKED)
    if asked and set(asked) == {job.id for job in over}:
        confirm(over)


def confirm(over: list) -> None:
    """Ask whether jobs are deleted, and whether their checkpoints are."""
    made = sum(len(job.artifacts) for job in over)
    with st.container(border=True, key="finetune_confirm"):
        many = f"these {len(over)} jobs" if len(over) > 1 else "this job"
        st.markdown(f"Delete {many}? Log, curves and working state go for good.")
        with st.container(horizontal=True):
            kept = st.button(f"Delete {many}", key="finetune_delete_kept")
            whole = st.button(
                "Delete with its checkpoint" if made == 1 else f"Delete with {made} stored files",
                key="finetune_delete_whole",
                disabled=not made,
                help="What another job made too is kept.",
            )
            back = st.button("Keep", key="finetune_delete_back")
    if kept or whole:
        with widgets.engine_errors():
            jobs.delete([job.id for job in over], artifacts=whole)
        choose([])
    if kept or whole or back:
        del st.session_state[state.FINETUNE_ASKED]
        st.rerun()
