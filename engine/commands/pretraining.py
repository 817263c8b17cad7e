"""The verb that makes the miniature encoder, ``pretrain``; it resumes where it was stopped."""

import argparse
from dataclasses import asdict

from engine.commands.choices import open_device, open_store
from engine.commands.printing import Outcome, megabytes, say, table
from engine.commands.stopping import reporter, stoppable
from engine.encoders import random_initialisation
from engine.encoders.miniature import CONFIG, NAME, RANDOM_NAME
from engine.encoders.pretrain import Recipe, state_name
from engine.encoders.pretrain import pretrain as train_encoder
from engine.provenance import provenance
from engine.store import Entry, Store

RECIPE = ("images", "epochs", "batch", "rate", "weight_decay", "seed", "fresh")


def pretrain(args: argparse.Namespace) -> Outcome:
    """Make the miniature and its randomly initialised twin, and store both.

    Args:
        args: With the fields of the recipe, ``random_init``, ``force``, ``device``, ``threads``
            and ``cache``.

    Returns:
        ``{"recipe", "encoders": [{name, digest, bytes, path, skipped}], "loss"}``.

    Source:
        Radford et al. (2021), arXiv:2103.00020, Sec. 2.3 (the loss).
    """
    store = open_store(args)
    device = open_device(args)
    given = {name: getattr(args, name) for name in RECIPE}
    recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
    made = []
    if not args.random_init:
        made.append(_trained(store, recipe, device, args.force))
    made.append(_random(store, recipe.seed, args.force))
    rows = [
        {
            "name": entry.meta["name"],
            "digest": entry.digest,
            "bytes": entry.size,
            "path": str(entry.path),
            "skipped": skipped,
        }
        for entry, skipped in made
    ]
    log = made[0][0].meta.get("log") or [{}]
    text = table(
        ("encoder", "size", "digest", ""),
        [
            (r["name"], megabytes(r["bytes"]), r["digest"][:12], "was there" * r["skipped"])
            for r in rows
        ],
    )
    record = {"recipe": asdict(recipe), "encoders": rows, "loss": log[-1].get("loss")}
    return Outcome(record, text)


def _trained(store: Store, recipe: Recipe, device: str, force: bool) -> tuple[Entry, bool]:
    """Return the miniature of this recipe, and whether it was there already."""
    identity = {"name": NAME, "config": CONFIG, "recipe": asdict(recipe)}
    found = store.find("encoder", **identity)
    if found and not force:
        say(f"{NAME}: already pre-trained with this recipe; --force repeats it")
        return found[0], True
    with stoppable() as check:
        tensors, log = train_encoder(
            recipe,
            progress=reporter(NAME, check),
            device=device,
            save_state=store.save_state,
            load_state=store.load_state,
        )
    entry = store.put(
        "encoder", tensors, {**identity, "log": log, "device": device, **provenance()}
    )
    store.drop_state(state_name(recipe))
    return entry, False


def _random(store: Store, seed: int, force: bool) -> tuple[Entry, bool]:
    """Return the randomly initialised twin, and whether it was there already."""
    identity = {"name": RANDOM_NAME, "config": CONFIG, "text": NAME, "seed": seed}
    found = store.find("encoder", **identity)
    if found and not force:
        return found[0], True
    tensors = random_initialisation(seed)
    return store.put("encoder", tensors, {**identity, **provenance()}), False
