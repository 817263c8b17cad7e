"""A few pictures of a user's data set, before anything is decoded as a whole."""

from collections.abc import Sequence

import numpy as np

from engine.errors import CheckpointError
from engine.tasks import pixels
from engine.tasks.files import fetch, open_rows
from engine.tasks.layout import Files

GROUPS = 8  # places of a parquet part that are looked at: hubs often sort by class
ROWS = 32  # pictures read at each of them
PART = "train"


def class_counts(files: Files) -> dict[str, np.ndarray]:
    """Count the pictures of each class in each part as given.

    Args:
        files: What ``files.scan`` found.

    Returns:
        int64 (C,) by part.
    """
    return {
        name: np.bincount(part.labels, minlength=files.count) for name, part in files.parts.items()
    }


def sample(files: Files, wanted: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode a few training pictures, of as many classes as are met.

    Args:
        files: What ``files.scan`` found.
        wanted: Pictures at most.
        size: Pixels a side.

    Returns:
        uint8 (n, size, size, 3) and int64 (n,) labels.

    Raises:
        CheckpointError: If the files cannot be read, or pictures among these are damaged.
    """
    labels = files.parts[PART].labels
    if files.layout == "arrow":
        rows = _spread(labels, np.arange(len(labels)), wanted)
        encoded = dict(zip(rows, _prepared_rows(files, rows), strict=True))
    elif files.layout == "folders":
        rows = _spread(labels, np.arange(len(labels)), wanted)
        paths = files.parts[PART].files
        # a pipe under a picture's name would be read for ever
        data = {row: paths[row].read_bytes() if paths[row].is_file() else b"" for row in rows}
        encoded = {row: (_name(files, row), data[row]) for row in rows}
    else:
        try:
            met = _parquet_rows(files)
        except Exception as error:  # what is damaged can raise almost anything
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"the {PART} part of {files.root} cannot be read ({reason}); copy or download it "
                "again"
            ) from error
        rows = _spread(labels, np.asarray(sorted(met)), wanted)
        encoded = {row: (f"row {row} of {PART}", met[row]) for row in rows}
    images = pixels.decode(
        lambda chosen: [encoded[row] for row in chosen], rows, size, f"{files.root.name} {PART}"
    )
    return images.permute(0, 2, 3, 1).contiguous().numpy(), labels[rows]


def _prepared_rows(files: Files, rows: list[int]) -> list[tuple[str, bytes]]:
    """Return names and encoded pictures of what the library prepared; it maps its files.

    Raises:
        CheckpointError: If they cannot be read.
    """
    try:
        return fetch(files, PART, open_rows(files, PART, files.root), rows)
    except Exception as error:  # what is damaged can raise almost anything
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the {PART} part of {files.root} cannot be read ({reason}); fetch it again"
        ) from error


def _name(files: Files, row: int) -> str:
    return files.parts[PART].files[row].relative_to(files.root).as_posix()


def _spread(labels: np.ndarray, rows: np.ndarray, wanted: int) -> list[int]:
    """Choose rows of different classes, evenly over the classes; repeat them only when short."""
    rounds: dict[int, list[list[int]]] = {}
    seen: dict[int, int] = {}
    for row in rows.tolist():
        turn = seen[int(labels[row])] = seen.get(int(labels[row]), -1) + 1
        if turn < wanted:
            rounds.setdefault(turn, []).append(row)
    chosen: list[int] = []
    for turn in sorted(rounds):
        left = wanted - len(chosen)
        if left <= 0:
            break
        one_each = sorted(rounds[turn], key=lambda row: labels[row])
        places = np.linspace(0, len(one_each) - 1, min(left, len(one_each))).round().astype(int)
        chosen += [one_each[place] for place in places]
    return sorted(chosen, key=lambda row: (labels[row], row))


def _parquet_rows(files: Files) -> dict[int, bytes]:
    """Return the encoded pictures at a few places of a part, by row.

    A row must hold its bytes: the path in it could name any file on this machine.
    """
    import pyarrow.parquet

    groups: list[tuple[object, int, int]] = []  # file, row group, its first row in the part
    first = 0
    for path in files.parts[PART].files:
        table = pyarrow.parquet.ParquetFile(path)
        for group in range(table.num_row_groups):
            groups.append((table, group, first))
            first += table.metadata.row_group(group).num_rows
    found: dict[int, bytes] = {}
    for table, group, start in _even(groups, GROUPS):
        batches = table.iter_batches(batch_size=ROWS, row_groups=[group], columns=[files.image])
        batch = next(batches, None)
        cells: Sequence[dict | None] = [] if batch is None else batch.column(0).to_pylist()
        found |= {start + i: (cell or {}).get("bytes") or b"" for i, cell in enumerate(cells)}
    return found


def _even(items: list, wanted: int) -> list:
    """Return so many items, evenly spread; all of them where there are fewer."""
    if len(items) <= wanted:
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, wanted).round().astype(int)]
