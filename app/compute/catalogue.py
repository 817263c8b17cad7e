"""What there is: tasks, encoders, checkpoints, as plain values for tables."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st

MODES = ("nonlinear", "linear")
STRIP = 8  # pictures a task on its card
_PIXELS = 2  # each picture's pixel is drawn as so many, so that a screen does not blur it


@dataclass(frozen=True)
class TaskCard:
    """A task of the miniature as the Overview shows it."""

    name: str
    title: str
    description: str
    shift: str
    classnames: tuple[str, ...]
    picture: str  # data URL of a PNG, one strip of pictures
    shown: tuple[str, ...]  # class names of the strip's pictures
    control: bool


@dataclass(frozen=True)
class Checkpoint:
    """A task vector in the store; fractions are None where they were not measured."""

    digest: str
    encoder: str
    encoder_digest: str
    task: str
    source: str
    mode: str
    seed: int | None
    steps: int | None
    test: float | None
    n_test: int | None
    validation: float | None
    n_validation: int | None
    size: int
    created: str
    embedded: bool
    entry: Any = field(repr=False)  # of the store

    @property
    def meta(self) -> Mapping[str, Any]:
        """What made it."""
        return self.entry.meta

    @property
    def reference(self) -> str:
        """What ``load_task`` is asked for: the path of a user's task, else the name."""
        return self.task if self.source == "miniature" else self.source


@dataclass(frozen=True)
class EncoderRow:
    """An encoder in the store."""

    name: str
    digest: str  # of its file
    size: int
    created: str
    embedded: bool
    meta: Mapping[str, Any]


def task_names() -> tuple[tuple[str, ...], str]:
    """Name the miniature's tasks, and its control task."""
    from engine.tasks import CONTROL, TASKS

    return TASKS, CONTROL


def own_tasks() -> dict[str, str]:
    """Return the tasks that were brought: what ``load_task`` takes, and what a reader sees."""
    return {reference: title for reference, _, title in _brought()}


def _brought() -> list[tuple[str, str, str]]:
    """Return reference, name and title of the tasks that were brought."""
    from engine.store import default_store
    from engine.tasks.own import remembered

    found = remembered(default_store()).items()
    meta = [(reference, entry.meta, str(entry.meta.get("task", ""))) for reference, entry in found]
    return [(reference, name, str(said.get("title") or name)) for reference, said, name in meta]


def titles(names: Sequence[str]) -> list[str]:
    """Return what a reader sees of tasks: the miniature's titles, those of tasks brought, names."""
    from engine.tasks.miniature import family, family_names

    known = set(family_names())
    own = {key: title for *keys, title in _brought() for key in keys}
    return [family(name).title if name in known else own.get(name, name) for name in names]


@st.cache_data(max_entries=16, show_spinner=False)
def task_card(name: str) -> TaskCard:
    """Render a task's card: its first test pictures, each of another class where there are enough.

    Args:
        name: One of the miniature's families.

    Returns:
        Title, words and pictures.
    """
    from engine.tasks import CONTROL
    from engine.tasks.miniature import family, render

    about = family(name)
    images, labels = render(name, "test", range(64))
    order = _spread(labels.numpy(), STRIP)
    strip = np.concatenate(list(images.numpy()[order].transpose(0, 2, 3, 1)), axis=1)
    return TaskCard(
        name=name,
        title=about.title,
        description=about.description,
        shift=about.shift,
        classnames=tuple(about.classnames),
        picture=_data_url(strip.repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)),
        shown=tuple(about.classnames[label] for label in labels.numpy()[order]),
        control=name == CONTROL,
    )


def checkpoints() -> list[Checkpoint]:
    """List the readable checkpoints, newest first."""
    from engine.store import default_store

    store = default_store()
    return [_checkpoint(entry, store) for entry in store.find("checkpoint")]


def encoders() -> list[EncoderRow]:
    """List the stored encoders, newest first."""
    from engine.store import default_store

    store = default_store()
    return [
        EncoderRow(
            name=str(entry.meta.get("name", "?")),
            digest=entry.digest,
            size=entry.size,
            created=entry.created,
            embedded=_is_embedded(entry, store),
            meta=entry.meta,
        )
        for entry in store.find("encoder")
    ]


