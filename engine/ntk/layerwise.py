"""The tangent kernel layer by layer, from activations and back-propagated signals."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engine.encoders import Encoder
from engine.ntk.grams import Parts, Sums, add_gram, gather
from engine.ntk.segments import Segments
from engine.ntk.uses import Book, pieces, watch

Readout = Callable[[Tensor], Tensor]  # features (N, d) -> one logit of each image, (N,)


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
) -> Sums:
    r"""Sum the kernel of one logit over the parameters without ever holding a Jacobian.

    .. math:: k(x_i, x_j) = \sum_l \langle M^l_i, M^l_j \rangle, \qquad
        M^l_i = \sum_t g^l_{it} {a^l_{it}}^\top

    with a layer's inputs a and output gradients g at its tokens t. The trunk is run block by
    block, from the last to the first, each again from its stored entry: two forward passes and
    one backward pass, and never more held than the entries of all blocks, one block's factors and
    ``chunk`` entries of M for each point.

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

    Returns:
        The kernel and each parameter's part of its diagonal.

    Source:
        Novak et al. (2022), arXiv:2206.08720 (structured derivatives); Ortiz-Jimenez et al.
        (2023), arXiv:2305.12827, Sec. 6.1.
    """
    book = Book()
    watched = watch(theta, book)
    segments = choose_segments(encoder, watched, book, points[:1])
    wide = torch.device("cpu") if points.device.type == "mps" else points.device
    n, m = (len(range(*which.indices(len(points)))) for which in (rows, columns))
    sums = Sums(torch.zeros(n, m, dtype=torch.float64, device=wide))
    entries = _entries(segments, theta, points, batch)
    signal: Tensor | None = None
    for segment in reversed(range(segments.count)):
        entry = entries.pop() if segment else None
        parts: Parts = {}
        for start in range(0, len(points), batch):
            where = slice(start, min(start + batch, len(points)))
            last = segment == segments.count - 1
            pull = None if last else signal[where]
            gradient = _back(
                segments, segment, watched, book, points, entry, where, readout, pull, parts, theta
            )
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
        book: Theirs; left with the uses of the run, each with its segment.
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
    if segments.count == 1:
        return held
    with torch.no_grad():
        for start in range(0, len(points), batch):
            _, seen = segments.run(dict(theta), points[start : start + batch])
            if not held:
                held = [value.new_empty(len(points), *value.shape[1:]) for value in seen]
            for kept, value in zip(held, seen, strict=True):
                kept[start : start + batch] = value
    return held


def _back(
    segments: Segments,
    segment: int,
    watched: Mapping,
    book: Book,
    points: Tensor,
    entry: Tensor | None,
    where: slice,
    readout: Readout,
    pull: Tensor | None,
    parts: Parts,
    theta: Mapping[str, Tensor],
) -> Tensor | None:
    """Run one batch forward and back through a segment, gather its pieces, return the signal."""
    book.uses.clear()
    begun = (points if entry is None else entry)[where].detach().requires_grad_()
    with torch.enable_grad():
        if entry is None:
            left = segments.part(watched, segment, begun, None, book)
        else:
            left = segments.part(watched, segment, points[:1], begun, book)
        target = readout(left).sum() if pull is None else (left * pull).sum()
        wanted = [use.out for use in book.uses] + ([] if entry is None else [begun])
        found = list(torch.autograd.grad(target, wanted, allow_unused=True))
    del left, target, wanted
    signal = None if entry is None else found.pop()
    for number, use in enumerate(book.uses):
        if found[number] is not None:
            made = pieces(use, found[number], theta)
            gather(parts, number, made, where, len(points))
        found[number] = None
    book.uses.clear()
    return signal
