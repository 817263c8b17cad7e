"""Encoded pictures of a data set into a bank of decoded ones, piece by piece."""

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.banks import Bank
from engine.errors import CheckpointError
from engine.tasks import files, pixels
from engine.tasks.layout import Files

_log = logging.getLogger(__name__)
PIECE = 1024  # pictures decoded at a time, and lost at most when a run is stopped


@dataclass(frozen=True)
class Pictures:
    """The encoded pictures of one part of a data set, and what messages call them."""

    found: Files
    part: str
    name: str
    source: str

    def opened(self, scratch: Path) -> Any:
        """Open them.

        Args:
            scratch: A folder for the library's working files.

        Returns:
            Rows for ``fetch``.

        Raises:
            CheckpointError: If the files are damaged.
        """
        try:
            return files.open_rows(self.found, self.part, scratch)
        except Exception as error:  # what is damaged can raise almost anything
            raise CheckpointError(self._damaged(error)) from error

    def fetch(self, opened: Any, chosen: Sequence[int]) -> list[tuple[str, bytes]]:
        """Read some of them.

        Args:
            opened: What ``opened`` returned.
            chosen: Which rows.

        Returns:
            Name and encoded bytes of each.

        Raises:
            CheckpointError: If the files are damaged.
        """
        try:
            return files.fetch(self.found, self.part, opened, chosen)
        except Exception as error:  # as above: tables that are mapped are damaged where read
            raise CheckpointError(self._damaged(error)) from error

    def _damaged(self, error: Exception) -> str:
        """Return the sentence for files that cannot be read."""
        reason = " ".join(str(error).split())[:200]
        return (
            f"the {self.part} part of {self.source} cannot be read ({reason}); "
            "copy or download it again"
        )


def decoded(
    pictures: Pictures,
    rows: np.ndarray,
    size: int,
    home: Path,
    made_by: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """Return a bank whose first rows are these pictures, decoding what it lacks of them.

    Memory holds one piece at a time; the disk N·3·S² bytes, 150 KB a picture at 224 pixels.

    Args:
        pictures: Encoded.
        rows: Which, in order; those of an earlier, shorter call are the first of them.
        size: S, pixels a side.
        home: The store's.
        made_by: What the pictures are made from, plain values: the bank's identity.
        progress: ``progress(done, total)`` after each piece; to stop, raise in it. By default
            the engine's log tells of it.

    Returns:
        The bank, with ``len(rows)`` rows or more.

    Raises:
        CheckpointError: If files or pictures are damaged.
        EngineError: If the disk is full.
    """
    bank = Bank(home, made_by, (3, size, size))
    if bank.filled() >= len(rows):
        return bank
    with bank.filling() as done:
        if done >= len(rows):  # another process filled it meanwhile
            return bank
        bank.check_room(len(rows) - done)
        with files.scratch_folder(home) as scratch:
            progress = progress or _telling(f"decoding {pictures.name} {pictures.part}", done)
            _fill(bank, pictures, rows, done, pictures.opened(Path(scratch)), progress)
    return bank


def _fill(
    bank: Bank,
    pictures: Pictures,
    rows: np.ndarray,
    done: int,
    opened: Any,
    progress: Callable[[int, int], None],
) -> None:
    """Decode from a row on to the last."""
    where = f"{pictures.name} {pictures.part}"
    while done < len(rows):
        piece = rows[done : done + PIECE].tolist()
        images = pixels.decode(
            lambda chosen: pictures.fetch(opened, chosen), piece, bank.shape[-1], where
        )
        bank.append(images.numpy())
        done += len(piece)
        progress(done, len(rows))


def shared_pictures(found: Files, name: str, source: str) -> int:
    """Count the pictures of test whose bytes are those of a picture of train.

    Args:
        found: A data set with both parts.
        name: The task's, for messages.
        source: The task's, for messages.

    Returns:
        How many.

    Raises:
        CheckpointError: If files are damaged.
    """
    digests: dict[str, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for part in ("train", "test"):
            pictures = Pictures(found, part, name, source)
            opened = pictures.opened(Path(scratch))
            total = len(found.parts[part].labels)
            digests[part] = [
                hashlib.sha256(data).digest()
                for start in range(0, total, PIECE)
                for _, data in pictures.fetch(opened, range(start, min(start + PIECE, total)))
            ]
    trained = set(digests["train"])
    return sum(digest in trained for digest in digests["test"])


def _telling(what: str, before: int, every: float = 2.0) -> Callable[[int, int], None]:
    """Return a progress callback that logs every few seconds, with the rate."""
    began = spoken = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal spoken
        now = time.monotonic()
        if now - spoken >= every:
            spoken, rate = now, (done - before) / (now - began)
            _log.info("%s: %s of %s pictures, %.0f a second", what, f"{done:,}", f"{total:,}", rate)

    return tell
