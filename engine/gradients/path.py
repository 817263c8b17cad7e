"""A walk from theta_0, kept as compact differences, with what each epoch tells of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.errors import CheckpointError, NonFiniteError
from engine.gradients.objective import Objective
from engine.gradients.regimes import Regime, Walker

FORMAT = "path-1"
HALF_ABOVE = 10_000_000  # parameters from which a difference is kept in float16

LoadState = Callable[[], tuple[dict[str, Tensor], dict] | None]
SaveState = Callable[[dict[str, Tensor], dict], None]


@dataclass(frozen=True, eq=False)
class Compact:
    """A vector in fewer bits: float32, or float16 of its share of the largest value."""

    values: Tensor
    scale: float = 1.0

    @classmethod
    def of(cls, vector: Tensor) -> "Compact":
        """Round a vector, shape (P,)."""
        if vector.numel() <= HALF_ABOVE:
            return cls(vector.float().cpu())
        scale = float(vector.abs().max()) or 1.0
        return cls((vector / scale).half().cpu(), scale)

    def wide(self, like: Tensor) -> Tensor:
        """Return the values in float64, on the device of ``like``."""
        return self.values.to(like.device, torch.float64) * self.scale


@dataclass(eq=False)
class Path:
    r"""Where theta was at the end of every epoch, and how it came there.

    theta^k is kept as the difference from what is kept of theta^(k-1): the rounding of one
    difference is made up for by the next, so that tau(k) is off by one rounding, whatever k. The
    last point is kept whole.

    Attributes:
        start: Where the walk began, relative to theta_0, shape (P,).
        last: theta^K - theta_0, in the precision of the walk.
        differences: K of them.
        gradients: g_k at the beginning of each epoch, over all images, K of them.
        losses: At theta^0 .. theta^K, of all images, K + 1.
        displacement: ||theta^k - theta^(k-1)||, K of them.
        gradient: ||g_k||, K of them.
        used_gradient: Norm of the mean of the gradients that an epoch's steps took, K of them.
        summed: Sum of the gradients of all steps, shape (P,), float64.
        steps: Taken so far.
        evaluations: Images differentiated by the steps.
    """

    regime: Regime
    start: Tensor
    last: Tensor
    summed: Tensor
    differences: list[Compact] = field(default_factory=list)
    gradients: list[Compact] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    displacement: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    used_gradient: list[float] = field(default_factory=list)
    steps: int = 0
    evaluations: int = 0

    @property
    def epochs(self) -> int:
        """How many epochs there are."""
        return len(self.differences)

    def tau(self, k: int) -> Tensor:
        """Give theta^k - theta_0.

        Args:
            k: Epoch, from 0 to ``epochs``.

        Returns:
            Shape (P,), float64; exact at both ends, within one rounding of a difference between.
        """
        return doubled(self.last) if k == self.epochs else self.kept(k)

    def kept(self, k: int) -> Tensor:
        """Give what the differences say of theta^k - theta_0, shape (P,), float64."""
        total = doubled(self.start)
        for difference in self.differences[:k]:
            total = total + difference.wide(total)
        return total

    def telescoping(self) -> float | None:
        r"""Measure what is left of the telescoping sum.

        .. math:: \frac{\lVert \tau^{(K)} + \eta \sum_k g(\theta^k) \rVert}{\lVert \tau \rVert}

        Returns:
            Rounding, for gd and sgd; None for AdamW, whose steps are no gradients.

        Source:
            Derived from the definition of gradient descent.
        """
        if self.regime.name == "adamw":
            return None
        moved = doubled(self.last) - doubled(self.start)
        length = float(moved.norm())
        return float((moved + self.regime.rate * self.summed).norm()) / length if length else 0.0

    def packed(self) -> tuple[dict[str, Tensor], dict]:
        """Give tensors and plain values, to be saved."""
        tensors = {"start": self.start, "last": self.last, "summed": self.summed}
        for kind in ("differences", "gradients"):
            for k, item in enumerate(getattr(self, kind)):
                tensors[f"{kind}.{k}"] = item.values
        plain = ("losses", "displacement", "gradient", "used_gradient", "steps", "evaluations")
        scales = {
            kind: [item.scale for item in getattr(self, kind)]
            for kind in ("differences", "gradients")
        }
        values = {name: getattr(self, name) for name in plain}
        # a copy on the CPU: what is saved stays as it was
        kept = {name: value.cpu().clone() for name, value in tensors.items()}
        return kept, {"format": FORMAT, "scales": scales, **values}

    @classmethod
    def unpacked(
        cls, regime: Regime, tensors: dict[str, Tensor], meta: dict, device: torch.device
    ) -> "Path":
        """Undo ``packed``.

        Args:
            regime: How it was walked.
            tensors: As packed.
            meta: As packed.
            device: Where to put what the walk goes on with.

        Returns:
            The path.

        Raises:
            CheckpointError: If it is no path.
        """
        if meta.get("format") != FORMAT:
            raise CheckpointError("a saved path is damaged; delete it to walk it again")
        lists = {
            kind: [
                Compact(tensors[f"{kind}.{k}"], scale)
                for k, scale in enumerate(meta["scales"][kind])
            ]
            for kind in ("differences", "gradients")
        }
        names = ("losses", "displacement", "gradient", "used_gradient", "steps", "evaluations")
        plain = {name: meta[name] for name in names}
        whole = {name: tensors[name].to(device) for name in ("start", "last", "summed")}
        return cls(regime, **whole, **lists, **plain)


def follow(
    objectives: Sequence[Objective],
    regime: Regime,
    epochs: int,
    alpha: float = 1.0,
    start: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
    load_state: LoadState | None = None,
    save_state: SaveState | None = None,
    measured: bool = True,
) -> Path:
    r"""Walk downhill from theta_0, or from another point.

    .. math:: \theta^{k+1} = \theta^k - \eta \, \alpha \sum_t g_t(\theta^k)

    and the same of AdamW. One objective makes a task's own path; several make the joint-training
    shadow path theta_MT, whose rate is alpha eta.

    Args:
        objectives: One, or several of the same parameters.
        regime: How.
        epochs: How many; an epoch of several tasks has the steps of the longest.
        alpha: Factor on the sum of the gradients.
        start: Where to begin, relative to theta_0, shape (P,); theta_0 by default.
        progress: Called as (epochs done, epochs); if it raises, the state is saved already.
        load_state: Gives what ``save_state`` took, or None.
        save_state: Takes (tensors, plain values) after every epoch.
        measured: Whether to measure the full-batch gradient at the beginning of each epoch and
            the loss, which costs sgd and adamw one more pass an epoch.

    Returns:
        The path. Resumed, it equals an uninterrupted one to the bit.

    Raises:
        NonFiniteError: If loss or gradient is not finite.
        UsageError: If the images do not fill minibatches.

    Source:
        Zhou et al., On Task Vectors and Gradients (abstract); the shadow path is derived.
    """
    theta0 = objectives[0].theta0
    origin = torch.zeros_like(theta0) if start is None else start.to(theta0)
    walker = Walker(regime, theta0, origin)
    found = load_state() if load_state is not None else None
    path = Path(regime, origin, origin, doubled(torch.zeros_like(theta0)))
    if found is not None:
        path = _resumed(found, regime, walker)
    kept = path.kept(path.epochs)
    while path.epochs < epochs:
        kept = _epoch(objectives, path, walker, alpha, kept, measured)
        if path.epochs == epochs and measured:
            path.losses.append(sum(o.value(walker.theta) for o in objectives))
        if save_state is not None:
            save_state(*_saved(path, walker))
        if progress is not None:
            progress(path.epochs, epochs)
    return path


def _epoch(
    objectives: Sequence[Objective],
    path: Path,
    walker: Walker,
    alpha: float,
    kept: Tensor,
    measured: bool,
) -> Tensor:
    """Walk one epoch, write down what it was like, and return what is kept of its end."""
    before, regime = walker.tau(), walker.regime
    whole = regime.batch is None or measured
    first = _summed(objectives, walker.theta, [None] * len(objectives)) if whole else None
    if measured:
        path.losses.append(first[0])
        path.gradient.append(norm(first[1]))
        path.gradients.append(Compact.of(first[1]))
    used = _steps(objectives, path, walker, alpha, first if regime.batch is None else None)
    path.summed += doubled(used)
    path.used_gradient.append(norm(used) / max(regime.steps(o.n) for o in objectives))
    path.last = walker.tau()
    path.displacement.append(norm(path.last - before))
    path.differences.append(Compact.of(doubled(path.last) - kept))
    return kept + path.differences[-1].wide(kept)


def _steps(
    objectives: Sequence[Objective],
    path: Path,
    walker: Walker,
    alpha: float,
    first: tuple[float, Tensor] | None,
) -> Tensor:
    """Take the steps of an epoch.

    Returns:
        The sum of their gradients, shape (P,).

    Raises:
        NonFiniteError: If there is nowhere to step to.
    """
    used = torch.zeros_like(walker.theta)
    for _ in range(max(walker.regime.steps(o.n) for o in objectives)):
        rows = [walker.regime.rows(path.steps, o.n) for o in objectives]
        loss, gradient = first or _summed(objectives, walker.theta, rows)
        if not (math.isfinite(loss) and bool(torch.isfinite(gradient).all())):
            raise NonFiniteError(
                f"the loss or its gradient is not finite at step {path.steps + 1} "
                f"(loss {loss:g}); take a lower rate than {walker.regime.rate:g}"
            )
        gradient = gradient * alpha if alpha != 1 else gradient
        walker.step(gradient)
        used.add_(gradient)
        path.steps += 1
        pairs = zip(objectives, rows, strict=True)
        path.evaluations += sum(o.n if row is None else len(row) for o, row in pairs)
    return used


def _summed(
    objectives: Sequence[Objective], theta: Tensor, rows: Sequence[Tensor | None]
) -> tuple[float, Tensor]:
    """Return the sums of losses and gradients over the objectives."""
    loss, gradient = objectives[0].loss_and_gradient(theta, rows[0])
    for objective, row in zip(objectives[1:], rows[1:], strict=True):
        value, part = objective.loss_and_gradient(theta, row)
        loss, gradient = loss + value, gradient + part
    return loss, gradient


def norm(vector: Tensor) -> float:
    """Give the Euclidean norm, summed in float64."""
    return float(doubled(vector).norm())


def doubled(vector: Tensor) -> Tensor:
    """Give a vector in float64, on its device where that has float64, else on the CPU."""
    return (vector.cpu() if vector.device.type == "mps" else vector).double()


def _saved(path: Path, walker: Walker) -> tuple[dict[str, Tensor], dict]:
    """Return path and walker as one state."""
    (tensors, meta), (walking, more) = path.packed(), walker.packed()
    tensors |= {f"walker.{name}": value for name, value in walking.items()}
    return tensors, {**meta, "walker": more}


def _resumed(found: tuple[dict[str, Tensor], dict], regime: Regime, walker: Walker) -> Path:
    """Return the path saved, with the walker at its end."""
    tensors, meta = found
    path = Path.unpacked(regime, tensors, meta, walker.theta.device)
    prefix = "walker."
    walking = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    walker.resume(walking, meta["walker"])
    return path
