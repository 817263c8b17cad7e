"""Known data sets of the hub, one YAML file each, and task files of a user's own of the same form.

The papers' eight tasks, ImageNet as their control, and further ones: where the pictures are, which
columns and parts are meant, and the published class names and prompts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.tasks.words import KEYS as WORDS
from engine.tasks.words import TEMPLATES, Words, read, spoken

PREFIX = "hub:"
EIGHT = ("cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn")
CONTROL = "imagenet"
NAMES = (*EIGHT, CONTROL, "cifar10", "cifar100", "stl10", "food101")
SUFFIXES = (".yaml", ".yml")

_KEYS = (*WORDS, "hub", "config", "columns", "parts", "warning")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_AGREEING = 2 / 3  # share of the classes whose two names must have a word in common


@dataclass(frozen=True)
class Known:
    """A data set of the hub and its words.

    Attributes:
        name: Of the task.
        hub: Its id there, owner/name.
        config: Which of its configurations; None where it has one.
        images: What its column of pictures may be called.
        labels: What its column of labels may be called.
        parts: By our names of the parts, those of the data set; empty: the usual ones.
        warning: What is known to be wrong with it, a sentence.
        source: What ``load_task`` finds it by again.
        path: The file that says all this; None for a bare id.
        given: What the file says.
        published: Whether its class names are in the order of the official labels, and stand
            aside where the data has other classes.
    """

    name: str
    hub: str
    source: str
    config: str | None = None
    images: tuple[str, ...] = ("image", "img")
    labels: tuple[str, ...] = ("label", "fine_label")
    parts: dict[str, str] = field(default_factory=dict)
    warning: str = ""
    path: Path | None = None
    given: dict[str, Any] = field(default_factory=dict)
    published: bool = False

    def words(self, labels: Sequence[str] | None, count: int) -> Words:
        """Return the words of the task.

        Args:
            labels: Label names as the data has them; None where it has numbers only.
            count: C, the number of classes.

        Returns:
            C class names; of a known data set the published ones, where they fit its labels.

        Raises:
            UsageError: If the file says something that cannot be carried out.
        """
        path = self.path or Path(self.hub)
        given = {key: value for key, value in self.given.items() if key in WORDS}
        if not self.published:
            return spoken(path, given, self.name, self.hub, labels, count)
        names = given.get("classnames")
        if names is not None and not _fit(names, labels, count):
            names = None
        if names is None and labels is None:
            return spoken(path, {}, self.name, self.hub, labels, count)
        told = tuple(names) if names else tuple(_as_words(label) for label in labels or ())
        if not names and len(set(told)) < len(told):
            told = tuple(labels or ())
        return Words(
            given["title"], given["description"], told, tuple(given.get("templates", TEMPLATES))
        )


def known(name: str) -> Known:
    """Return a known data set.

    Args:
        name: One of ``NAMES``.
    """
    return _of_file(Path(__file__).with_name(f"{name}.yaml"), name, published=True)


def of_hub(reference: str) -> Known:
    """Return the data set of a hub id, with the published words where it is a known one.

    Args:
        reference: ``hub:owner/name`` or ``hub:owner/name:config``.

    Raises:
        UsageError: If it is no hub id.
    """
    hub, _, config = reference.removeprefix(PREFIX).partition(":")
    if not _HUB.fullmatch(hub) or ".." in hub or (config and not re.fullmatch(r"[\w.-]+", config)):
        raise UsageError(
            f"{reference!r} names no data set of the hub; write hub:owner/name, or "
            "hub:owner/name:config"
        )
    for name in NAMES:
        entry = known(name)
        if entry.hub == hub and config in ("", entry.config or ""):
            return entry
    said = f"{hub}:{config}" if config else hub
    return Known(_name(hub.partition("/")[2]), hub, PREFIX + said, config or None)


def of_file(path: Path) -> Known:
    """Return the data set that a user's task file names.

    Args:
        path: YAML with the key hub, and if wanted config, columns, parts, title, description,
            classnames and templates.

    Raises:
        UsageError: If the file says something that cannot be carried out.
    """
    return _of_file(path, _name(path.stem), published=False)


def _of_file(path: Path, name: str, published: bool) -> Known:
    """Return what a file says, checked.

    Raises:
        UsageError: If the file says something that cannot be carried out.
    """
    given = read(path, _KEYS)
    hub, config = given.get("hub"), given.get("config")
    if not isinstance(hub, str) or not _HUB.fullmatch(hub) or ".." in hub:
        raise UsageError(f"{path}: hub must be the id of a data set as owner/name, got {hub!r}")
    if config is not None and not (isinstance(config, str) and re.fullmatch(r"[\w.-]+", config)):
        raise UsageError(f"{path}: config must be a name, got {config!r}; mend it")
    columns = _table(path, given, "columns", ("image", "label"))
    parts = _table(path, given, "parts", ("train", "validation", "test"))
    if parts and "train" not in parts:
        raise UsageError(f"{path}: parts must say which part is train; mend it")
    warning = given.get("warning", "")
    if not isinstance(warning, str):
        raise UsageError(f"{path}: warning must be text, got {warning!r}; mend it")
    said = f"{hub}:{config}" if config else hub
    return Known(
        name,
        hub,
        PREFIX + said if published else str(path),
        config,
        (columns["image"],) if "image" in columns else Known.images,
        (columns["label"],) if "label" in columns else Known.labels,
        parts,
        warning,
        path,
        given,
        published,
    )


def _table(path: Path, given: dict, key: str, allowed: Sequence[str]) -> dict[str, str]:
    """Return a small table of names.

    Raises:
        UsageError: If it is something else.
    """
    table = given.get(key, {})
    good = isinstance(table, dict) and all(
        k in allowed and isinstance(v, str) and re.fullmatch(r"[\w.-]+", v)
        for k, v in table.items()
    )
    if not good:
        raise UsageError(f"{path}: {key} must map {', '.join(allowed)} to names, got {table!r}")
    return table


def _name(text: str) -> str:
    """Return a task's name made of what a file name may hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.") or "task"


def _fit(names: Sequence[str], labels: Sequence[str] | None, count: int) -> bool:
    """Return whether published names are those of the data's classes, in its order.

    Labels that are numbers must count up; of others two in three must share a word with the name
    in their place: "SeaLake" and "lake or sea" do. A name that is word for word the label of
    another place is out of order, whatever it shares with its own: "Audi S4 Sedan 2007" and
    "BMW M5 Sedan 2010" have a word in common.
    """
    if len(names) != count:
        return False
    if labels is None or list(labels) == [str(i) for i in range(count)]:
        return True
    ours = [_parts(name) for name in names]
    theirs = [_parts(_as_words(label)) for label in labels]
    if any(a != b and a in theirs for a, b in zip(ours, theirs, strict=True)):
        return False
    return sum(bool(a & b) for a, b in zip(ours, theirs, strict=True)) >= _AGREEING * count


def _parts(text: str) -> set[str]:
    """Return the words of a name."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return set(re.findall(r"[a-z0-9]+", apart.lower())) - {"and", "or", "with", "the", "a"}


def _as_words(label: str) -> str:
    """Return a hub's label as words: ``/a/airplane_cabin`` and ``airplane_cabin`` alike."""
    label = re.sub(r"^/\w/", "", label)
    return " ".join(label.replace("_", " ").replace("/", " ").split()) or label
