"""What Slurm starts: it runs the process of a job, and sees it start again if it was cut short.

``python -m engine.jobs.slurm_task HOME KILLS ID:CLAIM ..``, one of them for each task of an array.
It imports no torch and writes the job's folder only once the process at work is gone.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import EngineError
from engine.jobs import folder as files
from engine.jobs import local, slurm
from engine.jobs.changing import tell
from engine.jobs.jobs import Jobs

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def main(home: Path, kills: int, tasks: Sequence[str]) -> int:
    """Run one job under Slurm.

    The notice before the time limit (SIGUSR1) and a pre-emption (SIGTERM) become SIGTERM of the
    process at work, which saves its state and leaves; then the job is queued again, as it is when
    that process was killed.

    Args:
        home: Of the store.
        kills: How many times a job that was killed is started again.
        tasks: Of the array, each ID:CLAIM.

    Returns:
        The exit status of the process at work; 0 if the job was queued again.
    """
    id, _, claim = tasks[int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))].partition(":")
    jobs = Jobs(home)
    job = jobs.get(id)
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        _count(job.folder, claim)
    with (job.folder / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            jobs.command(job, claim),
            cwd=local.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    heard: set[int] = set()

    def hand_on(number: int, frame: object) -> None:
        heard.add(number)
        child.send_signal(signal.SIGTERM)

    for number in SIGNALS:
        signal.signal(number, hand_on)
    code = child.wait()
    if not _is_due_again(job.folder, claim, code, kills):
        return code if code >= 0 else 128 - code
    try:
        slurm.requeue(os.environ["SLURM_JOB_ID"], signal.SIGUSR1 in heard)
    except EngineError as error:  # its place in the queue goes, so readers see that it is lost
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _count(folder: Path, claim: str) -> None:
    """Count one more start: one whose node was lost could not do so at its end."""
    with contextlib.suppress(OSError, ValueError), files.changing(folder) as status:
        if status["claim"] == claim and status["state"] in ("queued", "running"):
            status["attempt"] += 1


def _is_due_again(folder: Path, claim: str, code: int, kills: int) -> bool:
    """Return whether a job must be started again; then its status says that it is queued."""
    again = killed = False
    with contextlib.suppress(OSError, ValueError), files.changing(folder, True) as status:
        if status["claim"] != claim or status["wanted"] == "cancel":
            return False
        killed = status["state"] == "running"  # the process had no last word
        told = status["backend"]
        if killed and told.get("kills", 0) < kills:
            status |= {"state": "queued", "rate": None, "seconds_left": None}
            status["backend"] = {**told, "kills": told.get("kills", 0) + 1}
        again = status["state"] == "queued"
        if again:
            status["waiting"] = "it waits to be started again by Slurm"
    if again and killed:  # one that left by itself has said so
        how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        tell(folder, "queued", reason=how)
    return again


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
