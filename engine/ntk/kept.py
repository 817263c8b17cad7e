"""Local energies kept in a store: what was measured once is looked up."""

from collections.abc import Sequence

from engine.encoders import Encoder
from engine.errors import UsageError
from engine.ntk.energy import LocalEnergy
from engine.store import Entry, Store

WHAT, VERSION = "ntk", 1  # the version is raised when what is kept changes its meaning


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
    tensors, metas = {}, {}
    for energy in energies:
        own, meta = energy.to_tensors()
        tensors |= {f"{energy.control}/{name}": value for name, value in own.items()}
        metas[energy.control] = meta
    first = energies[0]
    meta = {
        "what": WHAT,
        "version": VERSION,
        "encoder": first.encoder,
        "encoder_digest": first.encoder_digest,
        "task": first.task,
        "controls": list(metas),
        "points": first.n,
        "seed": first.seed,
        "readout": first.readout,
        "logits": list(first.logits),
        "taus": {},
        "record": {"limit": None, "convention": None, "energies": metas},
    }
    return store.put("result", tensors, meta)


def kept_local_energy(
    store: Store,
    encoder: Encoder,
    task: str | None = None,
    control: str | None = None,
    points: int | None = None,
    seed: int | None = None,
    readout: str | None = None,
) -> list[LocalEnergy]:
    """Look up local energies of an encoder.

    Args:
        store: Where.
        encoder: By its digest.
        task: Only those of this task.
        control: Only those against this control.
        points: Only those with so many points a block.
        seed: Only those drawn with this seed.
        readout: Only "cosine" or "score".

    Returns:
        Newest first; of one entry in the order of its controls.
    """
    wanted = {"task": task, "points": points, "seed": seed, "readout": readout}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    found = []
    for entry in store.find(
        "result", what=WHAT, version=VERSION, encoder_digest=encoder.digest, **wanted
    ):
        names = [name for name in entry.meta["controls"] if control in (None, name)]
        tensors = store.get(entry) if names else {}
        for name in names:
            own = {
                key.removeprefix(f"{name}/"): value
                for key, value in tensors.items()
                if key.startswith(f"{name}/")
            }
            found.append(LocalEnergy.from_tensors(own, entry.meta["record"]["energies"][name]))
    return found
