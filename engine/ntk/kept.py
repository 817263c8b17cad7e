"""Local energies kept in a store, one entry a task."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from engine.encoders import Encoder
from engine.errors import UsageError
from engine.ntk.energy import LocalEnergy
from engine.ntk.packing import pack, unpack
from engine.store import Entry, Store

# versions are raised when what is kept changes its meaning or its form: 1 is one control with
# every arrangement by itself, 2 several controls that share what depends on the task alone
WHAT, VERSION, SHARED = "ntk", 1, 2


def keep_local_energy(store: Store, energy: LocalEnergy) -> Entry:
    """Keep one local energy; its energies are rounded to float16.

    Args:
        store: Where.
        energy: What ``local_energy`` gave.

    Returns:
        Its entry, of kind "result".
    """
    return keep_local_energies(store, [energy])


def keep_local_energies(store: Store, energies: Sequence[LocalEnergy]) -> Entry:
    """Keep local energies of one task against several controls as one entry.

    Args:
        store: Where.
        energies: Of one encoder and one task.

    Returns:
        Their entry, of kind "result".

    Raises:
        UsageError: If they are none, or not of one encoder, task, number of points and seed.
    """
    asked = {(e.encoder_digest, e.task, e.n, e.seed, e.readout, e.logits) for e in energies}
    if len(asked) != 1:
        raise UsageError(
            f"expected local energies of one task with one set of choices, got {len(asked)}; "
            "keep each task by itself"
        )
    first = energies[0]
    tensors, record = _one(first) if len(energies) == 1 else pack(energies)
    contents = [energy.content for energy in energies if energy.content is not None]
    limits = {limit for content in contents for limit in content.limits.values()} - {None}
    meta = {
        "what": WHAT,
        "version": VERSION if len(energies) == 1 else SHARED,
        "encoder": first.encoder,
        "encoder_digest": first.encoder_digest,
        "task": first.task,
        "controls": [energy.control for energy in energies],
        "points": first.n,
        "seed": first.seed,
        "readout": first.readout,
        "logits": list(first.logits),
        "taus": {first.task: contents[0].tau} if contents and contents[0].tau else {},
        "record": {
            "limit": max(limits, default=None),
            "convention": None,
            "sources": {k: v for content in contents for k, v in content.sources.items()},
            **record,
        },
    }
    return store.put("result", tensors, meta)


def _one(energy: LocalEnergy) -> tuple[dict[str, Tensor], dict]:
    """Return what is kept of a single control."""
    own, meta = energy.to_tensors()
    tensors = {f"{energy.control}/{name}": value for name, value in own.items()}
    return tensors, {"energies": {energy.control: meta}}


def as_kept(energy: LocalEnergy) -> LocalEnergy:
    """Give a local energy as it is kept, its energies rounded to float16.

    Args:
        energy: As it was computed.

    Returns:
        The same after a round trip.
    """
    return LocalEnergy.from_tensors(*energy.to_tensors())


def energy_entries(store: Store, **narrowed: Any) -> list[Entry]:
    """List the entries of local energies: those of one control, then those of several.

    Args:
        store: Where.
        **narrowed: Further values of the meta that they must have.

    Returns:
        Newest first among each.
    """
    return [
        entry
        for version in (VERSION, SHARED)
        for entry in store.find("result", what=WHAT, version=version, **narrowed)
    ]


def read_energy(store: Store, entry: Entry, control: str) -> LocalEnergy:
    """Read one local energy, verified.

    Args:
        store: Where.
        entry: From :func:`energy_entries`.
        control: One of the entry's.

    Returns:
        It.
    """
    tensors, record = store.get(entry), entry.meta["record"]
    if entry.meta["version"] == SHARED:
        return unpack(tensors, record, control)
    own = {
        key.removeprefix(f"{control}/"): value
        for key, value in tensors.items()
        if key.startswith(f"{control}/")
    }
    return LocalEnergy.from_tensors(own, record["energies"][control])


def kept_local_energy(
    store: Store,
    encoder: Encoder,
    task: str | None = None,
    control: str | None = None,
    points: int | None = None,
    seed: int | None = None,
    readout: str | None = None,
) -> list[LocalEnergy]:
    """Look up local energies of an encoder by name; ``engine.ntk.lookup`` does by content.

    Args:
        store: Where.
        encoder: By its digest.
        task: Only those of this task.
        control: Only those against this control.
        points: Only those with so many points a block.
        seed: Only those drawn with this seed.
        readout: Only "cosine" or "score".

    Returns:
        Newest first, those of several controls last; of one entry in the order of its controls.
    """
    wanted = {"task": task, "points": points, "seed": seed, "readout": readout}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    return [
        read_energy(store, entry, name)
        for entry in energy_entries(store, encoder_digest=encoder.digest, **wanted)
        for name in entry.meta["controls"]
        if control in (None, name)
    ]
