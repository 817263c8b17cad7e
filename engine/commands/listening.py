"""What the engine tells while it works, on the error stream: decoding, and known faults of data."""

import logging

from engine.commands.printing import say


class _Saying(logging.Handler):
    """Says each message as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message.

        Args:
            record: What was told.
        """
        say(record.getMessage())


def listen() -> None:
    """Let the engine's messages be read; without this only its warnings are."""
    told = logging.getLogger("engine")
    if not any(isinstance(handler, _Saying) for handler in told.handlers):
        told.addHandler(_Saying())
        told.setLevel(logging.INFO)
