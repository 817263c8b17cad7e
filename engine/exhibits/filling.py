"""``filled``: an exhibit with all that the store keeps of it."""

from collections.abc import Sequence

from engine.errors import UsageError
from engine.exhibits import accuracies, energies, maps, methods, negations
from engine.exhibits.comparing import compared
from engine.exhibits.definitions import EXHIBITS, twin
from engine.exhibits.exhibit import Filled
from engine.exhibits.standing import standing
from engine.store import Store

ALONE = {
    "single": accuracies.single,
    "addition": accuracies.addition,
    "addition-tasks": accuracies.addition_tasks,
    "negation": negations.negation,
    "random": accuracies.random,
    "convnext": accuracies.addition,
    "closed": accuracies.addition,
    "merging": methods.merging,
}
WITH_TWIN = {"disentanglement": maps.disentanglement, "energy": energies.energy}


def filled(
    store: Store,
    encoder: str,
    name: str,
    *,
    tasks: Sequence[str] | None = None,
    control: str = "objects",
    seeds: Sequence[int] | None = None,
) -> Filled:
    """Fill an exhibit from the store; nothing is computed that takes a model.

    Args:
        store: Where to look.
        encoder: Whose report it is for.
        name: Of the exhibit, one of ``EXHIBITS``.
        tasks: Names or paths; None for the miniature's eight.
        control: What negation keeps, and the other task of local energies.
        seeds: Of the task vectors; None for all that have checkpoints of every task.

    Returns:
        Its tables, figures and runs; of what is missing, the words that make it.

    Raises:
        UsageError: If there is no such exhibit or task.
        MissingDataError: If a task's data is gone.
    """
    if name not in EXHIBITS:
        raise UsageError(f"there is no exhibit {name!r}; choose of {', '.join(EXHIBITS)}")
    exhibit = EXHIBITS[name]
    used = exhibit.encoder_for(encoder)
    if used is None:
        why = f"does not apply to {encoder}: it {exhibit.otherwise}"
        return Filled(exhibit, encoder, None, why, comparison=compared(exhibit, encoder, ()))
    held = standing(store, used, tasks, control, seeds)
    if name in WITH_TWIN:
        random = standing(store, twin(used) or used, tasks, control, seeds)
        tables, figures, runs = WITH_TWIN[name](held, exhibit, random)
    else:
        tables, figures, runs = ALONE[name](held, exhibit)
    drawn = tuple(figure for figure in figures if figure.drawable)
    comparison = compared(exhibit, encoder, tables, held)
    return Filled(exhibit, encoder, used, "", tables, drawn, runs, comparison)
