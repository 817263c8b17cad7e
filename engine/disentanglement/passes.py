"""Forward passes of merged weights: images prepared once, weights merged in place."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.checks import check_finite, check_same_parameters
from engine.errors import UsageError
from engine.responses import predictions

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

ROOM = 2 << 30  # bytes of prepared pixels kept on the device; beyond, pixels are prepared a batch


class Passes:
    """The outputs of merged models on the test images of some tasks.

    Holds one set of weights on the device, which every ``outputs`` overwrites: nothing is built
    again. Not for several threads at once.
    """

    def __init__(
        self,
        encoder: "Encoder",
        tasks: Mapping[str, "Task"],
        taus: Mapping[str, Mapping[str, Tensor]],
        splits: Mapping[str, "Split"],
        *,
        distance: str = "error",
        batch: int = 250,
        precision: str = "float32",
    ) -> None:
        """Prepare images, heads and weights.

        Args:
            encoder: On the device to compute on, in float32.
            tasks: By name.
            taus: Task vectors by task name, finite.
            splits: Images by task name.
            distance: "error" for predictions, else logits.
            batch: Images a pass.
            precision: "float32" or "bfloat16", of the passes; weights are merged in float32.

        Raises:
            UsageError: If a split is empty or does not fit its task.
            ParameterMismatchError: If a task vector does not fit the encoder.
            NonFiniteError: If a task vector holds NaN or infinity.
        """
        for name, task in tasks.items():
            check_split(task, splits[name])
        for name, tau in taus.items():
            check_same_parameters(f"task vector of {name}", tau, encoder.theta0)
            check_finite(f"task vector of {name}", tau)
        self.distance, self.batch = distance, batch
        self.theta0 = encoder.theta0
        # always in this order, so that swapping two tasks gives the same bits
        self.taus = {
            name: {key: taus[name][key].to(value) for key, value in self.theta0.items()}
            for name in sorted(taus)
        }
        self.merged = {key: value.clone() for key, value in self.theta0.items()}
        self.half = precision == "bfloat16"
        first = next(iter(self.theta0.values()))
        self.encoder = encoder.to(first.device, torch.bfloat16) if self.half else encoder
        self.theta = (
            {key: value.bfloat16() for key, value in self.merged.items()}
            if self.half
            else self.merged
        )
        self.heads = {name: encoder.head(tasks[name]).float().cpu().double() for name in tasks}
        self.scale = encoder.logit_scale
        total = sum(split.images.numel() for split in splits.values()) * first.element_size()
        self.pieces = {
            name: [self._held(piece, total) for piece in split.images.split(batch)]
            for name, split in splits.items()
        }

    def _held(self, piece: Tensor, total: int) -> Tensor:
        """Return a batch as it is kept: prepared, if there is room for all."""
        return self.encoder.preprocess(piece) if total <= ROOM else piece

    def merge(self, alphas: Mapping[str, float]) -> None:
        r"""Overwrite the weights with :math:`\theta_0 + \sum_t \alpha_t \tau_t`.

        Args:
            alphas: By task name; those not named are 0.
        """
        used = [(float(alphas[name]), tau) for name, tau in self.taus.items() if alphas.get(name)]
        for key, value in self.merged.items():
            value.copy_(self.theta0[key])
            for alpha, tau in used:
                value.add_(tau[key], alpha=alpha)
            if self.half:
                self.theta[key].copy_(value)

    def outputs(self, alphas: Mapping[str, float], names: Sequence[str]) -> dict[str, Tensor]:
        r"""Run a merged model.

        Args:
            alphas: By task name; those not named are 0.
            names: Of the tasks whose images are run.

        Returns:
            By task: predictions, int64, shape (N,); or for "tv" and "kl" the true logits
            :math:`s \, f(x; \theta) H^\top / \lVert f(x; \theta) \rVert`, float32, shape (N, C).

        Raises:
            NonFiniteError: If a score is NaN or infinite.
        """
        self.merge(alphas)
        return {name: self._run(name) for name in names}

    @torch.no_grad()
    def _run(self, name: str) -> Tensor:
        """Return the outputs on one task's images of the weights as they are."""
        found = []
        for piece in self.pieces[name]:
            x = self.encoder.preprocess(piece) if piece.dtype == torch.uint8 else piece
            found.append(self.encoder.features(self.theta, x).float().cpu().double())
        z = torch.cat(found)
        scores = (z @ self.heads[name].T).float()
        check_finite(f"scores of {name}", {"f(x; theta) H^T": scores})
        if self.distance == "error":
            return predictions(scores)
        return (self.scale * scores.double() / z.norm(dim=1, keepdim=True)).float()


def check_split(task: "Task", split: "Split") -> None:
    """Refuse images that a task's map cannot be made of.

    Args:
        task: Class names.
        split: Images and labels.

    Raises:
        UsageError: If there are no images, or their labels name more classes than the task has.
    """
    C = len(task.classnames)
    if not len(split.images):
        raise UsageError(f"the {split.name} split of {task.name} is empty; give it some images")
    named = len(getattr(split, "classnames", ()) or task.classnames)
    if named != C or int(split.labels.max()) >= C:
        found = max(named, int(split.labels.max()) + 1)
        raise UsageError(
            f"the {split.name} split of {task.name} has {found} classes, but the task names {C}; "
            "load both from the same source"
        )


def check_pair(tasks: Sequence[str]) -> None:
    """Refuse what is no pair of two tasks.

    Args:
        tasks: Names.

    Raises:
        UsageError: If there are not two, or they are the same.
    """
    if len(tasks) != 2 or tasks[0] == tasks[1]:
        raise UsageError(
            f"a map needs two different tasks, got {' and '.join(tasks) or 'none'}; choose another"
        )
