"""The report as one HTML file: nothing from outside, light and dark, wide and narrow."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.exhibits.comparing import Compared
from engine.exhibits.definitions import READINGS
from engine.exhibits.exhibit import ABSENT, KEPT, Cell, Column, Filled, Row, Table

STYLE = Path(__file__).with_name("paper.css")
ARROWS = {"up": " \u2191", "down": " \u2193", "": ""}
DASH, BETWEEN = "\u2013", "\u202f\u2013\u202f"


GREEK = {
    "theta": "\u03b8",
    "tau": "\u03c4",
    "alpha": "\u03b1",
    "xi": "\u03be",
    "phi": "\u03c6",
    "rho": "\u03c1",
    "sum": "\u03a3",
}
GREEK_WORD = re.compile(r"\b(theta|tau|alpha|xi)\b(?!_)")
LEAD = (
    "Accuracies are test accuracies in per cent, with 95\u202f% intervals. One seed: the interval "
    "is over the draw of the images and says nothing about another training; several seeds: mean "
    "and Student\u2019s interval over seeds. Every number rests on the entries of the store listed "
    "under its exhibit and in <code>report.json</code>; <code>tables/</code> and "
    "<code>figures/</code> hold the same as CSV and SVG."
)
PLACE = (
    "Published figures as printed, in per cent. Encoders and tasks are not the same unless it says "
    "so: what can be compared is the order of the rows. \u201cPlace\u201d is that of the row "
    "within its column, largest first, among the rows measured here."
)
CAPTIONS = {
    "maps": ". Upwards the alpha of the first task, to the right that of the second.",
    "energy": ". One line a logit.",
    "lines": ". The marks are what was chosen, by normalized accuracy.",
}


def page(
    encoder: str,
    fillings: Sequence[Filled],
    drawings: Mapping[str, str],
    about: Mapping[str, Any],
) -> str:
    """Write the page.

    Args:
        encoder: Whose report.
        fillings: In the order to be shown.
        drawings: SVG elements by the names of figures.
        about: Plain values told at the top.

    Returns:
        A whole HTML document.
    """
    shown = [item for item in fillings if item.used is not None]
    left_out = [item for item in fillings if item.used is None]
    parts = [_head(encoder, about), _contents(shown)]
    parts += [_exhibit(item, drawings) for item in shown]
    parts += [_comparison(fillings), _absent(left_out)]
    title = f"Tauscope: tables and figures of {escape(encoder)}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(filter(None, parts))}\n</main>\n</body>\n</html>\n"
    )


def _head(encoder: str, about: Mapping[str, Any]) -> str:
    """Say whose numbers these are and how to make them again."""
    facts = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{_plain(value)}</dd>" for key, value in about.items()
    )
    return (
        f"<h1>The papers\u2019 tables and figures on {escape(encoder)}</h1>\n"
        f'<p class="lead">{LEAD}</p>\n'
        f"<dl>{facts}</dl>"
    )


def _plain(value: Any) -> str:
    """Set a fact: commands as code, lists with commas."""
    if isinstance(value, Mapping):
        return escape(", ".join(f"{key} {item}" for key, item in value.items()))
    if isinstance(value, list | tuple):
        return escape(", ".join(map(str, value)))
    text = escape(str(value))
    return f"<code>{text}</code>" if text.startswith("python ") else text


def _contents(shown: Sequence[Filled]) -> str:
    """List the exhibits."""
    items = "".join(
        f'<li><a href="#{item.exhibit.name}">{escape(item.exhibit.title)}</a> '
        f'<span class="note">{escape(item.exhibit.where)}</span></li>'
        for item in shown
    )
    last = '<li><a href="#published">Published, here, why they differ</a></li>'
    return f"<nav><ul>{items}{last}</ul></nav>"


def _exhibit(item: Filled, drawings: Mapping[str, str]) -> str:
    """Set one exhibit: definition, tables, figures, what it rests on."""
    about = item.exhibit
    source = f"{about.where}, arXiv:{about.paper}" if about.paper else "Not in the paper"
    on = f" \u00b7 measured on {item.used}" if item.used != item.encoder else ""
    parts = [
        f'<section id="{about.name}">',
        f"<h2>{escape(about.title)}</h2>",
        f'<p class="where">{escape(source)}{escape(on)}</p>',
        f"<p>{set_formulas(about.definition)}</p>",
    ]
    for table in item.tables:
        heading = f"<h3>{set_formulas(table.title)}</h3>" if len(item.tables) > 1 else ""
        parts += [heading, _table(table)]
    for figure in item.figures:
        caption = escape(figure.title + CAPTIONS.get(figure.kind, ""))
        parts.append(f"<figure>{drawings[figure.name]}<figcaption>{caption}</figcaption></figure>")
    parts += [_runs(item), "</section>"]
    return "\n".join(filter(None, parts))


def _table(table: Table) -> str:
    """Set a table, the best of each column in bold where one is better than another."""
    heads = "".join(f"<th>{_head_of(c)}</th>" for c in table.columns)  # the first head is empty
    best = {column.name: _best(table, column) for column in table.columns}
    rows = "".join(
        f"<tr{' class=mean' if row.name == 'mean' and _is_last(table, row) else ''}>"
        f"<td>{escape(row.title)}</td>"
        + "".join(_cell(row.cells[c.name], c, row.name in best[c.name]) for c in table.columns)
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _head_of(column: Column) -> str:
    """Set a head; the longest word may be divided on a narrow screen."""
    title = set_formulas(column.title).replace("linearization", "lineari\u00adzation")
    return f"{title}{ARROWS[column.better]}"


def _is_last(table: Table, row: Row) -> bool:
    """Return whether a row closes its table, as a mean over the others does."""
    return row is table.rows[-1]


def _best(table: Table, column: Column) -> set[str]:
    """Name the best rows of a column; none where rows are tasks and not rivals."""
    rivals = {row.name for row in table.rows} & {"nonlinear", "linear", "tsv"}
    if not column.better or not rivals:
        return set()
    known = {
        row.name: row.cells[column.name].value
        for row in table.rows
        if row.cells[column.name].state == KEPT and row.name != "pretrained"
    }
    if len(known) < 2:
        return set()
    top = (max if column.better == "up" else min)(known.values())
    return {name for name, value in known.items() if value == top}


def _cell(cell: Cell, column: Column, best: bool) -> str:
    """Set a cell: a number and its interval, or why there is none."""
    if cell.state == ABSENT:
        return f'<td class="none">{DASH}</td>'
    if cell.state != KEPT:
        words = escape(f"python -m engine {' '.join(cell.words)}")
        return f'<td class="wait" title="{words}">not run</td>'
    value = _number(cell.value, column.unit)
    between = ""
    if cell.low is not None and cell.high is not None:
        low, high = _number(cell.low, column.unit), _number(cell.high, column.unit)
        between = f'<span class="between">{low}{BETWEEN}{high}</span>'
    return f"<td{' class=best' if best else ''}>{value}{between}</td>"


def _number(value: float | str | None, unit: str) -> str:
    """Set a number as its unit asks."""
    if isinstance(value, str) or value is None:
        return escape(str(value or DASH))
    return f"{100 * value:.1f}" if unit == "fraction" else f"{value:.2f}"


def _runs(item: Filled) -> str:
    """List the commands an exhibit rests on, with the entries that hold their answers."""
    lines = []
    for run in item.runs:
        kept = ", ".join(digest[:16] for digest in run.sources) or "not run"
        lines.append(f"python -m engine {' '.join(run.words)}\n    {kept}")
    missing = f", {len(item.missing)} not run" if item.missing else ""
    return (
        f"<details><summary>How these numbers are made: {len(item.runs)} commands{missing}; under "
        f"each the entries of the store</summary><pre>{escape(chr(10).join(lines))}</pre></details>"
    )


def _comparison(fillings: Sequence[Filled]) -> str:
    """Set what was published beside what is here."""
    every = [entry for item in fillings for entry in item.comparison]
    if not every:
        return ""
    parts = [
        '<section id="published">',
        "<h2>Published, here, why they differ</h2>",
        f"<p>{PLACE}</p>",
    ]
    for _, group in groupby(every, key=lambda entry: (entry.exhibit, entry.published.encoder)):
        parts += _one_comparison(list(group), fillings)
    return "\n".join([*parts, "</section>"])


def _one_comparison(entries: list[Compared], fillings: Sequence[Filled]) -> list[str]:
    """Set one published table beside ours, column by column."""
    first = entries[0].published
    filling = next(item for item in fillings if item.exhibit.name == entries[0].exhibit)
    source = f"{first.where}, arXiv:{first.paper}" if first.paper else first.where
    family = f", checkpoints {first.family}" if first.family else ""
    ours = {row.name: row.title for table in filling.tables[:1] for row in table.rows}
    titles = {"pretrained": "Pre-trained", **READINGS, **ours}
    columns = {column.name: column.title for column in filling.exhibit.columns}
    rows = "".join(
        f"<tr><td>{escape(e.published.title or titles.get(e.row, e.row))}</td>"
        f"<td>{escape(columns.get(e.column, e.column))}</td><td>{escape(e.published.printed)}</td>"
        f"{_cell(e.cell, Column(e.column, ''), False)}"
        f"<td class=place>{escape(e.order) or DASH}</td></tr>"
        for e in sorted(entries, key=lambda e: [x.column for x in entries].index(e.column))
    )
    note = f" Note: {first.note}." if first.note else ""
    why = entries[0].why or "the protocol is the same"
    return [
        f"<h3>{escape(filling.exhibit.title)}: {escape(first.encoder)}</h3>",
        f'<p class="note">{escape(source)}{escape(family)}.{escape(note)} '
        f"<strong>Why they differ:</strong> {escape(why)}.</p>",
        '<div class="wide"><table><thead><tr><th></th><th></th><th>published</th><th>here</th>'
        f"<th>place</th></tr></thead><tbody>{rows}</tbody></table></div>",
    ]


def _absent(left_out: Sequence[Filled]) -> str:
    """Say which exhibits do not apply."""
    if not left_out:
        return ""
    items = "".join(
        f"<li>{escape(item.exhibit.title)} ({escape(item.exhibit.where)}): "
        f"{escape(item.why_not)}</li>"
        for item in left_out
    )
    return (
        f'<section id="absent"><h2>Not in this report</h2><ul class="note">{items}</ul></section>'
    )


def set_formulas(text: str) -> str:
    """Return plain text as HTML, its formulas with Greek letters and subscripts.

    Args:
        text: As in definitions: "theta_0 + alpha sum_t tau_t", "[0, 1]^2".

    Returns:
        Escaped HTML.
    """
    text = escape(text).replace("&lt;=", "\u2264").replace(" x 20", " \u00d7 20")
    text = re.sub(r"\^(\d)", r"<sup>\1</sup>", text)

    def letter(match: re.Match) -> str:
        word, below = match[1], match[2]
        name = GREEK.get(word, word)
        inside = ",".join(GREEK.get(part, part) for part in (below or "").split(","))
        return f"{name}<sub>{inside}</sub>" if below else name

    return re.sub(
        r"\b([A-Za-z]+)_([A-Za-z0-9]+(?:,[a-z])?)\b",
        letter,
        GREEK_WORD.sub(lambda match: GREEK[match[0]], text),
    )
