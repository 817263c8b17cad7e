"""What the Results page shows, and its address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.state.keys import (
    QUERY_BESIDE,
    QUERY_BESIDE_SEED,
    QUERY_ENCODER,
    QUERY_READING,
    QUERY_SECTION,
    QUERY_SEED,
    QUERY_TASKS,
    READINGS,
)

MOST_SEED = 2**31 - 1
OWN = "own"  # in the address: of the encoder's own tasks
EIGHT = "eight"  # and of the miniature's


@dataclass(frozen=True)
class ResultsView:
    """What the Results page shows; an empty or None field was not given.

    ``seed`` and ``beside_seed`` of None stand for the mean over all seeds there are; ``tasks`` is
    "eight" or "own".
    """

    encoder: str | None = None
    seed: int | None = None
    beside: str | None = None
    beside_seed: int | None = None
    exhibits: tuple[str, ...] = ()
    readings: tuple[str, ...] = ()
    tasks: str | None = None


def results_query(view: ResultsView) -> dict[str, str]:
    """Write a view of the Results page as the address's parameters; what is None is left out."""
    parts = {
        QUERY_ENCODER: view.encoder,
        QUERY_SEED: view.seed,
        QUERY_BESIDE: view.beside,
        QUERY_BESIDE_SEED: view.beside_seed,
        QUERY_SECTION: ",".join(view.exhibits) or None,
        QUERY_READING: ",".join(view.readings) if view.readings != READINGS else None,
        QUERY_TASKS: view.tasks,
    }
    return {key: str(value) for key, value in parts.items() if value is not None}


def results_visited(query: Mapping[str, str]) -> ResultsView | None:
    """Say which view an address asks for.

    Args:
        query: Its parameters, written by anyone; what is malformed counts as not given.

    Returns:
        The view; None for an address without parameters.
    """
    if not query:
        return None
    return ResultsView(
        query.get(QUERY_ENCODER) or None,
        _seed(query.get(QUERY_SEED, "")),
        query.get(QUERY_BESIDE) or None,
        _seed(query.get(QUERY_BESIDE_SEED, "")),
        tuple(dict.fromkeys(part for part in query.get(QUERY_SECTION, "").split(",") if part)),
        tuple(name for name in READINGS if name in query.get(QUERY_READING, "").split(",")),
        query[QUERY_TASKS] if query.get(QUERY_TASKS) in (OWN, EIGHT) else None,
    )


def results_pick(raw: object, known: Sequence[str]) -> str | None:
    """Read which cell of a table its user wants to have run.

    Args:
        raw: The component's result or raw state: {"run": id}.
        known: Ids of the cells that can be run.

    Returns:
        One of them; None where nothing, or anything else, was sent.
    """
    try:
        wanted = raw["run"]
    except (KeyError, TypeError):
        return None
    return wanted if isinstance(wanted, str) and wanted in known else None


def _seed(text: str) -> int | None:
    """Read a seed."""
    return int(text) if text.isascii() and text.isdigit() and int(text) <= MOST_SEED else None
