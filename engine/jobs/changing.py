"""How a job is changed once it is there: queued again, declared gone, cleared away."""

import contextlib
import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.jobs import folder as files
from engine.jobs.job import NEW_STATUS, Job, pairs
from engine.jobs.standing import REMEDY, back_end, has_begun, is_readable, last_sign

if TYPE_CHECKING:
    from engine.jobs.jobs import Jobs

LEAVING = 2.0  # seconds that a process may take from its last word to its end


def check_ended(job: Job) -> None:
    """Refuse a job that is done or at work.

    Raises:
        UsageError: Saying what to do instead.
    """
    if job.state not in ("cancelled", "lost", "failed"):
        instead = "duplicate it" if job.state == "done" else "cancel it first"
        raise UsageError(f"{job.id} is {job.state}; {instead}")


def check_idle(job: Job) -> None:
    """Refuse a job at work.

    Raises:
        UsageError: If it is.
    """
    if not job.finished and not (job.state == "queued" and job.pid is None):
        raise UsageError(f"{job.id} is at work; cancel it first")


@contextlib.contextmanager
def held(folder: Path) -> Generator[None, None, None]:
    """Keep any process from working on a job.

    Raises:
        UsageError: If one is at work.
    """
    until = time.monotonic() + LEAVING
    while True:
        with files.locked(folder / "run.lock", wait=False) as free:
            if free:
                yield
                return
        if time.monotonic() > until:
            raise UsageError(f"the process of {folder.name} is still there; cancel it with --force")
        time.sleep(0.02)


def tell(folder: Path, state: str, **more: Any) -> None:
    """Append a change of state to the events, if the disk takes it."""
    with contextlib.suppress(OSError):
        files.append_event(folder, {"kind": "state", "state": state, **more})


def again(job: Job, fresh: Mapping) -> None:
    """Queue a job once more.

    Args:
        job: One that was cancelled, lost or failed.
        fresh: What its status shall say instead of what it said.
    """
    folder = job.folder
    check_ended(job)
    with held(folder):
        if not is_readable(folder):
            files.replace_table(folder / "status.json", NEW_STATUS, durable=True)
        with files.changing(folder) as status:
            kept = ("step", "steps", "part", "loss", "validation", "seconds", "artifacts")
            kept += ("states", "attempt", "peak_memory")
            status |= {**NEW_STATUS, **{name: status[name] for name in kept}, **fresh}
        if not (folder / files.RESERVE).exists():
            with contextlib.suppress(OSError):
                (folder / files.RESERVE).write_bytes(os.urandom(8192))
    tell(folder, "queued")


def settle_gone(jobs: "Jobs", job: Job, code: int | None = None) -> None:
    """Write down that the process of a job is gone, if the status says otherwise.

    Args:
        jobs: Whose it is.
        job: Of whom it is known.
        code: How the process ended, if that is known.
    """
    how = "killed or the machine went down" if code is None else f"ended with status {code}"
    if code is not None and code < 0:
        how = f"killed by signal {-code}" + (", perhaps for want of memory" * (code == -9))
    said = None
    with contextlib.suppress(OSError, ValueError), files.changing(job.folder, True) as status:
        at_work = status["state"] == "running" or (status["state"] == "queued" and status["claim"])
        if at_work and not back_end(job.on).alive(jobs, job):
            if job.on == "local" and not has_begun(job.folder, status) and code is None:
                # whoever claimed it went before it started it: nothing is lost
                status |= {"state": "queued", "claim": None, "started": None}
                return
            said = "cancelled" if status["wanted"] == "cancel" else "lost"
            status |= {"state": said, "ended": last_sign(job.folder), "rate": None}
            status |= {"seconds_left": None, "waiting": None}
            if said == "lost":
                status["error"] = f"its process is gone ({how}); {REMEDY}"
    if said:
        tell(job.folder, said)


def drop_states(home: Path, folder: Path) -> None:
    """Drop the working states of a job from the store.

    Args:
        home: Of the store.
        folder: Of the job.
    """
    with contextlib.suppress(OSError, ValueError):
        names = [
            n for n in files.read_table(folder / "status.json")["states"] if isinstance(n, str)
        ]
        if names:
            from engine.store import Store

            for name in names:
                Store(home).drop_state(name)


def delete_artifacts(jobs: "Jobs", folder: Path, status: Mapping) -> list[str]:
    """Delete what a job made and no other job made too.

    Args:
        jobs: Whose it is.
        folder: Of the job.
        status: Its status.

    Returns:
        The digests deleted.
    """
    from engine.store import KINDS, Store

    others = {d for job in jobs.list() if job.folder != folder for d in job.artifacts}
    store, deleted = Store(jobs.home), []
    with contextlib.suppress(ValueError):
        for kind, digest in pairs(status.get("artifacts", [])):
            if kind in KINDS and digest not in others:
                for entry in store.find(kind):
                    if entry.digest == digest:
                        store.delete(entry)
                        deleted.append(digest)
    return deleted
