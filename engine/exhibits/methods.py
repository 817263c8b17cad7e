"""The exhibit of merging methods: ``addition`` along other directions than the sum."""

from engine.exhibits.cells import Parts, bars, cell, mean_of, plain, runs_of
from engine.exhibits.definitions import READINGS
from engine.exhibits.exhibit import Column, Exhibit, Row, Table
from engine.exhibits.standing import Standing
from engine.merging import CONVENTIONS, METHODS

TABLES = {
    "merging": ("Merged accuracy", mean_of("merged"), "fraction", "up"),
    "merging-normalized": ("Normalized accuracy", plain("normalized"), "fraction", "up"),
    "merging-alpha": ("alpha chosen on validation", plain("alpha"), "number", ""),
}


def merging(held: Standing, exhibit: Exhibit) -> Parts:
    """Fill the tables of merging methods: each method in the three readings."""
    answers = {}
    for method in METHODS:
        asked = (None, method) if method in CONVENTIONS else (method, "sum")
        for mode in READINGS:
            answers[method, mode] = [held.addition(mode, s, *asked) for s in held.seeds(mode)]
    tables = []
    for name, (title, read, unit, better) in TABLES.items():
        columns = tuple(Column(mode, head, unit, better) for mode, head in READINGS.items())
        rows = tuple(
            Row(method, about.title, {m: cell(answers[method, m], read) for m in READINGS})
            for method, about in METHODS.items()
        )
        tables.append(Table(name, title, columns, rows))
    figure = bars("merging", "Merged accuracy by method", tables[0])
    return tuple(tables), (figure,), runs_of(answers)
