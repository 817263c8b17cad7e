"""What the Disentanglement page shows, and how a click changes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st

from app import state
from app.components.ximap import read_pick
from app.compute.disentanglement import Map, Vectors


@dataclass(frozen=True, eq=False)
class View:
    """Everything chosen.

    Attributes:
        tasks: The pair.
        titles: What a reader sees of it.
        alphas: In force, in the order of the pair.
        axis: Alphas of both axes.
        limits: Their ends.
        distance: "error", "tv" or "kl".
        threshold: Of the share of the search box.
        images: Images a task of forward passes to be started.
        visitor: Who starts background work.
        place: The back end of jobs to be started.
    """

    tasks: tuple[str, str]
    titles: tuple[str, str]
    alphas: tuple[float, float]
    axis: np.ndarray
    limits: tuple[float, float]
    distance: str
    threshold: float
    images: int
    visitor: str
    place: str = "local"

    @property
    def grid(self) -> int:
        """Points an axis."""
        return len(self.axis)


@dataclass(eq=False)
class Cell:
    """One reading's place in a row of maps.

    Attributes:
        vectors: Its task vectors, if there are any.
        found: The map.
        works: What makes a linearized one.
        line: The command line that would make a non-linear one, where what is found does not fit.
        job: The job of that line, at work or stopped.
        why: Why there is no map.
    """

    vectors: Vectors | None
    found: Map | None = None
    works: list = field(default_factory=list)
    line: tuple[str, ...] = ()
    job: Any = None
    why: str = ""


def set_alphas(alphas: Mapping[str, float]) -> None:
    """Set alphas everywhere: here, on the sliders of Merge, in both addresses.

    Args:
        alphas: By task; may lie outside of Merge's sliders, which then stand at their ends.
    """
    held = st.session_state.get(state.XI_ALPHAS, {})
    st.session_state[state.XI_ALPHAS] = {**held, **alphas}
    there = st.session_state.get(state.MERGE_INITIAL, {})
    clipped = state.merge_alphas(list(alphas), list(alphas.values()))
    st.session_state[state.MERGE_INITIAL] = {**there, **clipped}
    st.session_state[state.MERGE_METHOD] = state.ARITHMETIC  # a slider a task
    st.session_state[state.MERGE_REVISION] = st.session_state.get(state.MERGE_REVISION, 0) + 1


def pick_cell(key: str, tasks: tuple[str, str], mode: str) -> None:
    """Take over a cell that was picked on a map.

    Args:
        key: Of the map.
        tasks: Whose alphas its axes are.
        mode: Its reading.
    """
    alphas = read_pick(st.session_state.get(key))
    if alphas is None:
        return
    set_alphas(dict(zip(tasks, alphas, strict=True)))
    st.session_state[state.XI_READING] = mode


def pick_difference(key: str, tasks: tuple[str, str]) -> None:
    """Take over a click on the map of differences.

    Args:
        key: Of the figure.
        tasks: Whose alphas its axes are.
    """
    point = state.clicked(st.session_state.get(key))
    if point is not None:
        alphas = [round(float(point[side]), 9) + 0.0 for side in "xy"]
        set_alphas(dict(zip(tasks, alphas, strict=True)))


def alphas_in_force(tasks: tuple[str, str]) -> tuple[float, ...]:
    """Return the alphas of a pair as they are now."""
    session = st.session_state
    mine, merge = session.get(state.XI_ALPHAS, {}), session.get(state.MERGE_INITIAL, {})
    return state.alphas_of_pair(tasks, mine, merge)


def pick_pair(key: str, names: tuple[str, ...]) -> None:
    """Take over a click on the matrix of pairs: the maps show that pair.

    Args:
        key: Of the figure.
        names: Of the tasks, in the order of the matrix.
    """
    point = state.clicked(st.session_state.get(key))
    if point is None:
        return
    carried = point["customdata"]
    a, b = (
        int(carried[k] if not isinstance(carried, Mapping) else carried[str(k)]) for k in (0, 1)
    )
    st.session_state[state.XI_FIRST], st.session_state[state.XI_SECOND] = names[a], names[b]


def kind(found: Map) -> str:
    """Say whether a map is exact, and on how many images."""
    counts = " + ".join(f"{n:,}" for n in found.n)
    return f"{'exact' if found.exact else 'approximate'}, n = {counts}"


def plain(title: str) -> str:
    """Return a title without what Plotly would read as its own signs."""
    return "".join(" " if letter in "{}%<>&" else letter for letter in title)
