"""Merge: drag a slider a task and watch what the merged model does on every task."""

import secrets
from urllib.parse import urlencode

import streamlit as st

from app import state, widgets
from app.components.alpha import Preset, alpha_widget, pack, read_state
from app.compute import catalogue, exports, merging, presets
from app.compute.background import board, follow
from app.figures import merge as figures
from app.figures import style

READING_LINES = {
    "nonlinear": r"The network at the merged weights, $f(x; \theta_0 + \sum_t \alpha_t \tau_t)$: "
    "approximate while you drag, exact after release.",
    "posthoc": r"Non-linearly trained vectors read through the tangent space, "
    r"$f(x; \theta_0) + \sum_t \alpha_t J(x) \tau_t$: exact at every moment.",
    "linear": r"Vectors trained in the tangent space and read there, "
    r"$f(x; \theta_0) + \sum_t \alpha_t J(x) \tau_t$: exact at every moment.",
}


def restore() -> None:
    """Take over what the address asks for, when it was opened, reloaded or gone back to."""
    asked = state.visited(st.query_params.to_dict(), st.session_state.get(state.MERGE_ADDRESS))
    if asked is None:
        return
    wanted = {
        state.MERGE_ENCODER: asked.encoder,
        state.MERGE_READING: asked.reading,
        state.MERGE_CONVENTION: asked.convention,
        state.MERGE_TASKS: list(asked.tasks) or None,
    }
    st.session_state.update({key: value for key, value in wanted.items() if value})
    if asked.alphas:
        move_sliders(asked.alphas)


def move_sliders(alphas: dict[str, float]) -> None:
    """Set the sliders from here: what was released before is out of date from now on."""
    st.session_state[state.MERGE_INITIAL] = dict(alphas)
    st.session_state[state.MERGE_REVISION] = st.session_state.get(state.MERGE_REVISION, 0) + 1


def choose_reading() -> tuple[str, str, str]:
    """Draw the choice of encoder, reading and convention, and return it."""
    names = catalogue.encoder_names()
    if not names:
        st.info(
            "No encoder is in the cache. Make the miniature with `python -m engine pretrain`.",
            icon=":material/info:",
        )
        st.stop()
    keep(state.MERGE_ENCODER, names)
    keep(state.MERGE_READING, state.READINGS, "linear")
    keep(state.MERGE_CONVENTION, state.CONVENTIONS)
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
        convention = st.segmented_control(
            "Convention",
            state.CONVENTIONS,
            required=True,
            format_func=str.capitalize,
            key=state.MERGE_CONVENTION,
            help="Sum: each task vector times its alpha. Mean: times alpha / T, T tasks merged.",
            persist_state="session",
        )
    st.caption(READING_LINES[reading])
    return encoder, reading, convention


def keep(key: str, options: list[str] | tuple[str, ...], default: str | None = None) -> None:
    """Make sure a control starts from an option that exists."""
    held = st.session_state.get(key)
    if held not in options:
        st.session_state[key] = state.choose(default, options)


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


def visitor() -> str:
    """Return this session's name, under which it starts background work."""
    return st.session_state.setdefault(state.VISITOR, secrets.token_hex(8))


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
        st.rerun()
    st.progress(work.fraction, text=f"{work.note} · {work.fraction:.0%}")


@st.fragment(run_every=1.5)
def watch_quietly(works: list) -> None:
    """Run the page again when something in the background has finished."""
    pending = [work for work in works if not work.finished.is_set()]
    if len(pending) < len(works):
        st.rerun()
    notes = ", ".join(f"{work.title}: {work.note} ({work.fraction:.0%})" for work in pending)
    st.caption(f"In the background: {notes}")


@st.fragment
def panel(choice: merging.Choice, sample: merging.Sample) -> None:
    """Draw the sliders with their readouts, and everything that follows the released alphas."""
    revision = st.session_state.get(state.MERGE_REVISION, 0)
    initial = state.carry_alphas(choice.names, st.session_state.get(state.MERGE_INITIAL, {}))
    raw = st.session_state.get(state.MERGE_WIDGET)
    alphas = read_state(raw, choice.names, initial, revision).alphas
    remember(choice, alphas)

    with widgets.engine_errors():
        answers = None
        if choice.reading == "nonlinear":
            answers = merging.exact_forward(choice, alphas, sample.n)
        found = merging.readout(choice, sample, alphas, answers)
    validation = presets.presets(choice, visitor())
    whole = merging.whole(choice, alphas, visitor()) if choice.reading == "nonlinear" else None
    full = whole.result if whole is not None else None
    payload = pack(
        merging.evaluated(choice, sample, answers),
        {name: found.titles[name] for name in choice.names},
        alphas=alphas,
        revision=revision,
        reading=choice.reading,
        convention=choice.convention,
        anchor=alphas if answers is not None else None,
        full=merging.full_split(choice, alphas, full) if full else None,
        pinned=[pin for pin in pins() if pin["context"] == context(choice)],
        **preset_buttons(choice, validation),
    )
    released = alpha_widget(payload, key=state.MERGE_WIDGET)
    if released.pin is not None or released.unpin is not None:
        keep_pins(choice, released)
        st.rerun()
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
    show_pins(found)
    show_export(choice, sample, alphas, found)


def remember(choice: merging.Choice, alphas: dict[str, float]) -> None:
    """Keep the alphas for the next choice of tasks, and write the view into the address."""
    held = st.session_state.get(state.MERGE_INITIAL, {})
    st.session_state[state.MERGE_INITIAL] = {**held, **alphas}
    query = state.to_query(
        state.MergeView(choice.encoder, choice.reading, choice.convention, choice.names, alphas)
    )
    st.session_state[state.MERGE_ADDRESS] = query
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


