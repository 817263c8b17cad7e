"""The linearized readings of Eq. (6): algebra on class scores, no model pass."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.checks import check_finite
from engine.disentanglement.distances import (
    between,
    bootstrap_counts,
    check_distance,
    percentile_interval,
)
from engine.disentanglement.intervals import CELLS, kept_shares
from engine.disentanglement.maps import Diagonal, PairMatrix, XiMap, bounds_of, named_bounds
from engine.disentanglement.passes import check_pair
from engine.errors import UsageError
from engine.responses import Responses, merged_scores, predictions


def feature_products(reading: Responses) -> Tensor:
    r"""Give the products of the features that norms of merged features follow from.

    .. math:: G_n = Z_n Z_n^\top, \quad Z_n = (z_0, J\tau_1, \dots, J\tau_T), \qquad
              \lVert f_{lin}(x_n) \rVert^2 = a^\top G_n a, \quad a = (1, \alpha_1, \dots)

    Class scores are logits up to a positive factor an image; with this norm they are the logits.

    Args:
        reading: Responses as computed, with features. Remembered ones hold scores in the place
            of features and do not serve.

    Returns:
        Shape (N, 1 + T, 1 + T), float32; the products are taken in float64.
    """
    z = torch.cat([reading.z0[None], reading.jz]).double()  # (1 + T, N, d)
    return torch.einsum("snd,tnd->nst", z, z).float()


def linearized_map(
    scores: Mapping[str, Tensor],
    tasks: Sequence[str],
    alphas: Tensor,
    *,
    encoder: str = "",
    encoder_digest: str = "",
    mode: str = "",
    distance: str = "error",
    norms: Mapping[str, Tensor] | None = None,
    logit_scale: float | None = None,
    taus: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
) -> XiMap:
    r"""Measure the disentanglement error of two linearized task vectors over a grid.

    .. math:: \xi(\alpha_1, \alpha_2) = \sum_{t=1}^2 E_{x \sim \mu_t} \left[ dist\left(
              f_{lin}(x; \theta_0 + \alpha_t \tau_t),
              f_{lin}(x; \theta_0 + \alpha_1 \tau_1 + \alpha_2 \tau_2) \right) \right]

    Args:
        scores: Class scores of each task's images by its name, shape (3, N, C), float32: planes
            of theta_0 and of the tangents of both vectors, in the order of ``tasks``.
        tasks: The pair.
        alphas: Of both axes, shape (G,), ascending.
        encoder: Name, for the record.
        encoder_digest: For the record.
        mode: "posthoc" or "linear", for the record.
        distance: "error"; or "tv" or "kl", which cost G^2 N C operations.
        norms: For "tv" and "kl": ``feature_products`` of each task, shape (N, 3, 3).
        logit_scale: For "tv" and "kl": the encoder's.
        taus: Digests of the task vectors, for the record.
        splits: Digests of the images, for the record.

    Returns:
        The map; with "error" to the bit what ``merged_scores`` and ``predictions`` give.

    Raises:
        UsageError: If there are not two different tasks, a task has no images, the scores are
            not of two vectors, or norms are lacking.
        NonFiniteError: If a score is NaN or infinite.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 4, Eq. (6), with Eq. (3).
    """
    check_distance(distance)
    check_pair(tuple(tasks))
    tasks = (tasks[0], tasks[1])
    alphas = torch.as_tensor(alphas, dtype=torch.float64)
    planes = {name: checked_scores(name, scores[name], 3) for name in tasks}
    n = {name: planes[name].shape[1] for name in tasks}
    if distance == "error":
        terms = torch.stack([
            kept_shares(planes[tasks[0]], alphas, own=1, other=2),
            kept_shares(planes[tasks[1]], alphas, own=2, other=1).T,
        ])
        bounds = bounds_of(tasks, terms, n)
    else:
        terms, bounds = _by_logits(tasks, planes, alphas, distance, norms, logit_scale)
    return XiMap(
        encoder=encoder,
        encoder_digest=encoder_digest,
        mode=mode,
        tasks=tasks,
        alphas=alphas,
        xi_task=dict(zip(tasks, terms, strict=True)),
        **bounds,
        n=n,
        distance=distance,
        exact=True,
        taus=dict(taus or {}),
        splits=dict(splits or {}),
    )


def linearized_matrix(
    scores: Mapping[str, Tensor], names: Sequence[str], alpha: float
) -> PairMatrix:
    """Measure the prediction error of every pair of linearized task vectors at one alpha.

    Args:
        scores: By task name, shape (1 + T, N, C), planes of the tangents in the order of names.
        names: T tasks.
        alpha: Of both vectors of each pair.

    Returns:
        The matrix.

    Raises:
        UsageError: As of ``linearized_map``.
    """
    T = len(names)
    planes = {name: checked_scores(name, scores[name], 1 + T) for name in names}
    terms = torch.full((T, T), math.nan, dtype=torch.float64)
    for a, name in enumerate(names):
        alone = predictions(merged_scores(planes[name][[0, 1 + a]], [alpha]))
        for b in range(T):
            if a != b:
                pair = [0, *sorted((1 + a, 1 + b))]
                both = predictions(merged_scores(planes[name][pair], [alpha, alpha]))
                terms[a, b] = (alone != both).double().mean()
    n = {name: planes[name].shape[1] for name in names}
    return PairMatrix(tuple(names), float(alpha), terms, n)


def linearized_diagonal(
    scores: Mapping[str, Tensor], names: Sequence[str], alphas: Tensor
) -> Diagonal:
    """Measure the prediction error of all linearized task vectors at once, along alpha.

    Args:
        scores: By task name, shape (1 + T, N, C), planes of the tangents in the order of names.
        names: T tasks.
        alphas: Of every vector, shape (G,).

    Returns:
        The diagonal.

    Raises:
        UsageError: As of ``linearized_map``.
    """
    T = len(names)
    alphas = torch.as_tensor(alphas, dtype=torch.float64)
    terms, n = {}, {}
    for place, name in enumerate(names):
        planes = checked_scores(name, scores[name], 1 + T)
        n[name] = planes.shape[1]
        terms[name] = torch.stack([
            (
                predictions(merged_scores(planes[[0, 1 + place]], [alpha]))
                != predictions(merged_scores(planes, [alpha] * T))
            )
            .double()
            .mean()
            for alpha in alphas.tolist()
        ])
    return Diagonal(tuple(names), alphas, terms, n)


def checked_scores(name: str, scores: Tensor, planes: int) -> Tensor:
    """Return class scores as a float32 tensor, once they can be used.

    Args:
        name: Of the task, for the message.
        scores: Array or tensor, expected shape (planes, N, C).
        planes: One more than the vectors.

    Returns:
        The scores.

    Raises:
        UsageError: If they are of other vectors or another shape, or there are no images.
        NonFiniteError: If one is NaN or infinite.
    """
    scores = torch.as_tensor(scores, dtype=torch.float32)
    if scores.ndim != 3 or len(scores) != planes or not scores.shape[2]:
        raise UsageError(
            f"the class scores of {name} have shape {tuple(scores.shape)}, expected "
            f"({planes}, images, classes); compute them again for these task vectors"
        )
    if not scores.shape[1]:
        raise UsageError(f"there are no images of {name}; give its test split some")
    check_finite(f"class scores of {name}", {"scores": scores})
    return scores


def _by_logits(
    tasks: tuple[str, str],
    planes: Mapping[str, Tensor],
    alphas: Tensor,
    distance: str,
    norms: Mapping[str, Tensor] | None,
    logit_scale: float | None,
) -> tuple[Tensor, dict]:
    """Return both terms and the interval fields of a map of distance "tv" or "kl"."""
    if norms is None or logit_scale is None:
        raise UsageError(
            f"distance {distance} needs true logits; give feature products and the logit scale, "
            "or take the distance error"
        )
    terms, samples = [], []
    for place, name in enumerate(tasks):
        scores, products = planes[name], torch.as_tensor(norms[name], dtype=torch.float32)
        if products.shape != (scores.shape[1], 3, 3):
            raise UsageError(
                f"the feature products of {name} have shape {tuple(products.shape)}, expected "
                f"({scores.shape[1]}, 3, 3); compute them again on the same images"
            )
        # by name, so that swapping the tasks leaves each its samples
        weights = bootstrap_counts(scores.shape[1], sorted(tasks).index(name))
        term, drawn = _logit_term(
            scores, products, alphas, 1 + place, distance, logit_scale, weights
        )
        terms.append(term)
        samples.append(drawn)
    ends = [percentile_interval(sample) for sample in (*samples, samples[0] + samples[1])]
    low, high = (torch.stack(side) for side in zip(*ends, strict=True))
    return torch.stack(terms), named_bounds(tasks, low, high)


def _logit_term(
    scores: Tensor,
    products: Tensor,
    alphas: Tensor,
    own: int,
    distance: str,
    logit_scale: float,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return one term, shape (G, G), and its bootstrap samples, shape (BOOTSTRAP, G, G)."""
    G, N, C = len(alphas), scores.shape[1], scores.shape[2]
    other = 3 - own
    term = torch.zeros(G, G, dtype=torch.float64)
    samples = torch.zeros(len(weights), G, G, dtype=torch.float64)
    rows = max(1, CELLS // (N * C))
    for i in range(G):
        setting = torch.zeros(G, 2, dtype=torch.float64)
        setting[:, own - 1] = alphas[i]
        alone = _logits(scores, products, setting[:1], logit_scale)
        setting[:, other - 1] = alphas
        for j, part in zip(range(0, G, rows), setting.split(rows), strict=True):
            merged = _logits(scores, products, part, logit_scale)
            apart = between(distance, alone, merged)  # (rows, N)
            there = (i, slice(j, j + len(part))) if own == 1 else (slice(j, j + len(part)), i)
            term[there] = apart.mean(dim=1)
            samples[:, *there] = weights @ apart.T / N
    return term, samples


def _logits(scores: Tensor, products: Tensor, setting: Tensor, scale: float) -> Tensor:
    """Return true logits at settings (A, 2), shape (A, N, C), float32.

    Image by image, class by class: equal settings give equal bits, however many stand beside.
    """
    first, second = setting.float()[:, :, None, None].unbind(1)
    merged = scores[0] + first * scores[1] + second * scores[2]
    a, b = setting[:, :, None].unbind(1)  # float64: a small norm may be what large terms leave
    g = products.double()
    squares = g[:, 0, 0] + a * (2 * g[:, 0, 1] + a * g[:, 1, 1])
    squares = squares + b * (2 * g[:, 0, 2] + 2 * a * g[:, 1, 2] + b * g[:, 2, 2])
    norm = squares.clamp(min=1e-12).sqrt().float()
    return scale * merged / norm[..., None]
