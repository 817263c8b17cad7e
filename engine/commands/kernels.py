"""The verb that looks at eigenfunctions: ``ntk``."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.commands import sharding
from engine.commands.choices import find_checkpoint, open_encoder, open_store, read_taus
from engine.commands.printing import Outcome, say, table
from engine.commands.stopping import counter, stoppable
from engine.encoders import Encoder
from engine.errors import MissingDataError, UsageError
from engine.ntk import (
    LocalEnergy,
    Wanted,
    answers,
    choose_logits,
    content_of,
    drawn_from,
    keep_local_energies,
    local_energies,
    read_answer,
)
from engine.ntk.kept import as_kept
from engine.ntk.reading import RIDGES, check_settings, leading_grid
from engine.remembering import PROBE, tau_digests
from engine.store import Entry, Store
from engine.tasks import Split, Task, load_split, load_task

DOUBLE_BELOW = 20_000_000  # parameters: up to here float64 costs little on a CPU
# settings kept where there are many controls: some of those of one
COARSE, COARSE_RIDGES = (1, 4, 10, 27, 69), (1e-2, 3e-2)


def ntk(args: argparse.Namespace) -> Outcome:
    r"""Measure where the tangent kernel's eigenfunctions live, or recall it.

    .. math:: E_{loc}(x) = \sum_\rho \phi_\rho(x)^2

    Each logit's kernel is saved as it is done: stopped, it goes on with the next; several
    processes may compute a share of the logits each.

    Args:
        args: With ``encoder``, ``task``, ``control``, ``points``, ``logits``, ``readout``,
            ``algorithm``, ``batch``, ``memory``, ``seed``, ``precision``, ``limit``,
            ``layer_scores``, ``leading``, ``ridge``, ``regression``, ``shards``, ``shard``,
            ``force``, ``device``, ``threads`` and ``cache``.

    Returns:
        For one control ``LocalEnergy.record()``; for several ``{"pairs": [...]}``; of a share
        ``{"shard", "shards", "logits"}``.

    Raises:
        UsageError: If a choice cannot be carried out.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1 and App. A.
    """
    sharding.check(args)
    check_settings(args.leading, args.ridge, args.points)
    store = open_store(args)
    run = _opened(args, store)
    questions = [_question(args, run, control) for control in run.controls]
    found = None if args.force else _recalled(args, store, run, questions)
    if found is None:
        share = args.shard if args.shards > 1 else None
        energies, states = _measured(args, store, run, share)
        if share is not None:
            done = run.names if run.names != ("trace",) else run.task.classnames
            return _told_share(args, done[share - 1 :: args.shards])
        energies = [
            replace(energy, content=question.content)
            for energy, question in zip(energies, questions, strict=True)
        ]
        keep_local_energies(store, energies)
        for state in states:
            store.drop_state(state)
        # what is printed is what is kept, rounding and all
        found = [as_kept(energy) for energy in energies]
    records = [energy.record(args.leading, args.ridge) for energy in found]
    record = records[0] if len(records) == 1 else {"pairs": records}
    return Outcome(record, _told(found))


@dataclass(frozen=True)
class _Run:
    """What a call is about: train splits of the task and of each control, and its task vector."""

    encoder: Encoder
    task: Task
    controls: tuple[Task, ...]
    splits: dict[Task, Split]
    limits: dict[str, int | None]
    logits: int | str | list[str]
    names: tuple[str, ...]
    trained: Entry | None


def _opened(args: argparse.Namespace, store: Store) -> _Run:
    """Load what a call is about; UsageError if tasks are the same or a choice is wrong."""
    task, controls = load_task(args.task), [load_task(name) for name in args.control]
    if len({control.name for control in controls}) < len(controls):
        raise UsageError("a control is named twice; name each once")
    if task.name in {control.name for control in controls}:
        raise UsageError(f"task and control are both {task.name}; choose another control")
    logits = _logits(args.logits)
    chosen = choose_logits(logits, task.classnames)
    names = ("trace",) if logits == "trace" else tuple(task.classnames[c] for c in chosen)
    everything = (task, *controls)
    limits = {each.name: drawn_from(each, args.points, args.limit) for each in everything}
    encoder = _in_precision(open_encoder(args, store), args.precision)
    trained = _trained(store, encoder, task, logits, args.regression)
    splits = {
        each: load_split(each, "train", encoder.image_size, store, limits[each.name])
        for each in everything
    }
    return _Run(encoder, task, tuple(controls), splits, limits, logits, names, trained)


def _measured(
    args: argparse.Namespace, store: Store, run: _Run, share: int | None
) -> tuple[list[LocalEnergy], set[str]]:
    """Return the local energies, none for a share, and the working states they rest on."""
    states: set[str] = set()

    def read(name: str) -> tuple[dict[str, Tensor], dict] | None:
        states.add(name)
        return store.load_state(name)

    many, n = len(run.controls) > 1, args.points
    grid = COARSE if many else leading_grid(n)
    tau = None
    if run.trained is not None:
        tau = read_taus(store, run.encoder, [run.trained])[run.task.name]
    with stoppable() as check:
        energies = local_energies(
            run.encoder,
            run.task,
            run.splits[run.task],
            {control: run.splits[control] for control in run.controls},
            n,
            run.logits,
            args.seed,
            args.readout,
            tau,
            args.algorithm,
            args.batch,
            None if args.memory is None else args.memory * 1_000_000,
            counter(run.task.name, "points", check),
            lambda made: say(made.text()),
            tuple(sorted({*(R for R in grid if R < n), *args.leading, n})),
            tuple(sorted({*(COARSE_RIDGES if many else RIDGES), *args.ridge})),
            load_state=read,
            save_state=store.save_state,
            share=share,
            shares=args.shards,
            layer_scores=args.layer_scores,
        )
    return energies, states


def _told_share(args: argparse.Namespace, logits: Sequence[str]) -> Outcome:
    """Return the answer of a share: which logits' kernels lie ready."""
    record = {"shard": args.shard, "shards": args.shards, "logits": list(logits)}
    text = f"share {args.shard} of {args.shards}: {len(logits)} kernels are saved"
    return Outcome(record, text)


