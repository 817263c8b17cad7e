"""Class names and prompts of a user's task: from ``tauscope.yaml``, or good defaults."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.errors import UsageError

FILE = "tauscope.yaml"
TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a close-up photo of a {}.",
    "a low resolution photo of a {}.",
)

KEYS = ("title", "description", "classnames", "templates")
_LIMIT = 2**20  # bytes; a longer file is not one of ours


@dataclass(frozen=True)
class Words:
    """What a task says to the text tower and to people."""

    title: str
    description: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]


def words(root: Path, labels: Sequence[str] | None, count: int) -> Words:
    """Return the words of the task in a folder.

    Args:
        root: The task's folder; ``tauscope.yaml`` in it may set title, description,
            classnames (a list in the order of the labels, or a mapping from label name) and
            templates (each with exactly one ``{}``).
        labels: Label names as the data has them; None where it has numbers only.
        count: C, the number of classes.

    Returns:
        Words with C class names, all different.

    Raises:
        UsageError: If the file says something that cannot be carried out.
    """
    path = root / FILE
    return spoken(path, read(path), root.name, str(root), labels, count)


def spoken(
    path: Path,
    given: dict[str, Any],
    name: str,
    where: str,
    labels: Sequence[str] | None,
    count: int,
) -> Words:
    """Return the words that a YAML file gives, and defaults for what it leaves out.

    Args:
        path: The file, for messages.
        given: What ``read`` found in it.
        name: The task's name, which becomes its title.
        where: Where the data is, for messages.
        labels: Label names as the data has them; None where it has numbers only.
        count: C, the number of classes.

    Returns:
        Words with C class names, all different.

    Raises:
        UsageError: If the file says something that cannot be carried out.
    """
    title = _text(path, given, "title", plain(name))
    description = _text(path, given, "description", "")
    if "classnames" in given:
        names = _classnames(path, given["classnames"], labels, count)
    elif labels is not None:
        names = tuple(plain(label) for label in labels)
        names = names if len(set(names)) == len(names) else tuple(labels)
    else:
        raise UsageError(
            f"the labels in {where} are numbers without names; name them in {path} as a list: "
            f"`classnames: [first, second, ...]`, {count} of them"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"{len(twice)} class names of {where} stand for several classes "
            f"({', '.join(twice[:3])}); give every class its own name in {path}"
        )
    return Words(title, description, names, _templates(path, given))


def plain(label: str) -> str:
    """Return a label as words: underscores and CamelCase taken apart.

    >>> plain("HerbaceousVegetation"), plain("annual_crop"), plain("USBStick"), plain("7")
    ('herbaceous vegetation', 'annual crop', 'USB stick', '7')
    """
    spaced = " ".join(label.replace("_", " ").split())
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", spaced)
    if apart != spaced:  # capitals marked the borders of words, so they mean nothing else
        apart = " ".join(w.lower() if w[1:].islower() else w for w in apart.split())
    return apart or label


def read(path: Path, keys: Sequence[str] = KEYS) -> dict[str, Any]:
    """Return what a YAML file says; nothing without one.

    Args:
        path: The file.
        keys: Those it may have.

    Returns:
        Plain values by key, the values not checked.

    Raises:
        UsageError: If it is not a table with known keys.
    """
    if not path.exists():
        return {}
    try:
        text = path.read_bytes()[: _LIMIT + 1]
        given = yaml.safe_load(text if len(text) <= _LIMIT else "[longer than 1 MB")
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not readable YAML ({reason}); mend or delete it") from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UsageError(f"{path} must be a table with the keys {', '.join(keys)}; mend it")
    unknown = [str(key) for key in given if key not in keys]
    if unknown:
        raise UsageError(
            f"{path} has unknown keys ({', '.join(unknown[:3])}); known are {', '.join(keys)}"
        )
    return given


def _text(path: Path, given: dict, key: str, default: str) -> str:
    """Return one line of text.

    Raises:
        UsageError: If it is something else.
    """
    value = given.get(key, default)
    if not isinstance(value, str) or (key == "title" and not value.strip()):
        raise UsageError(f"{path}: {key} must be text, got {value!r}; mend it")
    return value.strip()


def _classnames(
    path: Path, given: Any, labels: Sequence[str] | None, count: int
) -> tuple[str, ...]:
    """Return C class names from a list or a mapping.

    Raises:
        UsageError: If they do not fit the labels.
    """
    if isinstance(given, dict):
        if labels is None:
            raise UsageError(
                f"{path}: the labels are numbers; give classnames as a list of {count}"
            )
        by_label = {str(key): value for key, value in given.items()}
        unknown = [label for label in by_label if label not in labels]
        if unknown:
            raise UsageError(
                f"{path}: classnames has {len(unknown)} labels that the data has not "
                f"({', '.join(unknown[:3])}); the labels are {', '.join(labels[:5])}, ..."
            )
        given = [by_label.get(label, plain(label)) for label in labels]
    if not isinstance(given, list) or len(given) != count:
        found = f"{len(given)} names" if isinstance(given, list) else repr(given)
        raise UsageError(f"{path}: classnames must be a list of {count} names, got {found}")
    # YAML reads 0, 1, yes, no as values that are not text
    bad = [name for name in given if not isinstance(name, str) or not name.strip()]
    if bad:
        raise UsageError(f"{path}: classnames must all be text, got {bad[0]!r}; put it in quotes")
    return tuple(name.strip() for name in given)


def _templates(path: Path, given: dict) -> tuple[str, ...]:
    """Return the prompts.

    Raises:
        UsageError: If one of them has not exactly one place for the class name.
    """
    templates = given.get("templates", list(TEMPLATES))
    if not isinstance(templates, list) or not templates:
        raise UsageError(f"{path}: templates must be a list of prompts, got {templates!r}")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise UsageError(f"{path}: the template {template!r} must hold {{}} exactly once")
        if set("{}") & set(template.replace("{}", "")):
            raise UsageError(f"{path}: the template {template!r} has braces other than {{}}")
    return tuple(templates)
