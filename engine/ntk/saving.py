"""Kernels of single logits as working states: what was computed is not computed again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from engine.errors import CheckpointError
from engine.ntk.grams import Sums

if TYPE_CHECKING:
    from engine.ntk.plans import Plan

LAYER, BLOCK = "layer.", "block."  # before the name of a parameter, of a block
SaveState = Callable[[str, dict[str, Tensor], dict], None]
LoadState = Callable[[str], tuple[dict[str, Tensor], dict] | None]


@dataclass(frozen=True)
class Saved:
    """Where finished kernels lie, and what they depend on.

    Attributes:
        load_state: As ``Store.load_state``.
        save_state: As ``Store.save_state``.
        identity: Plain values: encoder, points, readout, ...
    """

    load_state: LoadState
    save_state: SaveState
    identity: Mapping

    def under(self, made: "Plan") -> "Saved":
        """Return the same for kernels computed in just this way, whose bits depend on it."""
        how = {name: getattr(made, name) for name in ("algorithm", "batch", "chunk", "block")}
        return replace(self, identity={**self.identity, **how})

    def name(self, logit: int) -> str:
        """Name the working state of one logit's kernel."""
        said = json.dumps({**self.identity, "logit": logit}, sort_keys=True)
        return f"ntk-{hashlib.sha256(said.encode()).hexdigest()[:24]}"

    def read(self, logit: int, shape: tuple[int, int], blocks: bool = False) -> Sums | None:
        """Read one logit's kernel.

        Args:
            logit: Class index.
            shape: Of the kernel, (n, m).
            blocks: Whether each block's kernel is wanted too.

        Returns:
            It, on the CPU; None if it is not there, or not with its blocks.

        Raises:
            CheckpointError: If the state is of another run or shape.
        """
        name = self.name(logit)
        found = self.load_state(name)
        if found is None:
            return None
        tensors, meta = found
        if meta != {**self.identity, "logit": logit} or tensors["values"].shape != shape:
            raise CheckpointError(
                f"the working state {name} is of another run; delete it from the cache's state "
                "folder"
            )
        layers, parts = (
            {
                key.removeprefix(kind): value
                for key, value in tensors.items()
                if key.startswith(kind)
            }
            for kind in (LAYER, BLOCK)
        )
        if blocks and not parts:
            return None
        return Sums(tensors["values"], layers, blocks=parts if blocks else {})

    def write(self, logit: int, sums: Sums) -> None:
        """Save one logit's kernel.

        Args:
            logit: Class index.
            sums: The kernel and its parts.
        """
        tensors = {f"{LAYER}{name}": part.cpu() for name, part in sums.layers.items()}
        tensors |= {f"{BLOCK}{name}": part.cpu() for name, part in sums.blocks.items()}
        tensors["values"] = sums.values.cpu()
        self.save_state(self.name(logit), tensors, {**self.identity, "logit": logit})
