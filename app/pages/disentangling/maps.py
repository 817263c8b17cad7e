"""A row of maps: one a reading, drawn, in the making, or with what to do."""

from collections.abc import Mapping

import streamlit as st

from app import state
from app.compute import disentanglement as compute
from app.compute import disentanglement_jobs as asking
from app.compute import disentanglement_passes as passes
from app.compute import jobs
from app.compute.background import board, follow
from app.compute.disentanglement import Vectors
from app.compute.merging import TRAINED
from app.figures import style
from app.pages.disentangling import nonlinear
from app.pages.disentangling.drawing import draw_map
from app.pages.disentangling.view import Cell, View
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
    """Find the kept map of the non-linear reading, and the job that makes one that fits better."""
    asked = (view.tasks, view.axis, view.distance, view.images)
    cell.found = found = passes.kept_nonlinear(cell.vectors, *asked)
    if found is None or not compute.is_on(found, view.axis) or max(found.n) < view.images:
        asked = (view.tasks, view.grid, view.limits, view.distance, view.images)
        cell.line = tuple(asking.words(cell.vectors, *asked))
        cell.job = jobs.asked(cell.line)


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
                nonlinear.draw(view, cell, top, prefix)
            elif cell.found is None:
                watch(cell.works)
            else:
                draw_map(view, cell.found, cell.vectors, top, prefix)


@st.fragment(run_every=0.7)
def watch(works: list) -> None:
    """Draw progress until all work is finished, then run the page again."""
    if all(work.finished.is_set() for work in works):
        again()
    for work in works:
        if not work.finished.is_set():
            st.progress(work.fraction, text=f"{work.note} · {work.fraction:.0%}")


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
