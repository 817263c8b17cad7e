"""Function-space features of a split, from which every alpha follows by algebra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine import linearize
from engine.checks import check_finite, check_same_parameters
from engine.errors import CheckpointError

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

CHUNK = 1 << 20  # float64 values a chunk of the alpha sweep holds


@dataclass(frozen=True, eq=False)
class Responses:
    r"""What an encoder and T task vectors do on one split of one task.

    .. math:: f_{lin}(x; \theta_0 + \sum_t \alpha_t \tau_t)
              = f(x; \theta_0) + \sum_t \alpha_t \, J(x) \tau_t

    Attributes:
        task: Whose images these are.
        split: "train", "validation" or "test".
        names: Of the task vectors, T entries.
        z0: f(x; theta_0), shape (N, d), float32.
        jz: J(x) tau_t, shape (T, N, d), float32.
        labels: int64, shape (N,).
        head: Unit rows, shape (C, d), float32.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3, Eq. (3).
    """

    task: str
    split: str
    names: tuple[str, ...]
    z0: Tensor
    jz: Tensor
    labels: Tensor
    head: Tensor

    def scores(self) -> Tensor:
        r"""Class scores of theta_0 and of each tangent.

        .. math:: s_0 = f(x; \theta_0) H^\top, \qquad s_t = (J(x) \tau_t) H^\top

        A merged model's scores are :math:`s_0 + \sum_t \alpha_t s_t`: its logits up to a positive
        factor an image, so with the same arg-max.

        Returns:
            Shape (1 + T, N, C), float32; the products are taken in float64.
        """
        z = torch.cat([self.z0[None], self.jz])  # (1 + T, N, d)
        return (z.double() @ self.head.double().T).float()

    def take(self, n: int) -> "Responses":
        """Keep the first images.

        Args:
            n: How many, at most.

        Returns:
            Responses of the first ``n`` images.
        """
        kept = self.z0[:n], self.jz[:, :n], self.labels[:n]
        return Responses(self.task, self.split, self.names, *kept, self.head)

    def select(self, names: Sequence[str]) -> "Responses":
        """Keep some of the task vectors, in another order if need be.

        Args:
            names: Of the task vectors to keep.

        Returns:
            Responses whose ``names`` are those given.

        Raises:
            ValueError: If one of them is not here.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(f"got {unknown}, expected among {list(self.names)}")
        index = [self.names.index(name) for name in names]
        kept = self.labels, self.head
        return Responses(self.task, self.split, tuple(names), self.z0, self.jz[index], *kept)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict]:
        """Give what a store keeps.

        Returns:
            Tensors by name, and plain values for ``from_tensors``.
        """
        tensors = {"z0": self.z0, "jz": self.jz, "labels": self.labels, "head": self.head}
        meta = {"task": self.task, "split": self.split, "names": list(self.names)}
        return {name: value.contiguous() for name, value in tensors.items()}, meta

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping) -> "Responses":
        """Undo ``to_tensors``.

        Args:
            tensors: As kept.
            meta: As kept; further keys are ignored.

        Returns:
            The responses.

        Raises:
            CheckpointError: If a part is missing or the shapes do not fit each other.
        """
        try:
            parts = [tensors[name] for name in ("z0", "jz", "labels", "head")]
            task, split, names = meta["task"], meta["split"], tuple(meta["names"])
        except KeyError as error:
            raise CheckpointError(
                f"stored responses lack {error}; delete them, they are computed again"
            ) from error
        z0, _, labels, head = parts
        N, C, d = labels.numel(), len(head), z0.shape[-1]
        expected = [(N, d), (len(names), N, d), (N,), (C, d)]
        if [tuple(part.shape) for part in parts] != expected:
            raise CheckpointError(
                "stored responses do not fit together; delete them, they are computed again"
            )
        return cls(task, split, names, *parts)


