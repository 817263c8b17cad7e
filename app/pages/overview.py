"""Overview: what this is, the tasks as pictures, what is cached."""

from html import escape

import streamlit as st

st.title("Tauscope")
# plain text: no part of the browser's that would still have to be fetched
st.markdown(
    "A **task vector** is what fine-tuning on a task adds to a model's weights: τ = θ − θ₀. Here "
    "you add, subtract and scale task vectors by hand, and see at once what that does to accuracy "
    "on every task, whether the weights are read as they are or through the model's tangent space."
)
pictures = st.container()
cached = st.container()

# the rest is imported here, behind what a visitor reads first
from app import state, widgets  # noqa: E402
from app.compute import catalogue, records  # noqa: E402
from app.figures import checkpoints as figures  # noqa: E402


def card(about: catalogue.TaskCard) -> str:
    """Write a task's card; every text is escaped."""
    classes = ", ".join(about.classnames)
    alt = f"Test pictures of {about.title}: {', '.join(about.shown)}"
    kind = "control task" if about.control else f"{len(about.classnames)} classes"
    return (
        '<div style="min-height:10.5rem">'
        f'<b>{escape(about.title)}</b> <span style="opacity:.7">· {kind}</span>'
        f'<img src="{about.picture}" alt="{escape(alt)}" style="width:100%;aspect-ratio:8/1;'
        "border-radius:.4rem;margin:.35rem 0;image-rendering:pixelated;display:block"
        '">'
        f'<div style="font-size:.86rem;opacity:.9" title="{escape(classes)}">'
        f"{escape(about.description)}</div>"
        f'<div style="font-size:.86rem;opacity:.75;margin-top:.2rem">Shift: {escape(about.shift)}'
        "</div></div>"
    )


def show_tasks() -> None:
    """Draw a card for each task."""
    st.subheader("Eight tasks and a control")
    st.caption(
        "Drawn by code, the same to the byte on every machine; each strip is test pictures. The "
        "encoder was pre-trained on the same world in another style: that shift is what "
        "fine-tuning learns. Accuracy on the control task tells what an edit costs elsewhere."
    )
    names, control = catalogue.task_names()
    everything = (*names, control)
    for start in range(0, len(everything), 3):
        row = everything[start : start + 3]
        for column, name in zip(st.columns(3), row, strict=False):
            with column.container(border=True):
                st.html(card(catalogue.task_card(name)))


def show_cache() -> None:
    """Draw what is cached for an encoder."""
    st.subheader("What is here")
    names = catalogue.encoder_names()
    if not names:
        st.info(
            "No encoder is in the cache yet. Make the miniature with `python -m engine pretrain`, "
            "then its checkpoints with `python -m engine finetune --mode nonlinear` and "
            "`python -m engine finetune --mode linear`.",
            icon=":material/info:",
        )
        return
    left, right = st.columns([1, 2], gap="large")
    with left:
        encoder = st.selectbox("Encoder", names, key=state.OVERVIEW_ENCODER)
        mine = [item for item in catalogue.checkpoints() if item.encoder == encoder]
        for mode in catalogue.MODES:
            show_mode(mode, list(catalogue.newest(mine, encoder, mode).values()))
        damaged = len(catalogue.damaged())
        if damaged:
            st.warning(
                f"{damaged} damaged file{'s' * (damaged > 1)}: Checkpoints names the cause.",
                icon=":material/warning:",
            )
    with right:
        if mine:
            show_matrix(mine, encoder)
        else:
            st.info(
                f"{encoder} has no checkpoints yet. Make them with "
                f"`python -m engine finetune --encoder {encoder} --mode nonlinear` and "
                f"`python -m engine finetune --encoder {encoder} --mode linear`.",
                icon=":material/info:",
            )


def show_mode(mode: str, items: list[catalogue.Checkpoint]) -> None:
    """Draw how many tasks have a checkpoint of a mode, and how good these are."""
    measured = [item.test for item in items if item.test is not None]
    mean = sum(measured) / len(measured) if measured else None
    st.metric(
        f"Trained {mode}ly" if mode == "linear" else "Trained non-linearly",
        f"{len(items)} tasks",
        delta=f"{widgets.percent(mean)} mean test accuracy" if measured else None,
        delta_color="off",
        delta_arrow="off",
    )


def show_matrix(items: list[catalogue.Checkpoint], encoder: str) -> None:
    """Draw test accuracies as tasks by modes."""
    tasks, values = catalogue.accuracy_matrix(items, encoder)
    newest = {mode: catalogue.newest(items, encoder, mode) for mode in catalogue.MODES}
    rows = [
        {
            "task": task,
            "mode": mode,
            "accuracy": item.test if item else None,
            "n": item.n_test if item else None,
        }
        for task in tasks
        for mode in catalogue.MODES
        for item in [newest[mode].get(task)]
    ]
    counts = sorted({row["n"] for row in rows if row["n"]})
    widgets.figure(
        figures.accuracy_matrix(catalogue.titles(tasks), catalogue.MODES, values),
        "accuracy_by_mode",
        rows,
        records.provenance(
            "top-1 accuracy of each task's own checkpoint",
            exact=True,
            encoder=encoder,
            split="test",
            checkpoints={
                f"{task}/{mode}": item.digest
                for mode, by_task in newest.items()
                for task, item in by_task.items()
            },
        ),
        key="overview_matrix",
        alt=f"Test accuracy of every checkpoint of {encoder}, tasks by training modes",
    )
    n = " to ".join(f"{count:,}" for count in dict.fromkeys(counts[:1] + counts[-1:]))
    st.caption(f"Exact, on the test split, n = {n or 'not measured'} images a task.")


with pictures, widgets.engine_errors():
    show_tasks()
with cached, widgets.engine_errors():
    show_cache()
