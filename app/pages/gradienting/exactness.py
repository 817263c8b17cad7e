"""Exactness: tau is -eta g after one full-batch step, and how the error grows after several."""

import streamlit as st

from app import state, widgets
from app.compute import gradients as compute
from app.compute import gradients_tables as tables
from app.compute.background import board, follow
from app.compute.gradients import Answer
from app.compute.records import provenance
from app.figures import gradients as figures
from app.pages.gradienting import choice
from app.widgets import choosing
from app.widgets.rerunning import again

ULP = (
    "In ulps: spacings of float64 numbers at the larger of the weight before and after the step. "
    "The floor is what rounding alone leaves."
)
INSTEAD = {
    "sgd": "An epoch of B equal minibatches gives −ηB∇L up to η², not equality.",
    "adamw": "AdamW scales every weight’s step by its past gradients: its task vector is no sum of "
    "gradients, at any rate. How far the directions agree is under Trajectory.",
}


def show(answer: Answer | None, regime: str, visitor: str) -> None:
    """Draw the section.

    Args:
        answer: Of the regime chosen; None where nothing is kept.
        regime: Chosen.
        visitor: Who asks.
    """
    if answer is not None and answer.record["exactness"] is not None:
        measured(answer)
    elif regime != "gd":
        st.info(
            "The equality is a statement about full-batch gradient descent: choose that regime "
            f"above. {INSTEAD[regime]}",
            icon=":material/info:",
        )
        if regime == "sgd" and answer is not None and answer.record["trajectory"] is not None:
            minibatches(answer)
    small_network(visitor)


