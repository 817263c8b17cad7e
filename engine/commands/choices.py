"""From the words of the command line to a store, a device, an encoder, tasks and task vectors."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.encoders import Encoder, load_encoder
from engine.errors import MissingDataError, UsageError
from engine.jobs.reporting import recorded
from engine.store import Entry, Store, default_store
from engine.tasks import TASKS, Task, load_task

# how the weights are read -> how they were trained
TRAINED = {"nonlinear": "nonlinear", "posthoc": "nonlinear", "linear": "linear"}


def open_store(args: argparse.Namespace) -> Store:
    """Open the store that was asked for.

    Args:
        args: With ``cache``, a folder or None.

    Returns:
        The store; its embedded entries are there whatever its home.
    """
    if args.cache is None:
        return recorded(default_store())
    return recorded(Store(Path(args.cache).expanduser().absolute(), default_store().embedded))


def open_device(args: argparse.Namespace) -> str:
    """Find the device to compute on and set the number of CPU threads.

    Args:
        args: With ``device`` ("auto", "cpu", "cuda" or "mps") and ``threads``, a number or None.

    Returns:
        "cpu", "cuda" or "mps"; auto takes the fastest that is there.

    Raises:
        UsageError: If the device asked for is not there.
    """
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if args.device == "auto":
        return next(device for device in there if there[device])
    if not there[args.device]:
        raise UsageError(f"there is no {args.device} device here; take --device cpu")
    return args.device


def open_encoder(args: argparse.Namespace, store: Store) -> Encoder:
    """Load the encoder that was asked for, on its device.

    Args:
        args: With ``encoder``, ``device`` and ``threads``.
        store: Where the miniature lies.

    Returns:
        The encoder.
    """
    return load_encoder(args.encoder, store, device=open_device(args))


def open_tasks(names: Sequence[str] | None) -> list[Task]:
    """Load the descriptions of tasks.

    Args:
        names: Names of the miniature's tasks or paths; None for the miniature's eight.

    Returns:
        The tasks, in the order given.

    Raises:
        UsageError: If two have the same name.
    """
    tasks = [load_task(name) for name in (TASKS if names is None else names)]
    seen = [task.name for task in tasks]
    twice = sorted({name for name in seen if seen.count(name) > 1})
    if twice:
        raise UsageError(f"two tasks are called {twice[0]}; rename a folder or name each once")
    return tasks


def find_checkpoint(
    store: Store, encoder: Encoder, task: Task, mode: str, seed: int | None = None
) -> Entry:
    """Find the newest task vector of a task for a reading.

    Args:
        store: Where to look.
        encoder: Whose weights it must belong to, by digest.
        task: The task.
        mode: The reading: "nonlinear", "posthoc" or "linear".
        seed: Trained with this seed; None for any.

    Returns:
        Its entry.

    Raises:
        MissingDataError: If there is none, with the command that makes it.
    """
    trained = TRAINED[mode]
    found = store.find(
        "checkpoint",
        encoder_digest=encoder.digest,
        task=task.name,
        task_source=task.source,
        mode=trained,
        **({} if seed is None else {"seed": seed}),
    )
    if not found:
        where = task.name if task.source == "miniature" else task.source
        by, word = ("", "") if seed is None else (f" by seed {seed}", f" --seed {seed}")
        raise MissingDataError(
            f"{encoder.name} has no {trained} task vector of {task.name}{by}; make it with: python "
            f"-m engine finetune --encoder {encoder.name} --mode {trained} --tasks {where}{word}"
        )
    return found[0]


def read_taus(
    store: Store, encoder: Encoder, entries: Sequence[Entry]
) -> dict[str, dict[str, Tensor]]:
    """Read task vectors in float32, on the encoder's device.

    Args:
        store: Where they lie.
        encoder: Whose device they go to.
        entries: Checkpoints.

    Returns:
        One ``tau`` a task, by the task's name.
    """
    device = next(iter(encoder.theta0.values())).device
    return {
        entry.meta["task"]: {
            name: tensor.to(device, torch.float32) for name, tensor in store.get(entry).items()
        }
        for entry in entries
    }


def read_alphas(args: argparse.Namespace, tasks: Sequence[Task]) -> dict[str, float]:
    """Read the coefficients as typed, before any convention.

    Args:
        args: With ``alpha``, one for all, or ``alphas``, pairs of a task and a number.
        tasks: The tasks chosen.

    Returns:
        One coefficient a task, in the order of the tasks; 0 for those not named.

    Raises:
        UsageError: If both are given, or a name is not among the tasks.
    """
    if args.alpha is not None and args.alphas is not None:
        raise UsageError("give --alpha for every task or --alphas for some, not both")
    alphas = dict.fromkeys((task.name for task in tasks), args.alpha or 0.0)
    for name, value in args.alphas or ():
        if name not in alphas:
            raise UsageError(f"--alphas names {name}, which is not among: {', '.join(alphas)}")
        alphas[name] = value
    return alphas
