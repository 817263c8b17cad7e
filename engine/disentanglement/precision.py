"""In which precision forward passes run, and how much bfloat16 may change."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.disentanglement.passes import Passes

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

MOST_CHANGED = 0.01  # of the predictions at the cells checked: what bfloat16 may change


def precision_for(encoder: "Encoder", precision: str) -> str:
    """Choose the precision of passes.

    Args:
        encoder: On the device to compute on.
        precision: "float32", "bfloat16" or "auto".

    Returns:
        For "auto" "bfloat16" on a CUDA device whose hardware has it, else "float32": on a CPU a
        map stays exact. What else was asked for is returned as it is.
    """
    if precision != "auto":
        return precision
    device = next(iter(encoder.theta0.values())).device
    has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has else "float32"


def checked_passes(
    encoder: "Encoder",
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    splits: Mapping[str, "Split"],
    alphas: Tensor,
    *,
    distance: str,
    batch: int,
    precision: str,
) -> tuple[Passes, str]:
    """Prepare the passes of a map; those in bfloat16 are first compared with float32.

    Args:
        encoder: As of ``nonlinear_map``, with the next three.
        tasks: The pair by name.
        taus: Task vectors by task name.
        splits: Images by task name.
        alphas: Of both axes, shape (G,): predictions are compared at the grid's corners and in its
            middle.
        distance: "error", "tv" or "kl".
        batch: Images a pass.
        precision: "float32" or "bfloat16".

    Returns:
        The passes, in float32 where bfloat16 changes more than ``MOST_CHANGED`` of the
        predictions; and what it changes, a sentence, empty where float32 was asked for.
    """
    used = {name: taus[name] for name in tasks}

    def prepared(how: str) -> Passes:
        return Passes(encoder, tasks, used, splits, distance=distance, batch=batch, precision=how)

    passes = prepared(precision)
    if not passes.half:
        return passes, ""
    full = prepared("float32")
    changed, total = _changed(full, passes, tuple(tasks), alphas)
    at = "differ from float32 at the corners and the middle of the grid"
    said = f"{changed} of {total} predictions ({100 * changed / total:.2f} %) {at}"
    if changed <= MOST_CHANGED * total:
        return passes, f"passes in bfloat16: {said}"
    return full, f"passes in float32: in bfloat16 {said}, more than {MOST_CHANGED:.0%}"


def _changed(full: Passes, half: Passes, names: tuple[str, str], alphas: Tensor) -> tuple[int, int]:
    """Count the predictions that bfloat16 changes at the cells checked, and those checked."""
    ends, middle = (0, len(alphas) - 1), len(alphas) // 2
    distance, changed, total = full.distance, 0, 0
    full.distance = half.distance = "error"
    for i, j in [(i, j) for i in ends for j in ends] + [(middle, middle)]:
        setting = {names[0]: float(alphas[i]), names[1]: float(alphas[j])}
        exact, rounded = full.outputs(setting, names), half.outputs(setting, names)
        changed += sum(int((exact[name] != rounded[name]).sum()) for name in names)
        total += sum(len(exact[name]) for name in names)
    full.distance = half.distance = distance
    return changed, total
