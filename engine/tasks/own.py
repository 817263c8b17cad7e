"""Tasks of a user's own that pages remember: which there are, and in which words they speak."""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from engine.errors import EngineError, MissingDataError, UsageError
from engine.store import Entry, Store, write_bytes
from engine.tasks import describe, files, find_known, hub, load_task
from engine.tasks.registry import Known
from engine.tasks.words import FILE, spoken
from engine.tasks.words import KEYS as WORDS

KIND = "task"
FOLDER = "tasks"  # of the store's home: words of data sets whose own folder cannot be written


def add(
    store: Store, reference: str, said: Mapping[str, Any] | None = None, beside: bool = True
) -> str:
    """Remember a task, its words written down first where some are given.

    Args:
        store: Where it is kept.
        reference: What ``load_task`` takes: a folder, a task file, or a data set of the hub.
        said: Title, description, classnames and templates; None leaves them as they are.
        beside: Whether to write them beside the data; else, and where that cannot be, into the
            cache.

    Returns:
        What ``load_task`` takes from now on.

    Raises:
        UsageError: If the task is the miniature's, or the words cannot be carried out.
        MissingDataError: If the data is not on this machine.
        EngineError: If the words cannot be written.
    """
    if said is not None:
        reference = _said(store, reference, said, beside)
    task = load_task(reference)
    if task.source == "miniature":
        raise UsageError(f"{task.name} is one of the miniature's own tasks; nothing is to be added")
    remember(store, task.source, describe(task))
    return task.source


def _said(store: Store, reference: str, said: Mapping[str, Any], beside: bool) -> str:
    """Return what to load a task from once its words are written.

    Raises:
        MissingDataError: If the data is not on this machine.
        UsageError: If they cannot be carried out.
    """
    known = find_known(reference)
    root = Path(reference).expanduser().absolute().resolve()
    if known is None and not root.is_dir():
        raise MissingDataError(f"{root} is not a folder; give one with {files.LAYOUTS}")
    data = files.scan(root) if known is None else hub.scan(known)
    path = root / FILE if known is None else known.path or Path(f"{known.name}.yaml")
    name, where = (root.name, str(root)) if known is None else (known.name, known.hub)
    spoken(path, dict(said), name, where, data.labels, data.count)
    if known is not None:
        return str(write_task_file(known, said, store.home, beside))
    return str(write_words(root, said, store.home, beside))


def remember(store: Store, reference: str, about: Mapping[str, Any]) -> Entry:
    """Keep a task among those that pages offer; a task remembered before is replaced.

    Args:
        store: Where it is kept.
        reference: What ``load_task`` takes: a path, or the name of a data set.
        about: What ``describe`` returned.

    Returns:
        The entry: no tensors, meta {"reference", "name", "title", "classes", "counts"}.
    """
    forget(store, reference)
    meta = {
        "reference": reference,
        "task": about["name"],
        "title": about["title"],
        "classes": len(about["classes"]),
        "counts": about["counts"],
    }
    return store.put(KIND, {}, meta)


def remembered(store: Store) -> dict[str, Entry]:
    """Return the tasks kept, by reference, the newest first."""
    found: dict[str, Entry] = {}
    for entry in store.find(KIND):
        reference = entry.meta.get("reference")
        if isinstance(reference, str) and reference:
            found.setdefault(reference, entry)
    return found


def forget(store: Store, reference: str) -> int:
    """Take a task off the list; its images, words and checkpoints stay.

    Returns:
        How many entries went.
    """
    entries = store.find(KIND, reference=reference)
    for entry in entries:
        store.delete(entry)
    return len(entries)


def as_yaml(said: Mapping[str, Any]) -> bytes:
    """Write words as ``tauscope.yaml`` holds them."""
    text = yaml.safe_dump(dict(said), sort_keys=False, allow_unicode=True, width=100)
    return text.encode()


def write_words(root: Path, said: Mapping[str, Any], home: Path, beside: bool = True) -> Path:
    """Write a task's words beside its images, or where that cannot be, into the cache.

    In the cache they lie in a folder of links to what the task's own folder holds, so that the
    same images with these words are a task of the same name.

    Args:
        root: The task's folder.
        said: Title, description, classnames and templates, checked by ``words.spoken``.
        home: Of the store.
        beside: Whether to write into the task's own folder.

    Returns:
        The folder to load the task from from now on.

    Raises:
        EngineError: If neither can be written.
    """
    if beside:
        with contextlib.suppress(EngineError):  # a read-only folder: the cache then
            write_bytes(root / FILE, as_yaml(said))
            return root
    return _linked(root, said, home)


def write_task_file(known: Known, said: Mapping[str, Any], home: Path, beside: bool = True) -> Path:
    """Write the words of a data set of the hub as a task file.

    Args:
        known: The data set; what its own file says of columns and parts is kept.
        said: Its words, checked by ``words.spoken``.
        home: Of the store.
        beside: Whether to change the user's own task file, where it came from one.

    Returns:
        The file to load the task from from now on.

    Raises:
        EngineError: If it cannot be written.
    """
    kept = {key: value for key, value in known.given.items() if key not in WORDS}
    config = {"config": known.config} if known.config else {}
    text = as_yaml({**said, **kept, "hub": known.hub, **config})
    path = task_file(known, home)
    if beside and known.path is not None and not known.published:
        path = known.path
    write_bytes(path, text)
    return path


def task_file(known: Known, home: Path) -> Path:
    """Return where the task file of a data set of the hub lies in the cache."""
    digest = hashlib.sha256(known.source.encode()).hexdigest()[:12]
    return home / FOLDER / digest / f"{known.name}.yaml"


def words_folder(root: Path, home: Path) -> Path:
    """Return where the words of a folder lie that cannot be written."""
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return home / FOLDER / digest / root.name


def _linked(root: Path, said: Mapping[str, Any], home: Path) -> Path:
    """Return a folder of links to the data, with words of its own.

    Raises:
        EngineError: If it cannot be written.
    """
    if root.is_relative_to((home / FOLDER).resolve()):  # a folder of links already
        write_bytes(root / FILE, as_yaml(said))
        return root
    folder = words_folder(root, home)
    write_bytes(folder / FILE, as_yaml(said))
    try:
        kept = {item.name for item in root.iterdir() if not item.name.startswith(".")} - {FILE}
        for old in folder.iterdir():
            if old.is_symlink() and old.name not in kept:
                old.unlink()
        for name in sorted(kept):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(root / name)
    except OSError as error:
        raise EngineError(
            f"cannot link {root} into {folder}: {error.strerror}; copy the images to a folder "
            "that can be written, and add that"
        ) from error
    return folder
