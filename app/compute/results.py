"""The papers' tables and figures as the Results page shows them; what lacks becomes jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.compute import catalogue, jobs
from app.compute.background import Work, board
from app.compute.records import provenance

KEPT, NOT_RUN = "kept", "not run"
SLOW = ("disentanglement",)  # maps are worked out of class scores: read after all others
STAMPED = ("checkpoint", "result", "responses")  # kinds of entry that cells are read from


@dataclass(frozen=True)
class Side:
    """What is shown, or what it is compared with.

    Attributes:
        encoder: Its name.
        seed: Of the task vectors; None for the mean over all there are.
        tasks: What ``load_task`` takes; empty for the miniature's eight.
    """

    encoder: str
    seed: int | None = None
    tasks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What a reader sees."""
        return self.encoder if self.seed is None else f"{self.encoder}, seed {self.seed}"


@dataclass(frozen=True)
class Pending:
    """A job at work on a run, or waiting."""

    state: str
    fraction: float


def set_formulas(text: str) -> str:
    """Return plain text as escaped HTML with Greek letters and subscripts, as in the report."""
    from engine.exhibits.paper import set_formulas as typeset

    return typeset(text)


def names() -> dict[str, str]:
    """Return the titles of the exhibits by name, in their order."""
    from engine.exhibits import EXHIBITS

    return {name: exhibit.title for name, exhibit in EXHIBITS.items()}


def published_name(encoder: str) -> str | None:
    """Return what the papers call an encoder; None where they have none like it."""
    from engine.exhibits import published_name as name_of

    return name_of(encoder)


def seeds(encoder: str) -> list[int]:
    """Return the seeds that an encoder's task vectors were trained with."""
    found = {item.seed for item in catalogue.checkpoints() if item.encoder == encoder}
    return sorted(seed for seed in found if isinstance(seed, int))


def own_tasks(encoder: str) -> dict[str, str]:
    """Return the tasks beside the miniature's eight that an encoder has vectors of.

    Args:
        encoder: Its name.

    Returns:
        Their names by what ``load_task`` takes, in the order of the names.
    """
    items, known = catalogue.checkpoints(), catalogue.task_names()[0]
    both = [catalogue.newest(items, encoder, mode) for mode in catalogue.MODES]
    found = {item.reference: name for one in both for name, item in one.items()}
    own = {reference: name for reference, name in found.items() if name not in known}
    return dict(sorted(own.items(), key=lambda pair: pair[1]))


def has_the_eight(encoder: str) -> bool:
    """Return whether an encoder has a vector of any of the miniature's eight tasks."""
    known = catalogue.task_names()[0]
    return any(item.encoder == encoder and item.task in known for item in catalogue.checkpoints())


def fill(side: Side, visitor: str) -> Work:
    """Start, or find, reading all exhibits of a side from the store.

    Args:
        side: Whose.
        visitor: Who asks.

    Returns:
        Work whose result is {name: ``Filled``}, and its ``partial`` those read so far.
    """
    key = (side, stamp())
    return board().start(f"exhibits of {side.title}", visitor, key, lambda work: _fill(side, work))


def _fill(side: Side, work: Work) -> dict:
    from engine.exhibits import EXHIBITS, filled
    from engine.store import default_store

    store, found = default_store(), {}
    one = None if side.seed is None else [side.seed]
    for done, name in enumerate(sorted(EXHIBITS, key=lambda name: name in SLOW)):
        work.step(done, len(EXHIBITS), EXHIBITS[name].title)
        found[name] = filled(store, side.encoder, name, tasks=side.tasks or None, seeds=one)
        work.partial = dict(found)
    return found


def stamp() -> tuple:
    """Return what changes when the store holds something new: files of each kind, and their age."""
    from engine.store import default_store

    store = default_store()
    folders = [home / kind for home in (store.home, store.embedded) if home for kind in STAMPED]
    return tuple(_folder(folder) for folder in folders)


def _folder(folder: Path) -> tuple[str, int]:
    """Return a folder and when an entry of it last came or went."""
    return str(folder), folder.stat().st_mtime_ns if folder.exists() else 0


# ---------------------------------------------------------------------------------------- jobs


def pending() -> dict[tuple[str, ...], Pending]:
    """Return the jobs that are not over, by the words they run."""
    return {
        (job.verb, *job.arguments): Pending(job.state, jobs.fraction(job))
        for job in jobs.listed()
        if not job.finished
    }


