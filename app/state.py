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
XI_GRIDS = (11, 20, 21, 41, 51, 101)  # points an axis
XI_REACH = 5.0  # the largest alpha of a map
XI_DISTANCES = ("error", "tv", "kl")

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
XI_ENCODER, XI_BESIDE = "xi_encoder", "xi_beside"
XI_FIRST, XI_SECOND = "xi_first", "xi_second"
XI_GRID, XI_RANGE, XI_DISTANCE = "xi_grid", "xi_range", "xi_distance"
XI_THRESHOLD, XI_IMAGES = "xi_threshold", "xi_images"
XI_READING = "xi_reading"
XI_MINUEND, XI_MINUS = "xi_minuend", "xi_minus"
XI_SECTION = "xi_section"
XI_PAIR_ALPHA = "xi_pair_alpha"
XI_SLIDERS = ("xi_alpha_1", "xi_alpha_2")
XI_ALPHAS = "xi_alphas"  # the last ones chosen, by task
XI_ADDRESS = "xi_address"  # the address last written
XI_ASKED, XI_PAIRS_ASKED = "xi_asked", "xi_pairs_asked"  # forward passes its user has started
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
NTK_ENCODER, NTK_BESIDE = "ntk_encoder", "ntk_beside"
NTK_TASK, NTK_CONTROL = "ntk_task", "ntk_control"
NTK_POINTS, NTK_LOGITS = "ntk_points", "ntk_logits"
NTK_PAIR = "ntk_pair"  # for which points and logits were set to what is kept
NTK_ADDRESS = "ntk_address"  # the address last written
NTK_REVISION = "ntk_revision"  # raised when the page, not its user, moves the sliders
NTK_AT = "ntk_at"  # setting and order at this revision
NTK_EXPLORER = "ntk_explorer"
NTK_RUNNING = "ntk_running"  # what this visitor has started
NEGATE_ENCODER, NEGATE_GRID = "negate_encoder", "negate_grid"
NEGATE_START = "negate_start"  # where the address wants the slider; None: each task's own
NEGATE_ADDRESS = "negate_address"  # the address last written
NEGATE_RUN, NEGATE_AT_WORK = "negate_run", "negate_at_work"

# of the address
QUERY_ENCODER, QUERY_READING, QUERY_CONVENTION = "e", "r", "c"
QUERY_TASKS, QUERY_ALPHAS = "t", "a"
QUERY_BESIDE, QUERY_CONTROL, QUERY_POINTS, QUERY_LOGITS = "b", "k", "n", "l"
QUERY_SETTING, QUERY_ORDER = "s", "o"
QUERY_GRID, QUERY_RANGE, QUERY_DISTANCE, QUERY_THRESHOLD = "g", "x", "d", "h"
QUERY_SECTION = "v"
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


@dataclass(frozen=True)
class NtkView:
    """What the Eigenfunctions page shows; an empty or None field was not given."""

    encoder: str | None = None
    beside: str | None = None
    task: str | None = None
    control: str | None = None
    points: int | None = None
    logits: str | None = None
    setting: str | None = None
    order: str | None = None


_NTK_QUERY = {
    "encoder": QUERY_ENCODER,
    "beside": QUERY_BESIDE,
    "task": QUERY_TASKS,
    "control": QUERY_CONTROL,
    "points": QUERY_POINTS,
    "logits": QUERY_LOGITS,
    "setting": QUERY_SETTING,
    "order": QUERY_ORDER,
}


def ntk_query(view: NtkView) -> dict[str, str]:
    """Write a view as the address's parameters; what it does not give stays out."""
    named = {key: getattr(view, field) for field, key in _NTK_QUERY.items()}
    return {key: str(value) for key, value in named.items() if value is not None}


def ntk_visited(query: Mapping[str, str], written: Mapping[str, str] | None) -> NtkView | None:
    """Say which view the address asks for, if it is not the one that the page wrote itself.

    Args:
        query: The address now, written by anyone; what is malformed counts as not given.
        written: What the page last wrote; None in a new session.

    Returns:
        The view of an address that was opened, reloaded or gone back to; None otherwise.
    """
    if not _elsewhere(query, written):
        return None
    asked = {field: query.get(key) or None for field, key in _NTK_QUERY.items()}
    points = asked.pop("points")
    fits = points is not None and points.isascii() and points.isdecimal() and len(points) < 6
    return NtkView(**asked, points=int(points) if fits else None)


def visited(query: Mapping[str, str], written: Mapping[str, str] | None) -> MergeView | None:
    """Say which view the address asks for, if it is not the one that this page wrote itself.

    Args:
        query: The address now.
        written: What the page last wrote; None in a new session.

    Returns:
        The view of an address that was opened, reloaded or gone back to; None otherwise.
    """
    if not _elsewhere(query, written):
        return None
    return from_query(query)


@dataclass(frozen=True)
class XiView:
    """What the Disentanglement page shows; an empty or None field was not given.

    ``pair`` and ``alphas`` have two entries or none; ``limits`` are of both axes.
    """

    encoder: str | None = None
    beside: str | None = None
    pair: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ()
    grid: int | None = None
    limits: tuple[float, ...] = ()
    distance: str | None = None
    threshold: float | None = None
    section: str | None = None
    reading: str | None = None


