"""Bring a task: what a folder or data set holds, its words, and remembering it."""

import base64
import io
from html import escape

import streamlit as st

from app import state, widgets
from app.compute import bringing_tasks as bringing
from app.compute import catalogue
from app.pages.bringing import shared
from app.widgets import choosing

LAYOUTS = """- `train/<class>/*.png` with `test/<class>/*.png`
- `<class>/*.png`: a seeded fifth of each class becomes test
- `train*.parquet` with `test*.parquet`, columns `image` and `label`
- a data set of the hub, as `eurosat` or `owner/name`, once it is on this machine
- a task file (YAML) that names one, its parts and columns"""


def section() -> None:
    """Draw what is brought on the left, what it turns out to be on the right."""
    st.markdown(
        "Pictures with labels become a **task** that every page offers: fine-tune on it, merge it, "
        "measure it."
    )
    left, right = st.columns([3, 4], gap="large")
    with left:
        reference = st.text_input(
            "Folder or data set",
            key=state.BRING_DATA,
            placeholder="~/birds, or tanganke/eurosat",
            help="A folder on the disk of the machine that this page runs on, or a data set of "
            "the hub.",
            persist_state="session",
        ).strip()
        shared.ask(
            "Look at it",
            state.BRING_DATA_LOOK,
            state.BRING_DATA_ASKED,
            reference or " ",
            type="primary",
            icon=":material/search:",
            width="stretch",
        )
        brought()
    with right, st.container(border=True, key="bring_task"):
        preview(reference)


def preview(reference: str) -> None:
    """Draw what a data set holds once it was asked for, its words, and the button that adds it."""
    times = shared.pressed(state.BRING_DATA_ASKED, reference or " ")
    if times is None:
        st.markdown("**Nothing looked at yet**")
        st.markdown(f"A folder is laid out as one of\n{LAYOUTS}")
        st.caption("Nothing is decoded but a few pictures, and nothing written before you add it.")
        return
    with widgets.engine_errors():
        found = shared.waited(bringing.look(reference, choosing.visitor(), times))
    if found is None:
        return
    show(found)
    said = words(found, (reference, times))
    wrong = bringing.check(found, said)
    if wrong:
        st.error(widgets.plain(wrong), icon=":material/error:")
    beside = place(found, said) if not wrong else True
    added(found, said, beside, (reference, times), disabled=bool(wrong))


def show(found: bringing.Found) -> None:
    """Draw what a data set holds."""
    st.markdown(f"**{widgets.plain(found.title)}**")
    counts = ", ".join(f"{n:,} {split}" for split, n in found.counts.items())
    given = ", ".join(f"{int(n.sum()):,} {part}" for part, n in found.per_class.items())
    rows = [("Name", found.name), ("Classes", f"{found.count:,}")]
    rows.append(("Images", counts or f"{given}, as given"))
    rows += [(split.capitalize(), rule) for split, rule in found.rules.items()]
    shared.facts(rows, "bring_task_facts")
    if found.warning:
        st.warning(widgets.plain(found.warning), icon=":material/warning:")
    if found.shown:
        st.html(strip(found))
    if found.lacking:
        st.info(widgets.plain(found.lacking), icon=":material/edit:")
    if found.per_class:
        with st.expander("Images of each class"):
            st.dataframe(
                {
                    "class": list(found.classnames),
                    "label in the data": list(found.labels or map(str, range(found.count))),
                    **{part: n.tolist() for part, n in found.per_class.items()},
                },
                key="bring_classes",
                hide_index=True,
                height=min(320, 35 * (found.count + 1) + 2),
            )


def strip(found: bringing.Found) -> str:
    """Write the sample pictures with their class names; every text is escaped."""
    cells = []
    for picture, label in zip(found.pictures, found.shown, strict=True):
        name = escape(found.classnames[label])
        cells.append(
            f'<figure style="margin:0;width:4.6rem"><img src="{data_url(picture)}" alt="{name}" '
            'style="width:100%;border-radius:.3rem;display:block">'
            '<figcaption style="font-size:.72rem;opacity:.85;white-space:nowrap;overflow:hidden;'
            f'text-overflow:ellipsis" title="{name}">{name}</figcaption></figure>'
        )
    return f'<div style="display:flex;flex-wrap:wrap;gap:.5rem">{"".join(cells)}</div>'


