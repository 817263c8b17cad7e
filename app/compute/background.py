"""Work that a page starts and does not wait for: once for all, left when nobody wants it."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import streamlit as st

_KEPT = 32  # finished pieces remembered


class Cancelled(Exception):  # noqa: N818 - not an error: the visitor has moved on
    """Raised inside a piece of work that nobody waits for any more."""


class Work:
    """One piece of work and how far it is; written by its thread, read by pages."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.done = 0
        self.total = 1
        self.note = "waiting"
        self.result: Any = None
        self.partial: Any = None  # what can be drawn before it is done
        self.error: Exception | None = None
        self.finished = threading.Event()
        self._cancelled = threading.Event()

    @property
    def fraction(self) -> float:
        """How much is done, in [0, 1]."""
        return min(1.0, self.done / max(1, self.total))

    def step(self, done: int, total: int, note: str) -> None:
        """Say how far the work is, and leave it if nobody waits for it.

        Args:
            done: Parts done.
            total: Parts in all.
            note: What is being done.

        Raises:
            Cancelled: If nobody waits for it.
        """
        self.done, self.total, self.note = done, total, note
        if self._cancelled.is_set():
            raise Cancelled

    def pause(self, seconds: float) -> None:
        """Let a visitor's own work go first; leave the work if nobody waits for it by then.

        Args:
            seconds: How long.

        Raises:
            Cancelled: If nobody waits for it.
        """
        if self._cancelled.wait(seconds):
            raise Cancelled

    def cancel(self) -> None:
        """Ask the work to leave at its next step."""
        self._cancelled.set()

    def wait(self, seconds: float) -> bool:
        """Return whether it finished within so many seconds."""
        return self.finished.wait(seconds)


class Board:
    """Pieces of work by key: equal keys are one piece, whoever asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: OrderedDict[Any, Work] = OrderedDict()
        self._lanes: dict[tuple[str, str], Any] = {}  # what a visitor last asked for, by title
        self._pool = ThreadPoolExecutor(max_workers=3, thread_name_prefix="background")

    def start(self, title: str, visitor: str, key: Any, function: Callable[[Work], Any]) -> Work:
        """Start a piece of work, or find the one with this key.

        Args:
            title: What kind of work it is, in words. What the same visitor asked for before under
                this title is left, if it has not finished.
            visitor: Who asks.
            key: What is computed, hashable.
            function: Called with the work in a background thread; its result is kept.

        Returns:
            The work, perhaps finished.
        """
        key = (title, key)
        with self._lock:
            before = self._lanes.get((title, visitor))
            self._lanes[title, visitor] = key
            if before is not None and before != key and before in self._work:
                if not self._work[before].finished.is_set():
                    self._work.pop(before).cancel()
            if key not in self._work:
                self._work[key] = Work(title)
                self._pool.submit(self._run, self._work[key], function)
            self._work.move_to_end(key)
            for old in list(self._work)[:-_KEPT]:
                self._work.pop(old).cancel()
            return self._work[key]

    def pending(self) -> list[Work]:
        """Return the work that has not finished."""
        with self._lock:
            return [work for work in self._work.values() if not work.finished.is_set()]

    def drop(self, work: Work) -> None:
        """Forget a piece of work, so that it can be tried again."""
        with self._lock:
            for key in [key for key, kept in self._work.items() if kept is work]:
                del self._work[key]

    def _run(self, work: Work, function: Callable[[Work], Any]) -> None:
        """Run a piece of work in its thread."""
        try:
            work.step(0, work.total, "starting")
            work.result = function(work)
        except Cancelled:
            self.drop(work)
        except Exception as error:
            work.error = error  # shown by the page that waits for it
        finally:
            work.finished.set()


@st.cache_resource(max_entries=1, show_spinner=False)
def board() -> Board:
    """Return the board of this server."""
    return Board()


def follow(work: Work, patience: float = 1.5) -> Work:
    """Return the work after a moment: quick work is then done, and no progress bar flickers past.

    Args:
        work: Just started, or found.
        patience: Seconds to wait at most.
    """
    end = time.monotonic() + patience
    while not work.finished.is_set() and time.monotonic() < end:
        work.wait(0.05)
    return work
