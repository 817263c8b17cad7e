"""What the Merge page shows, and its address."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from app.state.address import number
from app.state.keys import (
    CONVENTIONS,
    DIRECTION,
    FARTHEST,
    MOST_PINS,
    QUERY_ALPHAS,
    QUERY_CONVENTION,
    QUERY_ENCODER,
    QUERY_METHOD,
    QUERY_OPTIONS,
    QUERY_READING,
    QUERY_TASKS,
    READINGS,
    START,
)


@dataclass(frozen=True)
class MergeView:
    """What the Merge page shows; an empty or None field was not given.

    ``alphas`` are keyed by task name and may be fewer than ``tasks``; a method has one alpha, that
    of ``DIRECTION``.
    """

    encoder: str | None = None
    reading: str | None = None
    convention: str | None = None
    tasks: tuple[str, ...] = ()
    alphas: Mapping[str, float] = field(default_factory=dict)
    method: str | None = None
    options: Mapping[str, float] = field(default_factory=dict)


def to_query(view: MergeView) -> dict[str, str]:
    """Write a view as the address's parameters, in short keys.

    Args:
        view: A complete view: every task has an alpha, or the method's direction has.

    Returns:
        Strings by key; :func:`from_query` gives the same view back.
    """
    query = {QUERY_ENCODER: view.encoder or "", QUERY_READING: view.reading or ""}
    if view.method is None:
        query[QUERY_CONVENTION] = view.convention or ""
    else:
        query[QUERY_METHOD] = view.method
        query[QUERY_OPTIONS] = ",".join(f"{k}:{v:.12g}" for k, v in view.options.items())
    sliders = view.tasks if view.method is None else (DIRECTION,)
    query[QUERY_TASKS] = ",".join(quote(task, safe="") for task in view.tasks)
    query[QUERY_ALPHAS] = ",".join(f"{view.alphas[name]:.6g}" for name in sliders)
    return {key: value for key, value in query.items() if value or key != QUERY_OPTIONS}


def from_query(query: Mapping[str, str]) -> MergeView:
    """Read a view from the address; what is missing or malformed counts as not given.

    Args:
        query: Parameters of the address, written by anyone.

    Returns:
        The view; alphas are clipped to [-1, 2], those of a method to [0, 2], and dropped where they
        are not numbers. Whether there is such a method or option is not known here.
    """
    method = query.get(QUERY_METHOD) or None
    reading = query.get(QUERY_READING)
    convention = query.get(QUERY_CONVENTION)
    names = [unquote(part) for part in query.get(QUERY_TASKS, "").split(",") if part]
    alphas = {}
    for name, text in zip(
        [DIRECTION] if method else names, query.get(QUERY_ALPHAS, "").split(","), strict=False
    ):
        alpha = number(text)
        if alpha is not None:
            alphas[name] = max(0.0, alpha) if method else alpha
    return MergeView(
        encoder=query.get(QUERY_ENCODER) or None,
        reading=reading if reading in READINGS else None,
        convention=convention if convention in CONVENTIONS else None,
        tasks=tuple(dict.fromkeys(names)),
        alphas=alphas,
        method=method,
        options=_options(query.get(QUERY_OPTIONS, "")) if method else {},
    )


def _options(text: str) -> dict[str, float]:
    """Read "name:value" pairs; what is malformed counts as not given."""
    found = {}
    for part in text.split(","):
        name, _, value = part.rpartition(":")
        try:
            found[name] = float(value)
        except ValueError:
            continue
    return {name: value for name, value in found.items() if name and math.isfinite(value)}


def visited(query: Mapping[str, str]) -> MergeView | None:
    """Say which view an address asks for.

    Args:
        query: Its parameters.

    Returns:
        The view; None for an address without parameters.
    """
    if not query:
        return None
    return from_query(query)


def choose(wanted: str | None, options: Sequence[str]) -> str | None:
    """Keep a wanted option where it exists, else take the first; None without any option."""
    if wanted in options:
        return wanted
    return options[0] if options else None


def choose_tasks(wanted: Sequence[str], options: Sequence[str], default: Sequence[str]) -> list:
    """Keep the wanted tasks that exist, in the options' order; the default where none does."""
    kept = [name for name in options if name in set(wanted)]
    return kept or [name for name in options if name in set(default)]


def carry_alphas(tasks: Sequence[str], alphas: Mapping[str, float]) -> dict[str, float]:
    """Give every task an alpha: its own where it had one, else the usual start."""
    return {task: alphas.get(task, START) for task in tasks}


def carry_direction(tasks: Sequence[str], alphas: Mapping[str, float]) -> float:
    """Give a method's direction an alpha: the mean of the tasks' own, within its range."""
    own = carry_alphas(tasks, alphas).values()
    return min(FARTHEST, max(0.0, round(sum(own) / len(own), 2)))


def remembered(
    held: Mapping[str, float], tasks: Sequence[str], alphas: Mapping[str, float]
) -> dict[str, float]:
    """Keep alphas so that a change between a slider a task and a method keeps them.

    Args:
        held: Those kept before, of any task and of ``DIRECTION``.
        tasks: The tasks merged.
        alphas: Of the sliders there are now: the tasks', or ``DIRECTION`` alone.

    Returns:
        All, brought into step: a direction's alpha is the mean of the tasks', whose own return when
        it was not moved, and follow it when it was.
    """
    now = {**held, **alphas}
    if DIRECTION not in alphas:
        return {**now, DIRECTION: carry_direction(tasks, now)}
    if carry_direction(tasks, now) != alphas[DIRECTION]:
        now |= dict.fromkeys(tasks, alphas[DIRECTION])
    return now


def add_pin(pins: Sequence[dict], pin: dict) -> list[dict]:
    """Keep one more setting, named by the next free letter; the oldest leaves when there are many.

    Args:
        pins: Those kept, each with a "name".
        pin: The new one, without a name.

    Returns:
        The settings kept, the new one last.
    """
    kept = list(pins)[-(MOST_PINS - 1) :]
    taken = {item["name"] for item in kept}
    name = next(letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in taken)
    return [*kept, {"name": name, **pin}]


def remove_pin(pins: Sequence[dict], name: str) -> list[dict]:
    """Forget the setting of that name."""
    return [pin for pin in pins if pin["name"] != name]