def launch(runs: Sequence) -> list[str]:
    """Queue runs, each after the fine-tunes it needs; what is queued already is not again.

    Args:
        runs: ``Run``s, or cells: whatever has ``words`` and ``before``.

    Returns:
        Ids of the jobs that make the answers.
    """
    queue = jobs.queue()
    ids = {(job.verb, *job.arguments): job.id for job in queue.list() if not job.finished}

    def ask(words: tuple[str, ...], after: Sequence[str] = ()) -> str:
        if words not in ids:
            ids[words] = queue.submit(list(words), after=tuple(after)).id
        return ids[words]

    return [ask(tuple(run.words), [ask(tuple(words)) for words in run.before]) for run in runs]


def command(words: Sequence[str]) -> str:
    """Write words as they are typed."""
    import shlex

    return f"python -m engine {shlex.join(words)}"


# ------------------------------------------------------------------------------------- take away


def published_rows(filled) -> list[dict[str, Any]]:
    """Return what was published beside ours, a line each; fractions but for what is printed.

    Args:
        filled: An exhibit.
    """
    return [
        {
            "row": _title(filled, item),
            "column": _column(filled, item.column),
            "published, %": item.published.printed,
            "here, %": None if item.cell.state != KEPT else f"{100 * item.cell.value:.1f}",
            "order": item.order,
            "of": item.published.encoder,
            "where": item.published.where,
            "source": f"arXiv:{item.published.paper}" if item.published.paper else "gathered",
            "checkpoints": item.published.family,
        }
        for item in filled.comparison
    ]


def _title(filled, item) -> str:
    rows = [row for table in filled.tables for row in table.rows if row.name == item.row]
    return rows[0].title if rows else item.published.title or item.row


def _column(filled, name: str) -> str:
    return next((c.title for c in filled.exhibit.columns if c.name == name), name)


def record(filled, side: Side) -> dict[str, Any]:
    """Return what made an exhibit's numbers.

    Args:
        filled: The exhibit.
        side: Whose.
    """
    sources = sorted({digest for run in filled.runs for digest in run.sources})
    return provenance(
        filled.exhibit.definition,
        exact=True,
        exhibit=filled.exhibit.name,
        encoder=filled.used or side.encoder,
        seed="all" if side.seed is None else side.seed,
        **({"tasks": list(side.tasks)} if side.tasks else {}),
        sources=sources,
        runs=[command(run.words) for run in filled.runs if run.state == KEPT],
    )


def figure_rows(figure) -> list[dict[str, Any]]:
    """Return what a figure shows as flat lines.

    Args:
        figure: Of an exhibit.
    """
    data = figure.data
    if figure.kind == "points":
        return [dict(point) for point in data["points"]]
    if figure.kind in ("bars", "lines"):
        along = data["groups"] if figure.kind == "bars" else data["x"]
        return [
            {"at": place}
            | {
                f"{one['title']}{suffix}": one[key][k]
                for one in data["series"]
                for key, suffix in (("values", ""), ("low", " low"), ("high", " high"))
                if one.get(key)
            }
            for k, place in enumerate(along)
        ]
    if figure.kind == "maps":
        return [
            {"pair": panel["title"], "reading": panel["mode"], "alpha 1": a, "alpha 2": b}
            | {"xi": panel["values"][i][j]}
            for panel in data["panels"]
            if panel["values"] is not None
            for i, a in enumerate(panel["alphas"])
            for j, b in enumerate(panel["alphas"])
        ]
    return [
        {"task": panel["title"], "block": block, "logit": logit, "point": k, "energy": value}
        for panel in data["panels"]
        if panel["task_energy"] is not None
        for block in ("task", "control")
        for logit, line in zip(panel["logits"], panel[f"{block}_energy"], strict=True)
        for k, value in enumerate(line)
    ]


def report_zip(side: Side, fillings: Mapping[str, Any]) -> bytes:
    """Return the report folder, as ``python -m engine reproduce`` writes it, in one file.

    Args:
        side: Whose.
        fillings: By name.
    """
    import io
    import tempfile
    import zipfile

    from engine.exhibits import provenance_of, write_report
    from engine.store import default_store

    chosen = list(fillings.values())
    about = provenance("the report of an encoder", exact=True, encoder=side.encoder)
    about["seed"] = "all" if side.seed is None else side.seed
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        entries = provenance_of(default_store(), chosen)
        write_report(Path(folder), side.encoder, chosen, about, entries)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder).as_posix())
    return out.getvalue()


def everything(side: Side, fillings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all exhibits with the provenance of every number, plain JSON values.

    Args:
        side: Whose.
        fillings: By name.
    """
    from engine.exhibits import provenance_of
    from engine.store import default_store

    chosen = list(fillings.values())
    return {
        "encoder": side.encoder,
        "seed": "all" if side.seed is None else side.seed,
        "exhibits": [filled.record() for filled in chosen],
        "entries": provenance_of(default_store(), chosen),
        "about": provenance("the papers' tables and figures", exact=True),
    }
