"""What can be taken away from the Merge page: its address, the weights, the figure."""

from urllib.parse import urlencode

import streamlit as st

from app import state, widgets
from app.compute import exports, merging, readouts
from app.figures import merge as figures
from app.figures import style
from app.pages.merging.pins import context


def view_of(choice: merging.Choice, alphas: dict[str, float]) -> state.MergeView:
    """Return what the page shows."""
    return state.MergeView(
        choice.encoder,
        choice.reading,
        choice.convention,
        choice.names,
        alphas,
        choice.method,
        dict(choice.options),
    )


def show(
    choice: merging.Choice,
    sample: merging.Sample,
    alphas: dict[str, float],
    found: readouts.Readout,
) -> None:
    """Draw what can be taken away: the figure with its numbers, the weights, the link."""
    st.subheader("Take it with you")
    linear = choice.reading != "nonlinear"
    how = choice.method or choice.convention
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Merged task vector (safetensors)" if linear else "Merged weights (safetensors)",
            lambda: exports.merged_file(choice, alphas),
            f"merged_{choice.encoder}_{choice.reading}_{how}.safetensors".replace("/", "_"),
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
            f"{exports.method_of(context(choice))}<br>"
            f"mean absolute {widgets.percent(found.absolute)}, normalized "
            f"{widgets.percent(found.normalized)}; exact, n = {sample.n}",
        ),
        f"merge_{choice.encoder}_{choice.reading}_{how}".replace("/", "_"),
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
    query = state.to_query(view_of(choice, alphas))
    return f"{(st.context.url or '').split('?')[0]}?{urlencode(query)}"
