"""The files of a job folder: read with suspicion, replaced in one step, changed under a lock.

Torch-free, so that a list of jobs is there at once; ``engine.store`` writes what holds tensors.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from engine.errors import EngineError, UsageError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

LIMIT = 2**20  # bytes; a longer spec or status is not one of ours
# what status.json holds at first
NEW_STATUS: dict[str, Any] = {
    "state": "queued",
    "step": 0,
    "steps": 0,
    "part": None,
    "loss": None,
    "validation": None,
    "rate": None,
    "seconds_left": None,
    "seconds": 0.0,
    "peak_memory": None,
    "device": None,
    "error": None,
    "waiting": None,
    "artifacts": [],
    "states": [],
    "claim": None,
    "claimed": None,
    "claimed_by": None,
    "wanted": None,
    "attempt": 0,
    "started": None,
    "ended": None,
    "backend": {},
}
RESERVE = "reserve"  # a block given up when the disk is full, so that the end can be written


def read_table(path: Path) -> dict:
    """Read a JSON object.

    Args:
        path: A file.

    Returns:
        The object.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is anything but a JSON object of moderate size.
    """
    if path.stat().st_size > LIMIT:
        raise ValueError("too large")
    try:
        table = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(table, dict):
        raise ValueError("not a table")  # noqa: TRY004 - one class for all that is wrong in a file
    return table


def replace_table(path: Path, table: dict, durable: bool = False) -> None:
    """Write a JSON object in one step: a reader meets the old one or the new one.

    Args:
        path: Where.
        table: Plain JSON values.
        durable: Also wait until it is on the disk.

    Raises:
        OSError: If the disk is full or not writable; nothing is left over.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(json.dumps(table, allow_nan=False).encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def replace_at_any_cost(path: Path, table: dict) -> None:
    """Write the last word of a job, even on a full disk.

    A reserved block is given up; should that not do, the file is overwritten where it lies.

    Args:
        path: Where; something is there already.
        table: Plain JSON values.

    Raises:
        OSError: If the folder cannot be written at all.
    """
    with contextlib.suppress(OSError):
        return replace_table(path, table, durable=True)
    (path.parent / RESERVE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        return replace_table(path, table, durable=True)
    data = json.dumps(table, allow_nan=False).encode()
    with path.open("r+b") as file:
        file.write(data.ljust(path.stat().st_size))
        file.truncate(max(len(data), 2))
    return None


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Generator[bool, None, None]:
    """Hold a file's lock; the system gives it back when the process ends, however it ends.

    Args:
        path: The lock file, made if needed.
        wait: Whether to wait for the one who holds it.

    Yields:
        Whether it is held: always, when waiting.

    Raises:
        UsageError: On a system without such locks.
    """
    if fcntl is None:
        raise UsageError("background jobs need Linux, macOS or WSL; run the verb without them")
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextlib.contextmanager
def changing(folder: Path, at_any_cost: bool = False) -> Generator[dict, None, None]:
    """Change a job's status: read under the lock, given out, written back if it differs.

    Args:
        folder: Of the job.
        at_any_cost: Write it even on a full disk.

    Yields:
        The status, to be changed in place.
    """
    path = folder / "status.json"
    with locked(folder / "lock"):
        before = read_table(path)
        status = json.loads(json.dumps({**NEW_STATUS, **before}))
        yield status
        if status != before:
            (replace_at_any_cost if at_any_cost else replace_table)(path, status)


def make(root: Path, name: str, spec: dict, status: dict) -> Path:
    """Make a job folder; it appears under its name when it is whole and on the disk.

    Args:
        root: The folder of all jobs.
        name: The job's id.
        spec: What was asked.
        status: Where it stands.

    Returns:
        The folder.

    Raises:
        EngineError: If it cannot be written.
    """
    hidden, folder = root / f".new-{name}", root / name
    try:
        hidden.mkdir(parents=True)
        replace_table(hidden / "spec.json", spec, durable=True)
        replace_table(hidden / "status.json", status, durable=True)
        (hidden / RESERVE).write_bytes(os.urandom(8192))
        (hidden / "pid.json").write_bytes(b"{}")
        # all that is written later is there from the first: a full disk takes no new file
        for later in ("log.txt", "events.jsonl", "lock", "run.lock"):
            (hidden / later).touch()
        hidden.rename(folder)
        sync_folder(root)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise EngineError(
            f"cannot write {hidden}: {error.strerror or error}; free some space there, or set "
            "TAUSCOPE_CACHE to a folder on another disk"
        ) from error
    return folder


def append_event(folder: Path, event: dict[str, Any]) -> None:
    """Append one event in one write; a line torn by an earlier crash is closed first.

    Args:
        folder: Of the job.
        event: Plain JSON values; its time is added.

    Raises:
        OSError: If it cannot be written.
    """
    line = json.dumps({"time": time.time(), **event}, allow_nan=False).encode() + b"\n"
    path = folder / "events.jsonl"
    with path.open("a+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        file.write(line)


def read_events(folder: Path, since: int = 0) -> Iterator[dict]:
    """Yield the events after the first ``since`` lines, each with its line number ``n``.

    Args:
        folder: Of the job.
        since: Lines to leave out.

    Yields:
        Events; lines that are torn or foreign are passed over.
    """
    with contextlib.suppress(FileNotFoundError), (folder / "events.jsonl").open("rb") as file:
        for n, line in enumerate(file, 1):
            if n <= since:
                continue
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield {**event, "n": n}


def tail(path: Path, n: int) -> list[str]:
    """Return the last lines of a text file, reading no more than its last 256 kB.

    Args:
        path: The file; a missing one has no lines.
        n: How many.

    Returns:
        Lines without their ends.
    """
    if n < 1 or not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**18))
        return file.read().decode(errors="replace").splitlines()[-n:]
