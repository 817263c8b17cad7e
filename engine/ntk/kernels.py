"""The finite-width tangent kernel of an encoder with its head: one call, three algorithms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.checks import check_finite, check_same_parameters
from engine.encoders import Encoder
from engine.errors import UsageError
from engine.ntk.grams import Sums
from engine.ntk.layerwise import layerwise_kernel
from engine.ntk.plans import Plan, parts_held, plan
from engine.ntk.saving import Saved
from engine.ntk.twins import jacobian_kernel, products_kernel
from engine.task_vectors import parts_of

READOUTS = ("cosine", "score")
_RUN = {"layerwise": layerwise_kernel, "jacobian": jacobian_kernel, "products": products_kernel}


@dataclass(frozen=True, eq=False)
class Kernel:
    r"""Tangent kernels, one for each logit.

    .. math:: k_c(x_i, x_j) = \nabla_\theta f_c(x_i; \theta)^\top \nabla_\theta f_c(x_j; \theta)

    Attributes:
        values: Shape (L, n, m), float64, on the CPU.
        logits: Which, L entries: class indices, or "trace", the sum over all classes.
        layers: Each parameter's part of k(x_i, x_i) of the rows, shape (L, n), float64.
        blocks: Each block's kernel, shape (L, n, m), float64, on the CPU, from input to output;
            they add up to ``values``. Empty where they were not asked for.
        readout: What a logit is: "cosine" or "score".
        plan: How it was computed.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 4 and App. A ("one kernel matrix per
        output logit").
    """

    values: Tensor
    logits: tuple[int | str, ...]
    layers: dict[str, Tensor]
    readout: str
    plan: Plan
    blocks: dict[str, Tensor] = field(default_factory=dict)


def make_readout(head: Tensor, logit: int, readout: str) -> Callable[[Tensor], Tensor]:
    r"""Make one logit as a function of features.

    .. math:: \text{cosine: } w_c \cdot z / \lVert z \rVert, \qquad \text{score: } w_c \cdot z

    The encoder's ``logit_scale`` is left out: it multiplies the kernel and moves no eigenfunction.

    Args:
        head: Unit rows, shape (C, d).
        logit: Class c.
        readout: "cosine" or "score".

    Returns:
        From (N, d) to (N,).
    """
    w = head[logit]
    return lambda z: (F.normalize(z, dim=-1) if readout == "cosine" else z) @ w


def kernel(
    encoder: Encoder,
    theta: Mapping[str, Tensor],
    head: Tensor,
    rows_x: Tensor,
    columns_x: Tensor,
    logits: str | Sequence[int] = "all",
    readout: str = "cosine",
    algorithm: str = "auto",
    batch: int | None = None,
    memory: int | None = None,
    progress: Callable[[float, float], None] | None = None,
    saved: Saved | None = None,
    blocks: bool = False,
) -> Kernel:
    r"""Compute the tangent kernel between two sets of points, for each logit asked for.

    .. math:: K_c = J_c(X_\text{rows}) \, J_c(X_\text{columns})^\top

    Products run in the precision of the points, sums over layers and chunks in float64.

    Args:
        encoder: On the device to compute on.
        theta: Parameters at which, such as ``encoder.theta0``.
        head: Unit rows, shape (C, d).
        rows_x: Preprocessed images, n of them.
        columns_x: Preprocessed images, m of them; where they begin with the rows, those are not
            computed twice.
        logits: Classes, "all", or "trace" for the sum over all classes.
        readout: "cosine": w_c . z / |z|; "score": w_c . z, in which a linearly fine-tuned
            encoder is linear.
        algorithm: "layerwise", "jacobian", "products", or "auto", by ``plan``.
        batch: Images a pass, at most.
        memory: Bytes that may be used beyond the encoder; None for half of what is free.
        progress: Called with points done and points in all, logits and blocks counted.
        saved: Where each logit's kernel is looked for, and saved when it is done.
        blocks: Whether to keep each block's kernel too (``parts_of``): so many times L n m
            numbers of 8 bytes more.

    Returns:
        The kernels.

    Raises:
        UsageError: If a logit, the readout or the algorithm is unknown, there is no point, the
            memory does not suffice, or the algorithm does not cover a parameter.
        NonFiniteError: If the kernel holds NaN or infinity.
        ParameterMismatchError: If ``theta`` does not fit the encoder.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1; Jacot et al. (2018),
        arXiv:1806.07572.
    """
    check_same_parameters("theta", theta, encoder.theta0)
    chosen = _logits(logits, len(head))
    if readout not in READOUTS:
        raise UsageError(f"no readout is called {readout!r}; choose cosine or score")
    n, m = len(rows_x), len(columns_x)
    shared = m >= n and torch.equal(rows_x, columns_x[:n])
    parts = parts_of(list(theta)) if blocks else {}
    block_of = {name: label for label, names in parts.items() for name in names}
    # where all logits are summed one logit's blocks are held beside the sums
    held = parts_held(encoder, 2 if logits == "trace" else len(chosen)) * blocks
    made = plan(encoder, n, m, len(chosen), algorithm, batch, memory, shared, held)
    theta = {name: value.detach() for name, value in theta.items()}
    points, report = _counted(progress, made, shared)
    saved = None if saved is None else saved.under(made)
    found = []
    for c in chosen:
        sums = None if saved is None else saved.read(c, (n, m), blocks)
        if sums is None:
            f = make_readout(head, c, readout)
            sums = _one(encoder, theta, f, rows_x, columns_x, shared, made, report, block_of)
            check_finite(f"the tangent kernel of logit {c}", {"K": sums.values})
            if made.algorithm == "layerwise":
                check_covered(encoder, theta, f, rows_x[:1], sums)
            if saved is not None:
                saved.write(c, sums)
        else:
            report(points)
        if logits == "trace" and found:
            for label, part in sums.blocks.items():
                found[0].block(label).add_(part.to(found[0].values.device))
            sums.blocks = {}
        found.append(sums)
    values = torch.stack([sums.values.cpu() for sums in found])
    zero = torch.zeros(n, dtype=torch.float64)
    layers = {
        name: torch.stack([sums.layers.get(name, zero).cpu() for sums in found]) for name in theta
    }
    if logits == "trace":
        values = values.sum(0, keepdim=True)
        layers = {name: part.sum(0, keepdim=True) for name, part in layers.items()}
    each = [sums.blocks for sums in found if sums.blocks]
    stacked = {
        label: torch.stack([of[label].cpu() if label in of else 0 * values[0] for of in each])
        for label in parts
    }
    names = ("trace",) if logits == "trace" else chosen
    return Kernel(values, names, layers, readout, made, stacked)


def check_covered(
    encoder: Encoder,
    theta: Mapping[str, Tensor],
    readout: Callable[[Tensor], Tensor],
    x: Tensor,
    sums: Sums,
) -> None:
    r"""Compare each parameter's part of k(x_0, x_0) with its gradient by autograd.

    .. math:: k_l(x_0, x_0) = \lVert \nabla_{\theta_l} f(x_0) \rVert^2

    Args:
        encoder: As in ``kernel``.
        theta: As in ``kernel``.
        readout: The logit.
        x: The first row, shape (1, 3, H, W).
        sums: The kernel layer by layer.

    Raises:
        UsageError: If a parameter's part is missing or differs beyond rounding.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    with torch.enable_grad():
        value = readout(encoder.features(leaves, x)).sum()
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    true = {
        name: 0.0 if gradient is None else float(gradient.square().sum().double())
        for name, gradient in zip(leaves, found, strict=True)
    }
    loose = 20 * torch.finfo(x.dtype).eps ** 0.5
    scale = sum(true.values()) / max(len(true), 1)
    wrong = [
        name
        for name, expected in true.items()
        if abs(_first(sums, name) - expected) > loose * (expected + 1e-3 * scale)
    ]
    if wrong:
        raise UsageError(
            f"the kernel layer by layer does not cover {len(wrong)} parameters "
            f"({', '.join(wrong[:3])}); take --algorithm jacobian"
        )


def _first(sums: Sums, name: str) -> float:
    """Return a parameter's part at the first row; 0 where it has none."""
    return float(sums.layers[name][0]) if name in sums.layers else 0.0


def _one(
    encoder: Encoder,
    theta: Mapping[str, Tensor],
    readout: Callable[[Tensor], Tensor],
    rows_x: Tensor,
    columns_x: Tensor,
    shared: bool,
    made: Plan,
    report: Callable[[float], None],
    block_of: Mapping[str, str],
) -> Sums:
    """Compute one logit's kernel, in blocks of points where the plan says so."""
    run, options = _RUN[made.algorithm], (made.batch, made.chunk, report, block_of)
    n, m = len(rows_x), len(columns_x)
    if made.block >= m:
        points = columns_x if shared else torch.cat([rows_x, columns_x])
        columns = slice(0, m) if shared else slice(n, n + m)
        return run(encoder, theta, readout, points, slice(0, n), columns, *options)
    strips = []
    for rows in rows_x.split(made.block):
        parts = []
        for columns in columns_x.split(made.block):
            points = torch.cat([rows, columns])
            where = slice(0, len(rows)), slice(len(rows), len(points))
            parts.append(run(encoder, theta, readout, points, *where, *options))
        strip = Sums(torch.cat([part.values for part in parts], 1), parts[0].layers)
        strips.append(replace(strip, blocks=_joined([part.blocks for part in parts], 1)))
    layers = {
        name: torch.cat([strip.layers[name] for strip in strips]) for name in strips[0].layers
    }
    blocks = _joined([strip.blocks for strip in strips], 0)
    return Sums(torch.cat([strip.values for strip in strips]), layers, blocks=blocks)


def _joined(found: Sequence[Mapping[str, Tensor]], dim: int) -> dict[str, Tensor]:
    """Join the kernels of each block of parameters, computed for some of the points each."""
    return {label: torch.cat([of[label] for of in found], dim) for label in found[0]}


def _counted(
    progress: Callable[[float, float], None] | None, made: Plan, shared: bool
) -> tuple[float, Callable[[float], None]]:
    """Return the points of a logit, and what adds up those done and tells them with their total."""
    points = made.columns if shared else made.rows + made.columns
    if made.block < made.columns:
        blocks = -(-made.rows // made.block), -(-made.columns // made.block)
        points = blocks[0] * made.columns + blocks[1] * made.rows
    total, done = float(points * made.logits), 0.0

    def report(more: float) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(min(done, total), total)

    return float(points), report


def _logits(logits: str | Sequence[int], C: int) -> tuple[int, ...]:
    """Return the classes whose kernels are computed.

    Raises:
        UsageError: If one is not there, or none is named.
    """
    if logits in ("all", "trace"):
        return tuple(range(C))
    chosen = () if isinstance(logits, str) else tuple(logits)
    if not chosen or any(not 0 <= c < C for c in chosen) or len(set(chosen)) < len(chosen):
        raise UsageError(
            f"got logits {logits!r}, expected all, trace, or different numbers from 0 to {C - 1}"
        )
    return chosen
