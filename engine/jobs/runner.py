"""The process of a job at work: it keeps the folder true while the verb computes."""

import contextlib
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path

from engine.errors import EngineError
from engine.jobs import folder as files
from engine.jobs import mishaps, processes, reporting
from engine.jobs.job import Job
from engine.jobs.jobs import Jobs

BEAT = 2.0  # seconds between two signs of life
LOOK = 0.5  # seconds between two looks at what is wanted
DONE, FAILED, NOT_MINE, LEFT = 0, 2, 75, 130


def run(jobs: Jobs, job: Job, claim: str, call: Callable[[], dict]) -> int:
    """Do a job in this process.

    Args:
        jobs: Where it is kept.
        job: Which.
        claim: What the status must say, so that nobody else does it as well.
        call: The verb with its words; returns its answer.

    Returns:
        The exit status: 0; 2 if it failed; 130 if it was asked to leave; 75 if it is not ours.
    """
    with files.locked(job.folder / "run.lock", wait=False) as free:
        if not free or not _begin(job.folder, claim):
            return NOT_MINE
        desk = _Desk(job.folder, claim)
        signal.signal(signal.SIGTERM, desk.leave)
        signal.signal(signal.SIGINT, desk.leave)
        reporting.listen(desk)
        desk.start()
        try:
            answer = call()
        except KeyboardInterrupt:
            end: dict = {"state": "cancelled"}
        except (Exception, SystemExit) as error:
            if not isinstance(error, EngineError):
                traceback.print_exc()
            end = {"state": "failed", "error": mishaps.sentence(error)}
        else:
            end = {"state": "done", "answer": answer}
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        reporting.listen(None)
        return desk.finish(job, **end)


def _begin(folder: Path, claim: str) -> bool:
    """Return whether the job is ours; then its process is written down."""
    with files.changing(folder, at_any_cost=True) as status:
        if status["claim"] != claim or status["state"] not in ("queued", "running"):
            return False
        who = {**processes.identity(), "claim": claim}
        files.replace_at_any_cost(folder / "pid.json", who)
        status |= {"state": "running", "started": time.time(), "ended": None, "error": None}
    with contextlib.suppress(OSError):
        files.append_event(folder, {"kind": "state", "state": "running"})
    return True


class _Desk(threading.Thread):
    """Hears the verb, writes the folder, gives signs of life, sees what is wanted."""

    def __init__(self, folder: Path, claim: str) -> None:
        super().__init__(daemon=True)
        self.folder, self.claim = folder, claim
        self.began = time.time()
        self.ended = threading.Event()
        self.news: dict = {}
        self.lists: dict[str, list] = {"artifacts": [], "states": []}
        self.guard = threading.Lock()
        self.place, self.of, self.at_work = 0, 1, None
        self.asked = False
        self.marks: deque[tuple[float, int]] = deque(maxlen=64)
        self.before = files.read_table(folder / "status.json")["seconds"]

    # ------------------------------------------------------- heard, in the thread of the verb

    def leave(self, number: int, frame: object) -> None:
        """Stop the verb where it is; verbs that train replace this by something gentler."""
        signal.signal(number, signal.SIG_IGN)
        self.asked = True
        raise KeyboardInterrupt

    def parts(self, of: int) -> None:
        """Hear how many parts there are."""
        self.of = max(of, 1)

    def report(self, name: str, done: int, steps: int, entry: dict | None) -> None:
        """Hear how far it is; a new entry of the log becomes an event."""
        if self.asked:  # and yet here: ``import torch`` swallows what is raised within it
            raise KeyboardInterrupt
        if name != self.at_work:
            self.place, self.at_work = self.place + (self.at_work is not None), name
        now, self.of = time.monotonic(), max(self.of, self.place + 1)
        step, whole = self.place * steps + done, self.of * steps
        if not self.marks or now - self.marks[-1][0] > 0.25:
            self.marks.append((now, step))
        before, first = self.marks[0]
        seconds = now - before
        rate = (step - first) / seconds if seconds > 0.2 and step > first else None
        with self.guard:
            self.news |= {"part": name, "step": step, "steps": whole, "rate": rate}
            self.news["seconds_left"] = (whole - step) / rate if rate else None
            if entry is not None:
                self.news["loss"] = entry.get("loss")
                if "validation" in entry:
                    self.news["validation"] = entry["validation"]
        if entry is not None:
            told = {"learning_rate" if k == "rate" else k: v for k, v in entry.items()}
            told |= {"kind": "log", "step": step, "steps": whole, "part": name, "part_step": done}
            with contextlib.suppress(OSError):  # a full disk is told by what matters more
                files.append_event(self.folder, told)

    def working_state(self, name: str) -> None:
        """Hear the name of a working state."""
        with self.guard:
            if name not in self.lists["states"]:
                self.lists["states"].append(name)
        self._write()

    def artifact(self, kind: str, digest: str) -> None:
        """Hear what was put in the store."""
        with self.guard:
            self.lists["artifacts"].append([kind, digest])
        self._write()

    # ------------------------------------------------------------------- in a thread of its own

    def run(self) -> None:
        """Give signs of life and write what is new until the end."""
        asked, beaten = False, 0.0
        while not self.ended.wait(LOOK):
            with contextlib.suppress(OSError, ValueError):
                if time.monotonic() - beaten >= BEAT:
                    os.utime(self.folder / "pid.json")
                    beaten = time.monotonic()
                status = files.read_table(self.folder / "status.json")
                if status.get("claim") != self.claim:  # taken from us: leave, and write nothing
                    os.kill(os.getpid(), signal.SIGKILL)
                if status.get("wanted") == "cancel" and not asked:
                    asked = True
                    os.kill(os.getpid(), signal.SIGTERM)
            self._write()

    def finish(self, job: Job, state: str, error: str | None = None, answer: dict | None = None):
        """Write the last word; return the exit status."""
        self.ended.set()
        self.join()
        with contextlib.suppress(OSError, ValueError):
            if answer is not None:
                files.replace_table(self.folder / "answer.json", answer, durable=True)
        with files.changing(self.folder, at_any_cost=True) as status:
            self._merge(status)
            again = job.on == "slurm" and state == "cancelled" and status["wanted"] != "cancel"
            if again:  # pre-empted: the queue of the cluster starts the same command again
                state = "queued"
            status |= {"state": state, "error": error, "rate": None, "seconds_left": None}
            status["ended"] = None if again else time.time()
            if state == "done":  # parts that were done before were passed over
                status["step"] = status["steps"]
            # before the status: who sees the end there finds it among the events
            with contextlib.suppress(OSError):
                event = {"kind": "state", "state": state} | ({"error": error} if error else {})
                files.append_event(self.folder, event)
        return {"done": DONE, "failed": FAILED}.get(state, LEFT)

    def _write(self) -> None:
        """Write what is new, if the disk takes it."""
        with contextlib.suppress(OSError, ValueError), files.changing(self.folder) as status:
            self._merge(status)

    def _merge(self, status: dict) -> None:
        """Put what was heard into a status."""
        with self.guard:
            status |= self.news
            for name, heard in self.lists.items():
                status[name] += [item for item in heard if item not in status[name]]
        status["seconds"] = self.before + time.time() - self.began
        status["peak_memory"] = max(peak_memory(), status["peak_memory"] or 0)


def peak_memory() -> int:
    """Return the most memory this process has held, bytes: of its GPU where it uses one."""
    torch = sys.modules.get("torch")
    with contextlib.suppress(AttributeError, RuntimeError):  # torch may be half imported
        if torch is not None and torch.cuda.is_initialized():
            return int(torch.cuda.max_memory_reserved())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
