"""Tensors out of torch's pickled archives; no code in them is imported, called or built.

A pickle is a program for a small stack machine; ``opcodes`` walks it into plain values.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.errors import CheckpointError
from engine.exchange.opcodes import Inert, Machine, Named, count, short
from engine.exchange.sources import Source, shown

PROGRAM_LIMIT = 16 * 2**20  # bytes; that of a ViT-L/14 takes one
DEPTH = 64  # modules within modules
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
CONVERT = (
    "where you trust it, run `torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW)` "
    "and import NEW"
)


@dataclass(frozen=True)
class Contents:
    """What an archive holds."""

    tensors: dict[str, Tensor]  # by dotted name; views of the archive's storages
    texts: dict[str, str]  # such as ``model_name``
    module: bool  # whether it is a pickled module rather than a state dict
    named: frozenset[str] = field(default_factory=frozenset)  # classes and functions it names


def read_pickled(source: Source) -> Contents:
    """Read the tensors of an archive that ``torch.save`` wrote: a state dict or a whole module.

    Args:
        source: A zip archive; nothing is unpacked to disk.

    Returns:
        Tensors by name; those of a module as its state dict would name them.

    Raises:
        CheckpointError: If it is damaged, compressed, names code that no model needs, or holds
            no tensors.
    """
    try:
        with zipfile.ZipFile(source.path) as archive:
            storages = _Storages(archive, source.size)
            machine = Machine(storages.storage)
            value = machine.run(storages.program())
            return _contents(value, frozenset(map(str, machine.named)), source.label)
    except CheckpointError:
        raise
    except MemoryError as error:
        raise CheckpointError(f"{source.label} does not fit into memory; {CONVERT}") from error
    except Exception as error:  # what is damaged can raise almost anything
        told = isinstance(error, ValueError | KeyError | zipfile.BadZipFile)
        reason = shown(error, 200) if told else "its description is broken"
        raise CheckpointError(
            f"{source.label} is damaged or of an unknown layout ({reason}); copy it again or, "
            f"{CONVERT}"
        ) from error


class _Storages:
    """The members of an archive: its program and the bytes of its tensors."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._read: dict[str, Tensor] = {}
        members = archive.infolist()
        names = [member.filename for member in members]
        if any(".." in name.split("/") or name.startswith("/") for name in names):
            raise ValueError("a member's name leads out of the archive")
        if len(set(names)) != len(names):
            raise ValueError("two members have one name")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its members are compressed, which torch never does")
        if sum(member.file_size for member in members) > size:
            raise ValueError("its members claim more bytes than the file has")
        programs = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise ValueError("no archive of torch")
        self._root = programs[0].removesuffix("data.pkl")
        if self._root + "constants.pkl" in names:
            raise ValueError("a TorchScript program, not a state dict")
        order = self._root + "byteorder"
        if order in names and archive.read(order) != b"little":
            raise ValueError("written on a big-endian machine")

    def program(self) -> bytes:
        """Return the pickle.

        Raises:
            ValueError: If it is too long.
        """
        name = self._root + "data.pkl"
        if self._archive.getinfo(name).file_size > PROGRAM_LIMIT:
            raise ValueError("its description is longer than that of any model")
        return self._archive.read(name)

    def storage(self, kind: Any) -> Tensor:
        """Return the values that a persistent id names, one axis.

        Raises:
            ValueError: If it is not of torch's form.
        """
        if not (isinstance(kind, tuple) and len(kind) == 5 and kind[0] == "storage"):
            raise ValueError("a storage is not described as torch does")
        _, of, key, _, numel = kind
        dtype = DTYPES.get(of.name) if isinstance(of, Named) and of.module == "torch" else None
        if dtype is None or not isinstance(key, str):
            raise ValueError(f"a storage of unknown type {short(of)}")
        if key not in self._read:
            data = self._archive.read(f"{self._root}data/{key}")
            empty = torch.empty(0, dtype=dtype)
            self._read[key] = torch.frombuffer(bytearray(data), dtype=dtype) if data else empty
        values = self._read[key]
        if values.dtype != dtype or count(numel) != values.numel():
            raise ValueError(f"storage {key} has another size than it says")
        return values


def _contents(value: Any, named: frozenset[str], label: str) -> Contents:
    """Return the tensors of a state dict or module.

    Raises:
        CheckpointError: If there are none.
    """
    module = isinstance(value, Inert)
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict | Inert):
        value = value["state_dict"]
    if isinstance(value, Inert):
        tensors, texts = _of_module(value), {}
    else:
        table = value if isinstance(value, dict) else {}
        tensors = {str(k): v for k, v in table.items() if isinstance(v, Tensor)}
        texts = {str(k): v for k, v in table.items() if isinstance(v, str)}
    if not tensors:
        raise CheckpointError(f"{label} holds no tensors by name; {CONVERT}")
    return Contents(tensors, texts, module, named)


def _of_module(module: Inert) -> dict[str, Tensor]:
    """Return a module's parameters and buffers under the names of its state dict.

    Raises:
        ValueError: If modules lie within each other without end.
    """
    found: dict[str, Tensor] = {}
    waiting: list[tuple[str, Any, int]] = [("", module, 0)]
    seen: set[int] = set()
    while waiting:
        prefix, inert, depth = waiting.pop()
        state = inert.state if isinstance(inert, Inert) else None
        state = state[0] if isinstance(state, tuple) and state else state
        if not isinstance(state, dict) or id(inert) in seen:
            continue
        seen.add(id(inert))
        if depth > DEPTH:
            raise ValueError("its modules lie within each other without end")
        for group in ("_parameters", "_buffers"):
            for name, tensor in _table(state.get(group)).items():
                if isinstance(tensor, Tensor):
                    found[f"{prefix}{name}"] = tensor
        for name, child in _table(state.get("_modules")).items():
            waiting.append((f"{prefix}{name}.", child, depth + 1))
    return found


def _table(value: Any) -> Mapping:
    return value if isinstance(value, dict) else {}
