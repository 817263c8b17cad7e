"""Files that a visitor names or sends: nothing of theirs decides where a byte is written."""

import contextlib
import re
import stat
import zipfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

UNPACKED = 2 * 2**30  # bytes; weights hardly shrink, and an upload has 50 MB
SHRUNK = 40  # times; what unpacks to more was made to fill a disk
MEMBERS = 1000
PIECE = 2**20
# beside weights in the folders of others; left where they are
PAPERS = (".md", ".txt", ".json", ".gitattributes", ".py", ".jinja", ".png", ".jpg", ".ds_store")


@dataclass(frozen=True)
class Upload:
    """A file that a visitor's browser sent; equal ids are the same bytes."""

    name: str
    id: str
    data: bytes | memoryview = field(compare=False, repr=False)


def typed_path(text: str) -> Path:
    """Read a path as it was typed into a page.

    Args:
        text: By anyone.

    Returns:
        An absolute path.

    Raises:
        UsageError: If it is empty, relative, leads upwards or cannot be a path.
    """
    from engine.errors import UsageError
    from engine.exchange.sources import shown

    text = text.strip()
    if not text:
        raise UsageError("no path is given; type where the file or folder lies on this server")
    bad = next((char for char in text if not char.isprintable()), None)
    if bad is not None or len(text) > 2000:
        raise UsageError(f"{shown(text)} cannot be a path; type it again")
    if ".." in Path(text).parts:
        raise UsageError(
            f"{shown(text, 300)} leads upwards through `..`; type the path it comes to"
        )
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{shown(text, 300)} names no user of this machine; type /...") from error
    if not path.is_absolute():
        raise UsageError(
            f"{shown(text, 300)} does not begin with / or ~; the page knows no folder to look in"
        )
    try:
        path.stat()
    except FileNotFoundError:
        pass  # what opens it says so, and what could be there
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it cannot be a path"
        raise UsageError(f"{shown(text, 300)} cannot be opened ({reason}); check it") from error
    return path


@contextlib.contextmanager
def staged(uploads: Sequence[Upload], home: Path) -> Generator[Path]:
    """Lay uploads down as a file or folder that is gone when it is left.

    One file is itself; several, or a zip of a folder, are a Hugging Face model or a peft adapter.

    Args:
        uploads: At least one.
        home: Of the store; the disk it is written to.

    Yields:
        A path inside a folder of its own, under a harmless name.

    Raises:
        UsageError: If the files do not go together.
        CheckpointError: If a zip is damaged, leads out of its folder or unpacks to too much.
    """
    from engine.tasks.files import scratch_folder

    with scratch_folder(home) as scratch:
        folder = Path(scratch) / "upload"
        folder.mkdir()
        if len(uploads) > 1:
            yield _together(uploads, folder)
        else:
            (one,) = uploads
            path = folder / harmless(one.name)
            path.write_bytes(one.data)
            yield _unpacked(path, Path(scratch)) if _holds_a_folder(path) else path


def harmless(name: str) -> str:
    """Return a file name that is only a name: no folder, no control or markup characters."""
    last = re.split(r"[/\\]", name)[-1]
    plain = re.sub(r"[^\w.\- ]", "_", last).strip(". ")[-120:]
    return plain or "upload"


def _together(uploads: Sequence[Upload], folder: Path) -> Path:
    """Return a folder with those of the files, sent one by one, that belong into one.

    Raises:
        UsageError: If one of them belongs to no such folder, or was sent twice.
    """
    from engine.errors import UsageError
    from engine.exchange.sources import FOLDERS

    known = {*FOLDERS, *(name for names in FOLDERS.values() for name in names)}
    names = [harmless(upload.name) for upload in uploads]
    strange = [name for name in names if name not in known and not _is_paper(name)]
    if strange or len(set(names)) < len(names):
        raise UsageError(
            f"{strange[0] if strange else names[0]} does not belong to one folder with the rest; "
            f"send one file, or the files of one folder: {', '.join(sorted(known))}"
        )
    for name, upload in zip(names, uploads, strict=True):
        if name in known:
            (folder / name).write_bytes(upload.data)
    return folder


