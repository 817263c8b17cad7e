"""Local energy of tangent kernels: what is kept, what the rest costs, work in the background."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from app.compute import catalogue, models
from app.compute.background import Work, board

POINTS = 200  # of the task, of the control, and held out: the paper's
MOST_POINTS = 1000
LOGITS = ("1", "3", "10", "all", "trace")
LOGIT_TITLES = {
    "1": "1 logit",
    "3": "3 logits",
    "10": "10 logits",
    "all": "every logit",
    "trace": "trace kernel",
}
TITLE = "local energy"  # of the work


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
    listed = list(dict.fromkeys([*found, *own]))
    return dict(zip(listed, catalogue.titles(listed), strict=True))


def twin(encoder: str, names: Sequence[str]) -> str | None:
    """Name the same encoder without its pre-training, if there is one; itself has none."""
    wanted = f"{encoder.split(':')[0]}:random" if ":" in encoder else f"{encoder}-random"
    return wanted if wanted in names and wanted != encoder else None


def kept(question: Question):
    """Find a kept answer.

    Args:
        question: What is asked.

    Returns:
        The newest ``engine.ntk.LocalEnergy`` that answers it, or None.
    """
    from engine.ntk import kept_local_energy
    from engine.store import default_store

    task = models.task(question.task)
    found = kept_local_energy(
        default_store(),
        models.encoder(question.encoder),
        task=task.name,
        control=models.task(question.control).name,
        points=question.points,
        seed=question.seed,
    )
    fits = [
        energy
        for energy in found
        if _logits_fit(energy.logits, question.logits, len(task.classnames))
    ]
    return fits[0] if fits else None


def kept_choice(encoder: str, task: str, control: str) -> tuple[int, str] | None:
    """Say with how many points and which logits a pair is kept: what a page opens with.

    Args:
        encoder: Name.
        task: Reference.
        control: Reference.

    Returns:
        Points and one of :data:`LOGITS`, of the newest kept answer; None without any.
    """
    from engine.ntk import kept_local_energy
    from engine.store import default_store

    task_ = models.task(task)
    name = models.task(control).name
    found = kept_local_energy(
        default_store(), models.encoder(encoder), task=task_.name, control=name
    )
    for energy in found:
        for logits in LOGITS:
            if _logits_fit(energy.logits, logits, len(task_.classnames)):
                return int(energy.n), logits
    return None


def _logits_fit(kept_logits: Sequence[str], asked: str, classes: int) -> bool:
    """Return whether kept kernels are those asked for."""
    trace = tuple(kept_logits) == ("trace",)
    if asked == "trace" or trace:
        return trace and asked == "trace"
    wanted = classes if asked == "all" else min(int(asked), classes)
    return len(kept_logits) == wanted


def logits_argument(logits: str) -> int | str:
    """Return a choice of logits as the engine takes it."""
    return int(logits) if logits.isdecimal() else logits


def plan(questions: Sequence[Question]) -> Plan:
    """Say what answering costs.

    Args:
        questions: What is not kept.

    Returns:
        Lines for a reader, and the figures.
    """
    from engine.ntk.plans import duration

    found = [_planned(question, models.encoder(question.encoder).digest) for question in questions]
    lines = dict.fromkeys(
        f"{question.encoder}: {plan.text()}"
        for question, plan in zip(questions, found, strict=True)
    )
    seconds = sum(plan.seconds for plan in found)
    return Plan(
        text=tuple(lines),
        bytes=max(plan.bytes for plan in found),
        operations=sum(plan.operations for plan in found),
        seconds=seconds,
        time=duration(seconds),
    )


@st.cache_data(max_entries=256, show_spinner=False)
def _planned(question: Question, encoder_digest: str):
    """Return the engine's plan of one kernel; one image is run through the encoder."""
    from engine.ntk import plan as engine_plan

    classes = len(models.task(question.task).classnames)
    logits = question.logits
    count = classes if logits in ("all", "trace") else min(int(logits), classes)
    with models.lock().foreground():
        return engine_plan(
            models.encoder(question.encoder), question.points, 3 * question.points, count
        )


def start(questions: Sequence[Question], visitor: str) -> Work:
    """Start, or find, the computation of answers; each is kept as soon as it is there.

    Args:
        questions: What is not kept, in order.
        visitor: Who asks; what this visitor started before is left.

    Returns:
        The work; its result is how many answers were made.
    """
    asked = tuple(questions)
    return board().start(TITLE, visitor, asked, lambda work: _answer_all(asked, work))


def _answer_all(questions: Sequence[Question], work: Work) -> int:
    """Answer one question after another, with the time left in the note."""
    begun = time.monotonic()
    for done, question in enumerate(questions):

        def progress(points: int, total: int, done=done, question=question) -> None:
            share = (done + points / max(1, total)) / len(questions)
            note = f"{question.encoder}, {_titles(question)}: point {points} of {total}"
            work.step(int(1000 * share), 1000, note + _left(begun, share))

        _answer(question, progress)
    return len(questions)


def _titles(question: Question) -> str:
    """Name a pair."""
    return f"{models.task(question.task).title} / {models.task(question.control).title}"


def _left(begun: float, share: float) -> str:
    """Say how long the rest will take; nothing before there is anything to judge by."""
    from engine.ntk.plans import duration

    spent = time.monotonic() - begun
    if share < 0.02 or spent < 2:
        return ""
    return f", about {duration(spent * (1 - share) / share)} left"


def _answer(question: Question, progress) -> None:
    """Compute one answer and keep it; visitors' own work goes first between batches."""
    from engine.ntk import keep_local_energy, local_energy
    from engine.store import default_store

    encoder = models.encoder(question.encoder)
    task, control = models.task(question.task), models.task(question.control)
    trained = catalogue.newest(
        catalogue.checkpoints(), question.encoder, "linear", encoder.digest
    ).get(task.name)
    with _turns() as let_others:

        def step(done: int, total: int) -> None:
            let_others()
            progress(done, total)

        energy = local_energy(
            encoder,
            task,
            control,
            models.split(question.task, "train", encoder.image_size, None),
            models.split(question.control, "train", encoder.image_size, None),
            points=question.points,
            logits=logits_argument(question.logits),
            seed=question.seed,
            tau=None if trained is None else models.vector(trained.digest),
            progress=step,
        )
    keep_local_energy(default_store(), energy)


@contextmanager
def _turns() -> Generator:
    """Hold the models for background work; what is given lets whoever waits go first."""
    held = models.lock().background()
    held.__enter__()
    current = [held]

    def let_others() -> None:
        current.pop().__exit__(None, None, None)
        following = models.lock().background()
        following.__enter__()
        current.append(following)

    try:
        yield let_others
    finally:
        while current:
            current.pop().__exit__(None, None, None)


def pairs(encoder: str) -> dict[tuple[str, str], Pair]:
    """Return the scores of every kept pair of an encoder; the one on most points counts.

    Args:
        encoder: Name.

    Returns:
        By names of task and control.
    """
    from engine.ntk import kept_local_energy
    from engine.store import default_store

    found: dict[tuple[str, str], Pair] = {}
    for energy in kept_local_energy(default_store(), models.encoder(encoder)):
        key = (energy.task, energy.control)
        if key not in found or energy.n > found[key].points:
            found[key] = Pair(*key, int(energy.n), energy.scores, bool(energy.exact))
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
