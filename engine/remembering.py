"""Class scores and results kept in the store: what was computed once is looked up."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.encoders import Encoder
from engine.evaluate import MERGED
from engine.provenance import provenance
from engine.responses import Responses, responses
from engine.store import Entry, Store, digest_tensors
from engine.tasks import Split, Task

CONTENT = "class scores"
VERSION = 2  # of the answers: raised when what they mean changes
PROBE = 16  # images that stand for a split when asking whether it is still the same


def head_digest(encoder: Encoder, task: Task) -> str:
    """Return the digest of what a task's frozen head is made from.

    Not of the head's own bits: its last ones differ from processor to processor, and what is kept
    would be found on the machine that made it alone.

    Args:
        encoder: Whose digest covers the text tower.
        task: Class names and templates.

    Returns:
        sha256, 64 hex digits.
    """
    said = [encoder.digest, list(task.classnames), list(task.templates), *encoder.head_mark(task)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def tau_digests(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Return the digest of each task vector's values, whatever its record says beside them."""
    return {name: entry.meta.get("tau_digest", entry.digest) for name, entry in entries.items()}


def remembered_responses(
    store: Store,
    encoder: Encoder,
    entries: Mapping[str, Entry],
    taus: Mapping[str, Mapping[str, Tensor]],
    mode: str,
) -> Callable[[Task, Split], Responses]:
    """Make ``respond(task, split)``, which computes a split's responses once and keeps them.

    What is kept is the class scores, which are all that accuracy needs; what was kept for more
    task vectors serves fewer.

    Args:
        store: Where they are kept.
        encoder: On the device to compute on.
        entries: Checkpoints by the names of their task vectors.
        taus: The task vectors, with the same names in the same order.
        mode: The reading, "posthoc" or "linear", for the record.

    Returns:
        ``respond``. Its responses have the scores in the place of the features and the identity
        in the place of the head, so that their scores are the same to the bit.
    """

    def respond(task: Task, split: Split) -> Responses:
        scores = _kept_scores(store, encoder, entries, task, split)
        if scores is None:
            scores = responses(encoder, task, split, taus).scores()
            meta = {
                "content": CONTENT,
                "key": f"scores-{split.name}-{len(split.labels)}",
                "encoder": encoder.name,
                "encoder_digest": encoder.digest,
                "task": task.name,
                "mode": mode,
                "split": split.name,
                "split_digest": split.digest,
                "head_digest": head_digest(encoder, task),
                "n": len(split.labels),
                "checkpoints": {name: entry.digest for name, entry in entries.items()},
                "taus": tau_digests(entries),
                # a list, for the order of a table's keys is lost on disk
                "planes": list(tau_digests(entries).values()),
                **provenance(),
            }
            store.put("responses", {"scores": scores}, meta)
        identity = torch.eye(scores.shape[2])
        names = tuple(entries)
        return Responses(
            task.name, split.name, names, scores[0], scores[1:], split.labels, identity
        )

    return respond


def stand_in(entries: Mapping[str, Entry], direction: Mapping[str, Tensor]) -> Entry:
    """Give a direction, which is in no file, an entry that names it by its values.

    Args:
        entries: Checkpoints of the task vectors it was made of.
        direction: Of ``merging.prepare``.

    Returns:
        As ``remembered_responses`` takes it.
    """
    digest = digest_tensors({name: value.cpu() for name, value in direction.items()})
    return replace(next(iter(entries.values())), digest=digest, meta={"tau_digest": digest})


def remembered_direction(
    store: Store,
    encoder: Encoder,
    entries: Mapping[str, Entry],
    taus: Mapping[str, Mapping[str, Tensor]],
    mode: str,
    direction: Mapping[str, Tensor],
) -> Callable[[Task, Split], Responses]:
    """Make ``respond(task, split)`` for task vectors and, behind them, what a method made of them.

    Args:
        store: Where they are kept.
        encoder: On the device to compute on.
        entries: Checkpoints by the names of their task vectors.
        taus: The task vectors, with the same names in the same order.
        mode: The reading, "posthoc" or "linear", for the record.
        direction: Of ``merging.prepare``; its responses are kept by its values.

    Returns:
        ``respond``; it names the direction ``MERGED``, the last of its names.
    """
    respond = remembered_responses(store, encoder, entries, taus, mode)
    alone = {MERGED: stand_in(entries, direction)}
    respond_merged = remembered_responses(store, encoder, alone, {MERGED: direction}, mode)

    def both(task: Task, split: Split) -> Responses:
        base, merged = respond(task, split), respond_merged(task, split)
        names = (*base.names, *merged.names)
        return replace(base, names=names, jz=torch.cat([base.jz, merged.jz]))

    return both


def _kept_scores(
    store: Store, encoder: Encoder, entries: Mapping[str, Entry], task: Task, split: Split
) -> Tensor | None:
    """Return kept scores that cover these task vectors on this split; None without any."""
    wanted = list(tau_digests(entries).values())
    found = store.find(
        "responses",
        content=CONTENT,
        encoder_digest=encoder.digest,
        split_digest=split.digest,
        head_digest=head_digest(encoder, task),
    )
    for entry in found:
        kept = entry.meta["planes"]
        if set(wanted) <= set(kept):
            planes = [0, *(1 + kept.index(digest) for digest in wanted)]
            return store.get(entry)["scores"][planes]
    return None


def question(
    encoder: Encoder,
    entries: Mapping[str, Entry],
    tasks: Mapping[str, Task],
    probe: Callable[[Task, str], Split],
    **asked: Any,
) -> str:
    """Name a question by all that its answer depends on.

    Args:
        encoder: Its digest counts.
        entries: Checkpoints by name; the values of their task vectors count, and their order.
        tasks: By name; class names, templates and the first images of their splits count.
        probe: Loads the first images of a task's split.
        **asked: The rest of the question, plain values.

    Returns:
        sha256, 64 hex digits.
    """
    said = {
        "version": VERSION,
        "encoder": encoder.digest,
        "taus": list(tau_digests(entries).items()),
        "heads": {name: head_digest(encoder, task) for name, task in tasks.items()},
        "images": {
            name: [probe(task, split).digest for split in ("validation", "test")]
            for name, task in tasks.items()
        },
        **asked,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
