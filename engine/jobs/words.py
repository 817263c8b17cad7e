"""The words of a command line, as a job keeps them: options read, changed and taken away."""

from collections.abc import Mapping, Sequence
from typing import Any

# how a job is started is no part of what it does
STARTING = {"--json": 0, "--background": 0, "--on": 1, "--priority": 1, "--after": 1, "--cache": 1}


def value_of(words: Sequence[str], name: str) -> str | None:
    """Return the first value of an option.

    Args:
        words: As ``("--seed", "3", "--half")``.
        name: "--seed", or "seed".

    Returns:
        Its value; "" for an option without one; None if it is not given.
    """
    found = values_of(words, name)
    return None if found is None else (found or [""])[0]


def values_of(words: Sequence[str], name: str) -> list[str] | None:
    """Return all values of an option, the last time it is given; None if it is not.

    Args:
        words: A command line.
        name: Of the option, with or without its dashes.

    Returns:
        Its values.
    """
    name, found = _dashed(name), None
    for place, word in enumerate(words):
        if word.startswith(f"{name}="):
            found = [word.partition("=")[2]]
        elif word == name:
            found = list(words[place + 1 : _end(words, place)])
    return found


def changed(words: Sequence[str], changes: Mapping[str, Any]) -> list[str]:
    """Set options otherwise.

    Args:
        words: A command line.
        changes: By name: a value, several in a list, True for an option without value; None or
            False takes it away.

    Returns:
        The new command line; what was changed stands at its end.
    """
    kept = without(words, {_dashed(name): None for name in changes})
    for name, value in changes.items():
        if value is None or value is False:
            continue
        several = value if isinstance(value, list | tuple) else [value]
        kept += [_dashed(name), *([] if value is True else map(str, several))]
    return kept


def without(words: Sequence[str], options: Mapping[str, int | None]) -> list[str]:
    """Take options away.

    Args:
        words: A command line.
        options: How many values belong to each, by its dashed name; None for all up to the next
            option.

    Returns:
        The other words.
    """
    kept, place = [], 0
    while place < len(words):
        name, equals, _ = words[place].partition("=")
        if name not in options:
            kept.append(words[place])
            place += 1
        elif equals:
            place += 1
        else:
            count = options[name]
            place = _end(words, place) if count is None else place + 1 + count
    return kept


def _dashed(name: str) -> str:
    """Return an option's name as it is typed."""
    return "--" + name.lstrip("-").replace("_", "-")


def _end(words: Sequence[str], place: int) -> int:
    """Return where the values of the option at a place end."""
    end = place + 1
    while end < len(words) and not words[end].startswith("--"):
        end += 1
    return end
