"""What the Gradients page shows, and its address."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from app.state.address import numbers
from app.state.keys import (
    QUERY_ALPHAS,
    QUERY_ENCODER,
    QUERY_EPOCH,
    QUERY_MEASURE,
    QUERY_PAIR,
    QUERY_READING,
    QUERY_REGIME,
    QUERY_RUN,
    QUERY_SECTION,
    QUERY_TASKS,
)

REGIMES = ("gd", "sgd", "adamw")
GRADIENT_MODES = ("nonlinear", "linear")
GRADIENT_ALPHAS = (-1.0, 10.0)  # what an address may ask for
OWN = "own"  # stands in the address for the alpha chosen on validation


@dataclass(frozen=True)
class GradientsView:
    """What the Gradients page shows; an empty or None field was not given.

    ``alpha`` is of the live slider: a number, or ``OWN`` for the one chosen at each epoch.
    """

    encoder: str | None = None
    regime: str | None = None
    run: str | None = None
    section: str | None = None
    mode: str | None = None
    task: str | None = None
    epoch: int | None = None
    alpha: float | str | None = None
    pair: tuple[str, ...] = ()
    measure: str | None = None


def gradients_query(view: GradientsView) -> dict[str, str]:
    """Write a view as the address's parameters; what it does not give stays out."""
    alpha = f"{view.alpha:.6g}" if isinstance(view.alpha, int | float) else view.alpha
    said = {
        QUERY_ENCODER: view.encoder,
        QUERY_REGIME: view.regime,
        QUERY_RUN: view.run,
        QUERY_SECTION: view.section,
        QUERY_READING: view.mode,
        QUERY_TASKS: None if view.task is None else quote(view.task, safe=""),
        QUERY_EPOCH: None if view.epoch is None else str(view.epoch),
        QUERY_ALPHAS: alpha,
        QUERY_PAIR: ",".join(quote(task, safe="") for task in view.pair),
        QUERY_MEASURE: view.measure,
    }
    return {key: value for key, value in said.items() if value}


def gradients_visited(query: Mapping[str, str]) -> GradientsView | None:
    """Say which view an address asks for.

    Args:
        query: Its parameters, written by anyone; what is malformed counts as not given.

    Returns:
        The view; None for an address without parameters.
    """
    if not query:
        return None
    regime, mode = query.get(QUERY_REGIME), query.get(QUERY_READING)
    epoch, alpha = query.get(QUERY_EPOCH, ""), query.get(QUERY_ALPHAS, "")
    pair = tuple(unquote(part) for part in query.get(QUERY_PAIR, "").split(",") if part)
    held = numbers(alpha, *GRADIENT_ALPHAS, 1)
    fits = epoch.isascii() and epoch.isdecimal() and len(epoch) < 6
    return GradientsView(
        encoder=query.get(QUERY_ENCODER) or None,
        regime=regime if regime in REGIMES else None,
        run=query.get(QUERY_RUN) or None,
        section=query.get(QUERY_SECTION) or None,
        mode=mode if mode in GRADIENT_MODES else None,
        task=unquote(query.get(QUERY_TASKS, "")) or None,
        epoch=int(epoch) if fits else None,
        alpha=OWN if alpha == OWN else held[0] if held else None,
        pair=pair if len(pair) == 2 and len(set(pair)) == 2 else (),
        measure=query.get(QUERY_MEASURE) or None,
    )
