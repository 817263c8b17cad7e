"""Finished non-linear maps in a store: computed once, found whichever task is named first.

Linearized maps are not kept: they follow from kept class scores sooner than they are read.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engine.disentanglement.maps import IMAGES, XiMap
from engine.disentanglement.nonlinear import map_of_tables, nonlinear_map
from engine.disentanglement.precision import precision_for
from engine.encoders import Encoder
from engine.errors import EngineError
from engine.provenance import provenance
from engine.remembering import PROBE, question, tau_digests
from engine.store import Entry, Store
from engine.tasks import Split, Task

WHAT = "disentanglement"


def map_key(
    encoder: Encoder,
    entries: Mapping[str, Entry],
    tasks: Mapping[str, Task],
    probe: Callable[[Task, str], Split],
    *,
    mode: str,
    alphas: Tensor,
    distance: str,
    images: int | None,
) -> str:
    """Name a map by all that it depends on, whichever task comes first.

    Args:
        encoder: Its digest counts.
        entries: Checkpoints by task name.
        tasks: By name.
        probe: Loads the first images of a task's split.
        mode: The reading.
        alphas: Of both axes, shape (G,).
        distance: "error", "tv" or "kl".
        images: The most images of a task.

    Returns:
        sha256, 64 hex digits.
    """
    names = sorted(tasks)
    return question(
        encoder,
        {name: entries[name] for name in names},
        {name: tasks[name] for name in names},
        probe,
        what=WHAT,
        mode=mode,
        alphas=torch.as_tensor(alphas, dtype=torch.float64).tolist(),
        distance=distance,
        images=images,
    )


def keep_map(store: Store, key: str, found: XiMap, **about: object) -> Entry:
    """Keep a finished map.

    Args:
        store: Where.
        key: From ``map_key``.
        found: The map.
        **about: More plain values to record.

    Returns:
        The entry, of kind "result".

    Raises:
        ValueError: If cells are lacking.
    """
    cells = len(found.alphas) ** 2
    if found.done < cells:
        raise ValueError(f"got a map of {found.done} cells of {cells}, expected a finished one")
    tensors, meta = found.to_tensors()
    ends = found.alphas[[0, -1]].tolist()
    record = {"images": dict(found.n), "cells": cells, "alphas": ends}  # what it answers, briefly
    said = {"what": WHAT, "key": key, "record": record}
    return store.put("result", tensors, {**meta, **said, **about, **provenance()})


def kept_map(store: Store, key: str, tasks: tuple[str, str]) -> XiMap | None:
    """Find a kept map.

    Args:
        store: Where.
        key: From ``map_key``.
        tasks: The pair, in the order asked for.

    Returns:
        The map in that order; None if it is not kept, or cannot be read.
    """
    for entry in store.find("result", what=WHAT, key=key):
        found = _read(store, entry)
        if found is not None and set(found.tasks) == set(tasks):
            return found if found.tasks == tuple(tasks) else found.swapped()
    return None


def kept_maps(
    store: Store, encoder_digest: str, taus: Mapping[str, str], distance: str = "error"
) -> list[XiMap]:
    """Find all kept maps that rest on given task vectors.

    Args:
        store: Where.
        encoder_digest: Of the encoder.
        taus: Digests of the task vectors by task name, from ``tau_digests``.
        distance: "error", "tv" or "kl".

    Returns:
        Maps, newest first.
    """
    found = [
        _read(store, entry)
        for entry in store.find(
            "result", what=WHAT, encoder_digest=encoder_digest, distance=distance
        )
        if all(taus.get(name) == digest for name, digest in entry.meta["taus"].items())
    ]
    return [item for item in found if item is not None]


def map_so_far(store: Store, name: str, encoder: str) -> XiMap | None:
    """Read the cells of a map that is still being computed, or was stopped.

    Args:
        store: Where working states lie.
        name: Of the working state.
        encoder: Name, for the record.

    Returns:
        The map, NaN where a cell is not computed; None if there is no such state.

    Raises:
        CheckpointError: If the state is damaged.
    """
    found = store.load_state(name)
    return None if found is None else map_of_tables(*found, encoder)


def remembered_map(
    store: Store,
    encoder: Encoder,
    entries: Mapping[str, Entry],
    taus: Mapping[str, Mapping[str, Tensor]],
    tasks: Mapping[str, Task],
    load: Callable[[Task, str, int | None], Split],
    alphas: Tensor,
    *,
    distance: str = "error",
    images: int | None = IMAGES,
    batch: int = 250,
    precision: str = "float32",
    force: bool = False,
    progress: Callable[[XiMap, int, int], None] | None = None,
    share: int | None = None,
    shares: int = 1,
) -> XiMap:
    """Return a non-linear map from the store, or compute it, resuming, and keep it.

    Args:
        store: Where maps and working states lie.
        encoder: On the device to compute on.
        entries: Checkpoints by task name.
        taus: Their task vectors.
        tasks: The pair by name, in its order.
        load: Loads the first so many images of a task's split.
        alphas: Of both axes, shape (G,).
        distance: "error", "tv" or "kl".
        images: The most images of a task; None for all.
        batch: Images a pass.
        precision: "float32", "bfloat16" or "auto", as of ``nonlinear_map``. An exact map that is
            kept answers all three.
        force: Compute again what is kept.
        progress: As of ``nonlinear_map``.
        share: Which share of the cells to compute and leave in its working state; None to put
            them all together and keep the map.
        shares: Into how many the cells are divided.

    Returns:
        The map, in the order of ``tasks``; NaN in the cells of other shares.

    Raises:
        EngineError: As of ``nonlinear_map``.
    """
    names = tuple(tasks)
    asked = {"mode": "nonlinear", "alphas": alphas, "distance": distance, "images": images}
    key = map_key(encoder, entries, tasks, lambda task, split: load(task, split, PROBE), **asked)
    precision = precision_for(encoder, precision)
    # an approximate map is never given where an exact one is asked for
    half = f"{key}-bfloat16"
    for known in () if force else (key, half)[: 1 + (precision == "bfloat16")]:
        kept = kept_map(store, known, names)
        if kept is not None:
            return kept
    states = set()

    def read(name: str) -> tuple[dict[str, Tensor], dict] | None:
        states.add(name)
        return store.load_state(name)

    found = nonlinear_map(
        encoder,
        tasks,
        taus,
        {name: load(task, "test", images) for name, task in tasks.items()},
        alphas,
        distance=distance,
        images=images,
        batch=batch,
        precision=precision,
        digests=tau_digests({name: entries[name] for name in names}),
        progress=progress,
        load_state=read,
        save_state=store.save_state,
        share=share,
        shares=shares,
    )
    if share is not None:
        return found
    device = next(iter(encoder.theta0.values())).device.type
    checkpoints = {name: entries[name].digest for name in names}
    precision = "float32" if found.exact else "bfloat16"
    keep_map(
        store,
        key if found.exact else half,
        found,
        device=device,
        checkpoints=checkpoints,
        precision=precision,
    )
    for name in states:
        store.drop_state(name)
    return found


def _read(store: Store, entry: Entry) -> XiMap | None:
    """Return the map of an entry, None if it cannot be read."""
    try:
        return XiMap.from_tensors(store.get(entry), entry.meta)
    except EngineError:
        return None
