"""What the Negate page shows, and its address."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.state.address import number
from app.state.keys import QUERY_ALPHAS, QUERY_ENCODER


@dataclass(frozen=True)
class NegateView:
    """What the Negate page shows; alpha None: every task at its chosen one."""

    encoder: str | None = None
    alpha: float | None = None


def negate_query(view: NegateView) -> dict[str, str]:
    """Write a view of the Negate page as the address's parameters."""
    alpha = "own" if view.alpha is None else f"{view.alpha:.6g}"
    return {QUERY_ENCODER: view.encoder or "", QUERY_ALPHAS: alpha}


def negate_visited(query: Mapping[str, str]) -> NegateView | None:
    """Say which view an address asks for.

    Args:
        query: Its parameters, written by anyone; what is malformed counts as not given.

    Returns:
        The view; None for an address without parameters.
    """
    if not query:
        return None
    return NegateView(query.get(QUERY_ENCODER) or None, number(query.get(QUERY_ALPHAS, "own")))
