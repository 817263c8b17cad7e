"""What the browser needs, in one buffer: a JSON header, then arrays; built from numpy alone."""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.components.alpha.evaluated import (
    EvaluatedTask,
    check_options,
    check_task,
)
from app.components.alpha.state import HIGHEST, LOWEST
from app.components.buffers import LARGEST_PAYLOAD, Arrays, frame

FORMAT = 1
_CURVE_KEYS = ("alpha", "absolute", "normalized")


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
    direction: str | None = None,
    span: tuple[float, float] = (LOWEST, HIGHEST),
) -> bytes:
    """Pack everything the widget shows into one buffer.

    Args:
        tasks: The evaluated tasks in order, the control among them.
        sliders: Task vectors, name to title, in the order of the scores' planes 1 to T.
        alphas: Where the sliders stand, by slider name: pass ``read_state(...).alphas``. They
            place the sliders of a widget that has just been mounted; one that is already there
            keeps its own.
        revision: Raise it to move the sliders of a mounted widget to ``alphas`` (a restored
            link); whatever was released under an earlier revision is then forgotten.
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
            {"absolute", "normalized", "control", "tasks": {task: accuracy}}}, fractions. Alphas
            of None: it is compared with, but no sliders here can be set to it; "note" says why.
        full: Exact accuracies on the whole split: {"n": images a task, "alphas": {slider: alpha},
            "tasks": {task: accuracy}, "absolute", "normalized", "control"}; shown only while the
            sliders stand at its alphas.
        direction: What the only slider moves along, where a method made one direction of all task
            vectors; None for a slider a task vector.
        span: Lowest and highest alpha of the sliders.

    Returns:
        The buffer for :func:`app.components.alpha.alpha_widget`.

    Raises:
        ValueError: If shapes, names or options do not agree, scores are not finite, or the buffer
            would exceed :data:`LARGEST_PAYLOAD`.
    """
    names = tuple(sliders)
    check_options(tasks, names, reading, convention, anchor)
    if direction is not None and len(names) != 1:
        raise ValueError(f"got {len(names)} sliders for one direction, expected a single one")
    for task in tasks:
        check_task(task, len(names), reading, task.name in sliders)
    arrays = Arrays()
    # what every release changes comes first: the rest stays in the browser
    exact = [None if anchor is None else arrays.add(task.scores[0], "f4") for task in tasks]
    settled = arrays.size
    header = {
        "format": FORMAT,
        "reading": reading,
        "convention": convention,
        "split": split,
        "revision": int(revision),
        "sliders": [{"name": name, "title": title} for name, title in sliders.items()],
        "direction": direction,
        "span": [float(limit) for limit in span],
        "alphas": _alphas("alphas", alphas, names),
        "anchor": None if anchor is None else _alphas("anchor", anchor, names),
        "tasks": [_task_header(task, arrays, at) for task, at in zip(tasks, exact, strict=True)],
        "curve": [{k: float(point[k]) for k in _CURVE_KEYS} for point in curve],
        "chosen": None if chosen is None else float(chosen),
        "presets": {
            "shared": _preset("best_shared", best_shared, names),
            "each": _preset("best_per_task", best_per_task, names),
        },
        "pinned": [_pinned(pin, names) for pin in pinned],
        "full": None if full is None else _full(full, names),
    }
    body = arrays.bytes()
    header["digest"] = _digest(body)
    header["settled"] = {"offset": settled, "digest": _digest(body[settled:])}
    payload = frame(header, body)
    if len(payload) > LARGEST_PAYLOAD:
        raise ValueError(
            f"the widget's payload is {len(payload) / 2**20:.1f} MB, at most "
            f"{LARGEST_PAYLOAD / 2**20:.0f} MB fit: take as many images as sample_size() says"
        )
    return payload


