"""The alphas that validation prefers: one for all task vectors, and one for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.compute import models, scores
from app.compute.background import Work, board
from app.compute.merging import Choice
from app.state import DIRECTION

NOT_LINEAR = "Only for linearized readings, where every alpha follows by algebra"


@dataclass(frozen=True)
class Presets:
    """What validation says.

    Attributes:
        curve: {"alpha", "absolute", "normalized"} at each shared alpha, fractions.
        chosen: The shared alpha of the highest normalized accuracy.
        each: An alpha a task, or None where it is not searched for.
        n: Validation images, by task.
    """

    curve: tuple[Mapping[str, float], ...]
    chosen: float
    each: Mapping[str, float] | None
    n: Mapping[str, int]


def presets(choice: Choice, visitor: str) -> Work:
    """Start, or find, the search on validation.

    Args:
        choice: What is merged.
        visitor: Who asks.

    Returns:
        Work whose result is :class:`Presets`.
    """
    return board().start("validation", visitor, choice, lambda work: _presets(choice, work))


def _presets(choice: Choice, work: Work) -> Presets:
    """Return kept answers where they are, else search and keep."""
    from engine.store import default_store

    store = default_store()
    keys = {what: _key(choice, what) for what in ("addition", "presets")}
    kept = {
        what: found[0].meta["record"]
        for what, key in keys.items()
        if (found := store.find("result", what=what, key=key))
    }
    if choice.reading == "nonlinear":
        record = kept.get("addition") or _addition(choice, keys["addition"], work)
        return _made(record, None)
    if choice.method is not None:
        record = kept.get("addition") or kept.get("presets")
        return _made(record or _search(choice, keys["presets"], work), None)
    record = kept.get("presets") or _search(choice, keys["presets"], work)
    return _made(kept.get("addition", record), record["each"])


def _made(record: Mapping[str, Any], each: Mapping[str, float] | None) -> Presets:
    """Return presets of a stored record."""
    return Presets(
        curve=tuple(record["validation"]),
        chosen=record["alpha"],
        each=each,
        n=record["n_validation"],
    )


def _key(choice: Choice, what: str) -> str:
    """Name the question by all its answer depends on."""
    from engine.evaluate import FARTHER
    from engine.merging import asked_of
    from engine.remembering import PROBE, question

    encoder = models.encoder(choice.encoder)
    tasks = _tasks(choice)
    by_name = {task.name: reference for reference, task in tasks.items()}

    def probe(task, split: str):
        return models.split(by_name[task.name], split, encoder.image_size, PROBE)

    asked = {"mode": choice.reading, "convention": choice.convention, "limit": None}
    if choice.method is not None:
        asked |= {
            "method": choice.method,
            "options": asked_of(choice.method, dict(choice.options)),
            "alphas": list(FARTHER),
        }
    if what == "presets":
        asked["what"] = "presets"
    entries = {name: item.entry for name, item in choice.checkpoints.items()}
    return question(
        models.Polite(encoder), entries, {t.name: t for t in tasks.values()}, probe, **asked
    )


def _tasks(choice: Choice) -> dict:
    """Return the merged tasks by what ``load_task`` takes."""
    return {item.reference: models.task(item.reference) for item in choice.checkpoints.values()}


def _search(choice: Choice, key: str, work: Work) -> dict:
    """Return the best alphas of a linearized reading, found in function space, and keep them."""
    encoder = models.encoder(choice.encoder)
    respond = _responder(choice)
    readings, digests = {}, {}
    tasks = _tasks(choice)
    for done, (reference, task) in enumerate(tasks.items()):
        work.step(done, len(tasks) + 1, f"{task.title}, validation images")
        split = models.split(reference, "validation", encoder.image_size, None)
        readings[task.name] = respond(task, split)
        digests[task.name] = split.digest
    work.step(len(tasks), len(tasks) + 1, "best alphas")
    record = {
        **_best(choice, readings),
        "n_validation": {name: len(reading.labels) for name, reading in readings.items()},
        "split_digests": {"validation": digests},
    }
    return _keep(choice, "presets", key, record)


def _responder(choice: Choice):
    """Return ``respond(task, split)`` for what the sliders move, and each task vector alone."""
    from engine.remembering import remembered_direction
    from engine.store import default_store

    if choice.method is None:
        return scores.responder(choice.encoder, choice.checkpoints, choice.reading)
    return remembered_direction(
        default_store(),
        models.Polite(models.encoder(choice.encoder)),
        {name: item.entry for name, item in choice.checkpoints.items()},
        {name: choice.vector(name) for name in choice.names},
        choice.reading,
        choice.vector(DIRECTION),
    )


def _best(choice: Choice, readings: Mapping) -> dict:
    """Return the best shared alpha with its curve, and the best of each task where it has one."""
    from engine.evaluate import search_alpha, search_alphas, search_direction

    if choice.method is not None:
        found, each = search_direction(readings), None
    else:
        found = search_alpha(readings, choice.convention)
        each = search_alphas(readings, convention=choice.convention)["alphas"]
    return {"alpha": found["alpha"], "validation": found["validation"], "each": each}


def _addition(choice: Choice, key: str, work: Work) -> dict:
    """Return the task addition benchmark of the non-linear reading, measured now, and keep it."""
    from engine.evaluate import ALPHAS, FARTHER, addition

    encoder = models.encoder(choice.encoder)
    tasks = _tasks(choice)

    def splits(name: str) -> dict:
        return {
            task.name: models.split(reference, name, encoder.image_size, None)
            for reference, task in tasks.items()
        }

    record = addition(
        models.Polite(encoder),
        choice.reading,
        {task.name: task for task in tasks.values()},
        {name: choice.vector(name) for name in choice.names},
        splits("validation"),
        splits("test"),
        convention=choice.convention,
        direction=choice.vector(DIRECTION) if choice.method else None,
        alphas=FARTHER if choice.method else ALPHAS,
        progress=lambda done, total: work.step(done, total, "settings of a shared alpha"),
    )
    seeds = {name: item.seed for name, item in choice.checkpoints.items()}
    return _keep(choice, "addition", key, {**record, "limit": None, "seeds": seeds})


def _keep(choice: Choice, what: str, key: str, record: Mapping[str, Any]) -> dict:
    """Store a record as the command line does, and return it."""
    from engine.provenance import provenance
    from engine.remembering import tau_digests
    from engine.store import default_store

    taus = tau_digests({name: item.entry for name, item in choice.checkpoints.items()})
    full = {
        **record,
        "checkpoints": {name: item.digest for name, item in choice.checkpoints.items()},
        "taus": taus,
        "encoder_digest": choice.encoder_digest,
        "convention": choice.convention,
        "method": choice.method or choice.convention,
        "options": dict(choice.options),
        **provenance(),
    }
    meta = {
        "what": what,
        "key": key,
        "encoder": choice.encoder,
        "mode": choice.reading,
        "taus": taus,
        "record": full,
    }
    default_store().put("result", {}, meta)
    return full
