"""Tasks: the miniature's, the hub's and the user's own; their splits, class names and prompts."""

import dataclasses
import functools
import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import MissingDataError, UsageError
from engine.store import Store, digest_tensors
from engine.tasks import division, files, hub, miniature, pixels, registry
from engine.tasks.decoding import Pictures, decoded, shared_pictures
from engine.tasks.words import words

_log = logging.getLogger(__name__)
CONTROL = "objects"
TASKS: tuple[str, ...] = tuple(n for n in miniature.family_names() if n != CONTROL)
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """What is to be told apart, and in which words."""

    name: str  # "digits", or the folder's name for a user's task
    title: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]  # each with one "{}"
    source: str  # "miniature", the absolute path, or "hub:" and the id of a data set of the hub
    description: str = ""
    warning: str = ""  # what is known to be wrong with its data, a sentence


@dataclass(frozen=True)
class Split:
    """Images and labels in a fixed shuffled order.

    Attributes:
        task: The task's name.
        name: "train", "validation" or "test".
        images: uint8 (N, 3, H, W).
        labels: int64 (N,).
        digest: sha256 over images, labels, class names and rule.
        classnames: The task's class names.
        rule: How the split was made, a sentence.
    """

    task: str
    name: str
    images: Tensor = dataclasses.field(repr=False)
    labels: Tensor = dataclasses.field(repr=False)
    digest: str
    classnames: tuple[str, ...] = ()
    rule: str = ""

    def take(self, n: int) -> "Split":
        """Return the first n images, which are a random sample; all of them if there are fewer.

        Raises:
            ValueError: If n is below 1.
        """
        if n < 1:
            raise ValueError(f"n is {n}, expected 1 or more")
        if n >= len(self.labels):
            return self
        images, labels = self.images[:n], self.labels[:n]
        digest = _digest(_pixel_digest(images, labels), self.classnames, self.rule)
        return dataclasses.replace(self, images=images, labels=labels, digest=digest)


def load_task(name_or_path: str) -> Task:
    """Return one of the miniature's tasks or of the hub's data sets, or the user's own.

    Args:
        name_or_path: One of ``TASKS`` or ``CONTROL``; one of ``registry.NAMES``, such as eurosat,
            unless a folder here has that name; ``hub:owner/name`` or ``hub:owner/name:config``; a
            task file (YAML with the key hub); or a folder in one of these layouts:
            train/<class>/*.png and test/<class>/*.png; <class>/*.png; train*.parquet and
            test*.parquet with the columns image and label. A ``tauscope.yaml`` in it may set
            title, description, classnames and templates.

    Returns:
        The task.

    Raises:
        UsageError: If the name is unknown or the classes cannot be used.
        MissingDataError: If the data is not on this machine, or the folder holds no images.
    """
    if name_or_path in miniature.family_names():
        family = miniature.family(name_or_path)
        return Task(
            family.name,
            family.title,
            tuple(family.classnames),
            tuple(family.templates),
            "miniature",
            family.description,
        )
    known = find_known(name_or_path)
    if known is not None:
        found = hub.scan(known)
        said = known.words(found.labels, found.count)
        if known.warning:
            _warn(known.name, known.warning)
        return Task(
            known.name,
            said.title,
            said.classnames,
            said.templates,
            known.source,
            said.description,
            known.warning,
        )
    root = Path(name_or_path).expanduser().absolute()
    if not name_or_path or (not root.exists() and re.fullmatch(r"[\w-]+", name_or_path)):
        raise UsageError(
            f"there is no task named {name_or_path!r}; choose one of "
            f"{', '.join((*TASKS, CONTROL))}, or give the path of a folder with {files.LAYOUTS}, "
            f"or one of the hub's data sets: {', '.join(registry.NAMES)}, hub:owner/name"
        )
    if not root.is_dir():
        raise MissingDataError(f"{root} is not a folder; give one with {files.LAYOUTS}")
    root = root.resolve()
    found = files.scan(root)
    said = words(root, found.labels, found.count)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", root.name).strip("_.") or "task"
    return Task(name, said.title, said.classnames, said.templates, str(root), said.description)


