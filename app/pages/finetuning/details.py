"""What the Fine-tune page shows of chosen jobs: how far, curves, log."""

import shlex

import streamlit as st

from app import widgets
from app.compute import jobs
from app.figures import jobs as figures

DRAWN = 5.0  # seconds that the curves of jobs at work stand still


def show_state(job, named: bool) -> None:
    """Draw how far a job is, and what its user can do next; its name where there are several."""
    told = [f"step {job.step:,} of {job.steps:,}" if job.steps else "steps not known yet"]
    told += [] if job.loss is None else [f"loss {job.loss:.3f} nats"]
    told += [] if job.validation is None else [f"validation {widgets.percent(job.validation)}"]
    if job.state == "running":
        told += [] if job.rate is None else [f"{job.rate:.2f} steps/s"]
        told += [] if job.seconds_left is None else [f"{jobs.seconds(job.seconds_left)} left"]
    elif job.seconds:
        told += [f"{jobs.seconds(job.seconds)} at work"]
    told += [jobs.where(job)]
    told += [] if job.peak_memory is None else [f"{widgets.megabytes(job.peak_memory)} at most"]
    told.insert(0, f"**{jobs.STATES[job.state]}**")
    told[:0] = [f"**{jobs.name_of(job)}**"] if named else []
    st.progress(jobs.fraction(job), text=" · ".join(told))
    with st.container():  # always there: what follows stands still, a click on it is not lost
        show_advice(job)


def show_advice(job) -> None:
    """Draw what the user of a job can do next, if anything."""
    if job.state == "failed":
        st.error(jobs.sentence(job.error or NO_CAUSE), icon=":material/error:")
    elif job.state == "lost":
        st.warning(jobs.sentence(job.error or LOST), icon=":material/help:")
    elif job.state == "queued" and job.waiting:
        st.caption(f":material/hourglass_top: {jobs.sentence(job.waiting)}")
    elif job.state == "cancelled":
        st.caption(":material/stop_circle: Its working state is kept: Resume goes on from there.")
    elif job.state == "done" and (link := jobs.merge_link(job)):
        st.link_button(
            "Its checkpoint in Merge",
            link,
            icon=":material/tune:",
            help="Merge takes the newest checkpoint of each task.",
        )


NO_CAUSE = "It ended without saying why; see the log below, then Retry"
LOST = "Its process is gone; Resume goes on from the last working state"


def show_curves(chosen: list) -> None:
    """Draw loss and validation accuracy of the chosen jobs as far as they are."""
    drawn = as_drawn(
        str(jobs.jobs_home()),
        tuple((job.id, job.attempt, job.state, job.steps, job.loss is None) for job in chosen),
        chosen,
    )
    if drawn is None:
        return
    loss, validation, rows = drawn
    left, right = st.columns(2, gap="large")
    left.plotly_chart(
        loss,
        key="finetune_loss",
        config=widgets.chart_config("loss", "png"),
        alt="Training loss against the step",
    )
    right.plotly_chart(
        validation,
        key="finetune_validation",
        config=widgets.chart_config("validation", "png"),
        alt="Validation accuracy against the step",
    )
    with st.popover("Download", icon=":material/download:", key="finetune_download"):
        widgets.downloads("fine_tuning", rows, jobs.provenance(chosen), key="finetune_rows")


# for a few seconds: two figures take 60 ms to make, and the browser draws none anew that it has
@st.cache_resource(ttl=DRAWN, max_entries=64, show_spinner=False)
def as_drawn(home: str, looked_at: tuple, _chosen: list) -> tuple | None:
    """Make the figures of chosen jobs and the rows behind them.

    Args:
        home: Of the jobs.
        looked_at: What tells the figures apart: of each job its id, attempt and state, how many
            steps it has and whether it has no loss yet.
        _chosen: The jobs.

    Returns:
        Loss, validation accuracy and the rows; None for jobs that draw no curves.
    """
    curves, rows = [], []
    for job in _chosen:
        parts = jobs.parts(job)
        for part, points in parts.items():
            name = jobs.name_of(job) if len(parts) == 1 else f"{part} · {jobs.name_of(job)}"
            curves.append(figures.Curve(name, points, job.steps // len(parts) or None))
            rows += [{"job": job.id, "part": part, **point} for point in points]
    if not rows and not any(job.verb == "finetune" for job in _chosen):
        return None
    if not curves:  # empty axes: nothing jumps when the first point comes
        curves = [figures.Curve(jobs.name_of(_chosen[0]), [], _chosen[0].steps or None)]
    return figures.loss_curves(curves), figures.validation_curves(curves), rows


def show_log(job) -> None:
    """Draw what a job said last, and what was asked of it."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**Log**, newest last")
        said = "\n".join(jobs.log_tail(job)) or "Nothing was said yet."
        st.code(said, language=None, height=220, wrap_lines=True)
    with right:
        st.markdown("**Job**")
        st.code(command(job), language=None, wrap_lines=True)
        age = jobs.age(job.created)
        when = age if age == "now" else f"{age} ago"
        st.caption(f"`{job.id}` · attempt {job.attempt} · asked for {when}")


def command(job) -> str:
    """Write a job's command line for a shell, an option a line: a narrow page breaks none."""
    lines = [f"python -m engine {job.verb}"]
    for word in job.arguments:
        if word.startswith("--"):
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n".join(lines)
