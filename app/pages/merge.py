"""Merge: drag a slider a task and watch what the merged model does on every task."""

import streamlit as st

from app import state, widgets
from app.components.alpha import Preset, alpha_widget, pack, read_state
from app.compute import catalogue, directions, merging, presets, readouts
from app.compute.background import board, follow
from app.figures import style
from app.pages.merging import methods, pins, taking
from app.widgets import addresses, choosing
from app.widgets.rerunning import again, by_itself

READING_LINES = {
    "nonlinear": r"The network at the merged weights, $f(x; \theta_0 + SUM\tau)$: "
    "approximate while you drag, exact after release.",
    "posthoc": r"Non-linearly trained vectors read through the tangent space, "
    r"$f(x; \theta_0) + SUM J(x) \tau$: exact at every moment.",
    "linear": r"Vectors trained in the tangent space and read there, "
    r"$f(x; \theta_0) + SUM J(x) \tau$: exact at every moment.",
}


def restore() -> None:
    """Take over what the address asks for, when it was opened, reloaded or gone back to."""
    asked = state.visited(addresses.opened(state.MERGE_ADDRESS))
    if asked is None:
        return
    wanted = {
        state.MERGE_ENCODER: asked.encoder,
        state.MERGE_READING: asked.reading,
        state.MERGE_CONVENTION: asked.convention,
        state.MERGE_TASKS: list(asked.tasks) or None,
    }
    st.session_state.update({key: value for key, value in wanted.items() if value})
    if asked.method or asked.convention or asked.alphas:
        methods.restore(asked.method, asked.options)
    if asked.alphas:
        move_sliders(asked.alphas)


def move_sliders(alphas: dict[str, float]) -> None:
    """Set the sliders from here: what was released before is out of date from now on."""
    st.session_state[state.MERGE_INITIAL] = dict(alphas)
    st.session_state[state.MERGE_REVISION] = st.session_state.get(state.MERGE_REVISION, 0) + 1


def choose_reading() -> tuple[str, str, str, str | None, dict[str, float]]:
    """Draw the choice of encoder, reading, convention, method and its options; return it."""
    names = choosing.encoder_names()
    choosing.keep(state.MERGE_ENCODER, names)
    choosing.keep(state.MERGE_READING, state.READINGS, "linear")
    choosing.keep(state.MERGE_CONVENTION, state.CONVENTIONS)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        encoder = st.selectbox(
            "Encoder", names, key=state.MERGE_ENCODER, width=260, persist_state="session"
        )
        reading = st.segmented_control(
            "Reading of the weights",
            state.READINGS,
            required=True,
            format_func=style.MODE_TITLES.get,
            key=state.MERGE_READING,
            persist_state="session",
        )
        method = methods.choose_method()
        convention = state.CONVENTIONS[0] if method else choosing.convention(state.MERGE_CONVENTION)
        options = methods.set_options(method) if method else {}
    st.caption(reading_line(reading, method))
    if method:
        methods.explain(method)
    return encoder, reading, convention, method, options


def reading_line(reading: str, method: str | None) -> str:
    """Say how the weights are read, and how exact that is."""
    if method is None:
        line = READING_LINES[reading].replace("SUM", r"\sum_t \alpha_t ")
        return line.replace(r"\tau$", r"\tau_t$").replace(r"\tau)", r"\tau_t)")
    return READING_LINES[reading].replace("SUM", r"\alpha ")


def choose_tasks(encoder: str, reading: str) -> dict[str, catalogue.Checkpoint]:
    """Draw the choice of tasks, and return their checkpoints; stop where there is none."""
    found = merging.available(encoder, reading)
    if not found:
        mode = merging.TRAINED[reading]
        st.info(
            f"{encoder} has no checkpoints for the {style.MODE_TITLES[reading].lower()} reading. "
            f"Make them with `python -m engine finetune --encoder {encoder} --mode {mode}`; "
            "they appear here when each is done.",
            icon=":material/info:",
        )
        st.stop()
    usual = [name for name in catalogue.task_names()[0] if name in found] or list(found)
    held = st.session_state.get(state.MERGE_TASKS, usual)
    st.session_state[state.MERGE_TASKS] = state.choose_tasks(held, list(found), usual)
    titles = dict(zip(found, catalogue.titles(list(found)), strict=True))
    chosen = st.multiselect(
        "Tasks merged",
        list(found),
        key=state.MERGE_TASKS,
        format_func=titles.get,
        persist_state="session",
    )
    return {name: found[name] for name in found if name in chosen}


def wait_for(work, what: str):
    """Return finished work's result; while it is not finished, draw its progress and stop."""
    follow(work)
    if work.error is not None:
        board().drop(work)
        with widgets.engine_errors():
            raise work.error
    if work.result is None:
        st.markdown(f"**{what}**")
        watch(work)
        st.stop()
    return work.result


@st.fragment(run_every=0.7)
def watch(work) -> None:
    """Draw progress until the work is finished, then run the page again."""
    if work.finished.is_set():
        again()
    st.progress(work.fraction, text=f"{work.note} · {work.fraction:.0%}")


@st.fragment(run_every=1.5)
def watch_quietly(works: list) -> None:
    """Run the page again when something in the background has finished."""
    pending = [work for work in works if not work.finished.is_set()]
    if len(pending) < len(works):
        again()
    if pending:
        notes = ", ".join(f"{work.title}: {work.note} ({work.fraction:.0%})" for work in pending)
        st.caption(f"In the background: {notes}")


