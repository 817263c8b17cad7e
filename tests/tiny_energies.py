"""Local energies of a tiny world, measured and kept: what a page opens with."""

from collections.abc import Sequence
from dataclasses import replace

from engine.encoders import load_encoder
from engine.ntk import content_of, keep_local_energies, local_energies
from engine.remembering import PROBE, tau_digests
from engine.store import Entry, Store
from engine.tasks import load_split, load_task


def keep_energies(
    store: Store,
    task: str,
    controls: Sequence[str],
    points: int,
    logits: int | str = 3,
    weighted: bool = True,
    **options,
) -> Entry:
    """Measure and keep a task's local energy against some controls.

    ``weighted``: with the coefficients of the linearly fine-tuned task vector.
    """
    encoder = load_encoder("miniature", store)
    train = {
        load_task(name): load_split(load_task(name), "train", 32, store)
        for name in (task, *controls)
    }
    own = load_task(task)
    trained = store.one("checkpoint", "", task=task, mode="linear") if weighted else None
    tau = "" if trained is None else tau_digests({task: trained})[task]
    limits = dict.fromkeys((task, *controls))
    measured = local_energies(
        encoder, own, train[own], {t: split for t, split in train.items() if t != own},
        points=points, logits=logits, tau=None if trained is None else store.get(trained),
        **{"layer_scores": True} | options,
    )  # fmt: skip
    probes = {t: split.take(PROBE) for t, split in train.items()}
    noted = [
        replace(
            energy,
            content=content_of(
                encoder, {t: probes[t] for t in (own, load_task(energy.control))}, limits, tau
            ),
        )
        for energy in measured
    ]
    return keep_local_energies(store, noted)
