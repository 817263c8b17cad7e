"""Whoever holds the lock starts the queued jobs, and leaves when there is nothing left to do.

``python -m engine.jobs.supervisor HOME`` is started by ``Jobs.pump``; it may be killed at any
moment, for all it knows is in the folders.
"""

import secrets
import sys
import time
from pathlib import Path

from engine.errors import EngineError, UsageError
from engine.jobs import folder as files
from engine.jobs import local, processes
from engine.jobs.changing import settle_gone, tell
from engine.jobs.job import Job
from engine.jobs.jobs import Jobs
from engine.jobs.slots import Settings, free_place, kind_of, settings
from engine.jobs.standing import back_end, blocked, has_work, is_startable, read_status

PAUSE = 0.3  # seconds between two looks at the folders


def supervise(jobs: Jobs) -> None:
    """Start jobs until none is left, unless another supervisor does.

    Args:
        jobs: Those to look after.
    """
    while True:
        with files.locked(jobs.root / "supervisor.lock", wait=False) as mine:
            if not mine:
                return
            while _look_after(jobs):
                time.sleep(PAUSE)
        # whoever submitted while the lock was held has left it to us
        if not has_work(jobs.list()):
            return


def _look_after(jobs: Jobs) -> bool:
    """Collect who has ended and start who can be started; return whether work is left."""
    for job in jobs.list():
        if job.state in ("lost", "cancelled"):
            claim = read_status(job.folder).get("claim")
            settle_gone(jobs, job, local.exit_of(claim) if isinstance(claim, str) else None)
    local.forget_ended()
    found = jobs.list()
    by_id = {job.id: job for job in found}
    for job in found:
        if job.state == "queued" and any(other not in by_id for other in job.after):
            _fail(job, str(blocked(job, by_id)))
    try:
        known = settings(jobs.root)
    except UsageError as error:
        _say(str(error))
        for job in found:
            if job.state == "queued":
                _wait(job, str(error))
        time.sleep(5)
        return any(job.state == "running" for job in found)
    taken = [job.device or "" for job in found if job.state == "running" and job.on == "local"]
    waiting: set[str] = set()  # kinds whose first in the queue waits: nobody overtakes it
    ready = [job for job in found if is_startable(job, by_id) and job.pid is None]
    for job in sorted(ready, key=lambda job: (-job.priority, job.created, job.id)):
        _try(jobs, job, known, taken, waiting)
    return has_work(jobs.list())


def _try(jobs: Jobs, job: Job, known: Settings, taken: list[str], waiting: set[str]) -> None:
    """Start one job if there is a place for it."""
    if job.on != "local":
        if not read_status(job.folder).get("claim"):
            _start(jobs, job, {}, job.device)
        return
    try:
        kind = kind_of(job.device or "auto", known)
        place = None if kind in waiting else free_place(kind, job.gpus, taken, known)
    except UsageError as error:
        _fail(job, str(error))
        return
    if place is None:
        waiting.add(kind)
        return
    taken.append(place.device)
    cpu = place.device == "cpu"
    _start(
        jobs,
        job,
        {
            "device": place.device,
            "visible": place.visible,
            "threads": known.threads if cpu else None,
            "nice": known.nice if cpu else 0,
        },
        place.device,
    )


def _start(jobs: Jobs, job: Job, place: dict, device: str | None) -> None:
    """Claim a job, then start its process: no slot is given twice, whenever we are killed."""
    claim = secrets.token_hex(8)
    try:
        with files.changing(job.folder) as status:
            if status["state"] != "queued" or status["claim"]:
                return
            now = time.time()
            status |= {"claim": claim, "claimed": now, "attempt": status["attempt"] + 1}
            status |= {"wanted": None, "waiting": None, "error": None, "ended": None}
            status |= {"claimed_by": processes.identity(), "backend": {"place": place}}
            if job.on == "local":
                status |= {"state": "running", "device": device, "started": now}
    except (OSError, ValueError, KeyError) as error:  # deleted or damaged, or the disk is full
        _say(f"{job.id} cannot be claimed: {error}")
        time.sleep(5)
        return
    try:
        told = back_end(job.on).launch(jobs, job, claim, place)
    except (OSError, EngineError, ImportError) as error:
        _fail(job, f"its process cannot be started ({error}); mend that and resume it")
        return
    with files.changing(job.folder, at_any_cost=True) as status:
        status["backend"] = {**status["backend"], **told}


def _fail(job: Job, sentence: str) -> None:
    """Write down that a job cannot be started."""
    _say(f"{job.id}: {sentence}")
    with files.changing(job.folder, at_any_cost=True) as status:
        status |= {"state": "failed", "error": sentence, "ended": time.time(), "claim": None}
    tell(job.folder, "failed", error=sentence)


def _wait(job: Job, sentence: str) -> None:
    """Write down why a job waits."""
    with files.changing(job.folder) as status:
        status["waiting"] = sentence


def _say(sentence: str) -> None:
    """Write a line to supervisor.log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    supervise(Jobs(Path(sys.argv[1])))
