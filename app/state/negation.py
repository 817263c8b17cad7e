"""What the Negate page shows, and its address."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.state.address import elsewhere, number
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


def negate_visited(
    query: Mapping[str, str], written: Mapping[str, str] | None
) -> NegateView | None:
    """Say which view the address asks for, if it is not the one that the page wrote itself.

    Args:
        query: The address now, written by anyone; what is malformed counts as not given.
        written: What the page last wrote; None in a new session.

    Returns:
        The view of an address that was opened, reloaded or gone back to; None otherwise.
    """
    if not elsewhere(query, written):
        return None
    return NegateView(query.get(QUERY_ENCODER) or None, number(query.get(QUERY_ALPHAS, "own")))
