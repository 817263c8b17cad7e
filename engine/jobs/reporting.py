"""What the verbs tell of themselves while they run as a job; outside a job nothing happens."""

import functools
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from engine.store import Store


class Listener(Protocol):
    """Who hears it: the runner of a job."""

    def parts(self, of: int) -> None:
        """Hear how many parts there are."""

    def report(self, name: str, done: int, steps: int, entry: dict | None) -> None:
        """Hear how far the part is."""

    def working_state(self, name: str) -> None:
        """Hear the name of a working state in the store."""

    def artifact(self, kind: str, digest: str) -> None:
        """Hear what was put in the store."""


_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """Set who hears; None for nobody.

    Args:
        listener: The runner.
    """
    global _listener  # noqa: PLW0603 - one process runs one job
    _listener = listener


def heard() -> bool:
    """Return whether a job is at work in this process."""
    return _listener is not None


def parts(of: int) -> None:
    """Tell of how many parts the work is; each has a name of its own in ``report``.

    Args:
        of: Parts in all, of about as many steps each.
    """
    if _listener is not None:
        _listener.parts(of)


def report(name: str, done: int, steps: int, entry: dict | None = None) -> None:
    """Tell how far the part is.

    Args:
        name: What is at work, as "digits nonlinear".
        done: Steps of this part done.
        steps: Steps of this part.
        entry: A new entry of the log, with "loss", "rate" (the learning rate), "validation", ...
    """
    if _listener is not None:
        _listener.report(name, done, steps, entry)


def recorded(store: "Store") -> "Store":
    """Have a store tell what is put in it and under which names working states are saved.

    Args:
        store: Changed in place when a job is at work, for the life of its process.

    Returns:
        The same store.
    """
    if _listener is None or "put" in vars(store):
        return store
    put = store.put

    @functools.wraps(put)
    def told(kind, tensors, meta):
        entry = put(kind, tensors, meta)
        if _listener is not None:
            _listener.artifact(kind, entry.digest)
        return entry

    save_state = store.save_state

    @functools.wraps(save_state)
    def saved(name, tensors, meta):
        if _listener is not None:
            _listener.working_state(name)
        save_state(name, tensors, meta)

    store.put, store.save_state = told, saved
    return store