def encoder_names() -> list[str]:
    """Name the encoders that can be loaded or that have checkpoints, the miniature first."""
    from engine.encoders import encoder_names as stored_names
    from engine.store import default_store

    names = stored_names(default_store()) + [item.encoder for item in checkpoints()]
    return list(dict.fromkeys(names))


def damaged() -> list[tuple[str, str]]:
    """List the files of the store that cannot be used, each with the cause."""
    from engine.store import default_store

    return [(str(path), cause) for path, cause in default_store().damaged()]


def newest(
    items: list[Checkpoint], encoder: str, mode: str, encoder_digest: str | None = None
) -> dict[str, Checkpoint]:
    """Keep the newest checkpoint of every task for an encoder and a training mode.

    Args:
        items: Checkpoints, newest first.
        encoder: Name of the encoder.
        mode: "nonlinear" or "linear".
        encoder_digest: Keep only those made for exactly these weights; for those of the newest
            checkpoint with None, so that vectors of different weights are never mixed.

    Returns:
        Checkpoints by task: the miniature's in their order, then users' tasks by name.
    """
    mine = [item for item in items if item.encoder == encoder]
    if encoder_digest is None and mine:
        encoder_digest = mine[0].encoder_digest
    found: dict[str, Checkpoint] = {}
    for item in mine:
        if item.mode == mode and item.encoder_digest == encoder_digest:
            found.setdefault(item.task, item)
    order = {name: place for place, name in enumerate(task_names()[0])}
    return {name: found[name] for name in sorted(found, key=lambda n: (order.get(n, 99), n))}


def accuracy_matrix(items: list[Checkpoint], encoder: str) -> tuple[list[str], list[list]]:
    """Arrange test accuracies as tasks by modes.

    Args:
        items: Checkpoints, newest first.
        encoder: Name of the encoder.

    Returns:
        Task names, and for each the fractions in the order of :data:`MODES`; None where there is
        no checkpoint or it was not measured.
    """
    columns = [newest(items, encoder, mode) for mode in MODES]
    tasks = list(task_names()[0])
    tasks += sorted({name for column in columns for name in column} - set(tasks))
    return tasks, [
        [column[task].test if task in column else None for column in columns] for task in tasks
    ]


def file_bytes(digest: str) -> bytes:
    """Read a checkpoint's file, verified, for a download.

    Args:
        digest: Of the checkpoint.

    Returns:
        The safetensors file as it lies in the store.

    Raises:
        MissingDataError: If it was deleted since it was listed.
    """
    from engine.errors import MissingDataError
    from engine.store import default_store

    store = default_store()
    for entry in store.find("checkpoint"):
        if entry.digest == digest:
            store.get(entry)
            return entry.path.read_bytes()
    raise MissingDataError(f"checkpoint {digest[:12]} is no longer on disk; reload the page")


def _checkpoint(entry, store) -> Checkpoint:
    """Make a store's entry plain; meta written by another version may lack anything."""
    meta = entry.meta
    accuracy, n = _table(meta.get("accuracy")), _table(meta.get("n"))
    return Checkpoint(
        digest=entry.digest,
        encoder=str(meta.get("encoder", "?")),
        encoder_digest=str(meta.get("encoder_digest", "")),
        task=str(meta.get("task", "?")),
        source=str(meta.get("task_source", "miniature")),
        mode=str(meta.get("mode", "?")),
        seed=meta.get("seed"),
        steps=meta.get("steps"),
        test=accuracy.get("test"),
        n_test=n.get("test"),
        validation=accuracy.get("validation"),
        n_validation=n.get("validation"),
        size=entry.size,
        created=entry.created,
        embedded=_is_embedded(entry, store),
        entry=entry,
    )


def _is_embedded(entry, store) -> bool:
    return store.embedded is not None and entry.path.is_relative_to(store.embedded)


def _table(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _spread(labels: np.ndarray, wanted: int) -> list[int]:
    """Pick pictures of different classes, in their own order; repeat classes only when short."""
    first = list(dict.fromkeys(labels.tolist()))
    picked = [int(np.flatnonzero(labels == label)[0]) for label in first][:wanted]
    rest = [index for index in range(len(labels)) if index not in picked]
    return (picked + rest)[:wanted]


def _data_url(pixels: np.ndarray) -> str:
    """Write RGB pixels as a PNG in a data URL."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
