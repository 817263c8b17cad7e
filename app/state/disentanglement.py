"""What the Disentanglement page shows, and its address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from app.state.address import numbers
from app.state.keys import (
    HIGHEST,
    LOWEST,
    QUERY_ALPHAS,
    QUERY_BESIDE,
    QUERY_DISTANCE,
    QUERY_ENCODER,
    QUERY_GRID,
    QUERY_RANGE,
    QUERY_READING,
    QUERY_SECTION,
    QUERY_TASKS,
    QUERY_THRESHOLD,
    READINGS,
    START,
    XI_DISTANCES,
    XI_GRIDS,
    XI_REACH,
)


@dataclass(frozen=True)
class XiView:
    """What the Disentanglement page shows; an empty or None field was not given.

    ``pair`` and ``alphas`` have two entries or none; ``limits`` are of both axes.
    """

    encoder: str | None = None
    beside: str | None = None
    pair: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ()
    grid: int | None = None
    limits: tuple[float, ...] = ()
    distance: str | None = None
    threshold: float | None = None
    section: str | None = None
    reading: str | None = None


def xi_query(view: XiView) -> dict[str, str]:
    """Write a view as the address's parameters; what it does not give stays out."""
    said = {
        QUERY_ENCODER: view.encoder,
        QUERY_BESIDE: view.beside,
        QUERY_TASKS: ",".join(quote(task, safe="") for task in view.pair),
        QUERY_ALPHAS: ",".join(f"{alpha:.6g}" for alpha in view.alphas),
        QUERY_GRID: None if view.grid is None else str(view.grid),
        QUERY_RANGE: ",".join(f"{limit:.6g}" for limit in view.limits),
        QUERY_DISTANCE: view.distance,
        QUERY_THRESHOLD: None if view.threshold is None else f"{view.threshold:.6g}",
        QUERY_SECTION: view.section,
        QUERY_READING: view.reading,
    }
    return {key: value for key, value in said.items() if value}


def xi_visited(query: Mapping[str, str]) -> XiView | None:
    """Say which view an address asks for.

    Args:
        query: Its parameters, written by anyone; what is malformed counts as not given.

    Returns:
        The view; None for an address without parameters.
    """
    if not query:
        return None
    pair = tuple(unquote(part) for part in query.get(QUERY_TASKS, "").split(",") if part)
    limits = numbers(query.get(QUERY_RANGE, ""), -XI_REACH, XI_REACH)
    grid = query.get(QUERY_GRID, "")
    reading, distance = query.get(QUERY_READING), query.get(QUERY_DISTANCE)
    threshold = numbers(query.get(QUERY_THRESHOLD, ""), 0.0, 2.0, 1)
    return XiView(
        encoder=query.get(QUERY_ENCODER) or None,
        beside=query.get(QUERY_BESIDE) or None,
        pair=pair if len(set(pair)) == 2 and len(pair) == 2 else (),
        alphas=numbers(query.get(QUERY_ALPHAS, ""), -XI_REACH, XI_REACH),
        grid=int(grid) if grid in {str(points) for points in XI_GRIDS} else None,
        limits=limits if limits and limits[0] < limits[1] else (),
        distance=distance if distance in XI_DISTANCES else None,
        threshold=threshold[0] if threshold else None,
        section=query.get(QUERY_SECTION) or None,
        reading=reading if reading in READINGS else None,
    )


def merge_alphas(pair: Sequence[str], alphas: Sequence[float]) -> dict[str, float]:
    """Give the alphas of a pair as Merge's sliders can hold them: clipped to their ends."""
    return {
        task: min(HIGHEST, max(LOWEST, alpha)) for task, alpha in zip(pair, alphas, strict=True)
    }


def alphas_of_pair(
    pair: Sequence[str], mine: Mapping[str, float], merge: Mapping[str, float]
) -> tuple[float, ...]:
    """Give the alphas in force for a pair: those chosen on a map unless Merge has moved since.

    Args:
        pair: Two tasks.
        mine: Alphas chosen on the maps, by task; may lie outside of Merge's sliders.
        merge: Alphas of Merge's sliders, by task.

    Returns:
        One alpha a task.
    """
    found = []
    for task in pair:
        held, there = mine.get(task, START), merge.get(task)
        moved = there is not None and there != min(HIGHEST, max(LOWEST, held))
        found.append(there if moved else held)
    return tuple(found)
