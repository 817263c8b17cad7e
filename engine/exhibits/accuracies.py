"""Exhibits that are read from the answers of ``addition``."""

from collections.abc import Mapping, Sequence

from engine.exhibits.cells import (
    IMAGES,
    PRETRAINED,
    WILSON,
    Answers,
    Parts,
    Read,
    any_of,
    bars,
    by_task,
    cell,
    mean_of,
    plain,
    runs_of,
    task_of,
)
from engine.exhibits.definitions import READINGS
from engine.exhibits.exhibit import NOTHING, Cell, Column, Exhibit, Figure, Row, Table
from engine.exhibits.standing import Standing


def _additions(held: Standing, modes: Sequence[str] = tuple(READINGS)) -> dict[str, Answers]:
    """Look up task addition in each reading, one answer a seed."""
    return {mode: [held.addition(mode, seed) for seed in held.seeds(mode)] for mode in modes}


def _accuracies(held: Standing, exhibit: Exhibit, kind: str) -> tuple[Table, dict[str, Answers]]:
    """Make a table of tasks and readings of one kind of accuracy."""
    answers = _additions(held)

    def cells(task: str | None) -> dict[str, Cell]:
        def read(what: str) -> tuple[Read, str]:
            return (task_of(what, task), WILSON) if task else (mean_of(what), IMAGES)

        first = cell(any_of(answers), *read("zeroshot_tasks"))
        return {PRETRAINED: first, **{mode: cell(answers[mode], *read(kind)) for mode in READINGS}}

    return by_task(held, exhibit.name, exhibit.title, exhibit.columns, cells), answers


def single(held: Standing, exhibit: Exhibit) -> Parts:
    """Fill Figures 2, 5 and 8: each task with its own task vector."""
    table, answers = _accuracies(held, exhibit, "single")
    figures = [bars("single", "Single-task accuracies (Figure 8)", table)]
    for mode, where in (("posthoc", "Figure 2"), ("linear", "Figure 5")):
        points = [
            {
                "label": row.title,
                "x": row.cells["nonlinear"].value,
                "y": row.cells[mode].value,
            }
            for row in table.rows[:-1]
        ]
        figures.append(
            Figure(
                f"single-{mode}",
                f"Non-linear advantage: {_inner(READINGS[mode])} ({where})",
                "points",
                {
                    "points": points,
                    "x_axis": "non-linear FT, test accuracy",
                    "y_axis": f"{_inner(READINGS[mode])}, test accuracy",
                    "diagonal": True,
                },
                figures[0].sources,
            )
        )
    return (table,), tuple(figures), runs_of(answers)


def _inner(title: str) -> str:
    """Return a title as it stands within a sentence."""
    return f"{title[0].lower()}{title[1:]}"


def addition_tasks(held: Standing, exhibit: Exhibit) -> Parts:
    """Fill Figure 9: each task after adding all task vectors."""
    table, answers = _accuracies(held, exhibit, "merged")
    figure = bars("addition-tasks", "Task addition, task by task (Figure 9)", table)
    return (table,), (figure,), runs_of(answers)


def addition(held: Standing, exhibit: Exhibit) -> Parts:
    """Fill Table 1 (and 4, 5): one alpha for all task vectors."""
    answers = _additions(held)
    before = cell(any_of(answers), mean_of("zeroshot_tasks"))
    rows = [Row(PRETRAINED, "Pre-trained", {
        "absolute": before, "normalized": NOTHING, "alpha": NOTHING})]  # fmt: skip
    for mode, title in READINGS.items():
        cells = {
            "absolute": cell(answers[mode], mean_of("merged")),
            "normalized": cell(answers[mode], plain("normalized")),
            "alpha": cell(answers[mode], plain("alpha")),
        }
        rows.append(Row(mode, title, cells))
    table = Table(exhibit.name, exhibit.title, exhibit.columns, tuple(rows))
    return (table,), _curves(exhibit.name, answers), runs_of(answers)


def _curves(name: str, answers: Mapping[str, Answers]) -> tuple[Figure, ...]:
    """Draw the validation accuracy that alpha was chosen by, of the first seed kept."""
    series, chosen, sources, x = [], {}, [], []
    for mode, found in answers.items():
        run, answer = next(((r, a) for r, a in found if a is not None), (None, None))
        if answer is None:
            continue
        x = [entry["alpha"] for entry in answer["validation"]]
        values = [entry["absolute"] for entry in answer["validation"]]
        series.append({"name": mode, "title": READINGS[mode], "values": values})
        chosen[mode] = answer["alpha"]
        sources += run.sources
    if not series:
        return ()
    data = {
        "x": x, "series": series, "x_axis": "alpha, the same for every task vector",
        "axis": "mean validation accuracy", "chosen": chosen,
    }  # fmt: skip
    title = "What alpha was chosen by: the sum on validation"
    return (Figure(f"{name}-curve", title, "lines", data, tuple(sources)),)


def random(held: Standing, exhibit: Exhibit) -> Parts:
    """Fill Table 3 and Figure 17: the same from random weights."""
    modes = ("nonlinear", "linear")
    answers = _additions(held, modes)
    before = cell(any_of(answers), mean_of("zeroshot_tasks"))
    rows = [Row(PRETRAINED, "Random init", {
        "single": before, "multi": NOTHING, "alpha": NOTHING})]  # fmt: skip
    for mode in modes:
        cells = {
            "single": cell(answers[mode], mean_of("single")),
            "multi": cell(answers[mode], mean_of("merged")),
            "alpha": cell(answers[mode], plain("alpha")),
        }
        rows.append(Row(mode, READINGS[mode], cells))
    table = Table(exhibit.name, exhibit.title, exhibit.columns, tuple(rows))
    columns = [Column(PRETRAINED, "Random init"), *(Column(m, READINGS[m]) for m in modes)]

    def cells_of(task: str | None) -> dict[str, Cell]:
        def read(what: str) -> tuple[Read, str]:
            return (task_of(what, task), WILSON) if task else (mean_of(what), IMAGES)

        first = cell(any_of(answers), *read("zeroshot_tasks"))
        return {PRETRAINED: first, **{m: cell(answers[m], *read("single")) for m in modes}}

    title = "Single-task accuracies from random initialisation"
    tasks = by_task(held, "random-tasks", title, columns, cells_of)
    figure = bars("random-tasks", f"{title} (Figure 17)", tasks)
    return (table, tasks), (figure,), runs_of(answers)
