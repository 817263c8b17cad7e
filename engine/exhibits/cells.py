"""From the answers of several seeds to cells, rows and bars."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from engine.evaluate import wilson_interval
from engine.exhibits.exhibit import KEPT, NOT_RUN, Cell, Column, Figure, Row, Run, Table
from engine.exhibits.intervals import over_images, over_seeds
from engine.exhibits.standing import Standing

Parts = tuple[tuple[Table, ...], tuple[Figure, ...], tuple[Run, ...]]
Answers = list[tuple[Run, dict | None]]
# an answer to (value, interval over images or None, images)
Read = Callable[[dict], tuple[float, tuple[float, float] | None, int]]

PRETRAINED = "pretrained"
WILSON, IMAGES, SEEDS = "Wilson, images", "normal, images", "t, seeds"


def cell(answers: Answers, read: Read, interval: str = IMAGES) -> Cell:
    """Make one cell of the answers of several seeds.

    Args:
        answers: One a seed; None where it is not kept.
        read: Takes value, interval and images from an answer.
        interval: Whose interval ``read`` gives.

    Returns:
        The mean over the seeds kept, with Student's interval where there are two or more; else
        what makes the first seed's answer.
    """
    kept = [(run, read(answer)) for run, answer in answers if answer is not None]
    if not kept:
        run = answers[0][0]
        return Cell(NOT_RUN, words=run.words, before=run.before)
    found = Cell(
        KEPT,
        n=kept[0][1][2],
        seeds=tuple(run.seed for run, _ in kept if run.seed is not None),
        sources=tuple(source for run, _ in kept for source in run.sources),
    )
    values = [value for _, (value, _, _) in kept]
    if len(values) > 1:
        mean, low, high = over_seeds(values)
        return replace(found, value=mean, low=low, high=high, interval=SEEDS)
    ends = kept[0][1][1]
    if ends is None:
        return replace(found, value=values[0])
    return replace(found, value=values[0], low=ends[0], high=ends[1], interval=interval)


def mean_of(kind: str) -> Read:
    """Read the mean over the tasks of "single", "merged" or "zeroshot_tasks"."""

    def read(answer: dict):
        names = list(answer["n"])
        values, counts = [answer[kind][t] for t in names], [answer["n"][t] for t in names]
        return fmean(values), over_images(values, counts), sum(counts)

    return read


def task_of(kind: str, task: str) -> Read:
    """Read one task's accuracy."""

    def read(answer: dict):
        value, n = answer[kind][task], answer["n"][task]
        return value, wilson_interval(round(value * n), n), n

    return read


def plain(key: str) -> Read:
    """Read a number that has no interval."""
    return lambda answer: (answer[key], None, sum(answer["n"].values()))


def any_of(answers: Mapping[str, Answers]) -> Answers:
    """Return the answers of a reading that has any: what is before fine-tuning is in each."""
    some = next((a for a in answers.values() if any(kept for _, kept in a)), None)
    chosen = some or next(iter(answers.values()))
    # the same in every seed: one suffices
    return [next((pair for pair in chosen if pair[1] is not None), chosen[0])]


def runs_of(answers: Mapping[str, Answers]) -> tuple[Run, ...]:
    """Return the runs that answers came from."""
    return tuple(run for found in answers.values() for run, _ in found)


def sources_of(*cells: Cell) -> tuple[str, ...]:
    """Return the entries that cells were read from, each once."""
    return tuple(dict.fromkeys(digest for part in cells for digest in part.sources))


def bars(name: str, title: str, table: Table, axis: str = "test accuracy") -> Figure:
    """Draw a table whose rows are groups and whose columns are series.

    Args:
        name: Of the figure.
        title: Of the figure.
        table: Its numbers.
        axis: What the bars' length is.

    Returns:
        A figure of kind "bars".
    """

    def of(column: Column, key: str) -> list:
        cells = [row.cells[column.name] for row in table.rows]
        return [getattr(part, key) if part.state == KEPT else None for part in cells]

    series = [
        {"name": c.name, "title": c.title, **{key: of(c, key) for key in ("low", "high")},
         "values": of(c, "value")}
        for c in table.columns
    ]  # fmt: skip
    data = {"groups": [row.title for row in table.rows], "series": series, "axis": axis}
    sources = sources_of(*(part for row in table.rows for part in row.cells.values()))
    return Figure(name, title, "bars", data, sources)


def by_task(
    held: Standing,
    name: str,
    title: str,
    columns: Sequence[Column],
    cells: Callable[[str | None], dict[str, Cell]],
) -> Table:
    """Make a table of one row a task and their mean, which ``cells(None)`` gives."""
    rows = [Row(task.name, task.title, cells(task.name)) for task in held.tasks.values()]
    return Table(name, title, tuple(columns), (*rows, Row("mean", "Mean", cells(None))))
