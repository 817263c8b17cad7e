"""Scores of every pair of tasks: which are kept, which are not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.compute import catalogue, models
from app.compute.ntk_kept import contents
from app.compute.ntk_questions import READOUT, Question


@dataclass(frozen=True, eq=False)
class Pair:
    """Scores of one pair of tasks, as they are kept.

    Attributes:
        task: Name.
        control: Name.
        points: Points a block.
        scores: By arrangement, {"auc", "auc_interval", "difference", "difference_interval"}.
        exact: Whether the numbers are what the definition says on these points.
    """

    task: str
    control: str
    points: int
    scores: Mapping[str, Mapping[str, Any]] = field(repr=False)
    exact: bool = True


def references() -> dict[str, str]:
    """Return the tasks to choose from: what ``load_task`` takes, and what a reader sees."""
    names, control = catalogue.task_names()
    found = [*names, control]
    own = [item.reference for item in catalogue.checkpoints() if item.reference not in found]
    listed = list(dict.fromkeys([*found, *own, *catalogue.own_tasks()]))
    return dict(zip(listed, catalogue.titles(listed), strict=True))


def pairs(encoder: str) -> dict[tuple[str, str], Pair]:
    """Return the scores of every kept pair of an encoder; the one on most points counts.

    Args:
        encoder: Name.

    Returns:
        By names of task and control.
    """
    from engine.ntk import recognised
    from engine.store import default_store

    found: dict[tuple[str, str], Pair] = {}
    digest = models.encoder(encoder).digest
    now = contents(encoder, list(references()))
    for held in recognised(default_store(), digest, READOUT, now):
        meta = held.meta
        key = (meta["task"], held.control)
        if key not in found or meta["n"] > found[key].points:
            found[key] = Pair(*key, meta["n"], meta["scores"], meta["exact"])
    return found


def unanswered(
    encoder: str,
    points: int,
    logits: str,
    answered: Iterable[tuple[str, str]],
    limit: int | None = None,
) -> tuple[Question, ...]:
    """Name the pairs of the miniature's tasks and of those that were brought that are not kept.

    Args:
        encoder: Name.
        points: Points a block.
        logits: One of :data:`LOGITS`.
        answered: Names of the pairs that are kept.
        limit: As in :class:`Question`.

    Returns:
        One question a pair, a task's pairs together; tasks whose data is gone are left out.
    """
    names, control = catalogue.task_names()
    own = _here(list(catalogue.own_tasks()))
    known = {name: name for name in (*names, control)} | own
    kept = set(answered)
    return tuple(
        Question(encoder, task, other, points, logits, limit=limit)
        for task in (*names, *own)
        for other in (*names, control, *own)
        if other != task and (known[task], known[other]) not in kept
    )


def _here(listed: Sequence[str]) -> dict[str, str]:
    """Return the names of tasks that were brought, by what ``load_task`` takes."""
    from engine.errors import EngineError

    found = {}
    for reference in listed:
        try:
            found[reference] = models.task(reference).name
        except EngineError:
            continue
    return found