@st.fragment
def panel(choice: merging.Choice, sample: merging.Sample) -> None:
    """Draw the sliders with their readouts, and everything that follows the released alphas."""
    revision = st.session_state.get(state.MERGE_REVISION, 0)
    initial = initial_alphas(choice)
    raw = st.session_state.get(state.MERGE_WIDGET)
    alphas = read_state(raw, choice.sliders, initial, revision).alphas
    remember(choice, alphas)

    before = known(choice)
    found = measure(choice, alphas, sample.n)
    validation = presets.presets(choice, choosing.visitor())
    whole = (
        merging.whole(choice, alphas, choosing.visitor()) if choice.reading == "nonlinear" else None
    )
    full = whole.result if whole is not None else None
    title = directions.title(choice.method) if choice.method else None
    titles = {task.name: task.title for task in sample.tasks}
    payload = pack(
        readouts.evaluated(choice, sample, found, before),
        {name: title or titles[name] for name in choice.sliders},
        alphas=alphas,
        revision=revision,
        reading=choice.reading,
        convention=choice.convention,
        anchor=alphas if found is not None else None,
        full=readouts.full_split(choice, alphas, full) if full else None,
        pinned=pins.comparable(choice),
        direction=title,
        span=(0.0, state.FARTHEST) if choice.method else (state.LOWEST, state.HIGHEST),
        **preset_buttons(choice, validation),
    )
    released = alpha_widget(payload, key=state.MERGE_WIDGET)
    if released.pin is not None or released.unpin is not None:
        pins.keep(choice, released)
        again()
    if found is not None and not found.complete:  # the others are on their way to the browser
        with widgets.engine_errors():
            merging.exact_forward(choice, alphas, sample.n)
        st.rerun(scope="fragment")
    # one line whatever happens, so that nothing below jumps
    waiting = [work for work in (validation, whole) if work and not work.finished.is_set()]
    if waiting:
        watch_quietly(waiting)
    elif validation.result is not None:
        n = sorted(set(validation.result.n.values()))
        counts = " to ".join(f"{count:,}" for count in dict.fromkeys((n[0], n[-1])))
        st.caption(f"Validation points are exact, n = {counts} images a task.")
    if validation.error is not None:
        widgets.show_error(validation.error)
    with widgets.engine_errors():
        exact = readouts.readout(choice, sample, alphas, found)
    pins.show(exact)
    taking.show(choice, sample, alphas, exact)


def measure(choice: merging.Choice, alphas: dict[str, float], n: int) -> merging.Measured | None:
    """Return the non-linear model's answers; on release that of the control task comes after.

    Args:
        choice: What is merged.
        alphas: As released.
        n: Images a task.

    Returns:
        None for linearized readings, which the sample answers.
    """
    if choice.reading != "nonlinear":
        return None
    held = st.session_state.get(state.MERGE_MEASURED)
    new = held is None or not held.is_at(choice, alphas)
    with widgets.engine_errors():
        found = merging.exact_forward(choice, alphas, n, merged_alone=by_itself() and new)
    st.session_state[state.MERGE_MEASURED] = found
    return found


def known(choice: merging.Choice) -> merging.Measured | None:
    """Return what was last measured, if it was of the same choice and every answer is there."""
    held = st.session_state.get(state.MERGE_MEASURED)
    return held if held is not None and held.choice == choice and held.complete else None


def initial_alphas(choice: merging.Choice) -> dict[str, float]:
    """Return where the sliders start, whatever they were before."""
    held = st.session_state.get(state.MERGE_INITIAL, {})
    if choice.method is None:
        return state.carry_alphas(choice.names, held)
    usual = state.carry_direction(choice.names, held)
    return {state.DIRECTION: held.get(state.DIRECTION, usual)}


def remember(choice: merging.Choice, alphas: dict[str, float]) -> None:
    """Keep the alphas for the next choice, and write the view into the address."""
    held = st.session_state.get(state.MERGE_INITIAL, {})
    st.session_state[state.MERGE_INITIAL] = state.remembered(held, choice.names, alphas)
    query = state.to_query(taking.view_of(choice, alphas))
    addresses.write(state.MERGE_ADDRESS, query)


def preset_buttons(choice: merging.Choice, work) -> dict:
    """Return what the widget shows of validation: the curve, the chosen alpha, two buttons."""
    result = work.result
    if result is None:
        why = "Being computed on validation" if work.error is None else "See the message below"
        return {"best_shared": Preset(why=why), "best_per_task": Preset(why=why)}
    shared = dict.fromkeys(choice.sliders, result.chosen)
    each = Preset(result.each) if result.each else Preset(why=presets.NOT_LINEAR)
    return {
        "curve": result.curve,
        "chosen": result.chosen,
        "best_shared": Preset(shared),
        "best_per_task": each,
    }


st.title("Merge")
restore()
with widgets.engine_errors():
    encoder, reading, convention, method, options = choose_reading()
    checkpoints = choose_tasks(encoder, reading)
    if not checkpoints:
        st.info("Choose at least one task to merge.", icon=":material/info:")
        st.stop()
    choice = merging.choose(encoder, reading, convention, checkpoints, method, options)
    what = "Merging, and reading the direction" if method else "Reading the task vectors"
    sample = wait_for(merging.sample(choice, choosing.visitor()), f"{what} on each test sample")
    panel(choice, sample)
