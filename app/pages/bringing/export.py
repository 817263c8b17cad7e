"""Take a model away: merged weights or a task vector, written, read back and handed out."""

import streamlit as st

from app import state, widgets
from app.compute import bringing_exports as bringing
from app.compute import catalogue, directions
from app.figures import style
from app.pages.bringing import shared
from app.widgets import choosing
from app.widgets.rerunning import again


def take_over(view: state.MergeView) -> None:
    """Start from a setting of the Merge page, or of the address."""
    wanted = {
        state.OUT_ENCODER: view.encoder,
        state.OUT_READING: view.reading,
        state.OUT_CONVENTION: view.convention,
        state.OUT_TASKS: list(view.tasks) or None,
    }
    st.session_state[state.OUT_METHOD] = view.method or state.ARITHMETIC
    st.session_state[state.OUT_OPTIONS] = (view.method, dict(view.options))
    st.session_state.update({key: value for key, value in wanted.items() if value})
    for task, alpha in view.alphas.items():
        st.session_state[state.OUT_ALPHA + task] = alpha


def section() -> state.MergeView:
    """Draw the setting on the left, what is written on the right; return the setting."""
    from_merge()
    st.markdown(
        "What the sliders of Merge make, as files that other programs load. Each file is read "
        "back before you get it."
    )
    left, right = st.columns([3, 4], gap="large")
    with left:
        view, taking = choose()
    with right, st.container(border=True, key="out_parcel"):
        parcel(taking)
    return view


def from_merge() -> None:
    """Take over Merge's setting when it is another than the one taken over last."""
    query = st.session_state.get(state.MERGE_ADDRESS)
    if query and query != st.session_state.get(state.OUT_FROM):
        st.session_state[state.OUT_FROM] = dict(query)
        take_over(state.from_query(query))


def choose() -> tuple[state.MergeView, bringing.Taking]:
    """Draw the choice of format, encoder, reading, tasks and alphas, and return it."""
    kind = st.segmented_control(
        "As",
        list(bringing.KINDS),
        default="open_clip",
        required=True,
        format_func=bringing.KINDS.get,
        key=state.OUT_KIND,
        persist_state="session",
    )
    st.caption(bringing.ABOUT[kind])
    names = choosing.encoder_names()
    choosing.keep(state.OUT_ENCODER, names)
    choosing.keep(state.OUT_READING, state.READINGS)
    choosing.keep(state.OUT_CONVENTION, state.CONVENTIONS)
    encoder = st.selectbox("Encoder", names, key=state.OUT_ENCODER, persist_state="session")
    method, options = choose_method()
    with st.container(horizontal=True, gap="medium"):
        reading = st.segmented_control(
            "Reading of the weights",
            state.READINGS,
            required=True,
            format_func=style.MODE_TITLES.get,
            key=state.OUT_READING,
            persist_state="session",
        )
        convention = (
            choosing.convention(state.OUT_CONVENTION) if method is None else state.CONVENTIONS[0]
        )
    names = choose_tasks(encoder, reading)
    with st.container(horizontal=True, gap="small", key="out_alphas"):
        if method is None:
            sliders = alphas = {name: choose_alpha(name, title) for name, title in names.items()}
        else:
            alpha = choose_alpha(state.DIRECTION, directions.title(method))
            sliders, alphas = {state.DIRECTION: alpha}, dict.fromkeys(names, alpha)
    taking = bringing.setting(kind, encoder, reading, convention, alphas, method, options)
    view = state.MergeView(encoder, reading, convention, tuple(names), sliders, method, options)
    return view, taking


def choose_method() -> tuple[str | None, dict[str, float]]:
    """Draw the choice of what merges the task vectors, and return it with its options."""
    known = directions.methods()
    choosing.keep(state.OUT_METHOD, (state.ARITHMETIC, *known))
    method = st.selectbox(
        "Merged by",
        (state.ARITHMETIC, *known),
        key=state.OUT_METHOD,
        format_func=lambda name: known[name].title if name in known else "Task arithmetic",
        persist_state="session",
    )
    if method == state.ARITHMETIC:
        return None, {}
    options = {name: option.usual for name, option in known[method].options.items()}
    of, held = st.session_state.get(state.OUT_OPTIONS, (None, {}))
    if of == method:  # as set on Merge, within what the method takes
        fits = {k: type(options[k])(v) for k, v in held.items() if k in options}
        options |= {
            k: v
            for k, v in fits.items()
            if known[method].options[k].low <= v <= known[method].options[k].high
        }
    options = directions.said(method, options)
    told = ", ".join(f"{name} {value:g}" for name, value in options.items())
    st.caption(f"{known[method].does} Options: {told or 'none'}; set them on Merge.")
    return method, options


