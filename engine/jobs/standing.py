"""Where a job stands: what its folder says, and whether its process is still there."""

import contextlib
import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from engine.errors import CheckpointError, MissingDataError
from engine.jobs import folder as files
from engine.jobs import local
from engine.jobs.job import FINISHED, NEW_STATUS, Job, described

if TYPE_CHECKING:
    from engine.jobs.jobs import Jobs

REMEDY = "resume it to go on from its last working state"


def back_end(name: str) -> ModuleType:
    """Return the module of a back end: its ``launch``, ``stop`` and ``alive``."""
    return importlib.import_module(f"engine.jobs.{name}")


def look(jobs: "Jobs", settled: dict[Path, tuple], folder: Path) -> Job:
    """Read the job of a folder as it is now.

    Args:
        jobs: Whose it is.
        settled: Jobs that have ended, by folder, with the stamp of their status; added to.
        folder: Of the job.

    Returns:
        The job.

    Raises:
        MissingDataError: If it is gone.
        CheckpointError: If it is damaged, in one sentence.
    """
    remedy = f"delete it with: python -m engine jobs delete {folder.name}"
    if not folder.is_dir() or folder.is_symlink():
        raise MissingDataError(f"no job is called {folder.name}; see: python -m engine jobs list")
    try:
        stamp = _stamp(folder / "status.json")
        # one whose process is silent may speak again: only what is written down is settled
        known = settled.get(folder)
        if known is not None and known[0] == stamp:
            return known[1]
        spec = files.read_table(folder / "spec.json")
        status = read_status(folder)
        job = _now(jobs, folder, spec, status)
    except FileNotFoundError as error:
        if not folder.exists():
            raise MissingDataError(f"{folder.name} was deleted") from error
        raise CheckpointError(
            f"job {folder.name} is incomplete ({error.filename} is missing); {remedy}"
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"job {folder.name} cannot be read ({error.strerror}); {remedy}"
        ) from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise CheckpointError(f"job {folder.name} is damaged ({error}); {remedy}") from error
    if status["state"] in FINISHED:
        settled[folder] = (stamp, job)
    return job


def _now(jobs: "Jobs", folder: Path, spec: Mapping, status: Mapping) -> Job:
    """Return a job with the state it has now, whatever was last written down."""
    job = described(folder, spec, status, local.process_of(folder), str(status.get("state")))
    at_work = job.state == "running" or (job.state == "queued" and status.get("claim"))
    if not at_work or back_end(job.on).alive(jobs, job):
        return job
    status = read_status(folder)  # it may have ended well in between
    if status.get("state") == job.state and status.get("attempt") == job.attempt:
        gone = "cancelled" if status.get("wanted") == "cancel" else "lost"
        error = None if gone == "cancelled" else f"its process is gone; {REMEDY}"
        status = {**status, "error": error, "rate": None, "seconds_left": None}
        status |= {"ended": last_sign(folder)}
        return described(folder, spec, status, local.process_of(folder), gone)
    return described(folder, spec, status, local.process_of(folder), str(status.get("state")))


def blocked(job: Job, by_id: Mapping[str, Job]) -> str | None:
    """Say why a queued job cannot start, whatever slots are free; None if it can."""
    for other in job.after:
        if other not in by_id:
            return f"it waits for {other}, which was deleted; duplicate it with after=()"
        state = by_id[other].state
        if state in ("failed", "cancelled", "lost"):
            return f"it waits for {other}, which is {state}; resume or retry that one"
        if state != "done":
            return f"it waits for {other}"
    return None


def waiting(job: Job, by_id: Mapping[str, Job]) -> Job:
    """Return a job that says why it is not started yet."""
    if job.state != "queued":
        return job
    return replace(job, waiting=blocked(job, by_id) or job.waiting or "it waits for its turn")


def is_startable(job: Job, by_id: Mapping[str, Job]) -> bool:
    """Return whether nothing but a free slot is missing to a queued job."""
    return job.state == "queued" and blocked(job, by_id) is None


def has_work(jobs: Sequence[Job]) -> bool:
    """Return whether a supervisor has something to look after.

    Args:
        jobs: All of them.

    Returns:
        True if one runs, can be started, or waits for one that is no more.
    """
    by_id = {job.id: job for job in jobs}
    return any(
        job.state == "running"
        or is_startable(job, by_id)
        or (job.state == "queued" and not by_id.keys() >= set(job.after))
        for job in jobs
    )


def has_begun(folder: Path, status: Mapping) -> bool:
    """Return whether the process that a job was claimed for has shown itself."""
    return local.process_of(folder).get("claim") == status["claim"]


def read_status(folder: Path) -> dict:
    """Return the status of a job; one that was destroyed is that of a lost job."""
    try:
        return files.read_table(folder / "status.json")
    except ValueError as error:
        said = f"its status is damaged ({str(error)[:80]}); {REMEDY}"
        return {**NEW_STATUS, "state": "lost", "error": said}


def is_readable(folder: Path) -> bool:
    """Return whether the status of a job can be read."""
    try:
        return files.read_table(folder / "status.json").keys() >= NEW_STATUS.keys()
    except ValueError:
        return False


def last_sign(folder: Path) -> float:
    """Return when a process at work last gave a sign of life."""
    with contextlib.suppress(OSError):
        return (folder / "pid.json").stat().st_mtime
    return time.time()


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and time of change of a file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
