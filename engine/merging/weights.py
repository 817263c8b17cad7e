"""A merged model as tensors for a file, under open_clip's names."""

from typing import TYPE_CHECKING

from torch import Tensor

from engine.task_vectors import combine

if TYPE_CHECKING:
    from engine.encoders import Encoder


def merged_tensors(
    encoder: "Encoder", mode: str, taus: dict[str, dict[str, Tensor]], alphas: dict[str, float]
) -> dict[str, Tensor]:
    r"""Make the tensors of a file that holds a merged model.

    .. math:: \theta_0 + \sum_t \alpha_t \tau_t

    A linearized reading is no single set of weights: f_lin needs theta_0 and tau apart. Its file
    holds the sum of the task vectors alone.

    Args:
        encoder: Whose theta_0 the task vectors belong to.
        mode: The reading.
        taus: Task vectors by task.
        alphas: Final coefficients; those of tasks without a task vector here are 0.

    Returns:
        ``visual.*``: the merged theta; for a linearized reading ``tau.visual.*``: the sum.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (1) and (3).
    """
    used = {name: alphas[name] for name in taus}
    if mode == "nonlinear":
        theta = combine(encoder.theta0, taus, used)
        return {f"visual.{name}": tensor.contiguous() for name, tensor in theta.items()}
    zero = {name: tensor.new_zeros(tensor.shape) for name, tensor in encoder.theta0.items()}
    tau = combine(zero, taus, used)
    return {f"tau.visual.{name}": tensor.contiguous() for name, tensor in tau.items()}
