"""Checkpoints: what is stored, where each came from, and how the task vectors lie to each other."""

import streamlit as st

from app import state, widgets
from app.compute import catalogue, geometry, records
from app.figures import checkpoints as figures
from app.figures import style
from app.widgets import choosing


def show_encoders() -> None:
    """Draw the table of stored encoders."""
    rows = catalogue.encoders()
    st.subheader("Encoders")
    if not rows:
        st.info(choosing.NO_ENCODER, icon=":material/info:")
        return
    st.dataframe(
        {
            "encoder": [row.name for row in rows],
            "size": [widgets.megabytes(row.size) for row in rows],
            "age": records.ages([row.created for row in rows]),
            "kept": ["embedded" if row.embedded else "local" for row in rows],
            "digest": [row.digest[:12] for row in rows],
        },
        key="encoders_table",
        hide_index=True,
        height="content",
    )


def show_damaged() -> None:
    """Name the files that cannot be used, with the cause and what to do."""
    for path, cause in catalogue.damaged():
        st.error(f"Damaged file: {cause}", icon=":material/error:")
        st.caption(f"`{path}`")


def choose_checkpoint(items: list[catalogue.Checkpoint]) -> catalogue.Checkpoint | None:
    """Draw the table and return the selected checkpoint, if any."""
    event = st.dataframe(
        {
            "encoder": [item.encoder for item in items],
            "trained": [style.MODE_TITLES.get(item.mode, item.mode) for item in items],
            "task": [item.task for item in items],
            "test": [as_percent(item.test) for item in items],
            "n test": [item.n_test for item in items],
            "validation": [as_percent(item.validation) for item in items],
            "steps": [item.steps for item in items],
            "seed": [item.seed for item in items],
            "size": [widgets.megabytes(item.size) for item in items],
            "age": records.ages([item.created for item in items]),
            "digest": [item.digest[:12] for item in items],
        },
        key=state.CHECKPOINTS_TABLE,
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        height=360,
        column_config={
            "test": st.column_config.NumberColumn("test accuracy", format="%.1f %%"),
            "validation": st.column_config.NumberColumn("validation", format="%.1f %%"),
            "n test": st.column_config.NumberColumn("n", format="localized"),
        },
    )
    chosen = event.selection.rows
    return items[chosen[0]] if chosen and chosen[0] < len(items) else None


def as_percent(fraction: float | None) -> float | None:
    """Turn a fraction into per cent for a column of numbers."""
    return None if fraction is None else 100 * fraction


def show_details(item: catalogue.Checkpoint) -> None:
    """Draw a checkpoint's provenance, loss curve and downloads."""
    st.subheader(f"{item.task} · {style.MODE_TITLES.get(item.mode, item.mode)} · {item.encoder}")
    left, right = st.columns(2, gap="large")
    with left, widgets.engine_errors():
        show_loss(item)
    with right:
        st.markdown("**Provenance**")
        meta = {key: value for key, value in item.meta.items() if key != "log"}
        st.json({"digest": item.digest, "created": item.created, **meta}, expanded=1)
        name = f"{item.encoder}_{item.task}_{item.mode}_{item.digest[:8]}".replace("/", "_")
        with st.container(horizontal=True), widgets.engine_errors():
            st.download_button(
                "Task vector (safetensors)",
                catalogue.file_bytes(item.digest),
                f"{name}.safetensors",
                "application/octet-stream",
                key="checkpoint_file",
                on_click="ignore",
            )
            st.download_button(
                "Provenance (JSON)",
                widgets.to_json({"digest": item.digest, "created": item.created, **item.meta}),
                f"{name}.json",
                "application/json",
                key="checkpoint_json",
                on_click="ignore",
            )


