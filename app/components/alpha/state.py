"""What the browser sends back, checked and made plain: pure functions of raw component state."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LOWEST, HIGHEST = -1.0, 2.0  # of a slider


@dataclass(frozen=True)
class Pin:
    """A setting its user asked to keep.

    ``metrics`` is what the widget showed: {"absolute", "normalized", "control", "tasks": {name:
    accuracy}} as fractions (None where there is no such task); ``exact`` is False where it was
    the approximation shown while dragging.
    """

    alphas: dict[str, float]
    metrics: dict
    exact: bool


@dataclass(frozen=True)
class AlphaState:
    """The alphas in force, by slider name, and the one-run events ``pin`` and ``unpin``."""

    alphas: dict[str, float]
    pin: Pin | None = None
    unpin: str | None = None
    touched: bool = field(default=False)  # True once its user has moved anything at this revision


def read_state(
    raw: Mapping | None, names: Sequence[str], initial: Mapping[str, float], revision: int
) -> AlphaState:
    """Turn the component's raw state into alphas, one for every slider.

    Args:
        raw: ``st.session_state.get(key)`` or the component's result:
            {"alphas": {"revision": int, "values": {name: float}}, "pin": ..., "unpin": ...}.
        names: The sliders, in order.
        initial: Alphas the payload carries, used for whatever the state does not give.
        revision: Of the payload; a state released under another one is out of date and ignored.

    Returns:
        Alphas clipped to [-1, 2]; anything malformed counts as not given.
    """
    raw = raw if isinstance(raw, Mapping) else {}
    held = raw.get("alphas")
    held = held if isinstance(held, Mapping) and held.get("revision") == revision else {}
    values = held.get("values")
    values = values if isinstance(values, Mapping) else {}
    alphas = {name: _alpha(values.get(name), initial.get(name, 0.0)) for name in names}
    unpin = raw.get("unpin")
    return AlphaState(
        alphas=alphas,
        pin=read_pin(raw.get("pin"), names),
        unpin=unpin if isinstance(unpin, str) else None,
        touched=bool(values),
    )


def read_pin(raw: object, names: Sequence[str]) -> Pin | None:
    """Return a raw "pin" event as a :class:`Pin`; None unless it is complete and well formed."""
    if not isinstance(raw, Mapping):
        return None
    values, metrics = raw.get("alphas"), raw.get("metrics")
    if not isinstance(values, Mapping) or not isinstance(metrics, Mapping):
        return None
    if any(_number(values.get(name)) is None for name in names):
        return None
    alphas = {name: _alpha(values[name], 0.0) for name in names}
    return Pin(alphas=alphas, metrics=dict(metrics), exact=raw.get("exact") is True)


def _number(value: object) -> float | None:
    """Return a finite float, or None for anything else (booleans included)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _alpha(value: object, default: float) -> float:
    """Return an alpha inside the slider's range."""
    number = _number(value)
    return float(default) if number is None else min(HIGHEST, max(LOWEST, number))
