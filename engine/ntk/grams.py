"""From each image's gradient in the parameters of a layer to that layer's part of the kernel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from engine.ntk.uses import Piece


@dataclass
class Sums:
    """What is summed up, parameter by parameter.

    Attributes:
        values: Kernel, shape (n, m), float64.
        layers: Each parameter's part of k(x_i, x_i) of the rows, shape (n,), float64.
        block_of: The block of each parameter whose kernel is summed up by itself too.
        blocks: Each block's part of the kernel, shape (n, m), float64; they add up to ``values``
            where every parameter has a block.
    """

    values: Tensor
    layers: dict[str, Tensor] = field(default_factory=dict)
    block_of: Mapping[str, str] = field(default_factory=dict)
    blocks: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, kernel: Tensor, diagonal: Tensor) -> None:
        """Add a part of one parameter.

        Args:
            name: Of the parameter.
            kernel: Its part of the kernel, shape (n, m).
            diagonal: Its part of k(x_i, x_i) of the rows, shape (n,).
        """
        wide = diagonal.to(self.values.device, torch.float64)
        kernel = kernel.to(self.values.device, torch.float64)
        self.values += kernel
        self.layers[name] = self.layers[name] + wide if name in self.layers else wide
        if name in self.block_of:
            self.block(self.block_of[name]).add_(kernel)

    def block(self, label: str) -> Tensor:
        """Return the kernel of one block, zero before anything is added to it.

        Args:
            label: Of the block.
        """
        if label not in self.blocks:
            self.blocks[label] = torch.zeros_like(self.values)
        return self.blocks[label]


@dataclass
class Part:
    """One way in which a parameter is used, for all points."""

    rows: tuple[int, int] | None
    left: Tensor
    right: Tensor | None


BLOCKS = 8  # of rows: what is symmetric is computed once, but for the blocks on the diagonal
# parameter -> the number of its use and piece -> part
Parts = dict[str, dict[tuple[int, int], Part]]


def gather(parts: Parts, use: int, found: Sequence[Piece], where: slice, count: int) -> None:
    """Put the pieces of one batch beside those of the others.

    Factors that are larger than the gradient they make are multiplied at once, so that no use
    takes more than its own gradient for each point.

    Args:
        parts: Changed in place.
        use: Number of the use within its segment, the same in every batch.
        found: Its pieces.
        where: Which points the batch has.
        count: Number of points.
    """
    for number, piece in enumerate(found):
        left, right = piece.left, piece.right
        if right is not None:
            (T, a), b = left.shape[1:], right.shape[2]
            if T * (a + b) >= a * b:
                left, right = left.transpose(1, 2) @ right, None
        kept = parts.setdefault(piece.name, {})
        if (use, number) not in kept:
            pair = [
                None if value is None else value.new_empty(count, *value.shape[1:])
                for value in (left, right)
            ]
            kept[use, number] = Part(piece.rows, *pair)
        part = kept[use, number]
        part.left[where] = left
        if right is not None:
            part.right[where] = right


def add_gram(
    sums: Sums,
    name: str,
    used: Sequence[Part],
    shape: torch.Size,
    rows: slice,
    columns: slice,
    chunk: int,
) -> None:
    r"""Add one parameter's part of the kernel.

    .. math:: K_{ij} \mathrel{+}= \langle M_i, M_j \rangle
        = \sum_{t, s} (a_{it} \cdot a_{js}) (b_{it} \cdot b_{js})

    by the first form, rows of the parameter at a time, or by the second where it takes fewer
    operations: few tokens, as behind a class token.

    Args:
        sums: Changed in place.
        name: Of the parameter.
        used: All the ways it was used; they add up.
        shape: Of the parameter.
        rows: Which points are rows.
        columns: Which points are columns.
        chunk: Entries of M held at once for each point.
    """
    height = shape[0] if shape else 1
    rest = prod(shape[1:])
    shared = _sizes(len(used[0].left), rows, columns)[2]
    spans = [(part.rows or (0, height), part) for part in used]
    edges = sorted({0, height} | {edge for span, _ in spans for edge in span})
    for start, stop in zip(edges, edges[1:], strict=False):
        inside = [(lo, part) for (lo, hi), part in spans if lo <= start and stop <= hi]
        if inside and all(part.right is not None for _, part in inside):
            # uses of the same rows add up like further tokens
            left = _joined([part.left[:, :, start - lo : stop - lo] for lo, part in inside])
            right = _joined([part.right for _, part in inside])
            if _tokens_are_cheaper(left, right, rows, columns):
                _add_by_tokens(sums, name, left, right, rows, columns, chunk)
                continue
        step = max(1, chunk // max(rest, 1))
        for low in range(start, stop, step) if inside else ():
            high = min(low + step, stop)
            first, *more = (_gradient(part, low - lo, high - lo) for lo, part in inside)
            M = first  # (N, entries)
            for gradient in more:
                M = M + gradient
            kernel = M[rows] @ M[columns].T
            # rows that are the first columns have their own products already
            own = kernel.diagonal() if shared else M[rows].square().sum(1)
            sums.add(name, kernel, own)


def _gradient(part: Part, low: int, high: int) -> Tensor:
    """Return rows of each image's gradient, flat, shape (N, entries)."""
    if part.right is None:
        flat = part.left.reshape(len(part.left), -1, 1) if part.left.ndim < 3 else part.left
        return flat[:, low:high].flatten(1)
    return (part.left[:, :, low:high].transpose(1, 2) @ part.right).flatten(1)


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Return tokens side by side, shape (N, T, d), without a copy of a single one."""
    return values[0] if len(values) == 1 else torch.cat(list(values), dim=1)


def operations(n: int, m: int, N: int, T: int, a: int, b: int, shared: bool) -> tuple[int, int]:
    """Count both forms of a layer.

    Args:
        n: Rows.
        m: Columns.
        N: Points of either.
        T: Tokens.
        a: Entries of a token's input.
        b: Of its output's gradient.
        shared: Whether the rows are the first columns.

    Returns:
        Multiplications and additions by the products of tokens, and by each image's gradient.
    """
    step = -(-n // BLOCKS) if shared else n
    pairs = sum(min(step, n - start) * (m - start) for start in range(0, n, step))
    return 2 * pairs * T * T * (a + b), 2 * a * b * (N * T + n * m)


def _tokens_are_cheaper(left: Tensor, right: Tensor, rows: slice, columns: slice) -> bool:
    """Compare the two forms of one layer."""
    (N, T, a), b = left.shape, right.shape[2]
    n, m, shared = _sizes(N, rows, columns)
    by_tokens, by_gradients = operations(n, m, N, T, a, b, shared)
    return by_tokens < by_gradients


def _sizes(N: int, rows: slice, columns: slice) -> tuple[int, int, bool]:
    """Return how many rows and columns there are, and whether the rows are the first columns."""
    n, m = (len(range(*which.indices(N))) for which in (rows, columns))
    return n, m, rows.start == columns.start and n <= m


def _add_by_tokens(
    sums: Sums,
    name: str,
    left: Tensor,
    right: Tensor,
    rows: slice,
    columns: slice,
    chunk: int,
) -> None:
    """Add a layer's part from the products of its tokens.

    Where the rows are the first columns the kernel is symmetric there: each block of rows is
    multiplied with the columns from its own first on, and the rest is mirrored.
    """
    lefts, rights = left[columns], right[columns]  # (m, T, d)
    T = left.shape[1]
    n, m, shared = _sizes(len(left), rows, columns)
    step = max(1, chunk * len(left) // (T * T * m))
    if shared:
        step = min(step, -(-n // BLOCKS))
    kernel, diagonals = left.new_empty(n, m), []
    for start in range(0, n, step):
        stop = min(start + step, n)
        first = start if shared else 0
        left_rows, right_rows = left[rows][start:stop], right[rows][start:stop]
        both = left_rows.flatten(0, 1) @ lefts[first:].flatten(0, 1).T
        both *= right_rows.flatten(0, 1) @ rights[first:].flatten(0, 1).T
        kernel[start:stop, first:] = both.reshape(stop - start, T, m - first, T).sum((1, 3))
        if shared:
            kernel[stop:, start:stop] = kernel[start:stop, stop:n].T
        own = (left_rows @ left_rows.transpose(1, 2)) * (right_rows @ right_rows.transpose(1, 2))
        diagonals.append(own.sum((1, 2)))
    sums.add(name, kernel, torch.cat(diagonals))