def show_loss(item: catalogue.Checkpoint) -> None:
    """Draw the loss as it was logged."""
    log = [row for row in item.meta.get("log", []) if "step" in row and "loss" in row]
    st.markdown("**Training loss**")
    if not log:
        st.info("This checkpoint carries no training log.", icon=":material/info:")
        return
    widgets.figure(
        figures.loss_curve([row["step"] for row in log], [row["loss"] for row in log]),
        f"loss_{item.task}_{item.mode}",
        log,
        records.provenance(
            "training loss, cross-entropy in nats, of the batch at each logged step",
            exact=True,
            checkpoints={item.task: item.digest},
            encoder=item.encoder,
            seed=item.seed,
            steps=item.steps,
            train_digest=item.meta.get("train_digest"),
        ),
        key="loss",
        alt=f"Training loss of {item.task} against the step",
    )
    st.caption(
        f"Exact, of each logged batch; {len(log)} points of {item.steps or 'unknown'} steps."
    )


def show_geometry(items: list[catalogue.Checkpoint]) -> None:
    """Draw cosines and norms of the newest task vectors of an encoder and a training mode."""
    st.subheader("How the task vectors lie")
    names = list(dict.fromkeys(item.encoder for item in items))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        encoder = st.selectbox("Encoder", names, key=state.CHECKPOINTS_ENCODER, width=280)
        mode = st.segmented_control(
            "Trained",
            catalogue.MODES,
            default=catalogue.MODES[0],
            required=True,
            format_func=style.MODE_TITLES.get,
            key=state.CHECKPOINTS_MODE,
        )
    chosen = catalogue.newest(items, encoder, mode)
    if not chosen:
        st.info(
            f"{encoder} has no checkpoints trained so. Make them with "
            f"`python -m engine finetune --encoder {encoder} --mode {mode}`.",
            icon=":material/info:",
        )
        return
    tasks = list(chosen)
    found = geometry.compare(tuple(item.digest for item in chosen.values()))
    digests = {task: item.digest for task, item in chosen.items()}
    left, right = st.columns(2, gap="large")
    with left:
        show_cosines(tasks, found, digests, encoder, mode)
    with right:
        show_norms(tasks, found, digests, encoder, mode)


def show_cosines(tasks, found, digests, encoder, mode) -> None:
    """Draw the cosine matrix."""
    widgets.figure(
        figures.cosines(catalogue.titles(tasks), found.cosine),
        f"cosines_{encoder}_{mode}",
        [
            {"task": a, "other": b, "cosine": float(found.cosine[i, j])}
            for i, a in enumerate(tasks)
            for j, b in enumerate(tasks)
        ],
        records.provenance(
            "cosine between task vectors over all parameters",
            exact=True,
            checkpoints=digests,
            encoder=encoder,
            mode=mode,
        ),
        key="cosines",
        alt="Cosine between every two task vectors",
    )
    st.caption("Cosine of task vectors over all parameters (no unit). Exact.")


def show_norms(tasks, found, digests, encoder, mode) -> None:
    """Draw norms and where they come from."""
    widgets.figure(
        figures.norms(catalogue.titles(tasks), found.norm, found.groups, found.share),
        f"norms_{encoder}_{mode}",
        [
            {"task": task, "norm": float(found.norm[i])}
            | {group: float(found.share[i, j]) for j, group in enumerate(found.groups)}
            for i, task in enumerate(tasks)
        ],
        records.provenance(
            "Euclidean norm of each task vector; per part of the network, its share of the square",
            exact=True,
            checkpoints=digests,
            encoder=encoder,
            mode=mode,
        ),
        key="norms",
        alt="Norm of every task vector, parted by where in the network it is",
    )
    st.caption("Norm in the units of the weights; parts are shares of its square. Exact.")


st.title("Checkpoints")
st.markdown("Each holds one task vector and everything that made it; select a row for its details.")
with widgets.engine_errors():
    show_damaged()
    listed = catalogue.checkpoints()
    if not listed:
        st.info(
            "No checkpoints yet. Make the miniature's with "
            "`python -m engine finetune --mode nonlinear` and "
            "`python -m engine finetune --mode linear`; they appear here when each is done.",
            icon=":material/info:",
        )
        show_encoders()
        st.stop()
    selected = choose_checkpoint(listed)
    if selected is None:
        st.caption(f"{len(listed)} checkpoints, newest first. Nothing is selected.")
    else:
        show_details(selected)
    show_geometry(listed)
    show_encoders()
