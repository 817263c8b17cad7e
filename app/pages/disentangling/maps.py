"""A row of maps: one a reading, drawn, in the making, or with what to do."""

from collections.abc import Mapping

import streamlit as st

from app import state, widgets
from app.components.ximap import pack, xi_map
from app.compute import disentanglement as compute
from app.compute import disentanglement_exports as exports
from app.compute import disentanglement_passes as passes
from app.compute.background import board, follow
from app.compute.disentanglement import Map, Vectors
from app.compute.merging import TRAINED
from app.figures import disentanglement as figures
from app.figures import style
from app.pages.disentangling.view import (
    Cell,
    View,
    alphas_in_force,
    kind,
    pick_cell,
    plain,
)
from app.widgets.rerunning import again


def gather(view: View, encoder: str, found: Mapping[str, Vectors]) -> dict[str, Cell]:
    """Return what there is of each reading, waiting a moment for what is quick.

    Args:
        view: What is shown.
        encoder: Name, for messages.
        found: Its task vectors by reading.
    """
    cells = {mode: Cell(found.get(mode)) for mode in state.READINGS}
    for mode, cell in cells.items():
        lacking = [t for t in view.tasks if cell.vectors is None or t not in cell.vectors.names]
        if lacking:
            tasks = " ".join(lacking)
            cell.why = (
                f"No {TRAINED[mode]} checkpoint of {' and '.join(lacking)}. Make it with "
                f"`python -m engine finetune --encoder {encoder} --mode {TRAINED[mode]} "
                f"--tasks {tasks}`."
            )
    open_ones = {mode: cell for mode, cell in cells.items() if not cell.why}
    for mode in compute.LINEARIZED:  # all at once, then wait for each
        if mode in open_ones:
            start_linearized(view, open_ones[mode])
    if "nonlinear" in open_ones:
        resolve_nonlinear(view, open_ones["nonlinear"])
    for mode in compute.LINEARIZED:
        if mode in open_ones:
            resolve_linearized(view, open_ones[mode])
    return cells


def start_linearized(view: View, cell: Cell) -> None:
    """Start what a linearized map still needs."""
    loaded = compute.in_memory(cell.vectors, view.tasks)
    if loaded is None:
        cell.works.append(compute.load(cell.vectors, view.tasks, view.visitor))


def resolve_linearized(view: View, cell: Cell) -> None:
    """Draw a linearized map if its class scores are there; else keep the work."""
    for work in cell.works:
        follow(work)
        raise_error(work)
    loaded = compute.in_memory(cell.vectors, view.tasks)
    if loaded is None:
        return
    cell.works = []
    norms = None
    if view.distance != "error":
        n = {name: len(loaded[name].labels) for name in view.tasks}
        work = passes.feature_norms(cell.vectors, view.tasks, n, view.visitor)
        follow(work)
        raise_error(work)
        norms = work.result
        if norms is None:
            cell.works = [work]
            return
    cell.found = compute.linearized(
        cell.vectors, view.tasks, view.axis, view.distance, loaded, norms
    )


def resolve_nonlinear(view: View, cell: Cell) -> None:
    """Find the kept map of the non-linear reading, or the work that its user has started."""
    asked = (view.tasks, view.axis, view.distance, view.images)
    cell.found = passes.kept_nonlinear(cell.vectors, *asked)
    if st.session_state.get(state.XI_ASKED) != view.request(cell.vectors):
        return
    work = passes.compute_nonlinear(cell.vectors, *asked, view.visitor)
    if work.finished.is_set() and work.result is None and work.error is None:
        board().drop(work)  # left by somebody: go on with it
        work = passes.compute_nonlinear(cell.vectors, *asked, view.visitor)
    if work.finished.is_set():
        st.session_state.pop(state.XI_ASKED, None)
        raise_error(work)
        cell.found = work.result
    else:
        cell.works = [work]


def raise_error(work) -> None:
    """Pass on an error of background work, and forget the work, so that it can be tried again."""
    if work.error is not None:
        board().drop(work)
        raise work.error


def draw(view: View, cells: Mapping[str, Cell], top: float, prefix: str, encoder: str) -> None:
    """Draw a row of maps, side by side, one below the other where it is narrow.

    Args:
        view: What is shown.
        cells: By reading.
        top: Upper end of the colour range.
        prefix: Of the keys.
        encoder: Name.
    """
    for column, (mode, cell) in zip(st.columns(3, gap="medium"), cells.items(), strict=True):
        with column:
            st.markdown(f"**{style.MODE_TITLES[mode]}**")
            if cell.why:
                st.info(cell.why, icon=":material/info:")
            elif mode == "nonlinear":
                draw_nonlinear(view, cell, top, prefix, encoder)
            elif cell.found is None:
                watch(cell.works)
            else:
                draw_map(view, cell.found, cell.vectors, top, prefix)


