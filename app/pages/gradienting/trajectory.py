"""Trajectory: merged accuracy by epoch, shares of the norms, the four cosines."""

import streamlit as st

from app import state, widgets
from app.components.epochs import View, epochs_explorer, read_view
from app.compute import gradients as compute
from app.compute import gradients_tables as tables
from app.compute.gradients import Answer
from app.figures import gradients as figures
from app.pages.gradienting import choice
from app.widgets import choosing

QUANTITIES = {
    "displacement_share": "Displacement",
    "gradient_share": "Full-batch gradient",
    "used_gradient_share": "Gradient used",
    "loss": "Loss",
}
AXES = {
    "displacement_share": "share of Σ ‖θᵏ − θᵏ⁻¹‖ (%)",
    "gradient_share": "share of Σ ‖gₖ‖ (%)",
    "used_gradient_share": "share of Σ ‖mean gradient used‖ (%)",
    "loss": "training loss (nats)",
}


def show(answer: Answer) -> View | None:
    """Draw the section, and return where the live slider stands; None without one."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        mode = choice.mode(answer)
        task = choice.task(answer)
    view = live(answer, mode) if answer.part("merged", mode) else None
    if answer.part("trajectory", mode) is None:
        return view
    shares(answer, mode)
    cosines(answer, mode, task, view)
    return view


def live(answer: Answer, mode: str) -> View:
    """Draw the slider over epochs, what follows it, and its numbers to take away."""
    merged = answer.part("merged", mode)
    revision = st.session_state.get(state.GRADIENTS_REVISION, 0)
    at, alpha = st.session_state.get(state.GRADIENTS_AT) or (merged["epochs"][0], None)
    raw = st.session_state.get(state.GRADIENTS_EPOCHS)
    view = read_view(raw, merged["epochs"], merged["alphas"], at, alpha, revision)
    st.session_state[state.GRADIENTS_AT] = (view.epoch, view.alpha)
    st.markdown("**Merge after so many epochs**: drag, and accuracy and the paths follow")
    data = compute.live(answer, mode, view.epoch, view.alpha, revision)
    epochs_explorer(data, key=state.GRADIENTS_EPOCHS)
    st.caption(
        "Every accuracy shown was measured; nothing is interpolated. The plane holds the two "
        "directions in which the paths vary most; in it a merge is θ₀ + α Σ (θₜ − θ₀), as in the "
        "space of all weights. Where merge and joint training part, merging is not joint training."
    )
    with st.popover("Download", icon=":material/download:", key="gradients_live_download"):
        for what, rows, about in (
            ("merged_accuracy", tables.merged_rows, "accuracy of the merge at every epoch and α"),
            ("paths", tables.plane_rows, "training paths projected onto a plane"),
        ):
            if what == "paths" and data["plane"] is None:
                continue
            st.markdown(about.capitalize())
            with st.container(horizontal=True):
                widgets.downloads(
                    choice.file_name(answer, what, mode),
                    rows(answer, mode),
                    tables.made(answer, about, mode=mode),
                    key=f"gradients_{what}",
                )
    return view


def shares(answer: Answer, mode: str) -> None:
    """Draw how the norms are shared among the epochs."""
    st.subheader("How much of the way is the first epoch?")
    found = answer.part("trajectory", mode)
    tasks = {choice.plain(answer.title(task)): part for task, part in answer.each(found)}
    left, right = st.columns(2, gap="large")
    with left:
        choosing.keep(state.GRADIENTS_QUANTITY, list(QUANTITIES))
        quantity = st.segmented_control(
            "By epoch",
            list(QUANTITIES),
            required=True,
            format_func=QUANTITIES.get,
            key=state.GRADIENTS_QUANTITY,
            label_visibility="collapsed",
            persist_state="session",
        )
        loss = quantity == "loss"
        uniform = found["uniform"]
        widgets.figure(
            figures.by_epoch(
                {name: part[quantity] for name, part in tasks.items()},
                AXES[quantity],
                heading(answer, QUANTITIES[quantity] + ("" if loss else ": share by epoch")),
                first=0 if loss else 1,
                level=None if loss else (uniform, f"uniform share, 1/K = {uniform:.1%}"),
                share=not loss,
            ),
            choice.file_name(answer, "shares_by_epoch", mode),
            tables.epoch_rows(answer, mode),
            tables.made(answer, "norms, their shares, losses and cosines by epoch", mode=mode),
            key="gradients_shares",
            alt="Share of each epoch in the summed norms, a line a task, with the uniform share",
        )
    with right:
        st.container(height=38, border=False)  # level with the figure beside
        widgets.figure(
            figures.first_shares(tasks, uniform, heading(answer, "The first epoch’s share")),
            choice.file_name(answer, "first_shares", mode),
            [
                {"task": task, "uniform": uniform} | {key: part[key][0] for key in figures.FIRST}
                for task, part in answer.each(found)
            ],
            tables.made(answer, "share of the first epoch in summed norms", mode=mode),
            key="gradients_first",
            alt="Share of the first epoch, of displacements and gradients, task by task",
        )
    st.caption(
        f"{compute.about(answer)}. Displacement and gradient shares differ where steps are scaled, "
        "as by AdamW. The paper’s claim: the first share is above 1/K."
    )


def cosines(answer: Answer, mode: str, task: str, view: View | None) -> None:
    """Draw the four cosines, kept apart."""
    st.subheader("Directions")
    found = answer.part("trajectory", mode)
    names = {name: choice.plain(answer.title(name)) for name in answer.tasks}
    left, right = st.columns(2, gap="large")
    for column, key, title, alt in (
        (left, "cosine_descent", "cos(τ⁽ᵏ⁾, −g₀)", "Cosine of tau with the first gradient"),
        (right, "cosine_final", "cos(τ⁽ᵏ⁾, τ⁽ᴷ⁾)", "Cosine of tau with the last tau"),
    ):
        with column:
            widgets.figure(
                figures.by_epoch(
                    {names[name]: part[key] for name, part in answer.each(found)},
                    "cosine",
                    heading(answer, title),
                    height=360,
                ),
                choice.file_name(answer, key, mode),
                tables.epoch_rows(answer, mode),
                tables.made(answer, title, mode=mode),
                key=f"gradients_{key}",
                alt=f"{alt}, against the epoch, a line a task",
            )
    left, right = st.columns(2, gap="large")
    with left:
        epochs = [str(k) for k in range(1, answer.record["epochs"] + 1)]
        draw_map(
            answer,
            mode,
            found["tasks"][task]["cosine_gradients"],
            epochs,
            f"{names[task]}: cos(gᵢ, gⱼ), gradients of its epochs",
            "cosine_gradients",
            axis="epoch",
        )
    with right:
        taus = found["cosine_taus"]
        marks = taus["epochs"]
        place = marks.index(view.epoch) if view and view.epoch in marks else len(marks) - 1
        which = f"τₜ after {marks[place]} epoch{'s' if marks[place] > 1 else ''}"
        draw_map(
            answer,
            mode,
            taus["matrices"][place],
            list(names.values()),
            f"cos(τₜ, τₜ′), {which}",
            "cosine_taus",
        )
        st.caption("At the epoch of the slider above.")
    with left:
        draw_map(
            answer,
            mode,
            found["cosine_gradients_tasks"],
            list(names.values()),
            "cos(gₜ, gₜ′), gradients of the tasks at θ₀",
            "cosine_gradients_tasks",
        )
    with right:
        layers(answer, mode, task)


def layers(answer: Answer, mode: str, task: str) -> None:
    """Draw the first epoch's share of each layer's way."""
    found = answer.part("trajectory", mode)
    shares = {
        layer: part["displacement_share_first"]
        for layer, part in answer.layers(found["tasks"][task])
    }
    name = choice.plain(answer.title(task))
    widgets.figure(
        figures.layer_shares(
            shares, found["uniform"], heading(answer, f"{name}: first epoch’s share, by layer")
        ),
        choice.file_name(answer, "layer_shares", mode, task),
        tables.layer_share_rows(answer, mode),
        tables.made(answer, "share of the first epoch in each layer's displacements", mode=mode),
        key="gradients_layer_shares",
        alt="Share of the first epoch in the displacements of each layer",
    )


def draw_map(
    answer: Answer, mode: str, matrix: list, names: list, title: str, key: str, axis: str = ""
) -> None:
    """Draw a matrix of cosines with its downloads."""
    widgets.figure(
        figures.cosines(matrix, names, heading(answer, title), axis),
        choice.file_name(answer, key, mode),
        tables.matrix_rows(names, matrix, "cosine"),
        tables.made(answer, title, mode=mode),
        key=f"gradients_{key}",
        alt=title,
    )


def heading(answer: Answer, title: str) -> str:
    """Give a figure's title: what it shows, and whose it is."""
    record = answer.record
    kind = "exact" if record["exact"] else "approximate"
    return f"{title}<br>{choice.REGIMES[record['regime']]}, {kind}"
