"""A task on which a merged model is read out, and the guards on what a page hands over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

READINGS = ("nonlinear", "posthoc", "linear")
CONVENTIONS = ("sum", "mean")
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
        note: What stands in the place of a slider, where the task has none.
        pending: Non-linear reading: the first plane is an estimate, the exact one follows. For a
            control task alone: the widget calls the others exact.
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
    note: str = ""
    pending: bool = False


def check_options(
    tasks: Sequence[EvaluatedTask],
    names: Sequence[str],
    reading: str,
    convention: str,
    anchor: Mapping[str, float] | None,
) -> None:
    """Refuse an unknown option, or a task or slider missing or named twice.

    Raises:
        ValueError: Saying what was received and what was expected.
    """
    if reading not in READINGS:
        raise ValueError(f"reading is {reading!r}, expected one of {READINGS}")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is {convention!r}, expected one of {CONVENTIONS}")
    if (reading == "nonlinear") != (anchor is not None):
        raise ValueError(f"anchor is {anchor!r}: give it for the non-linear reading, and only then")
    if not names or not tasks:
        raise ValueError(f"got {len(names)} sliders and {len(tasks)} tasks, expected one of each")
    task_names = [task.name for task in tasks]
    if len(set(task_names)) < len(task_names):
        raise ValueError(f"task names repeat: {task_names}")
    if any(task.pending and not task.is_control for task in tasks):
        raise ValueError("a task that is no control is pending, expected its exact scores")
    if sum(task.is_control for task in tasks) > 1:
        raise ValueError("more than one control task, expected at most one")


def check_task(task: EvaluatedTask, vectors: int, reading: str, has_slider: bool) -> None:
    """Refuse arrays of one task that do not fit together.

    Raises:
        ValueError: Naming the task and the array.
    """
    n, classes = len(task.labels), len(task.classnames)
    expected = (1 + vectors, n, classes)
    shape = np.shape(task.scores)
    if shape != expected or n == 0:
        raise ValueError(f"{task.name}: scores are of shape {shape}, expected {expected}, N > 0")
    if not np.isfinite(task.scores).all():
        raise ValueError(f"{task.name}: scores hold NaN or infinity, expected finite values")
    check_indices(f"{task.name}: labels", task.labels, (n,), classes)
    if task.zeroshot_predictions is not None:
        name = f"{task.name}: zeroshot_predictions"
        check_indices(name, task.zeroshot_predictions, (n,), classes)
    elif reading == "nonlinear":
        raise ValueError(f"{task.name}: the non-linear reading needs zeroshot_predictions")
    if reading == "nonlinear" and has_slider and task.single_accuracy is None:
        raise ValueError(f"{task.name}: the non-linear reading needs single_accuracy")
    if task.single_accuracy is not None and not 0.0 <= task.single_accuracy <= 1.0:
        raise ValueError(f"{task.name}: single_accuracy is {task.single_accuracy}, not in [0, 1]")
    check_pictures(task, n)


def check_indices(name: str, values: np.ndarray, shape: tuple[int, ...], limit: int) -> None:
    """Refuse anything but integers of this shape in [0, limit).

    Raises:
        ValueError: Saying what was received and what was expected.
    """
    array = np.asarray(values)
    if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: {array.dtype} of shape {array.shape}, expected integers {shape}")
    if array.size and not (0 <= array.min() and array.max() < limit):
        raise ValueError(f"{name}: from {array.min()} to {array.max()}, expected 0 to {limit - 1}")


def check_pictures(task: EvaluatedTask, n: int) -> None:
    """Refuse pictures of another size, or without an index each.

    Raises:
        ValueError: Saying what was received and what was expected.
    """
    if task.pictures is None and task.picture_indices is None:
        return
    count = 0 if task.picture_indices is None else len(task.picture_indices)
    expected = (count, THUMBNAIL, THUMBNAIL, 3)
    shape = np.shape(task.pictures)
    if shape != expected or np.asarray(task.pictures).dtype != np.uint8:
        raise ValueError(f"{task.name}: pictures of shape {shape}, expected uint8 {expected}")
    check_indices(f"{task.name}: picture_indices", task.picture_indices, (count,), n)
