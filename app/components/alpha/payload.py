"""What the browser needs, in one buffer: a JSON header, then arrays; built from numpy alone.

Layout: ``uint32`` length of the header (little endian), the header as UTF-8 JSON padded with
spaces to a multiple of four bytes, then the arrays one after another, each starting at a multiple
of four bytes from the end of the header; the header gives every array's type, shape and offset.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

FORMAT = 1
READINGS = ("nonlinear", "posthoc", "linear")
CONVENTIONS = ("sum", "mean")
LARGEST_PAYLOAD = 5 * 2**20  # bytes; mounting hashes the payload, about 6 ms a MB
THUMBNAIL = 32  # pixels a side


@dataclass(frozen=True, eq=False)
class EvaluatedTask:
    """One task on which the merged model is read out.

    Attributes:
        name: Of the task; the slider of the same name, if there is one, is its own task vector.
        title: What a reader sees.
        labels: Class indices, shape (N,).
        scores: float32, shape (1 + T, N, C), the T in the order of the sliders: class scores of
            f(x; theta_0) then of each J tau_t. The merged scores are
            ``s_0 + c_1 s_1 + ... + c_T s_T`` in double precision, multiplied then added in this
            order; ties of the arg-max go to the lowest class. For the non-linear reading the first
            plane holds the exact merged model's scores at the anchor alphas, and ``c_t`` counts
            from there. Logits or anything a positive factor an image away from them.
        classnames: C names.
        is_control: The control task: shown apart, outside the means.
        zeroshot_predictions: Predicted class at alpha = 0, shape (N,). Needed for the non-linear
            reading; derived from the scores otherwise.
        single_accuracy: Accuracy of this task's own vector alone at alpha = 1, a fraction. Needed
            for the non-linear reading of a task that has a slider; derived otherwise.
        pictures: uint8 RGB, shape (K, 32, 32, 3), examples to watch.
        picture_indices: Which of the N images they are, shape (K,).
    """

    name: str
    title: str
    labels: np.ndarray
    scores: np.ndarray
    classnames: Sequence[str]
    is_control: bool = False
    zeroshot_predictions: np.ndarray | None = None
    single_accuracy: float | None = None
    pictures: np.ndarray | None = None
    picture_indices: np.ndarray | None = None


@dataclass(frozen=True)
class Preset:
    """A button: the alphas it sets, or None and the reason why it is disabled."""

    alphas: Mapping[str, float] | None = None
    why: str = "Not computed yet"


def pack(
    tasks: Sequence[EvaluatedTask],
    sliders: Mapping[str, str],
    *,
    alphas: Mapping[str, float],
    revision: int = 0,
    reading: str = "linear",
    convention: str = "sum",
    split: str = "test",
    anchor: Mapping[str, float] | None = None,
    curve: Sequence[Mapping[str, float]] = (),
    chosen: float | None = None,
    best_shared: Preset = Preset(),
    best_per_task: Preset = Preset(),
    pinned: Sequence[Mapping] = (),
    full: Mapping | None = None,
) -> bytes:
    """Pack everything the widget shows into one buffer.

    Args:
        tasks: The evaluated tasks in order, the control among them.
        sliders: Task vectors, name to title, in the order of the scores' planes 1 to T.
        alphas: Where the sliders stand at this revision, by slider name.
        revision: Raise it to move the sliders to ``alphas`` (a restored link); at the same
            revision the sliders stay where their user left them.
        reading: "nonlinear", "posthoc" or "linear".
        convention: "sum" (c_t = alpha_t) or "mean" (c_t = alpha_t / T).
        split: Name of the split the images come from.
        anchor: Non-linear reading only: the alphas at which the first plane of every task's scores
            is exact; the widget says "exact" when its sliders stand there.
        curve: Validation points {"alpha", "absolute", "normalized"} for a shared alpha, fractions.
        chosen: The alpha chosen on validation.
        best_shared: The button "Best shared".
        best_per_task: The button "Best per task".
        pinned: Settings kept, at most a handful: {"name", "alphas": {slider: alpha}, "metrics":
            {"absolute", "normalized", "control", "tasks": {task: accuracy}}}, fractions.
        full: Exact accuracies on the whole split: {"n": images a task, "alphas": {slider: alpha},
            "tasks": {task: accuracy}, "absolute", "normalized", "control"}; shown only while the
            sliders stand at its alphas.

    Returns:
        The buffer for :func:`app.components.alpha.alpha_widget`.

    Raises:
        ValueError: If shapes, names or options do not agree, scores are not finite, or the buffer
            would exceed :data:`LARGEST_PAYLOAD`.
    """
    raise NotImplementedError


def sample_size(class_counts: Sequence[int], vectors: int, wanted: int = 500) -> int:
    """Say how many images a task fit in a payload.

    Args:
        class_counts: Number of classes of every evaluated task.
        vectors: Number of sliders.
        wanted: Images a task at most.
    """
    raise NotImplementedError


def header_of(payload: bytes) -> dict:
    """Read a payload's header back."""
    raise NotImplementedError
