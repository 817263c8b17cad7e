"""Tasks that visitors bring: what a folder or data set holds, its words, and remembering it."""

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.compute import models
from app.compute.background import Work, board
from app.compute.bringing_uploads import typed_path

LOOK, DECODE = "look at a task", "decode a task"
SHOWN, SIZE = 16, 96  # sample pictures, and their pixels a side
FILE = "tauscope.yaml"
HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")


@dataclass(frozen=True, eq=False)
class Found:
    """A data set as it is on this machine; nothing was written.

    Attributes:
        reference: What ``load_task`` takes.
        root: Its folder; None for a data set of the hub.
        name: The task's.
        title: For readers.
        description: A sentence, perhaps empty.
        warning: What is known to be wrong with it, a sentence, mostly empty.
        classnames: In the order of the labels.
        templates: Prompts, each with one ``{}``.
        labels: Class names as the data has them; None where it has numbers only.
        count: Of classes.
        counts: Images by split; empty where the words are still to be given.
        rules: How each split is made, by split.
        per_class: Images of each class, (C,) by part as given.
        pictures: uint8 (n, S, S, 3).
        shown: Labels of the pictures.
        lacking: What is still to be said before it can be used; empty when it can.
        file: The ``tauscope.yaml`` or task file of its own that is or would be beside it; None
            where there can be none.
        writable: Whether that file can be written.
    """

    reference: str
    root: Path | None
    name: str
    title: str
    description: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    labels: tuple[str, ...] | None
    count: int
    counts: Mapping[str, int]
    rules: Mapping[str, str]
    per_class: Mapping[str, np.ndarray]
    pictures: np.ndarray
    shown: tuple[int, ...]
    lacking: str = ""
    warning: str = ""
    file: Path | None = None
    writable: bool = False


def reference_of(text: str) -> str:
    """Read what a visitor typed: a path, a known data set's name, or an id of the hub.

    Args:
        text: By anyone; ``owner/name`` alone is an id of the hub.

    Returns:
        What ``load_task`` takes.

    Raises:
        UsageError: If a path cannot be one.
    """
    text = text.strip()
    if not text or text.startswith(("/", "~", ".")):
        return str(typed_path(text))
    return f"hub:{text}" if HUB.fullmatch(text) else text


def look(text: str, visitor: str, times: int = 0) -> Work:
    """Find out what a data set holds, in the background.

    Args:
        text: As typed.
        visitor: Who asks.
        times: Which time it is asked: another time it is looked at anew.

    Returns:
        Work whose result is what was :class:`Found`.

    Raises:
        UsageError: If a path cannot be one.
    """
    reference = reference_of(text)

    def found(work: Work) -> Found:
        work.step(0, 2, "reading names and labels")
        return _found(reference, work)

    return board().start(LOOK, visitor, (reference, visitor, times), found)


def _found(reference: str, work: Work) -> Found:
    """Return what a data set holds.

    Raises:
        MissingDataError: If it is not on this machine.
        UsageError: If its classes cannot be used.
    """
    from engine.errors import UsageError
    from engine.tasks import describe, load_task, samples
    from engine.tasks.words import TEMPLATES, plain

    known, data = _data(reference)
    root = data.root if known is None else None
    file = data.root / FILE if known is None else None
    if known is not None and known.path is not None and not known.published:
        file = known.path
    work.step(1, 2, "decoding a few pictures")
    pictures, shown = samples.sample(data, SHOWN, SIZE)
    shared: dict[str, Any] = {
        "reference": known.source if known is not None else str(root),
        "root": root,
        "labels": data.labels,
        "count": data.count,
        "per_class": samples.class_counts(data),
        "pictures": pictures,
        "shown": tuple(shown.tolist()),
        "file": file,
        "writable": file is not None and os.access(file.parent, os.W_OK),
    }
    try:
        task = load_task(shared["reference"])
    except UsageError as error:  # its words are what can be mended on the page
        name = known.name if known is not None else data.root.name
        names = data.labels or tuple(f"class {place}" for place in range(data.count))
        about = {"title": plain(name), "description": "", "name": name}
        words = {"classnames": tuple(map(plain, names)), "templates": TEMPLATES}
        return Found(**shared, **about, **words, counts={}, rules={}, lacking=str(error))
    told = describe(task)
    return Found(
        **shared,
        name=task.name,
        title=task.title,
        description=task.description,
        warning=task.warning,
        classnames=task.classnames,
        templates=task.templates,
        counts=told["counts"],
        rules=told["rules"],
    )


