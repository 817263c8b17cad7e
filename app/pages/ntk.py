"""Eigenfunctions: where those of the tangent kernel live, how many there are, which layers."""

from collections.abc import Sequence

import streamlit as st

from app import state, widgets
from app.components.energy import View, energy_explorer, read_view
from app.compute import (
    catalogue,
    energies,
    energy_tables,
    jobs,
    ntk,
    ntk_jobs,
    ntk_kept,
    ntk_pairs,
    records,
)
from app.compute.energies import Shown
from app.compute.ntk_questions import LOGIT_TITLES, LOGITS, MOST_POINTS, POINTS, Question
from app.figures import ntk as figures
from app.pages import ntk_figures as drawing
from app.pages.finetuning import cards
from app.widgets import addresses, choosing
from app.widgets.rerunning import again

MOST_DRAWN = 1_000_000  # images points may be drawn from
SHOWN = 3  # jobs at work, drawn
NOBODY = "nothing"  # no encoder beside the first
TYPED = {
    "accept_new_options": True,
    "help": "In the cache, or typed: NAME:TAG, NAME:FILE or NAME:random of open_clip, as in "
    "ViT-B-32-quickgelu:random.",
}
INTRO = (
    r"The **local energy** $\mathcal{E}_\mathrm{loc}(x) = \sum_\rho \phi_\rho(x)^2$ says how much "
    "of the tangent kernel's eigenfunctions, found on a task, lives at an image. High on the task "
    "and low on a control task means that fine-tuning on the one leaves the other alone: "
    "localization. The paper's curve favours the kernel's own rows, so its null and the "
    "corrected score always stand beside it."
)


def restore() -> None:
    """Take over what the address asks for, when it was opened, reloaded or gone back to."""
    asked = state.ntk_visited(addresses.opened(state.NTK_ADDRESS))
    if asked is None:
        return
    wanted = {
        state.NTK_ENCODER: asked.encoder,
        state.NTK_BESIDE: asked.beside,
        state.NTK_TASK: asked.task,
        state.NTK_CONTROL: asked.control,
        state.NTK_POINTS: asked.points,
        state.NTK_LOGITS: asked.logits,
        state.NTK_LIMIT: asked.limit,
    }
    st.session_state.update({key: value for key, value in wanted.items() if value is not None})
    # an address without a number of points opens with what is kept of its pair
    pair = (asked.encoder, asked.task, asked.control) if asked.points is not None else None
    st.session_state[state.NTK_PAIR] = pair
    st.session_state[state.NTK_AT] = (asked.setting, asked.order)
    st.session_state[state.NTK_REVISION] = st.session_state.get(state.NTK_REVISION, 0) + 1


def typed(names: Sequence[str], key: str) -> list[str]:
    """Return encoders to choose from, with one that was typed: it names a tag, seed or file."""
    held = st.session_state.get(key)
    return (
        [*names, held] if isinstance(held, str) and ":" in held and held not in names else [*names]
    )


def choose() -> list[Question]:
    """Draw the choice of encoders, tasks and points; one question an encoder."""
    names = typed(choosing.encoder_names(), state.NTK_ENCODER)
    tasks = ntk_pairs.references()
    choosing.keep(state.NTK_ENCODER, names)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        encoder = st.selectbox(
            "Encoder", names, key=state.NTK_ENCODER, width=168, persist_state="session", **TYPED
        )
        others = [NOBODY, *(name for name in typed(names, state.NTK_BESIDE) if name != encoder)]
        choosing.keep(state.NTK_BESIDE, others, ntk.twin(encoder, names) or NOBODY)
        beside = st.selectbox(
            "Beside it", others, key=state.NTK_BESIDE, width=168, persist_state="session", **TYPED
        )
        choosing.keep(state.NTK_TASK, list(tasks))
        task = st.selectbox(
            "Task (rows)",
            list(tasks),
            key=state.NTK_TASK,
            format_func=tasks.get,
            width=168,
            persist_state="session",
        )
        controls = [name for name in tasks if name != task]
        choosing.keep(state.NTK_CONTROL, controls, catalogue.task_names()[1])
        control = st.selectbox(
            "Control",
            controls,
            key=state.NTK_CONTROL,
            format_func=tasks.get,
            width=168,
            persist_state="session",
        )
        open_what_is_kept(encoder, task, control)
        points = st.number_input(
            "Points a block",
            4,
            MOST_POINTS,
            step=10,
            key=state.NTK_POINTS,
            width=120,
            help="Of the task, of the control, and held out; the paper takes 200.",
            persist_state="session",
        )
        logits = st.selectbox(
            "Kernels of",
            LOGITS,
            key=state.NTK_LOGITS,
            format_func=LOGIT_TITLES.get,
            width=144,
            help="One kernel for each output logit, or their sum: the trace kernel.",
            persist_state="session",
        )
        limit = choose_limit(int(points), (task, control))
    chosen = [encoder] if beside == NOBODY else [encoder, beside]
    return [Question(name, task, control, int(points), logits, limit=limit) for name in chosen]


