"""Parameters that note where they are used, and the per-image gradient each use gives.

A parameter is replaced by a tensor that watches torch's functions. What is done to parameters
alone (a slice, a cast, an expansion) is remembered; a function that joins them with activations is
a *use*. From the output gradient of a use follows each image's gradient in its parameters: by a
rule of this module for the large layers, else by differentiating that one function, so that any
function is covered and none is skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from engine.errors import UsageError

_MATMULS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm)
_CONVOLUTIONS = (torch.conv2d, F.conv2d)
_EXPANSIONS = {"expand", "expand_as", "repeat", "tile", "broadcast_to"}


@dataclass
class Use:
    """One function that joins activations with parameters."""

    func: Callable
    leaves: list  # plain tensors, watched ones and other values
    spec: Any
    out: Tensor
    place: int  # how many segments had begun


@dataclass
class Book:
    """What a run of the trunk notes down: its uses in their order."""

    uses: list[Use] = field(default_factory=list)
    active: bool = True
    place: int = 0


@dataclass(frozen=True, eq=False)
class Piece:
    r"""Each image's gradient in a part of one parameter.

    Either as two factors, :math:`M_i = \sum_t a_{it} b_{it}^\top`, or as it is.

    Attributes:
        name: Of the parameter.
        rows: The part of its first dimension: start and stop; None for the whole of it.
        left: Factor, shape (N, T, rows); or the gradient itself, shape (N, rows, ...).
        right: Factor, shape (N, T, other entries of a row); None without factors.
    """

    name: str
    rows: tuple[int, int] | None
    left: Tensor
    right: Tensor | None = None


class Watched(Tensor):
    """A parameter, or what was made from parameters alone."""

    book: Book
    sources: tuple[str, ...]
    derive: Callable[[Mapping[str, Tensor]], Tensor]
    rows: tuple[int, int] | None  # of the one source's first dimension, where nothing else was done
    batched: bool  # its first dimension counts images

    def __hash__(self) -> int:
        """Return the identity: tensors are told apart by it, as in torch."""
        return id(self)

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one torch function; note a use, or follow what is made from parameters.

        Args:
            func: The function or method called.
            types: Types of the tensors among its arguments.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            What it returns.

        Raises:
            UsageError: If it changes a tensor in place or returns several.
        """
        with torch._C.DisableTorchFunctionSubclass():
            leaves, spec = tree_flatten((args, kwargs or {}))
            watched = [leaf for leaf in leaves if isinstance(leaf, Watched)]
            plain_args, plain_kwargs = tree_unflatten([_plain(leaf) for leaf in leaves], spec)
            out = func(*plain_args, **plain_kwargs)
            book = watched[0].book
            if not isinstance(out, Tensor | tuple | list) or not book.active:
                return out
            acts = [leaf for leaf in leaves if _is_activation(leaf)]
            if isinstance(out, tuple | list):
                if not any(isinstance(part, Tensor) for part in out):
                    return out  # a shape
                if acts:
                    raise UsageError(_uncovered(func, watched))
                return type(out)(
                    _derived(func, leaves, spec, watched, part, place)
                    for place, part in enumerate(out)
                )
            if not acts:
                return _derived(func, leaves, spec, watched, out)
            name = getattr(func, "__name__", "")
            if (name.endswith("_") and not name.endswith("__")) or name.startswith("__i"):
                raise UsageError(_uncovered(func, watched))
            book.uses.append(Use(func, leaves, spec, out, book.place))
            return out


def watch(theta: Mapping[str, Tensor], book: Book) -> dict[str, Watched]:
    """Make parameters that note in a book where they are used.

    Args:
        theta: Parameters by name.
        book: Filled by any run of the trunk on them.

    Returns:
        Parameters by the same names, without gradient of their own.
    """
    watched = {}
    for name, value in theta.items():
        tensor = value.detach().as_subclass(Watched)
        tensor.book, tensor.sources, tensor.batched = book, (name,), False
        tensor.rows = (0, len(value)) if value.ndim else None
        tensor.derive = lambda p, name=name: p[name]
        watched[name] = tensor
    return watched


