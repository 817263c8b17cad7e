"""The pickle's stack machine without anything that could run code: programs into plain values.

Names of classes and functions stay names, what they would have been called with is dropped, and
only torch's own way of describing a tensor is carried out.
"""

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.errors import CheckpointError
from engine.exchange.sources import shown

# nothing of a model lives there; who names them wants to run something
NOT_OF_A_MODEL = frozenset(
    "os posix nt subprocess sys shutil socket importlib runpy pty ctypes code codeop webbrowser "
    "pip multiprocessing asyncio signal urllib http requests pickle marshal shelve tempfile "
    "pathlib io platform commands timeit cProfile pdb bdb".split()
)
BUILTINS = frozenset(
    "set frozenset getattr object complex bytearray slice range dict list tuple int float str bool "
    "bytes".split()
)


@dataclass(frozen=True)
class Named:
    """A class or function that a pickle names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """An object that would have been built: of what, and with which state."""

    of: Any
    state: Any = None


class Machine:
    """The pickle's stack machine, without anything that could run code."""

    def __init__(self, storage: Callable[[Any], Tensor]) -> None:
        """Start with an empty stack.

        Args:
            storage: From a persistent id to the values of a storage, one axis.
        """
        self.named: set[Named] = set()
        self._storage = storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Walk a program to its end.

        Args:
            program: A pickle.

        Returns:
            The value it describes: texts, numbers, lists, tables, tensors, and inert objects.

        Raises:
            ValueError: If it is no complete program, or has an opcode that torch does not write;
                what is damaged raises almost anything.
            CheckpointError: If it names code that no model needs.
        """
        for opcode, argument, _ in pickletools.genops(io.BytesIO(program)):
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            if name in _PUSHED:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _STORED:
                self._memo[argument if argument is not None else len(self._memo)] = self._stack[-1]
            elif name in _RECALLED:
                self._stack.append(self._memo[argument])
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in _IGNORED:
                raise ValueError(f"it has the opcode {name}, which torch does not write")
        raise ValueError("its program has no end")

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise ValueError("its program takes more than it has")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        place = self._marks.pop()
        taken = self._stack[place:]
        del self._stack[place:]
        return taken

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _tuple(self, count: int) -> None:
        taken = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(taken)))

    def _collect(self, kind: Callable[[list], Any]) -> None:
        taken = self._since_mark()
        self._stack.append(kind(taken))

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)

    def _update(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], dict):
            self._stack[-1].update(_pairs(values))

    def _name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a class is named by something that is no text")
        root = module.split(".")[0]
        builtin = root in {"builtins", "__builtin__"} and name not in BUILTINS
        if builtin or root in NOT_OF_A_MODEL:
            raise CheckpointError(
                f"this file wants to run {shown(module, 60)}.{shown(name, 60)}, which no "
                "model needs; nothing of it was run and nothing was kept: do not trust "
                "it, and ask its maker for safetensors"
            )
        self.named.add(Named(module, name))
        self._stack.append(Named(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _call(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(self._described(function, arguments))

    def _described(self, function: Any, arguments: Any) -> Any:
        """Return the tensor or table a call describes; anything else stays inert."""
        match short(function), arguments:
            case "collections.OrderedDict", ():
                return {}
            case "collections.OrderedDict", (list(pairs),):
                return _pairs([value for pair in pairs for value in pair])
            case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", (
                Tensor() as values,
                offset,
                tuple(shape),
                tuple(stride),
                *_,
            ):
                return _view(values, offset, shape, stride)
            case (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                (Tensor() as tensor, *_),
            ):
                return tensor
        return Inert(function)

    def _build(self, _: Any) -> None:
        state = self._pop()
        if isinstance(self._stack[-1], Inert):
            self._stack[-1].state = state

    def _new(self, values: int) -> None:
        for _ in range(values):
            self._pop()
        self._stack.append(Inert(self._pop()))

    def _old_object(self, _: Any) -> None:
        self._stack.append(Inert(self._since_mark()[0]))

    def _instance(self, argument: str) -> None:
        self._since_mark()
        self._name(*argument.split(" ", 1))
        self._stack.append(Inert(self._pop()))

    def _persistent(self, _: Any) -> None:
        self._stack.append(self._storage(self._pop()))


_IGNORED = frozenset({"PROTO", "FRAME"})
_PUSHED = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,  # order and repetition do not matter: no set is used
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
_STORED = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_RECALLED = frozenset({"GET", "BINGET", "LONG_BINGET"})
_STEPS: dict[str, Callable[[Machine, Any], Any]] = {
    "MARK": Machine._mark,
    "POP": lambda m, _: m._pop(),
    "POP_MARK": lambda m, _: m._since_mark(),
    "DUP": lambda m, _: m._stack.append(m._stack[-1]),
    "TUPLE": lambda m, _: m._collect(tuple),
    "LIST": lambda m, _: m._collect(list),
    "FROZENSET": lambda m, _: m._collect(list),
    "DICT": lambda m, _: m._collect(_pairs),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "APPEND": lambda m, _: m._extend([m._pop()]),
    "APPENDS": lambda m, _: m._extend(m._since_mark()),
    "ADDITEMS": lambda m, _: m._extend(m._since_mark()),
    "SETITEM": lambda m, _: m._update([m._pop(), m._pop()][::-1]),
    "SETITEMS": lambda m, _: m._update(m._since_mark()),
    "GLOBAL": lambda m, argument: m._name(*argument.split(" ", 1)),
    "STACK_GLOBAL": Machine._stack_global,
    "INST": Machine._instance,
    "OBJ": Machine._old_object,
    "REDUCE": Machine._call,
    "NEWOBJ": lambda m, _: m._new(1),
    "NEWOBJ_EX": lambda m, _: m._new(2),
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}


def _pairs(values: list[Any]) -> dict[Any, Any]:
    """Return keys and values that alternate as a table.

    Raises:
        ValueError: If a key is more than a text or a number.
    """
    keys = values[::2]
    if len(values) % 2 or not all(isinstance(k, str | int | float | None) for k in keys):
        raise ValueError("a table has keys that are no texts")
    return dict(zip(keys, values[1::2], strict=True))


def count(value: Any) -> int:
    """Check a size.

    Args:
        value: Whatever a file says.

    Returns:
        It, a whole number of at least 0.

    Raises:
        ValueError: If it is none.
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"a size is {short(value)}")
    return value


def short(value: Any) -> str:
    """Say what a value is, in few words: the text of an object could be longer than memory.

    Args:
        value: Anything a program described.

    Returns:
        A class's or function's name, else only the type.
    """
    return str(value) if isinstance(value, Named) else f"<{type(value).__name__}>"


def _view(values: Tensor, offset: Any, shape: tuple, stride: tuple) -> Tensor:
    """Return a part of a storage as a tensor, within the storage's bounds, without copying.

    Raises:
        ValueError: If it would reach beyond.
    """
    if len(shape) != len(stride) or len(shape) > 8 or values.ndim != 1:
        raise ValueError("a tensor is not described as torch does")
    shape, stride = tuple(map(count, shape)), tuple(map(count, stride))
    last = count(offset) + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    empty = 0 in shape
    if not empty and (last >= values.numel() or math.prod(shape) > values.numel()):
        raise ValueError("a tensor reaches beyond its storage")
    return values.new_empty(shape) if empty else values.as_strided(shape, stride, offset)
