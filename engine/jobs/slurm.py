"""The back end of a Slurm cluster: the same folders on a shared disk, started by sbatch.

Through submitit, whose batch files run a command line here instead of a pickled function: what a
job does is in its folder already, and its state is read there, for without an accounting data base
submitit's own stays unknown.
"""

import contextlib
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import EngineError, UsageError
from engine.jobs import folder as files
from engine.jobs import local, processes, words
from engine.jobs.job import Job
from engine.jobs.slurm_options import WORDS, SlurmOptions, slurm_options
from engine.jobs.standing import is_startable, read_status

if TYPE_CHECKING:
    from engine.jobs.jobs import Jobs

FOLDER = ".slurm"  # under the folder of all jobs: batch files and what Slurm itself says
PACE = 10.0  # seconds between two questions to the queue
PATIENCE = 30  # seconds Slurm may take to answer
OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}

_queues: dict[str, tuple[float, dict[str, str]]] = {}  # the last answer, and when it was asked for


def launch(jobs: "Jobs", job: Job, claim: str, place: dict) -> dict:
    """Put a job into Slurm's queue, and with it the jobs of its suite, as one array.

    Args:
        jobs: Where the job is kept, on a disk that the cluster's nodes share.
        job: With its folder.
        claim: What its process must find in the status.
        place: Empty: Slurm finds one.

    Returns:
        ``{"job": number in Slurm, "submitted": Unix time}`` for the status.

    Raises:
        UsageError: If there is no Slurm here, or an option is wrong.
        EngineError: If Slurm does not take it.
    """
    if shutil.which("sbatch") is None:
        raise UsageError("Slurm's commands are not on this machine; duplicate it with --on local")
    options = slurm_options(jobs.root, job)
    tasks = [(job, claim), *_claimed_mates(jobs, job, options)]
    try:
        number = _submitted(jobs, options, tasks)
    except BaseException:
        for other, mark in tasks[1:]:
            with _claimed(other, mark) as status:
                status["claim"] = None
        raise
    submitted = time.time()  # what the queue said before cannot know of it
    named = [f"{number}_{k}" if len(tasks) > 1 else number for k in range(len(tasks))]
    for (other, mark), name in zip(tasks, named, strict=True):
        with _claimed(other, mark) as status:
            status["backend"] = {**status["backend"], "job": name, "submitted": submitted}
            if status["state"] == "queued":
                status["waiting"] = f"it waits in Slurm's queue as job {name}"
    return {"job": named[0], "submitted": submitted}


def stop(jobs: "Jobs", job: Job, force: bool) -> None:
    """Take a job out of Slurm's queue; one at work sees by itself what is wanted.

    Args:
        jobs: Where the job is kept.
        job: With its folder.
        force: Kill what does not leave.
    """
    number = read_status(job.folder)["backend"].get("job")
    if number is None:
        return
    with contextlib.suppress(EngineError):
        state = (_queue(time.time()) or {}).get(number)
        if force:
            _ask("scancel", "--full", "--signal=KILL", number)
        if force or state not in (None, "RUNNING"):
            _ask("scancel", number)


def alive(jobs: "Jobs", job: Job) -> bool:
    """Return whether the process of a job, or its place in Slurm's queue, is still there.

    Args:
        jobs: Where the job is kept.
        job: With its folder.

    Returns:
        False once both are gone; True while Slurm does not answer.
    """
    status, who = read_status(job.folder), local.process_of(job.folder)
    if who.get("claim") == status.get("claim"):
        if processes.is_here(who):
            if processes.is_alive(who):
                return True
        elif time.time() - (job.folder / "pid.json").stat().st_mtime < local.SILENCE:
            return True
    number = status["backend"].get("job")
    if number is None:
        return time.time() - float(status.get("claimed") or 0) < local.STARTING
    queue = _queue(float(status["backend"].get("submitted") or 0))
    return queue is None or number in queue


def _claimed_mates(jobs: "Jobs", job: Job, options: SlurmOptions) -> list[tuple[Job, str]]:
    """Claim the waiting jobs that can be in one array with a job: those of its suite."""
    if job.suite is None:
        return []
    found = jobs.list()
    by_id = {other.id: other for other in found}
    mates = []
    for other in sorted(found, key=lambda other: other.id):
        if len(mates) + 1 >= options.array_size:
            break
        if other.id == job.id or not (_alike(job, other) and is_startable(other, by_id)):
            continue
        claim = secrets.token_hex(8)
        with contextlib.suppress(OSError, ValueError), files.changing(other.folder) as status:
            if status["state"] == "queued" and not status["claim"]:
                status |= {"claim": claim, "claimed": time.time(), "wanted": None, "error": None}
                status |= {"attempt": status["attempt"] + 1, "ended": None, "backend": {}}
                mates.append((other, claim))
    return mates


