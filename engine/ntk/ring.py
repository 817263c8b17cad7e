"""Appendix C's example, computed: on a ring the tangent kernel's eigenfunctions are waves."""

import math

import torch
from torch import Tensor


def ring(N: int) -> Tensor:
    r"""Place points evenly on the unit circle.

    .. math:: x_j = (\cos(2 \pi j / N), \sin(2 \pi j / N))

    Args:
        N: How many.

    Returns:
        Shape (N, 2), float64.
    """
    angle = 2 * math.pi * torch.arange(N, dtype=torch.float64) / N
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def fully_connected_kernel(x: Tensor, y: Tensor, layers: int = 3) -> Tensor:
    r"""Evaluate the tangent kernel of an infinitely wide fully-connected ReLU network.

    .. math:: \Sigma_0 = x \cdot y, \quad \Sigma_{l+1} = |x| |y| \, \kappa_1(\rho_l), \quad
        \Theta_{l+1} = \Theta_l \, \kappa_0(\rho_l) + \Sigma_{l+1}

    .. math:: \kappa_0(\rho) = \frac{\pi - \arccos \rho}{\pi}, \quad
        \kappa_1(\rho) = \frac{\sqrt{1 - \rho^2} + \rho (\pi - \arccos \rho)}{\pi}

    with Theta_0 = Sigma_0, weights of variance 2 / fan-in and no biases.

    Args:
        x: Shape (n, d), not zero.
        y: Shape (m, d), not zero.
        layers: Hidden layers.

    Returns:
        Shape (n, m).

    Source:
        Jacot et al. (2018), arXiv:1806.07572, Theorem 1; Cho and Saul (2009) for kappa; Bietti and
        Mairal (2019), arXiv:1905.12173, Sec. 3.1.
    """
    sizes = x.norm(dim=1)[:, None] * y.norm(dim=1)
    rho = ((x @ y.T) / sizes).clamp(-1, 1)
    kernel = rho
    for _ in range(layers):
        angle = rho.acos()
        kappa = (math.pi - angle) / math.pi
        rho = ((1 - rho.square()).clamp_min(0).sqrt() + rho * (math.pi - angle)) / math.pi
        rho = rho.clamp(-1, 1)
        kernel = kernel * kappa + rho
    return sizes * kernel


def empirical_kernel(x: Tensor, width: int, layers: int = 3, seed: int = 0) -> Tensor:
    r"""Evaluate the tangent kernel of one such network of finite width at initialisation.

    .. math:: f(x) = \sqrt{\tfrac{2}{w}} \, v^\top \phi\Big(\sqrt{\tfrac{2}{w}} \, W_L
        \phi(\dots \phi(W_1 x))\Big)

    Weights are standard normal; the kernel tends to ``fully_connected_kernel`` as the
    width w grows. Differentiates point by point: small widths.

    Args:
        x: Shape (N, d).
        width: Units in each hidden layer.
        layers: Hidden layers.
        seed: Of the weights.

    Returns:
        Shape (N, N).
    """
    source = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], *[width] * layers, 1]
    weights = [
        torch.randn(b, a, generator=source, dtype=torch.float64).to(x)
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]
    leaves = [weight.requires_grad_() for weight in weights]
    with torch.enable_grad():
        hidden = x @ leaves[0].T
        for fan_in, weight in zip(sizes[1:-1], leaves[1:], strict=True):
            hidden = hidden.relu() @ weight.T * (2 / fan_in) ** 0.5
        rows = []
        for value in hidden[:, 0]:
            found = torch.autograd.grad(value, leaves, retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in found]))
    jacobian = torch.stack(rows)  # (N, P)
    return jacobian @ jacobian.T


def fourier_atoms(N: int) -> Tensor:
    r"""Give the real Fourier basis of N points on a ring.

    .. math:: \phi_0 = \tfrac{1}{\sqrt N}, \quad
        \phi_{2k-1}(j) = \sqrt{\tfrac{2}{N}} \cos \tfrac{2 \pi k j}{N}, \quad
        \phi_{2k}(j) = \sqrt{\tfrac{2}{N}} \sin \tfrac{2 \pi k j}{N}

    Args:
        N: Points, even.

    Returns:
        Orthonormal columns, shape (N, N), in the order of their frequency.

    Raises:
        ValueError: If N is odd or below 2.
    """
    if N < 2 or N % 2:
        raise ValueError(f"got {N} points, expected an even number")
    j = torch.arange(N, dtype=torch.float64)
    columns = [torch.full((N,), N**-0.5, dtype=torch.float64)]
    for k in range(1, N // 2):
        phase = 2 * math.pi * k * j / N
        columns += [phase.cos() * (2 / N) ** 0.5, phase.sin() * (2 / N) ** 0.5]
    columns.append((-1.0) ** j / N**0.5)
    return torch.stack(columns, dim=1)


def ring_example(N: int = 64, layers: int = 3) -> dict[str, Tensor]:
    r"""Diagonalise the fully-connected tangent kernel on a ring, half task and half control.

    .. math:: K = F \Lambda F^\top, \qquad E_R(x_j) = \sum_{\rho \le R} \phi_\rho(x_j)^2

    The kernel depends on the angle between two points alone, so that K is circulant and Fourier
    atoms diagonalise it. Each pair of sine and cosine has energy 2 / N at every point: no
    eigenfunction is localized on the task, and by Proposition 3 such a network cannot do task
    arithmetic here.

    Args:
        N: Points on the ring, a multiple of 4; the first half is the task.
        layers: Hidden layers.

    Returns:
        "kernel", shape (N, N); "atoms", shape (N, N); "eigenvalues" of the atoms, shape (N,);
        "residual", the largest entry off the diagonal of F^T K F relative to the largest on it;
        "energy", shape (N // 2, N): row R - 1 is that of the first R atoms, in the order of their
        frequency.

    Raises:
        ValueError: If N is no multiple of 4.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, App. C, after Proposition 3.
    """
    if N % 4:
        raise ValueError(f"got {N} points, expected a multiple of 4")
    x = ring(N)
    kernel = fully_connected_kernel(x, x, layers)
    atoms = fourier_atoms(N)
    rotated = atoms.T @ kernel @ atoms
    values = rotated.diagonal()
    off = rotated - values.diag()
    return {
        "kernel": kernel,
        "atoms": atoms,
        "eigenvalues": values,
        "residual": off.abs().max() / values.abs().max(),
        "energy": atoms.square().cumsum(1).T[: N // 2],
    }
