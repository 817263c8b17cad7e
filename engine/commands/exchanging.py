"""The verbs that bring checkpoints in and take models away: ``import`` and ``export``."""

import argparse
from pathlib import Path

from torch import Tensor

from engine.commands.choices import (
    find_checkpoint,
    open_encoder,
    open_store,
    open_tasks,
    read_alphas,
    read_taus,
)
from engine.commands.directions import prepared, read_options
from engine.commands.exporting import folder_size
from engine.commands.finetuning import measured_alone
from engine.commands.printing import Outcome, megabytes, percent
from engine.encoders import Encoder, load_encoder
from engine.errors import UsageError
from engine.evaluate import MERGED
from engine.exchange import bring
from engine.exchange.export import huggingface_folder, weights_file
from engine.exchange.records import brought_meta, taken_record
from engine.merging import share
from engine.merging.weights import merged_tensors
from engine.remembering import head_digest
from engine.store import Entry, Store
from engine.task_vectors import combine
from engine.tasks import Task, load_split


def import_(args: argparse.Namespace) -> Outcome:
    r"""Bring a user's checkpoint into the store as a task vector.

    .. math:: \tau = \theta - \theta_0

    Args:
        args: With ``path``, ``encoder``, ``task``, ``mode``, ``zeroshot``, ``measure``,
            ``dry_run``, ``device``, ``threads`` and ``cache``.

    Returns:
        What was brought: task, mode, digest, where it came from, accuracy if measured.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (1).
    """
    store = open_store(args)
    (task,) = open_tasks([args.task])
    encoder = open_encoder(args, store)
    brought = bring(args.path, encoder, args.mode, args.zeroshot)
    measured = _measured(store, encoder, task, brought.tau, brought.mode) if args.measure else {}
    meta = brought_meta(brought, encoder, task, head_digest(encoder, task), **measured)
    shown = ("encoder", "task", "task_source", "mode", "tau_digest", "origin", "accuracy", "n")
    record = {key: meta[key] for key in shown if key in meta}
    if args.dry_run:
        return Outcome({**record, "dry_run": True}, _told(record))
    entry = store.put("checkpoint", brought.tau, meta)
    record |= {"digest": entry.digest, "path": str(entry.path), "bytes": entry.size}
    return Outcome(record, _told(record))


def _measured(
    store: Store, encoder: Encoder, task: Task, tau: dict[str, Tensor], mode: str
) -> dict:
    """Return accuracy by split, as fine-tuning records it."""
    names = ("validation", "test")
    splits = {name: load_split(task, name, encoder.image_size, store) for name in names}
    device = next(iter(encoder.theta0.values())).device
    moved = {name: value.to(device) for name, value in tau.items()}
    return {
        "accuracy": {
            name: measured_alone(encoder, task, data, moved, mode) for name, data in splits.items()
        },
        "n": {name: len(data.labels) for name, data in splits.items()},
        "split_digests": {name: data.digest for name, data in splits.items()},
    }


def _told(record: dict) -> str:
    """Return what a reader is told of an imported checkpoint."""
    origin = record["origin"]
    written = "digest" in record
    becomes = f"is now {record['digest'][:12]}," if written else "would be"
    lines = [
        f"{origin['file']} ({origin['kind']}) {becomes} the {record['mode']} task vector of "
        f"{record['task']} for {record['encoder']}: "
        f"{100 * origin['relative_norm']:.2f} % of theta_0's norm"
    ]
    if origin.get("absent"):
        lines.append(f"it has no {', '.join(origin['absent'])}: the task vector is 0 there")
    if "accuracy" in record:
        accuracy = record["accuracy"]
        lines.append(
            f"alone, at alpha = 1: validation {percent(accuracy['validation'])}, "
            f"test {percent(accuracy['test'])} % (n = {record['n']['test']})"
        )
    return "\n".join(lines)


