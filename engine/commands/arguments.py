"""How the words of the command line are read: numbers, coefficients, one-sentence complaints."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class OneSentenceParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence, with exit status 2.

    Attributes:
        more: Gives what help says at the end, made only when it is asked for.
    """

    more: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Return the help, with what is told at its end."""
        text = super().format_help()
        return text if self.more is None else f"{text}\n{self.more()}\n"

    def error(self, message: str) -> NoReturn:
        """Write the complaint without the usage block.

        Args:
            message: What argparse found wrong.
        """
        sys.stderr.write(f"{message}; see {self.prog} --help\n")
        sys.exit(2)


def alpha_of_task(text: str) -> tuple[str, float]:
    """Read ``handwriting=0.3``.

    Args:
        text: A task's name, an equals sign and a number.

    Returns:
        The name and the number.

    Raises:
        argparse.ArgumentTypeError: If it is not of that form.
    """
    name, _, value = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not task=number, as in handwriting=0.3")
    return name, finite(value)


def finite(text: str) -> float:
    """Read a finite number.

    Args:
        text: What the user typed.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: If it is no number, NaN or infinite.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def positive(text: str) -> int:
    """Read a whole number above zero.

    Args:
        text: What the user typed.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: If it is anything else.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)