def responses(
    encoder: "Encoder",
    task: "Task",
    split: "Split",
    taus: Mapping[str, Mapping[str, Tensor]],
    batch: int = 250,
) -> Responses:
    """Compute the responses of a split: T tangents share one pass at theta_0.

    Costs about 1 + 2 T forward passes an image, once, whatever alphas follow; holds the
    activations of 1 + T passes of ``batch`` images.

    Args:
        encoder: On the device to compute on.
        task: For its head.
        split: Images and labels; may be those of a control task.
        taus: Task vectors by name; float16 ones are used in the precision of ``theta0``.
        batch: Images a pass.

    Returns:
        Responses on the CPU.

    Raises:
        ParameterMismatchError: If a task vector does not fit the encoder.
        NonFiniteError: If a feature is NaN or infinite.
    """
    theta0 = encoder.theta0
    for name, tau in taus.items():
        check_same_parameters(f"task vector of {name}", tau, theta0)
    moved = [{key: tau[key].to(value) for key, value in theta0.items()} for tau in taus.values()]
    features, changes = [], []
    with torch.no_grad():
        for images in split.images.split(batch):
            x = encoder.preprocess(images)
            z0, jz = linearize.tangents(encoder.features, theta0, moved, x)
            features.append(z0.float().cpu())
            changes.append(jz.float().cpu())
        head = encoder.head(task).float().cpu()
    z0, jz = torch.cat(features), torch.cat(changes, dim=1)
    check_finite(f"features of {task.name}", {"f(x; theta_0)": z0, "J tau": jz})
    return Responses(task.name, split.name, tuple(taus), z0, jz, split.labels, head)


def merged_scores(scores: Tensor, alphas: Sequence[float] | Tensor) -> Tensor:
    r"""Class scores of a merged linearized model.

    .. math:: s = (\dots((s_0 + \alpha_1 s_1) + \alpha_2 s_2) + \dots) + \alpha_T s_T

    in float64 and in just this order, each product rounded before it is added, so that any other
    program with IEEE doubles gets the same bits.

    Args:
        scores: From ``Responses.scores``, shape (1 + T, N, C).
        alphas: T coefficients, in the order of ``Responses.names``.

    Returns:
        Shape (N, C), float64.

    Raises:
        ValueError: If there are not T coefficients.
    """
    alphas = torch.as_tensor(alphas, dtype=torch.float64).reshape(-1)
    if len(alphas) != len(scores) - 1:
        raise ValueError(f"got {len(alphas)} alphas, expected {len(scores) - 1}")
    return _merged(scores, alphas[None])[0]


def predictions(scores: Tensor) -> Tensor:
    """Choose the class of the highest score, the first one among equals.

    Args:
        scores: Shape (..., C), without NaN.

    Returns:
        int64, shape (...).
    """
    return scores.argmax(dim=-1)  # torch gives the first of equal ones


def correct_over(scores: Tensor, labels: Tensor, grid: Tensor) -> Tensor:
    """Count right predictions at many settings of alpha.

    Args:
        scores: From ``Responses.scores``, shape (1 + T, N, C).
        labels: int64, shape (N,).
        grid: Settings, shape (A, T).

    Returns:
        int64, shape (A,): what ``merged_scores`` gives for each setting, to the bit.

    Raises:
        ValueError: If the settings do not have T coefficients each.
    """
    grid = torch.as_tensor(grid, dtype=torch.float64)
    if grid.ndim != 2 or grid.shape[1] != len(scores) - 1:
        raise ValueError(
            f"got a grid of shape {tuple(grid.shape)}, expected (A, {len(scores) - 1})"
        )
    rows = max(1, CHUNK // max(1, scores[0].numel()))
    counts = [
        (predictions(_merged(scores, part)) == labels).sum(dim=1) for part in grid.split(rows)
    ]
    return torch.cat(counts) if counts else torch.zeros(0, dtype=torch.int64)


def accuracy_over(scores: Tensor, labels: Tensor, grid: Tensor) -> Tensor:
    """Measure accuracy at many settings of alpha.

    Args:
        scores: From ``Responses.scores``, shape (1 + T, N, C).
        labels: int64, shape (N,).
        grid: Settings, shape (A, T).

    Returns:
        Fractions, shape (A,), float64.
    """
    return correct_over(scores, labels, grid).double() / len(labels)


def _merged(scores: Tensor, grid: Tensor) -> Tensor:
    """Return merged scores at each setting, shape (A, N, C), in the order of the definition."""
    merged = scores[0].double().expand(len(grid), *scores[0].shape)
    for t in range(grid.shape[1]):
        # two operations on purpose: add(alpha=...) may fuse them and round once
        change = grid[:, t, None, None] * scores[1 + t].double()
        merged = merged + change
    return merged
