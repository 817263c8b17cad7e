"""Published / here / why they differ."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from engine.exhibits.exhibit import KEPT, NOTHING, Cell, Exhibit, Table
from engine.exhibits.published import Published, published, published_name

if TYPE_CHECKING:
    from engine.exhibits.standing import Standing

NEAREST = "ViT-B/32"  # what encoders stand beside that the papers do not have: its smallest
PAPER = {"steps": 2000, "batch": 128, "rate": 1e-5}  # App. A


@dataclass(frozen=True)
class Compared:
    """A published figure beside ours.

    Attributes:
        exhibit: Its name.
        row: Key of the row.
        column: Key of the column.
        published: What was printed.
        cell: Ours; absent where there is none.
        why: Why they differ; "" if the protocol is the same.
        order: Where the row stands in its column, there and here; "" with fewer than two rows.
    """

    exhibit: str
    row: str
    column: str
    published: Published
    cell: Cell
    why: str
    order: str = ""

    def record(self) -> dict:
        """Return plain values."""
        return asdict(self)


def compared(
    exhibit: Exhibit,
    encoder: str,
    tables: tuple[Table, ...],
    held: "Standing | None" = None,
) -> tuple[Compared, ...]:
    """Set what was published beside what is kept here.

    Args:
        exhibit: Which.
        encoder: Of the report.
        tables: Ours; the first one has the rows and columns of the paper.
        held: What the store holds, for the reasons; None where the exhibit does not apply.

    Returns:
        One entry a published figure of the same encoder; of encoders that the papers do not
        have, beside those of ViT-B/32. Empty where nothing was published.
    """
    figures = _figures(exhibit.name, encoder)
    cells = _cells(exhibit.name, tables)
    why = _reason(figures[0].encoder, encoder, held) if figures else ""
    return tuple(
        Compared(
            exhibit.name,
            figure.row,
            figure.column,
            figure,
            cells.get((figure.row, figure.column), NOTHING),
            why,
            _order(figure, figures, cells),
        )
        for figure in figures
    )


def _figures(exhibit: str, encoder: str) -> tuple[Published, ...]:
    """Return the published figures to compare with."""
    own = published_name(encoder)
    found = published(exhibit, own or NEAREST) or (() if own else published(exhibit))
    # of methods beside the sum, the mean over the tasks; the tasks are not ours
    if exhibit == "merging":
        return tuple(figure for figure in found if figure.column == "mean")
    return found


def _cells(exhibit: str, tables: tuple[Table, ...]) -> dict[tuple[str, str], Cell]:
    """Return our cells by the published keys of row and column."""
    if not tables:
        return {}
    if exhibit == "merging":  # published in the non-linear reading alone
        return {(row.name, "mean"): row.cells["nonlinear"] for row in tables[0].rows}
    return {
        (row.name, column): cell for row in tables[0].rows for column, cell in row.cells.items()
    }


def _reason(theirs: str, encoder: str, held: "Standing | None") -> str:
    """Say in which ways the protocol is another one."""
    parts = []
    if published_name(encoder) is None:
        parts.append(f"{encoder} in the place of {theirs}")
    if held is None:
        return "; ".join([*parts, "not measured for this encoder"])
    sources = {task.source for task in held.tasks.values()}
    if sources == {"miniature"}:
        parts.append(f"{len(held.tasks)} rendered tasks in the place of the paper's eight")
    elif {name.lower() for name in held.tasks} != _PAPERS_TASKS:
        parts.append(f"other tasks: {', '.join(held.tasks)}")
    return "; ".join([*parts, *_recipes(held)])


_PAPERS_TASKS = {"cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn"}


def _recipes(held: "Standing") -> list[str]:
    """Say how fine-tuning differed from the paper's."""
    said = []
    for mode in ("nonlinear", "linear"):
        first = next(iter(held.tasks))
        entry = held.entry(first, mode, held.seeds(mode)[0])
        recipe = {} if entry is None else entry.meta.get("recipe") or {}
        if recipe.keys() >= PAPER.keys() and any(recipe[key] != PAPER[key] for key in PAPER):
            said.append(
                f"{mode}: {recipe['steps']:,} steps of batch {recipe['batch']} at rate "
                f"{recipe['rate']:g}, not 2,000 of 128 at 1e-05"
            )
    return said


def _order(
    figure: Published, figures: tuple[Published, ...], cells: Mapping[tuple[str, str], Cell]
) -> str:
    """Say which place a row takes among those of its column that are measured here."""
    rows = [other for other in figures if other.column == figure.column]
    ours = {other.row: cells.get((other.row, other.column), NOTHING) for other in rows}
    measured = [other for other in rows if ours[other.row].state == KEPT]
    if ours[figure.row].state != KEPT or len(measured) < 2:
        return ""
    theirs = [other.row for other in sorted(measured, key=lambda o: -o.value)]
    here = [other.row for other in sorted(measured, key=lambda o: -ours[o.row].value)]
    places = theirs.index(figure.row) + 1, here.index(figure.row) + 1
    return f"{places[0]} there, {places[1]} here, of {len(measured)}"
