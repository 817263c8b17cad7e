"""Gradients: how far a task vector is a gradient, and what merging has to do with it."""

import streamlit as st

from app import state, widgets
from app.compute import gradients as compute
from app.compute import jobs
from app.pages.gradienting import bridge, choice, early, exactness, trajectory, work
from app.widgets import addresses, choosing
from app.widgets.rerunning import again

EQUATION = (
    r"After one step of full-batch gradient descent a task vector is the gradient, $\tau_t = -\eta "
    r"\nabla L_t(\theta_0)$; after $K$ steps $\tau_t = -\eta K g_t + \eta^2 \frac{K(K-1)}{2} H_t "
    r"g_t + O(\eta^3)$. How far does that carry in practice, and what follows for merging?"
)
SECTIONS = {"trajectory": trajectory.show, "early": early.show, "bridge": bridge.show}
PARTS = {"trajectory": "trajectory", "early": "early", "bridge": "bridge"}


def remember(encoder: str, regime: str, answer: compute.Answer | None, section: str) -> None:
    """Write the view into the address."""
    held = st.session_state.get
    at = held(state.GRADIENTS_AT) if section == "trajectory" else None
    query = state.gradients_query(
        state.GradientsView(
            encoder=encoder,
            regime=regime,
            run=answer.run if answer else None,
            section=section,
            mode=held(state.GRADIENTS_MODE) if answer and section != "bridge" else None,
            task=held(state.GRADIENTS_TASK)
            if answer and section in ("exactness", "trajectory")
            else None,
            epoch=at[0] if at else None,
            alpha=None if not at else state.OWN if at[1] is None else at[1],
            pair=tuple(held(state.GRADIENTS_PAIR) or ()) if section == "bridge" else (),
            measure=held(state.GRADIENTS_MEASURE) if section == "early" else None,
        )
    )
    addresses.write(state.GRADIENTS_ADDRESS, query)


@st.fragment
def panel(
    encoder: str,
    regime: str,
    answers: list[compute.Answer],
    answer: compute.Answer | None,
    visitor: str,
) -> None:
    """Draw the section that is chosen, of the answer that is chosen."""
    with widgets.engine_errors():
        section = choice.section()
        if section == "exactness":
            exactness.show(answer, regime, visitor)
        elif answer is None:
            st.info(
                f"{choice.SECTIONS[section]} needs what the job above measures.",
                icon=":material/info:",
            )
        elif answer.record[PARTS[section]] is None:
            lacking(encoder, regime, compute.holding(answers, PARTS[section]))
        else:
            SECTIONS[section](answer)
        remember(encoder, regime, answer, section)
        if st.session_state.get(state.GRADIENTS_TO_MAP) == "asked":
            st.session_state[state.GRADIENTS_TO_MAP] = "handed on"
            st.rerun()  # the whole app, which knows the other page


def lacking(encoder: str, regime: str, other: compute.Answer | None) -> None:
    """Say that the answer lacks the section, and offer the other answer that has it."""
    how = f"`python -m engine gradients --encoder {encoder} --regime {regime}`"
    if other is None:
        st.info(
            f"This answer was asked without this section. Measure it below, or with {how}.",
            icon=":material/info:",
        )
        return
    st.info(
        f"This answer was asked without this section. Another has it: {compute.named(other)}.",
        icon=":material/info:",
    )
    if st.button(
        "Show that answer",
        key="gradients_other_answer",
        icon=":material/swap_horiz:",
        on_click=st.session_state.__setitem__,
        args=(state.GRADIENTS_RUN, other.run),
    ):
        again()


st.title("Gradients")
st.caption(EQUATION)
choice.restore()
with widgets.engine_errors():
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        chosen = choice.encoder()
        answers = compute.kept(chosen)
        which = choice.regime(answers)
        found = choice.run(answers[which])
    work.watch()
    if found is None:
        if not st.session_state.get(state.GRADIENTS_AT_WORK):
            work.offer(chosen, which)
    else:
        note = jobs.sentence(found.record["note"])
        st.caption(f"{choice.REGIMES[which]}: {compute.named(found)}. {note}")
    panel(chosen, which, answers[which], found, choosing.visitor())
    work.form(chosen, which)
