"""Task vectors: combinations with the pre-trained weights, norms and cosines."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.checks import check_finite, check_same_parameters
from engine.errors import UsageError

Parameters = Mapping[str, Tensor]


def combine(
    theta0: Parameters, taus: Mapping[str, Parameters], alphas: Mapping[str, float]
) -> dict[str, Tensor]:
    r"""Add scaled task vectors to the pre-trained weights.

    .. math:: \theta = \theta_0 + \sum_t \alpha_t \tau_t

    Args:
        theta0: Pre-trained parameters; not changed.
        taus: Task vectors by task name; float16 ones are scaled in the precision of ``theta0``.
        alphas: A coefficient for each of them; negative ones negate.

    Returns:
        Merged parameters, in the dtype and on the device of ``theta0``. Without task vectors,
        a copy of ``theta0``.

    Raises:
        ParameterMismatchError: If a task vector has other names or shapes.
        NonFiniteError: If the result holds NaN or infinity.
        ValueError: If the tasks of ``taus`` and ``alphas`` differ.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 2, Eq. (1).
    """
    if taus.keys() != alphas.keys():
        raise ValueError(f"got alphas for {sorted(alphas)}, expected for {sorted(taus)}")
    theta = {name: value.detach().clone() for name, value in theta0.items()}
    for task, tau in taus.items():
        check_same_parameters(f"task vector of {task}", tau, theta0)
        for name, value in theta.items():
            value.add_(tau[name].detach().to(value), alpha=alphas[task])
    check_finite("merged weights", theta)
    return theta


def dot(a: Parameters, b: Parameters) -> float:
    r"""Inner product of two task vectors, :math:`\sum_p a_p b_p`, summed in float64.

    Args:
        a: A task vector.
        b: Another, with the same names and shapes.

    Returns:
        A scalar.

    Raises:
        ParameterMismatchError: If names or shapes differ.
    """
    check_same_parameters("the second task vector", b, a)
    return sum(float(_flat(value) @ _flat(b[name])) for name, value in a.items())


def norm(tau: Parameters) -> float:
    r"""Euclidean norm, :math:`\lVert \tau \rVert_2`, summed in float64.

    Args:
        tau: A task vector.

    Returns:
        A scalar, in the unit of the parameters.
    """
    return dot(tau, tau) ** 0.5


def norms_by_layer(tau: Parameters) -> dict[str, float]:
    r"""Euclidean norm of each layer's part; their squares sum to that of the whole.

    A layer is what the names share up to their last numbered part
    ("transformer.resblocks.3"), or up to their first part ("conv1") where none is numbered.

    Args:
        tau: A task vector.

    Returns:
        Norm by layer, in the order of the parameters.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in tau.items():
        layers.setdefault(layer_of(name), {})[name] = value
    return {layer: norm(part) for layer, part in layers.items()}


def layer_of(name: str) -> str:
    """Name the layer of a parameter.

    Args:
        name: As in ``theta0``.

    Returns:
        "transformer.resblocks.3" for "transformer.resblocks.3.attn.in_proj_weight"; "conv1" for
        "conv1.weight".
    """
    numbered = re.match(r"(.*\.\d+)\.", name)
    return numbered.group(1) if numbered else name.split(".", 1)[0]


def parts_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Sort parameters by the part of the network they belong to, from input to output.

    A name with a number belongs to that block ("transformer.resblocks.2.ln_1" to "resblocks 2");
    the others come before the blocks as "input" or behind them as "output".

    Args:
        names: As in ``theta0``, in any order.

    Returns:
        Names by part; every name is in one.
    """
    blocks: dict[str, list[str]] = {}
    loose: list[str] = []
    for name in names:
        found = re.search(r"(\w+)\.(\d+)\.", name)
        if found:
            blocks.setdefault(f"{found[1]} {found[2]}", []).append(name)
        else:
            loose.append(name)
    # files keep parameters in an order of their own: stages by name, blocks by number
    order = sorted(blocks, key=lambda label: (label.split()[0], int(label.split()[1])))
    output = [name for name in loose if re.search(r"post|^proj|head|norm_pre|final", name)]
    entry = [name for name in loose if name not in output]
    ends = {"input": entry, **{label: blocks[label] for label in order}, "output": output}
    return {label: members for label, members in ends.items() if members}


def cosine(a: Parameters, b: Parameters) -> float:
    r"""Cosine of the angle between two task vectors, summed in float64.

    .. math:: \frac{\langle a, b \rangle}{\lVert a \rVert \, \lVert b \rVert}

    Args:
        a: A task vector.
        b: Another, with the same names and shapes.

    Returns:
        A number in [-1, 1], up to rounding.

    Raises:
        UsageError: If one of them is zero.
    """
    return float(cosine_matrix({"first": a, "second": b})[0, 1])


def cosine_matrix(taus: Mapping[str, Parameters]) -> Tensor:
    """Cosine between every two task vectors, summed in float64.

    Args:
        taus: Task vectors by task name, all with the same names and shapes.

    Returns:
        Symmetric, shape (T, T), float64, in the order of ``taus``; 1 on the diagonal up to
        rounding.

    Raises:
        UsageError: If a task vector is zero: it has no direction.
        ParameterMismatchError: If names or shapes differ.
        NonFiniteError: If a task vector holds NaN or infinity.
    """
    gram = _gram(list(taus.values()), list(taus))
    lengths = gram.diagonal().sqrt()
    for task, length in zip(taus, lengths.tolist(), strict=True):
        if length == 0:
            raise UsageError(f"the task vector of {task} is zero and has no cosine; leave it out")
    return gram / (lengths[:, None] * lengths[None, :])


def _gram(taus: Sequence[Parameters], names: Sequence[str]) -> Tensor:
    """Return the inner products, shape (T, T), parameter by parameter in float64 on the CPU."""
    T = len(taus)
    gram = torch.zeros(T, T, dtype=torch.float64)
    for task, tau in zip(names, taus, strict=True):
        check_same_parameters(f"task vector of {task}", tau, taus[0])
        check_finite(f"task vector of {task}", tau)
    for name in taus[0] if taus else ():
        rows = torch.stack([_flat(tau[name]) for tau in taus])  # (T, p)
        gram += rows @ rows.T
    return (gram + gram.T) / 2


def _flat(value: Tensor) -> Tensor:
    """Return the values in float64 on the CPU, shape (p,)."""
    return value.detach().cpu().double().reshape(-1)
