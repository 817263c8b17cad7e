"""What a local energy rests on, so that what is kept is recognised by content, not by name."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.encoders import Encoder
from engine.errors import UsageError
from engine.remembering import head_digest
from engine.tasks import Split, Task

DRAWN, LEAST = 20, 2000  # images a point of the prefix that points are drawn from; at least


@dataclass(frozen=True)
class Content:
    """What an answer depends on beside its encoder, its points, its seed and its logits.

    Attributes:
        head: Digest of what the task's frozen head is made from.
        probes: By task name, the digest of its first ``engine.remembering.PROBE`` train images:
            whether a split is still the same is asked without decoding it.
        limits: By task name, how many images of its train split points are drawn from; None for
            all of them.
        sources: By task name, "miniature" or where its data lies.
        tau: Digest of the linearly fine-tuned task vector of the coefficients; "" without one.
    """

    head: str
    probes: dict[str, str]
    limits: dict[str, int | None]
    sources: dict[str, str] = field(default_factory=dict)
    tau: str = ""

    def plain(self) -> dict[str, Any]:
        """Give plain values, as they are kept."""
        return dict(vars(self))


def content_of(
    encoder: Encoder,
    tasks: Mapping[Task, Split],
    limits: Mapping[str, int | None],
    tau: str = "",
) -> Content:
    """Say what a local energy rests on.

    Args:
        encoder: Whose head.
        tasks: The task whose head gives the logits, then the control, each with a probe: the first
            ``engine.remembering.PROBE`` images of its train split.
        limits: By task name, from :func:`drawn_from`.
        tau: Digest of the task vector; "" without one.

    Returns:
        It.
    """
    first = next(iter(tasks))
    return Content(
        head_digest(encoder, first),
        {task.name: split.digest for task, split in tasks.items()},
        {task.name: limits[task.name] for task in tasks},
        {task.name: task.source for task in tasks},
        tau,
    )


def drawn_from(task: Task, points: int, limit: int | None = None) -> int | None:
    """Say how many images of a train split points are drawn from.

    Splits are shuffled, so that their first images are a random sample; only these are decoded.

    Args:
        task: The miniature's are rendered, and drawn from whole.
        points: Points of each block, n.
        limit: As asked for; None for 20 n, at least 2,000.

    Returns:
        How many of the first images; None for all of them.

    Raises:
        UsageError: If the limit leaves too few to draw from.
    """
    if limit is None:
        return None if task.source == "miniature" else max(LEAST, DRAWN * points)
    if limit < 2 * points:
        raise UsageError(
            f"--limit {limit} leaves too few images to draw {points} points of {task.name} and as "
            f"many held out; give --limit {2 * points} or more, or fewer --points"
        )
    return limit


def content_key(
    content: Content,
    *,
    encoder_digest: str,
    task: str,
    control: str,
    points: int,
    seed: int,
    readout: str,
    logits: tuple[str, ...],
) -> str:
    """Name the question that energies answer, by all that they depend on.

    The task vector is left out: energies, spectra and scores do not depend on it.

    Args:
        content: Of the answer or the question.
        encoder_digest: Of theta_0.
        task: Name.
        control: Name.
        points: n.
        seed: Of the draw.
        readout: "cosine" or "score".
        logits: Names of classes, or ("trace",).

    Returns:
        sha256, 64 hex digits.
    """
    said = [
        encoder_digest, task, control, points, seed, readout, list(logits), content.head,
        [content.probes[name] for name in (task, control)],
        [content.limits[name] for name in (task, control)],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
