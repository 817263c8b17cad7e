"""Maps of the disentanglement error: class scores in memory, and algebra on them."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st

from app.compute import catalogue, models, scores
from app.compute.background import Work, board
from app.compute.catalogue import Checkpoint
from app.compute.merging import TRAINED
from app.compute.scores import TaskScores

LINEARIZED = ("posthoc", "linear")
KEPT = 128  # class scores of so many tasks and readings stay in memory


@dataclass(frozen=True)
class Vectors:
    """The task vectors of an encoder in one reading; equal ones give the same maps."""

    encoder: str
    encoder_digest: str
    mode: str
    digests: tuple[str, ...]
    home: str
    checkpoints: Mapping[str, Checkpoint] = field(compare=False, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.checkpoints)

    def of(self, tasks: Sequence[str]) -> dict[str, Checkpoint]:
        """Return the checkpoints of some tasks, in their order."""
        return {name: self.checkpoints[name] for name in tasks}


@dataclass(frozen=True, eq=False)
class Map:
    """A map as pages take it: arrays of shape (G, G), [i][j] at alpha_1 = alphas[i].

    Attributes:
        mode: The reading.
        tasks: The pair.
        alphas: Shape (G,).
        xi: The sum; NaN where not computed.
        low: Lower end of its 95 % interval.
        high: Upper end.
        terms: Each task's own term, in the order of the pair.
        ends: (low, high) of each term.
        n: Images, in the order of the pair.
        source: The engine's own.
    """

    mode: str
    tasks: tuple[str, str]
    alphas: np.ndarray
    xi: np.ndarray
    low: np.ndarray
    high: np.ndarray
    terms: tuple[np.ndarray, np.ndarray]
    ends: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    n: tuple[int, int]
    source: Any = field(repr=False)

    @property
    def exact(self) -> bool:
        """Whether this is what the definition says on the images named."""
        return self.source.exact

    @property
    def complete(self) -> bool:
        """Whether every cell is computed."""
        return not np.isnan(self.xi).any()

    def share(self, threshold: float) -> tuple[float, int]:
        """Return the share of the search box with xi at most a threshold, and its cells."""
        return self.source.box_share(threshold)

    def nearest(self, alpha: float) -> int:
        """Return the place of the nearest alpha."""
        return int(np.abs(self.alphas - alpha).argmin())

    def near_cell(self, alphas: Sequence[float]) -> tuple[int, int]:
        """Return the cell nearest to two alphas."""
        return self.nearest(alphas[0]), self.nearest(alphas[1])


def as_map(found) -> Map:
    """Turn the engine's map into arrays."""
    first, second = found.tasks
    return Map(
        mode=found.mode,
        tasks=found.tasks,
        alphas=found.alphas.numpy(),
        xi=found.xi.numpy(),
        low=found.low.numpy(),
        high=found.high.numpy(),
        terms=(found.xi_task[first].numpy(), found.xi_task[second].numpy()),
        ends=tuple(
            (found.low_task[name].numpy(), found.high_task[name].numpy()) for name in found.tasks
        ),
        n=(found.n[first], found.n[second]),
        source=found,
    )


def vectors(encoder_name: str) -> dict[str, Vectors]:
    """Return the newest task vectors of an encoder by reading, where there are two at least.

    Args:
        encoder_name: Of an encoder that can be loaded.
    """
    from engine.store import default_store

    digest = models.encoder(encoder_name).digest
    items = catalogue.checkpoints()
    found = {}
    for mode, trained in TRAINED.items():
        mine = catalogue.newest(items, encoder_name, trained, digest)
        if len(mine) > 1:
            digests = tuple(item.digest for item in mine.values())
            home = str(default_store().home)
            found[mode] = Vectors(encoder_name, digest, mode, digests, home, mine)
    return found


def task_names(found: Mapping[str, Vectors]) -> list[str]:
    """Name the tasks that have a vector in some reading, in their usual order."""
    order = {name: place for place, name in enumerate(catalogue.task_names()[0])}
    names = {name for vectors in found.values() for name in vectors.names}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


