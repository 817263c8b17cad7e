"""Named colours, and grounds that a figure is sure to stand out from."""

import numpy as np

from .draws import Draws
from .elementary import Array, column, ramp

NAMES = (
    "red", "orange", "yellow", "green", "cyan", "blue",
    "purple", "pink", "brown", "black", "grey", "white",
)  # fmt: skip
COLOURS = np.array(
    [
        (0.85, 0.12, 0.12), (0.95, 0.55, 0.10), (0.97, 0.88, 0.15), (0.13, 0.60, 0.20),
        (0.20, 0.80, 0.85), (0.12, 0.25, 0.80), (0.50, 0.15, 0.65), (0.97, 0.60, 0.75),
        (0.42, 0.25, 0.10), (0.06, 0.06, 0.06), (0.50, 0.50, 0.50), (0.95, 0.95, 0.95),
    ],
    dtype=np.float32,
)  # fmt: skip
CONTRAST = 0.26  # least difference of luminance between a figure and its ground


def luminance(colour: Array) -> Array:
    """Return Rec. 601 luma of red, green, blue in the last axis, shape (..., 3) -> (...)."""
    return 0.299 * colour[..., 0] + 0.587 * colour[..., 1] + 0.114 * colour[..., 2]


def _companions() -> tuple[Array, Array]:
    """Return for each colour, its companions, padded to 12, and their number."""
    light = luminance(COLOURS)
    apart = np.abs(light[:, None] - light[None, :]) >= CONTRAST
    table = np.argsort(~apart, axis=1, kind="stable")
    return table, apart.sum(axis=1)


COMPANIONS, COMPANION_COUNT = _companions()


def pick(draws: Draws, name: str) -> tuple[Array, Array]:
    """Draw a named colour with a little jitter.

    Args:
        draws: Random numbers of N images.
        name: The stream's name.

    Returns:
        Places in `NAMES`, int64 (N,), and colours, float32 (N, 3).
    """
    which = draws.integer(name, len(NAMES))
    return which, jitter(draws, name, COLOURS[which])


def jitter(draws: Draws, name: str, colours: Array, spread: float = 0.05) -> Array:
    """Return colours moved a little, each channel by at most ``spread``."""
    moves = [draws.bell(f"{name}/{channel}", 0.0, spread) for channel in "rgb"]
    return ramp(colours + np.stack(moves, axis=1))


def companion(draws: Draws, name: str, figure: Array, colours: Array) -> tuple[Array, Array]:
    """Draw a ground that the figure stands out from, by at least `CONTRAST`.

    Args:
        draws: Random numbers of N images.
        name: The stream's name.
        figure: The figure's place in `NAMES`, int64 (N,).
        colours: The figure's colour with its jitter, float32 (N, 3).

    Returns:
        Places in `NAMES`, int64 (N,), and colours, float32 (N, 3).
    """
    which = COMPANIONS[figure, draws.integer(name, COMPANION_COUNT[figure])]
    above = luminance(COLOURS[which]) > luminance(COLOURS[figure])
    return which, keep_apart(jitter(draws, name, COLOURS[which]), colours, above)


def keep_apart(ground: Array, figure: Array, above: Array, gap: float = CONTRAST) -> Array:
    """Lighten or darken a ground until it differs from the figure by ``gap`` in luminance.

    Args:
        ground: Colours, float32 (N, 3).
        figure: Colours, float32 (N, 3), that leave room for the gap on the side asked for.
        above: Whether the ground is to be the lighter one, bool (N,).
        gap: The least difference.

    Returns:
        Colours, float32 (N, 3); unchanged where they differ enough.
    """
    have, edge = luminance(ground), luminance(figure)
    to_white = ramp((edge + gap - have) / np.maximum(1.0 - have, 1e-3))
    to_black = ramp((have - edge + gap) / np.maximum(have, 1e-3))
    lighter = ground + column(to_white) * (1.0 - ground)
    darker = ground * (1.0 - column(to_black))
    return np.where(column(above), lighter, darker)