def export(args: argparse.Namespace) -> Outcome:
    r"""Write a merged model, or a task vector alone, for others to load; each is read back.

    .. math:: \theta_0 + \sum_t \alpha_t \tau_t, \quad \text{or} \quad \sum_t \alpha_t \tau_t

    Args:
        args: With ``format`` ("open_clip", "huggingface" or "vector"), ``encoder``, ``mode``,
            ``tasks``, ``alpha`` or ``alphas``, ``convention``, ``method``, ``option``, ``out`` and
            ``cache``. With a method, what it makes of the task vectors stands for their sum.

    Returns:
        Where it is, what it holds, what it was made of and what was verified.

    Raises:
        UsageError: If there are no coefficients, or the reading is no single set of weights.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (1) and (3).
    """
    vector = args.format == "vector"
    if not vector and args.mode != "nonlinear":
        raise UsageError(
            f"the {args.mode} reading is no single set of weights (f_lin needs theta_0 and tau "
            "apart), and no other program computes it; take --mode nonlinear, or --as vector"
        )
    if args.method is not None and args.alpha is None:
        raise UsageError(f"{args.method} makes one direction: say how far with --alpha 1")
    if args.alpha is None and args.alphas is None:
        if not vector or len(args.tasks or ()) != 1:
            raise UsageError(
                "say how much of each task: --alpha 0.3, or --alphas handwriting=0.3 signs=0.2"
            )
        args.alpha = 1.0
    out = Path(args.out).expanduser()
    if args.format != "huggingface" and out.suffix != ".safetensors":
        raise UsageError(f"{out} must end in .safetensors, the only format written")
    store = open_store(args)
    tasks = open_tasks(args.tasks)
    typed = read_alphas(args, tasks)
    factor = share(args.convention, len(tasks))
    alphas = {name: factor * alpha for name, alpha in typed.items()}
    encoder = load_encoder(args.encoder, store)
    entries = [find_checkpoint(store, encoder, t, args.mode) for t in tasks if alphas[t.name] != 0]
    if not entries:
        raise UsageError("every coefficient is 0, and theta_0 alone is no task's; give others")
    taus = read_taus(store, encoder, entries)
    used = {name: alphas[name] for name in taus}
    direction = prepared(args, taus)
    if direction is not None:
        taus, used = {MERGED: direction}, {MERGED: args.alpha}
    record = taken_record(
        args.format,
        encoder,
        args.mode,
        args.convention,
        typed,
        used,
        {entry.meta["task"]: entry for entry in entries},
        args.method,
        read_options(args),
    )
    if args.format == "huggingface":
        theta = combine(encoder.theta0, taus, used)
        verified = huggingface_folder(encoder, theta, out, record)
        size = folder_size(out)
    else:
        verified = weights_file(_tensors(store, encoder, args, entries, taus, used), record, out)
        size = out.stat().st_size
    record |= {"out": str(out.absolute()), "bytes": size, "verified": verified}
    return Outcome(record, _written(record))


def _tensors(
    store: Store,
    encoder: Encoder,
    args: argparse.Namespace,
    entries: list[Entry],
    taus: dict[str, dict[str, Tensor]],
    alphas: dict[str, float],
) -> dict[str, Tensor]:
    """Return what a file holds; a single task vector at alpha = 1 keeps its bits and its type."""
    alone = args.format == "vector" and args.method is None
    if alone and list(alphas.values()) == [1.0]:
        return {f"tau.visual.{name}": value for name, value in store.get(entries[0]).items()}
    # of the linearized readings merged_tensors gives the sum alone
    reading = "nonlinear" if args.format == "open_clip" else "linear"
    return merged_tensors(encoder, reading, taus, alphas)


def _written(record: dict) -> str:
    """Return what a reader is told of an exported file."""
    verified = record["verified"]
    lines = [
        f"wrote {record['out']} ({megabytes(record['bytes'])}): the {record['contents']} of "
        f"{record['encoder']} with {', '.join(record['checkpoints'])}, merged by "
        f"{record['method']}; {verified['tensors']} tensors read back equal"
    ]
    if record["as"] == "huggingface":
        lines.append(
            f"transformers' image_embeds differ from ours by {verified['largest_difference']:.1e} "
            "of the largest"
        )
    return "\n".join(lines)
