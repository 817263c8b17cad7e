"""Reading what anyone may have written into the address."""

import math
from collections.abc import Mapping

from app.state.keys import HIGHEST, LOWEST


def elsewhere(query: Mapping[str, str], written: Mapping[str, str] | None) -> bool:
    """Say whether an address was opened, reloaded or gone back to, not written by the page."""
    return bool(query) and (written is None or dict(query) != dict(written))


def number(text: str) -> float | None:
    """Read a finite number, clipped to the slider's range."""
    try:
        value = float(text)
    except ValueError:
        return None
    return min(HIGHEST, max(LOWEST, value)) if math.isfinite(value) else None


def within(value: object, low: float, high: float, usual: float) -> float:
    """Keep a number inside its range; the usual one where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return usual
    return min(high, max(low, value))


def numbers(text: str, low: float, high: float, count: int = 2) -> tuple[float, ...]:
    """Read so many finite numbers, clipped; none where they are malformed."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        return ()
    if len(values) != count or not all(map(math.isfinite, values)):
        return ()
    return tuple(min(high, max(low, value)) for value in values)


def clicked(event: Mapping | None) -> Mapping | None:
    """Read the point a figure's user clicked on: {"x", "y", "customdata", ..}; None without one."""
    try:
        points = event["selection"]["points"]
    except (KeyError, TypeError):
        return None
    return points[0] if points else None
