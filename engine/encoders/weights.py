"""Weight files of a user's: read without running code, checked against a digest."""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import CheckpointError, MissingDataError, UsageError
from engine.store import read_tensors

_PINNED = re.compile(r"(?P<path>.+)@(?:sha256:)?(?P<digest>[0-9a-fA-F]{8,64})")


def checked_file(source: str, published: Mapping[str, str]) -> Path:
    """Return a weight file whose digest is the one expected, where one is.

    Args:
        source: A path, or ``PATH@SHA256`` with 8 hex digits of the digest or more.
        published: By the names of published files, the beginning of their sha256: a file of such
            a name is checked against it.

    Returns:
        The path.

    Raises:
        MissingDataError: If there is no such file.
        CheckpointError: If its digest is another.
    """
    pinned = _PINNED.fullmatch(source)
    path = Path(pinned["path"] if pinned else source).expanduser()
    if not path.is_file():
        raise MissingDataError(f"there is no weight file {path}; check the path")
    expected = pinned["digest"].lower() if pinned else published.get(path.name)
    if expected is None:
        return path
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected):
        whose = "asked for" if pinned else f"of the published {path.name}"
        raise CheckpointError(
            f"{path} has the sha256 {digest[:16]}... and not the one {whose}, {expected[:16]}...; "
            "copy or download it again, or rename it if it is another file"
        )
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a user's weight file; code in it is never run.

    Args:
        path: safetensors, or a state dict saved by torch.

    Returns:
        Tensors by name, on the CPU; a wrapping ``state_dict`` and a ``module.`` prefix are removed.

    Raises:
        MissingDataError: If there is no such file.
        CheckpointError: If it is damaged or holds anything but tensors.
    """
    if not path.is_file():
        raise MissingDataError(f"there is no weight file {path}; check the path")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if _is_program(path):
        raise CheckpointError(
            f"{path} is a TorchScript program, as OpenAI's are, and no code in a file is run; "
            f'where you trust it, run `python -c "import torch; torch.save(torch.jit.load('
            f"'{path.name}', map_location='cpu').state_dict(), '{path.stem}-state.pt')\"` beside "
            f"it and name {path.stem}-state.pt"
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file raises almost anything
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors; save the model's state dict as "
            "safetensors and name that file"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(f"{path} holds no state dict; save the model's state dict instead")
    weights = {str(key).removeprefix("module."): value for key, value in loaded.items()}
    strange = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"{path} holds {len(strange)} values that are no tensors ({', '.join(strange[:3])}); "
            "save the model's state dict alone"
        )
    return weights


def seed_of(name: str, source: str) -> int:
    """Return the seed of ``random`` or ``random:SEED``.

    Args:
        name: The encoder's, for the message.
        source: What stands behind its architecture.

    Returns:
        The seed, 0 by default.

    Raises:
        UsageError: If it is no number.
    """
    text = source.removeprefix("random").removeprefix(":") or "0"
    if not text.isdecimal():
        raise UsageError(f"{name} names no seed: expected random or random:NUMBER, got {source!r}")
    return int(text)


def _is_program(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith("/constants.pkl") for name in names)