def measured(answer: Answer) -> None:
    """Draw what was measured on the encoder."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        mode = choice.mode(answer)
        task = choice.task(answer)
        found = answer.part("exactness", mode)
        rates = list(found["rates"])
        choosing.keep("gradients_rate", rates, rates[-1])
        rate = st.selectbox(
            "η of the layers",
            rates,
            key="gradients_rate",
            format_func="{:.3g}".format,
            width=150,
            persist_state="session",
        )
    equalities(answer, mode)
    part = found["tasks"][task]
    left, right = st.columns(2, gap="large")
    with left:
        errors(answer, mode, task, part)
    with right:
        layers(answer, mode, task, rate)
    rows = tables.equality_rows(answer, mode)
    st.dataframe(
        shown(rows),
        key="gradients_equalities",
        hide_index=True,
        height="content",
    )
    st.caption(
        f"{compute.exactly(answer, mode)}. β: {part['beta_note'].rstrip('.')}. Slopes should be 2 "
        "and 3 where the network is smooth."
    )
    with st.container(horizontal=True):
        widgets.downloads(
            choice.file_name(answer, "equalities", mode),
            rows,
            tables.made(answer, "how exactly a task vector is a gradient, by task", mode=mode),
            key="gradients_equalities_files",
        )


def equalities(answer: Answer, mode: str) -> None:
    """Draw each equality as a number with its rounding floor."""
    worst = compute.worst_equalities(answer, mode)
    steps = answer.part("exactness", mode)["steps"]
    told = {
        "one_step": ("One full-batch step: τ = −ηg", "1 ulp"),
        "telescoping": (f"{steps} steps: τ = −η Σ g(θᵏ)", "about 1 ulp a step"),
        "merge": ("Merge after one step = joint step", "about 1 ulp a task"),
    }
    columns = st.columns(4)
    for column, (key, (title, floor)) in zip(columns, told.items(), strict=False):
        ulps, relative = worst[key]
        column.metric(title, "–" if ulps is None else f"{ulps:.2g} ulp", help=ULP)
        size = "" if relative is None else f", {relative:.1e} of ‖ηg‖"
        column.caption(f"largest of all weights and tasks{size}; floor {floor}")
    ulps, relative = worst["one_step_float32"]
    columns[3].metric(
        "The same step in float32",
        "–" if relative is None else f"{relative:.1e}",
        help="A small step is lost in the spacing of float32 numbers: the equality cannot be seen.",
    )
    within = "not measured" if ulps is None else f"though within {ulps:.2g} float32 ulp"
    columns[3].caption(f"of ‖ηg‖, {within}")


def errors(answer: Answer, mode: str, task: str, part: dict) -> None:
    """Draw the error against the rate."""
    found = answer.part("exactness", mode)
    kind = "exact" if answer.record["exact"] else "approximate"
    n = found["images"][task]
    title = f"{choice.plain(answer.title(task))}: error after K = {found['steps']} full-batch steps"
    widgets.figure(
        figures.errors(part, found["rates"], found["floor"], f"{title}<br>{kind}, n = {n:,}"),
        choice.file_name(answer, "error_against_rate", mode),
        tables.error_rows(answer, mode),
        tables.made(
            answer,
            "||tau + eta K g||, the same with the Hessian term, and bounds with an estimated "
            "curvature, of every task at every rate",
            mode=mode,
            steps=found["steps"],
        ),
        key="gradients_errors",
        alt="Error of tau against the learning rate on logarithmic axes, raw, corrected and bounds",
    )
    st.caption(
        "Raw: ‖τ + ηKg‖. Corrected: ‖τ + ηKg − η²K(K−1)/2 · Hg‖. The bounds hold for β at least "
        "the largest curvature on the path; it is estimated from below by power iteration."
    )


def layers(answer: Answer, mode: str, task: str, rate: float) -> None:
    """Draw the error layer by layer at one rate."""
    found = answer.part("exactness", mode)
    place = list(found["rates"]).index(rate)
    title = f"{choice.plain(answer.title(task))}: error by layer at η = {rate:.3g}"
    n = found["images"][task]
    widgets.figure(
        figures.layers(
            compute.layers_of(answer, mode, task, place),
            f"{title}<br>K = {found['steps']} steps, n = {n:,}",
        ),
        choice.file_name(answer, "error_by_layer", mode, task),
        tables.layer_rows(answer, mode, task),
        tables.made(answer, "the same error in each layer", mode=mode, task=task),
        key="gradients_layers",
        alt="Error over displacement in each layer, raw and corrected",
    )
    with st.expander("Equalities and slopes by layer"):
        rows = tables.layer_equality_rows(answer, mode, task)
        st.dataframe(
            shown(rows),
            key="gradients_layer_equalities",
            hide_index=True,
            height="content",
        )
        st.caption(
            f"One step at η = {found['rates'][0]:.3g}, telescoping at {found['rates'][-1]:.3g}. "
            "The bounds have no layers: β is the curvature in all weights at once."
        )


def minibatches(answer: Answer) -> None:
    """Draw what holds of minibatch SGD, and how far it is from the full-batch step."""
    mode = choice.mode(answer)
    rows = tables.minibatch_rows(answer, mode)
    st.dataframe(
        shown(rows),
        key="gradients_minibatches",
        hide_index=True,
        height="content",
    )
    steps, precision = answer.record["steps_per_epoch"], answer.record["precision"]
    st.caption(
        f"{compute.about(answer)}. τ is minus η times the sum of the gradients its steps took, to "
        f"the rounding of {precision}; it is not −ηB∇L, the full gradient B = {steps} times, which "
        "holds to first order in η: at a rate that trains well the rest is not small."
    )
    with st.container(horizontal=True):
        widgets.downloads(
            choice.file_name(answer, "minibatches", mode),
            rows,
            tables.made(answer, "tau of SGD against sums of gradients, by task", mode=mode),
            key="gradients_minibatches_files",
        )


# --------------------------------------------------------------------------- the small network


def small_network(visitor: str) -> None:
    """Draw the check of every statement, or the button that starts it."""
    st.subheader("Every statement, on a small smooth network")
    if not st.session_state.get(state.GRADIENTS_CHECK):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Check now",
                key="gradients_check_start",
                icon=":material/play_arrow:",
                on_click=st.session_state.__setitem__,
                args=(state.GRADIENTS_CHECK, True),
            )
            st.caption(
                "Seconds, in float64, in the background; `python -m engine gradients --check`."
            )
        return
    work = follow(compute.check(visitor))
    if not work.finished.is_set():
        watch(work)
        return
    if work.error is not None or work.result is None:
        board().drop(work)
        st.session_state[state.GRADIENTS_CHECK] = False
        if work.error is not None:
            raise work.error
        again()
        return
    checked(work.result)


@st.fragment(run_every=0.7)
def watch(work) -> None:
    """Draw that the check is at work, and the way out; run the page again when it is done."""
    if work.finished.is_set():
        again()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(work.fraction, text=work.note)
        st.button("Cancel", key="gradients_check_cancel", on_click=leave, args=(work,))


def leave(work) -> None:
    """Stop waiting for the check."""
    work.cancel()
    st.session_state[state.GRADIENTS_CHECK] = False


def checked(found: dict) -> None:
    """Draw what the check found."""
    facts = provenance(
        "every statement of the table of checks on a small smooth network, float64",
        exact=True,
        seconds=found["seconds"],
        passed=found["passed"],
    )
    left, right = st.columns(2, gap="large")
    with left:
        passed = sum(row["passed"] for row in found["checks"])
        st.markdown(f"**{passed} of {len(found['checks'])} checks pass**, {found['seconds']:.1f} s")
        st.dataframe(
            [
                {
                    "check": row["name"],
                    "value": number(row["value"]),
                    "passes when": row["passes_when"],
                    "": "✓ passed" if row["passed"] else "✗ failed",
                }
                for row in found["checks"]
            ],
            key="gradients_checks",
            hide_index=True,
            height="content",
        )
        with st.container(horizontal=True):
            widgets.downloads("checks", found["checks"], facts, key="gradients_checks_files")
    with right:
        curves = {**found["curves"], **{key: found[key] for key in figures.SLOPES.values()}}
        widgets.figure(
            figures.errors(
                curves,
                found["curves"]["rates"],
                None,
                "Small smooth network: error against the rate<br>exact, float64",
            ),
            "small_network",
            tables.curve_rows(found),
            facts,
            key="gradients_small",
            alt="Error of tau against the rate on the small network, raw, corrected and bounds",
        )


def shown(rows: tables.Rows) -> tables.Rows:
    """Write rows shortly; slopes, which should be whole, with their hundredths."""
    return [
        {
            key: f"{value:.2f}" if key.startswith("slope") and value is not None else number(value)
            for key, value in row.items()
        }
        for row in rows
    ]


def number(value: object) -> object:
    """Write a number of any size shortly; leave words as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else value
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
