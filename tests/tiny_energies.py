"""Local energies of a tiny world, measured and kept: what a page opens with."""

from collections.abc import Sequence

from engine.encoders import load_encoder
from engine.ntk import keep_local_energies, local_energies
from engine.store import Entry, Store
from engine.tasks import load_split, load_task


def keep_energies(store: Store, task: str, controls: Sequence[str], points: int) -> Entry:
    """Measure and keep a task's local energy against some controls, three logits."""
    encoder = load_encoder("miniature", store)
    train = {name: load_split(load_task(name), "train", 32, store) for name in (task, *controls)}
    tau = store.get(store.one("checkpoint", "", task=task, mode="linear"))
    against = {load_task(name): train[name] for name in controls}
    return keep_local_energies(
        store,
        local_energies(
            encoder, load_task(task), train[task], against, points=points, logits=3, tau=tau
        ),
    )
