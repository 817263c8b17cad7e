"""The non-linear reading's map: kept, in the making by a job, or with the button that asks."""

import streamlit as st

from app import widgets
from app.compute import disentanglement as compute
from app.compute import disentanglement_jobs as asking
from app.compute import jobs
from app.pages.disentangling.drawing import draw_map
from app.pages.disentangling.view import Cell, View, alphas_in_force
from app.widgets.rerunning import again


def draw(view: View, cell: Cell, top: float, prefix: str) -> None:
    """Draw what there is, and below it the job or the button that makes what is lacking.

    Args:
        view: What is shown.
        cell: Of the non-linear reading, with its task vectors.
        top: Upper end of the colour range.
        prefix: Of the keys.
    """
    if cell.job is not None and not cell.job.finished:
        watch(view, cell, top, prefix)
        return
    shown = draw_found(view, cell, top, prefix)
    if not shown:
        st.info(
            "Not computed yet: each cell takes forward passes of the merged model. Choose a "
            "small grid for a quick look.",
            icon=":material/hourglass_empty:",
        )
    if cell.line:
        offer(view, cell, prefix)


def draw_found(view: View, cell: Cell, top: float, prefix: str) -> bool:
    """Draw the kept map, else the cells that a job has computed; return whether there are any."""
    found = cell.found
    if found is None:
        partial = cell.job and asking.so_far(cell.job, view.tasks, cell.vectors.encoder)
        if partial:
            draw_map(view, partial, cell.vectors, top, prefix, partial=True)
        return bool(partial)
    draw_map(view, found, cell.vectors, top, prefix)
    if not compute.is_on(found, view.axis):
        G, low, high = len(found.alphas), found.alphas[0], found.alphas[-1]
        st.caption(
            f"This one is kept at {G} × {G} on [{low:g}, {high:g}]²: each cell takes forward "
            "passes."
        )
    return True


def offer(view: View, cell: Cell, prefix: str) -> None:
    """Draw the button that asks for a map, and how the last job that did so has ended."""
    if cell.job is not None and cell.job.state in ("failed", "lost"):
        said = cell.job.error or "it ended without saying why; see its log on Fine-tune"
        st.error(jobs.sentence(said), icon=":material/error:")
    asked = st.button(
        f"Compute {view.grid} × {view.grid} cells on {view.images:,} images a task",
        key=f"{prefix}start",
        icon=":material/play_arrow:",
        help="A background job, coarse to fine. What is done is kept: it can be left and gone on "
        "with.",
    )
    if asked:
        with widgets.engine_errors():
            jobs.launch(cell.line, view.place)
        again()


@st.fragment(run_every=1.5)
def watch(view: View, cell: Cell, top: float, prefix: str) -> None:
    """Draw the map so far, its job, and a way to leave it; its end runs the page again."""
    job = jobs.asked(cell.line)
    if job is None or job.finished or alphas_in_force(view.tasks) != view.alphas:
        again()
        return
    partial = asking.so_far(job, view.tasks, cell.vectors.encoder)
    if partial is not None:
        draw_map(view, partial, cell.vectors, top, prefix, partial=True)
    st.progress(jobs.fraction(job), text=told(job))
    if job.state == "queued" and job.waiting:
        st.caption(f":material/hourglass_top: {jobs.sentence(job.waiting)}")
    with st.container(horizontal=True):
        cancel = st.button(
            "Cancel",
            key=f"{prefix}cancel",
            icon=":material/close:",
            help="What is done is kept; start again to go on.",
        )
        st.link_button("On Fine-tune", jobs.link(job), icon=":material/model_training:")
    if cancel:
        with widgets.engine_errors():
            jobs.change("cancel", [job.id])
        again()


def told(job) -> str:
    """Say how far a job is, in cells."""
    cells = f"{job.step:,} of {job.steps:,} cells" if job.steps else "models of one task"
    left = "" if job.seconds_left is None else f", about {jobs.seconds(job.seconds_left)} left"
    return f"{jobs.STATES[job.state]} · {cells if job.state == 'running' else ''}{left}".rstrip(
        " ·"
    )
