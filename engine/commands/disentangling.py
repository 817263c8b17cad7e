"""The verb that measures how task vectors disturb each other: ``disentanglement``."""

import argparse
import itertools
from collections.abc import Callable, Mapping

from torch import Tensor

from engine.commands import sharding
from engine.commands.choices import find_checkpoint, open_encoder, open_store, open_tasks, read_taus
from engine.commands.printing import Outcome, table
from engine.commands.stopping import counter, stoppable
from engine.disentanglement import (
    Diagonal,
    PairMatrix,
    XiMap,
    axis,
    feature_products,
    linearized_diagonal,
    linearized_map,
    linearized_matrix,
    nonlinear_diagonal,
    nonlinear_matrix,
    remembered_map,
)
from engine.disentanglement.passes import check_pair, check_split
from engine.errors import UsageError
from engine.jobs import reporting
from engine.provenance import provenance
from engine.remembering import remembered_responses, tau_digests
from engine.responses import Responses, responses
from engine.store import Entry, Store
from engine.tasks import Split, Task, load_split

NARROW, MEDIUM = 0.05, 0.1  # thresholds told beside a map


class _Asked:
    """What a call of the verb works on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.store: Store = open_store(args)
        self.tasks: dict[str, Task] = {task.name: task for task in open_tasks(args.tasks)}
        low, high = (-args.range[0], *args.range)[-2:]
        # symmetric to the bit where the ends are
        self.alphas: Tensor = axis(args.grid, high, None if low == -high else low)
        self.encoder = open_encoder(args, self.store)
        self.entries: dict[str, Entry] = {
            name: find_checkpoint(self.store, self.encoder, task, args.mode, args.seed)
            for name, task in self.tasks.items()
        }
        self.taus = read_taus(self.store, self.encoder, list(self.entries.values()))

    def load(self, task: Task, split: str, limit: int | None) -> Split:
        """Load the first images of a task's split."""
        return load_split(task, split, self.encoder.image_size, self.store, limit=limit)

    def test(self) -> dict[str, Split]:
        """Load the test images of all tasks."""
        splits = {}
        for name, task in self.tasks.items():
            splits[name] = self.load(task, "test", self.args.images)
            check_split(task, splits[name])
        return splits

    def made(self) -> dict:
        """Return what an answer that is no map records of its making."""
        return {
            "encoder": self.encoder.name,
            "encoder_digest": self.encoder.digest,
            "mode": self.args.mode,
            "distance": "error",
            "taus": tau_digests(self.entries),
            **provenance(),
        }


