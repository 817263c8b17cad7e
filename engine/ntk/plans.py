"""What a kernel will cost, and which algorithm computes it: known before the work starts."""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engine.encoders import Encoder
from engine.errors import UsageError
from engine.ntk.grams import operations as gram_operations
from engine.ntk.layerwise import choose_segments
from engine.ntk.uses import Book, pieces, watch
from engine.task_vectors import parts_of

ALGORITHMS = ("layerwise", "jacobian", "products")
BATCH, CHUNK = 16, 1 << 16
LEAST_CHUNK = 1 << 12
ENTRY = 200  # what writing and reading one entry of a Jacobian costs, in operations
ATTAINED = 0.5  # share of a large product's speed that the whole run attains
_surveys: WeakKeyDictionary[Encoder, "Survey"] = WeakKeyDictionary()


@dataclass(frozen=True)
class Survey:
    """One image's run through an encoder, counted.

    Attributes:
        parameters: P, numbers in all parameters.
        itemsize: Bytes of one.
        forward: Operations of a forward pass: those of its weights, 2 T a b each.
        segments: How many pieces the trunk is run in.
        entries: Numbers at the entries of all segments but the first.
        factors: Numbers that the widest segment keeps for each point until its products.
        activations: Numbers that the widest segment's pass holds for each image, about.
        layers: Tokens, height and width of each weight that is kept as factors, or of 0 tokens
            where each image's gradient itself is kept.
    """

    parameters: int
    itemsize: int
    forward: int
    segments: int
    entries: int
    factors: int
    activations: int
    layers: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Plan:
    """What will be done, at which cost.

    Attributes:
        algorithm: "layerwise", "jacobian" or "products".
        batch: Images a pass.
        chunk: Entries of a parameter whose per-image gradients are held at once.
        block: Points held at once on either side; at least ``columns`` unless memory is short.
        rows: n.
        columns: m.
        logits: How many.
        operations: Multiplications and additions.
        bytes: Beyond the encoder itself, about.
        seconds: At half the speed of a large product on this device, about.
        why: How the algorithm was chosen.
        parts: Kernels of blocks of parameters that are held beside those of the logits.
    """

    algorithm: str
    batch: int
    chunk: int
    block: int
    rows: int
    columns: int
    logits: int
    operations: int
    bytes: int
    seconds: float
    why: str
    parts: int = 0

    def text(self) -> str:
        """Say it in two lines."""
        blocks = "" if self.block >= self.columns else f", {self.block} points at a time"
        parts = f", {8e-6 * self.parts * self.rows * self.columns:.0f} MB of it for"
        parts = f"{parts} {self.parts} kernels of blocks" if self.parts else ""
        return (
            f"tangent kernel of {self.rows} x {self.columns} points, {self.logits} logit"
            f"{'s' if self.logits > 1 else ''}: {self.algorithm} ({self.why}), "
            f"{self.batch} images a pass{blocks}\n"
            f"about {self.operations / 1e9:.1f} GFLOP, {self.bytes / 1e6:.0f} MB beyond the "
            f"encoder{parts}, {duration(self.seconds)}"
        )


