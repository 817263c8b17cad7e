"""LiNeS: deep blocks of the sum count more than shallow ones."""

import re
from collections.abc import Mapping

from torch import Tensor

from engine.errors import UsageError

BLOCK = re.compile(r"(?:resblocks|stages\.\d+\.blocks|blocks)\.(\d+)\.")


def lines(taus: Mapping[str, Mapping[str, Tensor]], *, slope: float = 0.5) -> dict[str, Tensor]:
    r"""Scale the sum linearly in depth.

    .. math:: \lambda_l = a + b \, \frac{l}{L - 1}, \quad a = \frac{1}{T}, \qquad
              \tau^{(l)} = \lambda_l \sum_t \tau_t^{(l)}

    for block l of L, counted through the tower; what belongs to no block is scaled by a. The
    paper's :math:`a = \lVert \sum_t \tau_t \rVert_1 / (T \lVert \tau \rVert_1)` is 1 / T for the
    sum.

    Args:
        taus: Task vectors by task; not changed.
        slope: b.

    Returns:
        The direction, in the precision of the task vectors.

    Raises:
        UsageError: If the parameters' names show no blocks.

    Source:
        Wang et al. (2024), "LiNeS", arXiv:2410.17146, Eq. (4) and (5).
    """
    names = list(next(iter(taus.values())))
    found = {match[0] for name in names if (match := BLOCK.search(name))}
    # by their numbers: a file gives its names in any order
    blocks = sorted(found, key=lambda block: [int(number) for number in re.findall(r"\d+", block)])
    if not blocks:
        raise UsageError("LiNeS needs an encoder made of blocks; choose another merging method")
    a, last = 1 / len(taus), max(1, len(blocks) - 1)
    depth = {block: place / last for place, block in enumerate(blocks)}
    direction = {}
    for name in names:
        match = BLOCK.search(name)
        scale = a + slope * depth[match[0]] if match else a
        direction[name] = scale * sum(tau[name] for tau in taus.values())
    return direction
