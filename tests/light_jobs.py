"""Real folders, supervisors and runners around a verb that needs no torch: jobs in no time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.jobs import Jobs, reporting, runner
from engine.jobs.supervisor import supervise

SCRIPT = Path(__file__).resolve()


class LightJobs(Jobs):
    """Jobs whose verb is ``count``; everything but the verb is the real thing."""

    def command(self, job, claim):
        return [sys.executable, str(SCRIPT), "run", str(self.home), job.id, claim]

    def _start_supervisor(self):
        start_supervisor(self)

    def ask(self, steps=3, pause=0.02, **options):
        own = {k: options.pop(k) for k in ("priority", "after", "gpus", "device") if k in options}
        words = ["count", "--steps", str(steps), "--pause", str(pause)]
        words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return self.submit(words, **own)

    def wait(self, *ids, states=("done", "failed", "cancelled", "lost"), seconds=60):
        until = time.monotonic() + seconds
        while True:
            self.pump()
            jobs = [self.get(id) for id in ids]
            if all(job.state in states for job in jobs):
                return jobs
            told = [(job.id, job.state, job.error, self.log_tail(job.id, 5)) for job in jobs]
            assert time.monotonic() < until, told
            time.sleep(0.05)

    def turns(self):
        """What the verb itself wrote down: one entry each time it was run."""
        found = []
        for path in sorted((self.home / "turns").iterdir()):
            found += [json.loads(line) for line in path.read_text().splitlines()]
        return found


def start_supervisor(jobs):
    jobs.root.mkdir(parents=True, exist_ok=True)
    with (jobs.root / "supervisor.log").open("ab") as log:
        command = [sys.executable, str(SCRIPT), "supervise", str(jobs.home)]
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    CHILDREN.append(child)
    return child


CHILDREN: list[subprocess.Popen] = []


def count(jobs, job):
    def option(name, default=0.0):
        return float(job.option(name) or default)

    def call():
        folder = jobs.home / "turns"
        folder.mkdir(exist_ok=True)
        turn = {"id": job.id, "device": job.device, "pid": os.getpid(), "began": time.time()}
        turn["visible"] = os.environ["CUDA_VISIBLE_DEVICES"]
        with (folder / f"{job.id}-{os.getpid()}").open("a") as file:
            file.write(json.dumps(turn) + "\n")
        if option("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        steps, before = int(option("steps")), jobs.home / f"step-{job.id}"
        first = int(before.read_text()) if before.exists() else 0
        for step in range(first + 1, steps + 1):
            time.sleep(option("pause"))
            before.write_text(str(step))
            reporting.report("counting", step, steps, {"step": step, "loss": 1 / step, "rate": 0.5})
            if step == option("fails"):
                raise OSError(28, "No space left on device")
        with (folder / f"{job.id}-{os.getpid()}").open("a") as file:
            file.write(json.dumps({**turn, "ended": time.time()}) + "\n")
        return {"counted": steps}

    return call


if __name__ == "__main__":
    jobs = LightJobs(Path(sys.argv[2]))
    if sys.argv[1] == "supervise":
        supervise(jobs)
    else:
        job = jobs.get(sys.argv[3])
        sys.exit(runner.run(jobs, job, sys.argv[4], count(jobs, job)))
