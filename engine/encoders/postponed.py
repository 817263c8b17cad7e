"""Imports open_clip without what few models need: transformers, timm, torch._dynamo.

``import open_clip`` brings transformers (text towers of the hub), timm (ConvNeXt and others) and,
through torchvision's RoI pooling and timm, the compiler of torch: more than half of the start of
every command, job and dashboard (docs/performance.md). Here they come with the first model that
needs them. Nothing of the libraries changes but when they are imported, except that open_clip's
CoCa writes no captions, which nothing here asks of it.
"""

import importlib
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

LATER = {  # modules and what the libraries take of them while they are imported
    "torch._dynamo.utils": "is_compile_supported",
    "open_clip.hf_model": "HFTextEncoder",
    "open_clip.timm_model": "TimmModel",
}


class _StandIn(ModuleType):
    """A module that looks imported; what else is asked of it than in ``LATER`` imports it."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(module)
        setattr(self, name, _later(module, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
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
    """Have the modules of ``LATER`` look imported in here, unless they are, and no transformers."""
    placed = {m: _StandIn(m, name) for m, name in LATER.items() if m not in sys.modules}
    if "transformers" not in sys.modules:
        placed["transformers"] = None  # an ImportError, of which open_clip makes the best
    sys.modules.update(placed)
    try:
        yield
    finally:
        for module, stand_in in placed.items():
            if sys.modules.get(module) is stand_in:
                del sys.modules[module]


with _stand_ins():
    import open_clip  # noqa: F401