class _Memory:
    """Class scores by what they depend on; the oldest leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple, TaskScores] = OrderedDict()

    def get(self, key: tuple) -> TaskScores | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple, value: TaskScores) -> None:
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


@st.cache_resource(max_entries=1, show_spinner=False)
def _memory() -> _Memory:
    return _Memory()


class _Part(Work):
    """A part of some work: leaves with it, and tells it where its own progress lies."""

    def __init__(self, whole: Work, place: int, total: int) -> None:
        super().__init__(whole.title)
        self._whole, self._place, self._total = whole, place, total

    def step(self, done: int, total: int, note: str) -> None:
        """Tell the whole."""
        self._whole.step(self._place, self._total, note)


def in_memory(vectors: Vectors, tasks: Sequence[str]) -> dict[str, TaskScores] | None:
    """Return the class scores of tasks, at once; None if one is not in memory.

    Args:
        vectors: A linearized reading.
        tasks: Names.
    """
    found = {name: _memory().get((vectors, name)) for name in tasks}
    return None if None in found.values() else found


def load(vectors: Vectors, tasks: Sequence[str], visitor: str) -> Work:
    """Start, or find, the reading of class scores from the store, or their computation.

    Args:
        vectors: A linearized reading.
        tasks: Names; those not among them are read as well where the store has them.
        visitor: Who asks.

    Returns:
        The work; each task is in memory as soon as it is done.
    """
    wanted = tuple(tasks)

    def compute(work: Work) -> bool:
        checkpoints = vectors.checkpoints
        for place, name in enumerate(wanted):
            if _memory().get((vectors, name)) is None:
                part = _Part(work, place, len(wanted))
                reference = [checkpoints[name].reference]
                (found,) = scores.compute(
                    vectors.encoder, checkpoints, reference, vectors.mode, part
                )
                _memory().put((vectors, name), found)
        return True

    title = f"class scores, {vectors.encoder}, {vectors.mode}, {len(wanted)} tasks"
    return board().start(title, visitor, (vectors, wanted), compute)


def are_kept(vectors: Vectors) -> bool:
    """Return whether the store has the class scores of all tasks: then reading them is quick."""
    from engine.remembering import CONTENT, tau_digests
    from engine.store import default_store

    entries = {name: item.entry for name, item in vectors.checkpoints.items()}
    wanted = set(tau_digests(entries).values())
    found = default_store().find(
        "responses", content=CONTENT, encoder_digest=vectors.encoder_digest, split="test"
    )
    kept = {entry.meta["task"] for entry in found if wanted <= set(entry.meta["planes"])}
    return set(vectors.names) <= kept


def linearized(
    vectors: Vectors,
    tasks: tuple[str, str],
    alphas: np.ndarray,
    distance: str,
    loaded: Mapping[str, TaskScores],
    norms: Mapping[str, Any] | None = None,
) -> Map:
    """Return the map of a linearized reading: algebra on class scores, remembered.

    Args:
        vectors: A linearized reading.
        tasks: The pair.
        alphas: Of both axes.
        distance: "error", "tv" or "kl".
        loaded: Class scores of both tasks.
        norms: For "tv" and "kl": the result of ``feature_norms``.
    """
    return _linearized(vectors, tasks, tuple(alphas.tolist()), distance, loaded, norms)


@st.cache_resource(max_entries=96, show_spinner=False, hash_funcs={Vectors: repr})
def _linearized(vectors: Vectors, tasks, alphas, distance, _loaded, _norms) -> Map:
    """Compute a map; equal arguments give the same one."""
    import torch

    from engine.disentanglement import linearized_map
    from engine.remembering import tau_digests

    entries = {name: item.entry for name, item in vectors.of(tasks).items()}
    found = linearized_map(
        {name: planes(vectors, tasks, _loaded[name]) for name in tasks},
        tasks,
        torch.tensor(alphas, dtype=torch.float64),
        encoder=vectors.encoder,
        encoder_digest=vectors.encoder_digest,
        mode=vectors.mode,
        distance=distance,
        norms=_norms,
        logit_scale=models.encoder(vectors.encoder).logit_scale if _norms else None,
        taus=tau_digests(entries),
        splits={name: _loaded[name].split_digest for name in tasks},
    )
    return as_map(found)


def planes(vectors: Vectors, tasks: Sequence[str], loaded: TaskScores) -> np.ndarray:
    """Return the planes of theta_0 and of some task vectors, in their order."""
    return loaded.scores[[0, *(1 + vectors.names.index(name) for name in tasks)]]


def axis(points: int, limits: Sequence[float]) -> np.ndarray:
    """Return equally spaced alphas, symmetric to the bit where the limits are.

    Args:
        points: How many.
        limits: The first and the last.
    """
    from engine.disentanglement import axis as engine_axis

    low, high = limits
    return engine_axis(points, high, None if low == -high else low).numpy()


def is_on(found: Map, alphas: np.ndarray) -> bool:
    """Return whether a map has just these alphas."""
    return len(found.alphas) == len(alphas) and bool(np.allclose(found.alphas, alphas, atol=1e-9))