def duration(seconds: float) -> str:
    """Return a time as a reader says it."""
    if seconds < 90:
        return f"{max(seconds, 0.1):.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan(
    encoder: Encoder,
    rows: int,
    columns: int,
    logits: int = 1,
    algorithm: str = "auto",
    batch: int | None = None,
    memory: int | None = None,
    shared: bool = True,
    parts: int = 0,
) -> Plan:
    r"""Choose algorithm and batch by what they cost.

    With F operations of a forward pass, P parameters and N points, for each logit: layer by layer
    N (3 F) + sum_l min(2 a b (N T + n m), 2 p T^2 (a + b)), N (2 F) where one pass takes all
    points, with p = n m pairs, about n m - n^2 / 2 where the rows are the first columns; Jacobian
    contraction N (3 F + 200 P) + 2 n m P; products n (m + 1) 3 F. ``auto`` takes the fewest
    operations among those that fit the memory. Where a batch does not fit it is halved, then the
    chunk, then the points are taken in blocks, each pair of blocks anew.

    Args:
        encoder: On the device to compute on; one image is run through it.
        rows: n.
        columns: m.
        logits: How many.
        algorithm: One of ``ALGORITHMS``, or "auto".
        batch: Images a pass, at most; None for 16.
        memory: Bytes that may be used beyond the encoder; None for half of what is free.
        shared: Whether the rows are the first columns.
        parts: Kernels of blocks of parameters that are held until the end, 8 n m bytes each.

    Returns:
        The plan.

    Raises:
        UsageError: If the algorithm is unknown, a number is not positive, nothing fits, or the
            encoder has a function that layer by layer does not cover and no other is allowed.
    """
    if algorithm not in ("auto", *ALGORITHMS):
        raise UsageError(f"no algorithm is called {algorithm!r}; choose auto, layerwise, jacobian "
                         "or products")  # fmt: skip
    if min(rows, columns, logits, 1 if batch is None else batch) < 1:
        raise UsageError(
            f"a kernel needs rows, columns, logits and a batch of at least 1, got {rows}, "
            f"{columns}, {logits} and {batch}; give more points"
        )
    memory = free_memory(encoder) // 2 if memory is None else memory
    beside = 8 * parts * rows * columns
    names = ALGORITHMS if algorithm == "auto" else (algorithm,)
    survey, refused = None, None
    try:
        survey = survey_of(encoder)
    except UsageError as error:
        if algorithm == "layerwise":
            raise
        if algorithm == "auto":
            # what changes tensors in place cannot be pushed forward either
            refused, names = error, ("jacobian",)
    counted = survey or _blind(encoder)
    fitting = [
        found
        for name in names
        if (found := _fit(counted, name, rows, columns, batch or BATCH, memory - beside, shared))
    ]
    if not fitting:
        least = beside + min(_bytes(counted, name, 1, LEAST_CHUNK, 2, 1) for name in names)
        raise UsageError(
            f"the kernel takes at least {least / 1e6:.0f} MB beyond the encoder and "
            f"{memory / 1e6:.0f} MB are there; give more --memory or a smaller encoder"
        )
    operations, name, batch, chunk, block, size = min(fitting)
    why = "asked for"
    if algorithm == "auto":
        why = "fewest operations" if refused is None else "the only one that covers it"
    operations *= logits
    seconds = operations / (ATTAINED * speed(_device(encoder), _dtype(encoder)))
    size += beside
    return Plan(
        name, batch, chunk, block, rows, columns, logits, operations, size, seconds, why, parts
    )


def parts_held(encoder: Encoder, logits: int) -> int:
    """Count the kernels of blocks that are held to score each block.

    Args:
        encoder: Whose blocks.
        logits: How many; 2 for the trace, whose logits are summed as they come.

    Returns:
        Blocks times logits: n m numbers of 8 bytes each.
    """
    return logits * len(parts_of(list(encoder.theta0)))


def survey_of(encoder: Encoder) -> Survey:
    """Count one image's run through an encoder; what was counted is remembered.

    Args:
        encoder: On its device.

    Returns:
        The counts.
    """
    if encoder in _surveys:
        return _surveys[encoder]
    theta = encoder.theta0
    book = Book()
    watched = watch(theta, book)
    x = _image(encoder)
    segments = choose_segments(encoder, watched, book, x)
    book.uses.clear()
    book.place = 0
    with torch.enable_grad():
        z, seen = segments.run(watched, x.requires_grad_(), book)
        outs = [use.out for use in book.uses]
        found = torch.autograd.grad(z.sum(), outs, allow_unused=True)
    forward, layers, factors, activations = 0, [], {}, {}
    for use, gradient in zip(book.uses, found, strict=True):
        activations[use.place] = activations.get(use.place, 0) + 4 * use.out.numel()
        for piece in pieces(use, gradient, theta) if gradient is not None else ():
            kept = piece.left.numel()
            if piece.right is not None:
                (T, a), b = piece.left.shape[1:], piece.right.shape[2]
                forward += 2 * T * a * b
                as_factors = T * (a + b) < a * b
                kept = min(T * (a + b), a * b)
                layers.append((T if as_factors else 0, a, b))
            else:
                layers.append((0, kept, 1))
            factors[use.place] = factors.get(use.place, 0) + kept
    _surveys[encoder] = Survey(
        sum(value.numel() for value in theta.values()),
        _dtype(encoder).itemsize,
        forward,
        segments.count,
        sum(value.numel() for value in seen),
        max(factors.values(), default=0),
        max(activations.values(), default=0),
        tuple(layers),
    )
    return _surveys[encoder]


