"""Local energies as background jobs: one a task, whose controls share its rows."""

from collections.abc import Sequence

from app.compute import jobs, models
from app.compute.ntk import parts, together
from app.compute.ntk_questions import READOUT, Question, logits_argument
from engine.jobs import Job
from engine.jobs.words import values_of

VERB = "ntk"


def words(group: Sequence[Question]) -> list[str]:
    """Return the command line that answers questions which differ in the control alone.

    Args:
        group: One of ``together``'s.
    """
    first = group[0]
    logits = logits_argument(first.logits, len(models.task(first.task).classnames))
    return [
        VERB, "--encoder", first.encoder, "--task", first.task,
        "--control", *(question.control for question in group),
        "--points", str(first.points), "--logits", str(logits), "--precision", "float32",
        "--seed", str(first.seed), "--readout", READOUT,
        *([] if first.limit is None else ["--limit", str(first.limit)]),
        *(["--layer-scores"] if parts(group) else []),
    ]  # fmt: skip


def launch(questions: Sequence[Question], on: str = "local") -> list[str]:
    """Queue the jobs that answer questions; what is at work already is not queued again.

    Args:
        questions: What is not kept, in order.
        on: The back end.

    Returns:
        Ids of the jobs.
    """
    return [jobs.launch(words(group), on) for group in together(questions)]


def answers(job: Job, question: Question) -> bool:
    """Say whether a job's answer is one to a question."""
    logits = logits_argument(question.logits, len(models.task(question.task).classnames))
    asked = (question.encoder, question.task, str(question.points), str(logits), str(question.seed))
    asked += (None if question.limit is None else str(question.limit),)
    names = ("--encoder", "--task", "--points", "--logits", "--seed", "--limit")
    given = tuple(job.option(name) for name in names)
    return given == asked and question.control in (values_of(job.arguments, "--control") or ())
