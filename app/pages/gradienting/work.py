"""Jobs of the Gradients page: the form that starts one, and those at work."""

import streamlit as st

from app import state, widgets
from app.compute import gradients_jobs as compute
from app.compute import jobs
from app.pages.finetuning import cards
from app.pages.gradienting import choice
from app.widgets.rerunning import again


def field(name: str) -> str:
    """Return the key of a field of the form."""
    return state.GRADIENTS_FORM + name


def offer(encoder: str, regime: str) -> None:
    """Say that nothing is kept of a regime, and draw the button that measures it."""
    with st.container(border=True, key="gradients_offer"):
        st.markdown(
            f"**Not measured yet: {choice.REGIMES[regime]}, {encoder}.** A background job trains "
            "every task, non-linearly and linearized, and measures all four sections; what it "
            "finds is kept. It can be cancelled and resumed."
        )
        start(encoder, regime, {}, "gradients_offer_start", "Measure")


def form(encoder: str, regime: str) -> None:
    """Draw the form for another measurement."""
    with st.expander("Measure with other settings", icon=":material/tune:"):
        titles = compute.tasks()
        chosen = st.multiselect(
            "Tasks",
            list(titles),
            key=field("tasks"),
            format_func=titles.get,
            placeholder="all eight tasks",
        )
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            fields = {
                "tasks": [name for name in titles if name in chosen],
                "epochs": st.number_input(
                    "Epochs", 1, 1000, None, key=field("epochs"), placeholder="16", width=120
                ),
                "images": st.number_input(
                    "Images a task",
                    2 if regime == "gd" else 128,  # a whole batch at least
                    10**6,
                    None,
                    key=field("images"),
                    placeholder="512",
                    width=130,
                    help="Of the train split, drawn by the seed.",
                ),
                "rate": st.number_input(
                    "Rate η",
                    0.0,
                    None,
                    None,
                    key=field("rate"),
                    format="%g",
                    placeholder="default",
                    width=130,
                    help="Of the paths. By default gd and sgd take it from the curvature, AdamW "
                    "the rate of fine-tuning.",
                ),
                "seed": st.number_input(
                    "Seed", 0, 10**9, None, key=field("seed"), placeholder="0", width=120
                ),
            }
            one = len(chosen) == 1
            title = "Measure in the background"
            start(encoder, regime, fields, "gradients_form_start", title, disabled=one)
        if one:
            st.caption(":material/info: One task has nothing to be merged with: choose another.")
        line = " ".join(compute.words(encoder, regime, fields))
        st.caption(f"`python -m engine {line}`")


def start(
    encoder: str, regime: str, fields: dict, key: str, title: str, *, disabled: bool = False
) -> None:
    """Draw the button that launches a job."""
    if st.button(title, key=key, icon=":material/play_arrow:", type="primary", disabled=disabled):
        with widgets.engine_errors():
            jobs.launch(compute.words(encoder, regime, fields))
        st.rerun()


@st.fragment(run_every=1.5)
def watch() -> None:
    """Draw the jobs at work or stopped; run the page again when one begins or ends."""
    at_work, stopped = jobs.followed(compute.VERB)
    now = [job.id for job in at_work]
    before = st.session_state.get(state.GRADIENTS_AT_WORK, [])
    if now != before:
        st.session_state[state.GRADIENTS_AT_WORK] = now
        if compute.answered(set(before) - set(now)):
            st.session_state.pop(state.GRADIENTS_RUN, None)  # the newest answer comes first
        again()
    for job in [*at_work, *stopped]:
        cards.draw(job, "gradients")
