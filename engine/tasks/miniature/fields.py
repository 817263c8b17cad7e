"""Exact signed distance fields on a square grid: negative inside, in the units of the plane.

The plane has x to the right and y down, as a picture has.

Source:
    Quilez, "2D distance functions", https://iquilezles.org/articles/distfunctions2d/ (boxes,
    polygons, segments); the ellipse is its first-order approximation k0 (k0 - 1) / k1.
"""

from collections.abc import Sequence

import numpy as np

from .elementary import Array, cos_turns, sin_turns

Point = tuple[float, float]
NOTHING = np.float32(9.0)  # a distance so far outside that it paints nothing


def curve(points: Sequence[Point], closed: bool = False, pieces: int = 6) -> list[Point]:
    """Pass a Catmull-Rom spline through points and return it as a polyline.

    Args:
        points: At least two points.
        closed: Whether the last point runs back to the first.
        pieces: Straight pieces between two points.

    Returns:
        The polyline's points, the first and the last point included.
    """
    count = len(points)
    spans = count if closed else count - 1

    def at(i: int) -> Point:
        return points[i % count] if closed else points[min(max(i, 0), count - 1)]

    line = []
    for i in range(spans):
        p0, p1, p2, p3 = at(i - 1), at(i), at(i + 1), at(i + 2)
        for step in range(pieces):
            t = step / pieces
            line.append(
                tuple(_spline(a, b, c, d, t) for a, b, c, d in zip(p0, p1, p2, p3, strict=True))
            )
    return [*line, at(spans)]


def _spline(a: float, b: float, c: float, d: float, t: float) -> float:
    """Return one coordinate of a Catmull-Rom span from b (t = 0) to c (t = 1)."""
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def arc(
    cx: float, cy: float, radius: float, start: float, end: float, pieces: int = 16
) -> list[Point]:
    """Return a circular arc as a polyline; angles in turns, clockwise from the right."""
    steps = (start + (end - start) * i / pieces for i in range(pieces + 1))
    return [(cx + radius * float(cos_turns(t)), cy + radius * float(sin_turns(t))) for t in steps]


def regular(cx: float, cy: float, radius: float, corners: int, turn: float = 0.0) -> list[Point]:
    """Return the corners of a regular polygon; the first one points up when ``turn`` is 0."""
    turns = (turn - 0.25 + i / corners for i in range(corners))
    return [(cx + radius * float(cos_turns(t)), cy + radius * float(sin_turns(t))) for t in turns]


def union(*fields: Array) -> Array:
    """Return the union of shapes: the pointwise minimum."""
    return np.minimum.reduce(fields)


def minus(field: Array, *holes: Array) -> Array:
    """Return a shape with holes cut out."""
    return np.maximum.reduce([field, *(-hole for hole in holes)])


def both(*fields: Array) -> Array:
    """Return what lies in every shape."""
    return np.maximum.reduce(fields)


class Plane:
    """A grid of size x size points over [-extent, extent) in x and y."""

    def __init__(self, size: int, extent: float) -> None:
        self.size, self.extent = size, extent
        ticks = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0) * extent
        self.y, self.x = np.meshgrid(
            ticks.astype(np.float32), ticks.astype(np.float32), indexing="ij"
        )

    def nothing(self) -> Array:
        """Return a field that paints nothing."""
        return np.full((self.size, self.size), NOTHING, dtype=np.float32)

    def circle(self, cx: float, cy: float, radius: float) -> Array:
        """Return a disc."""
        return np.sqrt((self.x - cx) ** 2 + (self.y - cy) ** 2) - radius

    def ring(self, cx: float, cy: float, radius: float, pen: float) -> Array:
        """Return a circle's line of half-width ``pen``."""
        return np.abs(self.circle(cx, cy, radius)) - pen

    def ellipse(self, cx: float, cy: float, a: float, b: float, turn: float = 0.0) -> Array:
        """Return a filled ellipse, to first order near its edge."""
        x, y = self.turned(cx, cy, turn)
        inner = np.sqrt((x / a) ** 2 + (y / b) ** 2)
        slope = np.sqrt((x / (a * a)) ** 2 + (y / (b * b)) ** 2)
        return inner * (inner - 1.0) / np.maximum(slope, 1e-3)

    def turned(self, cx: float, cy: float, turn: float) -> tuple[Array, Array]:
        """Return coordinates about (cx, cy) in axes turned clockwise by ``turn``."""
        c, s = float(cos_turns(turn)), float(sin_turns(turn))
        x, y = self.x - cx, self.y - cy
        return c * x + s * y, c * y - s * x

    def box(
        self, cx: float, cy: float, a: float, b: float, corner: float = 0.0, turn: float = 0.0
    ) -> Array:
        """Return a rectangle of half-sides a, b with rounded corners."""
        x, y = self.turned(cx, cy, turn)
        x, y = np.abs(x) - (a - corner), np.abs(y) - (b - corner)
        outside = np.sqrt(np.maximum(x, 0.0) ** 2 + np.maximum(y, 0.0) ** 2)
        return outside + np.minimum(np.maximum(x, y), 0.0) - corner

    def segment(self, p: Point, q: Point) -> Array:
        """Return the distance to a straight piece."""
        dx, dy = q[0] - p[0], q[1] - p[1]
        x, y = self.x - p[0], self.y - p[1]
        along = (x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9)
        along = np.minimum(np.maximum(along, 0.0), 1.0)
        return np.sqrt((x - along * dx) ** 2 + (y - along * dy) ** 2)

    def stroke(self, points: Sequence[Point], pen: float = 0.0) -> Array:
        """Return a polyline drawn with a round pen of half-width ``pen``."""
        pairs = zip(points[:-1], points[1:], strict=True)
        return np.minimum.reduce([self.segment(p, q) for p, q in pairs]) - pen

    def polygon(self, points: Sequence[Point], corner: float = 0.0) -> Array:
        """Return a filled polygon, grown and rounded by ``corner``."""
        distance = self.stroke([*points, points[0]])
        inside = np.zeros(distance.shape, dtype=bool)
        for (px, py), (qx, qy) in zip(points, [*points[1:], points[0]], strict=True):
            if py == qy:
                continue
            crosses = (self.y < py) != (self.y < qy)
            inside ^= crosses & (self.x < px + (self.y - py) * ((qx - px) / (qy - py)))
        return np.where(inside, -distance, distance) - corner