def data_url(picture) -> str:
    """Write a picture as a PNG in a data URL."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def words(found: bringing.Found, of: tuple) -> dict:
    """Draw the words of a task, to be changed, and return them."""
    fields = {
        "title": found.title,
        "description": found.description,
        "classnames": "\n".join(found.classnames),
        "templates": "\n".join(found.templates),
    }
    if st.session_state.get(state.BRING_WORDS_OF) != of:
        st.session_state[state.BRING_WORDS_OF] = of
        st.session_state.update({state.BRING_WORDS + key: text for key, text in fields.items()})
    for key, text in fields.items():  # a field that was not drawn for a while is forgotten
        st.session_state.setdefault(state.BRING_WORDS + key, text)
    with st.expander("Words: title, class names, prompts", expanded=bool(found.lacking)):
        title = st.text_input("Title", key=f"{state.BRING_WORDS}title")
        about = st.text_input("Description", key=f"{state.BRING_WORDS}description")
        first, second = st.columns(2)
        names = first.text_area(
            "Class names, one a line",
            key=f"{state.BRING_WORDS}classnames",
            height=200,
            help="In the order of the labels. The frozen head is made of them.",
        )
        templates = second.text_area(
            "Prompts, one a line",
            key=f"{state.BRING_WORDS}templates",
            height=200,
            help="Each with {} where the class name goes; their embeddings are averaged.",
        )
    return bringing.edited(found, title, about, names, templates)


def place(found: bringing.Found, said: dict) -> bool:
    """Draw where changed words will be written, and return whether beside the images."""
    if not bringing.differs(found, said):
        return True
    beside = False
    if found.writable:
        beside = st.toggle(
            "Write the words beside the data",
            value=True,
            key=f"{state.BRING_WORDS}beside",
            help="Otherwise into the cache; the folder stays as it is.",
        )
    elif found.file is not None:
        st.caption("The folder cannot be written: its words will lie in the cache.")
    there = found.file is not None and found.file.exists() and beside
    st.caption("Written when you add it" + (", in the place of what is there:" if there else ":"))
    st.code(bringing.words_place(found, beside), language=None, wrap_lines=True)
    st.code(bringing.yaml_of(said), language="yaml", height=180)
    return beside


def added(found: bringing.Found, said: dict, beside: bool, of: tuple, disabled: bool) -> None:
    """Draw the button that remembers a task, or what became of it."""
    if st.button(
        "Add this task",
        type="primary",
        icon=":material/add:",
        key=state.BRING_ADD,
        disabled=disabled,
        width="stretch",
    ):
        with widgets.engine_errors():
            st.session_state[state.BRING_ADDED] = (of, bringing.add(found, said, beside))
        st.rerun()
    before, reference = st.session_state.get(state.BRING_ADDED, (None, ""))
    if before == of:
        st.success(
            "Added: choose it on Fine-tune and Eigenfunctions, and for a checkpoint you bring.",
            icon=":material/check_circle:",
        )
    shared.command_line(
        bringing.command(reference)
        if before == of
        else bringing.command(found.reference, bringing.differs(found, said))
    )


def brought() -> None:
    """Draw the tasks that were added: decode them beforehand, or take them off the list."""
    own = catalogue.own_tasks()
    if not own:
        return
    with st.container(border=True, key="bring_own_tasks"):
        st.markdown("**Tasks added**")
        if st.session_state.get(state.BRING_OWN) not in own:
            st.session_state[state.BRING_OWN] = next(iter(own))
        chosen = st.selectbox(
            "Task",
            list(own),
            key=state.BRING_OWN,
            format_func=lambda name: own[name] if name == own[name] else f"{own[name]} · {name}",
            label_visibility="collapsed",
        )
        names = catalogue.encoder_names()
        with st.container(horizontal=True, vertical_alignment="bottom"):
            encoder = st.selectbox("Decode for", names, key="bring_decode_for", width=200)
            shared.ask(
                "Decode now",
                state.BRING_DECODE,
                state.BRING_DECODED,
                (chosen, encoder),
                icon=":material/photo_size_select_small:",
                disabled=encoder is None,
                help="At this encoder's size, in the background, once and for all pages. Pages do "
                "it by themselves when they first need the images.",
            )
            st.button(
                "Take off the list",
                icon=":material/playlist_remove:",
                key=state.BRING_FORGET,
                on_click=bringing.forget,
                args=(chosen,),
                help="Images, words and checkpoints stay.",
            )
        if encoder is not None:
            shared.command_line(bringing.decode_command(chosen, encoder))
        times = shared.pressed(state.BRING_DECODED, (chosen, encoder))
        if times is not None:
            counts = shared.waited(bringing.decode(chosen, encoder, choosing.visitor(), times))
            if counts is not None:
                told = ", ".join(f"{n:,} {split}" for split, n in counts.items())
                st.success(f"Decoded: {told}.", icon=":material/check_circle:")
