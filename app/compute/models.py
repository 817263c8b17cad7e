"""Encoders, images and task vectors in memory: loaded once, shared by all, never changed."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import streamlit as st

from app.compute.catalogue import Checkpoint


class ModelLock:
    """One user of the models at a time; a visitor who waits goes before background work."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._busy = False
        self._waiting = 0

    @contextmanager
    def foreground(self) -> Generator[None]:
        """Hold the models for something a visitor waits for."""
        with self._condition:
            self._waiting += 1
            self._condition.wait_for(lambda: not self._busy)
            self._waiting -= 1
            self._busy = True
        yield from self._held()

    @contextmanager
    def background(self) -> Generator[None]:
        """Hold the models for one short piece of background work."""
        with self._condition:
            self._condition.wait_for(lambda: not self._busy and not self._waiting)
            self._busy = True
        yield from self._held()

    def _held(self) -> Generator[None]:
        try:
            yield
        finally:
            with self._condition:
                self._busy = False
                self._condition.notify_all()


@st.cache_resource(max_entries=1, show_spinner=False)
def lock() -> ModelLock:
    """Return the lock of all models: they share the same few cores, or the same GPU."""
    return ModelLock()


class Polite:
    """An encoder for background work: it asks for the models batch by batch.

    The tower holds its parameters only during a call, so two threads may never be in it at once.
    """

    def __init__(self, encoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str):
        return getattr(self._encoder, name)

    def features(self, theta, x):
        """Return the encoder's features, when no visitor waits for the models."""
        with lock().background():
            return self._encoder.features(theta, x)


def device() -> str:
    """Name where to compute: CUDA, then Apple's GPU, then the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def encoder(name: str):
    """Load an encoder, once for each state of its files.

    Args:
        name: As ``load_encoder`` takes it.

    Returns:
        The encoder, on the device of this machine.
    """
    from engine.encoders.miniature import NAME, RANDOM_NAME
    from engine.store import default_store

    store = default_store()
    names = (NAME, RANDOM_NAME) if name == RANDOM_NAME else (name,)
    files = tuple(entry.digest for each in names for entry in store.find("encoder", name=each)[:1])
    return _encoder(name, str(store.home), files)


@st.cache_resource(max_entries=2, show_spinner=False)
def _encoder(name: str, home: str, files: tuple[str, ...]):
    """Load an encoder; ``home`` and ``files`` say which weights the name stands for."""
    from engine.encoders import load_encoder
    from engine.store import default_store

    return load_encoder(name, default_store(), device())


@st.cache_resource(max_entries=64, show_spinner=False)
def task(reference: str):
    """Load a task by name or path."""
    from engine.tasks import load_task

    return load_task(reference)


def forget_tasks() -> None:
    """Load tasks and their splits anew when they are next asked for: their words have changed."""
    task.clear()
    _split.clear()


def split(reference: str, name: str, image_size: int, limit: int | None):
    """Load the first images of a task's split, decoded, once.

    Args:
        reference: Name or path of the task.
        name: "train", "validation" or "test".
        image_size: Pixels a side.
        limit: Images at most; all of them with None.

    Returns:
        The split, shared by all who ask.
    """
    from engine.store import default_store

    return _split(reference, name, image_size, limit, str(default_store().home))


@st.cache_resource(max_entries=64, show_spinner=False)
def _split(reference: str, name: str, image_size: int, limit: int | None, home: str):
    """Load a split; ``home`` says which store decoded it."""
    from engine.store import default_store
    from engine.tasks import load_split

    return load_split(task(reference), name, image_size, default_store(), limit)


def vectors(checkpoints: list[Checkpoint]) -> dict[str, dict]:
    """Load task vectors, verified.

    Args:
        checkpoints: One a task.

    Returns:
        tau by task name, float32, on the device of the models.
    """
    return {item.task: vector(item.digest) for item in checkpoints}


@st.cache_resource(max_entries=40, show_spinner=False)
def vector(digest: str) -> dict:
    """Return one task vector, float32, on the device of the models.

    Args:
        digest: Of the checkpoint.

    Raises:
        MissingDataError: If the checkpoint was deleted.
    """
    import torch

    from engine.errors import MissingDataError
    from engine.store import default_store

    store = default_store()
    for entry in store.find("checkpoint"):
        if entry.digest == digest:
            where = device()
            return {
                name: value.to(where, torch.float32) for name, value in store.get(entry).items()
            }
    raise MissingDataError(f"checkpoint {digest[:12]} is no longer on disk; reload the page")


def pictures(reference: str, image_size: int, limit: int, shown: int) -> np.ndarray:
    """Give the first test images as small RGB pictures.

    Args:
        reference: Name or path of the task.
        image_size: Pixels a side that the encoder reads.
        limit: Images of the sample they are the first of.
        shown: How many.

    Returns:
        uint8, shape (shown, 32, 32, 3).
    """
    import torch.nn.functional as F

    images = split(reference, "test", image_size, limit).images[:shown]
    if image_size != 32:
        small = F.interpolate(images.float(), (32, 32), mode="area")
        images = small.round().to(images.dtype)
    return images.permute(0, 2, 3, 1).contiguous().numpy()
