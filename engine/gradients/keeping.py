"""Answers of ``gradients`` in a store: found again by what they rest on."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.encoders import Encoder
from engine.provenance import provenance
from engine.remembering import PROBE, question
from engine.store import Entry, Store
from engine.tasks import Split, Task

WHAT = "gradients"
SECTIONS = ("exactness", "trajectory", "merged", "early", "iterative", "bridge")
QUESTION = ("encoder_digest", "regime", "tasks", "modes", "epochs", "seed", "batch", "precision",
            "images", "n_test", "n_validation", "split_digests")  # fmt: skip


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
    held = [name for name in SECTIONS if record[name] is not None]
    asked = [record["regime"], record["epochs"], record["seed"], len(record["tasks"]), *held]
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


def joined(records: Sequence[Mapping[str, Any]]) -> list[dict]:
    """Put together what was asked of one question in parts, a few sections at a time.

    Args:
        records: As ``kept_gradients`` gives them, newest first.

    Returns:
        One record a question, those with most sections first, then the newest. Each section is
        the newest answer to it; "parts" says what was measured together: {"sections", "commit",
        "versions", "seconds"}, newest first. Rates found anew are equal to six digits.
    """
    found: dict[str, dict] = {}
    for record in records:
        rates = {mode: f"{rate:.5e}" for mode, rate in record["rate"].items()}
        asked = {name: record[name] for name in QUESTION}
        whole = found.setdefault(
            json.dumps([rates, asked], sort_keys=True),
            {**record, **dict.fromkeys(SECTIONS), "parts": []},
        )
        new = [name for name in SECTIONS if record[name] is not None and whole[name] is None]
        whole |= {name: record[name] for name in new}
        if new:
            made = {name: record[name] for name in ("commit", "versions", "seconds")}
            whole["parts"].append({"sections": new, **made})
    return sorted(found.values(), key=lambda whole: sum(whole[name] is None for name in SECTIONS))
