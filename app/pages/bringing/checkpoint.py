"""Bring a checkpoint: what a file is, before anything is written; then its import."""

import numpy as np
import streamlit as st

from app import state, widgets
from app.compute import bringing, catalogue
from app.compute.bringing_uploads import Upload
from app.figures import checkpoints as figures
from app.figures import style
from app.pages.bringing import shared
from app.widgets import choosing
from app.widgets.rerunning import again

SOURCES = {"path": "A path on this server", "upload": "Files of mine"}
MODES = {"file": "As the file says", "nonlinear": "Non-linear", "linear": "Linear"}
WHY_MODE = {
    "file": "as the file says",
    "asked": "as you say; the file does not",
    "default": "assumed: the file does not say",
}
THETA0 = {
    "encoder": "that of the encoder",
    "the file itself": "in the file itself, the encoder's up to rounding",
    "zeroshot file": "in the pre-trained file, the encoder's up to rounding",
}


def section() -> None:
    """Draw what is brought on the left, what it turns out to be on the right."""
    st.markdown(
        "A fine-tuned image encoder becomes a **task vector**, τ = θ − θ₀. What a file is, its "
        "content says; no code in it is run, and nothing is written before you press Import."
    )
    left, right = st.columns([3, 4], gap="large")
    with left:
        asked = choose()
        shared.ask(
            "Look at it",
            state.BRING_LOOK,
            state.BRING_ASKED,
            asked.light(),
            type="primary",
            icon=":material/search:",
            # until a file has come
            disabled=st.session_state[state.BRING_FROM] == "upload" and not asked.uploads,
            width="stretch",
        )
    with right:
        preview(asked)


def choose() -> bringing.Asked:
    """Draw the choice of file, encoder, task and mode, and return it."""
    source = st.segmented_control(
        "Where it is",
        list(SOURCES),
        default="path",
        required=True,
        format_func=SOURCES.get,
        key=state.BRING_FROM,
        persist_state="session",
    )
    path, uploads = "", ()
    if source == "path":
        path = st.text_input(
            "File or folder",
            key=state.BRING_PATH,
            placeholder="~/checkpoints/finetuned.safetensors",
            help="A file, or a Hugging Face or peft folder, on the disk of the machine that this "
            "page runs on. Up to 8.6 GB.",
            persist_state="session",
        )
    else:
        sent = st.file_uploader(
            "One file, the files of one folder, or a zip of it",
            accept_multiple_files=True,
            key=state.BRING_FILES,
            help="Larger files by their path on this server.",
        )
        uploads = tuple(Upload(item.name, item.file_id, item.getbuffer()) for item in sent)
    encoder, task = choose_for()
    mode = st.segmented_control(
        "Trained",
        list(MODES),
        default="file",
        required=True,
        format_func=MODES.get,
        key=state.BRING_MODE,
        help="In weight space, or in the tangent space at the pre-trained model. A vector read in "
        "the other way is another model.",
        persist_state="session",
    )
    zeroshot = st.text_input(
        "Pre-trained file (optional)",
        key=state.BRING_ZEROSHOT,
        placeholder="~/checkpoints/zeroshot.pt",
        help="θ₀ as the same code saved it, a path on this server. Without it the encoder's own θ₀ "
        "is subtracted; linear checkpoints of the paper's code carry theirs.",
        persist_state="session",
    )
    known = None if mode == "file" else mode
    return bringing.Asked(path, uploads, encoder, task, known, zeroshot)


def choose_for() -> tuple[str, str]:
    """Draw the choice of encoder and task, and return it; stop where there is no encoder."""
    names = catalogue.encoder_names()
    tasks, control = catalogue.task_names()
    own = catalogue.own_tasks()
    held = st.session_state.get(state.BRING_ENCODER)
    if held is None and names:
        st.session_state[state.BRING_ENCODER] = names[0]
    encoder = st.selectbox(
        "Encoder it was fine-tuned from",
        list(dict.fromkeys([*names, *filter(None, [held])])),
        key=state.BRING_ENCODER,
        accept_new_options=True,
        placeholder="Choose, or type NAME:TAG of open_clip",
        help="In the cache, or typed: NAME:TAG or NAME:FILE of open_clip, as in "
        "ViT-B-32-quickgelu:openai.",
        persist_state="session",
    )
    references = [*tasks, control, *own]
    titles = dict(zip(references, catalogue.titles(references), strict=True))
    st.session_state.setdefault(state.BRING_TASK, references[0])
    kept = st.session_state[state.BRING_TASK]
    task = st.selectbox(
        "Task it was fine-tuned on",
        list(dict.fromkeys([*references, *filter(None, [kept])])),
        key=state.BRING_TASK,
        format_func=lambda name: titles.get(name, name),
        accept_new_options=True,
        placeholder="Choose, or type the path of a folder",
        help="Those of Bring a task are here as well.",
        persist_state="session",
    )
    return encoder or "", task or ""


