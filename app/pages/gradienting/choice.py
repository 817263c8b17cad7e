"""What the Gradients page is about: controls that several of its sections share."""

import streamlit as st

from app import state
from app.compute import gradients as compute
from app.compute.gradients import Answer
from app.figures import style
from app.widgets import addresses, choosing

REGIMES = {
    "gd": "Full-batch descent",
    "sgd": "Minibatch SGD",
    "adamw": "AdamW",
}
SECTIONS = {
    "exactness": "Exactness",
    "trajectory": "Trajectory",
    "early": "Merge early",
    "bridge": "Bridge",
}


def restore() -> None:
    """Take over what the address asks for, when it was opened, reloaded or gone back to."""
    asked = state.gradients_visited(addresses.opened(state.GRADIENTS_ADDRESS))
    if asked is None:
        return
    wanted = {
        state.GRADIENTS_ENCODER: asked.encoder,
        state.GRADIENTS_REGIME: asked.regime,
        state.GRADIENTS_RUN: asked.run,
        state.GRADIENTS_SECTION: asked.section,
        state.GRADIENTS_MODE: asked.mode,
        state.GRADIENTS_TASK: asked.task,
        state.GRADIENTS_PAIR: asked.pair or None,
        state.GRADIENTS_MEASURE: asked.measure,
    }
    st.session_state.update({key: value for key, value in wanted.items() if value is not None})
    if asked.epoch is not None or asked.alpha is not None:
        alpha = None if asked.alpha == state.OWN else asked.alpha
        st.session_state[state.GRADIENTS_AT] = (asked.epoch, alpha)
        held = st.session_state.get(state.GRADIENTS_REVISION, 0)
        st.session_state[state.GRADIENTS_REVISION] = held + 1


def encoder() -> str:
    """Draw the choice of the encoder, and return it; stop where there is none."""
    names = choosing.encoder_names()
    choosing.keep(state.GRADIENTS_ENCODER, names)
    return st.selectbox(
        "Encoder", names, key=state.GRADIENTS_ENCODER, width=240, persist_state="session"
    )


def regime(answers: dict[str, list[Answer]]) -> str:
    """Draw the choice of the regime, never mixed with another, and return it."""
    measured = [name for name in REGIMES if answers[name]]
    choosing.keep(state.GRADIENTS_REGIME, list(REGIMES), measured[0] if measured else None)
    return st.segmented_control(
        "Regime of training",
        list(REGIMES),
        required=True,
        format_func=REGIMES.get,
        key=state.GRADIENTS_REGIME,
        help="The theorem is about full-batch gradient descent. No schedule, clipping, decay or "
        "augmentation in any of them.",
        persist_state="session",
    )


def run(found: list[Answer]) -> Answer | None:
    """Draw the choice among several answers of a regime, and return one; None without any."""
    if not found:
        return None
    by_name = {answer.run: answer for answer in found}
    choosing.keep(state.GRADIENTS_RUN, list(by_name))
    if len(found) == 1:
        return found[0]
    chosen = st.selectbox(
        "Answer",
        list(by_name),
        format_func=lambda name: compute.named(by_name[name]),
        key=state.GRADIENTS_RUN,
        width=420,
        persist_state="session",
    )
    return by_name[chosen]


def section() -> str:
    """Draw the choice of the section, and return it."""
    choosing.keep(state.GRADIENTS_SECTION, list(SECTIONS))
    return st.segmented_control(
        "Section",
        list(SECTIONS),
        required=True,
        format_func=SECTIONS.get,
        key=state.GRADIENTS_SECTION,
        label_visibility="collapsed",
        persist_state="session",
    )


def mode(answer: Answer) -> str:
    """Draw the choice between fine-tuning f and its linearization, and return it."""
    choosing.keep(state.GRADIENTS_MODE, answer.modes)
    return st.segmented_control(
        "Fine-tuned",
        answer.modes,
        required=True,
        format_func=style.MODE_TITLES.get,
        key=state.GRADIENTS_MODE,
        help="Non-linear trains f, linear trains its first-order expansion at θ₀.",
        persist_state="session",
    )


def task(answer: Answer) -> str:
    """Draw the choice of the task that is looked at, and return it."""
    choosing.keep(state.GRADIENTS_TASK, answer.tasks)
    return st.selectbox(
        "Task",
        answer.tasks,
        key=state.GRADIENTS_TASK,
        format_func=answer.title,
        width=240,
        persist_state="session",
    )


def file_name(answer: Answer, what: str, *more: str) -> str:
    """Name a download."""
    record = answer.record
    return "_".join([what, record["encoder"], record["regime"], *more]).replace("/", "_")


def plain(title: str) -> str:
    """Return a title without what Plotly would read as its own signs."""
    return "".join(" " if letter in "{}%<>&" else letter for letter in title)