def preset_buttons(choice: merging.Choice, work) -> dict:
    """Return what the widget shows of validation: the curve, the chosen alpha, two buttons."""
    result = work.result
    if result is None:
        why = "Being computed on validation" if work.error is None else "See the message below"
        return {"best_shared": Preset(why=why), "best_per_task": Preset(why=why)}
    shared = dict.fromkeys(choice.names, result.chosen)
    each = Preset(result.each) if result.each else Preset(why=presets.NOT_LINEAR)
    return {
        "curve": result.curve,
        "chosen": result.chosen,
        "best_shared": Preset(shared),
        "best_per_task": each,
    }


def pins() -> list[dict]:
    """Return the settings kept."""
    return st.session_state.setdefault(state.MERGE_PINS, [])


def context(choice: merging.Choice) -> dict:
    """Return what a pinned setting belongs to."""
    return {
        "encoder": choice.encoder,
        "reading": choice.reading,
        "convention": choice.convention,
        "digests": list(choice.digests),
    }


def keep_pins(choice: merging.Choice, released) -> None:
    """Take over the widget's events."""
    if released.unpin is not None:
        st.session_state[state.MERGE_PINS] = state.remove_pin(pins(), released.unpin)
    if released.pin is not None:
        pin = {
            "alphas": released.pin.alphas,
            "metrics": released.pin.metrics,
            "exact": released.pin.exact,
            "context": context(choice),
        }
        st.session_state[state.MERGE_PINS] = state.add_pin(pins(), pin)


def forget_pins() -> None:
    """Forget all pinned settings."""
    st.session_state[state.MERGE_PINS] = []


def show_pins(found: merging.Readout) -> None:
    """Draw the pinned settings side by side."""
    kept = pins()
    if not kept:
        return
    st.subheader("Pinned settings")
    left, right = st.columns(2, gap="large")
    rows = exports.pin_rows(kept)
    with left:
        st.dataframe(
            [{key: cell(value) for key, value in row.items()} for row in rows],
            key="pins_table",
            hide_index=True,
            height=390,
        )
        with st.container(horizontal=True):
            widgets.downloads("pinned", rows, exports.pin_provenance(kept), key="pins")
            st.button("Forget all", key="pins_forget", on_click=forget_pins)
    with right:
        st.plotly_chart(
            figures.pins(kept, found.titles),
            key="pins_figure",
            config=widgets.chart_config("pinned", "png"),
            alt="Accuracy a task of every pinned setting",
        )


def cell(value: object) -> object:
    """Write a table's cell: fractions with three digits, absent ones as a dash."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else value


def show_export(
    choice: merging.Choice,
    sample: merging.Sample,
    alphas: dict[str, float],
    found: merging.Readout,
) -> None:
    """Draw what can be taken away: the figure with its numbers, the weights, the link."""
    st.subheader("Take it with you")
    linear = choice.reading != "nonlinear"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Merged task vector (safetensors)" if linear else "Merged weights (safetensors)",
            lambda: exports.merged_file(choice, alphas),
            f"merged_{choice.encoder}_{choice.reading}.safetensors".replace("/", "_"),
            "application/octet-stream",
            key=state.MERGE_FILE,
            on_click="ignore",
            icon=":material/download:",
            help="Made when you click. A linearized model needs its pre-trained weights and the "
            "task vector apart, so the vector is what is written."
            if linear
            else "Made when you click; under open_clip's names.",
        )
        with st.popover("Copy link", icon=":material/link:", key="merge_link"):
            st.code(link(choice, alphas), language=None, wrap_lines=True)
    names = list(found.merged)
    widgets.figure(
        figures.readout(
            [
                found.titles[name] + (" (control)" if name == found.control else "")
                for name in names
            ],
            [found.zeroshot[name] for name in names],
            [found.single.get(name) for name in names],
            [found.merged[name] for name in names],
            [found.interval[name] for name in names],
            [found.n[name] for name in names],
            f"{choice.encoder}, {style.MODE_TITLES[choice.reading].lower()}, "
            f"{choice.convention}<br>"
            f"mean absolute {widgets.percent(found.absolute)}, normalized "
            f"{widgets.percent(found.normalized)}; exact, n = {sample.n}",
        ),
        f"merge_{choice.encoder}_{choice.reading}".replace("/", "_"),
        exports.rows(found, alphas),
        exports.provenance(choice, sample, alphas),
        key="merge_figure",
        alt="Zero-shot, single-task and merged accuracy of every task at the released alphas",
    )
    st.caption(
        f"At the released alphas, exact, on the first n = {sample.n} images of each test split; "
        "whiskers are 95 % Wilson intervals."
    )


def link(choice: merging.Choice, alphas: dict[str, float]) -> str:
    """Return the address that restores this view."""
    view = state.MergeView(choice.encoder, choice.reading, choice.convention, choice.names, alphas)
    return f"{(st.context.url or '').split('?')[0]}?{urlencode(state.to_query(view))}"


st.title("Merge")
restore()
with widgets.engine_errors():
    chosen = choose_reading()
    checkpoints = choose_tasks(*chosen[:2])
    if not checkpoints:
        st.info("Choose at least one task to merge.", icon=":material/info:")
        st.stop()
    choice = merging.choose(*chosen, checkpoints)
    sample = wait_for(
        merging.sample(choice, visitor()), "Reading the task vectors on each test sample"
    )
    panel(choice, sample)
