"""Disentanglement: how far two task vectors change each other's models, over both alphas."""

import streamlit as st

from app import state, widgets
from app.compute import catalogue
from app.compute import disentanglement as compute
from app.figures import disentanglement as figures
from app.pages.disentangling import maps, sections
from app.pages.disentangling.view import View, alphas_in_force, set_alphas
from app.pages.finetuning import cards
from app.widgets import addresses, choosing

DISTANCES = {
    "error": "Prediction error",
    "tv": "Total variation of the soft-max",
    "kl": "Symmetrised KL of the soft-max",
}
SECTIONS = {
    "images": "Images that change",
    "cut": "Cross-sections",
    "difference": "Difference",
    "pairs": "All pairs",
    "summary": "Summary",
}
IMAGES = (250, 500, 1000, 2048)  # a task, of forward passes
EQUATION = (
    r"$\xi(\alpha_1, \alpha_2) = \sum_{t} E_{x \sim \mu_t} [\mathrm{dist}(f(x; \theta_0 + \alpha_t "
    r"\tau_t), f(x; \theta_0 + \alpha_1 \tau_1 + \alpha_2 \tau_2))]$: how often, on each task's "
    "test images, the other vector changes what its own model predicts. Light is low. The red box "
    "is the search space of α."
)


def restore() -> None:
    """Take over what the address asks for, when it was opened, reloaded or gone back to."""
    asked = state.xi_visited(addresses.opened(state.XI_ADDRESS))
    if asked is None:
        return
    first, second = asked.pair or (None, None)
    wanted = {
        state.XI_ENCODER: asked.encoder,
        state.XI_BESIDE: asked.beside,
        state.XI_FIRST: first,
        state.XI_SECOND: second,
        state.XI_GRID: asked.grid,
        state.XI_RANGE: asked.limits or None,
        state.XI_DISTANCE: asked.distance,
        state.XI_THRESHOLD: asked.threshold,
        state.XI_SECTION: asked.section,
        state.XI_READING: asked.reading,
    }
    st.session_state.update({key: value for key, value in wanted.items() if value is not None})
    if asked.pair and asked.alphas:
        set_alphas(dict(zip(asked.pair, asked.alphas, strict=True)))


def choose_encoders() -> tuple[str, str | None]:
    """Draw the choice of the encoder and of one beside it, and return both."""
    names = choosing.encoder_names()
    choosing.keep(state.XI_ENCODER, names)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        encoder = st.selectbox(
            "Encoder", names, key=state.XI_ENCODER, width=260, persist_state="session"
        )
        others = [name for name in names if name != encoder]
        choosing.keep(state.XI_BESIDE, [None, *others])
        beside = st.selectbox(
            "Beside it",
            others,
            index=None,
            placeholder="no other encoder",
            key=state.XI_BESIDE,
            width=260,
            help="A second row of maps, same pair and colours: the randomly initialised twin, say.",
            persist_state="session",
        )
    return encoder, beside


def choose_pair(names: list[str]) -> tuple[str, str]:
    """Draw the choice of two tasks, and return them."""
    titles = dict(zip(names, catalogue.titles(names), strict=True))
    choosing.keep(state.XI_FIRST, names)
    if st.session_state.get(state.XI_SECOND) == st.session_state[state.XI_FIRST]:
        st.session_state[state.XI_SECOND] = None
    others = [name for name in names if name != st.session_state[state.XI_FIRST]]
    choosing.keep(state.XI_SECOND, others)
    settings = {"format_func": titles.get, "width": 210, "persist_state": "session"}
    first = st.selectbox("First task", names, key=state.XI_FIRST, **settings)
    second = st.selectbox("Second task", others, key=state.XI_SECOND, **settings)
    return first, second


