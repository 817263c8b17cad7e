"""The exhibit that is read from the answers of ``negation``."""

from statistics import fmean

from engine.evaluate import wilson_interval
from engine.exhibits.cells import (
    IMAGES,
    PRETRAINED,
    WILSON,
    Parts,
    Read,
    any_of,
    bars,
    by_task,
    cell,
    runs_of,
)
from engine.exhibits.definitions import READINGS
from engine.exhibits.exhibit import NOTHING, Cell, Column, Exhibit, Row, Table
from engine.exhibits.intervals import over_images
from engine.exhibits.standing import Standing


def negation(held: Standing, exhibit: Exhibit) -> Parts:
    """Fill Table 2: forget a task, keep the control."""
    answers = {mode: [held.negation(mode, seed) for seed in held.seeds(mode)] for mode in READINGS}
    before = any_of(answers)
    rows = [
        Row(PRETRAINED, "Pre-trained", {
            "target": cell(before, _forgotten("target_pretrained")),
            "control": cell(before, _control_before),
            "alpha": NOTHING,
        })
    ]  # fmt: skip
    for mode, title in READINGS.items():
        rows.append(Row(mode, title, {
            "target": cell(answers[mode], _forgotten("target")),
            "control": cell(answers[mode], _forgotten("control")),
            "alpha": cell(answers[mode], _mean_alpha),
        }))  # fmt: skip
    table = Table(exhibit.name, exhibit.title, exhibit.columns, tuple(rows))
    columns = (Column(PRETRAINED, "Pre-trained", better="down"), *(
        Column(mode, title, better="down") for mode, title in READINGS.items()))  # fmt: skip

    def cells(task: str | None) -> dict[str, Cell]:
        def read(key: str) -> tuple[Read, str]:
            return (_forgotten(key), IMAGES) if task is None else (_task_row(key, task), WILSON)

        after = {mode: cell(answers[mode], *read("target")) for mode in READINGS}
        return {PRETRAINED: cell(before, *read("target_pretrained")), **after}

    title = "Target accuracy left, task by task"
    tasks = by_task(held, "negation-tasks", title, columns, cells)
    figure = bars("negation", "What negation leaves of each task (test)", tasks)
    return (table, tasks), (figure,), runs_of(answers)


def _forgotten(key: str) -> Read:
    """Read a mean over the tasks of their rows."""

    def read(answer: dict):
        names = list(answer["tasks"])
        whose = names if key != "control" else [answer["control_task"]] * len(names)
        values = [answer["tasks"][name][key] for name in names]
        counts = [answer["n"][name] for name in whose]
        # eight control accuracies on the same images are no surer than one of them
        ends = over_images(values, counts) if key != "control" else None
        return fmean(values), ends, sum(counts) if key != "control" else counts[0]

    return read


def _task_row(key: str, task: str) -> Read:
    """Read one task's row."""

    def read(answer: dict):
        value, n = answer["tasks"][task][key], answer["n"][task]
        return value, wilson_interval(round(value * n), n), n

    return read


def _control_before(answer: dict):
    """Read the control accuracy before."""
    value, n = answer["control_pretrained"], answer["n"][answer["control_task"]]
    return value, over_images([value], [n]), n


def _mean_alpha(answer: dict):
    """Read the mean of the alphas chosen."""
    values = [row["alpha"] for row in answer["tasks"].values()]
    return fmean(values), None, sum(answer["n"].values())
