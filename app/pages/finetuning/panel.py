"""The jobs on the Fine-tune page: the live table, and what has just ended."""

import streamlit as st

from app import state, widgets
from app.compute import jobs
from app.pages.finetuning.actions import act
from app.pages.finetuning.choice import COMPARED, choose
from app.pages.finetuning.details import show_curves, show_log, show_state
from app.widgets.rerunning import again

LIVE, IDLE = 1.0, 10.0  # seconds between looks at the jobs: while some are at work, and else
SHOWN = 360  # pixels of the table at most


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
    """Draw the table of jobs; what is ticked is a job, wherever its row moves to."""
    listed = [job.id for job in found]
    if state.FINETUNE_CHOSEN not in st.session_state:
        working = [job.id for job in found if job.state == "running"]
        st.session_state[state.FINETUNE_CHOSEN] = (working or listed)[:1]
    held = st.session_state[state.FINETUNE_CHOSEN]
    choose([name for name in held if name in listed] or held)
    ticked = [place for place, name in enumerate(listed) if name in held]
    selection = {"selection": {"rows": ticked, "columns": [], "cells": []}}
    drawn = st.session_state.get(state.FINETUNE_TABLE)
    if drawn is not None and sorted(drawn["selection"]["rows"]) != ticked:
        st.session_state[state.FINETUNE_TABLE] = selection  # rows have moved below the ticks

    def tick() -> None:
        rows = st.session_state[state.FINETUNE_TABLE]["selection"]["rows"]
        choose([listed[row] for row in sorted(rows) if row < len(listed)])

    st.dataframe(
        jobs.rows(found),
        key=state.FINETUNE_TABLE,
        on_select=tick,
        selection_mode="multi-row",
        selection_default=selection,
        hide_index=True,
        height=min(SHOWN, 35 * (len(found) + 1) + 2),
        placeholder="–",
        column_config=COLUMNS,
        alt="Jobs, newest first, with state, progress, loss and validation accuracy",
    )


COLUMNS = {
    "state": st.column_config.TextColumn("state", width=96, pinned=True),
    "job": st.column_config.TextColumn("job", width="medium"),
    "progress": st.column_config.ProgressColumn("progress", format="percent", width=130),
    "loss": st.column_config.NumberColumn("loss (nats)", format="%.3f"),
    "validation": st.column_config.NumberColumn("validation", format="%.1f %%"),
    "rate": st.column_config.NumberColumn("rate (steps/s)", format="%.2f"),
    "left": st.column_config.TextColumn("time left"),
}
