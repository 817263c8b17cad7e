"""Local energy of tangent kernels: what answers that are not kept will cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from app.compute import models
from app.compute.ntk_questions import Question, logits_argument

LAYERS_BELOW = 1 << 30  # bytes of blocks' kernels up to which each block is scored


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
            parts=parts(group),
        )


def parts(group: Sequence[Question]) -> int:
    """Count the kernels of blocks that are held for scores of layers; 0 where they are too many.

    Args:
        group: One of :func:`together`'s.

    Returns:
        How many, over all logits.
    """
    from engine.ntk import parts_held

    first = group[0]
    asked = logits_argument(first.logits, len(models.task(first.task).classnames))
    logits = {"all": len(models.task(first.task).classnames), "trace": 2}.get(asked, asked)
    held = parts_held(models.encoder(first.encoder), logits)
    size = 8 * held * first.points * (2 + len(group)) * first.points
    return held if size <= LAYERS_BELOW else 0
