"""The jobs on the Fine-tune page: the live table, and what has just ended."""

import time

import streamlit as st

from app import state, widgets
from app.components.jobs import jobs_table, read_ticked
from app.compute import jobs
from app.pages.finetuning.actions import act
from app.pages.finetuning.choice import COMPARED, choose
from app.pages.finetuning.details import show_curves, show_log, show_state
from app.widgets.rerunning import again

LIVE, IDLE = 2.0, 10.0  # seconds between looks at the jobs: while some are at work, and else


def panel(interval: float) -> None:
    """Draw the jobs, and those looked at; called again and again, at this interval."""
    with widgets.engine_errors():
        found = jobs.listed()
        damaged = jobs.queue().damaged()
    at_work = any(not job.finished for job in found)
    announce(found)
    if (LIVE if at_work else IDLE) != interval:
        again()  # the whole page, which sets the other interval
    for path, cause in damaged:
        st.error(f"Damaged job: {jobs.sentence(cause)} `{path}`", icon=":material/error:")
    if not found:
        st.info(
            "No jobs yet. Choose above what to fine-tune and press Launch; or start one with "
            "`python -m engine finetune --mode linear --background`, and it appears here.",
            icon=":material/info:",
        )
        return
    table(found)
    held = st.session_state[state.FINETUNE_CHOSEN]
    chosen = [job for job in found if job.id in held]
    for lost in set(held) - {job.id for job in chosen}:
        st.warning(
            f"Job `{lost}` is not here: it was deleted, or belongs to another cache. Choose one "
            "of the table.",
            icon=":material/search_off:",
        )
    if not chosen:
        st.caption("Tick a job for its curves and its log; tick several to compare them.")
        return
    act(chosen)
    for job in chosen[:COMPARED]:
        show_state(job, named=len(chosen) > 1)
    time.sleep(0.03)  # so that what was chosen is painted before its curves are drawn
    show_curves(chosen[:COMPARED])
    if len(chosen) > COMPARED:
        st.caption(f"The first {COMPARED} of {len(chosen)} chosen jobs are drawn.")
    show_log(chosen[0])


def announce(found: list) -> None:
    """Say which jobs have ended since they were last drawn."""
    now = {job.id: job.state for job in found}
    seen = st.session_state.get(state.FINETUNE_SEEN, {})
    by_id = {job.id: job for job in found}
    for name in state.ended(seen, now, jobs.OVER):
        job = by_id[name]
        if job.state == "done":
            st.toast(f"{jobs.name_of(job)} is done", icon=":material/check_circle:")
        else:
            reason = f": {job.error}" if job.error else ""
            st.toast(f"{jobs.name_of(job)} {job.state}{reason}", icon=":material/error:")
    st.session_state[state.FINETUNE_SEEN] = now


def table(found: list) -> None:
    """Draw the table of jobs, and keep which of them are ticked."""
    listed = [job.id for job in found]
    if state.FINETUNE_CHOSEN not in st.session_state:
        working = [job.id for job in found if job.state == "running"]
        st.session_state[state.FINETUNE_CHOSEN] = (working or listed)[:1]
    ticked, at = read_ticked(st.session_state.get(state.FINETUNE_TABLE))
    if at is not None and at != st.session_state.get(state.FINETUNE_HEARD):
        st.session_state[state.FINETUNE_HEARD] = at
        st.session_state[state.FINETUNE_CHOSEN] = state.keep_jobs(ticked, listed)
    held = st.session_state[state.FINETUNE_CHOSEN]
    choose(state.keep_jobs(held, listed) or held)
    jobs_table(
        [{"title": title, "kind": kind} for title, kind in jobs.COLUMNS],
        jobs.rows(found),
        st.session_state[state.FINETUNE_CHOSEN],
        at,
        state.FINETUNE_TABLE,
    )