def disentanglement(args: argparse.Namespace) -> Outcome:
    r"""Measure the disentanglement error of a pair of tasks, of all pairs, or of all at once.

    .. math:: \xi(\alpha_1, \alpha_2) = \sum_{t=1}^2 E_{x \sim \mu_t} \left[ dist\left(
              f(x; \theta_0 + \alpha_t \tau_t),
              f(x; \theta_0 + \alpha_1 \tau_1 + \alpha_2 \tau_2) \right) \right]

    A non-linear map is kept, and goes on where it was stopped; several processes may compute a
    share of its cells each.

    Args:
        args: With ``encoder``, ``tasks``, ``mode``, ``grid``, ``range``, ``distance``,
            ``images``, ``all_pairs``, ``matrix``, ``diagonal``, ``alpha``, ``precision``,
            ``shards``, ``shard``, ``force``, ``device``, ``threads`` and ``cache``.

    Returns:
        A map as ``XiMap.to_json`` gives it, several under "maps", a matrix or a diagonal; of a
        share ``{"shard", "shards", "cells"}``.

    Raises:
        UsageError: If the options contradict each other or a map is not asked of two tasks.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 4, Eq. (6).
    """
    _check_options(args)
    asked = _Asked(args)
    with stoppable() as check:
        if args.matrix:
            return _told_matrix(asked, _matrix(asked, check))
        if args.diagonal:
            return _told_diagonal(asked, _diagonal(asked, check))
        found = _maps(asked, check)
    if args.shard is not None and args.shards > 1:
        return _told_share(args, found)
    records = [{**item.to_json(), **provenance()} for item in found]
    record = {"maps": records} if args.all_pairs else records[0]
    text = "\n\n".join(_told_map(item) for item in found)
    return Outcome(record, _summary(found) if args.all_pairs else text)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: With what to change.
    """
    many = [
        name
        for name, given in (
            ("--all-pairs", args.all_pairs),
            ("--matrix", args.matrix),
            ("--diagonal", args.diagonal),
        )
        if given
    ]
    if len(many) > 1:
        raise UsageError(f"{' and '.join(many)} are different questions; ask one at a time")
    if not many:
        check_pair(args.tasks or ())
    if (args.matrix or args.diagonal) and args.distance != "error":
        raise UsageError(f"{many[0]} knows the distance error alone; leave --distance out")
    if len(args.range) > 2:
        raise UsageError("--range takes one number or two; leave the others out")
    if args.alpha is not None and not args.matrix:
        raise UsageError("--alpha belongs to --matrix; maps take --grid and --range")
    sharding.check(args)


def _maps(asked: _Asked, check: Callable[[], None]) -> list[XiMap]:
    """Return the maps of the pair, or of every pair."""
    every = itertools.combinations(asked.tasks, 2)
    pairs = list(every) if asked.args.all_pairs else [tuple(asked.tasks)]
    if asked.args.mode == "nonlinear":
        return _nonlinear_maps(asked, pairs, check)
    splits, norms = asked.test(), {}
    readings = _readings(asked, splits, check)
    scores = {name: reading.scores() for name, reading in readings.items()}
    order, found = list(asked.tasks), []
    for pair in pairs:
        planes = [0, *(1 + order.index(name) for name in pair)]
        if asked.args.distance != "error":
            norms = {name: feature_products(readings[name].select(pair)) for name in pair}
        digests = tau_digests(asked.entries)
        found.append(
            linearized_map(
                {name: scores[name][planes] for name in pair},
                pair,
                asked.alphas,
                encoder=asked.encoder.name,
                encoder_digest=asked.encoder.digest,
                mode=asked.args.mode,
                distance=asked.args.distance,
                norms=norms or None,
                logit_scale=asked.encoder.logit_scale,
                taus={name: digests[name] for name in pair},
                splits={name: splits[name].digest for name in pair},
            )
        )
        check()
    return found


def _nonlinear_maps(
    asked: _Asked, pairs: list[tuple[str, ...]], check: Callable[[], None]
) -> list[XiMap]:
    """Return the kept maps of pairs, or compute them; a job tells of those that it computes."""
    found, parts = [], len(pairs)
    for pair in pairs:
        reporting.parts(parts)
        tell, told = counter(" and ".join(pair), "cells", check), []

        def progress(_: XiMap, done: int, total: int, tell=tell, told=told) -> None:
            told.append(done)
            tell(done, total)

        found.append(_nonlinear(asked, pair, progress))
        parts -= not told  # it was kept
    return found


def _nonlinear(
    asked: _Asked, pair: tuple[str, ...], progress: Callable[[XiMap, int, int], None]
) -> XiMap:
    """Return the kept map of a pair, or compute it, or a share of its cells."""
    args = asked.args
    return remembered_map(
        asked.store,
        asked.encoder,
        {name: asked.entries[name] for name in pair},
        {name: asked.taus[name] for name in pair},
        {name: asked.tasks[name] for name in pair},
        asked.load,
        asked.alphas,
        distance=args.distance,
        images=args.images,
        precision=args.precision,
        force=args.force,
        progress=progress,
        share=args.shard if args.shards > 1 else None,
        shares=args.shards,
    )


def _readings(
    asked: _Asked, splits: Mapping[str, Split], check: Callable[[], None]
) -> dict[str, Responses]:
    """Return the responses of every task's images to every task vector."""
    tell, found = counter("responses", "tasks", check), {}
    remember = remembered_responses(
        asked.store, asked.encoder, asked.entries, asked.taus, asked.args.mode
    )
    for name, task in asked.tasks.items():
        if asked.args.distance == "error":
            found[name] = remember(task, splits[name])
        else:  # what is kept are scores; logits need the features
            found[name] = responses(asked.encoder, task, splits[name], asked.taus)
        tell(len(found), len(asked.tasks))
    return found


