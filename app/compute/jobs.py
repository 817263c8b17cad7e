"""Background jobs as the Fine-tune page shows them; importing this brings no torch."""

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from engine.jobs import Job, Jobs

ROOT = Path(__file__).resolve().parents[2]
OVER = ("done", "failed", "cancelled", "lost")
RESUMABLE = ("cancelled", "lost", "failed")
LOG_LINES = 40
SHOWN = 3  # jobs that have stopped: the newest so many


def jobs_home() -> Path:
    """Return where this checkout's jobs are kept: the home of ``default_store()``."""
    home = os.environ.get("TAUSCOPE_CACHE") or ROOT / "cache" / "local"
    return Path(home).expanduser().absolute()


def queue() -> Jobs:
    """Return this checkout's jobs."""
    return Jobs(jobs_home())


def listed() -> list[Job]:
    """Return all jobs, newest first; those lost are noted, and work that waits is started."""
    jobs = queue()
    jobs.pump()
    return jobs.list()


def followed(verb: str) -> tuple[list[Job], list[Job]]:
    """Return a verb's jobs that are at work or wait, and the newest of those that stopped.

    Args:
        verb: Of the command line.
    """
    found = [job for job in listed() if job.verb == verb]
    at_work = [job for job in found if not job.finished]
    return at_work, [job for job in found if job.state in RESUMABLE][:SHOWN]


def asked(line: Sequence[str]) -> Job | None:
    """Return the newest job of just this command line, unless it is done.

    Args:
        line: The verb and its words.
    """
    same = (job for job in listed() if (job.verb, *job.arguments) == tuple(line))
    job = next(same, None)
    return None if job is None or job.state == "done" else job


def launch(line: Sequence[str], on: str = "local") -> str:
    """Queue a command line, unless it is at work already; one that was stopped goes on.

    Args:
        line: The verb and its words.
        on: The back end, of :func:`back_ends`.

    Returns:
        The job's id.
    """
    job = asked(line)
    if job is None:
        return queue().submit(list(line), on=on).id
    return job.id if not job.finished else queue().resume(job.id).id


def back_ends() -> tuple[str, ...]:
    """Name where jobs can run from here."""
    return ("local", "slurm") if shutil.which("sbatch") else ("local",)


def link(job: Job) -> str:
    """Return where the Fine-tune page shows a job."""
    return f"finetune?job={job.id}"


# of the table: title, and how it is drawn
COLUMNS = (
    ("state", "text"),
    ("job", "text"),
    ("progress", "progress"),
    ("step", "number"),
    ("loss (nats)", "number"),
    ("validation (%)", "number"),
    ("rate (steps/s)", "number"),
    ("time left", "number"),
    ("at work", "number"),
    ("where", "text"),
    ("age", "number"),
)


def rows(found: Sequence[Job], now: datetime | None = None) -> list[dict]:
    """Return jobs as the rows of a table.

    Args:
        found: Jobs in the table's order.
        now: The present; the clock's by default.

    Returns:
        For each {"id", "cells": [[text, value to sort by], ...]}, a cell for each of ``COLUMNS``;
        what is not known is an en dash and None.
    """
    return [{"id": job.id, "cells": _cells(job, now)} for job in found]


def _cells(job: Job, now: datetime | None) -> list[list]:
    left = job.seconds_left if job.state == "running" else None
    accuracy = None if job.validation is None else 100 * job.validation
    return [
        [STATES[job.state], job.state],
        [name_of(job), name_of(job)],
        [f"{100 * fraction(job):.0f} %", fraction(job)],
        [f"{job.step:,} / {job.steps:,}" if job.steps else "–", job.step if job.steps else None],
        _number(job.loss, ".3f"),
        _number(accuracy, ".1f"),
        _number(job.rate, ".2f"),
        [seconds(left), left],
        [seconds(job.seconds or None), job.seconds or None],
        [where(job), where(job)],
        [age(job.created, now), -job.created],
    ]


