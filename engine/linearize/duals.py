"""Dual tensors: a value with its derivatives along several directions, carried op by op.

``torch.func.jvp`` under ``vmap`` gives the same numbers, but runs every product on copies, cannot
use the fused attention kernels, and cannot leave the tangents out of the graph that a backward
pass needs. Here each operation computes its value once, recorded by autograd where asked, and the
tangents beside it, never recorded.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

_CHANGES_ITS_ARGUMENT = re.compile(r"\w*[a-z0-9]_|__i(add|sub|mul|truediv|pow)__|__setitem__")

Rule = Callable[[Callable, tuple, dict, int], Any]


class Dual(Tensor):
    r"""A tensor v with tangents :math:`\dot v_1, \dots, \dot v_K`, each of its shape.

    Any torch function applied to duals gives duals, by the chain rule: from a rule of this module
    where there is one, else from ``torch.func.jvp``.
    """

    primal: Tensor  # the value as autograd follows it; the dual itself is a label without a graph
    tangents: tuple[Tensor, ...]

    def __hash__(self) -> int:
        """Return the identity: tensors are told apart by it, as in torch."""
        return id(self)

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Carry one torch function over to duals.

        Args:
            func: The function or method called.
            types: Types of the tensors among its arguments.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            What it returns, with a dual in the place of each floating tensor.

        Raises:
            ValueError: If the function would change a dual in place.
        """
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if _CHANGES_ITS_ARGUMENT.fullmatch(name) or kwargs.get("inplace"):
            raise ValueError(f"expected functions without side effects on duals, got {name}")
        with torch._C.DisableTorchFunctionSubclass():
            return RULES.get(func, _generic)(func, args, kwargs, _count(args, kwargs))


def dual(value: Tensor, tangents: Sequence[Tensor]) -> Dual:
    """Attach tangents to a tensor.

    Args:
        value: The value; stays connected to autograd's graph.
        tangents: K tensors of its shape.

    Returns:
        The pair.
    """
    paired = value.detach().as_subclass(Dual)
    paired.primal, paired.tangents = value, tuple(tangents)
    return paired


def split(value: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Part a dual.

    Args:
        value: A dual, or a plain tensor.

    Returns:
        Its value and its tangents; a plain tensor has none.
    """
    with torch._C.DisableTorchFunctionSubclass():
        return _value(value), value.tangents if isinstance(value, Dual) else ()


def _count(args: tuple, kwargs: dict) -> int:
    """Return the number of directions."""
    for leaf in args:  # nearly always the first: flattening everything takes longer than the rest
        if isinstance(leaf, Dual):
            return len(leaf.tangents)
    leaves = tree_flatten((args, kwargs))[0]
    return next(len(leaf.tangents) for leaf in leaves if isinstance(leaf, Dual))


def _value(leaf: Any) -> Any:
    """Return an argument without its tangents; anything but a dual as it is."""
    return leaf.primal if isinstance(leaf, Dual) else leaf


def _tangent(leaf: Any, k: int) -> Tensor | None:
    """Return one tangent, None where the argument is constant."""
    return leaf.tangents[k] if isinstance(leaf, Dual) else None


def _along(leaf: Any, k: int) -> Any:
    """Return a dual's k-th tangent; anything else as it is."""
    return leaf.tangents[k] if isinstance(leaf, Dual) else leaf


def _paired(out: Any, tangents: Sequence[Any]) -> Any:
    """Return an output, or each of a tuple of outputs, with its tangents."""
    if isinstance(out, Tensor):
        return dual(out, tangents)
    return type(out)(dual(o, column) for o, *column in zip(out, *tangents, strict=True))


def _generic(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    """Return any function of duals by torch's forward mode, one direction at a time."""
    leaves, spec = tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Dual)]
    values = [_value(leaf) for leaf in leaves]
    plain_args, plain_kwargs = tree_unflatten(values, spec)
    out = func(*plain_args, **plain_kwargs)
    if not any(isinstance(o, Tensor) and o.is_floating_point() for o in tree_flatten(out)[0]):
        return out

    def called(*moving: Tensor) -> Any:
        filled = list(values)
        for place, leaf in zip(places, moving, strict=True):
            filled[place] = leaf
        inner_args, inner_kwargs = tree_unflatten(filled, spec)
        return func(*inner_args, **inner_kwargs)

    primals = tuple(values[i].detach() for i in places)
    with torch.no_grad():
        columns = [
            tree_flatten(
                torch.func.jvp(called, primals, tuple(leaves[i].tangents[k] for i in places))[1]
            )[0]
            for k in range(count)
        ]
    outs, out_spec = tree_flatten(out)
    paired = [
        dual(o, [c[i] for c in columns]) if isinstance(o, Tensor) and o.is_floating_point() else o
        for i, o in enumerate(outs)
    ]
    return tree_unflatten(paired, out_spec)


