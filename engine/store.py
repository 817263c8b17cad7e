"""The only reader and writer of ``cache/``: safetensors with a JSON manifest, verified on read."""

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from engine.checks import check_finite
from engine.errors import (
    CheckpointError,
    EngineError,
    MissingDataError,
    NonFiniteError,
    UsageError,
)

FORMAT = "tauscope-1"
KINDS = ("encoder", "checkpoint", "split", "responses", "result", "task")
ROOT = Path(__file__).resolve().parents[1]

_MANIFEST_LIMIT = 16 * 2**20  # bytes; a longer manifest is not one of ours
_STALE = 24 * 3600.0  # seconds after which a temporary file has lost its writer
_REMEDY = {
    "encoder": "make it again with `python -m engine pretrain`",
    "checkpoint": "make it again with `python -m engine finetune`",
    "split": "load the task again, which decodes it anew",
    "responses": "open the view again, which computes it anew",
    "result": "run the command that made it again",
    "task": "add the task again with `python -m engine tasks --add PATH`",
}


@dataclass(frozen=True)
class Entry:
    """One thing in the store.

    ``meta`` is shared between the entries that ``find`` returns: read it, do not change it.
    """

    kind: str  # one of KINDS
    digest: str  # sha256 of the safetensors file, 64 hex digits
    meta: dict  # what made it: plain JSON values
    path: Path  # the .safetensors file; its manifest is beside it with the suffix .json
    size: int  # bytes
    created: str  # ISO time, UTC