def _question(args: argparse.Namespace, run: _Run, control: Task) -> Wanted:
    """Return what is asked of one control, by content."""
    both = (run.task, control)
    probes = {t: run.splits[t].take(min(PROBE, len(run.splits[t].labels))) for t in both}
    tau = ""
    if run.trained is not None:
        tau = tau_digests({run.task.name: run.trained})[run.task.name]
    content = content_of(run.encoder, probes, run.limits, tau)
    return Wanted(
        run.encoder.digest, run.task.name, control.name, args.points, args.seed, args.readout,
        run.names, content,
    )  # fmt: skip


def _recalled(
    args: argparse.Namespace, store: Store, run: _Run, questions: Sequence[Wanted]
) -> list[LocalEnergy] | None:
    """Return what is kept of exactly these questions; None if a part is missing."""
    precision = str(next(iter(run.encoder.theta0.values())).dtype).removeprefix("torch.")
    digests = {task.name: split.digest for task, split in run.splits.items()}
    found = []
    for question in questions:
        held = [
            item
            for item in answers(store, question)
            if item.meta["made"].get("precision") == precision
            and all(digests[name] == said for name, said in item.meta["split_digests"].items())
        ]
        energy = read_answer(store, held) if held else None
        if energy is None or not _suffices(energy, args):
            return None
        found.append(energy)
    return found


def _suffices(energy: LocalEnergy, args: argparse.Namespace) -> bool:
    """Return whether a kept answer has all that is asked for."""
    return (
        set(args.leading) <= set(energy.leading)
        and set(args.ridge) <= set(energy.ridges)
        and not (args.layer_scores and energy.layer_scores is None)
        and not (args.regression and energy.regression is None)
    )


def _in_precision(encoder: Encoder, precision: str) -> Encoder:
    """Return an encoder in float64 where that is asked for or costs little, else in float32."""
    theta = encoder.theta0
    device = next(iter(theta.values())).device
    small = sum(value.numel() for value in theta.values()) < DOUBLE_BELOW
    if device.type == "mps" and precision == "float64":
        raise UsageError("an mps device has no float64; take --precision float32 or --device cpu")
    if precision == "auto":
        precision = "float64" if small and device.type != "mps" else "float32"
    return encoder.to(device, getattr(torch, precision))


def _logits(words: Sequence[str]) -> int | str | list[str]:
    """Read what was said after --logits: a number, all, trace, or names of classes."""
    if len(words) == 1 and words[0].isdecimal():
        return int(words[0])
    return words[0] if len(words) == 1 and words[0] in ("all", "trace") else list(words)


def _trained(
    store: Store, encoder: Encoder, task: Task, logits: int | str | list[str], needed: bool
) -> Entry | None:
    """Return the newest linearly fine-tuned task vector; None without, or for the trace kernel.

    Raises:
        UsageError: If it is needed and the trace kernel, which has no use for it, asked for.
        MissingDataError: If it is needed and not there.
    """
    if logits == "trace":
        if needed:
            raise UsageError(
                "--regression compares single logits and the trace kernel is a sum over them; "
                "give --logits all, a number, or names of classes"
            )
        return None
    try:
        return find_checkpoint(store, encoder, task, "linear")
    except MissingDataError:
        if needed:
            raise
        return None


def _told(found: Sequence[LocalEnergy]) -> str:
    """Return a table for a reader: one line a pair and arrangement."""
    rows = []
    for energy in found:
        for name, score in energy.scores.items():
            low, high = score["auc_interval"]
            gap = score["difference"]
            around = " .. ".join(f"{value:+.3f}" for value in score["difference_interval"])
            pair = f"{energy.task} / {energy.control}" if name == "paper" else ""
            rows.append((pair, name, f"{score['auc']:.3f}", f"{low:.3f} .. {high:.3f}",
                         f"{gap:+.3f}", around))  # fmt: skip
    first = found[0]
    heads = ("task / control", "columns", "area", "95 % interval", "difference", "95 % interval")
    return (
        f"{table(heads, rows)}\n"
        f"{first.encoder}, {first.n} points of each, {_count(first)} "
        f"({', '.join(first.logits)}), seed {first.seed}; paper: task and control, the rows are "
        "columns; null: two halves of the task; heldout: no column is a row, the score to quote"
    )


def _count(energy: LocalEnergy) -> str:
    """Say how many logits there are."""
    return f"{len(energy.logits)} logit{'s' if len(energy.logits) > 1 else ''}"
