"""The verb that looks at eigenfunctions: ``ntk``."""

import argparse
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.commands import sharding
from engine.commands.choices import find_checkpoint, open_encoder, open_store, read_taus
from engine.commands.printing import Outcome, say, table
from engine.commands.stopping import counter, stoppable
from engine.encoders import Encoder
from engine.errors import MissingDataError, UsageError
from engine.ntk import LocalEnergy, keep_local_energies, kept_local_energy, local_energies
from engine.ntk.measuring import choose_logits
from engine.store import Store
from engine.tasks import Split, Task, load_split, load_task

DOUBLE_BELOW = 20_000_000  # parameters: up to here float64 costs little on a CPU
COARSE = (5, 20)  # leading vectors kept where there are many controls


def ntk(args: argparse.Namespace) -> Outcome:
    r"""Measure where the tangent kernel's eigenfunctions live, or recall it.

    .. math:: E_{loc}(x) = \sum_\rho \phi_\rho(x)^2

    Each logit's kernel is saved as it is done: stopped, it goes on with the next; several
    processes may compute a share of the logits each.

    Args:
        args: With ``encoder``, ``task``, ``control``, ``points``, ``logits``, ``readout``,
            ``algorithm``, ``batch``, ``memory``, ``seed``, ``precision``, ``shards``, ``shard``,
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
    store = open_store(args)
    task, controls = load_task(args.task), [load_task(name) for name in args.control]
    if len({control.name for control in controls}) < len(controls):
        raise UsageError("a control is named twice; name each once")
    encoder = _in_precision(open_encoder(args, store), args.precision)
    logits = _logits(args.logits)
    chosen = choose_logits(logits, task.classnames)
    names = ("trace",) if logits == "trace" else tuple(task.classnames[c] for c in chosen)
    own = load_split(task, "train", encoder.image_size, store)
    splits = {
        control: load_split(control, "train", encoder.image_size, store) for control in controls
    }
    digests = {task.name: own.digest} | {c.name: split.digest for c, split in splits.items()}
    found = None if args.force else _recalled(args, store, encoder, task, controls, names, digests)
    if found is None:
        share = args.shard if args.shards > 1 else None
        energies, states = _measured(args, store, encoder, task, own, splits, logits, share)
        if share is not None:
            done = names if names != ("trace",) else task.classnames
            return _told_share(args, done[share - 1 :: args.shards])
        keep_local_energies(store, energies)
        for state in states:
            store.drop_state(state)
        # what is printed is what is kept, rounding and all
        found = [LocalEnergy.from_tensors(*energy.to_tensors()) for energy in energies]
    records = [energy.record() for energy in found]
    record = records[0] if len(records) == 1 else {"pairs": records}
    return Outcome(record, _told(found))


def _measured(
    args: argparse.Namespace,
    store: Store,
    encoder: Encoder,
    task: Task,
    own: Split,
    splits: Mapping[Task, Split],
    logits: int | str | list[str],
    share: int | None,
) -> tuple[list[LocalEnergy], set[str]]:
    """Return the local energies, none for a share, and the working states they rest on."""
    states: set[str] = set()

    def read(name: str) -> tuple[dict[str, Tensor], dict] | None:
        states.add(name)
        return store.load_state(name)

    many, n = len(splits) > 1, args.points
    with stoppable() as check:
        energies = local_energies(
            encoder,
            task,
            own,
            splits,
            n,
            logits,
            args.seed,
            args.readout,
            None if many else _tau(store, encoder, task),
            args.algorithm,
            args.batch,
            None if args.memory is None else args.memory * 1_000_000,
            counter(task.name, "points", check),
            lambda made: say(made.text()),
            (*(R for R in COARSE if R < n), n) if many else None,
            **({"ridges": (0.03,)} if many else {}),
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


def _recalled(
    args: argparse.Namespace,
    store: Store,
    encoder: Encoder,
    task: Task,
    controls: Sequence[Task],
    names: tuple[str, ...],
    digests: dict[str, str],
) -> list[LocalEnergy] | None:
    """Return what is kept of exactly this question; None if a part is missing."""
    precision = str(next(iter(encoder.theta0.values())).dtype).removeprefix("torch.")
    found = []
    for control in controls:
        wanted = {name: digests[name] for name in (task.name, control.name)}
        for energy in kept_local_energy(
            store, encoder, task.name, control.name, args.points, args.seed, args.readout
        ):
            same = energy.logits == names and energy.split_digests == wanted
            if same and energy.made.get("precision") == precision:
                found.append(energy)
                break
    return found if len(found) == len(controls) else None


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


def _tau(store: Store, encoder: Encoder, task: Task) -> dict[str, Tensor] | None:
    """Return the linearly fine-tuned task vector, if there is one."""
    try:
        entry = find_checkpoint(store, encoder, task, "linear")
    except MissingDataError:
        return None
    return read_taus(store, encoder, [entry])[task.name]


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
