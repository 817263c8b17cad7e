"""What the Fine-tune page is asked, and its address."""

import string
from collections.abc import Mapping, Sequence

from app.state.keys import MOST_SEEDS, QUERY_JOB

_NAME = frozenset(string.ascii_letters + string.digits + "-_.")  # what a job's name is made of


def seeds_of(text: str) -> tuple[int, ...]:
    """Read seeds as they are typed: "0", "0, 2, 5" or "0-3", in any mixture.

    Args:
        text: Whole numbers and ranges, parted by commas or blanks.

    Returns:
        The seeds in the order given, each once; none where something else stands there, or
        where there are more than 100.
    """
    found: dict[int, None] = {}
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        ends = (first, last) if dash else (first, first)
        # a seed is drawn from as 64 bits; nine digits are enough for anyone
        if not all(end.isdecimal() and end.isascii() and len(end) <= 9 for end in ends):
            return ()
        low, high = map(int, ends)
        if not 0 <= high - low < MOST_SEEDS:
            return ()
        found.update(dict.fromkeys(range(low, high + 1)))
    return tuple(found) if len(found) <= MOST_SEEDS else ()


def jobs_of(query: Mapping[str, str]) -> tuple[str, ...]:
    """Read which jobs the address asks for; what cannot be a job's name is left out."""
    names = query.get(QUERY_JOB, "").split(",")
    fit = [name for name in names if name and len(name) <= 80 and set(name) <= _NAME]
    return tuple(dict.fromkeys(fit))


def keep_jobs(chosen: Sequence[str], listed: Sequence[str]) -> list[str]:
    """Keep the chosen jobs that are still listed, in the list's order."""
    return [name for name in listed if name in set(chosen)]


def ended(seen: Mapping[str, str], now: Mapping[str, str], over: Sequence[str]) -> list[str]:
    """Name the jobs that have come to an end since they were last looked at.

    Args:
        seen: State by job, as last drawn; a job that is not in it was never seen at work.
        now: State by job.
        over: The states that are an end.

    Returns:
        Their ids, in the order of ``now``.
    """
    return [
        name
        for name, state in now.items()
        if state in over and name in seen and seen[name] not in over
    ]