def choose_limit(points: int, pair: tuple[str, str]) -> int | None:
    """Draw how many train images points are drawn from, and return it; None for the default."""
    held = st.session_state.get(state.NTK_LIMIT)
    if not (isinstance(held, int) and 2 * points <= held <= MOST_DRAWN):
        st.session_state[state.NTK_LIMIT] = None
    bounds = [ntk_kept.bound(Question("", *pair, points, "1"), name) for name in pair]
    usual = max((bound for bound in bounds if bound is not None), default=None)
    return st.number_input(
        "Drawn from the first",
        2 * points,
        MOST_DRAWN,
        step=100,
        key=state.NTK_LIMIT,
        placeholder="all images" if usual is None else f"{usual:,} images",
        width=144,
        help="Points are drawn from so many of the first images of each shuffled train split; "
        "no more are decoded. Left empty: 20 a point, at least 2,000; the miniature's from all.",
        persist_state="session",
    )


def open_what_is_kept(encoder: str, task: str, control: str) -> None:
    """Set points and logits to those of a kept answer, whenever the pair is another."""
    pair = (encoder, task, control)
    if st.session_state.get(state.NTK_PAIR) != pair:
        st.session_state[state.NTK_PAIR] = pair
        found = ntk_kept.choice(encoder, task, control)
        if found is not None:
            st.session_state[state.NTK_POINTS], st.session_state[state.NTK_LOGITS] = found
    held = st.session_state.get(state.NTK_POINTS)
    if not isinstance(held, int) or not 4 <= held <= MOST_POINTS:
        st.session_state[state.NTK_POINTS] = POINTS
    choosing.keep(state.NTK_LOGITS, LOGITS, "3")


def look_up(questions: Sequence[Question]) -> dict:
    """Find what is kept; an encoder that only stands beside may fail without hiding the first."""
    from engine.errors import EngineError

    answers = {questions[0]: ntk_kept.answer(questions[0])}
    for question in questions[1:]:
        try:
            answers[question] = ntk_kept.answer(question)
        except EngineError as error:
            widgets.show_error(error)
    return answers


@st.fragment(run_every=1.5)
def watch() -> None:
    """Draw the jobs that measure local energy; run the page again when one begins or ends."""
    at_work, stopped = jobs.followed(ntk_jobs.VERB)
    now = [job.id for job in at_work]
    if now != st.session_state.get(state.NTK_AT_WORK, []):
        st.session_state[state.NTK_AT_WORK] = now
        again()
    for job in [*at_work[:SHOWN], *stopped]:
        cards.draw(job, "ntk")
    if len(at_work) > 1:
        count = f"Cancel all {len(at_work)} jobs"
        if st.button(count, key="ntk_cancel_all", icon=":material/stop_circle:"):
            with widgets.engine_errors():
                jobs.change("cancel", now)
            again()


def offer(missing: Sequence[Question], key: str, what: str) -> None:
    """Draw what computing would cost, and the button that starts it."""
    with widgets.engine_errors():
        plan = ntk.plan(missing)
    with st.container(border=True, key=f"{key}_plan"):
        st.markdown(f"**Not computed yet: {what}.** A background job finds it, and it is kept.")
        with st.container(horizontal=True, gap="large"):
            st.metric("Estimated time", plan.time, width="content")
            st.metric("Operations", f"{plan.operations / 1e9:,.0f} GFLOP", width="content")
            st.metric("Memory beyond the encoder", widgets.megabytes(plan.bytes), width="content")
        for line in plan.text[:2]:
            st.caption(line.replace("\n", "; "))
        place = cards.choose_place(f"{key}_place")
        if st.button("Compute", key=f"{key}_start", type="primary", icon=":material/play_arrow:"):
            with widgets.engine_errors():
                ntk_jobs.launch(missing, place)
            again()


