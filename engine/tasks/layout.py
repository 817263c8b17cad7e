"""What a data set on disk is: its files, labels and parts, and a fingerprint of them."""

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import MissingDataError, UsageError

RECORD = "dataset_info.json"  # of what the library prepared


@dataclass(frozen=True)
class Part:
    """One of the parts a data set came in: files and what is known without decoding a picture."""

    files: tuple[Path, ...]  # one a picture, or parquet files in order
    labels: np.ndarray = field(compare=False)  # int64 (N,)


@dataclass(frozen=True)
class Files:
    """A data set on disk.

    Attributes:
        root: Its folder.
        layout: "folders", "parquet", or "arrow" as the ``datasets`` library keeps a hub's.
        labels: Label names in the order of the labels; None where the data has numbers only.
        count: C, the number of classes.
        parts: "train", and "validation" and "test" where they were given.
        image: Name of the column of pictures, in tables.
    """

    root: Path
    layout: str
    labels: tuple[str, ...] | None
    count: int
    parts: dict[str, Part]
    image: str = "image"

    def fingerprint(self) -> str:
        """Return a sha256 over names, sizes and contents of the files; times play no part.

        What the library prepared is known by its record, which holds the hub's own digests.
        """
        arrow = self.layout == "arrow"
        listed = [
            [part, path.relative_to(self.root).as_posix(), *_content(path, arrow)]
            for part in sorted(self.parts)
            for path in self.parts[part].files
        ]
        listed += [_content(self.root / RECORD)] if arrow else []
        return hashlib.sha256(json.dumps([self.layout, self.labels, listed]).encode()).hexdigest()


def checked(found: Files) -> Files:
    """Return a data set whose labels and classes can be used.

    Raises:
        UsageError: If they cannot.
    """
    root = found.root
    if found.count < 2:
        raise UsageError(
            f"{root} holds images of {found.count} class(es); a task needs two or more"
        )
    for name, part in found.parts.items():
        if not len(part.labels):
            raise UsageError(f"the {name} part of {root} holds no images; add some")
        bad = int(((part.labels < 0) | (part.labels >= found.count)).sum())
        if bad:
            raise UsageError(
                f"{bad} of {len(part.labels)} images in the {name} part of {root} have no label of "
                f"the {found.count} classes (-1 means a hidden label); use a part with labels"
            )
        _check_seen(found, name)
    return found


def index_labels(root: Path, part: str, names: tuple[str, ...], texts: np.ndarray) -> np.ndarray:
    """Return labels as positions in the sorted names.

    Args:
        root: The data set, for messages.
        part: Whose labels they are.
        names: Of train's classes, sorted.
        texts: Names (N,).

    Returns:
        int64 (N,).

    Raises:
        UsageError: If a name is not one of train's.
    """
    unknown = sorted(set(texts.tolist()) - set(names))
    if unknown:
        raise UsageError(
            f"the {part} part of {root} has {len(unknown)} classes that train lacks "
            f"({', '.join(unknown[:3])}); remove them or add training images"
        )
    return np.searchsorted(np.asarray(names), texts).astype(np.int64)


def _content(path: Path, unread: bool = False) -> tuple[int, str]:
    """Return size and sha256 of a file, read once for each state of it; or its size alone.

    Raises:
        MissingDataError: If it cannot be read.
    """
    try:
        status = path.stat()
        if unread:
            return status.st_size, ""
        return status.st_size, _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise MissingDataError(f"{path} cannot be read: {error.strerror}; restore it") from error


@functools.lru_cache(maxsize=200_000)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Return the sha256 of a file; size and time of change say which state of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_seen(files: Files, part: str) -> None:
    """Refuse classes that a part has and train has not.

    Raises:
        UsageError: Naming the first three.
    """
    unseen = np.setdiff1d(files.parts[part].labels, files.parts["train"].labels)
    if len(unseen):
        names = [files.labels[i] if files.labels else str(i) for i in unseen[:3]]
        raise UsageError(
            f"the {part} part of {files.root} has {len(unseen)} classes that train lacks "
            f"({', '.join(names)}); remove them or add training images"
        )
