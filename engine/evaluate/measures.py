"""Accuracy, its interval, its normalized form, and who is taken for whom."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.checks import check_finite
from engine.errors import UsageError
from engine.responses import Responses, merged_scores, predictions

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split


def accuracy(guesses: Tensor, labels: Tensor) -> float:
    """Measure top-1 accuracy.

    Args:
        guesses: Class indices, shape (N,).
        labels: Class indices, shape (N,).

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: If the shapes differ, or N = 0.
    """
    if guesses.shape != labels.shape or not len(labels):
        raise ValueError(
            f"got guesses of shape {tuple(guesses.shape)} and labels of shape "
            f"{tuple(labels.shape)}, expected the same, and not empty"
        )
    return int((guesses.cpu() == labels.cpu()).sum()) / len(labels)


def wilson_interval(correct: int, n: int, z: float = 1.96) -> tuple[float, float]:
    r"""Bound an accuracy, given how often it was tried.

    .. math:: \frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    the accuracies p at which :math:`|\hat p - p| = z \sqrt{p (1 - p) / n}`.

    Args:
        correct: Successes, from 0 to ``n``.
        n: Trials, at least 1.
        z: Standard deviations; 1.96 for 95 %.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        ValueError: If the counts are not possible.

    Source:
        Wilson (1927), J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"got {correct} of {n}, expected from 0 to n with n at least 1")
    p, q = correct / n, z * z / n
    centre = p + q / 2
    spread = math.sqrt(q) * math.sqrt(p * (1 - p) + q / 4)
    return max(0.0, (centre - spread) / (1 + q)), min(1.0, (centre + spread) / (1 + q))


def normalized_accuracy(merged: Mapping[str, float], single: Mapping[str, float]) -> float:
    r"""Measure what a merged model keeps of its parts' accuracies.

    .. math:: \frac{1}{T} \sum_{t=1}^T
              \frac{acc_{x \sim \mu_t}[f(x; \theta_0 + \sum_{t'} \tau_{t'})]}
                   {acc_{x \sim \mu_t}[f(x; \theta_0 + \tau_t)]}

    Args:
        merged: Accuracy of the merged model by task.
        single: Accuracy of each task's own model, in the same mode on the same split.

    Returns:
        A fraction; above 1 where merging helps.

    Raises:
        UsageError: If a single-task accuracy is 0.
        ValueError: If the tasks differ, or there are none.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Appendix A, Eq. (7).
    """
    if merged.keys() != single.keys() or not merged:
        raise ValueError(f"got tasks {sorted(merged)} and {sorted(single)}, expected the same")
    zero = [task for task in merged if single[task] == 0]
    if zero:
        raise UsageError(
            f"the single-task accuracy of {zero[0]} is 0, so nothing can be normalized by it; "
            "use more images or another checkpoint"
        )
    return sum(merged[task] / single[task] for task in merged) / len(merged)


def confusion(guesses: Tensor, labels: Tensor, C: int) -> Tensor:
    """Count who is taken for whom.

    Args:
        guesses: Class indices, shape (N,).
        labels: Class indices, shape (N,).
        C: Classes.

    Returns:
        int64, shape (C, C): true classes are rows, predicted ones columns.
    """
    return torch.bincount(labels * C + guesses, minlength=C * C).reshape(C, C)


def nonlinear_scores(
    encoder: "Encoder", theta: Mapping[str, Tensor], images: Tensor, head: Tensor, batch: int = 250
) -> Tensor:
    r"""Class scores of a non-linear model, :math:`f(x; \theta) H^\top`.

    Logits up to a positive factor an image, as ``Responses.scores`` are.

    Args:
        encoder: On the device to compute on.
        theta: Parameters, for instance from ``combine``.
        images: uint8, shape (N, 3, H, W).
        head: Unit rows, shape (C, d).
        batch: Images a pass.

    Returns:
        Shape (N, C), float32, on the CPU; the products are taken in float64.

    Raises:
        NonFiniteError: If a score is NaN or infinite.
    """
    head = head.float().cpu().double()
    parts = []
    with torch.no_grad():
        for piece in images.split(batch):
            z = encoder.features(theta, encoder.preprocess(piece))
            parts.append((z.float().cpu().double() @ head.T).float())
    scores = torch.cat(parts) if parts else torch.zeros(0, len(head))
    check_finite(f"scores of {encoder.name}", {"f(x; theta) H^T": scores})
    return scores


def evaluate_nonlinear(
    encoder: "Encoder",
    theta: Mapping[str, Tensor],
    split: "Split",
    head: Tensor,
    batch: int = 250,
) -> float:
    """Measure the accuracy of a non-linear model on a split.

    Args:
        encoder: On the device to compute on.
        theta: Parameters.
        split: Images and labels.
        head: Unit rows, shape (C, d).
        batch: Images a pass.

    Returns:
        A fraction in [0, 1].
    """
    scores = nonlinear_scores(encoder, theta, split.images, head, batch)
    return accuracy(predictions(scores), split.labels)


def linearized_accuracy(reading: Responses, alphas: Mapping[str, float]) -> float:
    r"""Measure the accuracy of :math:`f_{lin}(x; \theta_0 + \sum_t \alpha_t \tau_t)`.

    Args:
        reading: Responses of a split.
        alphas: Coefficients by name; those not named are 0.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: If a name has no task vector in ``reading``.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3, Eq. (3).
    """
    unknown = sorted(alphas.keys() - set(reading.names))
    if unknown:
        raise ValueError(f"got alphas for {unknown}, expected among {list(reading.names)}")
    setting = [float(alphas.get(name, 0.0)) for name in reading.names]
    return accuracy(predictions(merged_scores(reading.scores(), setting)), reading.labels)
