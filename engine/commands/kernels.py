"""The verb that looks at eigenfunctions: ``ntk``."""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.commands.choices import find_checkpoint, open_encoder, open_store, read_taus
from engine.commands.printing import Outcome, paced, say, table
from engine.encoders import Encoder
from engine.errors import MissingDataError, UsageError
from engine.ntk import LocalEnergy, keep_local_energies, kept_local_energy, local_energies
from engine.ntk.measuring import choose_logits
from engine.store import Store
from engine.tasks import Task, load_split, load_task

DOUBLE_BELOW = 20_000_000  # parameters: up to here float64 costs little on a CPU
COARSE = (5, 20)  # leading vectors kept where there are many controls


def ntk(args: argparse.Namespace) -> Outcome:
    r"""Measure where the tangent kernel's eigenfunctions live, or recall it.

    .. math:: E_{loc}(x) = \sum_\rho \phi_\rho(x)^2

    Args:
        args: With ``encoder``, ``task``, ``control``, ``points``, ``logits``, ``readout``,
            ``algorithm``, ``batch``, ``memory``, ``seed``, ``precision``, ``force``, ``device``,
            ``threads`` and ``cache``.

    Returns:
        For one control ``LocalEnergy.record()``; for several ``{"pairs": [...]}``.

    Raises:
        UsageError: If a choice cannot be carried out.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1 and App. A.
    """
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
        speak = paced()
        many = len(controls) > 1
        n = args.points
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
            lambda done, total: speak(f"{task.name}: {done:.0f} of {total:.0f} points"),
            lambda made: say(made.text()),
            (*(R for R in COARSE if R < n), n) if many else None,
            **({"ridges": (0.03,)} if many else {}),
        )
        keep_local_energies(store, energies)
        # what is printed is what is kept, rounding and all
        found = [LocalEnergy.from_tensors(*energy.to_tensors()) for energy in energies]
    records = [energy.record() for energy in found]
    record = records[0] if len(records) == 1 else {"pairs": records}
    return Outcome(record, _told(found))


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
