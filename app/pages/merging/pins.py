"""Settings its user pinned: kept, compared with the present one, drawn side by side."""

import streamlit as st

from app import state, widgets
from app.compute import exports, merging, readouts
from app.figures import merge as figures


def kept() -> list[dict]:
    """Return the settings kept."""
    return st.session_state.setdefault(state.MERGE_PINS, [])


def context(choice: merging.Choice) -> dict:
    """Return what a pinned setting belongs to."""
    made = {"method": choice.method, "options": dict(choice.options)} if choice.method else {}
    return {
        "encoder": choice.encoder,
        "reading": choice.reading,
        "convention": choice.convention,
        "digests": list(choice.digests),
        **made,
    }


def comparable(choice: merging.Choice) -> list[dict]:
    """Return the settings kept of these vectors in this reading, however they were merged."""
    here = context(choice)
    same = ("encoder", "reading", "digests")
    found = [pin for pin in kept() if all(pin["context"][key] == here[key] for key in same)]
    return [
        pin
        if pin["context"] == here
        else {**pin, "alphas": None, "note": exports.method_of(pin["context"])}
        for pin in found
    ]


def keep(choice: merging.Choice, released) -> None:
    """Take over the widget's events."""
    if released.unpin is not None:
        st.session_state[state.MERGE_PINS] = state.remove_pin(kept(), released.unpin)
    if released.pin is not None:
        pin = {
            "alphas": released.pin.alphas,
            "metrics": released.pin.metrics,
            "exact": released.pin.exact,
            "context": context(choice),
        }
        st.session_state[state.MERGE_PINS] = state.add_pin(kept(), pin)


def forget() -> None:
    """Forget all pinned settings."""
    st.session_state[state.MERGE_PINS] = []


def show(found: readouts.Readout) -> None:
    """Draw the pinned settings side by side."""
    settings = kept()
    if not settings:
        return
    st.subheader("Pinned settings")
    left, right = st.columns(2, gap="large")
    rows = exports.pin_rows(settings)
    with left:
        st.dataframe(
            [{key: cell(value) for key, value in row.items()} for row in rows],
            key="pins_table",
            hide_index=True,
            height=390,
        )
        with st.container(horizontal=True):
            widgets.downloads("pinned", rows, exports.pin_provenance(settings), key="pins")
            st.button("Forget all", key="pins_forget", on_click=forget)
    with right:
        st.plotly_chart(
            figures.pins(settings, found.titles),
            key="pins_figure",
            config=widgets.chart_config("pinned", "png"),
            alt="Accuracy a task of every pinned setting",
        )


def cell(value: object) -> object:
    """Write a table's cell: fractions with three digits, absent ones as a dash."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else value
