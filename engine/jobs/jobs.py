"""All jobs of one home: submit, look, change; every word of it is on the disk."""

from __future__ import annotations  # Jobs.list hides the builtin in the class's annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import CheckpointError, EngineError, MissingDataError, UsageError
from engine.jobs import folder as files
from engine.jobs import local, words
from engine.jobs.changing import (
    again,
    check_ended,
    check_idle,
    delete_artifacts,
    drop_states,
    held,
    settle_gone,
    tell,
)
from engine.jobs.job import ID, NEW_STATUS, Job, Suite, new_spec
from engine.jobs.standing import back_end, has_work, look, waiting

_settled: dict[Path, tuple[tuple[int, int], Job]] = {}  # a page opens Jobs at every look
_supervisors: list[subprocess.Popen] = []  # kept to be collected when they end


class Jobs:
    """The jobs under ``<home>/jobs``; many processes may hold one each, and all see the same."""

    def __init__(self, home: Path) -> None:
        self.home = Path(home).expanduser().absolute()
        self.root = self.home / "jobs"

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
        after: Sequence[str] = (),
        on: str = "local",
        device: str | None = None,
        gpus: int = 1,
    ) -> list[Job]:
        """Queue every job of a suite.

        Args:
            suite: Tasks, modes and seeds.
            priority: As for ``submit``, like the rest.
            after: Ids of jobs that must be done before any of them.
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
                after=tuple(self.get(other).id for other in after),
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
        files.make(self.root, id, whole, NEW_STATUS)
        return self.get(id)

    # --------------------------------------------------------------------------------- looking

    def list(self) -> list[Job]:
        """Return the jobs, newest first; what is damaged is told by ``damaged``."""
        jobs = [found for _, found in self._all() if isinstance(found, Job)]
        by_id = {job.id: job for job in jobs}
        return [waiting(job, by_id) for job in jobs]

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
        job, by_id = self._read(self._folder(id)), {}
        for other in job.after if job.state == "queued" else ():
            with contextlib.suppress(EngineError):
                by_id[other] = self._read(self._folder(other))
        return waiting(job, by_id)

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
            tell(folder, "cancelled")
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
        check_ended(self.get(id))
        drop_states(self.home, folder)
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
        try:
            job = self.get(id)
        except CheckpointError:  # a damaged one can be deleted as well
            pass
        else:
            check_idle(job)
        with held(folder):
            try:
                status = files.read_table(folder / "status.json")
            except (OSError, ValueError):
                status = {}
            if artifacts:
                deleted = delete_artifacts(self, folder, status)
            if status.get("states"):
                drop_states(self.home, folder)
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
                settle_gone(self, job)
        jobs = self.list()
        if has_work(jobs):
            try:
                with files.locked(self.root / "supervisor.lock", wait=False) as free:
                    pass
                if free:
                    self._start_supervisor()
            except (PermissionError, FileNotFoundError):  # a home that one may only read
                return

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
                yield folder, self._read(folder)
            except MissingDataError:  # deleted meanwhile
                continue
            except EngineError as error:
                yield folder, str(error)

    def _again(self, id: str, fresh: Mapping) -> Job:
        """Return a job queued once more."""
        job = self.get(id)
        again(job, fresh)
        self.pump()
        return self.get(job.id)

    def _read(self, folder: Path) -> Job:
        """Return the job of a folder."""
        return look(self, _settled, folder)

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