def _number(value: float | None, form: str) -> list:
    return ["–" if value is None else format(value, form), value]


# a sign as well as a word: colour alone tells nobody with another kind of sight
STATES = {
    "queued": "◌ queued",
    "running": "▶ running",
    "done": "✓ done",
    "failed": "✕ failed",
    "cancelled": "■ cancelled",
    "lost": "? lost",
}


def fraction(job: Job) -> float:
    """How much of a job is done, in [0, 1]."""
    if job.state == "done":
        return 1.0
    return min(1.0, job.step / job.steps) if job.steps else 0.0


def name_of(job: Job) -> str:
    """Say in a few words what a job does; fine-tuning needs neither its verb nor "seed"."""
    if job.verb != "finetune":
        return job.title
    task = job.option("--tasks") or "eight tasks"
    parts = [
        Path(task).name or task,
        job.option("--mode") or "nonlinear",
        f"seed {job.option('--seed') or 0}",
    ]
    encoder = job.option("--encoder") or "miniature"
    return " · ".join([*parts, encoder] if encoder != "miniature" else parts)


def where(job: Job) -> str:
    """Name the device, and the back end where that is not this machine."""
    device = job.device or "auto"
    return device if job.on == "local" else f"{job.on}, {device}"


def seconds(value: float | None) -> str:
    """Write a duration: "8 s", "3 min 20 s", "2 h 05 min"; an en dash for None."""
    if value is None:
        return "–"
    whole = max(0, round(value))
    minutes, rest = divmod(whole, 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def sentence(text: str) -> str:
    """Write a sentence of the engine's with a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def age(created: float, now: datetime | None = None) -> str:
    """Write how long ago a job was asked for."""
    from app.compute.records import ages

    return ages([datetime.fromtimestamp(created, UTC).isoformat()], now)[0]


def curve(job: Job) -> list[Mapping]:
    """Return the points of a job's log so far."""
    return queue().curve(job.id)


def parts(job: Job) -> dict[str, list[Mapping]]:
    """Return the points of each task of a job, by what was at work, each from its own step 0."""
    found: dict[str, list[Mapping]] = {}
    for point in curve(job):
        own = {**point, "step": point.get("part_step", point["step"])}
        found.setdefault(str(point.get("part") or ""), []).append(own)
    return found


def log_tail(job: Job) -> list[str]:
    """Return the last lines of what a job said."""
    return queue().log_tail(job.id, LOG_LINES)


def change(name: str, ids: Sequence[str]) -> None:
    """Cancel, resume or retry jobs.

    Args:
        name: "cancel", "resume" or "retry".
        ids: Of the jobs.
    """
    jobs = queue()
    does = {"cancel": jobs.cancel, "resume": jobs.resume, "retry": jobs.retry}[name]
    for each in ids:
        does(each)


def delete(ids: Sequence[str], *, artifacts: bool) -> None:
    """Delete jobs that are over.

    Args:
        ids: Of the jobs.
        artifacts: Whether the checkpoints that they alone made go too.
    """
    jobs = queue()
    for each in ids:
        jobs.delete(each, artifacts=artifacts)


def merge_link(job: Job) -> str | None:
    """Return where the Merge page shows a job's checkpoint; None where it made none."""
    from urllib.parse import urlencode

    if job.verb != "finetune" or not job.artifacts:
        return None
    encoder, mode = job.option("--encoder") or "miniature", job.option("--mode") or "nonlinear"
    return f"merge?{urlencode({'e': encoder, 'r': mode})}"


def provenance(found: Sequence[Job]) -> dict:
    """Return what made the curves of some jobs."""
    from app.compute.records import provenance as record

    return record(
        "mean training loss (nats) since the point before, and accuracy on the validation split",
        exact=True,
        jobs={
            job.id: {
                "verb": job.verb,
                "arguments": list(job.arguments),
                "state": job.state,
                "artifacts": list(job.artifacts),
            }
            for job in found
        },
    )
