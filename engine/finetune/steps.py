"""One step: the gradient of one batch, piece by piece; and how well the weights do."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import linearize
from engine.finetune.adamw import Layout, State
from engine.finetune.batches import Feed, augmented, generator
from engine.finetune.parallel import Processes
from engine.finetune.recipe import Recipe

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split

EVALUATION_BATCH = 250


@dataclass(frozen=True, eq=False)
class Run:
    """What stays the same from step to step."""

    encoder: "Encoder"
    mode: str
    recipe: Recipe
    train: "Split"
    validation: "Split"
    head: Tensor
    layout: Layout
    precision: str  # resolved: "float32" or "bfloat16"
    processes: Processes

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self.layout.theta0.device


def head_loss(z: Tensor, head: Tensor, logit_scale: float, labels: Tensor) -> Tensor:
    r"""Cross-entropy against a frozen head, in at least single precision.

    .. math:: CE\!\left(s \, \frac{z}{\lVert z \rVert} H^\top, y\right)

    Args:
        z: Features, shape (N, d).
        head: Unit rows, shape (C, d).
        logit_scale: Factor s between cosine and logit.
        labels: int64, shape (N,).

    Returns:
        Mean loss in nats, a scalar.

    Source:
        Radford et al. (2021), arXiv:2103.00020, Fig. 3, with the text side frozen.
    """
    with torch.autocast(z.device.type, enabled=False):
        logits = logit_scale * F.normalize(z.to(head.dtype), dim=-1) @ head.T
        return F.cross_entropy(logits, labels)


def batch_gradient(run: Run, state: State, feed: Feed) -> tuple[float, Tensor]:
    """Return loss and flat gradient of one batch, computed piece by piece, process by process."""
    recipe, linear = run.recipe, run.mode == "linear"
    theta = None if linear else run.layout.theta0 + state.tau
    images, labels = feed.take(state.step)
    images = augmented(images, recipe.augment, generator(recipe.seed, "augment", state.step))
    total, gradient = 0.0, None
    rows, pieces = run.processes.rows(len(labels)), -(-recipe.accumulate // run.processes.size)
    for piece in rows.tensor_split(min(pieces, len(rows))):
        pixels, wanted = images[piece[0] : piece[-1] + 1], labels[piece[0] : piece[-1] + 1]
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16"):
            x = run.encoder.preprocess(pixels)
            if linear:
                loss, part = _linear_gradient(run, state.tau, x, wanted)
            else:
                loss, part = _nonlinear_gradient(run, theta, x, wanted)
        share = len(wanted) / len(labels)
        total += share * float(loss)
        if gradient is not None:
            gradient.add_(part, alpha=share)
        else:
            gradient = part if share == 1 else part.mul_(share)
    # the number first: it goes by the CPU, where the end of another process is noticed at once
    return run.processes.total_number(total), run.processes.total(gradient)


def _nonlinear_gradient(run: Run, theta: Tensor, x: Tensor, labels: Tensor):
    """Return loss and flat gradient of f(x; theta): the same in theta as in tau."""
    leaf = theta.detach().requires_grad_()
    z = run.encoder.features(run.layout.split(leaf), x)
    loss = head_loss(z, run.head, run.encoder.logit_scale, labels)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def _linear_gradient(run: Run, tau: Tensor, x: Tensor, labels: Tensor):
    """Return loss and flat gradient of f_lin(x; theta_0 + tau) in tau."""
    loss, gradient = linearize.linear_gradient(
        run.encoder.features,
        run.layout.split(run.layout.theta0),
        run.layout.split(tau),
        x,
        lambda z: head_loss(z, run.head, run.encoder.logit_scale, labels),
    )
    return loss, run.layout.join(gradient)


def validation_accuracy(run: Run, state: State) -> float:
    """Return the accuracy on the validation split, in single precision or better."""
    images, labels = run.validation.images, run.validation.labels
    theta0, tau = run.layout.theta0, state.tau
    right = 0
    with torch.no_grad():
        ranks = run.processes
        for first in range(
            ranks.rank * EVALUATION_BATCH, len(labels), ranks.size * EVALUATION_BATCH
        ):
            x = run.encoder.preprocess(images[first : first + EVALUATION_BATCH].to(run.device))
            if run.mode == "linear":
                parts = run.layout.split(theta0), run.layout.split(tau)
                z = linearize.linearized(run.encoder.features, *parts, x)
            else:
                z = run.encoder.features(run.layout.split(theta0 + tau), x)
            guesses = (z @ run.head.T).argmax(dim=1).cpu()
            right += int((guesses == labels[first : first + EVALUATION_BATCH]).sum())
    return round(run.processes.total_number(right)) / len(labels)


def resolved_precision(wanted: str, device: torch.device) -> str:
    """Return "float32" or "bfloat16": what "auto" means on this device."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


@contextlib.contextmanager
def deterministic(device: torch.device) -> Generator[None, None, None]:
    """On CUDA, ask for kernels that give the same bits each time; the CPU's do."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    loud = not torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=not loud)