class Store:
    """Two roots: ``home``, which is written, and ``embedded``, which is only read.

    A thing of some kind lies at ``<root>/<kind>/<digest[:16]>.safetensors`` with its manifest
    beside it. The digest covers tensors and meta, for the file's header carries the digest of
    the meta; so a manifest edited by hand is found out, and results without tensors stay apart.
    """

    def __init__(self, home: Path, embedded: Path | None = None) -> None:
        self.home = Path(home)
        self.embedded = None if embedded is None else Path(embedded)
        self._manifests: dict[Path, tuple[tuple[int, int], Entry, dict]] = {}
        self._verified: dict[Path, tuple[int, int, str]] = {}

    def put(self, kind: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Entry:
        """Keep tensors with what made them; the same content twice is one entry.

        Args:
            kind: One of ``KINDS``.
            tensors: Tensors by name, any dtype, which is kept; none at all for a pure result.
            meta: Plain JSON values; tuples become lists.

        Returns:
            The entry, on disk and readable by every process.

        Raises:
            NonFiniteError: If a tensor or a number in ``meta`` is NaN or infinite.
            EngineError: If the disk is full or the folder cannot be written; nothing is left over.
        """
        _check_kind(kind)
        check_finite(f"{kind} to be stored", tensors)
        meta = json.loads(_dump(dict(meta)))
        shapes = {name: _describe(tensor) for name, tensor in tensors.items()}
        data = _serialize(tensors, {"format": FORMAT, "kind": kind, "meta": _meta_digest(meta)})
        digest = hashlib.sha256(data).hexdigest()
        path = self.home / kind / f"{digest[:16]}.safetensors"
        created = datetime.now(UTC).isoformat(timespec="microseconds")
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "digest": digest,
            "size": len(data),
            "created": created,
            "tensors": shapes,
            "meta": meta,
        }
        _remove_stale(path.parent)
        write_bytes(path, data)
        # the manifest comes last: without it the file is not there for any reader
        write_bytes(path.with_suffix(".json"), _dump(manifest).encode())
        return Entry(kind, digest, meta, path, len(data), created)

    def get(self, entry: Entry) -> dict[str, Tensor]:
        """Return an entry's tensors, verified, on the CPU, in the dtypes they were put in.

        The digest is computed once for each state of the file (size and time of change).

        Raises:
            MissingDataError: If the file is gone.
            CheckpointError: If it is truncated, altered, foreign or not as its manifest says.
            NonFiniteError: If it holds NaN or infinity.
        """
        path, remedy = entry.path, self._remedy(entry)
        manifest = self._manifest(path.with_suffix(".json"), remedy)[1]
        stamp = (*_stamp(path, remedy), entry.digest)
        known = self._verified.get(path) == stamp
        with _readable(path, remedy):
            data = path.read_bytes()  # not mapped: a change on disk cannot reach tensors in use
            tensors = _verified_tensors(data, entry, manifest, known)
        if not known:
            check_finite(str(path), tensors)
            self._verified[path] = stamp
        return tensors

    def find(self, kind: str, **meta: Any) -> list[Entry]:
        """Return the entries whose meta has all these values, newest first.

        What cannot be read is left out here and listed by ``damaged``.
        """
        _check_kind(kind)
        wanted = json.loads(_dump(meta))
        found: dict[str, Entry] = {}
        for path in self._paths(kind):
            try:
                entry = self._manifest(path)[0]
            except EngineError:
                continue
            if all(key in entry.meta and entry.meta[key] == wanted[key] for key in wanted):
                kept = found.setdefault(entry.digest, entry)
                if entry.created > kept.created:
                    found[entry.digest] = entry
        return sorted(found.values(), key=lambda e: (e.created, e.digest), reverse=True)

    def one(self, kind: str, hint: str, **meta: Any) -> Entry:
        """Return the newest entry with these values.

        Raises:
            MissingDataError: If there is none; ``hint`` names the command that makes it.
        """
        found = self.find(kind, **meta)
        if not found:
            wanted = ", ".join(f"{key} {value}" for key, value in meta.items())
            raise MissingDataError(f"no {kind}{f' with {wanted}' if wanted else ''} here; {hint}")
        return found[0]

    def damaged(self) -> list[tuple[Path, str]]:
        """Return the manifests that cannot be used, each with the reason."""
        problems = []
        for kind in KINDS:
            for path in self._paths(kind):
                try:
                    self._manifest(path)
                except EngineError as error:
                    problems.append((path, str(error)))
        return problems

    def delete(self, entry: Entry) -> None:
        """Remove an entry from ``home``, manifest first.

        Raises:
            UsageError: If the entry is one of the embedded ones.
            EngineError: If the folder cannot be written.
        """
        path = self.home / entry.kind / f"{entry.digest[:16]}.safetensors"
        if entry.path != path:
            raise UsageError(f"{entry.path} is not in {self.home} and stays; nothing was deleted")
        try:
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise EngineError(
                f"{path} cannot be deleted: {error.strerror}; mend the folder's permissions"
            ) from error

    def save_state(self, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Replace the working state of that name, in one step.

        Args:
            name: Any text; it is made into a file name.
            tensors: Tensors by name, any dtype.
            meta: Plain JSON values.
        """
        header = {"format": FORMAT, "state": digest_tensors(tensors), "meta": dict(meta)}
        path = self._state_path(name)
        _remove_stale(path.parent)
        write_bytes(path, _serialize(tensors, header))

    def load_state(self, name: str) -> tuple[dict[str, Tensor], dict] | None:
        """Return the tensors and meta of the working state of that name; None without one.

        Raises:
            CheckpointError: If the state is damaged; the message says how to start anew.
        """
        path = self._state_path(name)
        if not path.exists():
            return None
        with _readable(path, f"delete {path} to start anew"):
            return _verified_state(path.read_bytes())

    def drop_state(self, name: str) -> None:
        """Forget the working state of that name, if there is one."""
        self._state_path(name).unlink(missing_ok=True)

    def _state_path(self, name: str) -> Path:
        """Return where a state lies; names that are not file names get a digest appended."""
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100].lstrip(".")
        if safe != name:
            safe = f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return self.home / "state" / f"{safe}.safetensors"

    def _paths(self, kind: str) -> Iterator[Path]:
        """Yield the manifests of a kind in both roots."""
        for root in (self.home, self.embedded):
            folder = None if root is None else root / kind
            if folder is not None and folder.is_dir():
                for item in os.scandir(folder):
                    if item.name.endswith(".json") and not item.name.startswith("."):
                        yield folder / item.name

    def _manifest(self, path: Path, remedy: str = "delete it") -> tuple[Entry, dict]:
        """Return a checked manifest, recalled if the file has not changed since."""
        stamp = _stamp(path, remedy)
        _stamp(path.with_suffix(".safetensors"), remedy)
        recalled = self._manifests.get(path)
        if recalled is None or recalled[0] != stamp:
            with _readable(path, remedy):
                entry, manifest = _read_manifest(path)
            recalled = self._manifests[path] = (stamp, entry, manifest)
        return recalled[1:]

    def _remedy(self, entry: Entry) -> str:
        """Return what to do about a damaged entry."""
        if self.embedded is not None and entry.path.is_relative_to(self.embedded):
            return "restore it with `git checkout -- cache/embedded`"
        return f"delete it and {_REMEDY[entry.kind]}"


def default_store() -> Store:
    """Return the store of this checkout: ``$TAUSCOPE_CACHE`` or ``cache/local`` as its home."""
    home = os.environ.get("TAUSCOPE_CACHE") or ROOT / "cache" / "local"
    return _opened(Path(home).expanduser().absolute(), ROOT / "cache" / "embedded")


@functools.lru_cache(maxsize=8)
def _opened(home: Path, embedded: Path) -> Store:
    """Return one store a home, so that what was verified once stays known."""
    return Store(home, embedded)


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over sorted names, dtypes, shapes and bytes, 64 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, _describe(tensor)], sort_keys=True).encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a user's safetensors file, hostile or not; no code in it can run.

    Raises:
        MissingDataError: If there is no such file.
        CheckpointError: If it is not a readable safetensors file.
        NonFiniteError: If it holds NaN or infinity.
    """
    path = Path(path)
    remedy = "give a safetensors file (convert others with `safetensors.torch.save_file`)"
    _stamp(path, remedy)
    with _readable(path, remedy):
        tensors, _ = _parse(path.read_bytes())
    check_finite(str(path), tensors)
    return tensors


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in one step: a reader meets the old one or the new one, never half of it.

    Raises:
        EngineError: If the disk is full or the folder cannot be written; nothing is left over.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise EngineError(
            f"cannot write {path}: {error.strerror or error}; free some space there, or set "
            "TAUSCOPE_CACHE to a folder on another disk"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_stale(folder: Path) -> None:
    """Remove temporary files whose writer was killed long ago."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()
        except OSError:  # its writer finished, or another process removed it first
            continue


def _check_kind(kind: str) -> None:
    """Refuse a kind that has no folder.

    Raises:
        ValueError: If ``kind`` is not one of ``KINDS``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")


def _dump(value: Any) -> str:
    """Return JSON in one form only, so that equal values have equal digests.

    Raises:
        NonFiniteError: If a number is NaN or infinite.
        ValueError: If a value is not plain JSON.
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"expected plain JSON values in meta: {error}") from error
    except ValueError as error:
        raise NonFiniteError(
            f"meta holds a number that is NaN or infinite ({error}); find where it arose"
        ) from error


def _meta_digest(meta: dict) -> str:
    """Return the sha256 of a meta in its one form."""
    return hashlib.sha256(_dump(meta).encode()).hexdigest()


def _describe(tensor: Tensor) -> dict:
    """Return a tensor's dtype and shape as JSON values."""
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def _serialize(tensors: Mapping[str, Tensor], header: dict) -> bytes:
    """Return the bytes of a safetensors file that holds the tensors and one JSON header."""
    storages: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        # the format refuses tensors that share memory
        plain[name] = tensor.clone() if pointer in storages else tensor
        storages.add(pointer)
    # one key only: the order of several would differ from run to run, and the digest with it
    return safetensors.torch.save(plain, {"tauscope": _dump(header)})


def _parse(data: bytes) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and our header (empty where the file is not ours).

    Raises:
        TypeError: If our header is not a table; what else is damaged raises almost anything.
    """
    tensors = safetensors.torch.load(data)
    length = int.from_bytes(data[:8], "little")
    extra = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    header = json.loads(extra.get("tauscope", "{}"))
    if not isinstance(header, dict):
        raise TypeError("its header is not a table")
    return tensors, header


def _verified_tensors(data: bytes, entry: Entry, manifest: dict, known: bool) -> dict[str, Tensor]:
    """Return the tensors in ``data`` if they are those that were put.

    Raises:
        ValueError: Saying what differs; ``known`` bytes are not digested again.
    """
    if len(data) != entry.size:
        raise ValueError(f"truncated: {len(data)} bytes where {entry.size} were written")
    if not known and hashlib.sha256(data).hexdigest() != entry.digest:
        raise ValueError("altered after it was written: its digest differs")
    tensors, header = _parse(data)
    if (header.get("format"), header.get("kind")) != (FORMAT, entry.kind):
        raise ValueError(f"not written by this version as a {entry.kind}")
    if header.get("meta") != _meta_digest(manifest["meta"]):
        raise ValueError("its manifest was altered after it was written")
    if {name: _describe(tensor) for name, tensor in tensors.items()} != manifest["tensors"]:
        raise ValueError("its tensors are not those its manifest names")
    return tensors


def _verified_state(data: bytes) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and meta of a working state if they are those that were saved.

    Raises:
        ValueError: Saying what differs.
    """
    tensors, header = _parse(data)
    if header.get("format") != FORMAT or not isinstance(header.get("meta"), dict):
        raise ValueError("not a working state of this version")
    if header.get("state") != digest_tensors(tensors):
        raise ValueError("altered after it was written: its digest differs")
    return tensors, header["meta"]


@contextlib.contextmanager
def _readable(path: Path, remedy: str) -> Generator[None, None, None]:
    """Turn whatever a damaged file raises into one sentence.

    Raises:
        CheckpointError: Naming the file, the cause and the remedy.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    except Exception as error:  # what is damaged can raise almost anything
        raise CheckpointError(f"{path} is damaged or foreign ({error}); {remedy}") from error


def _stamp(path: Path, remedy: str) -> tuple[int, int]:
    """Return size and time of change of a regular file.

    Raises:
        MissingDataError: If it is not there.
    """
    with _readable(path, remedy):
        if path.is_file():
            status = path.stat()
            return status.st_size, status.st_mtime_ns
    raise MissingDataError(f"{path} is not there, or not a file; {remedy}")


def _read_manifest(path: Path) -> tuple[Entry, dict]:
    """Return a manifest, checked field by field; where the file lies is never read from it.

    Raises:
        ValueError: Saying which field is wrong; what else is damaged raises almost anything.
    """
    if path.stat().st_size > _MANIFEST_LIMIT:
        raise ValueError("too large for a manifest")
    manifest = json.loads(path.read_bytes())
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    kind, digest, size = manifest.get("kind"), manifest.get("digest"), manifest.get("size")
    created = datetime.fromisoformat(manifest.get("created")).astimezone(UTC)
    tables = (manifest.get("tensors"), manifest.get("meta"))
    problems = {
        "its kind is not that of its folder": kind != path.parent.name,
        "its digest is not 64 hex digits": not re.fullmatch("[0-9a-f]{64}", str(digest)),
        "its digest is not that of its file name": str(digest)[:16] != path.stem,
        "its size is not a count of bytes": type(size) is not int or size < 0,
        "its tensors or meta are not tables": not all(isinstance(t, dict) for t in tables),
    }
    for problem, present in problems.items():
        if present:
            raise ValueError(problem)
    _dump(manifest["meta"])  # refuses NaN
    file = path.with_suffix(".safetensors")
    entry = Entry(kind, digest, tables[1], file, size, created.isoformat(timespec="microseconds"))
    return entry, manifest
