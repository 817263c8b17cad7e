"""Merging methods as the pages offer them, and the direction each makes of task vectors."""

from collections.abc import Mapping

import streamlit as st

from app.compute import models
from app.compute.catalogue import Checkpoint


def methods() -> Mapping:
    """Return the methods that make one direction of all task vectors, by name.

    Returns:
        Each with ``title``, ``does``, its usual ``alpha``, and ``options`` with ``usual``, ``low``,
        ``high`` and ``does``.
    """
    from engine.merging import CONVENTIONS, METHODS

    return {name: about for name, about in METHODS.items() if name not in CONVENTIONS}


def title(method: str) -> str:
    """Return what a reader sees of a method."""
    return methods()[method].title


def said(method: str, options: Mapping[str, float]) -> dict[str, float]:
    """Leave out hyper-parameters that do nothing at their value, as keys and addresses do.

    Args:
        method: One of :func:`methods`.
        options: All its hyper-parameters.

    Returns:
        The others.
    """
    from engine.merging import asked_of

    return asked_of(method, options)


def direction(
    checkpoints: Mapping[str, Checkpoint], method: str, options: tuple[tuple[str, float], ...]
) -> dict:
    """Merge task vectors into one direction, once.

    Args:
        checkpoints: Task vectors by task, in order.
        method: One of :func:`methods`.
        options: Its hyper-parameters, name and value.

    Returns:
        The direction, float32, on the device of the models; shared, never to be changed.
    """
    named = tuple((name, item.digest) for name, item in checkpoints.items())
    return _direction(named, method, options)


@st.cache_resource(max_entries=2, show_spinner=False)
def _direction(
    named: tuple[tuple[str, str], ...], method: str, options: tuple[tuple[str, float], ...]
) -> dict:
    """Merge; the digests say of what."""
    from engine.merging import prepare

    taus = {name: models.vector(digest) for name, digest in named}
    return prepare(taus, method, **dict(options))


def cosines(checkpoints: Mapping[str, Checkpoint], merged: Mapping) -> dict[str, float]:
    """Return the cosine between each task vector and a direction made of them.

    Args:
        checkpoints: Task vectors by task.
        merged: The direction.

    Returns:
        By task; left out where either is zero.
    """
    from engine.task_vectors import cosine, norm

    if norm(merged) == 0:
        return {}
    taus = {name: models.vector(item.digest) for name, item in checkpoints.items()}
    return {name: cosine(tau, merged) for name, tau in taus.items() if norm(tau) > 0}