def _is_paper(name: str) -> bool:
    return name.lower().endswith(PAPERS)


def _holds_a_folder(path: Path) -> bool:
    """Return whether a file is a zip of a folder, not torch's own kind of archive.

    Raises:
        CheckpointError: If it is a zip that cannot be listed.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    with _archive(path) as archive:
        names = [PurePosixPath(name).name for name in archive.namelist()]
    return "data.pkl" not in names


@contextlib.contextmanager
def _archive(path: Path) -> Generator[zipfile.ZipFile]:
    """Open a zip; whatever a damaged one raises is one sentence."""
    from engine.errors import CheckpointError, EngineError

    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except EngineError:
        raise
    except Exception as error:  # what is damaged can raise almost anything
        raise CheckpointError(
            f"{path.name} is a damaged zip; make it again and send it again"
        ) from error


def _unpacked(path: Path, scratch: Path) -> Path:
    """Return a folder with the known files of a zipped one, and nothing else.

    Raises:
        CheckpointError: If it leads out of its folder or unpacks to too much.
        UsageError: If it holds no folder of weights.
    """
    from engine.errors import UsageError
    from engine.exchange.sources import FOLDERS

    target = scratch / "folder" / harmless(path.stem)
    target.mkdir(parents=True)
    with _archive(path) as archive:
        members = [item for item in archive.infolist() if not item.is_dir()]
        _check_members(members, path.name)
        roots = {
            PurePosixPath(item.filename).parent
            for item in members
            if PurePosixPath(item.filename).name in FOLDERS
        }
        wanted = {*FOLDERS, *(name for names in FOLDERS.values() for name in names)}
        if len(roots) != 1:
            raise UsageError(
                f"{path.name} holds {len(roots)} folders of weights; zip one, with its "
                f"{' or '.join(FOLDERS)} and weights"
            )
        (root,) = roots
        for item in members:
            place = PurePosixPath(item.filename)
            if place.parent == root and place.name in wanted:
                _copy(archive, item, target / place.name)
    return target


def _check_members(members: list[zipfile.ZipInfo], label: str) -> None:
    """Refuse a zip that leads out of its folder, or unpacks to too much, before it is unpacked.

    Raises:
        CheckpointError: Naming what is wrong.
    """
    from engine.errors import CheckpointError
    from engine.exchange.sources import shown

    if len(members) > MEMBERS:
        raise CheckpointError(
            f"{label} holds {len(members)} files; zip the folder of weights alone"
        )
    for item in members:
        place = PurePosixPath(item.filename.replace("\\", "/"))
        links = stat.S_ISLNK(item.external_attr >> 16)
        if ".." in place.parts or place.is_absolute() or ":" in item.filename or links:
            raise CheckpointError(
                f"{label} holds {shown(item.filename)}, which leads out of its folder, and was "
                "not unpacked; zip the folder of weights alone"
            )
    size, packed = sum(i.file_size for i in members), sum(i.compress_size for i in members)
    if size > UNPACKED or size > SHRUNK * max(packed, PIECE):
        raise CheckpointError(
            f"{label} unpacks from {packed / 1e6:.1f} MB to {size / 1e6:,.0f} MB and was not "
            "unpacked; send the files themselves"
        )


def _copy(archive: zipfile.ZipFile, item: zipfile.ZipInfo, target: Path) -> None:
    """Unpack one file, no further than it says it is long.

    Raises:
        CheckpointError: If it is longer.
    """
    from engine.errors import CheckpointError

    written = 0
    with archive.open(item) as source, target.open("xb") as file:
        while piece := source.read(PIECE):
            written += len(piece)
            if written > item.file_size:
                raise CheckpointError(f"{target.name} is longer than its zip says; zip it again")
            file.write(piece)
