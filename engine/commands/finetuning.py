"""The verb that makes task vectors, ``finetune``; it resumes where it was stopped."""

import argparse
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from engine.commands import suites
from engine.commands.choices import open_device, open_encoder, open_store, open_tasks
from engine.commands.planning import check_fits, planned
from engine.commands.printing import Outcome, percent, say, table
from engine.commands.stopping import reporter, stoppable
from engine.encoders import Encoder
from engine.evaluate import evaluate_nonlinear, linearized_accuracy
from engine.finetune import Recipe, described, recipe_for, state_name
from engine.finetune import finetune as train_task
from engine.finetune.parallel import Processes, check_share, joined
from engine.provenance import provenance
from engine.remembering import head_digest
from engine.responses import responses
from engine.store import Entry, Store, digest_tensors
from engine.task_vectors import combine
from engine.tasks import Split, Task, load_split

RECIPE = (
    "steps",
    "batch",
    "rate",
    "warmup",
    "weight_decay",
    "seed",
    "accumulate",
    "augment",
    "precision",
    "checkpoint_every",
    "checkpointing",
)
CHOICES = (
    "encoder",
    "tasks",
    "mode",
    "limit",
    "measure_on",
    "half",
    "force",
    "device",
    "threads",
    "cache",
)


def finetune(args: argparse.Namespace) -> Outcome:
    r"""Fine-tune on tasks, one after the other, and store a task vector each.

    .. math:: \min_\tau E \, CE(f(x; \theta_0 + \tau), y), \quad \text{or with } f_{lin}

    Args:
        args: With ``encoder``, ``tasks``, ``mode``, the fields of the recipe, ``limit``,
            ``measure_on``, ``half``, ``force``, ``dry_run``, ``device``, ``threads``,
            ``processes`` and ``cache``.

    Returns:
        ``{"encoder", "mode", "recipe", "checkpoints": [{task, digest, ..., "skipped"}]}``; of a
        dry run what ``planned`` answers.

    Raises:
        SystemExit: In a process that only helps another; that one answers.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (1) to (3), Sec. 5.
    """
    suites.check(args)
    store = open_store(args)
    tasks = open_tasks(args.tasks)
    given = {name: getattr(args, name) for name in RECIPE}
    recipe = recipe_for(
        args.encoder, args.mode, **{name: v for name, v in given.items() if v is not None}
    )
    check_share(recipe.batch, args.processes)
    if args.dry_run:
        return planned(args, store, recipe, tasks)
    rows = []
    with joined(open_device(args), args.processes, _words(args), args.threads) as processes:
        encoder = open_encoder(args, store)
        with stoppable() as check:
            for task in tasks:
                entry, skipped = _finetune_task(
                    args, store, encoder, task, recipe, check, processes
                )
                if processes.first:
                    rows.append(_row(entry, skipped))
    if not processes.first:
        raise SystemExit(0)
    text = table(
        ("task", "validation", "test", "n", "digest", ""),
        [
            (
                row["task"],
                percent(row["accuracy"]["validation"]),
                percent(row["accuracy"]["test"]),
                row["n"]["test"],
                row["digest"][:12],
                "was there" if row["skipped"] else "",
            )
            for row in rows
        ],
    )
    record = {"encoder": encoder.name, "mode": args.mode, "recipe": asdict(recipe)}
    return Outcome({**record, "checkpoints": rows}, text)


def _words(args: argparse.Namespace) -> list[str]:
    """Return the words that ask another process for the same."""
    words = ["finetune"]
    for name in (*RECIPE, *CHOICES):
        value = getattr(args, name)
        if value is not None and value is not False:
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


def _row(entry: Entry, skipped: bool) -> dict:
    """Return what the answer says of one checkpoint."""
    shown = ("task", "task_source", "seed", "steps", "accuracy", "n", "tau_digest", "dtype")
    return {
        **{key: entry.meta[key] for key in shown},
        "digest": entry.digest,
        "path": str(entry.path),
        "skipped": skipped,
    }


def _finetune_task(
    args: argparse.Namespace,
    store: Store,
    encoder: Encoder,
    task: Task,
    recipe: Recipe,
    check: Callable[[], None],
    processes: Processes,
) -> tuple[Entry | None, bool]:
    """Return the checkpoint of a task, in the first process, and whether it was there already."""
    size = encoder.image_size
    train = processes.after_first(lambda: load_split(task, "train", size, store, limit=args.limit))
    dtype = "float16" if args.half else "float32"
    identity = {
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "task": task.name,
        "task_source": task.source,
        "mode": args.mode,
        "seed": recipe.seed,
        "steps": recipe.steps,
        "recipe": described(recipe),
        "train_digest": train.digest,
        "head_digest": head_digest(encoder, task),
        "dtype": dtype,
    }
    found = store.find("checkpoint", **identity) if processes.first and not args.force else []
    if found:
        say(f"{task.name}: already fine-tuned with this recipe ({args.mode}); --force repeats it")
    if processes.shared(bool(found)):
        return (found[0] if found else None), True
    validation = processes.after_first(
        lambda: load_split(task, "validation", size, store, limit=args.measure_on)
    )
    if processes.size == 1:  # what several share is not estimated
        sizes = {"train": len(train.labels), "validation": len(validation.labels)}
        check_fits(args, store, recipe, task.name, sizes)
    name = state_name(encoder, task, train, validation, args.mode, recipe)
    trained = train_task(
        encoder,
        task,
        train,
        validation,
        args.mode,
        recipe,
        progress=reporter(f"{task.name} {args.mode}", check)
        if processes.first
        else lambda *_: check(),
        save_state=store.save_state,
        load_state=store.load_state,
        processes=processes,
    )
    if not processes.first:
        return None, False
    tau = {key: value.to(getattr(torch, dtype)) for key, value in trained.tau.items()}
    test = load_split(task, "test", size, store, limit=args.measure_on)
    splits = {"validation": validation, "test": test}
    meta = {
        **identity,
        "tau_digest": digest_tensors(tau),
        "log": trained.log,
        "accuracy": {
            split: measured_alone(encoder, task, data, tau, args.mode)
            for split, data in splits.items()
        },
        "n": {split: len(data.labels) for split, data in splits.items()},
        "split_digests": {split: data.digest for split, data in splits.items()},
        "device": next(iter(encoder.theta0.values())).device.type,
        "processes": processes.size,
        **provenance(),
    }
    entry = store.put("checkpoint", tau, meta)
    store.drop_state(name)
    return entry, False


def measured_alone(
    encoder: Encoder, task: Task, split: Split, tau: dict[str, Tensor], mode: str
) -> float:
    """Measure a task vector by itself, at alpha = 1, in the reading it was trained for.

    Args:
        encoder: On the device to compute on.
        task: Its task.
        split: Images and labels.
        tau: As it is stored, rounded if it is.
        mode: "nonlinear" or "linear".

    Returns:
        Accuracy, a fraction.
    """
    if mode == "linear":
        reading = responses(encoder, task, split, {task.name: tau})
        return linearized_accuracy(reading, {task.name: 1.0})
    theta = combine(encoder.theta0, {task.name: tau}, {task.name: 1.0})
    return evaluate_nonlinear(encoder, theta, split, encoder.head(task))