def xi_query(view: XiView) -> dict[str, str]:
    """Write a view as the address's parameters; what it does not give stays out."""
    said = {
        QUERY_ENCODER: view.encoder,
        QUERY_BESIDE: view.beside,
        QUERY_TASKS: ",".join(quote(task, safe="") for task in view.pair),
        QUERY_ALPHAS: ",".join(f"{alpha:.6g}" for alpha in view.alphas),
        QUERY_GRID: None if view.grid is None else str(view.grid),
        QUERY_RANGE: ",".join(f"{limit:.6g}" for limit in view.limits),
        QUERY_DISTANCE: view.distance,
        QUERY_THRESHOLD: None if view.threshold is None else f"{view.threshold:.6g}",
        QUERY_SECTION: view.section,
        QUERY_READING: view.reading,
    }
    return {key: value for key, value in said.items() if value}


def xi_visited(query: Mapping[str, str], written: Mapping[str, str] | None) -> XiView | None:
    """Say which view the address asks for, if it is not the one that the page wrote itself.

    Args:
        query: The address now, written by anyone; what is malformed counts as not given.
        written: What the page last wrote; None in a new session.

    Returns:
        The view of an address that was opened, reloaded or gone back to; None otherwise.
    """
    if not _elsewhere(query, written):
        return None
    pair = tuple(unquote(part) for part in query.get(QUERY_TASKS, "").split(",") if part)
    limits = _numbers(query.get(QUERY_RANGE, ""), -XI_REACH, XI_REACH)
    grid = query.get(QUERY_GRID, "")
    reading, distance = query.get(QUERY_READING), query.get(QUERY_DISTANCE)
    threshold = _numbers(query.get(QUERY_THRESHOLD, ""), 0.0, 2.0, 1)
    return XiView(
        encoder=query.get(QUERY_ENCODER) or None,
        beside=query.get(QUERY_BESIDE) or None,
        pair=pair if len(set(pair)) == 2 and len(pair) == 2 else (),
        alphas=_numbers(query.get(QUERY_ALPHAS, ""), -XI_REACH, XI_REACH),
        grid=int(grid) if grid in {str(points) for points in XI_GRIDS} else None,
        limits=limits if limits and limits[0] < limits[1] else (),
        distance=distance if distance in XI_DISTANCES else None,
        threshold=threshold[0] if threshold else None,
        section=query.get(QUERY_SECTION) or None,
        reading=reading if reading in READINGS else None,
    )


def merge_alphas(pair: Sequence[str], alphas: Sequence[float]) -> dict[str, float]:
    """Give the alphas of a pair as Merge's sliders can hold them: clipped to their ends."""
    return {
        task: min(HIGHEST, max(LOWEST, alpha)) for task, alpha in zip(pair, alphas, strict=True)
    }


def alphas_of_pair(
    pair: Sequence[str], mine: Mapping[str, float], merge: Mapping[str, float]
) -> tuple[float, ...]:
    """Give the alphas in force for a pair: those chosen on a map unless Merge has moved since.

    Args:
        pair: Two tasks.
        mine: Alphas chosen on the maps, by task; may lie outside of Merge's sliders.
        merge: Alphas of Merge's sliders, by task.

    Returns:
        One alpha a task.
    """
    found = []
    for task in pair:
        held, there = mine.get(task, START), merge.get(task)
        moved = there is not None and there != min(HIGHEST, max(LOWEST, held))
        found.append(there if moved else held)
    return tuple(found)


def clicked(event: Mapping | None) -> Mapping | None:
    """Read the point a figure's user clicked on: {"x", "y", "customdata", ..}; None without one."""
    try:
        points = event["selection"]["points"]
    except (KeyError, TypeError):
        return None
    return points[0] if points else None


@dataclass(frozen=True)
class NegateView:
    """What the Negate page shows; alpha None: every task at its chosen one."""

    encoder: str | None = None
    alpha: float | None = None


def negate_query(view: NegateView) -> dict[str, str]:
    """Write a view of the Negate page as the address's parameters."""
    alpha = "own" if view.alpha is None else f"{view.alpha:.6g}"
    return {QUERY_ENCODER: view.encoder or "", QUERY_ALPHAS: alpha}


def negate_visited(
    query: Mapping[str, str], written: Mapping[str, str] | None
) -> NegateView | None:
    """Say which view the address asks for, if it is not the one that the page wrote itself.

    Args:
        query: The address now, written by anyone; what is malformed counts as not given.
        written: What the page last wrote; None in a new session.

    Returns:
        The view of an address that was opened, reloaded or gone back to; None otherwise.
    """
    if not _elsewhere(query, written):
        return None
    return NegateView(query.get(QUERY_ENCODER) or None, _number(query.get(QUERY_ALPHAS, "own")))


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

    Returns:
        Their ids, in the order of ``now``.
    """
    return [
        name
        for name, state in now.items()
        if state in over and name in seen and seen[name] not in over
    ]


def _numbers(text: str, low: float, high: float, count: int = 2) -> tuple[float, ...]:
    """Read so many finite numbers, clipped; none where they are malformed."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        return ()
    if len(values) != count or not all(map(math.isfinite, values)):
        return ()
    return tuple(min(high, max(low, value)) for value in values)


def _elsewhere(query: Mapping[str, str], written: Mapping[str, str] | None) -> bool:
    """Say whether an address was opened, reloaded or gone back to, not written by the page."""
    return bool(query) and (written is None or dict(query) != dict(written))


def _number(text: str) -> float | None:
    """Read a finite number, clipped to the slider's range."""
    try:
        value = float(text)
    except ValueError:
        return None
    return min(HIGHEST, max(LOWEST, value)) if math.isfinite(value) else None
