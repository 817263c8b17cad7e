"""The verbs that show what is there: ``encoders``, ``tasks``, ``checkpoints``."""

import argparse

from engine.commands import adding
from engine.commands.choices import open_store, open_tasks
from engine.commands.printing import Outcome, megabytes, percent, table
from engine.encoders import Encoder, encoder_names, load_encoder
from engine.encoders.published import published_here
from engine.errors import EngineError
from engine.store import Entry
from engine.tasks import CONTROL, TASKS, describe, hub, own, registry

FOOTNOTE = """

Parameters and size are those of the trainable image tower. Any CLIP of open_clip is an encoder too,
as ARCHITECTURE:TAG, ARCHITECTURE:FILE or ARCHITECTURE:random: ViT-B-32-quickgelu:openai; so are
vision transformers and ConvNeXts of timm, without a text tower: timm/vit_base_patch16_224:random"""


def encoders(args: argparse.Namespace) -> Outcome:
    """List the encoders that can be loaded here and now.

    Args:
        args: With ``cache``.

    Returns:
        ``{"encoders": [{name, parameters, bytes, image_size, embed_dim, digest}], "damaged":
        [{name, reason}], "published": [{name, here}]}``; nothing is asked of the network.
    """
    store = open_store(args)
    rows, damaged = [], []
    for name in encoder_names(store):
        try:
            rows.append(_encoder(load_encoder(name, store)))
        except EngineError as error:  # one that cannot be read hides none of the others
            damaged.append({"name": name, "reason": str(error)})
    heads = ("encoder", "parameters", "size", "pixels", "features", "digest")
    text = table(
        heads,
        [
            (
                row["name"],
                f"{row['parameters']:,}",
                megabytes(row["bytes"]),
                row["image_size"],
                row["embed_dim"],
                row["digest"][:12],
            )
            for row in rows
        ],
    )
    if not rows:
        text = "no encoder is in the store; make the miniature with: python -m engine pretrain"
    for row in damaged:
        text += f"\ndamaged: {row['name']}: {row['reason']}"
    known = published_here()
    here = [row["name"] for row in known if row["here"]]
    text += FOOTNOTE + (f"\nPublished weights on this machine: {', '.join(here)}" if here else "")
    return Outcome({"encoders": rows, "damaged": damaged, "published": known}, text)


def _encoder(encoder: Encoder) -> dict:
    """Return what a list shows of an encoder."""
    sizes = [tensor.numel() for tensor in encoder.theta0.values()]
    return {
        "name": encoder.name,
        "parameters": sum(sizes),
        "bytes": sum(t.numel() * t.element_size() for t in encoder.theta0.values()),
        "image_size": encoder.image_size,
        "embed_dim": encoder.embed_dim,
        "digest": encoder.digest,
    }


def tasks(args: argparse.Namespace) -> Outcome:
    """Show the miniature's tasks, those named, and which known data sets of the hub are here.

    Args:
        args: With ``paths``, whatever ``load_task`` takes; ``add``, ``words`` and ``forget``, which
            change what is remembered; and ``cache``.

    Returns:
        ``{"tasks": [{name, title, description, source, warning, control, classes, templates,
        counts, rules}], "known": [{name, hub, config, here, warning}], "added": [reference],
        "remembered": [reference], "gone": [{reference, reason}]}``; ``counts`` are of train,
        validation and test.
    """
    store = open_store(args)
    added = adding.change(store, args)
    found = open_tasks([*TASKS, CONTROL, *args.paths])
    remembered = list(own.remembered(store))
    named = {task.source for task in found}
    mine, gone = adding.loaded([each for each in remembered if each not in named])
    rows = [
        {**describe(task), "control": task.name == CONTROL and task.source == "miniature"}
        for task in (*found, *mine)
    ]
    text = table(
        ("task", "classes", "train", "validation", "test", "templates", "title"),
        [
            (
                row["name"] + (" (control)" if row["control"] else ""),
                len(row["classes"]),
                *row["counts"].values(),
                len(row["templates"]),
                row["title"],
            )
            for row in rows
        ],
    )
    if remembered:
        text += f"\n\nremembered, so that pages offer them: {', '.join(remembered)}"
    for row in gone:
        text += f"\ngone: {row['reason']} (to forget it: tasks --forget {row['reference']})"
    known = [_known(registry.known(name)) for name in registry.NAMES]
    here = [row["name"] for row in known if row["here"]]
    absent = [row["name"] for row in known if not row["here"]]
    if here:
        text += f"\n\nof the hub's data sets, here: {', '.join(here)}"
    if absent:
        text += (
            f"\n\nknown data sets of the hub that are not here: {', '.join(absent)}"
            f"\nbring one, where there is a network, with: python -m engine fetch {absent[0]}"
        )
    record = {"tasks": rows, "known": known, "added": added, "remembered": remembered}
    return Outcome({**record, "gone": gone}, text)


def _known(known: registry.Known) -> dict:
    """Return what a list shows of a known data set."""
    shown = {key: getattr(known, key) for key in ("name", "hub", "config", "warning")}
    return {**shown, "here": hub.is_here(known)}


def checkpoints(args: argparse.Namespace) -> Outcome:
    """List the task vectors in the store, newest first, and the files that are damaged.

    Args:
        args: With ``cache`` and the filters ``encoder``, ``task`` and ``mode``.

    Returns:
        ``{"checkpoints": [...], "damaged": [{path, reason}]}``.
    """
    store = open_store(args)
    wanted = {key: getattr(args, key) for key in ("encoder", "task", "mode")}
    found = store.find("checkpoint", **{k: v for k, v in wanted.items() if v is not None})
    rows = [_checkpoint(entry) for entry in found]
    damaged = [{"path": str(path), "reason": reason} for path, reason in store.damaged()]
    text = table(
        ("encoder", "task", "mode", "validation", "test", "steps", "seed", "size", "digest"),
        [
            (
                row["encoder"],
                row["task"],
                row["mode"],
                percent(row["accuracy"]["validation"]),
                percent(row["accuracy"]["test"]),
                "-" if row["steps"] is None else row["steps"],
                "-" if row["seed"] is None else row["seed"],
                megabytes(row["bytes"]),
                row["digest"][:12],
            )
            for row in rows
        ],
    )
    if not rows:
        text = "no checkpoint fits; make one with: python -m engine finetune --tasks handwriting"
    for file in damaged:
        text += f"\ndamaged: {file['reason']}"
    return Outcome({"checkpoints": rows, "damaged": damaged}, text)


def _checkpoint(entry: Entry) -> dict:
    """Return what a list shows of a checkpoint."""
    shown = ("encoder", "task", "task_source", "mode", "seed", "steps", "accuracy", "n", "origin")
    unmeasured = dict.fromkeys(("validation", "test"))
    return {
        **{key: entry.meta.get(key) for key in shown},
        **{key: entry.meta.get(key, unmeasured) for key in ("accuracy", "n")},
        "digest": entry.digest,
        "bytes": entry.size,
        "created": entry.created,
        "path": str(entry.path),
    }
