"""What the Eigenfunctions page shows, and its address."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.state.keys import (
    QUERY_BESIDE,
    QUERY_CONTROL,
    QUERY_ENCODER,
    QUERY_LIMIT,
    QUERY_LOGITS,
    QUERY_ORDER,
    QUERY_POINTS,
    QUERY_SETTING,
    QUERY_TASKS,
)


@dataclass(frozen=True)
class NtkView:
    """What the Eigenfunctions page shows; an empty or None field was not given."""

    encoder: str | None = None
    beside: str | None = None
    task: str | None = None
    control: str | None = None
    points: int | None = None
    logits: str | None = None
    setting: str | None = None
    order: str | None = None
    limit: int | None = None


_NTK_QUERY = {
    "encoder": QUERY_ENCODER,
    "beside": QUERY_BESIDE,
    "task": QUERY_TASKS,
    "control": QUERY_CONTROL,
    "points": QUERY_POINTS,
    "logits": QUERY_LOGITS,
    "setting": QUERY_SETTING,
    "order": QUERY_ORDER,
    "limit": QUERY_LIMIT,
}


DIGITS = {"points": 5, "limit": 7}  # of the numbers in an address


def ntk_query(view: NtkView) -> dict[str, str]:
    """Write a view as the address's parameters; what it does not give stays out."""
    named = {key: getattr(view, field) for field, key in _NTK_QUERY.items()}
    return {key: str(value) for key, value in named.items() if value is not None}


def ntk_visited(query: Mapping[str, str]) -> NtkView | None:
    """Say which view an address asks for.

    Args:
        query: Its parameters, written by anyone; what is malformed counts as not given.

    Returns:
        The view; None for an address without parameters.
    """
    if not query:
        return None
    asked = {field: query.get(key) or None for field, key in _NTK_QUERY.items()}
    numbers = {name: _number(asked.pop(name), digits) for name, digits in DIGITS.items()}
    return NtkView(**asked, **numbers)


def _number(said: str | None, digits: int) -> int | None:
    """Read a number of some digits at most."""
    fits = said is not None and said.isascii() and said.isdecimal() and len(said) <= digits
    return int(said) if fits else None
