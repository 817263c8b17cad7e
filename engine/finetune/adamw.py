"""The state of a run: tau and its moments as flat vectors, advanced by AdamW."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.errors import CheckpointError

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch's own
FORMAT = 1  # of the working state


class Layout:
    """Where each parameter lies in one flat vector of all of them."""

    def __init__(self, theta0: Mapping[str, Tensor]) -> None:
        """Lay the parameters out in their own order.

        Args:
            theta0: Parameters of one dtype on one device; copied, in at least single precision.
        """
        self.shapes = {name: value.shape for name, value in theta0.items()}
        self.sizes = [value.numel() for value in theta0.values()]
        flat = self.join(theta0)
        self.theta0 = flat.to(torch.promote_types(flat.dtype, torch.float32))

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of a flat vector, shape (P,), by parameter name."""
        pieces = zip(self.shapes.items(), flat.split(self.sizes), strict=True)
        return {name: piece.view(shape) for (name, shape), piece in pieces}

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return a copy of tensors by parameter name as one flat vector, shape (P,)."""
        return torch.cat([tensors[name].detach().reshape(-1) for name in self.shapes])


@dataclass
class State:
    """Everything a run needs to go on.

    Attributes:
        tau: Flat, shape (P,).
        first: Running mean of the gradient, shape (P,).
        second: Running mean of its square, shape (P,).
        step: Steps taken.
        log: Entries so far.
        losses: Of the steps since the last entry.
        seconds: Spent in steps.
    """

    tau: Tensor
    first: Tensor
    second: Tensor
    step: int = 0
    log: list[dict] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def start(cls, layout: Layout) -> "State":
        """Return the state before the first step: tau = 0."""
        return cls(*(torch.zeros_like(layout.theta0) for _ in range(3)))

    def packed(self, identity: dict) -> tuple[dict[str, Tensor], dict]:
        """Give tensors on the CPU and plain values, to be saved.

        Args:
            identity: Of the run, to be recognised by.

        Returns:
            Tensors by name, and meta.
        """
        tensors = {name: getattr(self, name).cpu().clone() for name in ("tau", "first", "second")}
        meta = {name: getattr(self, name) for name in ("step", "log", "losses", "seconds")}
        copied = {**meta, "log": [dict(entry) for entry in self.log], "losses": [*self.losses]}
        return tensors, {"format": FORMAT, "identity": identity, **copied}

    @classmethod
    def unpacked(
        cls, tensors: Mapping[str, Tensor], meta: Mapping, identity: dict, layout: Layout
    ) -> "State":
        """Undo ``packed``.

        Args:
            tensors: As saved.
            meta: As saved.
            identity: Of the run that wants to go on.
            layout: Of its parameters.

        Returns:
            A state on the device of ``layout``.

        Raises:
            CheckpointError: If the state is another run's, or incomplete.
        """
        found = {name: (value.shape, value.dtype) for name, value in tensors.items()}
        wanted = dict.fromkeys(
            ("tau", "first", "second"), (layout.theta0.shape, layout.theta0.dtype)
        )
        if meta.get("format") != FORMAT or meta.get("identity") != identity or found != wanted:
            raise CheckpointError(
                "the working state found is not of this run (encoder, task, split, mode, recipe); "
                "delete it to train from the start"
            )
        device = layout.theta0.device
        # cloned: the steps change them in place
        moved = {name: value.to(device, copy=True) for name, value in tensors.items()}
        kept = {"step": meta["step"], "seconds": meta["seconds"], "losses": [*meta["losses"]]}
        return cls(**moved, **kept, log=[dict(entry) for entry in meta["log"]])


def adamw_step(
    state: State, gradient: Tensor, theta0: Tensor, rate: float, weight_decay: float
) -> None:
    r"""Advance tau as AdamW advances theta = theta_0 + tau, in place.

    .. math:: \tau \leftarrow \tau - \eta \lambda (\theta_0 + \tau)
              - \eta \, \hat m / (\sqrt{\hat v} + \epsilon)

    The decay pulls theta, not tau, to zero. With tau itself as the leaf, an update smaller than
    the rounding of theta is not lost. The formula is that of ``torch.optim.AdamW``, which names
    its source: Loshchilov and Hutter (2019), arXiv:1711.05101.

    Args:
        state: tau, both moments and the step: all are changed.
        gradient: Flat, already clipped, shape (P,).
        theta0: Flat, shape (P,).
        rate: Learning rate eta of this step.
        weight_decay: Lambda.
    """
    beta1, beta2 = BETAS
    state.step += 1
    state.tau.sub_(theta0 + state.tau, alpha=rate * weight_decay)
    state.first.lerp_(gradient, 1 - beta1)
    state.second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    spread = state.second.sqrt().div_(math.sqrt(1 - beta2**state.step)).add_(EPSILON)
    state.tau.addcdiv_(state.first, spread, value=-rate / (1 - beta1**state.step))