def _alike(job: Job, other: Job) -> bool:
    """Return whether two jobs ask the same of Slurm."""
    if (job.on, job.suite, job.gpus, job.priority) != (
        other.on,
        other.suite,
        other.gpus,
        other.priority,
    ):
        return False
    asked = [words.values_of(one.arguments, WORDS) for one in (job, other)]
    return asked[0] == asked[1] and job.device == other.device


@contextlib.contextmanager
def _claimed(job: Job, claim: str):
    """Change the status of a job as long as it is claimed so."""
    with files.changing(job.folder, at_any_cost=True) as status:
        before = dict(status)
        yield status
        if before["claim"] != claim:
            status.clear()
            status.update(before)


def _submitted(jobs: "Jobs", options: SlurmOptions, tasks: Sequence[tuple[Job, str]]) -> str:
    """Return the number that Slurm gave to a job or an array of them.

    Raises:
        EngineError: If Slurm does not take it, with what it says.
    """
    import submitit  # beside it comes cloudpickle; only those who use Slurm wait for them

    job, _ = tasks[0]
    home = str(jobs.home)
    words_of = [sys.executable, "-m", "engine.jobs.slurm_task", home, str(options.kills)]
    command = [*words_of, *(f"{other.id}:{mark}" for other, mark in tasks)]
    folder = jobs.root / FOLDER
    folder.mkdir(exist_ok=True)
    try:
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(**_parameters(options, job))
        if len(tasks) > 1:
            executor.parameters["map_count"] = len(tasks)
        # exec: the signal before the time limit goes to the batch script's own process
        return executor._submit_command(f"exec {shlex.join(command)}").job_id
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        said = " ".join(str(error).split())[-300:]
        raise EngineError(f"Slurm does not take it: {said}") from error
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"Slurm cannot be asked: {' '.join(str(error).split())}") from error


def _parameters(options: SlurmOptions, job: Job) -> dict:
    """Return what submitit writes into the batch file."""
    gpus = 0 if job.device == "cpu" or options.gpus == 0 else max(job.gpus, options.gpus)
    asked = {
        "job_name": f"tauscope-{job.id}",
        "time": options.minutes,
        "partition": options.partition,
        "gpus_per_node": gpus or None,
        "cpus_per_task": options.cpus,
        "mem": None if options.memory_gb is None else f"{options.memory_gb}GB",
        "array_parallelism": options.array,
        "stderr_to_stdout": True,
        "use_srun": False,
        # what submitit knows as well, such as qos, comes here under sbatch's own name
        "additional_parameters": {
            "chdir": str(local.ROOT),
            "requeue": True,
            "signal": f"B:USR1@{options.notice}",
            **options.further,
        },
    }
    return {name: value for name, value in asked.items() if value is not None}


def _queue(since: float) -> dict[str, str] | None:
    """Return the states of the user's jobs in Slurm's queue, by number.

    Args:
        since: Unix time; an older answer is not good enough.

    Returns:
        Those that are not over; None if Slurm does not answer.
    """
    asked, states = _queues.get("squeue", (0.0, {}))
    if asked < since or time.time() - asked > PACE:
        now = time.time()
        try:
            said = _ask("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %T")
        except EngineError:
            return None
        pairs = (line.split() for line in said.splitlines())
        states = {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1] not in OVER}
        _queues["squeue"] = (now, states)
    return states


def _ask(*command: str) -> str:
    """Return what one of Slurm's commands says.

    Raises:
        EngineError: If it fails.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise EngineError(
            f"{command[0]} does not answer ({' '.join(str(said).split())}); see whether Slurm runs"
        ) from error


def requeue(number: str, noticed: bool) -> None:
    """Ask Slurm to start a job again later, under its number, unless it was ending it anyway.

    A job that is pre-empted is queued again by Slurm itself; one that ``scancel`` took is not.

    Args:
        number: ``SLURM_JOB_ID``.
        noticed: Whether the notice before the time limit came.

    Raises:
        EngineError: If Slurm does not answer.
    """
    state = _ask("squeue", "--noheader", "--format=%T", "--jobs", number).strip()
    if noticed or state == "RUNNING":
        _ask("scontrol", "requeue", number)
