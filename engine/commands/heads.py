"""The verb ``heads``: linear heads for an encoder without a text tower, trained and then frozen."""

import argparse

import torch
from torch import Tensor

from engine.commands.choices import open_encoder, open_store, open_tasks
from engine.commands.printing import Outcome, percent, say, table
from engine.commands.stopping import counter, stoppable
from engine.encoders import Encoder
from engine.encoders.probing import WHAT, TrainedHeads, choose_head
from engine.errors import UsageError
from engine.evaluate import evaluate_nonlinear
from engine.provenance import provenance
from engine.store import Entry, Store
from engine.tasks import Split, Task, load_split

BATCH = 100  # images a pass


def heads(args: argparse.Namespace) -> Outcome:
    r"""Train a head a task on the features of :math:`\theta_0`, choose its penalty, store it.

    Args:
        args: With ``encoder``, ``tasks``, ``limit``, ``measure_on``, ``force``, ``device``,
            ``threads`` and ``cache``.

    Returns:
        ``{"encoder", "heads": [{task, digest, penalty, accuracy, n, skipped}]}``.

    Raises:
        UsageError: If the encoder has a text tower, which makes its heads.
    """
    store = open_store(args)
    tasks = open_tasks(args.tasks)
    encoder = open_encoder(args, store)
    if not isinstance(encoder.text, TrainedHeads):
        raise UsageError(
            f"{encoder.name} has a text tower, which makes its heads; heads are trained for timm's "
            "models alone, such as timm/vit_base_patch16_224:random"
        )
    rows = []
    for task in tasks:
        entry, skipped = _trained(args, store, encoder, task)
        shown = ("task", "penalty", "accuracy", "n")
        rows.append({
            **{key: entry.meta[key] for key in shown},
            "digest": entry.digest,
            "skipped": skipped,
        })
    text = table(
        ("task", "train", "validation", "test", "penalty", "digest", ""),
        [
            (
                row["task"],
                *(percent(row["accuracy"][name]) for name in ("train", "validation", "test")),
                f"{row['penalty']:g}",
                row["digest"][:12],
                "was there" if row["skipped"] else "",
            )
            for row in rows
        ],
    )
    return Outcome({"encoder": encoder.name, "heads": rows}, text)


def _trained(
    args: argparse.Namespace, store: Store, encoder: Encoder, task: Task
) -> tuple[Entry, bool]:
    """Return the head of a task, and whether it was there already."""
    size = encoder.image_size
    train = load_split(task, "train", size, store, limit=args.limit)
    identity = {
        "what": WHAT,
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "task": task.name,
        "task_source": task.source,
        "classnames": list(task.classnames),
        "train_digest": train.digest,
    }
    found = store.find("result", **identity)
    if found and not args.force:
        say(f"{task.name}: its head is trained already; --force repeats it")
        return found[0], True
    splits = {"train": train}
    for name in ("validation", "test"):
        splits[name] = load_split(task, name, size, store, limit=args.measure_on)
    features = {
        name: (_features(encoder, split, f"{task.name} {name}"), split.labels)
        for name, split in splits.items()
        if name != "test"
    }
    head, penalty, _ = choose_head(
        features["train"], features["validation"], len(task.classnames), encoder.logit_scale
    )
    meta = {
        **identity,
        "penalty": penalty,
        "accuracy": {
            name: evaluate_nonlinear(encoder, encoder.theta0, split, head, BATCH)
            for name, split in splits.items()
        },
        "n": {name: len(split.labels) for name, split in splits.items()},
        "split_digests": {name: split.digest for name, split in splits.items()},
        **provenance(),
    }
    return store.put("result", {"head": head}, meta), False


def _features(encoder: Encoder, split: Split, what: str) -> Tensor:
    """Return the features of a split at theta_0, (N, d), on the CPU."""
    told, parts = counter(f"features of {what}", "images"), []
    with stoppable() as check, torch.no_grad():
        for piece in split.images.split(BATCH):
            parts.append(encoder.features(encoder.theta0, encoder.preprocess(piece)).float().cpu())
            told(sum(map(len, parts)), len(split.labels))
            check()
    return torch.cat(parts)
