"""All jobs of one home: submit, look, change; every word of it is on the disk."""

from __future__ import annotations  # Jobs.list hides the builtin in the class's annotations

import contextlib
import importlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import EngineError, MissingDataError, UsageError
from engine.jobs import folder as files
from engine.jobs import local, words
from engine.jobs.job import FINISHED, ID, NEW_STATUS, Job, Suite, described, new_spec, pairs

_supervisors: list[subprocess.Popen] = []  # kept to be collected when they end


class Jobs:
    """The jobs under ``<home>/jobs``; many processes may hold one each, and all see the same."""

    def __init__(self, home: Path) -> None:
        self.home = Path(home).expanduser().absolute()
        self.root = self.home / "jobs"
        self._settled: dict[Path, tuple[tuple[int, int], Job]] = {}

    # ------------------------------------------------------------------------------ submitting

    def submit(
        self,
        arguments: Sequence[str],
        *,
        title: str | None = None,
        priority: int = 0,
        after: Sequence[str] = (),
        on: str = "local",
        device: str | None = None,
        gpus: int = 1,
        suite: str | None = None,
    ) -> Job:
        """Queue a verb of the command line.

        Args:
            arguments: The verb and its words.
            title: For a reader; made from the words if None.
            priority: Higher first.
            after: Ids of jobs that must be done before.
            on: "local" or "slurm".
            device: "auto", "cpu", "cuda" or "mps"; that of ``--device`` if None.
            gpus: How many it takes where it runs on GPUs.
            suite: A name that like jobs share.

        Returns:
            The job, on the disk; a supervisor looks after it.

        Raises:
            UsageError: If it cannot be asked for.
            EngineError: If the folder cannot be written.
        """
        job = self._make(
            new_spec(
                list(arguments),
                title=title,
                priority=priority,
                after=tuple(self.get(other).id for other in after),
                on=on,
                device=device,
                gpus=gpus,
                suite=suite,
            )
        )
        self.pump()
        return job

    def submit_suite(
        self,
        suite: Suite,
        *,
        priority: int = 0,
        on: str = "local",
        device: str | None = None,
        gpus: int = 1,
    ) -> list[Job]:
        """Queue every job of a suite.

        Args:
            suite: Tasks, modes and seeds.
            priority: As for ``submit``, like the rest.
            on: The back end.
            device: What each runs on.
            gpus: How many each takes.

        Returns:
            The jobs, in the suite's order.
        """
        name = suite.name or f"suite {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {secrets.token_hex(2)}"
        specs = [
            new_spec(
                line,
                title=None,
                priority=priority,
                after=(),
                on=on,
                device=device,
                gpus=gpus,
                suite=name,
            )
            for line in suite.lines()
        ]
        jobs = [self._make(spec) for spec in specs]
        self.pump()
        return jobs

    def duplicate(self, id: str, **changes: Any) -> Job:
        """Queue a job like another one.

        Args:
            id: Of the other.
            **changes: ``title``, ``priority``, ``after``, ``on``, ``device``, ``gpus`` as for
                ``submit``; any other name is an option of the verb (``seed=1``; None takes one
                away).

        Returns:
            The new job.
        """
        job, spec = self.get(id), files.read_table(self._folder(id) / "spec.json")
        own = ("title", "priority", "after", "on", "device", "gpus", "suite")
        asked = {name: spec[name] for name in own if name != "title"}
        asked |= {name: changes.pop(name) for name in own if name in changes}
        if "device" in changes or words.value_of(job.arguments, "--device"):
            # the option of the verb and the slot are one choice
            changes.setdefault("device", asked["device"])
        return self.submit([job.verb, *words.changed(job.arguments, changes)], **asked)

    def _make(self, spec: dict) -> Job:
        """Return a new job, on the disk."""
        now = time.time()
        id = f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        whole = {**spec, "id": id, "cwd": str(Path.cwd()), "created": now}
        folder = files.make(self.root, id, whole, NEW_STATUS)
        return self._look(folder)

    # --------------------------------------------------------------------------------- looking

    def list(self) -> list[Job]:
        """Return the jobs, newest first; what is damaged is told by ``damaged``."""
        jobs = [found for _, found in self._all() if isinstance(found, Job)]
        by_id = {job.id: job for job in jobs}
        return [_waiting(job, by_id) for job in jobs]

    def damaged(self) -> list[tuple[Path, str]]:
        """Return the folders that are no job any more, each with one sentence."""
        return [(folder, found) for folder, found in self._all() if isinstance(found, str)]

    def get(self, id: str) -> Job:
        """Return one job.

        Args:
            id: Its id, or the beginning of it if no other begins so.

        Returns:
            The job.

        Raises:
            MissingDataError: If there is none.
            CheckpointError: If its folder is damaged.
        """
        job, by_id = self._look(self._folder(id)), {}
        for other in job.after if job.state == "queued" else ():
            with contextlib.suppress(EngineError):
                by_id[other] = self._look(self._folder(other))
        return _waiting(job, by_id)

    def events(self, id: str, since: int = 0) -> list[dict]:
        """Return what happened in a job after its first ``since`` events; "n" counts them."""
        return list(files.read_events(self._folder(id), since))

    def curve(self, id: str) -> list[dict]:
        """Return the training log of a job; steps that were run again stand there once."""
        kept: list[dict] = []
        for event in self.events(id):
            if event.get("kind") == "log" and isinstance(event.get("step"), int):
                while kept and kept[-1]["step"] >= event["step"]:
                    kept.pop()
                kept.append(event)
        return kept

    def log_tail(self, id: str, n: int = 40) -> list[str]:
        """Return the last lines a job has said."""
        return files.tail(self._folder(id) / "log.txt", n)

    def answer(self, id: str) -> dict | None:
        """Return what the verb answered; None before it is done."""
        with contextlib.suppress(OSError, ValueError):
            return files.read_table(self._folder(id) / "answer.json")
        return None

    # -------------------------------------------------------------------------------- changing

    def cancel(self, id: str, force: bool = False) -> Job:
        """Ask a job to save its state and leave.

        Args:
            id: Of a job that is queued or running.
            force: Kill what does not leave; it resumes from its last working state.

        Returns:
            The job, perhaps still at work for a moment.

        Raises:
            UsageError: If it has ended.
        """
        folder, job = self._folder(id), self.get(id)
        with files.changing(folder, at_any_cost=True) as status:
            if status["state"] == "queued":
                status |= {"state": "cancelled", "wanted": "cancel", "ended": time.time()}
                status["waiting"] = None
            elif status["state"] == "running" and not job.finished:
                status["wanted"] = "cancel"
            else:
                raise UsageError(f"{job.id} is {job.state}; only what is at work can be cancelled")
        if job.state == "queued":
            _tell(folder, "cancelled")
        back_end(job.on).stop(self, job, force)
        return self.get(id)

    def resume(self, id: str) -> Job:
        """Queue a job again that was cancelled, lost or failed; it goes on where it was saved.

        Returns:
            The job, queued.

        Raises:
            UsageError: If it is none of these, or its process is still there.
        """
        return self._again(id, {})

    def retry(self, id: str) -> Job:
        """Queue a job again that was cancelled, lost or failed, from its first step.

        Returns:
            The job, queued.

        Raises:
            UsageError: If it is none of these, or its process is still there.
        """
        folder = self._folder(id)
        self._check_ended(self.get(id))
        self._drop_states(folder)
        fresh = ("step", "steps", "part", "loss", "validation", "seconds", "states")
        return self._again(id, {name: NEW_STATUS[name] for name in fresh})

    def delete(self, id: str, artifacts: bool = False) -> list[str]:
        """Forget a job: its folder and its working states.

        Args:
            id: Of a job that is not at work.
            artifacts: Also delete from the store what it made and no other job made too.

        Returns:
            The digests deleted.

        Raises:
            UsageError: If it is at work.
        """
        folder = self._folder(id)
        deleted: list[str] = []
        with contextlib.suppress(EngineError):  # a damaged one can be deleted as well
            job = self.get(id)
            if not job.finished and not (job.state == "queued" and job.pid is None):
                raise_at_work(job)
        with _held(folder):
            try:
                status = files.read_table(folder / "status.json")
            except (OSError, ValueError):
                status = {}
            if artifacts:
                deleted = self._delete_artifacts(folder, status)
            if status.get("states"):
                self._drop_states(folder)
            gone = folder.with_name(f".deleted-{folder.name}-{secrets.token_hex(3)}")
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return deleted

    def pump(self) -> None:
        """Write down which jobs are lost and see that a supervisor is there if there is work."""
        if not self.root.is_dir():
            return
        _supervisors[:] = [child for child in _supervisors if child.poll() is None]
        for job in self.list():
            if job.state in ("lost", "cancelled"):
                self.settle_gone(job)
        jobs = self.list()
        by_id = {job.id: job for job in jobs}
        if any(job.state == "running" or is_startable(job, by_id) for job in jobs):
            with files.locked(self.root / "supervisor.lock", wait=False) as free:
                pass
            if free:
                self._start_supervisor()

    def settle_gone(self, job: Job, code: int | None = None) -> None:
        """Write down that the process of a job is gone, if the status says otherwise.

        Args:
            job: Of whom it is known.
            code: How the process ended, if that is known.
        """
        how = "killed or the machine went down" if code is None else f"ended with status {code}"
        if code is not None and code < 0:
            how = f"killed by signal {-code}" + (", perhaps for want of memory" * (code == -9))
        said = None
        with contextlib.suppress(OSError, ValueError), files.changing(job.folder, True) as status:
            at_work = status["state"] == "running" or (
                status["state"] == "queued" and status["claim"]
            )
            if at_work and not back_end(job.on).alive(self, job):
                if job.on == "local" and not _has_begun(job.folder, status) and code is None:
                    # whoever claimed it went before it started it: nothing is lost
                    status |= {"state": "queued", "claim": None, "started": None}
                    return
                said = "cancelled" if status["wanted"] == "cancel" else "lost"
                status |= {"state": said, "ended": _last_sign(job.folder), "rate": None}
                status |= {"seconds_left": None, "waiting": None}
                if status["started"]:
                    status["seconds"] += max(0.0, status["ended"] - status["started"])
                if said == "lost":
                    status["error"] = f"its process is gone ({how}); {_REMEDY}"
        if said:
            _tell(job.folder, said)

    # --------------------------------------------------------------------- for back ends alone

    def command(self, job: Job, claim: str) -> list[str]:
        """Return the command line of the process that does a job, to be run in the checkout."""
        words = ["jobs", "run", job.id, "--claim", claim, "--cache", str(self.home)]
        return [sys.executable, "-m", "engine", *words]

    # -------------------------------------------------------------------------------- privates

    def _folders(self) -> Iterator[Path]:
        """Yield the folders named as jobs are, newest first."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [item.name for item in os.scandir(self.root) if ID.fullmatch(item.name)]
            yield from (self.root / name for name in sorted(names, reverse=True))

    def _folder(self, id: str) -> Path:
        """Return the folder of a job.

        Raises:
            MissingDataError: If there is none, or several begin so.
        """
        if ID.fullmatch(id) and (self.root / id).is_dir():
            return self.root / id
        begun = (
            []
            if not re.fullmatch("[0-9a-f-]+", id)
            else [
                folder
                for folder in self._folders()
                if folder.name.startswith(id) or folder.name.endswith(f"-{id}")
            ]
        )
        if len(begun) == 1:
            return begun[0]
        several = f"{len(begun)} jobs are called {id}" if begun else f"no job is called {id[:60]!r}"
        raise MissingDataError(f"{several}; see: python -m engine jobs list")

    def _all(self) -> Iterator[tuple[Path, Job | str]]:
        """Yield each folder with its job, or with what is wrong in it."""
        for folder in self._folders():
            try:
                yield folder, self._look(folder)
            except MissingDataError:  # deleted meanwhile
                continue
            except EngineError as error:
                yield folder, str(error)

    def _look(self, folder: Path) -> Job:
        """Return the job of a folder as it is now.

        Raises:
            MissingDataError: If it is gone.
            EngineError: If it is damaged, in one sentence.
        """
        remedy = f"delete it with: python -m engine jobs delete {folder.name}"
        if not folder.is_dir() or folder.is_symlink():
            raise MissingDataError(
                f"no job is called {folder.name}; see: python -m engine jobs list"
            )
        try:
            stamp = _stamp(folder / "status.json")
            # one whose process is silent may speak again: only what is written down is settled
            settled = self._settled.get(folder)
            if settled is not None and settled[0] == stamp:
                return settled[1]
            spec = files.read_table(folder / "spec.json")
            status = _status(folder)
            job = self._now(folder, spec, status)
        except FileNotFoundError as error:
            if not folder.exists():
                raise MissingDataError(f"{folder.name} was deleted") from error
            raise EngineError(
                f"job {folder.name} is incomplete ({error.filename} is missing); {remedy}"
            ) from error
        except OSError as error:
            raise EngineError(
                f"job {folder.name} cannot be read ({error.strerror}); {remedy}"
            ) from error
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise EngineError(f"job {folder.name} is damaged ({error}); {remedy}") from error
        if status["state"] in FINISHED:
            self._settled[folder] = (stamp, job)
        return job

    def _now(self, folder: Path, spec: Mapping, status: Mapping) -> Job:
        """Return a job with the state it has now, whatever was last written down."""
        job = described(folder, spec, status, local.process_of(folder), str(status.get("state")))
        at_work = job.state == "running" or (job.state == "queued" and status.get("claim"))
        if not at_work or back_end(job.on).alive(self, job):
            return job
        status = _status(folder)  # it may have ended well in between
        if status.get("state") == job.state and status.get("attempt") == job.attempt:
            gone = "cancelled" if status.get("wanted") == "cancel" else "lost"
            error = None if gone == "cancelled" else f"its process is gone; {_REMEDY}"
            status = {**status, "error": error, "rate": None, "seconds_left": None}
            status |= {"ended": _last_sign(folder)}
            return described(folder, spec, status, local.process_of(folder), gone)
        return described(folder, spec, status, local.process_of(folder), str(status.get("state")))

    def _check_ended(self, job: Job) -> None:
        """Refuse a job that is done or at work.

        Raises:
            UsageError: Saying what to do instead.
        """
        if job.state not in ("cancelled", "lost", "failed"):
            instead = "duplicate it" if job.state == "done" else "cancel it first"
            raise UsageError(f"{job.id} is {job.state}; {instead}")

    def _again(self, id: str, fresh: Mapping) -> Job:
        """Return a job queued once more."""
        folder, job = self._folder(id), self.get(id)
        self._check_ended(job)
        with _held(folder):
            if not _readable_status(folder):
                files.replace_table(folder / "status.json", NEW_STATUS, durable=True)
            with files.changing(folder) as status:
                kept = ("step", "steps", "part", "loss", "validation", "seconds", "artifacts")
                kept += ("states", "attempt", "peak_memory")
                status |= {**NEW_STATUS, **{name: status[name] for name in kept}, **fresh}
            if not (folder / files.RESERVE).exists():
                with contextlib.suppress(OSError):
                    (folder / files.RESERVE).write_bytes(os.urandom(8192))
        _tell(folder, "queued")
        self.pump()
        return self.get(job.id)

    def _drop_states(self, folder: Path) -> None:
        """Drop the working states of a job from the store."""
        with contextlib.suppress(OSError, ValueError):
            names = [
                n for n in files.read_table(folder / "status.json")["states"] if isinstance(n, str)
            ]
            if names:
                from engine.store import Store

                for name in names:
                    Store(self.home).drop_state(name)

    def _delete_artifacts(self, folder: Path, status: Mapping) -> list[str]:
        """Return the digests of what was deleted from the store."""
        from engine.store import KINDS, Store

        others = {d for job in self.list() if job.folder != folder for d in job.artifacts}
        store, deleted = Store(self.home), []
        with contextlib.suppress(ValueError):
            for kind, digest in pairs(status.get("artifacts", [])):
                if kind in KINDS and digest not in others:
                    for entry in store.find(kind):
                        if entry.digest == digest:
                            store.delete(entry)
                            deleted.append(digest)
        return deleted

    def _start_supervisor(self) -> None:
        """Start a supervisor that outlives this process."""
        with (self.root / "supervisor.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "engine.jobs.supervisor", str(self.home)],
                cwd=local.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _supervisors.append(child)


_REMEDY = "resume it to go on from its last working state"


def back_end(name: str) -> ModuleType:
    """Return the module of a back end: its ``launch``, ``stop`` and ``alive``."""
    return importlib.import_module(f"engine.jobs.{name}")


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


def _waiting(job: Job, by_id: Mapping[str, Job]) -> Job:
    """Return a job that says why it is not started yet."""
    if job.state != "queued":
        return job
    return replace(job, waiting=blocked(job, by_id) or job.waiting or "it waits for its turn")


def _has_begun(folder: Path, status: Mapping) -> bool:
    """Return whether the process that a job was claimed for has shown itself."""
    return local.process_of(folder).get("claim") == status["claim"]


def is_startable(job: Job, by_id: Mapping[str, Job]) -> bool:
    """Return whether a supervisor has something to do for a queued job."""
    return job.state == "queued" and blocked(job, by_id) is None


def raise_at_work(job: Job) -> None:
    """Refuse what cannot be done to a job at work.

    Raises:
        UsageError: Always.
    """
    raise UsageError(f"{job.id} is at work; cancel it first")


@contextlib.contextmanager
def _held(folder: Path) -> Generator[None, None, None]:
    """Keep any process from working on a job.

    Raises:
        UsageError: If one is at work.
    """
    with files.locked(folder / "run.lock", wait=False) as free:
        if not free:
            raise UsageError(f"the process of {folder.name} is still there; cancel it with --force")
        yield


def _tell(folder: Path, state: str, **more: Any) -> None:
    """Append a change of state to the events, if the disk takes it."""
    with contextlib.suppress(OSError):
        files.append_event(folder, {"kind": "state", "state": state, **more})


def _status(folder: Path) -> dict:
    """Return the status of a job; one that was destroyed is that of a lost job."""
    try:
        return files.read_table(folder / "status.json")
    except ValueError as error:
        said = f"its status is damaged ({str(error)[:80]}); {_REMEDY}"
        return {**NEW_STATUS, "state": "lost", "error": said}


def _readable_status(folder: Path) -> bool:
    """Return whether the status of a job can be read."""
    try:
        return files.read_table(folder / "status.json").keys() >= NEW_STATUS.keys()
    except ValueError:
        return False


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and time of change of a file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _last_sign(folder: Path) -> float:
    """Return when a process at work last gave a sign of life."""
    with contextlib.suppress(OSError):
        return (folder / "pid.json").stat().st_mtime
    return time.time()
