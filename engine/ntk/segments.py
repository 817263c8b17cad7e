"""Running an encoder piece by piece: from the entry of one block to the entry of a later one."""

import copy
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from engine.encoders import Encoder
from engine.ntk.uses import Book


class _Reached(Exception):  # noqa: N818 - not an error: it ends a run early
    """The block before which a run was to stop."""


class Segments:
    """An encoder whose blocks can be skipped, entered and left.

    Between two blocks everything must pass through the later one's input, as in a ViT's residual
    stream or ConvNeXt's stages; ``engine.ntk`` checks the kernel against autograd. Works on a
    structure of its own, so that other threads may use the encoder.

    Attributes:
        starts: Index of the first block of each segment but the first, which begins with the
            images.
    """

    def __init__(self, encoder: Encoder, whole: bool = False) -> None:
        """Find the blocks.

        Args:
            encoder: Left as it is.
            whole: One segment, whatever the blocks.
        """
        tower = copy.deepcopy(encoder.tower)
        self.encoder = replace(encoder, tower=tower)
        blocks = [] if whole else _blocks(tower)
        self.starts = list(range(1, len(blocks)))
        self._first, self._last = 0, len(blocks)
        self._entry: Tensor | None = None
        self._left: Tensor | None = None
        self._seen: list[Tensor] = []
        self._book: Book | None = None
        for index, block in enumerate(blocks):
            block.forward = partial(self._step, index, block.forward)

    @property
    def count(self) -> int:
        """The number of segments."""
        return len(self.starts) + 1

    def run(self, theta: dict, x: Tensor, book: Book | None = None) -> tuple[Tensor, list[Tensor]]:
        """Run the whole trunk.

        Args:
            theta: Parameters.
            x: Images, shape (N, 3, H, W).
            book: Told when a segment begins.

        Returns:
            Features, shape (N, d), and the tensor at the entry of each segment but the first.
        """
        self._first, self._last, self._entry = 0, len(self.starts) + 1, None
        self._seen, self._book = [], book
        return self.encoder.features(theta, x), self._seen

    def entries(self, theta: dict, x: Tensor) -> list[Tensor]:
        """Run the trunk as far as the last segment.

        Args:
            theta: Parameters.
            x: Images, shape (N, 3, H, W).

        Returns:
            The tensor at the entry of each segment but the first.
        """
        self._first, self._last, self._entry = 0, len(self.starts), None
        self._seen, self._book = [], None
        if not self.starts:
            return []
        with suppress(_Reached):
            self.encoder.features(theta, x)
        left, self._left = self._left, None
        return [*self._seen, left]

    def part(self, theta: dict, segment: int, x: Tensor, entry: Tensor | None, book: Book):
        """Run one segment.

        Args:
            theta: Parameters that watch.
            segment: Which one, from 0.
            x: Images; beyond the first segment any one image, for the way to the entry.
            entry: Tensor at its entry, shape (N, ...); None for the first.
            book: Notes the uses within the segment alone.

        Returns:
            The tensor at the next segment's entry, or the features.
        """
        self._first = self.starts[segment - 1] if segment else 0
        self._last = self.starts[segment] if segment < len(self.starts) else len(self.starts) + 1
        self._entry, self._book, self._seen = entry, book, []
        book.active = segment == 0
        try:
            return self.encoder.features(theta, x)
        except _Reached:
            left, self._left = self._left, None
            return left
        finally:
            book.active, self._entry = True, None

    def _step(self, index: int, forward, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Stand in for one block."""
        if index < self._first:
            return x
        if index == self._first and self._entry is not None:
            x, self._book.active = self._entry, True
        if index == self._last:
            self._left = x
            raise _Reached
        if index:
            self._seen.append(x)
            if self._book is not None:
                self._book.place = index
        return forward(x, *args, **kwargs)


def _blocks(tower: nn.Module) -> list[nn.Module]:
    """Return the blocks of a tower in the order in which they run; none if that is not known."""
    found: list[nn.Module] = []
    for name, module in tower.named_modules():
        if name.rsplit(".", 1)[-1] in ("resblocks", "blocks") and isinstance(
            module, nn.ModuleList | nn.Sequential
        ):
            found += list(module)
    return found if len(set(map(id, found))) == len(found) else []
