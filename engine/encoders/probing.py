"""Linear heads for encoders without a text tower: trained once on frozen features, then frozen."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import CheckpointError, MissingDataError

if TYPE_CHECKING:
    from engine.store import Entry, Store
    from engine.tasks import Task

WHAT = "head"  # of the entries of kind "result" that hold a head
PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
STEPS = 200  # of L-BFGS at most, for each penalty


def fit_head(
    features: Tensor, labels: Tensor, classes: int, scale: float, penalty: float
) -> Tensor:
    r"""Fit a linear head on frozen features; the problem is convex and starts at zero.

    .. math:: \min_H \frac{1}{N} \sum_n CE\Big(s \frac{z_n}{\lVert z_n \rVert} H^\top, y_n\Big)
              + \frac{\lambda}{2} \lVert s H \rVert^2

    Args:
        features: :math:`z_n = f(x_n; \theta_0)`, shape (N, d).
        labels: Class indices, shape (N,).
        classes: C.
        scale: s, the factor between cosine and logit.
        penalty: :math:`\lambda`.

    Returns:
        H, shape (C, d), float32 on the CPU; its rows have the lengths that training gave them.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, App. D.6, which trains a randomly initialised
        head together with the backbone and freezes it for merging. Here it is trained before, at
        theta_0, so that every mode shares one head. The linear probe by L-BFGS: Radford et al.
        (2021), arXiv:2103.00020, Sec. 3.2.
    """
    z = F.normalize(features.float().cpu(), dim=-1)
    weights = torch.zeros(classes, z.shape[1], requires_grad=True)  # s H
    wanted = labels.cpu()
    search = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(z @ weights.T, wanted) + penalty / 2 * weights.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(closure)
    return (weights / scale).detach()


def choose_head(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], classes: int, scale: float
) -> tuple[Tensor, float, float]:
    """Fit a head for each of ``PENALTIES`` and keep the one that does best on validation.

    Args:
        train: Features (N, d) and labels (N,).
        validation: The same of the validation split.
        classes: C.
        scale: s of ``fit_head``.

    Returns:
        The head (C, d), its penalty, and its validation accuracy; ties go to the larger penalty.
    """
    found = []
    for penalty in PENALTIES:
        head = fit_head(*train, classes, scale, penalty)
        guesses = (F.normalize(validation[0].float().cpu(), dim=-1) @ head.T).argmax(dim=1)
        accuracy = float((guesses == validation[1].cpu()).double().mean())
        found.append((accuracy, penalty, head))
    accuracy, penalty, head = max(found, key=lambda item: item[:2])
    return head, penalty, accuracy


class TrainedHeads:
    """The heads of a closed-vocabulary encoder, as they lie in a store."""

    def __init__(self, store: "Store", name: str, digest: str, embed_dim: int) -> None:
        """Hold where the heads lie.

        Args:
            store: The store.
            name: The encoder's, for messages.
            digest: The encoder's.
            embed_dim: Features d.
        """
        self._store, self._name, self._digest, self._dim = store, name, digest, embed_dim

    def of(self, task: "Task") -> Tensor:
        """Give the trained head of a task.

        Args:
            task: Its name and source say which.

        Returns:
            Shape (C, d), float32 on the CPU.

        Raises:
            MissingDataError: If none was trained; the message names the command.
            CheckpointError: If it was trained for other classes.
        """
        entry = self._entry(task)
        head = self._store.get(entry).get("head")
        if entry.meta.get("classnames") != list(task.classnames) or head is None:
            raise CheckpointError(
                f"the head of {task.name} was trained for other classes; train it again with "
                f"`{self._command(task)} --force`"
            )
        return head

    def mark(self, task: "Task") -> list[str]:
        """Return what sets this head apart from others of the same encoder and words."""
        return [self._entry(task).digest]

    def free(self) -> None:
        """Do nothing: there is no text tower."""

    def _entry(self, task: "Task") -> "Entry":
        """Return the newest head.

        Raises:
            MissingDataError: If there is none.
        """
        found = self._store.find(
            "result",
            what=WHAT,
            encoder_digest=self._digest,
            task=task.name,
            task_source=task.source,
        )
        if not found:
            raise MissingDataError(
                f"{self._name} has no text tower and no trained head of {task.name}; train one "
                f"with: {self._command(task)}"
            )
        return found[0]

    def _command(self, task: "Task") -> str:
        """Return the command that trains a head."""
        where = task.name if task.source == "miniature" else task.source
        return f"python -m engine heads --encoder {self._name} --tasks {where}"