def pieces(use: Use, gradient: Tensor, theta: Mapping[str, Tensor]) -> list[Piece]:
    """Give each image's gradient in the parameters of one use.

    Args:
        use: From a run on N images, batch first.
        gradient: Of the output that is summed over images, in the use's own output.
        theta: Parameters by name.

    Returns:
        One piece for each parameter and each way it enters; pieces add up.
    """
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        found: list[Piece] = []
        args, kwargs = tree_unflatten(range(len(use.leaves)), use.spec)
        for place, leaf in enumerate(use.leaves):
            if isinstance(leaf, Watched):
                rule = _rule(use, args, kwargs, place)
                found += rule(gradient) if rule else _general(use, place, gradient, theta)
        return found


def _rule(use: Use, args: tuple, kwargs: dict, place: int) -> Callable | None:
    """Return the rule of a large layer: from output gradient to pieces."""
    leaf, leaves = use.leaves[place], use.leaves
    if leaf.rows is None or leaf.batched or kwargs.get("out") is not None:
        return None
    bound = dict(enumerate(args)) | kwargs

    def given(*keys: Any) -> Any:
        return next((leaves[bound[key]] for key in keys if isinstance(bound.get(key), int)), None)

    name, rows = leaf.sources[0], leaf.rows
    x = given(0, "input")
    if isinstance(x, Watched) or not _is_activation(x):
        return None
    if use.func is F.linear:
        if leaf is given(1, "weight") and leaf.ndim == 2:
            return lambda g: [Piece(name, rows, _tokens(g), _tokens(x.detach()))]
        return lambda g: [Piece(name, rows, _tokens(g).sum(1))]
    if use.func in _MATMULS and leaf is given(1, "other", "mat2") and leaf.ndim == 2:
        return lambda g: [Piece(name, rows, _tokens(x.detach()), _tokens(g))]
    if use.func is F.layer_norm and leaf.ndim == 1:
        if leaf is given(2, "weight"):
            eps = given(4, "eps") or 1e-5
            return lambda g: [
                Piece(name, rows, _tokens(g * F.layer_norm(x.detach(), leaf.shape, eps=eps)).sum(1))
            ]
        return lambda g: [Piece(name, rows, _tokens(g).sum(1))]
    if use.func in _CONVOLUTIONS and x.ndim == 4:
        if leaf.ndim == 1:
            return lambda g: [Piece(name, rows, g.flatten(2).sum(2))]
        plain, named = tree_unflatten(leaves, use.spec)
        options = dict(
            zip(("bias", "stride", "padding", "dilation", "groups"), plain[2:], strict=False)
        )
        options |= named
        if not isinstance(options.get("padding", 0), str):
            return lambda g: [_convolution(leaf, x.detach(), g, options)]
    return None


def _convolution(weight: Watched, x: Tensor, g: Tensor, options: Mapping) -> Piece:
    """Return the piece of a convolution's weight, shape (out, in / groups, k, k)."""
    groups = options.get("groups", 1)
    unfolded = F.unfold(
        x,
        tuple(weight.shape[2:]),
        dilation=options.get("dilation", 1),
        padding=options.get("padding", 0),
        stride=options.get("stride", 1),
    )  # (N, in k k, T)
    if groups == 1:
        left, right = g.flatten(2).transpose(1, 2), unfolded.transpose(1, 2)
        return Piece(weight.sources[0], weight.rows, left, right)
    N, T = len(g), unfolded.shape[-1]
    left = g.reshape(N, groups, -1, T)
    right = unfolded.reshape(N, groups, -1, T)
    gradient = (left @ right.transpose(-2, -1)).reshape(N, *weight.shape)
    return Piece(weight.sources[0], weight.rows, gradient)


