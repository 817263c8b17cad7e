"""The non-linear reading of Eq. (6): forward passes, coarse to fine, resumable cell by cell."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.disentanglement.distances import (
    between,
    bootstrap_counts,
    check_distance,
    interval_of_sum,
    percentile_interval,
    wilson_intervals,
)
from engine.disentanglement.maps import IMAGES, Diagonal, PairMatrix, XiMap, named_bounds
from engine.disentanglement.passes import Passes, check_pair
from engine.disentanglement.precision import checked_passes, precision_for
from engine.disentanglement.shares import (
    Cell,
    LoadState,
    Tables,
    check_share,
    read_tables,
    share_of,
    states_of,
)
from engine.store import digest_tensors

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

SaveState = Callable[[str, dict[str, Tensor], dict], None]


def nonlinear_map(
    encoder: "Encoder",
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    splits: Mapping[str, "Split"],
    alphas: Tensor,
    *,
    distance: str = "error",
    images: int | None = IMAGES,
    batch: int = 250,
    precision: str = "float32",
    digests: Mapping[str, str] | None = None,
    progress: Callable[[XiMap, int, int], None] | None = None,
    load_state: LoadState | None = None,
    save_state: SaveState | None = None,
    share: int | None = None,
    shares: int = 1,
) -> XiMap:
    r"""Measure the disentanglement error of two non-linear task vectors over a grid.

    .. math:: \xi(\alpha_1, \alpha_2) = \sum_{t=1}^2 E_{x \sim \mu_t} \left[ dist\left(
              f(x; \theta_0 + \alpha_t \tau_t),
              f(x; \theta_0 + \alpha_1 \tau_1 + \alpha_2 \tau_2) \right) \right]

    The single-task models run once an alpha, not once a cell: 2 G + 2 G^2 passes over a task's
    images in place of 4 G^2. Every cell is saved as it is done; stopped in any way, a later call
    with the same arguments goes on there and ends with the same bits. Several processes may take
    a share of the cells each; a call that names no share takes over what all of them have saved,
    and computes what is lacking.

    Args:
        encoder: On the device to compute on, in float32.
        tasks: The pair by name, in its order.
        taus: Task vectors by task name.
        splits: Test images by task name; only the first ``images`` are used.
        alphas: Of both axes, shape (G,).
        distance: "error", "tv" or "kl".
        images: The most images of a task; None for all.
        batch: Images a pass.
        precision: "float32"; "bfloat16" for the passes, then the map is not exact and its note
            gives the share of predictions that changed at five cells, beyond ``MOST_CHANGED`` all
            passes are in float32 all the same; "auto" as ``precision_for`` chooses.
        digests: Of the task vectors, by name, for the record; computed by default.
        progress: Called as (the map so far, cells done, cells) after each cell; raise in it to
            stop.
        load_state: Takes a name, as ``Store.load_state``.
        save_state: Takes (name, tensors, meta), as ``Store.save_state``.
        share: Which share of the cells to compute, from 1; None for the whole map.
        shares: Into how many the cells are divided.

    Returns:
        The map; NaN in the cells of other shares. The working state, named by ``state_name``,
        stays.

    Raises:
        UsageError: If there are not two different tasks, a split is empty or does not fit its
            task, or there is no such distance or share.
        ParameterMismatchError: If a task vector does not fit the encoder.
        NonFiniteError: If a task vector or a score holds NaN or infinity.
        CheckpointError: If the working state found is damaged.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 4, Eq. (6), App. A.
    """
    check_distance(distance)
    names = tuple(tasks)
    check_pair(names)
    alphas = torch.as_tensor(alphas, dtype=torch.float64)
    check_share(share, shares, len(alphas) ** 2)
    used = _first_images(splits, names, images)
    passes, note = checked_passes(
        encoder,
        tasks,
        taus,
        used,
        alphas,
        distance=distance,
        batch=batch,
        precision=precision_for(encoder, precision),
    )
    digests = dict(digests or {name: digest_tensors(dict(taus[name])) for name in names})
    n = {name: len(used[name].images) for name in names}
    identity = {
        "encoder": encoder.digest,
        "tasks": list(names),
        "taus": digests,
        "splits": {name: used[name].digest for name in names},
        "heads": digest_tensors(passes.heads),
        "n": n,
        "alphas": alphas.tolist(),
        "distance": distance,
        "batch": batch,
        "precision": "bfloat16" if passes.half else "float32",
    }
    name = state_name(identity)
    tables = read_tables(load_state, name, len(alphas), identity, share, shares)
    mine = share_of(list(refining(len(alphas))), share, shares)
    cells = [cell for cell in mine if tables["xi"][0][cell].isnan()]
    singles = _single_axes(passes, names, alphas, cells)
    weights = None
    if distance != "error":
        # by name, so that swapping the tasks leaves each its samples
        weights = [bootstrap_counts(n[task], sorted(names).index(task)) for task in names]

    def told() -> XiMap:
        kept = {key: value.clone() for key, value in tables.items()}
        return map_of_tables(kept, identity, encoder.name, note)

    state = states_of(name, shares)[share or 0]
    for done, (i, j) in enumerate(cells, start=len(mine) - len(cells) + 1):
        setting = {names[0]: float(alphas[i]), names[1]: float(alphas[j])}
        merged = passes.outputs(setting, names)
        apart = [
            between(distance, singles[task][place], merged[task])
            for task, place in zip(names, (i, j), strict=True)
        ]
        _enter(tables, (i, j), apart, weights)
        if save_state is not None:
            save_state(state, tables, identity)
        if progress is not None:
            progress(told(), done, len(mine))
    return told()


def map_of_tables(tables: Tables, identity: Mapping, encoder: str, note: str = "") -> XiMap:
    """Return the map of the cells so far, as a working state holds them.

    Args:
        tables: "xi", "low" and "high", NaN where a cell is not computed.
        identity: What its cells depend on: the state's meta.
        encoder: Name, for the record.
        note: What there is to say.
    """
    names = tuple(identity["tasks"])
    return XiMap(
        encoder=encoder,
        encoder_digest=identity["encoder"],
        mode="nonlinear",
        tasks=names,
        alphas=torch.tensor(identity["alphas"], dtype=torch.float64),
        xi_task=dict(zip(names, tables["xi"], strict=True)),
        **named_bounds(names, tables["low"], tables["high"]),
        n=dict(identity["n"]),
        distance=identity["distance"],
        exact=identity["precision"] == "float32",
        taus=dict(identity["taus"]),
        splits=dict(identity["splits"]),
        note=note,
    )


def refining(G: int) -> Iterator[tuple[int, int]]:
    """Yield the cells of a G x G grid, coarse to fine, each once.

    Each round halves the spacing; a page can draw the blocks of a round at once.

    Args:
        G: Points an axis.
    """
    seen: set[tuple[int, int]] = set()
    step = 1 << max(0, (G - 1).bit_length() - 2)
    while step:
        for i in range(0, G, step):
            for j in range(0, G, step):
                if (i, j) not in seen:
                    seen.add((i, j))
                    yield i, j
        step //= 2


def state_name(identity: Mapping) -> str:
    """Return the name of a run's working state.

    Args:
        identity: All that its cells depend on, plain values.
    """
    said = json.dumps(identity, sort_keys=True)
    return f"xi-{hashlib.sha256(said.encode()).hexdigest()[:24]}"


def nonlinear_matrix(
    encoder: "Encoder",
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    splits: Mapping[str, "Split"],
    alpha: float,
    *,
    images: int | None = IMAGES,
    batch: int = 250,
    progress: Callable[[int, int], None] | None = None,
) -> PairMatrix:
    """Measure the prediction error of every pair of non-linear task vectors at one alpha.

    Args:
        encoder: As of ``nonlinear_map``.
        tasks: T tasks by name.
        taus: Task vectors by task name.
        splits: Test images by task name.
        alpha: Of both vectors of each pair.
        images: The most images of a task; None for all.
        batch: Images a pass.
        progress: Called as (settings done, settings); raise in it to stop.

    Returns:
        The matrix.

    Raises:
        UsageError: As of ``nonlinear_map``.
    """
    names = tuple(tasks)
    used = _first_images(splits, names, images)
    passes = _passes(encoder, tasks, taus, used, "error", batch, "float32")
    pairs = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names))]
    tell = _counting(progress, len(names) + len(pairs))
    alone = {}
    for name in names:
        alone |= passes.outputs({name: alpha}, [name])
        tell()
    terms = torch.full((len(names), len(names)), math.nan, dtype=torch.float64)
    for a, b in pairs:
        both = passes.outputs({names[a]: alpha, names[b]: alpha}, [names[a], names[b]])
        for here, there in ((a, b), (b, a)):
            name = names[here]
            terms[here, there] = between("error", alone[name], both[name]).mean()
        tell()
    return PairMatrix(names, float(alpha), terms, {name: len(used[name].images) for name in names})


def nonlinear_diagonal(
    encoder: "Encoder",
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    splits: Mapping[str, "Split"],
    alphas: Tensor,
    *,
    images: int | None = IMAGES,
    batch: int = 250,
    progress: Callable[[int, int], None] | None = None,
) -> Diagonal:
    """Measure the prediction error of all non-linear task vectors at once, along alpha.

    Args:
        encoder: As of ``nonlinear_map``.
        tasks: T tasks by name.
        taus: Task vectors by task name.
        splits: Test images by task name.
        alphas: Of every vector, shape (G,).
        images: The most images of a task; None for all.
        batch: Images a pass.
        progress: Called as (settings done, settings); raise in it to stop.

    Returns:
        The diagonal.

    Raises:
        UsageError: As of ``nonlinear_map``.
    """
    names = tuple(tasks)
    alphas = torch.as_tensor(alphas, dtype=torch.float64)
    used = _first_images(splits, names, images)
    passes = _passes(encoder, tasks, taus, used, "error", batch, "float32")
    tell = _counting(progress, len(alphas) * (1 + len(names)))
    terms = {name: torch.zeros(len(alphas), dtype=torch.float64) for name in names}
    for place, alpha in enumerate(alphas.tolist()):
        merged = passes.outputs(dict.fromkeys(names, alpha), names)
        tell()
        for name in names:
            alone = passes.outputs({name: alpha}, [name])[name]
            terms[name][place] = between("error", alone, merged[name]).mean()
            tell()
    return Diagonal(names, alphas, terms, {name: len(used[name].images) for name in names})


def _counting(progress: Callable[[int, int], None] | None, total: int) -> Callable[[], None]:
    """Return what is to be called after each of ``total`` settings."""
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tell


def _first_images(splits: Mapping, names: Sequence[str], images: int | None) -> dict:
    """Return the splits with no more images than asked for."""
    return {
        name: splits[name]
        if images is None or len(splits[name].images) <= images
        else splits[name].take(images)
        for name in names
    }


def _passes(encoder, tasks, taus, splits, distance, batch, precision) -> Passes:
    """Return the prepared passes of exactly these tasks."""
    chosen = {name: taus[name] for name in tasks}
    return Passes(
        encoder, tasks, chosen, splits, distance=distance, batch=batch, precision=precision
    )


def _single_axes(
    passes: Passes, names: tuple[str, str], alphas: Tensor, cells: Sequence[Cell]
) -> dict[str, dict[int, Tensor]]:
    """Return each task's outputs under its own vector alone, at the alphas that cells need."""
    return {
        name: {
            place: passes.outputs({name: float(alphas[place])}, [name])[name]
            for place in sorted({cell[side] for cell in cells})
        }
        for side, name in enumerate(names)
    }


def _enter(
    tables: Tables, cell: tuple[int, int], apart: list[Tensor], weights: list[Tensor] | None
) -> None:
    """Write one cell from the distances of both tasks' images."""
    i, j = cell
    terms = [distances.mean() for distances in apart]
    if weights is None:
        ends = [wilson_intervals(t, len(d)) for t, d in zip(terms, apart, strict=True)]
        low, high = [list(side) for side in zip(*ends, strict=True)]
        ends.append(interval_of_sum(terms, low, high))
    else:
        samples = [w @ d / len(d) for w, d in zip(weights, apart, strict=True)]
        ends = [percentile_interval(sample) for sample in (*samples, samples[0] + samples[1])]
    tables["low"][:, i, j] = torch.stack([low for low, _ in ends])
    tables["high"][:, i, j] = torch.stack([high for _, high in ends])
    tables["xi"][:, i, j] = torch.stack(terms)
