"""What lies below the maps: images that change, cross-sections, a difference, pairs, a summary."""

from collections.abc import Mapping, Sequence

import numpy as np
import streamlit as st

from app import state, widgets
from app.compute import catalogue
from app.compute import disentanglement as compute
from app.compute import disentanglement_changes as changing
from app.compute import disentanglement_exports as exports
from app.compute import disentanglement_pairs as pairing
from app.compute.background import follow
from app.compute.disentanglement import Map, Vectors
from app.figures import disentanglement as figures
from app.figures import style
from app.pages.disentangling import maps
from app.pages.disentangling.view import (
    Cell,
    View,
    kind,
    pick_difference,
    pick_pair,
    plain,
    set_alphas,
)

SHOWN = 18  # pictures a task
LARGER = 3  # times, so that 32 pixels are seen


def drawn(cells: Mapping[str, Cell]) -> dict[str, Map]:
    """Return the maps there are, by reading."""
    return {mode: cell.found for mode, cell in cells.items() if cell.found is not None}


def choose_reading(
    options: Sequence[str], key: str = state.XI_READING, label: str = "Reading of the weights"
) -> str:
    """Draw the choice of a reading, and return it."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = "linear" if "linear" in options else options[0]
    return st.segmented_control(
        label,
        options,
        required=True,
        format_func=style.MODE_TITLES.get,
        key=key,
        persist_state="session",
    )


def images(view: View, cells: Mapping[str, Cell]) -> None:
    """Draw the images whose prediction the other task's vector changes at the chosen alphas."""
    usable = [mode for mode, cell in cells.items() if cell.vectors is not None and not cell.why]
    if not usable:
        st.info("No reading has task vectors of both tasks.", icon=":material/info:")
        return
    mode = choose_reading(usable)
    vectors = cells[mode].vectors
    loaded = None
    if mode != "nonlinear":
        loaded = compute.in_memory(vectors, view.tasks)
        if loaded is None:
            st.info("The class scores are still being read.", icon=":material/hourglass_empty:")
            return
    with st.spinner("Forward passes at these alphas", show_time=True):
        found = changing.changes(vectors, view.tasks, view.alphas, loaded, SHOWN)
    at = ", ".join(
        f"α {title} = {alpha:.2f}" for title, alpha in zip(view.titles, view.alphas, strict=True)
    )
    st.caption(
        f"{style.MODE_TITLES[mode]}, {at}. Under each picture: what the task's own vector alone "
        "predicts → what both together predict, then the true class."
    )
    for part, column in zip(found, st.columns(2, gap="large"), strict=True):
        with column:
            share = len(part.indices) / part.n
            st.markdown(
                f"**{part.title}**: {len(part.indices):,} of {part.n:,} predictions change "
                f"({share:.1%}; exact, n = {part.n:,})"
            )
            if not len(part.indices):
                st.caption("None: at these alphas the other vector changes nothing here.")
                continue
            texts = zip(part.single, part.merged, part.labels, strict=True)
            captions = [
                f"{one} → {both}{' ✓' if both == label else ''}  \ntrue: {label}"
                for one, both, label in texts
            ][:SHOWN]
            large = part.pictures.repeat(LARGER, axis=1).repeat(LARGER, axis=2)
            st.image(list(large), caption=captions, width=104)
            if len(part.indices) > SHOWN:
                st.caption(f"The first {SHOWN} of {len(part.indices):,}; the file has them all.")
    facts = {
        "alphas": dict(zip(view.tasks, view.alphas, strict=True)),
        "n": {part.task: part.n for part in found},
        "split": "test",
        "split_digests": {part.task: part.split_digest for part in found},
    }
    with st.popover("Download", icon=":material/download:", key="changes_download"):
        with st.container(horizontal=True):
            widgets.downloads(
                f"changed_{vectors.encoder}_{mode}_{'_'.join(view.tasks)}".replace("/", "_"),
                exports.change_rows(found),
                exports.provenance(
                    "images whose prediction the second task vector changes", vectors, **facts
                ),
                key="changes",
            )


def cross_sections(view: View, cells: Mapping[str, Cell], encoder: str) -> None:
    """Draw two sliders, and xi along each alpha while the other stands still."""
    found = drawn(cells)
    options = [round(float(alpha), 9) + 0.0 for alpha in view.axis]
    for place, column in enumerate(st.columns(2, gap="large")):
        with column:
            slider(view, place, options)
            if not found:
                st.info("No map is there yet to cut through.", icon=":material/info:")
                continue
            draw_section(view, found, cells, place, encoder)


