"""The tangent kernel layer by layer, from activations and back-propagated signals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engine.encoders import Encoder
from engine.ntk.grams import Parts, Sums, add_gram, gather
from engine.ntk.segments import Segments
from engine.ntk.uses import Book, Use, pieces, watch

Readout = Callable[[Tensor], Tensor]  # features (N, d) -> one logit of each image, (N,)
_parted: WeakKeyDictionary[Encoder, bool] = WeakKeyDictionary()  # whether segments share nothing


@dataclass
class _Run:
    """One segment's forward run: what the way back needs."""

    begun: Tensor
    left: Tensor | None
    uses: list[Use]


def layerwise_kernel(
    encoder: Encoder,
    theta: Mapping[str, Tensor],
    readout: Readout,
    points: Tensor,
    rows: slice,
    columns: slice,
    batch: int,
    chunk: int,
    progress: Callable[[int], None],
    block_of: Mapping[str, str] | None = None,
) -> Sums:
    r"""Sum the kernel of one logit over the parameters without ever holding a Jacobian.

    .. math:: k(x_i, x_j) = \sum_l \langle M^l_i, M^l_j \rangle, \qquad
        M^l_i = \sum_t g^l_{it} {a^l_{it}}^\top

    with a layer's inputs a and output gradients g at its tokens t. The trunk is run block by
    block, from the last to the first, each again from its stored entry: two forward passes and
    one backward pass, and never more held than the entries of all blocks, one block's factors and
    ``chunk`` entries of M for each point. Where one pass takes all points, what it computed is
    kept for the way back, and the second forward pass is spared.

    Args:
        encoder: Whose ``features`` are differentiated.
        theta: Parameters at which.
        readout: From features to the logit.
        points: N preprocessed images.
        rows: Which points are rows, n of them.
        columns: Which points are columns, m of them.
        batch: Images a pass.
        chunk: Entries of a parameter whose per-image gradients are held at once.
        progress: Told of images that went through a segment, as a fraction of all segments.
        block_of: The block of each parameter, to have each block's kernel too; None for none.

    Returns:
        The kernel and each parameter's part of its diagonal.

    Source:
        Novak et al. (2022), arXiv:2206.08720 (structured derivatives); Ortiz-Jimenez et al.
        (2023), arXiv:2305.12827, Sec. 6.1.
    """
    book = Book()
    watched = watch(theta, book)
    if encoder in _parted:
        segments = Segments(encoder, whole=not _parted[encoder])
    else:
        segments = choose_segments(encoder, watched, book, points[:1])
        _parted[encoder] = segments.count > 1
    wide = torch.device("cpu") if points.device.type == "mps" else points.device
    n, m = (len(range(*which.indices(len(points)))) for which in (rows, columns))
    zero = torch.zeros(n, m, dtype=torch.float64, device=wide)
    sums = Sums(zero, block_of=block_of or {})
    runs = _runs(segments, watched, book, points) if len(points) <= batch else []
    entries = [] if runs else _entries(segments, theta, points, batch)
    signal: Tensor | None = None
    for segment in reversed(range(segments.count)):
        parts: Parts = {}
        if runs:
            whole = slice(0, len(points))
            signal = _back(runs.pop(), segment, readout, signal, parts, theta, whole, len(points))
            progress(len(points) / segments.count)
        else:
            entry = entries.pop() if segment else None
            for start in range(0, len(points), batch):
                where = slice(start, min(start + batch, len(points)))
                run = _forward(segments, segment, watched, book, points, entry, where)
                pull = None if signal is None else signal[where]
                gradient = _back(run, segment, readout, pull, parts, theta, where, len(points))
                if entry is not None:
                    entry[where] = gradient  # no longer needed: the signal takes its place
                progress((where.stop - where.start) / segments.count)
            signal = entry
        for name in list(parts):
            used = list(parts.pop(name).values())
            add_gram(sums, name, used, theta[name].shape, rows, columns, chunk)
    return sums


def choose_segments(encoder: Encoder, watched: Mapping, book: Book, x: Tensor) -> Segments:
    """Part an encoder into segments that share no parameter.

    Args:
        encoder: To be parted.
        watched: Its parameters.
        book: Theirs.
        x: One image.

    Returns:
        Its blocks, or one segment where a parameter is used in several.
    """
    segments = Segments(encoder)
    book.uses.clear()
    book.place = 0
    segments.run(watched, x.detach().requires_grad_(), book)
    places: dict[str, set[int]] = {}
    for use in book.uses:
        for leaf in use.leaves:
            for name in getattr(leaf, "sources", ()):
                places.setdefault(name, set()).add(use.place)
    alone = all(len(found) == 1 for found in places.values())
    return segments if alone else Segments(encoder, whole=True)


def _entries(
    segments: Segments, theta: Mapping[str, Tensor], points: Tensor, batch: int
) -> list[Tensor]:
    """Return the tensor at the entry of each segment but the first, all points together."""
    held: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(points), batch):
            seen = segments.entries(dict(theta), points[start : start + batch])
            if not held:
                held = [value.new_empty(len(points), *value.shape[1:]) for value in seen]
            for kept, value in zip(held, seen, strict=True):
                kept[start : start + batch] = value
    return held


def _runs(segments: Segments, watched: Mapping, book: Book, points: Tensor) -> list[_Run]:
    """Run all points through every segment once, and keep it all."""
    found: list[_Run] = []
    for segment in range(segments.count):
        entry = found[-1].left if found else None
        run = _forward(segments, segment, watched, book, points, entry, slice(0, len(points)))
        found.append(run)
    return found


def _forward(
    segments: Segments,
    segment: int,
    watched: Mapping,
    book: Book,
    points: Tensor,
    entry: Tensor | None,
    where: slice,
) -> _Run:
    """Run one batch through a segment."""
    book.uses.clear()
    begun = (points if entry is None else entry)[where].detach().requires_grad_()
    with torch.enable_grad():
        if entry is None:
            left = segments.part(watched, segment, begun, None, book)
        else:
            left = segments.part(watched, segment, points[:1], begun, book)
    run = _Run(begun, left, list(book.uses))
    book.uses.clear()
    return run


def _back(
    run: _Run,
    segment: int,
    readout: Readout,
    pull: Tensor | None,
    parts: Parts,
    theta: Mapping[str, Tensor],
    where: slice,
    count: int,
) -> Tensor | None:
    """Go back through a segment, gather its pieces, return the signal at its entry."""
    with torch.enable_grad():
        target = readout(run.left).sum() if pull is None else (run.left * pull).sum()
        wanted = [use.out for use in run.uses] + ([run.begun] if segment else [])
        found = list(torch.autograd.grad(target, wanted, allow_unused=True))
    run.left = None
    del target, wanted
    signal = found.pop() if segment else None
    for number, use in enumerate(run.uses):
        if found[number] is not None:
            gather(parts, number, pieces(use, found[number], theta), where, count)
        found[number] = None
    run.uses.clear()
    return signal
