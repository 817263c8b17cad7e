"""What a fine-tune is said to cost before it begins, and its refusal where it cannot fit."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from engine.commands.choices import open_device
from engine.commands.printing import Outcome, duration, megabytes, say, table
from engine.errors import UsageError
from engine.finetune import Recipe
from engine.jobs.estimate import Estimate, estimate, is_measured
from engine.jobs.probe import SEEN
from engine.store import Store
from engine.tasks import Task, describe

SHORT = 10 * SEEN  # images of a run that is over sooner than it is worth measuring


def planned(
    args: argparse.Namespace, store: Store, recipe: Recipe, tasks: Sequence[Task]
) -> Outcome:
    """Tell what fine-tuning on tasks would cost, without doing it.

    Args:
        args: With ``encoder``, ``mode``, ``limit``, ``measure_on`` and ``device``.
        store: Where the encoder lies, and what was measured of this machine.
        recipe: How it would be trained.
        tasks: On what.

    Returns:
        ``{"encoder", "mode", "recipe", "steps", "seconds", "memory", "disk", "fits", "plan":
        [{"task", ..., "refusal"}]}``: steps, seconds and disk (bytes) of all tasks together, memory
        (bytes) of the largest.
    """
    found = {task.name: _estimated(args, store, recipe, _sizes(args, task)) for task in tasks}
    rows = [
        (name, f"{e.steps:,}", duration(e.seconds), megabytes(e.memory), megabytes(e.disk))
        for name, e in found.items()
    ]
    lines = [table(("task", "steps", "time", "memory", "disk"), rows)]
    lines += dict.fromkeys(f"cannot be done here: {e.refusal}" for e in found.values() if e.refusal)
    lines += dict.fromkeys(f"estimated, {e.measured}; nothing was trained" for e in found.values())
    record = {
        "encoder": args.encoder,
        "mode": args.mode,
        "recipe": asdict(recipe),
        "steps": sum(e.steps for e in found.values()),
        "seconds": sum(e.seconds for e in found.values()),
        "memory": max(e.memory for e in found.values()),
        "disk": sum(e.disk for e in found.values()),
        "fits": not any(e.refusal for e in found.values()),
        "plan": [{"task": name, **asdict(e)} for name, e in found.items()],
    }
    return Outcome(record, "\n".join(lines))


def check_fits(
    args: argparse.Namespace, store: Store, recipe: Recipe, name: str, sizes: Mapping[str, int]
) -> None:
    """Say in one line what a fine-tune will cost, and refuse it where it cannot fit.

    A run of fewer images than ten times what measuring a step takes is not measured for it.

    Args:
        args: With ``encoder``, ``mode``, ``force`` and ``device``.
        store: Where the encoder lies, and what was measured of this machine.
        recipe: How it will be trained.
        name: Of the task.
        sizes: Images in "train", "validation" and "test".

    Raises:
        UsageError: If it cannot fit and ``force`` is not set: the estimate's own sentence.
    """
    device, plan = open_device(args), f"plan: {name} {args.mode}: {recipe.steps:,} steps"
    known = is_measured(store, args.encoder, args.mode, recipe, device)
    if not known and recipe.steps * recipe.batch < SHORT:
        say(f"{plan} of {recipe.batch} images, too few to estimate what they cost")
        return
    cost = _estimated(args, store, recipe, sizes, _held_now())
    say(
        f"{plan}, about {duration(cost.seconds)}, {megabytes(cost.memory)} of memory, "
        f"{megabytes(cost.disk)} of disk ({cost.measured})"
    )
    if cost.refusal and not args.force:
        raise UsageError(f"{cost.refusal}; --force tries it all the same")
    if cost.refusal:
        say(f"{cost.refusal}; tried all the same")


def _estimated(
    args: argparse.Namespace,
    store: Store,
    recipe: Recipe,
    sizes: Mapping[str, int],
    held: int = 0,
) -> Estimate:
    """Return the estimate of one task."""
    return estimate(store, args.encoder, args.mode, recipe, sizes, open_device(args), held)


def _sizes(args: argparse.Namespace, task: Task) -> dict[str, int]:
    """Return how many images of each split would be used."""
    sizes = dict(describe(task)["counts"])
    most = {"train": args.limit, "validation": args.measure_on, "test": args.measure_on}
    return {name: min(count, most[name] or count) for name, count in sizes.items()}


def _held_now() -> int:
    """Return the bytes of memory that this process holds; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])
    except (OSError, ValueError, StopIteration):
        return 0