def slider(view: View, place: int, options: list[float]) -> None:
    """Draw the slider of one alpha; it stands at the grid's nearest value."""
    key = state.XI_SLIDERS[place]
    nearest = min(options, key=lambda option: abs(option - view.alphas[place]))
    st.session_state[key] = nearest
    st.select_slider(
        f"α of {view.titles[place]}",
        options,
        key=key,
        format_func=lambda alpha: f"{alpha:.2f}",
        on_change=lambda: set_alphas({view.tasks[place]: st.session_state[key]}),
        help="Moves the chosen alpha everywhere, Merge included.",
    )


def draw_section(
    view: View, found: Mapping[str, Map], cells: Mapping[str, Cell], place: int, encoder: str
) -> None:
    """Draw xi along one alpha."""
    lines = {}
    for mode, each in found.items():
        at = each.nearest(view.alphas[1 - place])
        cut = (slice(None), at) if place == 0 else (at, slice(None))
        lines[mode] = {
            "alphas": each.alphas,
            "xi": each.xi[cut],
            "low": each.low[cut],
            "high": each.high[cut],
            "title": f"{style.MODE_TITLES[mode].lower()}, other α {each.alphas[at]:.2f}",
        }
    other, n = view.titles[1 - place], sorted({n for each in found.values() for n in each.n})
    counts = " to ".join(f"{count:,}" for count in dict.fromkeys((n[0], n[-1])))
    word = "exact" if all(each.exact for each in found.values()) else "approximate in part"
    widgets.figure(
        figures.cross_section(
            lines,
            f"α of {plain(view.titles[place])}",
            view.alphas[place],
            view.limits,
            f"{plain(encoder)}: ξ while α of {plain(other)} stands<br>"
            f"{word}, n = {counts} a task; bands are 95 % intervals",
        ),
        f"xi_section_{view.tasks[place]}_{encoder}".replace("/", "_"),
        exports.line_rows(lines),
        exports.provenance(
            f"{exports.XI}, along alpha of {view.tasks[place]}",
            {mode: cells[mode].vectors for mode in found},
            pair=list(view.tasks),
            fixed={
                view.tasks[1 - place]: {m: float(line_at(found[m], view, place)) for m in found}
            },
            distance=view.distance,
            n={mode: dict(zip(each.tasks, each.n, strict=True)) for mode, each in found.items()},
        ),
        key=f"section_{place}",
        alt=f"Disentanglement error along the alpha of {view.titles[place]}",
    )


def line_at(found: Map, view: View, place: int) -> float:
    """Return the alpha at which the other axis is cut."""
    return found.alphas[found.nearest(view.alphas[1 - place])]


