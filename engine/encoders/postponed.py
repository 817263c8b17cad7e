"""Imports open_clip without what few models need: transformers, timm, torch._dynamo.

``import open_clip`` brings transformers (text towers of the hub), timm (ConvNeXt and others) and,
through torchvision's RoI pooling and timm, the compiler of torch: more than half of the start of
every command, job and dashboard (docs/performance.md). Here they come with the first model that
needs them. Nothing of the libraries changes but when they are imported, except that open_clip's
CoCa writes no captions, which nothing here asks of it.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LATER = {  # modules and what open_clip and torchvision take of them while they are imported
    "torch._dynamo.utils": "is_compile_supported",
    "open_clip.hf_model": "HFTextEncoder",
    "open_clip.timm_model": "TimmModel",
    "transformers": None,  # an ImportError, of which open_clip makes the best
}


class _StandIn(ModuleType):
    """A module that looks imported; what else is asked of it than in ``LATER`` imports it.

    So does another thread's asking for anything: it may import what it likes meanwhile.
    """

    def __init__(self, module: str, name: str | None) -> None:
        super().__init__(module)
        self.__spec__ = ModuleSpec(module, None)
        self._absent_in = threading.get_ident() if name is None else None
        if name is not None:
            setattr(self, name, _later(module, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._absent_in == threading.get_ident():
            raise ImportError(f"{self.__name__} is imported later")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _later(module: str, name: str) -> Callable[..., Any]:
    """Return a stand-in of a function or class: called, it imports the real one and calls that."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call


@contextmanager
def _stand_ins() -> Generator[None]:
    """Have the modules of ``LATER`` look imported in here, unless they are."""
    placed = {m: _StandIn(m, name) for m, name in LATER.items() if m not in sys.modules}
    sys.modules.update(placed)
    try:
        yield
    finally:
        for module, stand_in in placed.items():
            if sys.modules.get(module) is stand_in:
                del sys.modules[module]


with _stand_ins():
    import open_clip  # noqa: F401
