"""A user's task on disk: folders of images a class, or parquet files in the hub's layout."""

import functools
import glob
import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import CheckpointError, EngineError, MissingDataError, UsageError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
LAYOUTS = (
    "train/<class>/*.png with test/<class>/*.png, or <class>/*.png, or train*.parquet with "
    "test*.parquet"
)

_PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


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
        layout: "folders" or "parquet".
        labels: Label names in the order of the labels; None where the data has numbers only.
        count: C, the number of classes.
        parts: "train", and "validation" and "test" where they were given.
    """

    root: Path
    layout: str
    labels: tuple[str, ...] | None
    count: int
    parts: dict[str, Part]

    def fingerprint(self) -> str:
        """Return a sha256 over names, sizes and contents of the files; times play no part."""
        listed = [
            [part, path.relative_to(self.root).as_posix(), *_content(path)]
            for part in sorted(self.parts)
            for path in self.parts[part].files
        ]
        return hashlib.sha256(json.dumps([self.layout, self.labels, listed]).encode()).hexdigest()


def scan(root: Path) -> Files:
    """Look at a folder and say what data set it holds, labels included.

    Args:
        root: The folder; its layout is one of ``LAYOUTS``.

    Returns:
        The data set, checked: labels in range, at least two classes, nothing in test or
        validation of a class that train lacks.

    Raises:
        UsageError: If the labels or classes cannot be used.
    """
    tables = _parquet_files(root)
    found = _scan_parquet(root, tables) if tables else _scan_folders(root)
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


def open_rows(files: Files, part: str, scratch: Path) -> Any:
    """Open a part as a ``datasets.Dataset`` whose pictures stay encoded.

    Args:
        files: The data set.
        part: One of its parts.
        scratch: A folder for the library's working files.

    Returns:
        Dataset with the column ``image`` of {"bytes", "path"}.
    """
    import datasets

    files_of_part = [str(path) for path in files.parts[part].files]
    encoded = datasets.Image(decode=False)
    if files.layout == "folders":
        features = datasets.Features({"image": encoded})
        return datasets.Dataset.from_dict({"image": files_of_part}, features=features)
    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        # the reader takes patterns; load_dataset would report its use over the network
        rows = datasets.Dataset.from_parquet(
            [glob.escape(path) for path in files_of_part],
            split=part,
            cache_dir=str(scratch),
            columns=["image"],
        )
    finally:
        if not silent:
            datasets.enable_progress_bars()
    return rows.cast_column("image", encoded)


def fetch(files: Files, part: str, rows: Any, indices: Sequence[int]) -> list[tuple[str, bytes]]:
    """Read names and encoded bytes of some pictures.

    A parquet row must hold its bytes: the path in it could name any file on this machine.

    Args:
        files: The data set.
        part: One of its parts.
        rows: What ``open_rows`` returned.
        indices: Which rows.

    Returns:
        Name and bytes of each; empty bytes where they are missing.
    """
    items = []
    for index, cell in zip(indices, rows[list(indices)]["image"], strict=True):
        cell = cell or {}
        if files.layout == "folders":
            path = Path(cell["path"])
            data = path.read_bytes() if path.is_file() else b""
            items.append((path.relative_to(files.root).as_posix(), data))
        else:
            items.append((f"row {index} of {part}", cell.get("bytes") or b""))
    return items


def scratch_folder(home: Path) -> tempfile.TemporaryDirectory:
    """Return a folder inside the store's home that removes itself when it is left.

    Raises:
        EngineError: If the disk is full or the folder cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".decode-", dir=home, ignore_cleanup_errors=True)
    except OSError as error:
        raise EngineError(
            f"cannot write in {home}: {error.strerror}; set TAUSCOPE_CACHE to another folder"
        ) from error


def _content(path: Path) -> tuple[int, str]:
    """Return size and sha256 of a file, read once for each state of it.

    Raises:
        MissingDataError: If it cannot be read.
    """
    try:
        status = path.stat()
        return status.st_size, _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise MissingDataError(f"{path} cannot be read: {error.strerror}; restore it") from error


