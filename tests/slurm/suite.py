"""What run.sh does on its cluster: the same suite by Slurm and locally, with mishaps."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny_world import make_encoder  # noqa: E402

from engine.jobs import Job, Jobs, Suite  # noqa: E402
from engine.jobs.local import process_of  # noqa: E402
from engine.store import Store  # noqa: E402

PATIENCE = 200.0
BEGAN = time.monotonic()
SHORT = ("--steps", "12", "--batch", "8", "--rate", "0.001", "--limit", "100", "--threads", "1")
SHORT += ("--device", "cpu")
# long enough to be met at work, and saved often
LONG = ("--steps", "100", *SHORT[2:], "--checkpoint-every", "5")


def main() -> None:
    """Run it all; an assertion that fails ends it."""
    home = Path(os.environ["TAUSCOPE_CACHE"])
    make_encoder(home)
    jobs = Jobs(home)
    suite = array_of_a_suite(jobs)
    killed = by_command_line("--tasks", "signs", "--seed", "1", *LONG)
    left = by_command_line("--tasks", "signs", "--mode", "linear", "--seed", "2", *LONG)
    pending = by_command_line(
        "--tasks", "signs", "--seed", "3", *LONG, slurm=("begin=now+1hour", "minutes=5")
    )
    # meanwhile, while Slurm waits, starts and queues again
    there, copies = local_copies(home, [*suite, killed, left])
    for job in suite:
        wait_for(jobs, job, "done")
    tell("the suite is done")
    kill(jobs, killed)
    notice(jobs, left)
    cancel(jobs, pending)
    preempt(jobs, left)
    for job in (killed, left):
        wait_for(jobs, job, "done")
    assert_went_on(jobs, killed, 2)
    assert_went_on(jobs, left, 3)
    same_as_local(jobs, [*suite, killed, left], there, copies)
    tell("all checkpoints are those of the local back end, to the bit")


def array_of_a_suite(jobs: Jobs) -> list[Job]:
    """Submit a suite: one array in Slurm."""
    suite = Suite("miniature", ("signs",), ("nonlinear", "linear"), (0,), SHORT)
    found = jobs.submit_suite(suite, on="slurm", device="cpu")
    numbers = [number_of(jobs, job) for job in found]
    arrays = {number.partition("_")[0] for number in numbers}
    assert len(arrays) == 1, numbers
    assert sorted(number.partition("_")[2] for number in numbers) == ["0", "1"]
    tell(f"a suite of {len(found)} jobs is array {arrays.pop()}")
    return found


def kill(jobs: Jobs, job: Job) -> None:
    """Kill the process of a job at work."""
    wait_for(jobs, job, "running", step=12)
    who = process_of(jobs.get(job.id).folder)
    os.kill(who["pid"], signal.SIGKILL)
    wait_for(jobs, job, "queued")
    tell(f"killed after step {jobs.get(job.id).step}, queued again")


def notice(jobs: Jobs, job: Job) -> None:
    """Send a job the signal that Slurm sends before the time limit."""
    wait_for(jobs, job, "running", step=12)
    slurm("scancel", "--batch", "--signal=USR1", number_of(jobs, job))
    wait_for(jobs, job, "queued")
    tell(f"noticed after step {jobs.get(job.id).step}, queued again")


def preempt(jobs: Jobs, job: Job) -> None:
    """Have a job that went on queued again by Slurm, as pre-emption does."""
    wait_for(jobs, job, "running", step=jobs.get(job.id).step + 10)
    slurm("scontrol", "requeue", number_of(jobs, job))
    wait_for(jobs, job, "queued")
    tell(f"pre-empted after step {jobs.get(job.id).step}, queued again")


def cancel(jobs: Jobs, job: Job) -> None:
    """Cancel a job that waits in the queue."""
    number = number_of(jobs, job)
    assert number in slurm("squeue", "--noheader", "--array", "--format=%i").split()
    assert jobs.get(job.id).state == "queued"
    engine("jobs", "cancel", job.id)
    assert jobs.get(job.id).state == "cancelled"
    assert number not in slurm("squeue", "--noheader", "--array", "--format=%i").split()
    tell("cancelled one in the queue")


def assert_went_on(jobs: Jobs, job: Job, starts: int) -> None:
    """See that what was cut short went on from where it was saved."""
    found = jobs.get(job.id)
    events = jobs.events(job.id)
    states = [event["state"] for event in events if event["kind"] == "state"]
    assert found.attempt >= starts, (job.title, found.attempt)
    assert states.count("running") == found.attempt, states
    assert states[-1] == "done", states
    steps = [event["step"] for event in events if event["kind"] == "log"]
    # a later start from nothing would begin its log again
    assert steps.count(steps[0]) == 1, steps
    tell(f"{job.title}: {found.attempt} starts, {states}")


def slurm(*command: str) -> str:
    """Run one of Slurm's commands and return what it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def local_copies(home: Path, found: list[Job]) -> tuple[Jobs, list[Job]]:
    """Have the local back end do the same jobs in a home of its own, one after another."""
    other = home.with_name("local")
    make_encoder(other)
    there = Jobs(other)
    return there, [there.submit([job.verb, *plain(job)], device="cpu") for job in found]


