"""The back end of this machine: one detached process a job, in a session of its own."""

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.jobs import processes
from engine.jobs.folder import read_table

if TYPE_CHECKING:
    from engine.jobs.job import Job
    from engine.jobs.jobs import Jobs

ROOT = Path(__file__).resolve().parents[2]  # where ``python -m engine`` finds the engine
STARTING = 60.0  # seconds a claimed job may take to show its process
ORPHANED = 10.0  # the same, when the supervisor that claimed it is gone
SILENCE = 120.0  # seconds without heartbeat after which a process elsewhere is gone

_children: dict[str, subprocess.Popen] = {}  # by claim: those this process started
_ended: dict[str, int] = {}  # and how they ended


def launch(jobs: "Jobs", job: "Job", claim: str, place: dict) -> dict:
    """Start the process of a job and leave it to itself.

    Args:
        jobs: Where the job is kept.
        job: With its folder.
        claim: What its process must find in the status.
        place: {"device", "visible", "threads", "nice"}.

    Returns:
        The place, for the status.
    """
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": place["visible"]}
    if place["threads"]:
        environment["OMP_NUM_THREADS"] = str(place["threads"])
    with (job.folder / "log.txt").open("ab") as log:
        _children[claim] = subprocess.Popen(
            jobs.command(job, claim),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return {"place": place}


def stop(jobs: "Jobs", job: "Job", force: bool) -> None:
    """Kill the process of a job if it must be; else it sees by itself what is wanted.

    Args:
        jobs: Where the job is kept.
        job: With its folder.
        force: Whether to kill.
    """
    if force:
        who = process_of(job.folder)
        if who:
            processes.kill(who)


def alive(jobs: "Jobs", job: "Job") -> bool:
    """Return whether the process of a job is there, or may still be about to come.

    Args:
        jobs: Where the job is kept.
        job: With its folder.

    Returns:
        False once it cannot be.
    """
    status, who = read_table(job.folder / "status.json"), process_of(job.folder)
    claim = status.get("claim")
    if isinstance(claim, str) and exit_of(claim) is not None:
        return False
    if who.get("claim") != claim:
        # whoever claimed it may have been killed before it started anything
        claimer = status.get("claimed_by") or {}
        there = not claimer or not processes.is_here(claimer) or processes.is_alive(claimer)
        return time.time() - float(status.get("claimed") or 0) < (STARTING if there else ORPHANED)
    if processes.is_here(who):
        return processes.is_alive(who)
    return time.time() - (job.folder / "pid.json").stat().st_mtime < SILENCE


def process_of(folder: Path) -> dict:
    """Return what pid.json says; empty if there is none that can be read.

    Args:
        folder: Of a job.

    Returns:
        ``processes.identity`` with the claim.
    """
    try:
        who = read_table(folder / "pid.json")
    except (OSError, ValueError):
        return {}
    whole = isinstance(who.get("pid"), int) and {"started", "boot", "host", "claim"} <= who.keys()
    return who if whole else {}


def exit_of(claim: str) -> int | None:
    """Return how a child of this process ended; None if it has not, or is none.

    Args:
        claim: Of the job.

    Returns:
        Its exit status, negative for a signal.
    """
    child = _children.get(claim)
    return _ended.get(claim) if child is None else child.poll()


def forget_ended() -> None:
    """Collect the children that have ended, so that none stays a zombie."""
    for claim in [claim for claim, child in _children.items() if child.poll() is not None]:
        _ended[claim] = _children.pop(claim).returncode