def choose_view(names: list[str], visitor: str) -> View:
    """Draw the controls of the maps, and return what is chosen."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        pair = choose_pair(names)
        choosing.keep(state.XI_GRID, state.XI_GRIDS, 20)
        grid = st.selectbox(
            "Grid",
            state.XI_GRIDS,
            key=state.XI_GRID,
            format_func=lambda points: f"{points} × {points}",
            width=130,
            persist_state="session",
        )
        st.session_state.setdefault(state.XI_RANGE, (-3.0, 3.0))
        limits = st.slider(
            "Range of α",
            -state.XI_REACH,
            state.XI_REACH,
            step=0.5,
            key=state.XI_RANGE,
            width=260,
            persist_state="session",
        )
        with st.popover("Measure", icon=":material/tune:", key="xi_measure"):
            choosing.keep(state.XI_DISTANCE, state.XI_DISTANCES, "error")
            distance = st.radio(
                "Distance",
                state.XI_DISTANCES,
                key=state.XI_DISTANCE,
                format_func=DISTANCES.get,
                persist_state="session",
            )
            st.session_state.setdefault(state.XI_THRESHOLD, 0.1)
            threshold = st.number_input(
                "Threshold of ξ",
                0.0,
                2.0,
                step=0.05,
                key=state.XI_THRESHOLD,
                help="For the share of the search box [0, 1]² with ξ under it.",
                persist_state="session",
            )
            choosing.keep(state.XI_IMAGES, IMAGES, 500)
            images = st.segmented_control(
                "Images a task of new forward passes",
                IMAGES,
                required=True,
                key=state.XI_IMAGES,
                persist_state="session",
            )
            place = cards.choose_place(state.XI_PLACE)
    if limits[0] >= limits[1]:
        st.info("Choose a range of α that is wider than a point.", icon=":material/info:")
        st.stop()
    alphas = alphas_in_force(pair)
    titles = tuple(catalogue.titles(list(pair)))
    axis = compute.axis(grid, limits)
    return View(pair, titles, alphas, axis, limits, distance, threshold, images, visitor, place)


def remember(view: View, encoder: str, beside: str | None, section: str) -> None:
    """Write the view into the address."""
    query = state.xi_query(
        state.XiView(
            encoder=encoder,
            beside=beside,
            pair=view.tasks,
            alphas=view.alphas,
            grid=view.grid,
            limits=view.limits,
            distance=view.distance,
            threshold=view.threshold,
            section=section,
            reading=st.session_state.get(state.XI_READING),
        )
    )
    addresses.write(state.XI_ADDRESS, query)


@st.fragment
def panel(readings: dict[str, dict[str, compute.Vectors]], names: list[str], visitor: str) -> None:
    """Draw everything that follows the pair, the grid and the alphas.

    Args:
        readings: Task vectors by reading, by encoder; the first encoder leads.
        names: Tasks to choose from.
        visitor: Who asks.
    """
    with widgets.engine_errors():
        view = choose_view(names, visitor)
        rows = {encoder: maps.gather(view, encoder, found) for encoder, found in readings.items()}
        tables = [cell.found.xi for cells in rows.values() for cell in cells.values() if cell.found]
        top = figures.upper_end(tables)
        for place, (encoder, cells) in enumerate(rows.items()):
            if len(rows) > 1:
                st.markdown(f"##### {encoder}")
            maps.draw(view, cells, top, "beside_" if place else "", encoder)
        st.caption(
            "Click a cell, or walk to it with the arrow keys and press Enter: the alphas are set "
            "everywhere, on the sliders of Merge too "
            f"(those end at {state.LOWEST:g} and {state.HIGHEST:g}). ✛ is θ₀, ○ the chosen α."
        )
        section = choose_section()
        encoder, cells = next(iter(rows.items()))
        if section == "images":
            sections.images(view, cells)
        elif section == "cut":
            sections.cross_sections(view, cells, encoder)
        elif section == "difference":
            sections.difference(view, cells)
        elif section == "pairs":
            sections.pairs(view, cells)
        else:
            sections.summary(view, rows)
        remember(view, *([*readings, None][:2]), section)
        maps.read_ahead(view, rows)


def choose_section() -> str:
    """Draw the choice of what lies below the maps, and return it."""
    choosing.keep(state.XI_SECTION, SECTIONS, "images")
    return st.segmented_control(
        "Below the maps",
        list(SECTIONS),
        required=True,
        format_func=SECTIONS.get,
        key=state.XI_SECTION,
        label_visibility="collapsed",
        persist_state="session",
    )


st.title("Disentanglement")
restore()
with widgets.engine_errors():
    chosen, other = choose_encoders()
    found = {name: compute.vectors(name) for name in (chosen, other) if name is not None}
    tasks = compute.task_names(found[chosen])
    if len(tasks) < 2:
        st.info(
            f"{chosen} has checkpoints of fewer than two tasks, and a map needs two. Make them "
            f"with `python -m engine finetune --encoder {chosen} --mode nonlinear` and "
            "`--mode linear`.",
            icon=":material/info:",
        )
        st.stop()
    st.caption(EQUATION)
    panel(found, tasks, choosing.visitor())
