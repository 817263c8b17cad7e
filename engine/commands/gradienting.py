"""The verb that sets task vectors beside gradients: ``gradients``."""

import argparse
from collections.abc import Callable

from engine.commands.choices import open_encoder, open_store, open_tasks
from engine.commands.gradient_run import BATCH, Run
from engine.commands.gradient_words import told, told_check
from engine.commands.printing import Outcome
from engine.commands.stopping import counter, stoppable
from engine.errors import UsageError
from engine.gradients import Pieces, check, gradients_key, keep_gradients
from engine.tasks import Split, Task, load_split

ASKED = ("modes", "regime", "rate", "rates", "epochs", "steps", "batch", "images", "exact_images",
         "limit", "sections", "precision", "seed")  # fmt: skip


def gradients(args: argparse.Namespace) -> Outcome:
    r"""Set task vectors beside gradients, or recall the answer; or check the statements.

    .. math:: \tau^{(1)} = -\eta g, \qquad
              \tau^{(K)} = -\eta K g + \eta^2 \frac{K (K - 1)}{2} H g + O(\eta^3)

    Args:
        args: With ``encoder``, ``tasks``, all of ``ASKED``, ``check``, ``force``, ``device``,
            ``threads`` and ``cache``.

    Returns:
        The record that docs/design.md describes under "Task vectors and gradients".

    Raises:
        UsageError: If a choice cannot be carried out.

    Source:
        Zhou et al., On Task Vectors and Gradients (abstract).
    """
    if args.check:
        record = check(args.seed)
        return Outcome(record, told_check(record))
    _check_options(args)
    store = open_store(args)
    tasks = {task.name: task for task in open_tasks(args.tasks)}
    if len(tasks) < 2:
        raise UsageError("one task has nothing to be merged with; name at least two with --tasks")
    encoder = open_encoder(args, store)

    def load(task: Task, split: str, limit: int | None) -> Split:
        return load_split(task, split, encoder.image_size, store, limit=limit)

    asked = {name: getattr(args, name) for name in ASKED}
    key = gradients_key(encoder, tasks, load, **asked)
    kept = store.find("result", what="gradients", key=key)
    if kept and not args.force:
        record = kept[0].meta["record"]
        return Outcome(record, told(record))
    with stoppable() as stop:
        pieces = Pieces(f"gradients-{key[:40]}", store.load_state, store.save_state, _teller())
        record = Run(args, encoder, tasks, load, stop, pieces).record()
    keep_gradients(store, key, record)
    for name in pieces.names:
        store.drop_state(name)
    return Outcome(record, told(record))


def _teller() -> Callable[[str, int, int], None]:
    """Return a progress callback for many things at work, one after the other."""
    counters: dict[str, Callable[[int, int], None]] = {}

    def tell(name: str, done: int, total: int) -> None:
        counters.setdefault(name, counter(name, "done"))(done, total)

    return tell


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: With what to change.
    """
    if args.regime == "gd" and args.batch is not None:
        raise UsageError("full-batch gradient descent has no batch; leave --batch out")
    for name in ("rate", *(["rates"] if args.rates else [])):
        values = getattr(args, name)
        wrong = [v for v in (values if isinstance(values, list) else [values]) if v is not None]
        if any(value <= 0 for value in wrong):
            raise UsageError(f"--{name} holds {min(wrong):g}; rates are above 0")
    if args.seed < 0:
        raise UsageError(f"--seed is {args.seed}; choose 0 or above")
    args.rates = sorted(set(args.rates)) if args.rates else None
    batch = None if args.regime == "gd" else args.batch or BATCH
    if batch is not None and args.images < batch:
        raise UsageError(
            f"{args.images} images make no batch of {batch}; take more --images or a lower --batch"
        )