def _general(use: Use, place: int, g: Tensor, theta: Mapping[str, Tensor]) -> list[Piece]:
    """Return the pieces of any function, differentiated by itself, image by image."""
    target = use.leaves[place]
    moving = [i for i, leaf in enumerate(use.leaves) if i != place and _counts_images(leaf)]
    values = [_plain(use.leaves[i]).detach() for i in moving]

    def pulled(sources: dict[str, Tensor], gradient: Tensor, *rows: Tensor) -> Tensor:
        derived = target.derive(sources)
        leaves = [_plain(leaf) for leaf in use.leaves]
        leaves[place] = derived[:1] if target.batched else derived
        for i, row in zip(moving, rows, strict=True):
            leaves[i] = row[None]
        args, kwargs = tree_unflatten(leaves, use.spec)
        return (use.func(*args, **kwargs) * gradient[None]).sum()

    sources = {name: theta[name].detach() for name in target.sources}
    each = torch.func.vmap(
        torch.func.grad(pulled), in_dims=(None, 0, *[0] * len(moving)), randomness="error"
    )
    return [Piece(name, None, value) for name, value in each(sources, g, *values).items()]


def _derived(
    func: Callable, leaves: list, spec: Any, watched: list, out: Any, place: int | None = None
) -> Any:
    """Return what was made from parameters alone, with the way it was made."""
    if not isinstance(out, Tensor):
        return out

    def derive(parameters: Mapping[str, Tensor]) -> Tensor:
        values = [leaf.derive(parameters) if isinstance(leaf, Watched) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(values, spec)
        made = func(*args, **kwargs)
        return made if place is None else made[place]

    tensor = out.detach().as_subclass(Watched)
    tensor.book = watched[0].book
    tensor.sources = tuple(dict.fromkeys(name for leaf in watched for name in leaf.sources))
    tensor.derive = derive
    tensor.rows = _sliced(func, leaves, watched, out) if place is None else None
    expanded = getattr(func, "__name__", "") in _EXPANSIONS
    tensor.batched = any(leaf.batched for leaf in watched) or (
        expanded and out.ndim > 0 and (out.ndim > watched[0].ndim or len(out) != len(watched[0]))
    )
    return tensor


def _sliced(func: Callable, leaves: list, watched: list, out: Tensor) -> tuple[int, int] | None:
    """Return which rows of its one parameter a tensor is; None if it is anything else."""
    (first, *more) = watched
    if more or first.rows is None:
        return None
    if func in (Tensor.to, Tensor.contiguous, Tensor.float, Tensor.detach):
        return first.rows if out.shape == first.shape else None
    if func is not Tensor.__getitem__:
        return None
    index = [leaf for leaf in leaves if leaf is not first]
    if len(index) == 1 and isinstance(index[0], slice):
        start, stop, step = index[0].indices(len(first))
        return (first.rows[0] + start, first.rows[0] + max(start, stop)) if step == 1 else None
    return None


def _tokens(value: Tensor) -> Tensor:
    """Return (N, ..., d) as (N, T, d)."""
    return value.reshape(len(value), -1, value.shape[-1])


def _plain(leaf: Any) -> Any:
    """Return an argument without its watch."""
    return leaf.as_subclass(Tensor) if isinstance(leaf, Watched) else leaf


def _is_activation(leaf: Any) -> bool:
    """Return whether an argument depends on the images: they alone require gradients."""
    return isinstance(leaf, Tensor) and not isinstance(leaf, Watched) and leaf.requires_grad


def _counts_images(leaf: Any) -> bool:
    """Return whether an argument's first dimension counts images."""
    return leaf.batched if isinstance(leaf, Watched) else _is_activation(leaf)


def _uncovered(func: Callable, watched: list[Watched]) -> str:
    """Say which function's per-image gradient is not known here."""
    names = ", ".join(dict.fromkeys(name for leaf in watched for name in leaf.sources))
    return (
        f"the kernel layer by layer does not cover {getattr(func, '__name__', func)} of {names}; "
        "take --algorithm jacobian"
    )
