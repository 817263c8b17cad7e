"""The command line, ``python -m engine VERB``: parse, call, print; ``commands`` holds the verbs."""

import contextlib
import gc
import json
import os
import sys
from collections.abc import Sequence

from engine.commands import GROUPS, call
from engine.commands.listening import listen
from engine.commands.parser import build_parser
from engine.errors import EngineError

__all__ = ["GROUPS", "build_parser", "main"]

USER_MISTAKE, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: The words after ``python -m engine``; those of the process by default.

    Returns:
        0; 2 for a user's mistake, after one sentence on the error stream; 130 after Ctrl-C.
        A bug is not caught.

    Raises:
        OSError: One without a file's name: not a user's mistake.
    """
    args = build_parser().parse_args(argv)
    listen()
    try:
        # whatever a library prints belongs to the error stream: standard output is the answer
        with contextlib.redirect_stdout(sys.stderr):
            record, text = call(args, sys.argv[1:] if argv is None else argv)
    except EngineError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        return _refuse(f"cannot read or write {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return _answer(json.dumps(record, allow_nan=False) if args.json else text)


def _answer(text: str) -> int:
    """Return 0 once the answer is printed; a reader who has left (``| head``) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _refuse(sentence: str) -> int:
    """Return 2 once the error stream says what the user can mend."""
    print(" ".join(sentence.split()), file=sys.stderr)
    return USER_MISTAKE


if __name__ == "__main__":
    status = main()
    gc.freeze()  # all of it goes now: Python need not look for what could
    sys.exit(status)
