"""The loss of one task as a function of one flat vector: value, gradient, curvature, all exact."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine import linearize
from engine.encoders import plain_attention
from engine.errors import UsageError
from engine.finetune import head_loss
from engine.finetune.adamw import Layout
from engine.linearize import dual, split

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

MODES = ("nonlinear", "linear")
CURVED_BATCH = 64  # images at once in a Hessian-vector product: larger ones leave the caches

Features = Callable[[Mapping[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    r"""The mean loss of one task over all its images, in batches, without any randomness.

    .. math:: L_t(\theta) = \frac{1}{n} \sum_i \ell(f(x_i; \theta), y_i)

    or with f_lin of Eq. 3 in the place of f. Vectors are flat, shape (P,), laid out as ``layout``,
    in its dtype and on its device. Sums run over the batches in order, so that the same call gives
    the same bits.

    Attributes:
        name: Of the task.
        layout: theta_0 and where each parameter lies; float64 for float64.
        features: Trunk f, from parameters by name and inputs to (N, d).
        preprocess: From stored images to inputs.
        images: As stored, N of them.
        labels: int64, shape (N,).
        loss: From features, shape (N, d), and labels to their mean loss.
        mode: "nonlinear" or "linear".
        batch: Images a pass.
        tick: Called after every pass; may raise to stop.
    """

    name: str
    layout: Layout
    features: Features
    preprocess: Callable[[Tensor], Tensor]
    images: Tensor
    labels: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    mode: str = "nonlinear"
    batch: int = 250
    tick: Callable[[], None] = lambda: None

    @property
    def theta0(self) -> Tensor:
        """The pre-trained parameters, shape (P,)."""
        return self.layout.theta0

    @property
    def n(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def take(self, rows: Tensor | slice) -> "Objective":
        """Give the same loss over some of the images.

        Args:
            rows: Which.

        Returns:
            A new objective.
        """
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def value(self, theta: Tensor) -> float:
        """Measure the loss.

        Args:
            theta: Parameters, shape (P,).

        Returns:
            Nats.
        """
        total = 0.0
        with torch.no_grad():
            for x, y, share in self._batches(None, self.batch):
                total += share * float(self.loss(self._features(theta, x), y))
        return total

    def loss_and_gradient(self, theta: Tensor, rows: Tensor | None = None) -> tuple[float, Tensor]:
        r"""Differentiate the loss, over all images or a minibatch.

        .. math:: g_t(\theta) = \nabla L_t(\theta)

        Args:
            theta: Parameters, shape (P,).
            rows: Which images; None for all.

        Returns:
            The loss in nats, and its gradient, shape (P,).

        Source:
            Zhou et al., On Task Vectors and Gradients: the gradient of the abstract.
        """
        total, gradient = 0.0, torch.zeros_like(self.theta0)
        for x, y, share in self._batches(rows, self.batch):
            value, part = self._piece(theta, x, y)
            total += share * value
            gradient.add_(part, alpha=share)
        return total, gradient

    def gradient(self, theta: Tensor, rows: Tensor | None = None) -> Tensor:
        """Give the gradient alone, as ``loss_and_gradient``."""
        return self.loss_and_gradient(theta, rows)[1]

    def hvp(self, theta: Tensor, v: Tensor) -> Tensor:
        r"""Multiply the Hessian with a vector, exactly and without ever holding the Hessian.

        .. math:: H_t(\theta) v = \nabla_\theta \langle \nabla L_t(\theta), v \rangle
                  \quad\text{or, linear,}\quad J(\theta_0)^\top L_t''(z) \, J(\theta_0) v

        with z = f_lin. The first is two backward passes, one through the other: about three times
        a gradient. The second needs a tangent and one backward pass, less than two.

        Args:
            theta: Parameters, shape (P,).
            v: Direction, shape (P,).

        Returns:
            Shape (P,).

        Source:
            Pearlmutter (1994), Neural Computation 6, 147-160, Sec. 3; the linear form is the
            generalised Gauss-Newton product, which there is no approximation.
        """
        product = torch.zeros_like(self.theta0)
        curved = self._linear_hvp if self.mode == "linear" else self._nonlinear_hvp
        for x, y, share in self._batches(None, min(self.batch, CURVED_BATCH)):
            product.add_(curved(theta, v, x, y), alpha=share)
        return product

    def outputs(self, theta: Tensor) -> Tensor:
        """Give the features of all images, shape (N, d), without a graph."""
        with torch.no_grad():
            parts = [self._features(theta, x) for x, _, _ in self._batches(None, self.batch)]
        return torch.cat(parts)

    def moved(self, taus: list[Tensor]) -> Tensor:
        r"""Push task vectors through the Jacobian at theta_0.

        Args:
            taus: K vectors, shape (P,).

        Returns:
            :math:`J \tau_k`, shape (K, N, d).
        """
        parts, theta0 = [], self.layout.split(self.theta0)
        named = [self.layout.split(tau.to(self.theta0)) for tau in taus]
        for x, _, _ in self._batches(None, self.batch):
            parts.append(linearize.tangents(self.features, theta0, named, x)[1])
        return torch.cat(parts, dim=1)

    def _batches(self, rows: Tensor | None, size: int) -> Generator[tuple[Tensor, Tensor, float]]:
        """Yield inputs, labels and the share of each batch, telling of each when it is done."""
        rows = torch.arange(self.n) if rows is None else rows
        device = self.theta0.device
        for piece in rows.split(size):
            y = self.labels[piece].to(device)
            yield self.preprocess(self.images[piece].to(device)), y, len(piece) / len(rows)
            self.tick()

    def _features(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return f or f_lin, shape (N, d)."""
        if self.mode == "nonlinear":
            return self.features(self.layout.split(theta), x)
        theta0 = self.layout.split(self.theta0)
        return linearize.linearized(
            self.features, theta0, self.layout.split(theta - self.theta0), x
        )

    def _piece(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
        """Return loss and gradient of one batch."""
        if self.mode == "linear":
            parts = self.layout.split(self.theta0), self.layout.split(theta - self.theta0)
            value, grads = linearize.linear_gradient(
                self.features, *parts, x, lambda z: self.loss(z, y)
            )
            return float(value), self.layout.join(grads)
        leaf = theta.detach().requires_grad_()
        value = self.loss(self.features(self.layout.split(leaf), x), y)
        (gradient,) = torch.autograd.grad(value, leaf)
        return float(value.detach()), gradient

    def _nonlinear_hvp(self, theta: Tensor, v: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return H v of one batch: the gradient of <g, v>."""
        leaf = theta.detach().requires_grad_()
        with plain_attention():  # the fused kernels cannot be differentiated twice
            value = self.loss(self.features(self.layout.split(leaf), x), y)
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            return torch.autograd.grad(gradient @ v, leaf)[0]

    def _linear_hvp(self, theta: Tensor, v: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return J^T L'' J v of one batch, with one primal pass for both tangents."""
        leaves = {k: p.detach().requires_grad_() for k, p in self._named(self.theta0).items()}
        tau, direction = self._named(theta - self.theta0), self._named(v)
        paired = {name: dual(leaf, [tau[name], direction[name]]) for name, leaf in leaves.items()}
        z0, (moved, along) = split(self.features(paired, x))
        z = (z0.detach() + moved).requires_grad_()
        (slope,) = torch.autograd.grad(self.loss(z, y), z, create_graph=True)
        (bent,) = torch.autograd.grad((slope * along).sum(), z)
        found = torch.autograd.grad((z0 * bent).sum(), list(leaves.values()))
        return self.layout.join(dict(zip(leaves, found, strict=True)))

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of a vector by parameter name."""
        return self.layout.split(flat)


def objective_of(
    encoder: "Encoder",
    task: "Task",
    images: "Split",
    mode: str = "nonlinear",
    batch: int = 250,
    tick: Callable[[], None] = lambda: None,
) -> Objective:
    """Make the loss of an encoder on a task, against its frozen head.

    Args:
        encoder: In the precision and on the device to compute in.
        task: Whose head.
        images: To take the mean over.
        mode: "nonlinear" or "linear".
        batch: Images a pass.
        tick: Called after every pass; may raise to stop.

    Returns:
        The objective. No dropout, augmentation, decay or clipping is in it.

    Raises:
        UsageError: If there are no images.
        ValueError: If the mode is another.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
    if not len(images.labels):
        raise UsageError(f"the {images.name} split of {task.name} is empty; add images to it")
    layout = Layout(encoder.theta0)
    head = encoder.head(task).to(layout.theta0)

    def loss(z: Tensor, labels: Tensor) -> Tensor:
        return head_loss(z, head, encoder.logit_scale, labels)

    return Objective(
        task.name,
        layout,
        encoder.features,
        encoder.preprocess,
        images.images,
        images.labels,
        loss,
        mode,
        batch,
        tick,
    )
