"""Two other ways to the same kernel: contracted Jacobians, and products with the kernel's rows."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engine.encoders import Encoder, plain_attention
from engine.linearize import tangents
from engine.ntk.grams import Sums
from engine.ntk.layerwise import Readout


def jacobian_kernel(
    encoder: Encoder,
    theta: Mapping[str, Tensor],
    readout: Readout,
    points: Tensor,
    rows: slice,
    columns: slice,
    batch: int,
    chunk: int,
    progress: Callable[[float], None],
    block_of: Mapping[str, str] | None = None,
) -> Sums:
    r"""Contract the Jacobians of all points.

    .. math:: k(x_i, x_j) = \sum_p \partial_p f(x_i) \, \partial_p f(x_j)

    Holds N P values, and more while they are made: small encoders or few points.

    Args:
        encoder: Whose ``features`` are differentiated.
        theta: Parameters at which.
        readout: From features to the logit.
        points: N preprocessed images.
        rows: Which points are rows, n of them.
        columns: Which points are columns, m of them.
        batch: Images a pass.
        chunk: Entries of a parameter in one product.
        progress: Told of images that are done.
        block_of: The block of each parameter, to have each block's kernel too; None for none.

    Returns:
        The kernel and each parameter's part of its diagonal.

    Source:
        Novak et al. (2022), arXiv:2206.08720, "Jacobian contraction"; torch's tutorial "Neural
        Tangent Kernels".
    """

    def one(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return readout(encoder.features(parameters, x[None]))[0]

    each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))
    held: dict[str, Tensor] = {}
    with plain_attention():
        for start in range(0, len(points), batch):
            found = each(dict(theta), points[start : start + batch])
            for name, value in found.items():
                if name not in held:
                    held[name] = value.new_empty(len(points), theta[name].numel())
                held[name][start : start + batch] = value.reshape(len(value), -1)
            done = len(points[start : start + batch])
            del found
            progress(done)
    n, m = (len(range(*which.indices(len(points)))) for which in (rows, columns))
    zero = torch.zeros(n, m, dtype=torch.float64, device=wide_device(points))
    sums = Sums(zero, block_of=block_of or {})
    for name in list(held):
        for part in held.pop(name).split(chunk, dim=1):
            sums.add(name, part[rows] @ part[columns].T, part[rows].square().sum(1))
    return sums


def products_kernel(
    encoder: Encoder,
    theta: Mapping[str, Tensor],
    readout: Readout,
    points: Tensor,
    rows: slice,
    columns: slice,
    batch: int,
    chunk: int,
    progress: Callable[[float], None],
    block_of: Mapping[str, str] | None = None,
) -> Sums:
    r"""Push each row's gradient through the Jacobian of all columns.

    .. math:: k(x_i, x_j) = \left. \frac{d}{dh} f(x_j; \theta + h v_i) \right|_{h=0}, \qquad
        v_i = \nabla_\theta f(x_i; \theta)

    Holds two sets of parameters and one batch; costs n m forward passes and more.

    Args:
        encoder: Whose ``features`` are differentiated.
        theta: Parameters at which.
        readout: From features to the logit.
        points: N preprocessed images.
        rows: Which points are rows, n of them.
        columns: Which points are columns, m of them.
        batch: Images a pass.
        chunk: Unused: nothing is held by chunks.
        progress: Told of rows that are done, as images of all.
        block_of: The block of each parameter, to have each block's kernel too (one tangent for
            each block, in one pass); None for none.

    Returns:
        The kernel and each parameter's part of its diagonal.

    Source:
        Novak et al. (2022), arXiv:2206.08720, "NTK-vector products".
    """
    others = points[columns]
    n = len(points[rows])
    zero = torch.zeros(n, len(others), dtype=torch.float64, device=wide_device(points))
    sums = Sums(zero, block_of=block_of or {})
    for i, x in enumerate(points[rows]):
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        with torch.enable_grad():
            value = readout(encoder.features(leaves, x[None])).sum()
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        v = {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }
        del leaves, found, value
        labels = list(dict.fromkeys(sums.block_of.values())) or [""]
        moved = [v] if not sums.block_of else [_within(v, sums.block_of, b) for b in labels]
        parts = []
        for part in others.split(batch):
            z, along = tangents(encoder.features, theta, moved, part)
            parts.append(torch.stack([torch.func.jvp(readout, (z,), (jz,))[1] for jz in along]))
        rows_of = torch.cat(parts, dim=1).to(sums.values)  # (blocks, m)
        sums.values[i] = rows_of.sum(0)
        for label, row in zip(labels if sums.block_of else (), rows_of, strict=False):
            sums.block(label)[i] = row
        for name, gradient in v.items():
            diagonal = sums.layers.setdefault(name, sums.values.new_zeros(n))
            diagonal[i] = gradient.square().sum()
        progress(len(points) / n)
    return sums


def _within(v: Mapping[str, Tensor], block_of: Mapping[str, str], block: str) -> dict[str, Tensor]:
    """Return a direction in one block's parameters alone."""
    return {
        name: value if block_of[name] == block else torch.zeros_like(value)
        for name, value in v.items()
    }


def wide_device(points: Tensor) -> torch.device:
    """Return where float64 sums are kept: MPS has none."""
    return torch.device("cpu") if points.device.type == "mps" else points.device