def same_as_local(jobs: Jobs, found: list[Job], there: Jobs, copies: list[Job]) -> None:
    """Compare the checkpoints' tensors with those of the local back end, to the bit."""
    mine, local = Store(jobs.home), Store(there.home)
    for job, copy in zip(found, copies, strict=True):
        wait_for(there, copy, "done")
        ours, theirs = (
            the_checkpoint(store, one.get(this.id))
            for store, one, this in ((mine, jobs, job), (local, there, copy))
        )
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), (job.title, name)
    tell(f"{len(found)} checkpoints compared")


def the_checkpoint(store: Store, job: Job) -> dict[str, torch.Tensor]:
    """Return the one task vector that a job made."""
    (entry,) = [entry for entry in store.find("checkpoint") if entry.digest in job.artifacts]
    return store.get(entry)


def plain(job: Job) -> list[str]:
    """Return a job's words without those for Slurm."""
    words = list(job.arguments)
    if "--slurm" not in words:
        return words
    place = words.index("--slurm")
    end = next((k for k in range(place + 1, len(words)) if words[k][:2] == "--"), len(words))
    return words[:place] + words[end:]


def by_command_line(*words: str, slurm: tuple[str, ...] = ()) -> Job:
    """Submit a fine-tune as a user does."""
    asked = ("--slurm", *slurm) if slurm else ()
    told = engine("finetune", *words, *asked, "--on", "slurm", "--json")
    return Jobs(Path(os.environ["TAUSCOPE_CACHE"])).get(json.loads(told)["job"])


def engine(*words: str) -> str:
    """Run a verb and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "engine", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number_of(jobs: Jobs, job: Job) -> str:
    """Return a job's number in Slurm, once it has one."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        status = json.loads((job.folder / "status.json").read_text())
        if "job" in status["backend"]:
            return status["backend"]["job"]
        assert status["state"] != "failed", status["error"]
        time.sleep(0.2)
    raise AssertionError(f"{job.title} was not submitted")


def wait_for(jobs: Jobs, job: Job, state: str, step: int = 0) -> None:
    """Wait until a job is in a state, at a step."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = jobs.get(job.id)
        if found.state == state and found.step >= step:
            return
        ended = found.finished and found.state != state
        assert not ended, f"{found.title} is {found.state}: {found.error}"
        time.sleep(0.2)
    raise AssertionError(f"{job.title} is {found.state} at step {found.step}, not {state}")


def tell(sentence: str) -> None:
    """Say how far it is."""
    sys.stdout.write(f"slurm: {time.monotonic() - BEGAN:5.1f} s: {sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
