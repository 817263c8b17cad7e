"""Kept local energies: which answer a question, by content, and why one does not."""

from collections.abc import Callable, Sequence
from functools import cache

import streamlit as st

from app.compute import catalogue, models
from app.compute.ntk_questions import LOGITS, READOUT, Question, logits_argument


def wanted(question: Question):
    """Say what a question asks, by content.

    Args:
        question: What is asked.

    Returns:
        ``engine.ntk.Wanted``: encoder, head, a probe of each train split and task vector as they
        are now.
    """
    from engine.ntk import Wanted, choose_logits
    from engine.remembering import tau_digests

    task, control = models.task(question.task), models.task(question.control)
    asked = logits_argument(question.logits, len(task.classnames))
    names = tuple(task.classnames[c] for c in choose_logits(asked, task.classnames))
    found = None if question.logits == "trace" else trained(question)
    return Wanted(
        encoder_digest=models.encoder(question.encoder).digest,
        task=task.name,
        control=control.name,
        points=question.points,
        seed=question.seed,
        readout=READOUT,
        logits=("trace",) if question.logits == "trace" else names,
        content=_content(
            question, "" if found is None else tau_digests({task.name: found.entry})[task.name]
        ),
    )


def _content(question: Question, tau: str):
    """Return what an answer rests on."""
    from engine.ntk import content_of

    parts = [_part(question, each) for each in (question.task, question.control)]
    probes = {task: probe for task, probe, _ in parts}
    limits = {task.name: limit for task, _, limit in parts}
    return content_of(models.encoder(question.encoder), probes, limits, tau)


def _part(question: Question, reference: str):
    """Return what an answer rests on in one task: it, a probe of its train split, the limit."""
    from engine.remembering import PROBE

    size = models.encoder(question.encoder).image_size
    probe = models.split(reference, "train", size, PROBE)
    return models.task(reference), probe, bound(question, reference)


def bound(question: Question, reference: str) -> int | None:
    """Say how many of a task's first train images points are drawn from; None for all.

    Args:
        question: What is asked.
        reference: The question's task or control.

    Returns:
        The engine's choice where the question leaves it open.
    """
    from engine.ntk import drawn_from

    return drawn_from(models.task(reference), question.points, question.limit)


def split(question: Question, reference: str):
    """Load what points are drawn from.

    Args:
        question: What is asked.
        reference: The question's task or control.

    Returns:
        The train split, or its first images.
    """
    size = models.encoder(question.encoder).image_size
    return models.split(reference, "train", size, bound(question, reference))


def trained(question: Question) -> catalogue.Checkpoint | None:
    """Return the newest linearly fine-tuned task vector of a question's task, if there is one."""
    digest = models.encoder(question.encoder).digest
    found = catalogue.newest(catalogue.checkpoints(), question.encoder, "linear", digest)
    return found.get(models.task(question.task).name)


def answer(question: Question):
    """Find a kept answer.

    Args:
        question: What is asked.

    Returns:
        The ``engine.ntk.LocalEnergy`` with the most settings that answers it, or None.
    """
    from engine.ntk import answers
    from engine.store import default_store

    held = [item for item in answers(default_store(), wanted(question)) if _same(item, question)]
    return _read(tuple((item.entry.digest, item.control) for item in held), held) if held else None


def _same(held, question: Question) -> bool:
    """Return whether an answer's points are drawn from the very images that are there now."""
    now = {
        models.task(each).name: split(question, each).digest
        for each in (question.task, question.control)
    }
    return dict(held.meta["split_digests"]) == now


@st.cache_resource(max_entries=64, show_spinner=False)
def _read(digests: tuple[tuple[str, str], ...], _held: Sequence):
    """Read an answer, verified; ``digests`` says of which entries."""
    from engine.ntk import read_answer
    from engine.store import default_store

    return read_answer(default_store(), _held)


def is_outdated(question: Question) -> bool:
    """Say whether all that a kept answer lacks is the task vector that is there now.

    Args:
        question: What is asked.

    Returns:
        Whether computing it again would add the coefficients of that task vector.
    """
    from engine.ntk import outdated
    from engine.store import default_store

    return outdated(default_store(), wanted(question))


def choice(encoder: str, task: str, control: str) -> tuple[int, str] | None:
    """Say with how many points and which logits a pair is kept: what a page opens with.

    Args:
        encoder: Name.
        task: Reference.
        control: Reference.

    Returns:
        Points and one of :data:`LOGITS`, of the newest kept answer; None without any.
    """
    from engine.ntk import energy_entries, listed
    from engine.store import default_store

    store, digest = default_store(), models.encoder(encoder).digest
    name = models.task(task).name
    entries = energy_entries(store, encoder_digest=digest, task=name, readout=READOUT, seed=0)
    for points in dict.fromkeys(int(entry.meta["points"]) for entry in entries):
        for logits in LOGITS:
            if listed(store, wanted(Question(encoder, task, control, points, logits))):
                return points, logits
    return None


def contents(encoder: str, references: Sequence[str]) -> Callable:
    """Make ``now(task, control)``: what an answer about two tasks would rest on today, by names.

    Args:
        encoder: Name.
        references: Of the tasks to be known; those whose data is gone are left out.

    Returns:
        It; None for tasks that are not known.
    """
    from engine.errors import EngineError
    from engine.ntk import content_of

    known: dict[str, str] = {}
    for reference in references:
        try:
            known.setdefault(models.task(reference).name, reference)
        except EngineError:
            continue

    loaded = models.encoder(encoder)

    @cache  # a task is in many pairs
    def part(reference: str):
        return _part(Question(encoder, reference, reference, 2, "1"), reference)

    def now(task: str, control: str):
        if task not in known or control not in known:
            return None
        try:
            parts = [part(known[each]) for each in (task, control)]
        except EngineError:  # its pictures are gone
            return None
        probes = {each: probe for each, probe, _ in parts}
        return content_of(loaded, probes, {each.name: limit for each, _, limit in parts}, "")

    return now