def choose_tasks(encoder: str, reading: str) -> dict[str, str]:
    """Draw the choice of tasks, and return their titles by name; stop where there is none."""
    found = bringing.vectors(encoder, reading)
    if not found:
        mode = bringing.TRAINED[reading]
        st.info(
            f"{encoder} has no checkpoints for the {style.MODE_TITLES[reading].lower()} reading. "
            f"Bring one, or make them with `python -m engine finetune --encoder {encoder} "
            f"--mode {mode}`.",
            icon=":material/info:",
        )
        st.stop()
    held = st.session_state.get(state.OUT_TASKS, list(found))
    st.session_state[state.OUT_TASKS] = state.choose_tasks(held, list(found), list(found))
    titles = dict(zip(found, catalogue.titles(list(found)), strict=True))
    chosen = st.multiselect(
        "Tasks merged",
        list(found),
        key=state.OUT_TASKS,
        format_func=titles.get,
        persist_state="session",
    )
    return {name: titles[name] for name in found if name in chosen}


def choose_alpha(name: str, title: str) -> float:
    """Draw one coefficient, and return it."""
    key = state.OUT_ALPHA + name
    direction = name == state.DIRECTION
    st.session_state.setdefault(key, 1.0 if direction else state.START)
    return st.number_input(
        f"α {widgets.plain(title)}",
        min_value=0.0 if direction else state.LOWEST,
        max_value=state.FARTHEST if direction else state.HIGHEST,
        step=0.05,
        format="%.2f",
        key=key,
        width=150,
        persist_state="session",
    )


def parcel(taking: bringing.Taking) -> None:
    """Draw the button that writes, then what was written, and the button that hands it out."""
    refusal = taking.refusal()
    if refusal:
        st.info(refusal, icon=":material/info:")
        return
    st.markdown(f"**{widgets.plain(taking.file_name())}**")
    times = shared.pressed(state.OUT_ASKED, taking)
    if times is None:
        st.caption(
            "Written and read back in the background when you press; the download is here then."
        )
        if shared.ask(
            "Prepare",
            state.OUT_TAKE,
            state.OUT_ASKED,
            taking,
            type="primary",
            icon=":material/package_2:",
            width="stretch",
        ):
            again()
    else:
        work = bringing.take(taking, choosing.visitor(), times)
        before = st.session_state.get(state.OUT_WORK)
        if before is not None and before is not work:
            bringing.drop(before)
        st.session_state[state.OUT_WORK] = work
        packed = shared.waited(work)
        if packed is not None:
            hand_out(packed)
    shared.command_line(taking.command())


def hand_out(packed: bringing.Parcel) -> None:
    """Draw what was written, what was verified, and the download."""
    verified = packed.verified
    rows = [
        ("Size", widgets.megabytes(packed.size)),
        ("Read back", f"{verified['tensors']} tensors, equal to the bit"),
    ]
    if "largest_difference" in verified:
        apart = verified["largest_difference"]
        rows.append((
            "Features",
            f"image_embeds of transformers differ from ours by {apart:.1e} of the largest",
        ))
    shared.facts(rows, "out_facts")
    st.download_button(
        "Download",
        packed.path.read_bytes,
        packed.name,
        "application/zip" if packed.name.endswith(".zip") else "application/octet-stream",
        key=state.OUT_FILE,
        type="primary",
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
    )
    if packed.card:
        with st.expander("Model card", expanded=True), st.container(height=420, border=False):
            card = packed.card.split("---", 2)[2].strip()  # without the hub's front matter
            st.markdown(card.replace("# ", "#### ", 1))
    else:
        with st.expander("What made it, as written into the file"):
            st.json(dict(packed.record), expanded=1)
