"""Local energy of tangent kernels: what is kept, what the rest costs, work in the background."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import streamlit as st

from app.compute import models
from app.compute import ntk_kept as kept
from app.compute.background import Work, board
from app.compute.ntk_questions import READOUT, Question, logits_argument

LAYERS_BELOW = 1 << 30  # bytes of blocks' kernels up to which each block is scored
TITLE = "local energy"  # of the work


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


def twin(encoder: str, names: Sequence[str]) -> str | None:
    """Name the same encoder without its pre-training, if there is one; itself has none."""
    wanted = f"{encoder.split(':')[0]}:random" if ":" in encoder else f"{encoder}-random"
    return wanted if wanted in names and wanted != encoder else None


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
            parts=_parts(group),
        )


def _parts(group: tuple[Question, ...]) -> int:
    """Count the kernels of blocks that are held for scores of layers; 0 where they are too many."""
    from engine.ntk import parts_held

    first = group[0]
    asked = logits_argument(first.logits, len(models.task(first.task).classnames))
    logits = {"all": len(models.task(first.task).classnames), "trace": 2}.get(asked, asked)
    parts = parts_held(models.encoder(first.encoder), logits)
    size = 8 * parts * first.points * (2 + len(group)) * first.points
    return parts if size <= LAYERS_BELOW else 0


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
    """Answer one group of questions after another, with the time left in the note."""
    begun = time.monotonic()
    groups = together(questions)
    for done, group in enumerate(groups):

        def progress(points: float, total: float, done=done, group=group) -> None:
            share = (done + points / max(1, total)) / len(groups)
            what = f"{group[0].encoder}, {models.task(group[0].task).title}"
            note = f"{what}: point {points:.0f} of {total:.0f}"
            work.step(int(1000 * share), 1000, note + _left(begun, share))

        _answer(group, progress)
    return len(questions)


def _left(begun: float, share: float) -> str:
    """Say how long the rest will take; nothing before there is anything to judge by."""
    from engine.ntk.plans import duration

    spent = time.monotonic() - begun
    if share < 0.02 or spent < 2:
        return ""
    return f", about {duration(spent * (1 - share) / share)} left"


def _answer(group: tuple[Question, ...], progress: Callable[[float, float], None]) -> None:
    """Compute a group's answers and keep them; visitors' own work goes first between batches."""
    from engine.ntk import keep_local_energies, local_energies
    from engine.store import default_store

    asked = group[0]
    encoder = models.encoder(asked.encoder)
    task = models.task(asked.task)
    trained = None if asked.logits == "trace" else kept.trained(asked)
    with _turns() as let_others:

        def step(done: float, total: float) -> None:
            let_others()
            progress(done, total)

        found = local_energies(
            encoder,
            task,
            kept.split(asked, asked.task),
            {models.task(each.control): kept.split(asked, each.control) for each in group},
            points=asked.points,
            logits=logits_argument(asked.logits, len(task.classnames)),
            seed=asked.seed,
            readout=READOUT,
            tau=None if trained is None else models.vector(trained.digest),
            progress=step,
            layer_scores=_parts(group) > 0,
        )
    noted = [
        replace(energy, content=kept.wanted(question).content)
        for energy, question in zip(found, group, strict=True)
    ]
    keep_local_energies(default_store(), noted)


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
