"""Three ways of going downhill, each with its name and never mixed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import UsageError
from engine.finetune.adamw import State, adamw_step
from engine.finetune.batches import batch_indices

REGIMES = ("gd", "sgd", "adamw")
TITLES = {
    "gd": "full-batch gradient descent",
    "sgd": "minibatch stochastic gradient descent",
    "adamw": "AdamW on minibatches, without decay",
}


@dataclass(frozen=True)
class Regime:
    r"""How theta moves: at a constant rate, without clipping, decay, warm-up or augmentation.

    .. math:: \text{gd, sgd:}\quad \theta^{k+1} = \theta^k - \eta \, g(\theta^k)

    with g over all images (gd, an epoch is one step) or over the next minibatch of a shuffled
    epoch (sgd, adamw).

    Attributes:
        name: "gd", "sgd" or "adamw".
        rate: eta.
        batch: Images a step; None for gd.
        seed: Of the order of images.
    """

    name: str
    rate: float
    batch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no regime.

        Raises:
            UsageError: With what to change.
        """
        if self.name not in REGIMES:
            raise UsageError(f"{self.name!r} is no regime; choose one of {', '.join(REGIMES)}")
        if not 0 < self.rate < float("inf"):
            raise UsageError(f"the rate is {self.rate}; set it to a value above 0 and finite")
        if (self.batch is None) != (self.name == "gd"):
            raise UsageError(
                "full-batch gradient descent has no batch; leave --batch out"
                if self.name == "gd"
                else f"{self.name} needs minibatches; give their size with --batch"
            )

    def steps(self, n: int) -> int:
        """Tell how many steps an epoch has.

        Args:
            n: Images.

        Returns:
            1 for gd, else the number of equal minibatches.

        Raises:
            UsageError: If the images do not fill equal minibatches.
        """
        if self.batch is None:
            return 1
        if n % self.batch or not n:
            raise UsageError(
                f"{n} images do not fill minibatches of {self.batch}; choose a multiple of it"
            )
        return n // self.batch

    def rows(self, step: int, n: int) -> Tensor | None:
        """Name the images of a step; None for all of them."""
        if self.batch is None:
            return None
        return batch_indices(self.seed, step, n, self.batch)


class Walker:
    """Where the weights are, and what the next step needs."""

    def __init__(self, regime: Regime, theta0: Tensor, origin: Tensor) -> None:
        """Stand at a point.

        Args:
            regime: How to walk.
            theta0: Pre-trained parameters, shape (P,).
            origin: Where to begin, relative to them, shape (P,).
        """
        self.regime, self.theta0, self.theta = regime, theta0, theta0 + origin
        self.state = None
        if regime.name == "adamw":
            zeros = torch.zeros_like(theta0)
            self.state = State(origin.clone(), zeros, zeros.clone())

    def tau(self) -> Tensor:
        """Give theta - theta_0, shape (P,)."""
        return self.theta - self.theta0 if self.state is None else self.state.tau.clone()

    def step(self, gradient: Tensor) -> None:
        """Move once, in place; AdamW as ``engine.finetune.adamw`` says it.

        Args:
            gradient: Shape (P,); not changed.
        """
        if self.state is None:
            self.theta.sub_(gradient, alpha=self.regime.rate)
            return
        adamw_step(self.state, gradient, self.theta0, self.regime.rate, 0.0)
        self.theta = self.theta0 + self.state.tau

    def packed(self) -> tuple[dict[str, Tensor], dict]:
        """Give what goes on from here: tensors and plain values."""
        if self.state is None:
            return {"theta": self.theta.cpu().clone()}, {}
        return self.state.packed({})

    def resume(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo ``packed``."""
        if self.state is None:
            self.theta = tensors["theta"].to(self.theta0)
            return
        for name in ("tau", "first", "second"):
            setattr(self.state, name, tensors[name].to(self.theta0))
        self.state.step = int(meta["step"])
        self.theta = self.theta0 + self.state.tau
