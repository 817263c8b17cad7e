"""Templates drawn once and sampled many times through a random affine map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .elementary import Array


@dataclass(frozen=True)
class Bank:
    """K templates of L layers over the square [-extent, extent): a lookup table.

    Attributes:
        values: Per layer the templates one after the other, float32, L arrays (K * size * size,).
        size: Grid points a side, a power of two where ``wraps``.
        extent: Half the side of the square.
        wraps: Whether the template repeats for ever or ends in its border value.
    """

    values: tuple[Array, ...]
    size: int
    extent: float
    wraps: bool = False

    def sample(self, which: Array, u: Array, v: Array) -> list[Array]:
        """Look templates up at points, bilinearly.

        Args:
            which: Template of each image, int64, shape (N,).
            u: Horizontal coordinate, float32, shape (N, P).
            v: Vertical coordinate, float32, shape (N, P).

        Returns:
            One float32 array a layer, each of shape (N, P).
        """
        left, right, across = self._axis(u)
        upper, lower, down = self._axis(v)
        rows = (which * (self.size * self.size)).astype(np.int32)[:, None]
        upper = upper * np.int32(self.size) + rows
        lower = lower * np.int32(self.size) + rows
        corners = (upper + left, upper + right, lower + left, lower + right)
        corners = tuple(corner.astype(np.intp) for corner in corners)
        return [_bilinear(layer, corners, across, down) for layer in self.values]

    def _axis(self, coordinate: Array) -> tuple[Array, Array, Array]:
        """Return grid neighbours before and after a coordinate, and the fraction between them."""
        at = (coordinate + self.extent) * (self.size / (2.0 * self.extent)) - 0.5
        if self.wraps:
            floor = np.floor(at)
            before = floor.astype(np.int32) & np.int32(self.size - 1)
            return before, (before + np.int32(1)) & np.int32(self.size - 1), at - floor
        at = np.minimum(np.maximum(at, 0.0), np.float32(self.size - 1.001))
        before = at.astype(np.int32)
        return before, before + np.int32(1), at - before.astype(np.float32)


def _bilinear(layer: Array, corners: tuple[Array, ...], across: Array, down: Array) -> Array:
    """Return a mixture of the four corner values of one layer."""
    a, b, c, d = (layer.take(corner) for corner in corners)
    b -= a
    b *= across
    b += a
    d -= c
    d *= across
    d += c
    d -= b
    d *= down
    d += b
    return d


def stack(templates: Sequence[Sequence[Array]], extent: float, wraps: bool = False) -> Bank:
    """Return a bank of templates given as lists of layers, each of shape (size, size)."""
    size = templates[0][0].shape[0]
    layers = zip(*templates, strict=True)
    values = tuple(np.concatenate([np.float32(one).ravel() for one in layer]) for layer in layers)
    return Bank(values, size, extent, wraps)
