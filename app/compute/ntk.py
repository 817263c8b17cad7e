"""Local energy of tangent kernels: what is kept, and what the rest costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import streamlit as st

from app.compute import catalogue, models

POINTS = 200  # of the task, of the control, and held out: the paper's
MOST_POINTS = 1000
LOGITS = ("1", "2", "3", "10", "all", "trace")
LOGIT_TITLES = {
    "1": "1 logit",
    "2": "2 logits",
    "3": "3 logits",
    "10": "10 logits",
    "all": "every logit",
    "trace": "trace kernel",
}
READOUT = "cosine"  # f_c = w_c . z / |z|


@dataclass(frozen=True)
class Question:
    """Whose eigenfunctions, between which tasks, on how many points.

    ``task`` and ``control`` are what ``load_task`` takes; ``logits`` is one of :data:`LOGITS`.
    """

    encoder: str
    task: str
    control: str
    points: int
    logits: str
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """What computing the missing answers costs, before it is started.

    Attributes:
        text: One line a question.
        bytes: Peak memory of the largest.
        operations: Floating-point operations of all.
        seconds: Estimated time of all; ``time`` says it in words.
    """

    text: tuple[str, ...]
    bytes: int
    operations: float
    seconds: float
    time: str


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


def twin(encoder: str, names: Sequence[str]) -> str | None:
    """Name the same encoder without its pre-training, if there is one; itself has none."""
    wanted = f"{encoder.split(':')[0]}:random" if ":" in encoder else f"{encoder}-random"
    return wanted if wanted in names and wanted != encoder else None


def _entries(encoder: str, **narrowed: Any) -> list:
    """Return the store's entries of local energies of an encoder, newest first."""
    from engine.ntk.kept import VERSION, WHAT
    from engine.store import default_store

    digest = models.encoder(encoder).digest
    return default_store().find(
        "result", what=WHAT, version=VERSION, encoder_digest=digest, readout=READOUT, **narrowed
    )


def kept(question: Question):
    """Find a kept answer.

    Args:
        question: What is asked.

    Returns:
        The newest ``engine.ntk.LocalEnergy`` that answers it, or None.
    """
    task, control = models.task(question.task), models.task(question.control)
    for entry in _entries(
        question.encoder, task=task.name, points=question.points, seed=question.seed
    ):
        fits = _logits_fit(entry.meta["logits"], question.logits, len(task.classnames))
        if control.name in entry.meta["controls"] and fits:
            return _loaded(question, control.name, entry.digest, tuple(entry.meta["logits"]))
    return None


@st.cache_resource(max_entries=64, show_spinner=False)
def _loaded(question: Question, control: str, digest: str, logits: tuple[str, ...]):
    """Read one local energy, verified; ``digest`` says of which entry."""
    from engine.ntk import kept_local_energy
    from engine.store import default_store

    found = kept_local_energy(
        default_store(),
        models.encoder(question.encoder),
        task=models.task(question.task).name,
        control=control,
        points=question.points,
        seed=question.seed,
        readout=READOUT,
    )
    return next(energy for energy in found if energy.logits == logits)


def kept_choice(encoder: str, task: str, control: str) -> tuple[int, str] | None:
    """Say with how many points and which logits a pair is kept: what a page opens with.

    Args:
        encoder: Name.
        task: Reference.
        control: Reference.

    Returns:
        Points and one of :data:`LOGITS`, of the newest kept answer; None without any.
    """
    rows = models.task(task)
    name = models.task(control).name
    for entry in _entries(encoder, task=rows.name, seed=0):
        for logits in LOGITS if name in entry.meta["controls"] else ():
            if _logits_fit(entry.meta["logits"], logits, len(rows.classnames)):
                return int(entry.meta["points"]), logits
    return None


def _logits_fit(kept_logits: Sequence[str], asked: str, classes: int) -> bool:
    """Return whether kept kernels are those asked for."""
    trace = tuple(kept_logits) == ("trace",)
    if asked == "trace" or trace:
        return trace and asked == "trace"
    wanted = classes if asked == "all" else min(int(asked), classes)
    return len(kept_logits) == wanted


def plan(questions: Sequence[Question]) -> Plan:
    """Say what answering costs.

    Args:
        questions: What is not kept.

    Returns:
        Lines for a reader, and the figures.
    """
    from engine.ntk.plans import duration

    found = {group[0].encoder: _planned(group) for group in together(questions)}
    plans = [_planned(group) for group in together(questions)]
    seconds = sum(plan.seconds for plan in plans)
    return Plan(
        text=tuple(f"{name}: {plan.text()}" for name, plan in found.items()),
        bytes=max(plan.bytes for plan in plans),
        operations=sum(plan.operations for plan in plans),
        seconds=seconds,
        time=duration(seconds),
    )


def together(questions: Sequence[Question]) -> list[tuple[Question, ...]]:
    """Group questions that differ in the control alone: their kernels share rows.

    Args:
        questions: In any order.

    Returns:
        Groups, in the order of their first questions.
    """
    groups: dict[Question, list[Question]] = {}
    for question in questions:
        groups.setdefault(replace(question, control=""), []).append(question)
    return [tuple(group) for group in groups.values()]


def _planned(group: tuple[Question, ...]):
    """Return the engine's plan of a group's kernels."""
    return _plan_of(group, models.encoder(group[0].encoder).digest)


@st.cache_data(max_entries=256, show_spinner=False)
def _plan_of(group: tuple[Question, ...], encoder_digest: str):
    """Return the engine's plan; one image is run through the encoder to count."""
    from engine.ntk import plan as engine_plan

    first = group[0]
    classes = len(models.task(first.task).classnames)
    asked = logits_argument(first.logits, classes)
    with models.lock().foreground():
        return engine_plan(
            models.encoder(first.encoder),
            first.points,
            (2 + len(group)) * first.points,
            asked if isinstance(asked, int) else classes,
        )


def logits_argument(logits: str, classes: int) -> int | str:
    """Return a choice of logits as the engine takes it.

    Args:
        logits: One of :data:`LOGITS`.
        classes: Of the task, more than which there are not.
    """
    return min(int(logits), classes) if logits.isdecimal() else logits


def pairs(encoder: str) -> dict[tuple[str, str], Pair]:
    """Return the scores of every kept pair of an encoder; the one on most points counts.

    Args:
        encoder: Name.

    Returns:
        By names of task and control.
    """
    found: dict[tuple[str, str], Pair] = {}
    for entry in _entries(encoder):
        for name, energy in entry.meta["record"]["energies"].items():
            key = (entry.meta["task"], name)
            if key not in found or energy["n"] > found[key].points:
                found[key] = Pair(*key, energy["n"], energy["scores"], energy["exact"])
    return found


@st.cache_resource(max_entries=4, show_spinner=False)
def unanswered(
    encoder: str, points: int, logits: str, answered: tuple[tuple[str, str], ...]
) -> tuple[Question, ...]:
    """Name the pairs of the miniature's tasks that are not kept.

    Args:
        encoder: Name.
        points: Points a block.
        logits: One of :data:`LOGITS`.
        answered: Pairs that are kept.

    Returns:
        One question a pair, a task's pairs together.
    """
    names, control = catalogue.task_names()
    return tuple(
        Question(encoder, task, other, points, logits)
        for task in names
        for other in (*names, control)
        if other != task and (task, other) not in set(answered)
    )
