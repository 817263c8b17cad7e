"""Gradient checkpointing: keep what enters each block, compute its inside again on the way back."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.func import functional_call

from engine.errors import UsageError
from engine.linearize import dual, split

if TYPE_CHECKING:
    from engine.encoders import Encoder

BLOCKS = ("resblocks", "blocks")  # what open_clip and timm call the list of a tower's blocks


def checkpointed(encoder: "Encoder") -> "Encoder":
    r"""Give an encoder that forgets the inside of its blocks between forward and backward.

    Of L blocks only the inputs are kept, and one block's inside at a time:

    .. math:: m = L \, m_{input} + m_{block} \quad \text{instead of} \quad L \, m_{block}

    for one more forward pass: 4/3 of a non-linear step's products, 6/5 of a linear one's, whose
    tangents are not computed again. The same function and the same gradients: each block runs
    again with the weights, precision and kernels it first ran with. Torch's own checkpoints would
    run it again after ``functional_call`` has taken the weights away, and know no tangents.

    Args:
        encoder: Left as it is.

    Returns:
        An encoder of the same digest, on the same device.

    Raises:
        UsageError: If the tower has no blocks that run one after the other.

    Source:
        Chen et al. (2016), arXiv:1604.06174, Sec. 4, with a segment a block.
    """
    tower = copy.deepcopy(encoder.tower)
    blocks = [
        block
        for name, module in tower.named_modules()
        if name.rsplit(".", 1)[-1] in BLOCKS and isinstance(module, nn.ModuleList | nn.Sequential)
        for block in module
    ]
    if not blocks:
        raise UsageError(
            f"{encoder.name} has no blocks that could be computed again; "
            "leave checkpointing out and set accumulate to save memory"
        )
    for block in blocks:
        block.forward = partial(_forgetful, _Inside(block))
    return replace(encoder, tower=tower)


class _Inside(nn.Module):
    """A block as it was before it became forgetful."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.run = block, block.forward

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the block."""
        return self.run(*args, **kwargs)


def _forgetful(inside: _Inside, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return a block's output, with its tangents if it has any, and keep its inputs alone."""
    theta = dict(inside.named_parameters())  # those that functional_call has put there

    def run(parameters: dict[str, Tensor], entry: Tensor) -> Tensor:
        return functional_call(inside, parameters, (entry, *args), kwargs)

    with torch.no_grad():
        out, tangents = split(run(theta, x))
    values = [split(value)[0] for value in (x, *theta.values())]
    # in a list: what is returned must not look like an argument handed through
    value = _Recomputed.apply(run, [out], tuple(theta), *values)
    return dual(value, tangents) if tangents else value


class _Recomputed(torch.autograd.Function):
    """An output that is known already; its inside is computed again for the backward pass."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, run: Callable, out: list[Tensor], names: Sequence[str], *inputs: Tensor
    ) -> Tensor:
        """Hand the output on; ``inputs`` are the block's entry and its parameters."""
        kind = out[0].device.type
        ctx.run, ctx.names = run, names
        # a backward pass runs in a thread of its own, which knows nothing of autocast
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.save_for_backward(*inputs)
        return out.pop()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, cotangent: Tensor) -> tuple:
        """Run the block again, recorded, and go back through it."""
        wanted = ctx.needs_input_grad[3:]
        leaves = [
            value.detach().requires_grad_(want)
            for value, want in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        kind, dtype, enabled = ctx.autocast
        with torch.enable_grad(), torch.autocast(kind, dtype, enabled=enabled):
            out = ctx.run(dict(zip(ctx.names, leaves[1:], strict=True)), leaves[0])
        found = iter(
            torch.autograd.grad(out, [leaf for leaf in leaves if leaf.requires_grad], cotangent)
        )
        return None, None, None, *(next(found) if want else None for want in wanted)
