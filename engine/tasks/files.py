"""A data set on disk: folders of images a class, or parquet files in the hub's layout."""

import glob
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import EngineError, MissingDataError
from engine.tasks.layout import Files, Part, checked, index_labels
from engine.tasks.tables import parquet_files, scan_parquet

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
LAYOUTS = (
    "train/<class>/*.png with test/<class>/*.png, or <class>/*.png, or train*.parquet with "
    "test*.parquet"
)

PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


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
    tables = parquet_files(root, (root, root / "data"), PARTS)
    return checked(scan_parquet(root, tables) if tables else _scan_folders(root))


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
    if files.layout == "arrow":
        pieces = [datasets.Dataset.from_file(path) for path in files_of_part]
        rows = datasets.concatenate_datasets(pieces).select_columns([files.image])
        return _named(rows, files.image).cast_column("image", encoded)
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
            columns=[files.image],
        )
    finally:
        if not silent:
            datasets.enable_progress_bars()
    return _named(rows, files.image).cast_column("image", encoded)


def _named(rows: Any, image: str) -> Any:
    """Return rows whose pictures are called image."""
    return rows if image == "image" else rows.rename_column(image, "image")


def fetch(files: Files, part: str, rows: Any, indices: Sequence[int]) -> list[tuple[str, bytes]]:
    """Read names and encoded bytes of some pictures.

    A row of a table must hold its bytes: the path in it could name any file on this machine. Only
    what the library prepared may point at files, those that the library itself unpacked.

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
            data = cell.get("bytes") or b""
            if not data and files.layout == "arrow":
                data = _unpacked(cell.get("path"))
            items.append((f"row {index} of {part}", data))
    return items


def _unpacked(path: str | None) -> bytes:
    """Return a file that the library unpacked into its own cache; nothing of any other."""
    import datasets.config

    place = Path(path or "").resolve()
    inside = any(
        place.is_relative_to(Path(folder).expanduser().resolve())
        for folder in (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH)
    )
    return place.read_bytes() if path and inside and place.is_file() else b""


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


def _scan_folders(root: Path) -> Files:
    """Return the data set that folders of images hold.

    Raises:
        MissingDataError: If there are no images in any of the layouts.
    """
    given = {part: _part_folder(root, names) for part, names in PARTS.items()}
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
        parts[part] = Part(tuple(p for p, _ in pairs), index_labels(root, part, names, texts))
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
