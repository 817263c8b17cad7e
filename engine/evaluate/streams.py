"""Scores on several tasks at once: two streams of batches where a processor computes.

With all threads in one batch every operation ends with a wait for the slowest of them; two streams
that take small batches from one list have nothing to wait for, whatever else the cores are doing.
"""

import copy
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.evaluate.measures import nonlinear_scores

if TYPE_CHECKING:
    from engine.encoders import Encoder

STREAMS = 2
_BEGINNING = threading.Lock()


def scores_of_tasks(
    encoder: "Encoder",
    theta: Mapping[str, Tensor],
    asked: Sequence[tuple[Tensor, Tensor]],
    batch: int = 125,
) -> list[Tensor]:
    r"""Class scores of one non-linear model on several tasks, as ``nonlinear_scores`` gives them.

    The same up to rounding: an image's scores depend on its batch and on the threads in the last
    bits. On other devices than the CPU, and with one thread, the tasks follow each other.

    Args:
        encoder: On the device to compute on.
        theta: Parameters, for instance from ``combine``.
        asked: For each task its images, uint8, shape (N, 3, H, W), and its head, shape (C, d).
        batch: Images a pass of one stream.

    Returns:
        For each task scores of shape (N, C), float32, on the CPU.

    Raises:
        NonFiniteError: If a score is NaN or infinite.
    """
    device = next(iter(theta.values())).device.type
    if device != "cpu" or torch.get_num_threads() < STREAMS:
        return [nonlinear_scores(encoder, theta, images, head) for images, head in asked]
    free: SimpleQueue = SimpleQueue()
    for _ in range(STREAMS):  # a tower holds the parameters of one call at a time
        free.put(replace(encoder, tower=copy.deepcopy(encoder.tower)))
    pieces = [
        (piece, head, at)
        for at, (images, head) in enumerate(asked)
        for piece in images.split(batch)
    ]

    def score(piece: tuple[Tensor, Tensor, int]) -> Tensor:
        mine = free.get()
        try:
            return nonlinear_scores(mine, theta, piece[0], piece[1], batch)
        finally:
            free.put(mine)

    parts: list[list[Tensor]] = [[] for _ in asked]
    for (_, _, at), scores in zip(pieces, _workers().map(score, pieces), strict=True):
        parts[at].append(scores)
    return [torch.cat(part) for part in parts]


def _workers() -> ThreadPoolExecutor:
    """Return the streams' threads, which share the processor's threads among them."""
    with _BEGINNING:
        return _started(torch.get_num_threads())


@cache
def _started(threads: int) -> ThreadPoolExecutor:
    share = threads // STREAMS
    workers = ThreadPoolExecutor(STREAMS, "scores", torch.set_num_threads, (share,))
    ready = threading.Barrier(STREAMS + 1)
    for _ in range(STREAMS):
        workers.submit(ready.wait)
    ready.wait()
    torch.set_num_threads(threads)  # threads begun later take what was set last, by whomever
    return workers
