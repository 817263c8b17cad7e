"""Results: the papers' tables and figures, ours beside theirs; what lacks is run from its cell."""

import streamlit as st

from app import state, widgets
from app.compute import results as compute
from app.compute.background import board, follow
from app.figures import style
from app.pages.resulting import sections, taking
from app.widgets import addresses, choosing
from app.widgets.rerunning import again

USUAL = ("addition", "negation")
ALL, NOTHING = "all, their mean", "nothing"
HELD = "results_held"  # what each side's exhibits were when they were last read


def restore() -> None:
    """Take over what the address asks for, when it was opened, reloaded or gone back to."""
    asked = state.results_visited(addresses.opened(state.RESULTS_ADDRESS))
    if asked is None:
        return
    st.session_state.update({
        state.RESULTS_ENCODER: asked.encoder,
        state.RESULTS_SEED: ALL if asked.seed is None else asked.seed,
        state.RESULTS_BESIDE: asked.beside or NOTHING,
        state.RESULTS_BESIDE_SEED: ALL if asked.beside_seed is None else asked.beside_seed,
        state.RESULTS_READINGS: list(asked.readings or state.READINGS),
    })
    if asked.tasks:
        st.session_state[state.RESULTS_TASKS] = asked.tasks
    if asked.exhibits:
        st.session_state[state.RESULTS_EXHIBITS] = list(asked.exhibits)


def choose_sides() -> list[compute.Side]:
    """Draw the choice of what is shown and what it is compared with, and return one or two."""
    names = choosing.encoder_names()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        choosing.keep(state.RESULTS_ENCODER, names)
        encoder = st.selectbox(
            "Encoder", names, key=state.RESULTS_ENCODER, width=240, persist_state="session"
        )
        tasks = choose_tasks(encoder)
        first = compute.Side(encoder, choose_seed(encoder, state.RESULTS_SEED, "Seed"), tasks)
        choosing.keep(state.RESULTS_BESIDE, [NOTHING, *names])
        beside = st.selectbox(
            "Compare with",
            [NOTHING, *names],
            key=state.RESULTS_BESIDE,
            width=240,
            help="Another encoder, or the same with another seed; the third number in each column "
            "is the second minus the first.",
            persist_state="session",
        )
        if beside == NOTHING:
            return [first]
        seed = choose_seed(beside, state.RESULTS_BESIDE_SEED, "Its seed")
        second = compute.Side(beside, seed, tasks)
    if first == second:
        st.caption("Both are the same: choose another encoder, or another seed.")
        return [first]
    return [first, second]


def choose_tasks(encoder: str) -> tuple[str, ...]:
    """Draw the choice of tasks where an encoder has its own, and return them; () for the eight."""
    own = compute.own_tasks(encoder)
    if not own:
        return ()
    titles = {
        state.EIGHT: "the miniature's eight",
        state.OWN: "its own: " + ", ".join(list(own.values())[:4]) + " …" * (len(own) > 4),
    }
    choosing.keep(
        state.RESULTS_TASKS,
        list(titles),
        state.EIGHT if compute.has_the_eight(encoder) else state.OWN,
    )
    chosen = st.selectbox(
        "Tasks",
        list(titles),
        key=state.RESULTS_TASKS,
        format_func=titles.get,
        width=240,
        help="Its own are those it was fine-tuned on beside the miniature's: every table and "
        "figure is of these, in the place of the eight.",
        persist_state="session",
    )
    return tuple(own) if chosen == state.OWN else ()


def choose_seed(encoder: str, key: str, title: str) -> int | None:
    """Draw the choice of a seed, and return it; None for the mean over all there are."""
    options = [ALL, *compute.seeds(encoder)]
    choosing.keep(key, options)
    chosen = st.selectbox(
        title,
        options,
        key=key,
        format_func=str,
        width=150,
        help="Of the task vectors. Over several seeds: the mean, with its 95 % interval.",
        persist_state="session",
    )
    return None if chosen == ALL else chosen


