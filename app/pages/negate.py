"""Negate: subtract a task vector, forget its task, keep the control task."""

import streamlit as st

from app import state, widgets
from app.components.negation import negation_grid, read_alpha
from app.compute import catalogue, jobs
from app.compute import negation as compute
from app.figures import negation as figures
from app.figures import style
from app.widgets import addresses, choosing
from app.widgets.rerunning import again

EQUATION = (
    r"$f(x; \theta_0 - \alpha \tau_t)$ for each task $t$ by itself. Wanted: the lowest accuracy on "
    "the target task that leaves 95 % of the accuracy on the control task."
)


def restore() -> None:
    """Take over what the address asks for, when it was opened, reloaded or gone back to."""
    asked = state.negate_visited(addresses.opened(state.NEGATE_ADDRESS))
    if asked is None:
        return
    if asked.encoder:
        st.session_state[state.NEGATE_ENCODER] = asked.encoder
    st.session_state[state.NEGATE_START] = asked.alpha


def choose_encoder() -> str:
    """Draw the choice of encoder, and return it; stop where there is none."""
    names = choosing.encoder_names()
    choosing.keep(state.NEGATE_ENCODER, names)
    return st.selectbox(
        "Encoder", names, key=state.NEGATE_ENCODER, width=260, persist_state="session"
    )


def offer(encoder: str, lacks: dict[str, list[str]]) -> None:
    """Offer to measure what was not, as background jobs."""
    count = sum(map(len, lacks.values()))
    words = ", ".join(
        f"{style.MODE_TITLES[reading].lower()} ({len(names)})" for reading, names in lacks.items()
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(
            "Measure what lacks",
            key=state.NEGATE_RUN,
            icon=":material/play_arrow:",
            disabled=bool(compute.running()),
        ):
            compute.launch(encoder, lacks)
            st.rerun()
        st.caption(f"Not run yet: {count} cells, {words}. A reading is one background job.")


@st.fragment(run_every=1.5)
def watch() -> None:
    """Draw the jobs at work; run the page again when one ends."""
    at_work = compute.running()
    if len(at_work) != st.session_state.get(state.NEGATE_AT_WORK):
        st.session_state[state.NEGATE_AT_WORK] = len(at_work)
        again()
    for job in at_work:
        st.progress(
            jobs.fraction(job),
            text=f"{job.title}: {job.state}, {job.step} of {job.steps or '?'} settings",
        )


@st.fragment
def panel(encoder: str, found: dict, names: list[str], titles: dict[str, str]) -> None:
    """Draw the grid and what follows it."""
    data = compute.grid(found, names, titles)
    start = st.session_state.get(state.NEGATE_START)
    alpha = read_alpha(st.session_state.get(state.NEGATE_GRID), data["alphas"], start)
    negation_grid({"alpha": alpha, **data}, key=state.NEGATE_GRID)
    query = state.negate_query(state.NegateView(encoder, alpha))
    addresses.write(state.NEGATE_ADDRESS, query)
    cells = [cell for column in found.values() for cell in column.values()]
    n = sorted({cell.n_validation[0] for cell in cells})
    counts = " to ".join(f"{count:,}" for count in dict.fromkeys((n[0], n[-1])))
    st.caption(
        f"Validation, exact at every stop of the slider, n = {counts} images a task, "
        f"{cells[0].n_validation[1]:,} of the control."
    )


def results(encoder: str, found: dict, names: list[str], titles: dict[str, str]) -> None:
    """Draw the test figures at the chosen alphas."""
    st.subheader("On test, at the chosen α")
    rows = compute.rows(found, names, titles)
    readings = [titles[reading] for reading in compute.READINGS]
    run = [reading for reading in readings if any(row["reading"] == reading for row in rows)]
    for column, reading in zip(st.columns(len(run)), run, strict=True):
        mine = [row for row in rows if row["reading"] == reading]
        left = sum(row["negated"] for row in mine) / len(mine)
        before = sum(row["zero-shot"] for row in mine) / len(mine)
        control = sum(row["control"] for row in mine) / len(mine)
        column.metric(
            f"{reading}: mean of {len(mine)} tasks",
            widgets.percent(left),
            f"{100 * (left - before):+.1f} points",
            delta_color="inverse",
            help="Accuracy left on the target tasks, against zero-shot; less is better.",
        )
        column.caption(
            f"control {widgets.percent(control)}, before "
            f"{widgets.percent(mine[0]['control before'])}"
        )
    figure = figures.negated(
        rows, readings, f"{encoder}: target tasks after negation, exact, whole test splits"
    )
    widgets.figure(
        figure,
        f"negation_{encoder}".replace("/", "_"),
        rows,
        compute.made(found),
        key="negate_figure",
        alt="Accuracy left on every target task in each reading, beside zero-shot accuracy",
    )
    st.caption(
        "α was chosen on validation for each task and reading; whiskers are 95 % Wilson intervals."
    )
    with st.expander("All figures", icon=":material/table:"):
        shown = [
            {
                key: f"{100 * value:.1f} %"
                if isinstance(value, float) and key != "alpha"
                else value
                for key, value in row.items()
            }
            for row in rows
        ]
        st.dataframe(shown, key="negate_table", hide_index=True)


st.title("Negate")
st.caption(EQUATION)
restore()
with widgets.engine_errors():
    chosen = choose_encoder()
    cells = compute.kept(chosen)
    lacks = compute.lacking(chosen, cells)
    measured = [name for name in compute.tasks(chosen) if any(name in c for c in cells.values())]
    named = [*measured, *{c.control_task for column in cells.values() for c in column.values()}]
    labels = {**style.MODE_TITLES, **dict(zip(named, catalogue.titles(named), strict=True))}
    if not measured and not lacks:
        st.info(
            f"{chosen} has no task vectors yet. Make them on the Fine-tune page, or with "
            f"`python -m engine finetune --encoder {chosen}`.",
            icon=":material/info:",
        )
        st.stop()
    if measured:
        panel(chosen, cells, measured, labels)
        results(chosen, cells, measured, labels)
    if lacks:
        offer(chosen, lacks)
    if compute.running() or st.session_state.get(state.NEGATE_AT_WORK):
        watch()
