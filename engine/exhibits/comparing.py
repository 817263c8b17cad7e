"""Published / here / why they differ."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from engine.exhibits.exhibit import KEPT, NOTHING, Cell, Exhibit, Table
from engine.exhibits.published import Published, protocol, published, published_name

if TYPE_CHECKING:
    from engine.exhibits.standing import Standing

NEAREST = "ViT-B/32"  # what encoders stand beside that the papers do not have: its smallest
# published of the merging methods is the non-linear reading alone, its mean over the tasks
OURS = {("merging", "mean"): "nonlinear"}


@dataclass(frozen=True)
class Compared:
    """A published figure beside ours.

    Attributes:
        exhibit: Its name.
        row: Key of the row.
        column: Key of our column.
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
    cells = {
        (row.name, column): cell
        for table in tables[:1]
        for row in table.rows
        for column, cell in row.cells.items()
    }
    why = {f.source: _reason(f, encoder, held) for f in figures}
    return tuple(
        Compared(
            exhibit.name,
            *_place(figure),
            figure,
            cells.get(_place(figure), NOTHING),
            why[figure.source],
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


def _place(figure: Published) -> tuple[str, str]:
    """Return our row and column of a published figure."""
    return figure.row, OURS.get((figure.exhibit, figure.column), figure.column)


def _reason(figure: Published, encoder: str, held: "Standing | None") -> str:
    """Say in which ways the protocol is another one than that of a figure's source."""
    parts, theirs = [], protocol(figure.source)
    if published_name(encoder) is None:
        parts.append(f"{encoder} in the place of {figure.encoder}")
    if figure.family:
        parts.append(f"their checkpoints, published as {figure.family}")
    if "alphas" in theirs:
        parts.append(f"alphas: {theirs['alphas']}")
    if held is None:
        return "; ".join([*parts, "not measured for this encoder"])
    sources = {task.source for task in held.tasks.values()}
    if sources == {"miniature"}:
        parts.append(f"{len(held.tasks)} rendered tasks in the place of the paper's eight")
    elif {name.lower() for name in held.tasks} != _PAPERS_TASKS:
        parts.append(f"other tasks: {', '.join(held.tasks)}")
    return "; ".join([*parts, *_recipes(held, theirs.get("recipe") or {})])


_PAPERS_TASKS = {"cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn"}


def _recipes(held: "Standing", theirs: Mapping[str, float]) -> list[str]:
    """Say how fine-tuning differed from the source's, where that gives its recipe."""
    said = []
    for mode in ("nonlinear", "linear"):
        first = next(iter(held.tasks))
        entry = held.entry(first, mode, held.seeds(mode)[0])
        recipe = {} if entry is None else entry.meta.get("recipe") or {}
        if recipe.keys() >= theirs.keys() and any(recipe[key] != theirs[key] for key in theirs):
            said.append(
                f"{mode}: {recipe['steps']:,} steps of batch {recipe['batch']} at rate "
                f"{recipe['rate']:g}, not {theirs['steps']:,} of {theirs['batch']} at "
                f"{theirs['rate']:g}"
            )
    return said


def _order(
    figure: Published, figures: tuple[Published, ...], cells: Mapping[tuple[str, str], Cell]
) -> str:
    """Say which place a row takes among those of its column that are measured here."""
    rows = [other for other in figures if other.column == figure.column]
    ours = {other.row: cells.get(_place(other), NOTHING) for other in rows}
    measured = [other for other in rows if ours[other.row].state == KEPT]
    if ours[figure.row].state != KEPT or len(measured) < 2:
        return ""
    theirs = [other.row for other in sorted(measured, key=lambda o: -o.value)]
    here = [other.row for other in sorted(measured, key=lambda o: -ours[o.row].value)]
    places = theirs.index(figure.row) + 1, here.index(figure.row) + 1
    return f"{places[0]} there, {places[1]} here, of {len(measured)}"