def choose_exhibits(fillings: dict) -> list[str]:
    """Draw the choice of exhibits, each with how much of it is there, and return their names."""
    titles = compute.names()
    wanted = st.session_state.get(state.RESULTS_EXHIBITS, list(USUAL))
    st.session_state[state.RESULTS_EXHIBITS] = [name for name in titles if name in wanted]
    chosen = st.pills(
        "Exhibits",
        list(titles),
        selection_mode="multi",
        key=state.RESULTS_EXHIBITS,
        format_func=lambda name: f"{titles[name]} · {sections.progress(fillings.get(name))}",
        persist_state="session",
    )
    return [name for name in titles if name in chosen]


def choose_rows() -> tuple[list[str], bool]:
    """Draw the filters, and return the readings shown and whether complete rows are left out."""
    st.session_state.setdefault(state.RESULTS_READINGS, list(state.READINGS))
    with st.container(horizontal=True, vertical_alignment="center", gap="large"):
        readings = st.pills(
            "Readings",
            state.READINGS,
            selection_mode="multi",
            key=state.RESULTS_READINGS,
            format_func=style.MODE_TITLES.get,
            persist_state="session",
        )
        lacking = st.toggle(
            "Only rows that lack something", key=state.RESULTS_LACKING, persist_state="session"
        )
    return [mode for mode in state.READINGS if mode in readings], lacking


def read(side: compute.Side, works: list) -> dict:
    """Return the exhibits of a side: those read so far, beside them the last ones known."""
    held = st.session_state.setdefault(HELD, {})
    work = follow(compute.fill(side, choosing.visitor()))
    if work.error is not None:
        board().drop(work)
        raise work.error
    if work.result is None:
        works.append(work)
    held[side] = {**held.get(side, {}), **(work.result or work.partial or {})}
    return held[side]


@st.fragment(run_every=0.7)
def watch(works: list, known: list[int]) -> None:
    """Draw how far reading is; run the page again when there is more to be shown."""
    now = [len(work.result or work.partial or {}) for work in works]
    if now != known or any(work.finished.is_set() for work in works):
        again()
    for work in works:
        text = f"Reading what the store holds: {work.note} · {work.fraction:.0%}"
        st.progress(work.fraction, text=text)


@st.fragment(run_every=2.0)
def watch_jobs() -> None:
    """Draw the jobs under way; run the page again when one comes or goes."""
    at_work = compute.pending()
    before = st.session_state.get(state.RESULTS_AT_WORK)
    st.session_state[state.RESULTS_AT_WORK] = sorted(at_work)
    if before is not None and before != sorted(at_work):
        again()
    for words, job in list(at_work.items())[:6]:
        text = f"{job.state} {job.fraction:.0%} · `{compute.command(words)}`"
        st.progress(job.fraction, text=text)
    if len(at_work) > 6:
        st.caption(f"and {len(at_work) - 6} more; all of them stand on the Fine-tune page")


def remember(sides: list[compute.Side], exhibits: list[str], readings: list[str]) -> None:
    """Write the view into the address."""
    first, second = sides[0], sides[1] if len(sides) > 1 else compute.Side("")
    query = state.results_query(
        state.ResultsView(
            first.encoder,
            first.seed,
            second.encoder or None,
            second.seed,
            tuple(exhibits),
            tuple(readings),
            st.session_state.get(state.RESULTS_TASKS) if compute.own_tasks(first.encoder) else None,
        )
    )
    addresses.write(state.RESULTS_ADDRESS, query)


st.title("Results")
st.caption(
    "The tables and figures of the papers, from what the store holds. A number says what it rests "
    "on when pointed at; a cell that was not run yet is run from where it stands."
)
restore()
with widgets.engine_errors():
    sides, works = choose_sides(), []
    fillings = [read(side, works) for side in sides]
    exhibits = choose_exhibits(fillings[0])
    readings, lacking = choose_rows()
    at_work = compute.pending()
    remember(sides, exhibits, readings)
    shown = sections.Shown(tuple(sides), at_work, tuple(readings), lacking)
    if works:
        watch(works, [len(work.partial or {}) for work in works])
    for name in exhibits:
        if all(name in filled for filled in fillings):
            sections.draw(shown, [filled[name] for filled in fillings])
    if not exhibits:
        st.info("Choose an exhibit above.", icon=":material/info:")
    taking.draw(sides, fillings, exhibits, complete=not works)
    watch_jobs()