@functools.lru_cache(maxsize=64)
def _warn(name: str, warning: str) -> None:
    """Tell what is known to be wrong with a task's data, once a process."""
    _log.warning("%s: %s", name, warning)


def find_known(name: str) -> registry.Known | None:
    """Return the data set of the hub that a name, an id or a task file stands for.

    Args:
        name: What ``load_task`` takes.

    Returns:
        The data set, whether its data is here or not; None for anything else.

    Raises:
        UsageError: If the id or the file says something that cannot be carried out.
    """
    if name.startswith(registry.PREFIX):
        return registry.of_hub(name)
    path = Path(name).expanduser().absolute()
    if path.suffix in registry.SUFFIXES and path.is_file():
        return registry.of_file(path.resolve())
    return registry.known(name) if name in registry.NAMES and not path.is_dir() else None


def load_split(
    task: Task,
    split: str,
    image_size: int,
    store: Store,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Split:
    """Return a split's images at the encoder's size.

    The miniature's are rendered; others are decoded once, in pieces, into a file of N·3·S² bytes
    in the cache that is mapped, not read: memory stays free, and a stopped run goes on where it
    was.

    Args:
        task: What ``load_task`` returned.
        split: "train", "validation" or "test". Validation is what the data set says, or
            min(10 %, 5,000) of its training images; train is the rest of them.
        image_size: S, pixels a side.
        store: Where decoded images are kept.
        limit: At most so many images; the same as ``take(limit)`` of the whole split.
        progress: ``progress(done, total)`` after each piece that is decoded; to stop, raise in it.

    Returns:
        The split, shuffled in an order fixed for ever.

    Raises:
        UsageError: If there is no such split, or it is empty.
        MissingDataError: If the data is gone.
        CheckpointError: If images are damaged.
        ValueError: If image_size is below 1.
    """
    if split not in SPLITS:
        raise UsageError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; ask for one image or more")
    if image_size < 1:
        raise ValueError(f"image_size is {image_size}, expected 1 or more")
    if task.source == "miniature":
        return _rendered(task, split, image_size, limit)
    found = _rescan(task)
    part, rows, rule = _select(found, split)
    rows = rows[:limit]
    if not len(rows):
        raise UsageError(
            f"the {split} split of {task.name} is empty: {len(found.parts[part].labels)} images "
            f"are too few to set any aside; add images to {task.source}"
        )
    rule = f"{rule}; shorter side to {image_size} pixels, bicubic, centre crop"
    labels = torch.from_numpy(found.parts[part].labels[rows])
    made_by = {"fingerprint": found.fingerprint(), "split": split, "rule": rule}
    pictures = Pictures(found, part, task.name, task.source)
    bank = decoded(pictures, rows, image_size, store.home, made_by, progress)
    images = bank.read(len(rows))
    digest = bank.noted(str(len(rows)))
    if digest is None:
        digest = _pixel_digest(images, labels)
        bank.note(str(len(rows)), digest)
    return _made(task, split, images, labels, rule, digest)


def describe(task: Task) -> dict[str, Any]:
    """Return a task as plain values: its words, counts and how its splits are made.

    Args:
        task: What ``load_task`` returned; no image is decoded.

    Returns:
        {"name", "title", "description", "source", "warning", "classes", "templates",
        "counts": {split: images}, "rules": {split: sentence}}.
    """
    if task.source == "miniature":
        chosen = {split: _miniature_rows(split) for split in SPLITS}
    else:
        found = _rescan(task)
        chosen = {split: _select(found, split)[1:] for split in SPLITS}
    return {
        "name": task.name,
        "title": task.title,
        "description": task.description,
        "source": task.source,
        "warning": task.warning,
        "classes": list(task.classnames),
        "templates": list(task.templates),
        "counts": {split: len(rows) for split, (rows, _) in chosen.items()},
        "rules": {split: rule for split, (_, rule) in chosen.items()},
    }


def leaked(task: Task) -> int:
    """Count the test images whose encoded bytes occur among the training images too.

    Args:
        task: What ``load_task`` returned; every image of it is read, none decoded.

    Returns:
        How many; a lower bound, for an image that was encoded again is not found.
    """
    if task.source == "miniature":
        return 0
    found = _rescan(task)
    return 0 if "test" not in found.parts else shared_pictures(found, task.name, task.source)


def _miniature_rows(split: str) -> tuple[np.ndarray, str]:
    """Return the indices of a miniature split in their order, and the rule."""
    if split == "test":
        return division.order(miniature.SIZES["test"]), "rendered test images, order seeded"
    train, validation = division.hold_out(miniature.SIZES["train"])
    return (train, _POOL["train"]) if split == "train" else (validation, _POOL["validation"])


_POOL = {
    "train": "training images without the seeded validation split, order seeded",
    "validation": "min(10 %, 5,000) of the training images by a seeded split",
}


def _rendered(task: Task, split: str, image_size: int, limit: int | None) -> Split:
    """Return a miniature split, rendered now."""
    rows, rule = _miniature_rows(split)
    pool = "test" if split == "test" else "train"
    images, labels = miniature.render(task.name, pool, torch.from_numpy(rows[:limit]))
    if image_size != miniature.IMAGE_SIZE:
        rule = f"{rule}; resized to {image_size} pixels, bicubic"
    return _made(task, split, pixels.resize(images, image_size), labels, rule)


def _rescan(task: Task) -> files.Files:
    """Return a data set as it is on disk now.

    Raises:
        MissingDataError: If its folder is gone.
        UsageError: If its classes are no longer those of the task.
    """
    root, known = Path(task.source), find_known(task.source)
    if known is None and not root.is_dir():
        raise MissingDataError(f"{root} is gone; restore the folder of the task {task.name}")
    found = files.scan(root) if known is None else hub.scan(known)
    if found.count != len(task.classnames):
        raise UsageError(
            f"{task.source} has {found.count} classes where the task {task.name} has "
            f"{len(task.classnames)}; load the task again"
        )
    return found


def _select(found: files.Files, split: str) -> tuple[str, np.ndarray, str]:
    """Return the part a split's images come from, their rows in order, and the rule."""
    if split in found.parts and split != "train":
        rows = division.order(len(found.parts[split].labels))
        return split, rows, f"the {split} part as given, order seeded"
    pool, origin = np.arange(len(found.parts["train"].labels)), "the training images"
    if "test" not in found.parts:
        pool, test = division.stratified(found.parts["train"].labels)
        origin = "the training images left after a seeded fifth of each class went to test"
        if split == "test":
            rows = test[division.order(len(test))]
            return "train", rows, "a seeded fifth of each class, as no test part was given"
    if "validation" in found.parts:
        return "train", pool[division.order(len(pool))], f"{origin}, order seeded"
    train, validation = division.hold_out(len(pool))
    if split == "train":
        return "train", pool[train], f"{origin} without the seeded validation split"
    return "train", pool[validation], f"min(10 %, 5,000) of {origin} by a seeded split"


def _made(
    task: Task,
    split: str,
    images: Tensor,
    labels: Tensor,
    rule: str,
    pixel_digest: str | None = None,
) -> Split:
    """Return the split with its digest."""
    pixel_digest = pixel_digest or _pixel_digest(images, labels)
    digest = _digest(pixel_digest, task.classnames, rule)
    return Split(task.name, split, images, labels, digest, task.classnames, rule)


def _pixel_digest(images: Tensor, labels: Tensor) -> str:
    """Return the sha256 over images and labels."""
    return digest_tensors({"images": images, "labels": labels})


def _digest(pixel_digest: str, classnames: tuple[str, ...], rule: str) -> str:
    """Return the sha256 over images, labels, class names and rule."""
    said = json.dumps([pixel_digest, list(classnames), rule])
    return hashlib.sha256(said.encode()).hexdigest()
