"""Tasks of a user's own on the command line: remembered, so that every page offers them."""

import argparse
from pathlib import Path

from engine.errors import EngineError, UsageError
from engine.store import Store
from engine.tasks import Task, load_task, own
from engine.tasks.words import read


def change(store: Store, args: argparse.Namespace) -> list[str]:
    """Remember and forget the tasks named.

    Args:
        store: Where they are kept.
        args: With ``add`` and ``forget``, lists of what ``load_task`` takes, and ``words``, a file.

    Returns:
        What the tasks added are known by.

    Raises:
        UsageError: If words are given for more than one task, or a task is not remembered.
    """
    if args.words and len(args.add) != 1:
        raise UsageError("--words are those of one task; add it alone, with --add")
    path = Path(args.words).expanduser() if args.words else None
    if path is not None and not path.is_file():
        raise UsageError(f"{path} is no file; give a YAML file of title, classnames, templates")
    said = None if path is None else read(path)
    added = [own.add(store, reference, said) for reference in args.add]
    for reference in args.forget:
        _forget(store, reference)
    return added


def _forget(store: Store, reference: str) -> None:
    """Take a task off the list, named as it is remembered or as it was added.

    Raises:
        UsageError: If it is not on it.
    """
    path = str(Path(reference).expanduser().absolute().resolve())
    if not own.forget(store, reference) and not own.forget(store, path):
        kept = ", ".join(own.remembered(store)) or "none"
        raise UsageError(f"{reference} is not among the tasks remembered: {kept}")


def loaded(references: list[str]) -> tuple[list[Task], list[dict[str, str]]]:
    """Load remembered tasks; one whose data is gone hides none of the others.

    Args:
        references: As they are remembered.

    Returns:
        The tasks, and {"reference", "reason"} of those that cannot be loaded.
    """
    found, gone = [], []
    for reference in references:
        try:
            found.append(load_task(reference))
        except EngineError as error:
            gone.append({"reference": reference, "reason": str(error)})
    return found, gone
