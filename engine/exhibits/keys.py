"""Under which key the answers of the benchmarks are kept: said once for verbs and exhibits."""

from collections.abc import Callable, Mapping

from engine.evaluate import FARTHER
from engine.merging import asked_of
from engine.remembering import question
from engine.store import Entry
from engine.tasks import Split, Task

Probe = Callable[[Task, str], Split]


def addition_key(
    encoder,
    entries: Mapping[str, Entry],
    tasks: Mapping[str, Task],
    probe: Probe,
    *,
    mode: str,
    convention: str = "sum",
    limit: int | None = None,
    method: str | None = None,
    options: Mapping[str, float] | None = None,
    each: bool = False,
) -> str:
    """Name a run of the addition benchmark by all that its answer depends on.

    Args:
        encoder: Its ``digest`` counts.
        entries: Checkpoints by task name.
        tasks: By name.
        probe: Loads the first images of a task's split.
        mode: The reading.
        convention: "sum" or "mean".
        limit: The most images a split; None for all.
        method: A merging method; None for the convention alone.
        options: All its hyper-parameters.
        each: An alpha for each task.

    Returns:
        sha256, 64 hex digits.
    """
    asked = {"mode": mode, "convention": convention, "limit": limit}
    if method is not None:
        asked |= _along(method, options)
    if each:
        asked["each"] = True
    return question(encoder, entries, tasks, probe, **asked)


def negation_key(
    encoder,
    entries: Mapping[str, Entry],
    tasks: Mapping[str, Task],
    probe: Probe,
    *,
    mode: str,
    keep: float,
    limit: int | None = None,
    method: str | None = None,
    options: Mapping[str, float] | None = None,
) -> str:
    """Name a run of the negation benchmark by all that its answer depends on.

    Args:
        encoder: Its ``digest`` counts.
        entries: Checkpoints by task name.
        tasks: By name, the control task last.
        probe: Loads the first images of a task's split.
        mode: The reading.
        keep: Share of the control accuracy that must be left.
        limit: The most images a split; None for all.
        method: A merging method, whose direction is subtracted; None for a task vector at a time.
        options: All its hyper-parameters.

    Returns:
        sha256, 64 hex digits.
    """
    asked = {"what": "negation", "mode": mode, "keep": keep, "limit": limit}
    if method is not None:
        asked |= _along(method, options)
    return question(encoder, entries, tasks, probe, **asked)


def _along(method: str, options: Mapping[str, float] | None) -> dict:
    """Return what is asked of a merging method's direction."""
    return {
        "method": method, "options": asked_of(method, options or {}), "alphas": list(FARTHER),
    }  # fmt: skip
