"""Long work that tells how far it is, and can be stopped without losing it."""

import contextlib
import signal
from collections.abc import Callable, Generator

from engine.commands.printing import paced
from engine.jobs import reporting


def reporter(name: str, check: Callable[[], None]) -> Callable[[int, int, dict | None], None]:
    """Make a progress callback that writes to the error stream and stops when asked.

    Args:
        name: What is being trained.
        check: Raises when the user wants to stop.

    Returns:
        ``progress(steps done, steps, new log entry or None)``.
    """
    speak = paced()

    def progress(done: int, steps: int, entry: dict | None) -> None:
        if entry is not None:
            told = f"{name}: step {done} of {steps}, loss {entry['loss']:.3f}"
            speak(f"{told}, {entry['seconds']:.0f} s", done == steps)
        reporting.report(name, done, steps, entry)
        check()

    return progress


def counter(
    name: str, what: str, check: Callable[[], None] | None = None
) -> Callable[[float, float], None]:
    """Make a progress callback for what has parts but no losses; a job tells of it too.

    Args:
        name: What is being measured.
        what: What is counted, in the plural.
        check: Raises when the user wants to stop; None where stopping saves nothing.

    Returns:
        ``progress(done, total)``.
    """
    speak = paced()

    def progress(done: float, total: float) -> None:
        speak(f"{name}: {done:.0f} of {total:.0f} {what}", done == total)
        reporting.report(name, int(done), int(total))
        if check is not None:
            check()

    return progress


@contextlib.contextmanager
def stoppable() -> Generator[Callable[[], None]]:
    """Hold Ctrl-C and SIGTERM back until the step is done, so that its state can be saved.

    A second Ctrl-C is not held back; a second SIGTERM is, for a cluster's queue sends one to every
    process of a job, and those above hand theirs on.

    Yields:
        ``check()``, which raises ``KeyboardInterrupt`` after the first one.
    """
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