def preview(asked: bringing.Asked) -> None:
    """Draw what the file is once it was asked for, and the button that imports it."""
    with st.container(border=True, key="bring_preview"):
        times = shared.pressed(state.BRING_ASKED, asked)
        if times is None:
            nothing_yet()
            return
        if not asked.encoder or not asked.task:
            st.info("Choose an encoder and a task.", icon=":material/info:")
            return
        with widgets.engine_errors():
            seen = shared.waited(bringing.look(asked, choosing.visitor(), times))
        if seen is None:
            return
        show(seen)
        imported(asked, seen)
        shared.command_line(asked.command())


def nothing_yet() -> None:
    """Say what can be brought."""
    before = st.session_state.get(state.BRING_ASKED) is not None
    st.markdown("**The choice has changed: look again**" if before else "**Nothing looked at yet**")
    kinds = "\n".join(f"- {text}" for text in bringing.KINDS.values())
    st.markdown(f"Known by their content:\n{kinds}")
    st.caption(
        "Names and shapes must be the encoder's, every value finite, and θ₀ the one it was "
        "fine-tuned from; whatever does not fit is said in a sentence, and nothing is written."
    )


def show(seen: bringing.Seen) -> None:
    """Draw what a file is."""
    origin = seen.origin
    st.markdown(f"**{bringing.KINDS[origin['kind']]}**")
    mode = style.MODE_TITLES[seen.mode]
    rows = [
        ("File", f"{origin['file']}, {widgets.megabytes(origin['bytes'])}"),
        ("SHA-256", f"{origin['sha256'][:32]}…"),
        ("Architecture", seen.architecture),
        (
            "Tensors",
            f"{seen.tensors}, {seen.parameters:,} values, all finite; names and shapes fit",
        ),
        ("Trained", f"{mode}, {WHY_MODE[seen.mode_from]}"),
        ("‖τ‖", f"{seen.norm:.4g}, {100 * origin['relative_norm']:.2f} % of ‖θ₀‖"),
    ]
    if "theta0" in origin:
        rows.append(("θ₀", THETA0[origin["theta0"]["from"]]))
    if origin.get("left_out"):
        rows.append(("Left out", f"{origin['left_out']} tensors beside the image tower"))
    if origin.get("absent"):
        rows.append(("Absent", f"{', '.join(origin['absent'])}: τ is 0 there"))
    shared.facts(rows, "bring_facts")
    if seen.parts:
        figure = figures.norms(
            ["τ"], np.array([seen.norm]), list(seen.parts), np.array([list(seen.parts.values())])
        )
        st.plotly_chart(
            figure,
            key="bring_parts",
            config=widgets.chart_config("task_vector", "png"),
            alt="Norm of the task vector, parted by where in the network it is",
        )


def imported(asked: bringing.Asked, seen: bringing.Seen) -> None:
    """Draw the button that imports, or what became of it."""
    times = shared.pressed(state.BRING_IMPORTED, asked)
    if times is None:
        if shared.ask(
            "Import",
            state.BRING_IMPORT,
            state.BRING_IMPORTED,
            asked.light(),
            type="primary",
            icon=":material/add:",
            width="stretch",
        ):
            again()
        return
    with widgets.engine_errors():
        kept = shared.waited(bringing.bring_in(asked, seen, choosing.visitor(), times))
    if kept is None:
        return
    st.success(
        f"Imported as `{kept.digest[:12]}`, {widgets.megabytes(kept.size)}: on Checkpoints and "
        "Merge from now on.",
        icon=":material/check_circle:",
    )
    with st.container(horizontal=True):
        st.link_button("Merge", kept.merge_link(), icon=":material/tune:")
        st.link_button("Checkpoints", "checkpoints", icon=":material/inventory_2:")
