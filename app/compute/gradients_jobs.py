"""Background jobs that measure task vectors against gradients: launched, followed, resumed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.compute import catalogue, jobs
from engine.jobs import Job

VERB = "gradients"
SHOWN = 3  # jobs that have stopped: the newest so many


def tasks() -> dict[str, str]:
    """Return what can be measured, name to title: the miniature's tasks."""
    names = catalogue.task_names()[0]
    return dict(zip(names, catalogue.titles(names), strict=True))


def words(encoder: str, regime: str, fields: Mapping[str, Any]) -> list[str]:
    """Return the command line that measures; what is left empty takes the verb's own default.

    Args:
        encoder: Its name.
        regime: "gd", "sgd" or "adamw".
        fields: {"tasks": names, "epochs", "seed", ..: number or None}, named as the options.
    """
    line = [VERB, "--encoder", encoder, "--regime", regime]
    for name, value in fields.items():
        if value is None or value == []:
            continue
        line.append(f"--{name.replace('_', '-')}")
        line += [str(part) for part in value] if isinstance(value, list) else [str(value)]
    return line


def launch(line: Sequence[str]) -> str:
    """Queue a job, unless the same is at work already.

    Args:
        line: Of :func:`words`.

    Returns:
        Its id.
    """
    queue = jobs.queue()
    for job in queue.list():
        if job.verb == VERB and job.arguments == tuple(line[1:]) and not job.finished:
            return job.id
    return queue.submit(list(line)).id


def followed() -> tuple[list[Job], list[Job]]:
    """Return the jobs at work, and the newest of those that stopped before they were done."""
    found = [job for job in jobs.listed() if job.verb == VERB]
    at_work = [job for job in found if not job.finished]
    stopped = [job for job in found if job.state in jobs.RESUMABLE]
    return at_work, stopped[:SHOWN]


def answered(ids: Collection[str]) -> bool:
    """Say whether one of these jobs is done; those deleted meanwhile are not."""
    return any(job.id in ids and job.state == "done" for job in jobs.queue().list())