def _data(reference: str) -> tuple[Any, Any]:
    """Return the hub's data set that a reference stands for, if any, and what is on disk.

    Raises:
        MissingDataError: If it is not on this machine.
        UsageError: If there is no such data set, or it is the miniature's own.
    """
    from engine.errors import MissingDataError, UsageError
    from engine.exchange.sources import shown
    from engine.tasks import files, find_known, hub, registry

    known = find_known(reference)
    if known is not None:
        return known, hub.scan(known)
    root = Path(reference)
    if not root.is_absolute():
        raise UsageError(
            f"there is no data set named {shown(reference)}; give the path of a folder, an id of "
            f"the hub as owner/name, or one of {', '.join(registry.NAMES)}"
        )
    if not root.is_dir():
        raise MissingDataError(f"{root} is not a folder; give one with {files.LAYOUTS}")
    return None, files.scan(root.resolve())


def edited(found: Found, title: str, description: str, names: str, templates: str) -> dict:
    """Return the words of a task as its form holds them; what is as the data says is left out.

    Args:
        found: The task.
        title: For readers.
        description: A sentence.
        names: Class names, one a line.
        templates: Prompts, one a line.

    Returns:
        What ``tauscope.yaml`` is to hold.
    """
    said: dict[str, Any] = {"title": title.strip() or found.title}
    if description.strip():
        said["description"] = " ".join(description.split())
    said["classnames"] = [line.strip() for line in names.splitlines() if line.strip()]
    said["templates"] = [line.strip() for line in templates.splitlines() if line.strip()]
    return said


def differs(found: Found, said: Mapping[str, Any]) -> bool:
    """Say whether words differ from those that the task speaks already."""
    return bool(found.lacking) or said != edited(
        found,
        found.title,
        found.description,
        "\n".join(found.classnames),
        "\n".join(found.templates),
    )


def check(found: Found, said: Mapping[str, Any]) -> str:
    """Say in a sentence what is wrong with words; empty when nothing is."""
    from engine.errors import UsageError
    from engine.tasks.words import spoken

    where = found.file or Path(FILE)
    try:
        spoken(where, dict(said), found.name, found.reference, found.labels, found.count)
    except UsageError as error:
        return str(error)
    return ""


def yaml_of(said: Mapping[str, Any]) -> str:
    """Return the text of ``tauscope.yaml``."""
    from engine.tasks.own import as_yaml

    return as_yaml(said).decode()


def words_place(found: Found, beside: bool) -> str:
    """Return the path that the words would be written to."""
    from engine.store import default_store
    from engine.tasks import find_known
    from engine.tasks.own import task_file, words_folder

    home = default_store().home
    if beside and found.file is not None:
        return str(found.file)
    known = find_known(found.reference)
    if known is not None:
        return str(task_file(known, home))
    return str(words_folder(found.root, home) / FILE)


def add(found: Found, said: Mapping[str, Any], beside: bool) -> str:
    """Remember a task, its words written first where they were changed.

    Args:
        found: The task.
        said: Its words.
        beside: Whether to write them beside the data, rather than into the cache.

    Returns:
        What ``load_task`` takes from now on.

    Raises:
        UsageError: If the words cannot be carried out.
        EngineError: If they cannot be written.
    """
    from engine.store import default_store
    from engine.tasks import own

    changed = said if differs(found, said) else None
    reference = own.add(default_store(), found.reference, changed, beside)
    models.forget_tasks()  # pages must meet the new words
    return reference


def forget(reference: str) -> None:
    """Take a task off the list; its images, words and checkpoints stay."""
    from engine.store import default_store
    from engine.tasks.own import forget as drop

    drop(default_store(), reference)
    models.forget_tasks()


def command(reference: str, words: bool = False) -> str:
    """Return the words that remember a task without the page.

    Args:
        reference: What ``load_task`` takes.
        words: Whether words are given with it, as the YAML that the page shows.
    """
    told = f" --words {FILE}" if words else ""
    return f"python -m engine tasks --add {shlex.quote(reference)}{told}"


def decode_command(reference: str, encoder_name: str) -> str:
    """Return the words that decode a task without the page."""
    return f"python -m engine fetch {shlex.join([reference, '--encoder', encoder_name])}"


def decode(reference: str, encoder_name: str, visitor: str, times: int = 0) -> Work:
    """Decode a task's splits at an encoder's size, in the background; they are kept.

    Args:
        reference: As ``load_task`` takes it.
        encoder_name: Whose size.
        visitor: Who asks.
        times: Which time it is asked for.

    Returns:
        Work whose result is the images by split.
    """

    def decoded(work: Work) -> dict[str, int]:
        from engine.store import default_store
        from engine.tasks import SPLITS, describe, load_split, load_task

        size = models.encoder(encoder_name).image_size
        task = load_task(reference)
        counts = describe(task)["counts"]
        before, total = 0, sum(counts.values())
        for split in SPLITS:

            def progress(done: int, _, before: int = before, split: str = split) -> None:
                work.step(before + done, total, f"decoding {split}: {before + done:,} of {total:,}")

            load_split(task, split, size, default_store(), progress=progress)
            before += counts[split]
        return counts

    return board().start(DECODE, visitor, (reference, encoder_name, visitor, times), decoded)