def _about(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    """Return what is asked about a tensor and no number of it, such as its shape."""
    return func(_value(args[0]), *args[1:], **kwargs)


def _structural(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    """Return a function that is linear in all its duals together: views, cat, mean."""
    if isinstance(args[0], Dual) and all(map(_is_plain, args[1:])):
        x, *rest = args
        out = func(_value(x), *rest, **kwargs)
        with torch.no_grad():
            tangents = [func(tangent, *rest, **kwargs) for tangent in x.tangents]
        return _paired(out, tangents)
    flat = tree_flatten(args)[0]
    if any(isinstance(leaf, Tensor) and not isinstance(leaf, Dual) for leaf in flat):
        return _generic(func, args, kwargs, count)
    out = func(*tree_map(_value, args), **kwargs)
    with torch.no_grad():
        tangents = [
            func(*tree_map(lambda a, k=k: _along(a, k), args), **kwargs) for k in range(count)
        ]
    return _paired(out, tangents)


def _is_plain(argument: Any) -> bool:
    """Return whether an argument certainly holds no tensor."""
    if isinstance(argument, list | tuple):
        return all(map(_is_plain, argument))
    return not isinstance(argument, Tensor | dict)


def _sum(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    """Return a + b or a - b, where one may be constant."""
    if len(args) != 2 or kwargs:
        return _generic(func, args, kwargs, count)
    a, b = args
    out = func(_value(a), _value(b))
    with torch.no_grad():
        if isinstance(a, Dual) and isinstance(b, Dual):
            tangents = [func(*pair) for pair in zip(a.tangents, b.tangents, strict=True)]
        elif isinstance(a, Dual):
            tangents = [t.expand(out.shape) for t in a.tangents]
        else:
            tangents = [func(torch.zeros_like(t), t).expand(out.shape) for t in b.tangents]
    return dual(out, tangents)


def _product(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    r"""Return a product: :math:`\dot a b + a \dot b`, elementwise or of matrices."""
    a, b = args
    out = func(_value(a), _value(b))
    tangents = []
    with torch.no_grad():
        for k in range(count):
            da, db = _tangent(a, k), _tangent(b, k)
            terms = [func(da, _value(b))] if da is not None else []
            terms += [func(_value(a), db)] if db is not None else []
            tangents.append(terms[0] if len(terms) == 1 else terms[0] + terms[1])
    return dual(out, tangents)


def _linear(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    r"""Return ``F.linear``: :math:`\dot x W^\top + x \dot W^\top + \dot b`."""
    if kwargs or not any(isinstance(arg, Dual) for arg in args[:2]):
        return _generic(func, args, kwargs, count)
    x, weight, bias = (*args, None)[:3]
    out = func(*(_value(arg) for arg in args))
    rows, matrix = _value(x).detach().flatten(0, -2), _value(weight).detach()
    tangents = []
    with torch.no_grad():
        for k in range(count):
            dx, dw, db = _tangent(x, k), _tangent(weight, k), _tangent(bias, k)
            total = F.linear(rows, dw, db) if dw is not None else None
            if total is None:
                total = F.linear(dx.flatten(0, -2), matrix, db)
            elif dx is not None and total.dtype == dx.dtype == matrix.dtype:
                total.addmm_(dx.flatten(0, -2), matrix.T)  # no further pass over the sum
            elif dx is not None:  # under autocast, which casts all three
                total = torch.addmm(total, dx.flatten(0, -2), matrix.T)
            tangents.append(total.view(out.shape))
    return dual(out, tangents)


def _convolution(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    """Return ``F.conv2d``, linear in the input and in weight and bias together."""
    if kwargs or len(args) < 3 or not any(isinstance(arg, Dual) for arg in args[:2]):
        return _generic(func, args, kwargs, count)
    x, weight, bias, *rest = args
    out = func(*(_value(arg) for arg in args))
    tangents = []
    with torch.no_grad():
        for k in range(count):
            dx, dw, db = _tangent(x, k), _tangent(weight, k), _tangent(bias, k)
            terms = [func(_value(x), dw, db, *rest)] if dw is not None else []
            terms += [func(dx, _value(weight), None, *rest)] if dx is not None else []
            tangents.append(terms[0] if len(terms) == 1 else terms[0].add_(terms[1]))
    return dual(out, tangents)


def _pointwise(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    """Return a function of each value alone: its slope is found once for all directions."""
    backward = _BACKWARD.get(getattr(func, "__name__", ""))
    if backward is not None and len(args) == 1:
        return _by_kernel(func, backward, args[0], kwargs)
    if count == 1:
        return _symmetric(func, args, kwargs, count)
    out, recorded, leaf = _recorded(func, _value(args[0]), args[1:], kwargs)
    (slope,) = _backward(recorded, leaf, [torch.ones_like(out)])
    with torch.no_grad():
        tangents = [slope * t for t in args[0].tangents]
    return dual(out, tangents)


def _by_kernel(func: Callable, backward: Callable, x: Dual, kwargs: dict) -> Dual:
    """Return a function of each value alone by the kernel autograd would call."""
    value = _value(x)
    out = func(value, **kwargs)
    with torch.no_grad():

        def along(vector: Tensor) -> Tensor:
            return backward(vector.to(out.dtype), value.detach(), out.detach(), **kwargs)

        if len(x.tangents) == 1:
            return dual(out, [along(x.tangents[0])])
        slope = along(torch.ones_like(out))
        return dual(out, [slope * tangent for tangent in x.tangents])


def _symmetric(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    """Return a function whose Jacobian is symmetric: its fused backward kernel is its tangent."""
    out, recorded, leaf = _recorded(func, _value(args[0]), args[1:], kwargs)
    return dual(out, _backward(recorded, leaf, args[0].tangents))


def _recorded(
    func: Callable, value: Tensor, rest: tuple, kwargs: dict
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a function called once: what to hand on, the output with its graph, and its leaf."""
    if value.requires_grad and torch.is_grad_enabled():
        out = func(value, *rest, **kwargs)
        return out, out, value
    with torch.enable_grad():
        leaf = value.detach().requires_grad_()
        out = func(leaf, *rest, **kwargs)
    return out.detach(), out, leaf


def _backward(out: Tensor, leaf: Tensor, vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return vectors times a recorded Jacobian, transposed."""
    return [
        torch.autograd.grad(out, leaf, vector.to(out.dtype), retain_graph=True)[0]
        for vector in vectors
    ]


def _layer_norm(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    r"""Return ``F.layer_norm``: the Jacobian of :math:`\hat x` in x is symmetric.

    .. math:: \dot y = \dot{\hat x} \odot w + \hat x \odot \dot w + \dot b
    """
    x, shape, weight, bias, eps = _norm_arguments(*args, **kwargs)
    if not isinstance(x, Dual) or weight is None:
        return _generic(func, args, kwargs, count)
    out = func(_value(x), shape, _value(weight), _value(bias), eps)
    tangents = []
    with torch.no_grad():
        wide = _value(x).detach().to(out.dtype)  # autocast computes norms in float32
        normal, *moments = torch.native_layer_norm(wide, shape, None, None, eps)
        for k, dx in enumerate(x.tangents):
            dw, db = _tangent(weight, k), _tangent(bias, k)
            tangent = torch.ops.aten.native_layer_norm_backward(
                dx.to(out.dtype), wide, shape, *moments, None, None, [True, False, False]
            )[0]
            tangent.mul_(_value(weight).detach())
            if dw is not None:
                tangent.addcmul_(normal, dw)
            if db is not None:
                tangent.add_(db)
            tangents.append(tangent)
    return dual(out, tangents)


def _norm_arguments(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple:
    """Return the arguments of ``F.layer_norm``, which come in either way, in order."""
    return input, normalized_shape, weight, bias, eps


def _attention(func: Callable, args: tuple, kwargs: dict, count: int) -> Any:
    r"""Return ``F.scaled_dot_product_attention``; its value may come from a fused kernel.

    .. math::
        \dot O = \dot P V + P \dot V, \quad \dot P = P \odot (\dot S - \mathrm{rowsum}(P \odot
        \dot S)), \quad \dot S = (\dot Q K^\top + Q \dot K^\top) / \sqrt{d_h}

    Raises:
        ValueError: If there is a mask, dropout or scale, or an argument is constant.
    """
    if len(args) != 3 or not all(isinstance(arg, Dual) for arg in args) or any(kwargs.values()):
        raise ValueError("expected attention of duals without mask, dropout or scale")
    shape = args[0].shape  # (..., Q, d); keys and values (..., T, d)
    q, k_, v = (_value(arg).detach().reshape(-1, *arg.shape[-2:]) for arg in args)
    q = q * shape[-1] ** -0.5
    tangents = []
    with torch.no_grad():
        p = torch.bmm(q, k_.mT).softmax(dim=-1)
        for k in range(count):
            dq, dk, dv = (arg.tangents[k].reshape(-1, *arg.shape[-2:]) for arg in args)
            ds = torch.baddbmm(torch.bmm(dq, k_.mT), q, dk.mT, beta=shape[-1] ** -0.5)
            # the kernel of soft-max's backward pass: its Jacobian is symmetric
            dp = torch.ops.aten._softmax_backward_data(ds.to(p.dtype), p, -1, p.dtype)
            tangents.append(torch.baddbmm(torch.bmm(dp, v), p, dv).view(shape))
    return dual(func(*(_value(arg) for arg in args)), tangents)


_STRUCTURAL = (
    "reshape view flatten permute transpose contiguous expand squeeze unsqueeze chunk unbind split "
    "movedim swapaxes __getitem__ mean sum cumsum adaptive_avg_pool2d neg clone to type_as float "
    "double half bfloat16"
).split()
_POINTWISE = "sigmoid tanh exp relu silu gelu erf".split()
_BACKWARD: dict[str, Callable] = {  # of (cotangent, input, output)
    "sigmoid": lambda g, x, y: torch.ops.aten.sigmoid_backward(g, y),
    "gelu": lambda g, x, y, approximate="none": torch.ops.aten.gelu_backward(
        g, x, approximate=approximate
    ),
}
_METADATA = "shape dtype device ndim is_cuda is_cpu is_mps is_meta requires_grad layout".split()

RULES: dict[Callable, Rule] = {
    **{
        getattr(place, name): rule
        for names, rule in ((_STRUCTURAL, _structural), (_POINTWISE, _pointwise))
        for name in names
        for place in (Tensor, torch, F)
        if hasattr(place, name)
    },
    **{getattr(Tensor, name).__get__: _about for name in _METADATA},
    **{getattr(Tensor, name): _about for name in "size dim numel is_floating_point".split()},
    torch.cat: _structural,
    Tensor.T.__get__: _structural,
    Tensor.mT.__get__: _structural,
    F.dropout: _structural,
    torch.add: _sum,
    Tensor.add: _sum,
    Tensor.__add__: _sum,
    torch.sub: _sum,
    Tensor.sub: _sum,
    Tensor.__sub__: _sum,
    torch.mul: _product,
    Tensor.mul: _product,
    Tensor.__mul__: _product,
    Tensor.__rmul__: _product,
    torch.matmul: _product,
    Tensor.matmul: _product,
    Tensor.__matmul__: _product,
    torch.bmm: _product,
    F.linear: _linear,
    F.conv2d: _convolution,
    torch.conv2d: _convolution,
    F.softmax: _symmetric,
    torch.softmax: _symmetric,
    Tensor.softmax: _symmetric,
    F.layer_norm: _layer_norm,
    F.scaled_dot_product_attention: _attention,
}
