"""Looking up local energies by content: what answers a question, and why something does not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.ntk.contents import Content, content_key
from engine.ntk.energy import LocalEnergy
from engine.ntk.kept import energy_entries, read_energy
from engine.store import Entry, Store

# what an answer may lack and another to the same question have
BESIDE = ("layer_scores", "eigvals", "regression")


@dataclass(frozen=True)
class Wanted:
    """A question that a kept local energy may answer.

    Attributes:
        encoder_digest: Of theta_0.
        task: Name.
        control: Name.
        points: n.
        seed: Of the draw.
        readout: "cosine" or "score".
        logits: Names of classes, or ("trace",).
        content: What the answer has to rest on; its ``tau`` is that of the newest task vector.
    """

    encoder_digest: str
    task: str
    control: str
    points: int
    seed: int
    readout: str
    logits: tuple[str, ...]
    content: Content

    @property
    def key(self) -> str:
        """Digest of all that the energies depend on."""
        return content_key(
            self.content,
            encoder_digest=self.encoder_digest,
            task=self.task,
            control=self.control,
            points=self.points,
            seed=self.seed,
            readout=self.readout,
            logits=self.logits,
        )


@dataclass(frozen=True)
class Held:
    """One local energy as the store lists it: nothing is read yet.

    Attributes:
        entry: Where it lies.
        control: Which of the entry's.
        meta: Its plain values.
        key: By content, as ``Wanted.key``; "" where it is not known what it rests on.
        tau: Digest of the task vector of its coefficients; "" without.
    """

    entry: Entry
    control: str
    meta: Mapping[str, Any]
    key: str
    tau: str


def answers(store: Store, wanted: Wanted) -> list[Held]:
    """Find what answers a question, by content.

    An answer without the task vector that is there now, or with another one, is none; where there
    is no task vector now, or the trace kernel has no use for it, that of the answer is not asked.

    Args:
        store: Where.
        wanted: The question.

    Returns:
        Those with most settings of the sliders first, newest first among equals.
    """
    asked = wanted.content.tau
    found = [held for held in listed(store, wanted) if asked in ("", held.tau)]
    return sorted(found, key=_settings, reverse=True)


def outdated(store: Store, wanted: Wanted) -> bool:
    """Say whether all that an answer lacks is the task vector that is there now.

    Args:
        store: Where.
        wanted: The question.

    Returns:
        True where :func:`answers` finds nothing and would without a task vector.
    """
    return not answers(store, wanted) and bool(listed(store, wanted))


def listed(store: Store, wanted: Wanted) -> list[Held]:
    """List local energies whose kernels, points and logits are those of a question.

    Args:
        store: Where.
        wanted: The question; its task vector is not asked for.

    Returns:
        Newest first.
    """
    narrowed = {"task": wanted.task, "points": wanted.points, "seed": wanted.seed}
    entries = energy_entries(
        store, encoder_digest=wanted.encoder_digest, readout=wanted.readout, **narrowed
    )
    return [
        held
        for entry in entries
        for held in _held(store, entry, wanted)
        if held.control == wanted.control and held.key == wanted.key
    ]


def recognised(
    store: Store,
    encoder_digest: str,
    readout: str,
    now: Callable[[str, str], Content | None],
) -> list[Held]:
    """List every local energy of an encoder that is of the tasks as they are now.

    Args:
        store: Where.
        encoder_digest: Of theta_0.
        readout: "cosine" or "score".
        now: ``now(task, control)`` says what an answer would rest on today; None for tasks that
            are not here. From how many images points were drawn is the answer's own.

    Returns:
        Those of one control first, newest first.
    """
    found = []
    for entry in energy_entries(store, encoder_digest=encoder_digest, readout=readout):
        meta = entry.meta
        for control in meta["controls"]:
            content = now(meta["task"], control)
            if content is None:
                continue
            said = meta["record"]["energies"][control].get("content", {})
            limits = said.get("limits", dict.fromkeys(content.limits))
            wanted = Wanted(
                encoder_digest, meta["task"], control, meta["points"], meta["seed"], readout,
                tuple(meta["logits"]), replace(content, limits=limits),
            )  # fmt: skip
            found += [
                held
                for held in _held(store, entry, wanted)
                if held.control == control and held.key == wanted.key
            ]
    return found


def read_answer(store: Store, found: Sequence[Held]) -> LocalEnergy:
    """Read the first of several answers to one question, with what only a later one has.

    Args:
        store: Where.
        found: From :func:`answers`, at least one.

    Returns:
        The first; layer scores, eigenvalues and regression may be another's.
    """
    first = read_energy(store, found[0].entry, found[0].control)
    for held in found[1:]:
        lacking = [name for name in BESIDE if getattr(first, name) is None]
        if lacking:
            other = read_energy(store, held.entry, held.control)
            first = replace(first, **{name: getattr(other, name) for name in lacking})
    return first


def _settings(held: Held) -> int:
    """Count the settings of the sliders."""
    return len(held.meta["leading"]) + len(held.meta["ridges"])


def _held(store: Store, entry: Entry, wanted: Wanted) -> Iterator[Held]:
    """Say of each of an entry's energies what it rests on."""
    record = entry.meta["record"]
    for control in entry.meta["controls"]:
        meta = {**record.get("shared", {}), **record["energies"][control]}
        if "content" in meta:
            content = Content(**meta["content"])
        else:
            content = _before(store, entry, control, wanted)
        if content is None:
            continue
        made = replace(wanted, control=control, logits=tuple(meta["logits"]), content=content)
        yield Held(entry, control, meta, made.key, content.tau)


def _before(store: Store, entry: Entry, control: str, wanted: Wanted) -> Content | None:
    """Return what an answer of before contents were noted rests on; None where it is not known.

    Embedded answers are of the miniature's own words and pictures, which the code makes, and
    their coefficients are of the task vectors embedded beside them.
    """
    asked = wanted.content
    if store.embedded is None or not entry.path.is_relative_to(store.embedded):
        return None
    if set(asked.sources.values()) != {"miniature"} or control != wanted.control:
        return None
    weighted = len(entry.meta["controls"]) == 1 and entry.meta["logits"] != ["trace"]
    tau = _embedded_tau(store, wanted) if weighted else ""
    return replace(asked, limits=dict.fromkeys(asked.limits), tau=tau)


def _embedded_tau(store: Store, wanted: Wanted) -> str:
    """Return the digest of the embedded linear task vector; one that fits nothing without it."""
    found = store.find(
        "checkpoint", encoder_digest=wanted.encoder_digest, task=wanted.task, mode="linear"
    )
    own = [entry for entry in found if entry.path.is_relative_to(store.embedded)]
    return str(own[0].meta.get("tau_digest", own[0].digest)) if own else "unknown"