def sample_size(class_counts: Sequence[int], vectors: int, wanted: int = 500) -> int:
    """Say how many images a task fit in a payload.

    Args:
        class_counts: Number of classes of every evaluated task.
        vectors: Number of sliders.
        wanted: Images a task at most.

    Returns:
        The largest N at most ``wanted`` for which N images a task leave a tenth of
        :data:`LARGEST_PAYLOAD` free for pictures and header; at least 1.
    """
    planes = 4 * (1 + vectors)  # bytes a class score, float32
    image = sum(planes * classes + 4 for classes in class_counts)  # and two uint16 indices
    return max(1, min(wanted, int(0.9 * LARGEST_PAYLOAD) // max(1, image)))


def header_of(payload: bytes) -> dict:
    """Read a payload's header back.

    Returns:
        The header :func:`pack` wrote.

    Raises:
        ValueError: If the bytes are no payload of this format.
    """
    try:
        (length,) = struct.unpack_from("<I", payload)
        header = json.loads(bytes(payload[4 : 4 + length]))
    except (struct.error, ValueError) as error:
        raise ValueError("not a payload of the alpha widget: make it with pack()") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"not a payload of format {FORMAT}: make it with pack()")
    return header


def parts(payload: bytes) -> tuple[bytes, bytes]:
    """Part a payload into what a release changes, and arrays that only another choice changes.

    Args:
        payload: What :func:`pack` made.

    Returns:
        The header with the arrays before ``header["settled"]["offset"]``, and those from there on.
    """
    (length,) = struct.unpack_from("<I", payload)
    start = 4 + length + header_of(payload)["settled"]["offset"]
    return payload[:start], payload[start:]


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _task_header(task: EvaluatedTask, arrays: Arrays, exact: dict | None) -> dict:
    """Return a task's part of the header; appends its arrays, but for a plane that is there."""
    scores = np.asarray(task.scores)
    pictures = task.pictures
    zeroshot = task.zeroshot_predictions
    single = task.single_accuracy
    return {
        "name": task.name,
        "title": task.title,
        "control": bool(task.is_control),
        "classes": [str(name) for name in task.classnames],
        "n": len(task.labels),
        "labels": arrays.add(np.asarray(task.labels), "u2"),
        "exact": exact,
        "scores": arrays.add(scores if exact is None else scores[1:], "f4"),
        "zeroshot": None if zeroshot is None else arrays.add(np.asarray(zeroshot), "u2"),
        "single": None if single is None else float(single),
        "note": task.note,
        "pending": bool(task.pending),
        "pictures": None if pictures is None else arrays.add(np.asarray(pictures), "u1"),
        "picture_indices": []
        if task.picture_indices is None
        else [int(i) for i in task.picture_indices],
    }


def _alphas(what: str, alphas: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Return alphas in the sliders' order.

    Raises:
        ValueError: If one is missing or outside the sliders' range.
    """
    missing = [name for name in names if name not in alphas]
    if missing:
        raise ValueError(f"{what}: no alpha for {', '.join(missing[:3])}")
    values = [float(alphas[name]) for name in names]
    if not all(LOWEST <= value <= HIGHEST for value in values):
        raise ValueError(f"{what}: {values}, expected all in [{LOWEST}, {HIGHEST}]")
    return values


def _preset(what: str, preset: Preset, names: Sequence[str]) -> dict:
    """Return a button's part of the header."""
    alphas = None if preset.alphas is None else _alphas(what, preset.alphas, names)
    return {"alphas": alphas, "why": preset.why}


def _pinned(pin: Mapping, names: Sequence[str]) -> dict:
    """Return a pinned setting's part of the header."""
    held = pin["alphas"]
    return {
        "name": str(pin["name"]),
        "alphas": None if held is None else _alphas(f"pinned {pin['name']}", held, names),
        "metrics": _plain(pin["metrics"]),
        "note": str(pin.get("note", "")),
    }


def _full(full: Mapping, names: Sequence[str]) -> dict:
    """Return the part of the header on the whole split."""
    rest = {key: value for key, value in full.items() if key != "alphas"}
    return {"alphas": _alphas("full", full["alphas"], names), **_plain(rest)}


def _plain(values: Mapping) -> dict:
    """Return a copy of nested mappings, numbers as floats; None and text as they are."""
    out = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out[key] = _plain(value)
        else:
            out[key] = value if value is None or isinstance(value, str) else float(value)
    return out