@functools.lru_cache(maxsize=200_000)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Return the sha256 of a file; size and time of change say which state of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parquet_files(root: Path) -> dict[str, list[Path]]:
    """Return the parquet files of each part, in the folder itself or in ``data/`` in it.

    Raises:
        UsageError: If there are parquet files, but none of train.
    """
    files = [p for p in sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])]
    files = [path for path in files if not path.name.startswith(".")]
    parts: dict[str, list[Path]] = {}
    for part, names in _PARTS.items():
        pattern = re.compile(f"({'|'.join(names)})([-_.].*)?")
        chosen = [path for path in files if pattern.fullmatch(path.stem)]
        if chosen:
            parts[part] = chosen
    if files and "train" not in parts:
        raise UsageError(
            f"{root} has parquet files ({', '.join(p.name for p in files[:3])}) but none named "
            "train*.parquet; rename the training files so"
        )
    return parts


def _scan_parquet(root: Path, tables: dict[str, list[Path]]) -> Files:
    """Return the data set that parquet files hold; only their label columns are read.

    Raises:
        UsageError: If the parts name different classes.
    """
    columns = {part: [_label_column(path) for path in paths] for part, paths in tables.items()}
    named = {names for part in columns.values() for names, _ in part}
    if len(named) > 1:
        raise UsageError(
            f"the parquet files of {root} name different classes; write them with one ClassLabel"
        )
    names = named.pop()
    values = {part: np.concatenate([v for _, v in read]) for part, read in columns.items()}
    if len({array.dtype.kind for array in values.values()}) > 1:
        raise UsageError(f"the labels of {root} are numbers in one part and names in another")
    if values["train"].dtype.kind == "U":
        names = tuple(np.unique(values["train"]).tolist())
        values = {part: _index(root, part, names, texts) for part, texts in values.items()}
    count = len(names) if names else int(max(v.max(initial=-1) for v in values.values())) + 1
    parts = {part: Part(tuple(tables[part]), values[part]) for part in tables}
    return Files(root, "parquet", names, count, parts)


def _label_column(path: Path) -> tuple[tuple[str, ...] | None, np.ndarray]:
    """Return the class names and labels of a parquet file.

    Raises:
        CheckpointError: If it is not a readable parquet file.
        UsageError: If its columns are others.
    """
    import datasets
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        features = datasets.Features.from_arrow_schema(schema)
        labels = (
            pyarrow.parquet.read_table(path, columns=["label"]) if "label" in features else None
        )
    except Exception as error:  # what is damaged can raise almost anything
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is not a readable parquet file ({reason}); copy or download it again"
        ) from error
    if labels is None or "image" not in features:
        raise UsageError(
            f"{path} has the columns {', '.join(features)}; a task needs `image` and `label`"
        )
    cells = labels["label"].to_pylist()
    names = getattr(features["label"], "names", None)
    if names is None and all(isinstance(cell, str) for cell in cells):
        return None, np.asarray(cells, dtype=str)
    numbers = [-1 if cell is None else cell for cell in cells]
    if not all(type(number) is int and abs(number) < 2**31 for number in numbers):
        raise UsageError(
            f"the labels in {path} are neither numbers nor names of classes; mend them"
        )
    return tuple(names) if names else None, np.asarray(numbers, dtype=np.int64)


def _index(root: Path, part: str, names: tuple[str, ...], texts: np.ndarray) -> np.ndarray:
    """Return labels as positions in the sorted names.

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


def _scan_folders(root: Path) -> Files:
    """Return the data set that folders of images hold.

    Raises:
        MissingDataError: If there are no images in any of the layouts.
    """
    given = {part: _part_folder(root, names) for part, names in _PARTS.items()}
    folders = {part: folder for part, folder in given.items() if folder is not None}
    if "train" not in folders:
        folders = {"train": root}  # no parts: each folder is a class
    listed = {part: _images_by_class(folder) for part, folder in folders.items()}
    names = tuple(sorted(listed["train"]))
    if not names:
        raise MissingDataError(f"no images found in {folders['train']}; lay them out as {LAYOUTS}")
    parts = {}
    for part, by_class in listed.items():
        pairs = [(path, label) for label in sorted(by_class) for path in by_class[label]]
        texts = np.asarray([label for _, label in pairs], dtype=str)
        parts[part] = Part(tuple(p for p, _ in pairs), _index(root, part, names, texts))
    return Files(root, "folders", names, len(names), parts)


def _part_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of a part, under any of its usual names."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def _images_by_class(folder: Path) -> dict[str, list[Path]]:
    """Return the images in each sub-folder that has any, by the sub-folder's name."""
    classes = {}
    for sub in sorted(folder.iterdir()):
        if sub.is_dir() and not sub.name.startswith((".", "__")):
            images = [
                path
                for path in sorted(sub.rglob("*"))
                if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
            ]
            if images:
                classes[sub.name] = images
    return classes


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