def _matrix(asked: _Asked, check: Callable[[], None]) -> PairMatrix:
    """Return the error of every pair at one alpha."""
    alpha = 1.0 if asked.args.alpha is None else asked.args.alpha
    if asked.args.mode != "nonlinear":
        readings = _readings(asked, asked.test(), check)
        scores = {name: reading.scores() for name, reading in readings.items()}
        return linearized_matrix(scores, tuple(asked.tasks), alpha)
    return nonlinear_matrix(
        asked.encoder, asked.tasks, asked.taus, asked.test(), alpha,
        images=asked.args.images, progress=counter("matrix", "settings", check),
    )  # fmt: skip


def _diagonal(asked: _Asked, check: Callable[[], None]) -> Diagonal:
    """Return the error of all tasks at once along alpha."""
    if asked.args.mode != "nonlinear":
        readings = _readings(asked, asked.test(), check)
        scores = {name: reading.scores() for name, reading in readings.items()}
        return linearized_diagonal(scores, tuple(asked.tasks), asked.alphas)
    return nonlinear_diagonal(
        asked.encoder, asked.tasks, asked.taus, asked.test(), asked.alphas,
        images=asked.args.images, progress=counter("diagonal", "settings", check),
    )  # fmt: skip


def _told_share(args: argparse.Namespace, found: list[XiMap]) -> Outcome:
    """Return the answer of a share: how many cells lie ready."""
    cells = sum(item.done for item in found)
    record = {"shard": args.shard, "shards": args.shards, "cells": cells}
    return Outcome(record, f"share {args.shard} of {args.shards}: {cells} cells are saved")


def _told_map(found: XiMap) -> str:
    """Return a map as text: xi in per cent, alpha_1 downwards, alpha_2 to the right."""
    first, second = found.tasks
    heads = ("", *(f"{alpha:.2f}" for alpha in found.alphas.tolist()))
    rows = [
        (f"{alpha:.2f}", *(f"{100 * value:.0f}" for value in row))
        for alpha, row in zip(found.alphas.tolist(), found.xi.tolist(), strict=True)
    ]
    share, cells = found.box_share(MEDIUM)
    unit = "%" if found.distance != "kl" else "hundredths of a nat"
    inside = "" if not cells else f"; in [0, 1]^2 xi <= {MEDIUM:g} on {share:.0%} of {cells} cells"
    return (
        f"xi in {unit} (of 0 .. 200 for error and tv): alpha of {first} downwards, of {second} "
        f"to the right\n{table(heads, rows)}\n{found.encoder}, read {found.mode}, distance "
        f"{found.distance}, n {found.n[first]} and {found.n[second]}, "
        f"{'exact' if found.exact else found.note}{inside}"
    )


def _summary(found: list[XiMap]) -> str:
    """Return one line a map."""
    rows = []
    for item in found:
        shares = [item.box_share(threshold)[0] for threshold in (NARROW, MEDIUM)]
        inside = item.alphas.abs() <= 1
        rows.append((
            " and ".join(item.tasks),
            *(f"{share:.2f}" for share in shares),
            f"{float(item.xi[inside][:, inside].mean()):.3f}",
            f"{float(item.xi.mean()):.3f}",
        ))
    heads = (
        "pair", f"box xi<={NARROW:g}", f"box xi<={MEDIUM:g}", "mean xi, |alpha|<=1", "mean xi",
    )  # fmt: skip
    return table(heads, rows)


def _told_matrix(asked: _Asked, found: PairMatrix) -> Outcome:
    """Return the answer to ``--matrix``."""
    rows = [
        (name, *("-" if value is None else f"{100 * value:.1f}" for value in row))
        for name, row in zip(found.names, found.to_json()["xi"], strict=True)
    ]
    text = table(("", *found.names), rows)
    return Outcome(
        {**found.to_json(), **asked.made()},
        f"{text}\nxi in % (0 .. 200) at alpha {found.alpha:g}, read {asked.args.mode}, exact",
    )


def _told_diagonal(asked: _Asked, found: Diagonal) -> Outcome:
    """Return the answer to ``--diagonal``."""
    columns = [found.alphas, *(100 * part for part in (found.xi, *found.xi_task.values()))]
    rows = [
        (f"{alpha:.2f}", *(f"{value:.1f}" for value in values))
        for alpha, *values in zip(*(column.tolist() for column in columns), strict=True)
    ]
    text = table(("alpha", "xi", *found.xi_task), rows)
    T = len(found.names)
    return Outcome(
        {**found.to_json(), **asked.made()},
        f"{text}\nxi in % (0 .. {100 * T}), all {T} tasks at once, read {asked.args.mode}, exact",
    )
