"""The exhibit of merging methods: ``addition`` along other directions than the sum."""

from engine.exhibits.cells import Answers, Parts, Read, bars, cell, mean_of, plain, runs_of
from engine.exhibits.definitions import READINGS
from engine.exhibits.exhibit import NOTHING, Cell, Column, Exhibit, Row, Table
from engine.exhibits.standing import EACH, Standing
from engine.merging import CONVENTIONS, METHODS

TABLES = {
    "merging": ("Merged accuracy", mean_of("merged"), "fraction", "up"),
    "merging-normalized": ("Normalized accuracy", plain("normalized"), "fraction", "up"),
    "merging-alpha": ("alpha chosen on validation", plain("alpha"), "number", ""),
}


def merging(held: Standing, exhibit: Exhibit) -> Parts:
    """Fill the tables of merging methods: each method in the three readings."""
    titles = {"sum": METHODS["sum"].title, EACH: "Sum, an alpha for each task"}
    titles |= {name: method.title for name, method in METHODS.items() if name not in titles}
    answers: dict[tuple[str, str], Answers] = {}
    for method in titles:
        asked = (None, method) if method in CONVENTIONS else (method, "sum")
        for mode in READINGS:
            if (method, mode) != (EACH, "nonlinear"):  # has no function space to search in
                answers[method, mode] = [held.addition(mode, s, *asked) for s in held.seeds(mode)]
    tables = []
    for name, (title, read, unit, better) in TABLES.items():
        columns = tuple(Column(mode, head, unit, better) for mode, head in READINGS.items())
        rows = tuple(
            Row(method, head, {mode: _cell(answers, method, mode, read) for mode in READINGS})
            for method, head in titles.items()
        )
        tables.append(Table(name, title, columns, rows))
    figure = bars("merging", "Merged accuracy by method", tables[0])
    return tuple(tables), (figure,), runs_of(answers)


def _cell(answers: dict[tuple[str, str], Answers], method: str, mode: str, read: Read) -> Cell:
    """Return the cell of a method in a reading."""
    found = answers.get((method, mode))
    return NOTHING if found is None else cell(found, read)
