"""Job folders in every state, written as a runner writes them, without computing anything."""

import time

from engine.jobs import Job, Jobs
from engine.jobs import folder as files
from engine.jobs.processes import identity


def asleep(monkeypatch) -> None:
    """Let no supervisor start: what is queued stays queued."""
    monkeypatch.setattr(Jobs, "_start_supervisor", lambda jobs: None)


def make_job(
    jobs: Jobs,
    state: str = "queued",
    task: str = "signs",
    mode: str = "linear",
    seed: int = 0,
    step: int = 0,
    steps: int = 20,
    options: tuple[str, ...] = (),
    **status,
) -> Job:
    """Return a fine-tuning job in some state, with a log up to its step.

    Args:
        jobs: Where; no supervisor may be about (``asleep``).
        state: What it is in.
        task: Its task, like the mode and the seed.
        mode: "nonlinear" or "linear".
        seed: Any.
        step: Done.
        steps: Of all.
        options: Further words of its command line.
        **status: Further values of status.json.
    """
    words = ["finetune", "--tasks", task, "--mode", mode, "--seed", str(seed), *options]
    job = jobs.submit(words)
    for done in range(1, step + 1):
        point = {"kind": "log", "step": done, "steps": steps, "part": f"{task} {mode}"}
        point |= {"part_step": done, "loss": 3.0 / done, "learning_rate": 1e-3}
        point |= {"validation": 0.5 + done / 100} if done % 5 == 0 else {}
        files.append_event(job.folder, point)
    now = time.time()
    if state != "queued":
        files.replace_table(job.folder / "pid.json", {**identity(), "claim": "made"})
        (job.folder / "log.txt").write_text(f"{task}: step {step} of {steps}\n")
    change_job(
        job,
        state=state,
        step=step,
        steps=steps,
        part=f"{task} {mode}",
        loss=3.0 / step if step else None,
        validation=0.5 + step / 100 if step >= 5 else None,
        claim=None if state == "queued" else "made",
        claimed=now,
        started=None if state == "queued" else now,
        ended=now if state in ("done", "failed", "cancelled", "lost") else None,
        **status,
    )
    return jobs.get(job.id)


def change_job(job: Job, **status) -> None:
    """Write other values into a job's status."""
    with files.changing(job.folder) as told:
        told |= status


def set_going(job: Job, **status) -> None:
    """Let a job that waits look as if this process were at work on it.

    Args:
        job: Queued.
        **status: Further values of status.json.
    """
    files.replace_table(job.folder / "pid.json", {**identity(), "claim": "made"})
    now = time.time()
    change_job(job, state="running", claim="made", claimed=now, started=now, **status)
