"""Pictures decoded once: rows of uint8 in a memory-mapped file that grows, resumable, verified."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import EngineError
from engine.store import write_bytes

try:
    import fcntl
except ImportError:  # no such locks there: two processes that fill one bank do it twice
    fcntl = None

FOLDER = "pixels"  # of the store's home
FORMAT = "tauscope-bank-1"
SPARE = 2**29  # bytes of the disk that are left alone


class Bank:
    """Rows of one shape, filled from the first on; what is filled stays when a run is stopped.

    It lies at ``<home>/pixels/<key>/``: ``rows.bin`` (the rows, nothing else), ``bank.json`` (how
    many are filled, and a sha256 of each piece that was appended) and ``lock``. Reading maps the
    file, so that a set larger than memory costs none. The pieces are verified when size or time of
    change of the file are not those last seen; from the first damaged one on, rows count as
    missing and are filled anew.
    """

    def __init__(self, home: Path, meta: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        """Open the bank that ``meta`` names; nothing is written before the first rows are.

        Args:
            home: The store's home.
            meta: What its rows are made from, plain JSON values; the key is their digest.
            shape: Of one row.
        """
        said = json.dumps([dict(meta), list(shape)], sort_keys=True)
        self.folder = home / FOLDER / hashlib.sha256(said.encode()).hexdigest()[:16]
        self.meta, self.shape = dict(meta), tuple(shape)
        self._row = int(np.prod(shape))

    @property
    def rows_file(self) -> Path:
        """The file of the rows."""
        return self.folder / "rows.bin"

    @contextlib.contextmanager
    def filling(self) -> Generator[int]:
        """Hold the bank alone while rows are appended; others wait to append, and read meanwhile.

        Yields:
            How many rows are filled.

        Raises:
            EngineError: If the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("ab")
        except OSError as error:
            raise EngineError(
                f"cannot write in {self.folder}: {error.strerror}; set TAUSCOPE_CACHE to another "
                "folder"
            ) from error
        with lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.filled()

    def filled(self) -> int:
        """Return how many rows can be read."""
        return sum(rows for rows, _ in self._manifest()["pieces"])

    def check_room(self, rows: int) -> None:
        """Refuse rows that the disk has no room for.

        Raises:
            EngineError: Saying how much is needed and how much is free.
        """
        there = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        need, free = rows * self._row, shutil.disk_usage(there).free
        if need > free - SPARE:
            raise EngineError(
                f"{rows:,} decoded pictures need {need / 1e9:.1f} GB in {there} and "
                f"{free / 1e9:.1f} GB are free; take fewer with --limit, or set TAUSCOPE_CACHE to "
                "a folder on another disk"
            )

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows, within ``filling``.

        Args:
            rows: uint8 (n, *shape).

        Raises:
            EngineError: If the disk is full; what was filled before stays.
        """
        manifest, data = self._manifest(), np.ascontiguousarray(rows, dtype=np.uint8)
        begin = sum(n for n, _ in manifest["pieces"]) * self._row
        try:
            mode = "r+b" if self.rows_file.exists() else "w+b"
            with self.rows_file.open(mode) as file:
                file.seek(begin)
                file.write(memoryview(data).cast("B"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EngineError(
                f"cannot write {self.rows_file}: {error.strerror}; free some space there, or set "
                "TAUSCOPE_CACHE to a folder on another disk"
            ) from error
        manifest["pieces"].append([len(data), hashlib.sha256(data).hexdigest()])
        self._keep(manifest)

    def read(self, rows: int) -> Tensor:
        """Map the first rows.

        Args:
            rows: At most ``filled()``.

        Returns:
            uint8 (rows, *shape); writing to it changes memory and never the file.
        """
        if not rows:
            return torch.empty((0, *self.shape), dtype=torch.uint8)
        mapped = np.memmap(self.rows_file, np.uint8, mode="c", shape=(rows, *self.shape))
        return torch.from_numpy(mapped)

    def noted(self, name: str) -> str | None:
        """Return a digest noted before, of rows that have not changed since."""
        return self._manifest()["notes"].get(name)

    def note(self, name: str, digest: str) -> None:
        """Keep a digest that takes long to compute, unless someone else is filling the bank."""

        def noting(manifest: dict) -> None:
            manifest["notes"][name] = digest

        self._amend(noting)

    def _manifest(self) -> dict:
        """Return what is known of the rows, verified where the file has changed."""
        empty = {"format": FORMAT, "meta": self.meta, "pieces": [], "notes": {}, "stamp": None}
        try:
            manifest = json.loads((self.folder / "bank.json").read_bytes())
            known = (manifest["format"], manifest["meta"]) == (FORMAT, _plain(self.meta))
            if not known or not _are_pieces(manifest["pieces"]):
                return empty
            if manifest["stamp"] == self._stamp():
                return manifest
            return self._verified(manifest)
        except (OSError, ValueError, KeyError, TypeError):  # damaged or gone: filled anew
            return empty

    def _verified(self, manifest: dict) -> dict:
        """Return a manifest with the pieces that are what was written, up to the first damaged."""
        sound, stamp = [], self._stamp()
        with self.rows_file.open("rb") as file:
            for rows, digest in manifest["pieces"]:
                if hashlib.sha256(file.read(rows * self._row)).hexdigest() != digest:
                    break
                sound.append([rows, digest])
        notes = manifest["notes"] if len(sound) == len(manifest["pieces"]) else {}
        found = {**manifest, "pieces": sound, "notes": notes, "stamp": stamp}
        raw = manifest["pieces"]

        def amend(now: dict) -> None:
            if now["pieces"] == raw and self._stamp() == stamp:
                now.update(found)

        self._amend(amend)
        return found

    def _amend(self, change: Callable[[dict], None]) -> None:
        """Change the manifest on disk, if nobody is filling the bank and it can be written."""
        with contextlib.suppress(OSError, ValueError, EngineError):
            with (self.folder / "lock").open("ab") as lock:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path = self.folder / "bank.json"
                manifest = json.loads(path.read_bytes())
                change(manifest)
                write_bytes(path, json.dumps(manifest).encode())

    def _keep(self, manifest: dict) -> None:
        """Write the manifest in one step."""
        manifest["stamp"] = self._stamp()
        write_bytes(self.folder / "bank.json", json.dumps(manifest).encode())

    def _stamp(self) -> list[int] | None:
        """Return size and time of change of the rows."""
        if not self.rows_file.exists():
            return None
        status = self.rows_file.stat()
        return [status.st_size, status.st_mtime_ns]


def _plain(meta: Mapping[str, Any]) -> dict:
    """Return values as JSON gives them back."""
    return json.loads(json.dumps(dict(meta)))


def _are_pieces(pieces: Any) -> bool:
    """Return whether these are counts of rows, each with a digest."""
    return isinstance(pieces, list) and all(
        isinstance(piece, list)
        and len(piece) == 2
        and type(piece[0]) is int
        and piece[0] > 0
        and isinstance(piece[1], str)
        for piece in pieces
    )
