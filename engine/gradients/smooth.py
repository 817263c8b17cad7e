"""Small networks in float64 on which every statement can be checked to rounding."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.finetune.adamw import Layout
from engine.gradients.objective import Objective

Parameters = Mapping[str, Tensor]


def tanh_network(theta: Parameters, x: Tensor) -> Tensor:
    """Give the logits of two smooth layers: inputs (N, D) to (N, C)."""
    hidden = torch.tanh(x @ theta["first.weight"].T + theta["first.bias"])
    return hidden @ theta["second.weight"].T + theta["second.bias"]


def relu_network(theta: Parameters, x: Tensor) -> Tensor:
    """Give the logits of bias-free ReLU layers: inputs (N, D) to (N, C)."""
    *hidden, last = theta.values()
    for weight in hidden:
        x = torch.relu(x @ weight.T)
    return x @ last.T


def linear_model(theta: Parameters, x: Tensor) -> Tensor:
    """Give the logits of a model linear in its parameters: inputs (N, D) to (N, C)."""
    return x @ theta["weight"].T


def tanh_objectives(
    tasks: int = 3, seed: int = 0, n: int = 24, D: int = 6, width: int = 8, C: int = 4
) -> list[Objective]:
    """Make tasks of their own inputs and labels over one smooth network.

    Args:
        tasks: How many.
        seed: Of weights, inputs and labels.
        n: Inputs a task.
        D: Size of an input.
        width: Hidden units.
        C: Classes.

    Returns:
        One objective a task, in float64, named "task 1", ...
    """
    source = torch.Generator().manual_seed(seed)
    theta0 = {
        "first.weight": _normal(source, width, D) / D**0.5,
        "first.bias": _normal(source, width) / 10,
        "second.weight": _normal(source, C, width) / width**0.5,
        "second.bias": _normal(source, C) / 10,
    }
    inputs = [_normal(source, n, D) + _normal(source, D) for _ in range(tasks)]
    return _objectives(tanh_network, theta0, inputs, C, source)


def relu_objective(
    seed: int = 0, n: int = 16, sizes: Sequence[int] = (5, 6, 6, 3)
) -> tuple[Objective, list[float], float]:
    """Make a task over a bias-free ReLU network, with what its curvature is bounded by.

    Args:
        seed: Of weights, inputs and labels.
        n: Inputs.
        sizes: Of input, hidden layers and logits.

    Returns:
        The objective, the spectral norms of the layers, and the largest norm of an input.
    """
    source = torch.Generator().manual_seed(seed)
    pairs = zip(sizes[1:], sizes[:-1], strict=True)
    theta0 = {
        f"layer{i}.weight": _normal(source, rows, columns) / columns**0.5
        for i, (rows, columns) in enumerate(pairs)
    }
    inputs = _normal(source, n, sizes[0])
    (objective,) = _objectives(relu_network, theta0, [inputs], sizes[-1], source)
    norms = [float(torch.linalg.matrix_norm(weight, 2)) for weight in theta0.values()]
    return objective, norms, float(inputs.norm(dim=1).max())


def disjoint_objectives(
    tasks: int = 3, seed: int = 0, n: int = 12, block: int = 4, C: int = 4
) -> list[Objective]:
    """Make tasks of a linear model whose inputs share no feature: a cross-task kernel of zero.

    Args:
        tasks: How many.
        seed: Of weights, inputs and labels.
        n: Inputs a task.
        block: Features of a task.
        C: Classes.

    Returns:
        One objective a task, in float64, mode "linear".
    """
    source = torch.Generator().manual_seed(seed)
    inputs = []
    for t in range(tasks):
        x = torch.zeros(n, tasks * block, dtype=torch.float64)
        x[:, t * block : (t + 1) * block] = _normal(source, n, block)
        inputs.append(x)
    theta0 = {"weight": _normal(source, C, tasks * block) / 2}
    return _objectives(linear_model, theta0, inputs, C, source, "linear")


def _normal(source: torch.Generator, *shape: int) -> Tensor:
    """Return standard normal numbers in float64."""
    return torch.randn(*shape, generator=source, dtype=torch.float64)


def _objectives(
    network, theta0: dict[str, Tensor], inputs, C: int, source, mode: str = "nonlinear"
) -> list[Objective]:
    """Return one objective for each set of inputs, with labels drawn at random."""
    layout = Layout(theta0)
    return [
        Objective(
            f"task {t + 1}",
            layout,
            network,
            lambda images: images,
            x,
            torch.randint(C, (len(x),), generator=source),
            F.cross_entropy,
            mode,
        )
        for t, x in enumerate(inputs)
    ]
