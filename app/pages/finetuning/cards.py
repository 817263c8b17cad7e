"""A job on the page that waits for it: how far it is, and the buttons that change it."""

import streamlit as st

from app import widgets
from app.compute import jobs
from app.pages.finetuning.details import show_state
from app.widgets.rerunning import again


def draw(job, prefix: str) -> None:
    """Draw a job in a box of its own.

    Args:
        job: At work, waiting or stopped.
        prefix: Of the keys: the page's name.
    """
    with st.container(border=True, key=f"{prefix}_job_{job.id}"):
        show_state(job, named=True)
        buttons(job, prefix)


def buttons(job, prefix: str) -> None:
    """Draw what changes a job, and the way to it on Fine-tune.

    Args:
        job: At work, waiting or stopped.
        prefix: Of the keys.
    """
    with st.container(horizontal=True):
        if not job.finished:
            act("Cancel", "cancel", job, prefix, "stop_circle", "Keeps its working state.")
        else:
            act("Resume", "resume", job, prefix, "resume", "Goes on where it stopped.")
            act("Discard", "delete", job, prefix, "delete", "Forgets the job and what it had.")
        st.link_button(
            "On Fine-tune",
            jobs.link(job),
            icon=":material/model_training:",
            help="The job among all others, with its log.",
        )


def act(title: str, name: str, job, prefix: str, icon: str, about: str) -> None:
    """Draw a button that changes a job."""
    key = f"{prefix}_{name}_{job.id}"
    if st.button(title, key=key, icon=f":material/{icon}:", help=about):
        with widgets.engine_errors():
            if name == "delete":
                jobs.delete([job.id], artifacts=False)
            else:
                jobs.change(name, [job.id])
        again()


def choose_place(key: str) -> str:
    """Draw the choice of the back end, where there is one, and return it.

    Args:
        key: Of the control.

    Returns:
        "local" or "slurm".
    """
    offered = jobs.back_ends()
    if len(offered) == 1:
        return offered[0]
    return st.segmented_control(
        "Where it runs", offered, default=offered[0], required=True, key=key
    )