def free_memory(encoder: Encoder) -> int:
    """Return the bytes that are free on an encoder's device."""
    device = _device(encoder)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    listed = Path("/proc/meminfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 4 << 30


@functools.lru_cache(maxsize=8)
def speed(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a large product, timed once: it only sets the estimate."""
    side = 4096 if device.type == "cuda" else 768
    a = torch.ones(side, side, device=device, dtype=dtype)
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        taken.append(time.perf_counter() - begun)
    return 2 * side**3 / min(taken)


def _fit(
    survey: Survey, name: str, rows: int, columns: int, batch: int, memory: int, shared: bool
) -> tuple | None:
    """Return cost, algorithm, batch, chunk, block and bytes of what fits; None if nothing does."""
    chunk, block = CHUNK, columns
    points = columns if shared else rows + columns
    while True:
        held = points if block >= columns else min(points, 2 * block)
        size = _bytes(survey, name, batch, chunk, held, min(rows, block))
        if size <= memory:
            break
        if batch > 1:
            batch = (batch + 1) // 2
        elif name == "layerwise" and chunk > LEAST_CHUNK:
            chunk //= 2
        elif name != "products" and block > 1:
            block = (min(block, columns) + 1) // 2
        else:
            return None
    once = held <= batch
    spent = _operations(survey, name, rows, columns, points, block, once, shared)
    return spent, name, batch, chunk, block, size


def _bytes(survey: Survey, name: str, batch: int, chunk: int, held: int, rows: int) -> int:
    """Return the bytes beyond the encoder for so many points held at once."""
    pass_ = batch * survey.activations
    if held <= batch:  # one pass takes all points and is kept whole
        pass_ *= survey.segments
    widest = max((a * b for _, a, b in survey.layers), default=0)
    wide = min(widest, max(chunk, max((b for _, _, b in survey.layers), default=0)))
    if name == "layerwise":
        kept = held * (survey.entries + survey.factors) + (held + rows) * wide + pass_
    elif name == "jacobian":
        kept = held * survey.parameters + 2 * batch * survey.parameters
    else:
        kept = 3 * survey.parameters + 2 * survey.segments * pass_
    return kept * survey.itemsize


def _operations(
    survey: Survey, name: str, n: int, m: int, points: int, block: int, once: bool, shared: bool
) -> int:
    """Return the operations of one logit."""
    F, P = survey.forward, survey.parameters
    # each block of columns is passed once for each block of rows, and the other way about
    blocks = 1 if block >= m else -(-n // block)
    N = points if blocks == 1 else blocks * m + -(-m // block) * n
    if name == "jacobian":
        return N * (3 * F + ENTRY * P) + 2 * n * m * P
    if name == "products":
        return n * (m + 1) * 3 * F
    total = N * F * (2 if once or survey.segments == 1 else 3)
    for T, a, b in survey.layers:
        by_tokens, by_gradients = gram_operations(n, m, N, T, a, b, shared)
        total += min(by_tokens, by_gradients) if T else by_gradients
    return total


def _blind(encoder: Encoder) -> Survey:
    """Return what is known of an encoder that layer by layer does not cover."""
    P = sum(value.numel() for value in encoder.theta0.values())
    return Survey(P, _dtype(encoder).itemsize, 2 * P, 1, 0, 0, P // 10, ())


def _image(encoder: Encoder) -> Tensor:
    """Return one image in the encoder's size and precision."""
    like = next(iter(encoder.theta0.values()))
    return like.new_zeros(1, 3, encoder.image_size, encoder.image_size)


def _device(encoder: Encoder) -> torch.device:
    """Return where an encoder lies."""
    return next(iter(encoder.theta0.values())).device


def _dtype(encoder: Encoder) -> torch.dtype:
    """Return an encoder's precision."""
    return next(iter(encoder.theta0.values())).dtype
