"""The other processes of a fine-tune: started, watched and ended by the first."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from engine.errors import LostProcessError

ROOT = Path(__file__).parents[2]  # where `python -m engine` finds the engine
# set for the processes started here: where they meet; torchrun sets variables of its own
MEETING = "TAUSCOPE_MEETING"
GRACE = 30.0  # seconds a process has to leave by itself, as torchrun's
LOST = 75  # exit status of a process that met the end of another: try again
LEFT = (0, 130, LOST)  # statuses of a process that ended as it should: done, stopped, left alone


def leave_with_parent() -> None:
    """End this process when the one that started it is gone: nobody would wait for it."""

    def wait() -> None:
        while os.read(0, 1):  # past Python's buffer, whose lock would outlive this thread
            pass
        os._exit(LOST)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def others(words: Sequence[str], size: int, threads: int) -> Generator[str]:
    """Start ranks 1 .. size - 1 of this machine and see them end.

    Each has a session of its own, no standard output, and a standard input that ends with this
    process.

    Args:
        words: Of ``python -m engine``: what they run.
        size: Processes, this one included.
        threads: Of each on the CPU.

    Yields:
        The address where all meet.

    Raises:
        LostProcessError: If one of them ended early, with how.
    """
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        where = (Path(folder) / "meeting").as_uri()
        children = [_start(words, rank, size, where, threads) for rank in range(1, size)]
        threading.Thread(target=_end_if_stuck, args=(children, ended), daemon=True).start()
        try:
            yield where
        except LostProcessError as error:
            raise LostProcessError(_how_lost(children)) from error
        except BaseException:
            for child in children:
                child.stdin.close()
            raise
        finally:
            ended.set()
            _end(children)


def _start(
    words: Sequence[str], rank: int, size: int, where: str, threads: int
) -> subprocess.Popen:
    """Start one process; its standard input ends when this process is gone."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), MEETING: where}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "engine", *words],
        env={**os.environ, **place, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end_if_stuck(children: Sequence[subprocess.Popen], ended: threading.Event) -> None:
    """End this process if it does not notice that another is gone, as while waiting for a GPU."""
    while not ended.wait(0.2):
        lost = any(child.poll() not in (None, *LEFT) for child in children)
        if lost and not ended.wait(GRACE):
            sys.stderr.write(_how_lost(children) + "\n")
            sys.stderr.flush()
            os._exit(LOST)


def _how_lost(children: Sequence[subprocess.Popen]) -> str:
    """Say which process ended, and how."""
    time.sleep(0.2)  # its socket closes a moment before it can be collected
    codes = {rank: child.poll() for rank, child in enumerate(children, 1)}
    # one that left because another did is not to blame
    lost = [rank for rank, code in codes.items() if code not in (None, *LEFT)]
    what = "another process ended"
    if lost:
        code = codes[lost[0]]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        what = f"process {lost[0] + 1} of {len(children) + 1} {how}"
    return f"{what}; run the same command again to go on from the last working state"


def _end(children: Sequence[subprocess.Popen]) -> None:
    """Wait for the processes, which leave by themselves; end those that do not."""
    until = time.monotonic() + GRACE
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, until - time.monotonic()))
        child.kill()
        child.wait()
        with contextlib.suppress(OSError):
            child.stdin.close()
