"""Answers of ``gradients`` in a store: found again by what they rest on."""

from collections.abc import Callable, Mapping
from typing import Any

from engine.encoders import Encoder
from engine.provenance import provenance
from engine.remembering import PROBE, question
from engine.store import Entry, Store
from engine.tasks import Split, Task

WHAT = "gradients"


def gradients_key(
    encoder: Encoder,
    tasks: Mapping[str, Task],
    load: Callable[[Task, str, int | None], Split],
    **asked: Any,
) -> str:
    """Name an answer by all that it depends on.

    Args:
        encoder: Its digest counts.
        tasks: By name, in order; heads and first images count.
        load: Loads the first so many images of a task's split.
        **asked: Regime, rates, epochs, seed, ...: plain values.

    Returns:
        sha256, 64 hex digits.
    """
    train = {name: load(task, "train", PROBE).digest for name, task in tasks.items()}
    return question(
        encoder,
        {},
        tasks,
        lambda task, split: load(task, split, PROBE),
        what=WHAT,
        order=list(tasks),
        train=train,
        **asked,
    )


def keep_gradients(store: Store, key: str, record: Mapping[str, Any]) -> Entry:
    """Keep an answer.

    Args:
        store: Where.
        key: From ``gradients_key``.
        record: What ``gradients --json`` prints.

    Returns:
        The entry, of kind "result".
    """
    # what tells answers of one encoder apart, beside the key
    named = {name: record[name] for name in ("encoder", "encoder_digest", "regime", "seed")}
    asked = [record["regime"], record["epochs"], record["seed"], len(record["tasks"])]
    return store.put(
        "result",
        {},
        {"what": WHAT, "key": key, **named, "asked": asked, "taus": {}, "record": dict(record),
         **provenance()},
    )  # fmt: skip


def kept_gradients(store: Store, encoder_digest: str, **asked: Any) -> list[dict]:
    """Find kept answers.

    Args:
        store: Where.
        encoder_digest: Of the encoder.
        **asked: Values that the record must have, such as regime="gd", seed=0.

    Returns:
        Records, newest first.
    """
    records = [
        entry.meta["record"]
        for entry in store.find("result", what=WHAT, encoder_digest=encoder_digest)
    ]
    return [
        record
        for record in records
        if all(record.get(name) == value for name, value in asked.items())
    ]
