"""A user's file or folder of weights, opened carefully: bounded, contained, with its digest."""

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import CheckpointError, MissingDataError, UsageError

LIMIT = 8 * 2**30  # bytes; twice what a ViT-L/14 saved with its own theta_0 takes
JSON_LIMIT = 2**20  # bytes of a configuration
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
ADAPTER = "adapter_config.json"
FOLDERS = {  # what says what a folder is -> the names its weights may have
    ADAPTER: ("adapter_model.safetensors", "adapter_model.bin"),
    "config.json": ("model.safetensors", "pytorch_model.bin"),
}
KNOWN = (
    "an open_clip state dict, a Hugging Face CLIP vision model, a pickled image encoder or a "
    "linear checkpoint of the tangent-space paper's code, a peft LoRA folder, or a task vector "
    "of ours"
)


@dataclass(frozen=True)
class Source:
    """One file of weights and the configuration beside it."""

    path: Path
    label: str  # what messages and records call it: a name without its folder
    size: int  # bytes
    container: str  # "safetensors" | "zip"
    config: dict[str, Any] = field(default_factory=dict)  # of a Hugging Face folder
    adapter: dict[str, Any] = field(default_factory=dict)  # of a peft folder

    def sha256(self) -> str:
        """Return the digest of the file, 64 hex digits."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_source(path: Path | str) -> Source:
    """Look at what a user names, without reading its tensors.

    A folder is a Hugging Face model or a peft adapter. What a folder holds may link to other
    files of the folder, or of the hub cache it belongs to, and to nothing else.

    Args:
        path: A file or a folder.

    Returns:
        Where its weights are, and what its configuration says.

    Raises:
        MissingDataError: If nothing is there.
        UsageError: If the folder holds no weights or the file is too large.
        CheckpointError: If it is no file of weights, or a link leads out of its folder.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise MissingDataError(f"there is no file {shown(path, 300)}; check the path")
    beside = {name: _json(path.parent, name) for name in FOLDERS if _belongs(path, name)}
    return _opened(path, shown(path.name), beside)


def shown(name: object, length: int = 100) -> str:
    """Return a stranger's text as a message may show it: short, and without control characters.

    Args:
        name: A name in a file, or of one.
        length: Characters at most.

    Returns:
        The text, with what is not printable escaped.
    """
    text = str(name)[: 10 * length]
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return plain if len(plain) <= length else plain[: length - 2] + ".."


def _belongs(path: Path, config: str) -> bool:
    """Return whether a file has a name that goes with a configuration which lies beside it."""
    return path.name in FOLDERS[config] and (path.parent / config).is_file()


def _open_folder(folder: Path) -> Source:
    """Return the weights in a folder.

    Raises:
        UsageError: If there are none.
    """
    for config, names in FOLDERS.items():
        if not (folder / config).exists():
            continue
        for name in names:
            if (folder / name).exists():
                label = f"{shown(folder.resolve().name)}/{name}"
                return _opened(_contained(folder, name), label, {config: _json(folder, config)})
    wanted = ", ".join(f"{config} with {names[0]}" for config, names in FOLDERS.items())
    raise UsageError(
        f"{shown(folder, 300)} holds no weights under a known name ({wanted}); name the file"
    )


def _opened(path: Path, label: str, configs: dict[str, dict]) -> Source:
    """Return a source once its size and its first bytes are known to be possible.

    Raises:
        UsageError: If it is too large.
        CheckpointError: If it is of no known format.
    """
    size = path.stat().st_size
    if size > LIMIT:
        raise UsageError(
            f"{label} has {size / 1e9:.1f} GB, more than the {LIMIT / 1e9:.1f} GB that are read; "
            "save the image encoder alone"
        )
    with path.open("rb") as file:
        start = file.read(9)
    if start[:4] == ZIP:
        container = "zip"
    elif start[8:] == b"{":
        container = "safetensors"
    elif start[:1] == PICKLE:
        raise CheckpointError(
            f"{label} is a pickle of torch before 1.6 and is not opened; where you trust it, run "
            "`torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW)` and import NEW"
        )
    else:
        raise CheckpointError(f"{label} is no file of weights, or damaged; give {KNOWN}")
    config, adapter = configs.get("config.json", {}), configs.get(ADAPTER, {})
    return Source(path, label, size, container, config, adapter)


def _contained(folder: Path, name: str) -> Path:
    """Return a member of a folder, its links followed.

    Raises:
        CheckpointError: If it is no file or lies elsewhere.
    """
    root, target = folder.resolve(), (folder / name).resolve()
    homes = [root]
    if root.parent.name == "snapshots":  # the hub's cache links to the blobs beside
        homes.append(root.parent.parent / "blobs")
    if not any(target.is_relative_to(home) for home in homes):
        raise CheckpointError(
            f"{shown(folder / name, 300)} is a link that leads out of its folder and is not "
            "followed; copy the file there"
        )
    if not target.is_file():
        raise CheckpointError(
            f"{shown(folder / name, 300)} is not a file; download the folder again"
        )
    return target


def _json(folder: Path, name: str) -> dict:
    """Return the table in a JSON file of a folder.

    Raises:
        CheckpointError: If it is too large or no table.
    """
    path, table = _contained(folder, name), None
    if path.stat().st_size <= JSON_LIMIT:
        with contextlib.suppress(ValueError, RecursionError):
            table = json.loads(path.read_bytes())
    if not isinstance(table, dict):
        raise CheckpointError(
            f"{shown(folder / name, 300)} is damaged: no table; download the folder again"
        )
    return table
