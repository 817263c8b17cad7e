"""Fine-tuning: one loop for both modes, with the task vector itself as the trained leaf."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.checks import check_finite
from engine.errors import CheckpointError, NonFiniteError, UsageError
from engine.finetune.adamw import Layout, State, adamw_step
from engine.finetune.batches import Feed
from engine.finetune.checkpointing import checkpointed
from engine.finetune.parallel import ALONE, Processes, told
from engine.finetune.recipe import (
    TRAINED_MODES,
    Recipe,
    check_mode,
    check_recipe,
    described,
    rate_at,
    recipe_for,
)
from engine.finetune.steps import (
    Run,
    batch_gradient,
    deterministic,
    head_loss,
    resolved_precision,
    validation_accuracy,
)

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

__all__ = [
    "TRAINED_MODES",
    "Recipe",
    "Trained",
    "checkpointed",
    "described",
    "finetune",
    "head_loss",
    "rate_at",
    "recipe_for",
    "state_name",
]

LOG_ENTRIES, VALIDATIONS = 50, 4

Progress = Callable[[int, int, dict | None], None]
SaveState = Callable[[str, dict[str, Tensor], dict], None]
LoadState = Callable[[str], tuple[dict[str, Tensor], dict] | None]


@dataclass(frozen=True)
class Trained:
    """What fine-tuning gives.

    Attributes:
        tau: Fine-tuned minus pre-trained, on the CPU, named as ``theta0``.
        log: Entries {"step", "loss", "rate", "seconds", "grad_norm"}, some with "validation": the
            mean loss (nats) since the entry before, the norm before clipping.
        validation: Accuracy on the validation split after the last step, as a fraction.
    """

    tau: dict[str, Tensor]
    log: list[dict]
    validation: float


def finetune(
    encoder: "Encoder",
    task: "Task",
    train: "Split",
    validation: "Split",
    mode: str,
    recipe: Recipe,
    progress: Progress | None = None,
    save_state: SaveState | None = None,
    load_state: LoadState | None = None,
    processes: Processes = ALONE,
) -> Trained:
    r"""Fine-tune an encoder on one task.

    .. math:: \min_\tau \; E \, CE\!\left(s \, \frac{z}{\lVert z \rVert} H^\top, y\right), \qquad
              z = f(x; \theta_0 + \tau) \;\text{ or }\; f_{lin}(x; \theta_0 + \tau)

    with the head :math:`H` frozen. Data order and augmentation depend on (seed, epoch) and
    (seed, step) alone, so a run resumed from a working state equals an uninterrupted one: to the
    bit on the same machine with the same number of threads and processes. Several processes share
    each batch and sum their gradients before clipping: the step of one process, up to rounding.

    Args:
        encoder: On the device to train on.
        task: Whose head to train against.
        train: Images to learn from.
        validation: Images to measure on.
        mode: "nonlinear" or "linear".
        recipe: How.
        progress: Called as (steps done, steps, new log entry or None) after each step. If it
            raises, the working state is saved first: a way to stop.
        save_state: Takes (name, tensors, meta), as ``Store.save_state``.
        load_state: Takes a name, as ``Store.load_state``.
        processes: That train together, from ``parallel.joined``; the first alone saves and loads
            states and has the whole log.

    Returns:
        The task vector and how it came about. The working state, named by ``state_name``, stays.

    Raises:
        NonFiniteError: If loss or gradient is NaN or infinite, with the step.
        CheckpointError: If the working state found is not of this run.
        UsageError: If the recipe or a split cannot be used.
        LostProcessError: If another of the processes ended.
        BaseException: What ``progress`` raised, here or, as KeyboardInterrupt, in another process.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 5, Eq. (3), Appendix A.
    """
    name = state_name(encoder, task, train, validation, mode, recipe)
    identity = _identity(encoder, task, train, validation, mode, recipe)
    run = _prepared(encoder, task, train, validation, mode, recipe, processes)
    found = load_state(name) if load_state is not None and processes.first else None
    state = State.start(run.layout) if found is None else _resumed(*found, identity, run)
    _spread(state, processes)

    def save() -> None:
        processes.check_same("task vector", state.tau)
        if save_state is not None and processes.first:
            save_state(name, *state.packed(identity))

    feed = Feed(train, recipe.seed, recipe.batch, run.device)
    with deterministic(run.device), contextlib.closing(feed):
        while state.step < recipe.steps:
            entry = _advance(run, state, feed)
            stop = told(progress, state.step, recipe.steps, entry)
            if processes.total_number(stop is not None):
                save()
                raise stop or KeyboardInterrupt
            if state.step % recipe.checkpoint_every == 0 and state.step < recipe.steps:
                save()
    processes.check_same("task vector", state.tau)
    tau = {key: value.cpu().clone() for key, value in run.layout.split(state.tau).items()}
    check_finite(f"task vector of {task.name}", tau)
    return Trained(tau=tau, log=state.log, validation=state.log[-1]["validation"])


def state_name(
    encoder: "Encoder",
    task: "Task",
    train: "Split",
    validation: "Split",
    mode: str,
    recipe: Recipe,
) -> str:
    """Name the working state of a run, so that no run ever meets another's.

    Args:
        encoder: As for ``finetune``, like all the others: its digest and device count.
        task: Its name, classes and templates count.
        train: Its digest counts.
        validation: Its digest counts.
        mode: "nonlinear" or "linear".
        recipe: All of it but ``checkpoint_every``.

    Returns:
        A name, for ``Store.drop_state`` once the checkpoint is stored.
    """
    identity = _identity(encoder, task, train, validation, mode, recipe)
    text = json.dumps(identity, sort_keys=True)
    return f"finetune-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def _spread(state: State, processes: Processes) -> None:
    """Give every process the state of the first."""
    kept = ("step", "log", "losses", "seconds")
    found = processes.shared({name: getattr(state, name) for name in kept})
    for name in kept:
        setattr(state, name, found[name])
    for value in (state.tau, state.first, state.second):
        processes.spread(value)


def _identity(encoder, task, train, validation, mode, recipe) -> dict:
    """Return what makes a run the one it is, in plain values."""
    device = next(iter(encoder.theta0.values())).device
    return {
        "encoder": encoder.digest,
        "task": task.name,
        "classnames": list(task.classnames),
        "templates": list(task.templates),
        "train": train.digest,
        "validation": validation.digest,
        "mode": mode,
        "recipe": {**described(recipe), "precision": resolved_precision(recipe.precision, device)},
        "device": device.type,
    }


def _prepared(encoder, task, train, validation, mode, recipe, processes) -> Run:
    """Return a run whose parts fit each other.

    Raises:
        UsageError: If recipe or splits cannot be used.
    """
    check_mode(mode)
    check_recipe(recipe)
    processes.rows(recipe.batch)
    layout = Layout(encoder.theta0)
    head = encoder.head(task).to(layout.theta0)
    for split in (train, validation):
        if not len(split.labels):
            raise UsageError(f"the {split.name} split of {task.name} is empty; add images to it")
        if not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(head):
            raise UsageError(
                f"the {split.name} split of {task.name} has labels outside its {len(head)} "
                "classes; load it again"
            )
    precision = resolved_precision(recipe.precision, layout.theta0.device)
    encoder = checkpointed(encoder) if recipe.checkpointing else encoder
    return Run(encoder, mode, recipe, train, validation, head, layout, precision, processes)


def _resumed(tensors: Mapping[str, Tensor], meta: Mapping, identity: dict, run: Run) -> State:
    """Return the state saved, if it is this run's.

    Raises:
        CheckpointError: If it is not.
    """
    state = State.unpacked(tensors, meta, identity, run.layout)
    if not 0 <= state.step <= run.recipe.steps or (state.step and not torch.any(state.tau)):
        raise CheckpointError("the working state is damaged; delete it to train from the start")
    return state


def _advance(run: Run, state: State, feed: Feed) -> dict | None:
    """Return the log entry, where there is one, of one step taken in place.

    Raises:
        NonFiniteError: If there is nowhere to step to.
    """
    began, recipe = time.perf_counter(), run.recipe
    rate = rate_at(state.step, recipe)
    loss, gradient = batch_gradient(run, state, feed)
    norm = gradient.norm()
    if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
        raise NonFiniteError(
            f"the loss or its gradient is not finite at step {state.step + 1} of {recipe.steps} "
            f"(loss {loss:g}); train with a lower rate than {recipe.rate:g}"
        )
    gradient.mul_((recipe.clip / (norm + 1e-6)).clamp(max=1.0))  # 1e-6 as clip_grad_norm_
    adamw_step(state, gradient, run.layout.theta0, rate, recipe.weight_decay)
    state.losses.append(loss)
    entry = _entry(run, state, rate, float(norm))
    state.seconds += time.perf_counter() - began
    if entry is not None:
        entry["seconds"] = state.seconds
        state.log.append(entry)
        state.losses.clear()
    return entry


def _entry(run: Run, state: State, rate: float, norm: float) -> dict | None:
    """Return what the log says of this step; None for most steps."""
    steps = run.recipe.steps
    every = max(1, steps // LOG_ENTRIES)
    if state.step % every and state.step != steps:
        return None
    loss = sum(state.losses) / len(state.losses)
    entry = {"step": state.step, "loss": loss, "rate": rate, "grad_norm": norm}
    if state.step % (every * math.ceil(steps / every / VALIDATIONS)) == 0 or state.step == steps:
        entry["validation"] = validation_accuracy(run, state)
    return entry