def draw_nonlinear(view: View, cell: Cell, top: float, prefix: str, encoder: str) -> None:
    """Draw the non-linear reading's place: kept, in the making, or a button that starts it."""
    request = view.request(cell.vectors)
    if cell.works:
        watch_map(view, cell.vectors, cell.works[0], top, prefix)
        return
    fits = False
    if cell.found is not None:
        draw_map(view, cell.found, cell.vectors, top, prefix)
        fits = compute.is_on(cell.found, view.axis)
        if not fits:
            G, low, high = len(cell.found.alphas), cell.found.alphas[0], cell.found.alphas[-1]
            st.caption(
                f"This one is kept at {G} × {G} on [{low:g}, {high:g}]²: each cell takes forward "
                "passes."
            )
    else:
        st.info(
            "Not computed yet: each cell takes forward passes of the merged model. Choose a "
            "small grid for a quick look.",
            icon=":material/hourglass_empty:",
        )
    if not fits or max(cell.found.n) < view.images:
        st.button(
            f"Compute {view.grid} × {view.grid} cells on {view.images:,} images a task",
            key=f"{prefix}start",
            icon=":material/play_arrow:",
            on_click=st.session_state.__setitem__,
            args=(state.XI_ASKED, request),
            help="In the background, coarse to fine. What is done is kept: it can be left and "
            "gone on with.",
        )


def draw_map(
    view: View, found: Map, vectors: Vectors, top: float, prefix: str, partial: bool = False
) -> None:
    """Draw a map with its numbers at the chosen alphas and its downloads."""
    key = f"{prefix}map_{found.mode}"
    name = f"xi_{vectors.encoder}_{found.mode}_{'_'.join(view.tasks)}".replace("/", "_")
    xi_map(
        payload(view, found, vectors, top, name),
        key,
        on_pick=lambda: pick_cell(key, view.tasks, found.mode),
    )
    st.caption(caption(view, found))
    if partial:
        return
    with st.popover("Download", icon=":material/download:", key=f"{key}_download"):
        with st.container(horizontal=True):
            widgets.downloads(
                name,
                lambda: exports.map_rows(found),
                exports.map_provenance(found, vectors, view.threshold),
                key=key,
            )


def payload(view: View, found: Map, vectors: Vectors, top: float, name: str) -> bytes:
    """Pack what the browser needs to draw a map."""
    first, second = map(plain, view.titles)
    tables = {"xi": found.xi, "low": found.low, "high": found.high}
    return pack(
        found.alphas,
        {**tables, "a": found.terms[0], "b": found.terms[1]},
        shown="xi",
        titles=(first, second),
        limits=view.limits,
        chosen=view.alphas,
        ends=(0.0, top),
        colours=figures.colours(),
        lines=(
            "ξ {xi} [{low}, {high}]",
            f"on {first}: {{a}}, n = {found.n[0]:,}",
            f"on {second}: {{b}}, n = {found.n[1]:,}",
        ),
        heading=(f"{vectors.encoder}, {style.MODE_TITLES[found.mode].lower()}", kind(found)),
        name="ξ" if found.source.distance != "kl" else "ξ (nats)",
        filename=name,
        alt=f"Disentanglement error of {first} and {second}, "
        f"{style.MODE_TITLES[found.mode].lower()}",
    )


def caption(view: View, found: Map) -> str:
    """Say a map's numbers: at the chosen alphas, and over the search box."""
    i, j = found.near_cell(view.alphas)
    share, cells = found.share(view.threshold)
    at = f"({found.alphas[i]:.2f}, {found.alphas[j]:.2f})"
    if found.xi[i, j] == found.xi[i, j]:
        said = f"ξ = **{found.xi[i, j]:.3f}** [{found.low[i, j]:.3f}, {found.high[i, j]:.3f}]"
    else:
        said = "not computed yet"
    box = f"ξ ≤ {view.threshold:.2f} on **{share:.0%}** of the search box ({cells} cells)"
    return (
        f"Nearest cell {at}: {said}. "
        + (box if cells else "No cell in the search box")
        + f". {kind(found)}"
    )


@st.fragment(run_every=0.7)
def watch(works: list) -> None:
    """Draw progress until all work is finished, then run the page again."""
    if all(work.finished.is_set() for work in works):
        again()
    for work in works:
        if not work.finished.is_set():
            st.progress(work.fraction, text=f"{work.note} · {work.fraction:.0%}")


@st.fragment(run_every=1.5)
def watch_map(view: View, vectors: Vectors, work, top: float, prefix: str) -> None:
    """Draw the map so far, its progress, and a way to leave it."""
    if work.finished.is_set() or alphas_in_force(view.tasks) != view.alphas:
        again()
    if work.partial is not None:
        draw_map(view, work.partial, vectors, top, prefix, partial=True)
    st.progress(work.fraction, text=f"{work.note} · {work.fraction:.0%}")
    st.button(
        "Cancel",
        key=f"{prefix}cancel",
        icon=":material/close:",
        on_click=leave,
        args=(work,),
        help="What is done is kept; start again to go on.",
    )


def leave(work) -> None:
    """Leave forward passes."""
    work.cancel()
    st.session_state.pop(state.XI_ASKED, None)


def read_ahead(view: View, rows: Mapping[str, Mapping[str, Cell]]) -> None:
    """Read the class scores of the other tasks, where they are kept: the next pair is then quick.

    Args:
        view: What is shown.
        rows: Cells by reading, by encoder.
    """
    for cells in rows.values():
        for mode in compute.LINEARIZED:
            vectors = cells[mode].vectors
            if vectors is None or compute.in_memory(vectors, vectors.names) is not None:
                continue
            if compute.are_kept(vectors):
                compute.load(vectors, vectors.names, view.visitor)
