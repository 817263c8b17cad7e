"""What made a number: the provenance that stands beside every download."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def provenance(
    what: str, *, exact: bool, checkpoints: Mapping[str, str] | None = None, **facts: Any
) -> dict:
    """Collect what made some numbers.

    Args:
        what: The quantity, in words.
        exact: Whether the numbers are what the definition says on the split named.
        checkpoints: Digest of each task vector, by task.
        facts: Further plain values: split digests, n, seed, alphas, seconds.

    Returns:
        Plain JSON values: what, "exact" or "approximate", digests, versions, commit, time.
    """
    from engine.provenance import provenance as code

    return {
        "what": what,
        "kind": "exact" if exact else "approximate",
        "checkpoints": dict(checkpoints or {}),
        **facts,
        **code(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def ages(created: Sequence[str], now: datetime | None = None) -> list[str]:
    """Write times as ages: "3 min", "5 h", "12 d".

    Args:
        created: ISO times.
        now: The present; the clock's by default.

    Returns:
        One age a time.
    """
    now = now or datetime.now(UTC)
    return [_age((now - datetime.fromisoformat(time)).total_seconds()) for time in created]


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"
