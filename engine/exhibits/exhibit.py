"""What an exhibit is, and what it holds once it is filled: cells, tables, figures, runs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.exhibits.comparing import Compared

KEPT, NOT_RUN, ABSENT = "kept", "not run", "absent"

Words = tuple[str, ...]  # a verb and what follows it on the command line


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its key.
        title: Its head.
        unit: "fraction" (shown as per cent), "number" or "text".
        better: "up", "down", or "" where neither is.
    """

    name: str
    title: str
    unit: str = "fraction"
    better: str = ""


@dataclass(frozen=True)
class Exhibit:
    """A table or figure by name: what it says and what it needs; it holds no numbers.

    Attributes:
        name: Its key.
        title: What a reader sees.
        where: Its place in the paper, as "Table 1"; "" for ours.
        paper: arXiv id; "" for ours.
        definition: What a number means, with the equation.
        inputs: What must be in the store.
        cost: In words.
        columns: The schema of its first table.
        stands_for: The reported encoder's name to that of the encoder measured; None where the
            exhibit does not apply.
        otherwise: What to say where it does not apply.
    """

    name: str
    title: str
    where: str
    paper: str
    definition: str
    inputs: str
    cost: str
    columns: tuple[Column, ...]
    stands_for: Callable[[str], str | None] = field(default=lambda encoder: encoder, repr=False)
    otherwise: str = ""

    def encoder_for(self, encoder: str) -> str | None:
        """Name the encoder it is measured on in the report of an encoder.

        Args:
            encoder: Of the report.

        Returns:
            A name for ``load_encoder``; None where the exhibit does not apply.
        """
        return self.stands_for(encoder)

    def record(self) -> dict:
        """Return its definition as plain values."""
        return {
            "name": self.name,
            "title": self.title,
            "where": self.where,
            "paper": self.paper,
            "definition": self.definition,
            "inputs": self.inputs,
            "cost": self.cost,
            "columns": [asdict(column) for column in self.columns],
        }


@dataclass(frozen=True)
class Cell:
    """One number, or how to get it.

    Attributes:
        state: "kept", "not run" or "absent" (there is no such number).
        value: Fractions in [0, 1]; over several seeds their mean; None when not kept.
        low: Lower end of the 95 % interval.
        high: Upper end.
        interval: Whose interval: "Wilson, images", "t, seeds", "DeLong, points"; "" without one.
        n: Images.
        seeds: Of the task vectors it rests on.
        words: What makes it; empty when kept or absent.
        before: Fine-tunes that must be done first.
        sources: Digests of the entries it was read from.
    """

    state: str
    value: float | str | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    n: int | None = None
    seeds: tuple[int, ...] = ()
    words: Words = ()
    before: tuple[Words, ...] = ()
    sources: tuple[str, ...] = ()


NOTHING = Cell(ABSENT)


@dataclass(frozen=True)
class Row:
    """One line of a table: cells by the names of its columns."""

    name: str
    title: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """A table: every row has a cell in every column."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def records(self) -> list[dict[str, Any]]:
        """Return flat lines, one a row, as the CSV has them.

        Returns:
            "row", and for each column its value, ``_low`` and ``_high``, None where it has none,
            and its ``_state`` where that is not "kept"; then n, seeds and sources of the row.
        """
        lines = []
        for row in self.rows:
            line: dict[str, Any] = {"row": row.title}
            for column in self.columns:
                cell = row.cells[column.name]
                line[column.name] = cell.value if cell.state == KEPT else cell.state
                if any(other.cells[column.name].interval for other in self.rows):
                    line |= {f"{column.name}_low": cell.low, f"{column.name}_high": cell.high}
            cells = list(row.cells.values())
            line["images"] = max((cell.n for cell in cells if cell.n), default=None)
            line["seeds"] = _joined(seed for cell in cells for seed in cell.seeds)
            line["sources"] = _joined(digest[:16] for cell in cells for digest in cell.sources)
            lines.append(line)
        return lines


def _joined(values) -> str:
    return " ".join(dict.fromkeys(str(value) for value in values))


@dataclass(frozen=True)
class Figure:
    """What is to be drawn, by whom ever: plain values, fractions, None where one is missing.

    ``kind`` says what ``data`` holds: "bars", "points", "lines", "maps" or "energy", as written in
    docs/design.md.
    """

    name: str
    title: str
    kind: str
    data: Mapping[str, Any]
    sources: tuple[str, ...] = ()

    @property
    def drawable(self) -> bool:
        """Whether there is anything to draw."""
        key = {"bars": "series", "lines": "series", "points": "points"}.get(self.kind, "panels")
        values = {"maps": "values", "energy": "task_energy"}.get(self.kind, "values")
        return any(
            part.get("x") is not None if key == "points" else _any(part[values])
            for part in self.data[key]
        )


def _any(values) -> bool:
    return values is not None and any(value is not None for value in values)


@dataclass(frozen=True)
class Run:
    """One call of a verb; several cells rest on its answer.

    Attributes:
        words: The call.
        before: Fine-tunes that must be done first.
        title: For a reader.
        seed: Of the task vectors.
        state: "kept" or "not run".
        passes: Images through the encoder, a Jacobian-vector product counting 2.4.
        sources: Digests of the entries that hold its answer.
    """

    words: Words
    title: str
    state: str
    passes: int = 0
    seed: int | None = None
    before: tuple[Words, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filled:
    """An exhibit with all that the store keeps of it for an encoder."""

    exhibit: Exhibit
    encoder: str
    used: str | None
    why_not: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    runs: tuple[Run, ...] = ()
    comparison: tuple["Compared", ...] = ()

    @property
    def missing(self) -> tuple[Run, ...]:
        """Runs whose answer is not kept."""
        return tuple(run for run in self.runs if run.state == NOT_RUN)

    @property
    def passes(self) -> int:
        """What is missing costs, in images through the encoder."""
        return sum(run.passes for run in self.missing)

    def record(self) -> dict:
        """Return everything as plain JSON values."""
        return {
            **self.exhibit.record(),
            "encoder": self.encoder,
            "used": self.used,
            "why_not": self.why_not,
            "tables": [asdict(table) for table in self.tables],
            "figures": [asdict(figure) for figure in self.figures],
            "runs": [asdict(run) for run in self.runs],
            "comparison": [item.record() for item in self.comparison],
        }