@st.fragment
def panel(shown: list[Shown], questions: list[Question]) -> None:
    """Draw the explorer, and every figure that follows the released setting."""
    offered = [item.key for item in energies.common(shown)]
    revision = st.session_state.get(state.NTK_REVISION, 0)
    at, order = st.session_state.get(state.NTK_AT) or (None, None)
    start = at if at in offered else energies.everything(shown[0].energy)
    raw = st.session_state.get(state.NTK_EXPLORER)
    view = read_view(raw, offered, start, order or figures.ORDERS[0], revision)
    st.session_state[state.NTK_AT] = (view.setting, view.order)
    remember(questions, view)
    payload = energies.explorer(shown, view.setting, view.order, revision)
    energy_explorer(payload, key=state.NTK_EXPLORER)
    st.caption(
        "AUC: how often a point of the first block has more energy than one of the second; 1/2 is "
        "no separation; 95 % interval. Bands: one standard deviation over logits. "
        f"**{energies.TITLES['heldout']}** gives the corrected score."
    )
    left, right = st.columns(2, gap="large")
    with left:
        drawing.show_points(shown, view)
    with right:
        drawing.show_densities(shown, view)
    left, right = st.columns(2, gap="large")
    with left:
        drawing.show_scores(shown, view)
    with right:
        drawing.show_spectrum(shown)
    left, right = st.columns(2, gap="large")
    with left:
        drawing.show_weighted(shown, view)
    with right:
        drawing.show_layers(shown)


def remember(questions: Sequence[Question], view: View | None) -> None:
    """Write the view into the address."""
    first = questions[0]
    at, order = (
        (view.setting, view.order) if view else st.session_state.get(state.NTK_AT, (None, None))
    )
    query = state.ntk_query(
        state.NtkView(
            encoder=first.encoder,
            limit=first.limit,
            beside=questions[1].encoder if len(questions) > 1 else NOBODY,
            task=first.task,
            control=first.control,
            points=first.points,
            logits=first.logits,
            setting=at,
            order=order,
        )
    )
    addresses.write(state.NTK_ADDRESS, query)


def show_pairs(questions: Sequence[Question], busy: bool) -> None:
    """Draw the localization score of every pair of tasks."""
    st.subheader("Every task against every control")
    which = st.segmented_control(
        "Columns",
        energies.ARRANGEMENTS,
        default="heldout",
        required=True,
        format_func=energies.TITLES.get,
        key="ntk_matrix_kind",
    )
    columns = st.columns(len(questions), gap="large")
    for column, question in zip(columns, questions, strict=True):
        with column:
            show_matrix(question, which, busy)


def show_matrix(question: Question, which: str, busy: bool) -> None:
    """Draw one encoder's matrix, and offer the pairs that it lacks."""
    st.markdown(f"**{question.encoder}**")
    found = ntk_pairs.pairs(question.encoder)
    if found:
        rows = energy_tables.pair_rows(found)
        tasks, controls, values, halves, hover = energy_tables.pair_matrix(found, which)
        widgets.figure(
            figures.localization(tasks, controls, values, halves, hover),
            f"localization_{question.encoder}".replace("/", "_"),
            rows,
            records.provenance(
                "localization: area under the ROC curve of local energy, all eigenfunctions",
                exact=all(pair.exact for pair in found.values()),
                encoder=question.encoder,
                n=sorted({pair.points for pair in found.values()}),
            ),
            key=f"ntk_matrix_{question.encoder}",
            alt="Localization score of every pair of task and control",
        )
        sizes = " or ".join(str(n) for n in sorted({pair.points for pair in found.values()}))
        st.caption(
            f"{energies.TITLES[which]}: area under the ROC curve, half the width of its 95 % "
            f"interval below it; all eigenfunctions, n = {sizes} points a block. "
            f"{'Exact' if all(pair.exact for pair in found.values()) else 'Approximate'}."
        )
    missing = ntk_pairs.unanswered(
        question.encoder, question.points, question.logits, found, question.limit
    )
    if busy and not found:
        st.caption("No pair is computed yet; the one in progress will stand here.")
    if missing and not busy:
        offer(missing, f"ntk_all_{question.encoder}", f"{len(missing)} pairs")


st.title("Eigenfunctions")
st.markdown(INTRO)
restore()
with widgets.engine_errors():
    asked = choose()
    answers = look_up(asked)
    remember(asked, None)
    at_work, stopped = jobs.followed(ntk_jobs.VERB)
    if at_work or stopped or st.session_state.get(state.NTK_AT_WORK):
        watch()
    unknown = [
        question
        for question, energy in answers.items()
        if energy is None and not any(ntk_jobs.answers(job, question) for job in at_work)
    ]
    if unknown:
        changed = [question.encoder for question in unknown if ntk_kept.is_outdated(question)]
        if changed:
            st.info(
                f"The linearly fine-tuned task vector of {' and '.join(changed)} is newer than the "
                "energies that are kept, which lack its coefficients: compute them again.",
                icon=":material/info:",
            )
        offer(unknown, "ntk", " and ".join(question.encoder for question in unknown))
    drawn = [
        Shown(question.encoder, question, energy)
        for question, energy in answers.items()
        if energy is not None
    ]
    if drawn:
        panel(drawn, asked)
    show_pairs(list(answers), bool(at_work))
    drawing.show_ring()
