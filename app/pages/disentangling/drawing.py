"""One map: what the browser gets, its numbers in words, its downloads."""

import streamlit as st

from app import widgets
from app.components.ximap import pack, xi_map
from app.compute import disentanglement_exports as exports
from app.compute.disentanglement import Map, Vectors
from app.figures import disentanglement as figures
from app.figures import style
from app.pages.disentangling.view import View, kind, pick_cell, plain


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
        + (box if cells else f"No cell in the search box{'' if found.complete else ' yet'}")
        + f". {kind(found)}"
    )
