"""Tables of pictures and labels: their files, their columns, their classes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import CheckpointError, UsageError
from engine.tasks.layout import Files, Part, index_labels


def parquet_files(
    root: Path, folders: Sequence[Path], parts: Mapping[str, Sequence[str]]
) -> dict[str, list[Path]]:
    """Return the parquet files of each part.

    Args:
        root: The data set, for messages.
        folders: Where they may lie.
        parts: What the files of a part may begin with.

    Raises:
        UsageError: If there are parquet files, but none of train.
    """
    files = [path for path in sorted(p for f in folders for p in f.glob("*.parquet"))]
    files = [path for path in files if not path.name.startswith(".")]
    found: dict[str, list[Path]] = {}
    for part, names in parts.items():
        pattern = re.compile(f"({'|'.join(map(re.escape, names))})([-_.].*)?")
        chosen = [path for path in files if pattern.fullmatch(path.stem)]
        if chosen:
            found[part] = chosen
    if files and "train" not in found:
        raise UsageError(
            f"{root} has parquet files ({', '.join(p.name for p in files[:3])}) but none named "
            "train*.parquet; rename the training files so"
        )
    return found


def scan_parquet(
    root: Path,
    tables: Mapping[str, Sequence[Path]],
    images: Sequence[str] = ("image",),
    labels: Sequence[str] = ("label",),
) -> Files:
    """Return the data set that parquet files hold; only their label columns are read.

    Args:
        root: Their folder.
        tables: The files of each part.
        images: What the column of pictures may be called.
        labels: What the column of labels may be called.

    Raises:
        UsageError: If the parts name different classes.
    """
    read = {
        part: [_label_column(path, images, labels) for path in paths]
        for part, paths in tables.items()
    }
    columns = {(image, names) for part in read.values() for image, names, _ in part}
    if len(columns) > 1:
        raise UsageError(
            f"the parquet files of {root} name different classes; write them with one ClassLabel"
        )
    image, names = columns.pop()
    values = {part: np.concatenate([v for *_, v in found]) for part, found in read.items()}
    parts = {part: (tuple(tables[part]), values[part]) for part in tables}
    return of_columns(root, "parquet", image, names, parts)


def of_columns(
    root: Path,
    layout: str,
    image: str,
    names: tuple[str, ...] | None,
    columns: Mapping[str, tuple[tuple[Path, ...], np.ndarray]],
) -> Files:
    """Return the data set of tables whose label columns were read.

    Args:
        root: Their folder.
        layout: "parquet" or "arrow".
        image: Name of the column of pictures.
        names: Of the classes, where the tables name them.
        columns: Files and labels (numbers or texts) of each part.

    Raises:
        UsageError: If labels are texts in one part and numbers in another, or unknown texts.
    """
    values = {part: labels for part, (_, labels) in columns.items()}
    if len({array.dtype.kind for array in values.values()}) > 1:
        raise UsageError(f"the labels of {root} are numbers in one part and names in another")
    if values["train"].dtype.kind == "U":
        names = tuple(np.unique(values["train"]).tolist())
        values = {part: index_labels(root, part, names, texts) for part, texts in values.items()}
    count = len(names) if names else int(max(v.max(initial=-1) for v in values.values())) + 1
    parts = {part: Part(columns[part][0], values[part]) for part in columns}
    return Files(root, layout, names, count, parts, image)


def _label_column(
    path: Path, image_names: Sequence[str], label_names: Sequence[str]
) -> tuple[str, tuple[str, ...] | None, np.ndarray]:
    """Return the column of pictures, the class names and the labels of a parquet file.

    Raises:
        CheckpointError: If it is not a readable parquet file.
    """
    import datasets
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        features = datasets.Features.from_arrow_schema(schema)
        label = next((name for name in label_names if name in features), None)
        table = pyarrow.parquet.read_table(path, columns=[label]) if label else None
        cells = table[label].to_pylist() if label else []
    except Exception as error:  # what is damaged can raise almost anything
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is not a readable parquet file ({reason}); copy or download it again"
        ) from error
    image, label = columns_of(str(path), features, image_names, label_names)
    return image, *labels_of(str(path), features[label], cells)


def columns_of(
    where: str, features: Mapping[str, Any], images: Sequence[str], labels: Sequence[str]
) -> tuple[str, str]:
    """Return the names of the columns of pictures and of labels.

    Raises:
        UsageError: If a table has others.
    """
    image, label = (
        next((name for name in names if name in features), None) for names in (images, labels)
    )
    if image is None or label is None:
        raise UsageError(
            f"{where} has the columns {', '.join(features)}; a task needs `{images[0]}` and "
            f"`{labels[0]}`"
        )
    return image, label


def labels_of(
    where: str, feature: Any, cells: Sequence[Any]
) -> tuple[tuple[str, ...] | None, np.ndarray]:
    """Return class names, where there are any, and labels as an array of numbers or texts.

    Raises:
        UsageError: If they are neither.
    """
    names = getattr(feature, "names", None)
    if names is None and all(isinstance(cell, str) for cell in cells):
        return None, np.asarray(cells, dtype=str)
    numbers = [-1 if cell is None else cell for cell in cells]
    if not all(type(number) is int and abs(number) < 2**31 for number in numbers):
        raise UsageError(
            f"the labels in {where} are neither numbers nor names of classes; mend them"
        )
    return tuple(names) if names else None, np.asarray(numbers, dtype=np.int64)
