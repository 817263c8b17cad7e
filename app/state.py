"""Keys of the session and of the address, each named once; what a view is, and its address.

Everything here is a pure function of plain values: no widget is drawn and nothing is computed.
"""

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

READINGS = ("nonlinear", "posthoc", "linear")
CONVENTIONS = ("sum", "mean")
LOWEST, HIGHEST = -1.0, 2.0  # of an alpha
START = 0.3  # where untouched sliders stand: the papers' usual shared coefficient
MOST_PINS = 6

# of the session
MERGE_ENCODER = "merge_encoder"
MERGE_READING = "merge_reading"
MERGE_TASKS = "merge_tasks"
MERGE_CONVENTION = "merge_convention"
MERGE_ADDRESS = "merge_address"  # the address last written, to notice one typed or gone back to
MERGE_REVISION = "merge_revision"  # raised when the page, not its user, moves the sliders
MERGE_INITIAL = "merge_initial"  # alphas at this revision
MERGE_PINS = "merge_pins"
MERGE_WIDGET = "merge_widget"
MERGE_FILE = "merge_file"
VISITOR = "visitor"  # who starts background work
CHECKPOINTS_TABLE = "checkpoints_table"
CHECKPOINTS_ENCODER = "checkpoints_encoder"
CHECKPOINTS_MODE = "checkpoints_mode"
OVERVIEW_ENCODER = "overview_encoder"
FINETUNE_FORM = "finetune_form_"  # what each field of the form is called after
FINETUNE_TABLE = "finetune_table"
FINETUNE_CHOSEN = "finetune_chosen"  # ids of the jobs looked at
FINETUNE_ADDRESS = "finetune_address"  # the jobs last written into the address
FINETUNE_SEEN = "finetune_seen"  # state of each job when it was last drawn, to notice an end
FINETUNE_ASKED = "finetune_asked"  # what is to be confirmed
FINETUNE_OPEN = "finetune_open"  # whether the form is unfolded

# of the address
QUERY_ENCODER, QUERY_READING, QUERY_CONVENTION = "e", "r", "c"
QUERY_TASKS, QUERY_ALPHAS = "t", "a"
QUERY_JOB = "job"
MOST_SEEDS = 100
_NAME = frozenset(string.ascii_letters + string.digits + "-_.")  # what a job's name is made of


@dataclass(frozen=True)
class MergeView:
    """What the Merge page shows; an empty or None field was not given.

    ``alphas`` are keyed by task name and may be fewer than ``tasks``.
    """

    encoder: str | None = None
    reading: str | None = None
    convention: str | None = None
    tasks: tuple[str, ...] = ()
    alphas: Mapping[str, float] = field(default_factory=dict)


def to_query(view: MergeView) -> dict[str, str]:
    """Write a view as the address's parameters, in short keys.

    Args:
        view: A complete view: every task has an alpha.

    Returns:
        Strings by key; :func:`from_query` gives the same view back.
    """
    return {
        QUERY_ENCODER: view.encoder or "",
        QUERY_READING: view.reading or "",
        QUERY_CONVENTION: view.convention or "",
        QUERY_TASKS: ",".join(quote(task, safe="") for task in view.tasks),
        QUERY_ALPHAS: ",".join(f"{view.alphas[task]:.6g}" for task in view.tasks),
    }


def from_query(query: Mapping[str, str]) -> MergeView:
    """Read a view from the address; what is missing or malformed counts as not given.

    Args:
        query: Parameters of the address, written by anyone.

    Returns:
        The view; alphas are clipped to [-1, 2] and dropped where they are not numbers.
    """
    reading = query.get(QUERY_READING)
    convention = query.get(QUERY_CONVENTION)
    names = [unquote(part) for part in query.get(QUERY_TASKS, "").split(",") if part]
    alphas = {}
    for name, text in zip(names, query.get(QUERY_ALPHAS, "").split(","), strict=False):
        alpha = _number(text)
        if alpha is not None:
            alphas[name] = alpha
    return MergeView(
        encoder=query.get(QUERY_ENCODER) or None,
        reading=reading if reading in READINGS else None,
        convention=convention if convention in CONVENTIONS else None,
        tasks=tuple(dict.fromkeys(names)),
        alphas=alphas,
    )


def visited(query: Mapping[str, str], written: Mapping[str, str] | None) -> MergeView | None:
    """Say which view the address asks for, if it is not the one that this page wrote itself.

    Args:
        query: The address now.
        written: What the page last wrote; None in a new session.

    Returns:
        The view of an address that was opened, reloaded or gone back to; None otherwise.
    """
    if not query or (written is not None and dict(query) == dict(written)):
        return None
    return from_query(query)


def choose(wanted: str | None, options: Sequence[str]) -> str | None:
    """Keep a wanted option where it exists, else take the first; None without any option."""
    if wanted in options:
        return wanted
    return options[0] if options else None


def choose_tasks(wanted: Sequence[str], options: Sequence[str], default: Sequence[str]) -> list:
    """Keep the wanted tasks that exist, in the options' order; the default where none does."""
    kept = [name for name in options if name in set(wanted)]
    return kept or [name for name in options if name in set(default)]


def carry_alphas(tasks: Sequence[str], alphas: Mapping[str, float]) -> dict[str, float]:
    """Give every task an alpha: its own where it had one, else the usual start."""
    return {task: alphas.get(task, START) for task in tasks}


def add_pin(pins: Sequence[dict], pin: dict) -> list[dict]:
    """Keep one more setting, named by the next free letter; the oldest leaves when there are many.

    Args:
        pins: Those kept, each with a "name".
        pin: The new one, without a name.

    Returns:
        The settings kept, the new one last.
    """
    kept = list(pins)[-(MOST_PINS - 1) :]
    taken = {item["name"] for item in kept}
    name = next(letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in taken)
    return [*kept, {"name": name, **pin}]


def remove_pin(pins: Sequence[dict], name: str) -> list[dict]:
    """Forget the setting of that name."""
    return [pin for pin in pins if pin["name"] != name]


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
    """
    return [
        name
        for name, state in now.items()
        if state in over and name in seen and seen[name] not in over
    ]


def _number(text: str) -> float | None:
    """Read a finite number, clipped to the slider's range."""
    try:
        value = float(text)
    except ValueError:
        return None
    return min(HIGHEST, max(LOWEST, value)) if math.isfinite(value) else None
