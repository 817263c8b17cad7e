"""Work that a page starts and does not wait for: started once, seen by all, left when not wanted."""

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

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.done = 0
        self.total = 1
        self.note = "waiting"
        self.result: Any = None
        self.error: Exception | None = None
        self.finished = threading.Event()
        self._cancelled = threading.Event()

    @property
    def fraction(self) -> float:
        """How much is done, in [0, 1]."""
        return min(1.0, self.done / max(1, self.total))

    def step(self, done: int, total: int, note: str) -> None:
        """Say how far the work is, and leave it if nobody waits for it.

        Raises:
            Cancelled: If a later piece of the same lane took its place.
        """
        self.done, self.total, self.note = done, total, note
        if self._cancelled.is_set():
            raise Cancelled

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the work to leave at its next step."""
        self._cancelled.set()

    def wait(self, seconds: float) -> bool:
        """Wait a moment; True if it has finished."""
        return self.finished.wait(seconds)


class Board:
    """Pieces of work by key: the same key is started once; a later one of a lane ends the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: OrderedDict[Any, Work] = OrderedDict()
        self._pool = ThreadPoolExecutor(max_workers=3, thread_name_prefix="background")

    def start(self, lane: str, key: Any, function: Callable[[Work], Any]) -> Work:
        """Start a piece of work, or return the one with this key.

        Args:
            lane: Work of one lane replaces earlier work of that lane that has not finished.
            key: What is computed, hashable; equal keys are one piece of work.
            function: Called with the work in the background thread; its result is kept.
        """
        with self._lock:
            work = self._work.get((lane, key))
            if work is not None and not work.cancelled:
                self._work.move_to_end((lane, key))
                return work
            for other in self._work.values():
                if other.lane == lane:
                    other.cancel()
            work = self._work[lane, key] = Work(lane)
            while len(self._work) > _KEPT:
                self._work.popitem(last=False)[1].cancel()
            self._pool.submit(self._run, (lane, key), work, function)
        return work

    def forget(self, lane: str, key: Any) -> None:
        """Forget a piece of work, so that it can be tried again."""
        with self._lock:
            work = self._work.pop((lane, key), None)
        if work is not None:
            work.cancel()

    def _run(self, key: Any, work: Work, function: Callable[[Work], Any]) -> None:
        try:
            work.step(0, work.total, "starting")
            work.result = function(work)
        except Cancelled:
            with self._lock:
                if self._work.get(key) is work:
                    del self._work[key]
        except Exception as error:
            work.error = error  # shown by the page that waits for it
        finally:
            work.finished.set()


@st.cache_resource(max_entries=1, show_spinner=False)
def board() -> Board:
    """Return the board of this server."""
    return Board()


def follow(work: Work, patience: float = 1.5) -> Work:
    """Give quick work a moment to finish, so that no progress bar flickers past."""
    end = time.monotonic() + patience
    while not work.finished.is_set() and time.monotonic() < end:
        work.wait(0.05)
    return work