def difference(view: View, cells: Mapping[str, Cell]) -> None:
    """Draw the difference of two readings on one grid."""
    found = drawn(cells)
    if len(found) < 2:
        st.info("A difference needs two maps; one at most is there.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        options = list(found)
        default = "nonlinear" if "nonlinear" in options else options[0]
        if st.session_state.get(state.XI_MINUEND) not in options:
            st.session_state[state.XI_MINUEND] = default
        first = st.segmented_control(
            "From",
            options,
            required=True,
            format_func=style.MODE_TITLES.get,
            key=state.XI_MINUEND,
            persist_state="session",
        )
        second = choose_reading(
            [mode for mode in options if mode != first], state.XI_MINUS, "subtract"
        )
    one, two = on_one_grid(view, cells, found[first], found[second])
    if one is None:
        st.info(
            "The two maps are on different grids. Choose the grid and range that the non-linear "
            "map is kept at.",
            icon=":material/info:",
        )
        return
    values = one.xi - two.xi
    known = values[~np.isnan(values)]
    names = [style.MODE_TITLES[mode].lower() for mode in (first, second)]
    same = one.n == two.n
    kinds = " against ".join(dict.fromkeys((kind(one), kind(two))))
    title = f"ξ {names[0]} − {names[1]}, mean {known.mean():+.3f}<br>{kinds}"
    left, right = st.columns([3, 2], gap="large")
    right.caption(
        f"Orange: {names[0]} interferes more; blue: {names[1]} does. "
        + ("Both on the same number of images." if same else "On different numbers of images.")
    )
    with left:
        widgets.figure(
            figures.difference(
                one.alphas,
                values,
                {"a": one.xi, "b": two.xi},
                tuple(map(plain, view.titles)),
                limits=view.limits,
                chosen=view.alphas,
                lines=("Δξ {xi}", f"{names[0]} {{a}}", f"{names[1]} {{b}}"),
                title=title,
            ),
            f"xi_{first}_minus_{second}_{'_'.join(view.tasks)}",
            lambda: exports.difference_rows(one, two),
            exports.provenance(
                f"difference of {exports.XI}: {first} minus {second}",
                {mode: cells[mode].vectors for mode in (first, second)},
                pair=list(view.tasks),
                distance=view.distance,
                n={each.mode: dict(zip(each.tasks, each.n, strict=True)) for each in (one, two)},
                split_digests={each.mode: dict(each.source.splits) for each in (one, two)},
            ),
            key="difference",
            alt="Difference of the disentanglement errors of two readings",
            on_select=lambda: pick_difference("difference", view.tasks),
            selection_mode="points",
        )


def on_one_grid(
    view: View, cells: Mapping[str, Cell], first: Map, second: Map
) -> tuple[Map | None, Map | None]:
    """Return two maps on one grid: a linearized one is computed where the other lies."""
    if compute.is_on(second, first.alphas):
        return first, second
    if "nonlinear" not in (first.mode, second.mode) or view.distance != "error":
        return None, None
    fixed, free = (first, second) if first.mode == "nonlinear" else (second, first)
    vectors = cells[free.mode].vectors
    loaded = compute.in_memory(vectors, view.tasks)
    moved = compute.linearized(vectors, view.tasks, fixed.alphas, view.distance, loaded)
    return (fixed, moved) if first.mode == "nonlinear" else (moved, fixed)


def pairs(view: View, cells: Mapping[str, Cell]) -> None:
    """Draw xi of every pair at one alpha, and of all tasks at once along alpha."""
    usable = [mode for mode, cell in cells.items() if cell.vectors is not None]
    if not usable:
        st.info("No reading has two task vectors.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        mode = choose_reading(usable)
        st.session_state.setdefault(state.XI_PAIR_ALPHA, 1.0)
        alpha = st.slider(
            "α of both vectors of a pair",
            -1.0,
            2.0,
            step=0.05,
            key=state.XI_PAIR_ALPHA,
            width=320,
            persist_state="session",
        )
    vectors = cells[mode].vectors
    if mode == "nonlinear":
        found = nonlinear_pairs(view, vectors, alpha)
    else:
        found = linearized_pairs(view, vectors, alpha)
    if found is None:
        return
    titles = catalogue.titles(list(found.names))
    left, right = st.columns([3, 2], gap="large")
    with left:
        draw_pairs(view, vectors, found, titles)
    with right:
        draw_diagonal(view, cells, alpha)


def linearized_pairs(view: View, vectors: Vectors, alpha: float) -> pairing.Pairs | None:
    """Return the matrix of a linearized reading, or draw what it waits for."""
    loaded = scores_of_all(view, vectors)
    return None if loaded is None else pairing.linearized_pairs(vectors, alpha, loaded)


def scores_of_all(view: View, vectors: Vectors) -> dict | None:
    """Return the class scores of all tasks, or draw the progress of reading them."""
    if compute.in_memory(vectors, vectors.names) is None:
        work = compute.load(vectors, vectors.names, view.visitor)
        follow(work)
        maps.raise_error(work)
        if not work.finished.is_set():
            maps.watch([work])
            return None
    return compute.in_memory(vectors, vectors.names)


def nonlinear_pairs(view: View, vectors: Vectors, alpha: float) -> pairing.Pairs | None:
    """Return the matrix of forward passes, or draw the button that starts it, or its progress."""
    T = len(vectors.names)
    asked = ("pairs", vectors.digests, alpha)
    if st.session_state.get(state.XI_PAIRS_ASKED) != asked:
        st.button(
            f"Compute {T * (T - 1) // 2} pairs at α = {alpha:.2f}",
            key="pairs_start",
            icon=":material/play_arrow:",
            on_click=st.session_state.__setitem__,
            args=(state.XI_PAIRS_ASKED, asked),
            help="Forward passes of every pair's merged model on the first images of each task.",
        )
        return None
    work = pairing.nonlinear_pairs(vectors, alpha, view.visitor)
    follow(work)
    maps.raise_error(work)
    if work.result is None:
        maps.watch([work])
    return work.result


def draw_pairs(view: View, vectors: Vectors, found: pairing.Pairs, titles: list[str]) -> None:
    """Draw the matrix; a click on a cell shows that pair above."""
    counts = sorted(set(found.n))
    n = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    names = [plain(title) for title in titles]
    chosen = tuple(map(plain, view.titles))
    widgets.figure(
        figures.pairs(
            names,
            found.xi,
            found.terms,
            found.n,
            chosen,
            f"ξ of every pair at α = {found.alpha:.2f}, {style.MODE_TITLES[found.mode].lower()}"
            f"<br>{plain(vectors.encoder)}; exact, n = {n} a task",
        ),
        f"xi_pairs_{vectors.encoder}_{found.mode}".replace("/", "_"),
        exports.pair_rows(found),
        exports.provenance(
            f"{exports.XI}, of every pair at one alpha",
            vectors,
            alpha=found.alpha,
            n=dict(zip(found.names, found.n, strict=True)),
            split="test",
        ),
        key=f"pairs_{found.mode}",
        alt="Disentanglement error of every pair of tasks",
        on_select=lambda: pick_pair(f"pairs_{found.mode}", found.names),
        selection_mode="points",
    )
    st.caption("Click a cell to see that pair's maps above; the red frame is the pair shown.")


def draw_diagonal(view: View, cells: Mapping[str, Cell], alpha: float) -> None:
    """Draw xi of all tasks at once, of the linearized readings that are in memory."""
    lines, used = {}, {}
    for mode in compute.LINEARIZED:
        vectors = cells[mode].vectors
        loaded = vectors and compute.in_memory(vectors, vectors.names)
        if loaded:
            lines[mode] = pairing.diagonal(vectors, loaded)
            lines[mode] = {**lines[mode], "title": style.MODE_TITLES[mode].lower()}
            used[mode] = vectors
    if not lines:
        return
    T = max(len(vectors.names) for vectors in used.values())
    widgets.figure(
        figures.diagonal(
            lines, T, alpha, f"All {T} tasks merged at one α<br>exact, on the same images"
        ),
        "xi_all_tasks",
        exports.line_rows(lines),
        exports.provenance(
            "disentanglement error of all tasks at once: the sum over tasks of how often the merge "
            "of all vectors predicts another class than the task's own vector alone",
            used,
            split="test",
        ),
        key="diagonal",
        alt="Disentanglement error of all tasks at once against alpha",
    )


def summary(view: View, rows: Mapping[str, Mapping[str, Cell]]) -> None:
    """Draw one number a map: the share of the search box with xi under the threshold."""
    table = []
    for encoder, cells in rows.items():
        for mode, found in drawn(cells).items():
            share, count = found.share(view.threshold)
            i, j = found.near_cell(view.alphas)
            table.append({
                "encoder": encoder,
                "reading": style.MODE_TITLES[mode],
                f"share of [0, 1]² with ξ ≤ {view.threshold:.2f}": f"{share:.1%}" if count else "–",
                "cells in it": count,
                "mean ξ of the map": f"{np.nanmean(found.xi):.3f}",
                "ξ at the chosen α": f"{found.xi[i, j]:.3f}",
                "grid": f"{len(found.alphas)} × {len(found.alphas)}",
                "kind": kind(found),
            })
    if not table:
        st.info("No map is there yet.", icon=":material/info:")
        return
    st.dataframe(table, key="summary_table", hide_index=True, height="content")
    st.caption(
        "A share counts grid points; compare maps on the same grid. Choose the range 0 to 1 to "
        "fill the box with cells."
    )
    with st.container(horizontal=True):
        widgets.downloads(
            "xi_summary",
            table,
            exports.provenance(
                "share of the search box with xi under a threshold",
                {
                    f"{encoder}, {mode}": cells[mode].vectors
                    for encoder, cells in rows.items()
                    for mode in drawn(cells)
                },
                pair=list(view.tasks),
                threshold=view.threshold,
                distance=view.distance,
            ),
            key="summary",
        )
