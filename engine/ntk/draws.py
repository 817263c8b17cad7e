"""What a local energy is measured on: points of three blocks, and logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.errors import UsageError
from engine.tasks import Split, Task


def draw_points(
    task: Task, control: Task, task_split: Split, control_split: Split, n: int, seed: int
) -> dict[str, Tensor]:
    """Draw the points of the three blocks, without replacement.

    Args:
        task: For the message.
        control: For the message.
        task_split: 2 n images or more.
        control_split: n images or more.
        n: Points of each block.
        seed: Of the draw.

    Returns:
        Places in the splits under "task", "heldout" and "control", each int64 of shape (n,).

    Raises:
        UsageError: If a split is too small, n below 2, or task and control are the same.
    """
    if task.name == control.name:
        raise UsageError(f"task and control are both {task.name}; choose another control")
    if n < 2:
        raise UsageError(f"got {n} points; give --points 2 or more")
    for name, split, need in (
        (task.name, task_split, 2 * n),
        (control.name, control_split, n),
    ):
        if len(split.labels) < need:
            raise UsageError(
                f"{n} points need {need} images of {name} and its {split.name} split has "
                f"{len(split.labels)}; give fewer --points"
            )

    def drawn(split: Split) -> Tensor:
        return torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))

    own = drawn(task_split)
    return {"task": own[:n], "heldout": own[n : 2 * n], "control": drawn(control_split)[:n]}


def choose_logits(logits: int | str | Sequence[str], classnames: Sequence[str]) -> list[int]:
    """Read which logits are asked for.

    Args:
        logits: So many classes, evenly spaced in their order; "all" or "trace"; or names.
        classnames: C names.

    Returns:
        Class indices; all of them for "trace".

    Raises:
        UsageError: If a name is unknown or the number is not from 1 to C.
    """
    C = len(classnames)
    if logits in ("all", "trace"):
        return list(range(C))
    if isinstance(logits, int):
        if not 1 <= logits <= C:
            raise UsageError(f"got {logits} logits, expected from 1 to {C}, or all, or trace")
        return [i * C // logits for i in range(logits)]
    names = [logits] if isinstance(logits, str) else list(dict.fromkeys(logits))
    unknown = [name for name in names if name not in classnames]
    if unknown or not names:
        raise UsageError(
            f"no class is called {', '.join(map(repr, unknown)) or 'that'}; choose among "
            f"{', '.join(classnames)}"
        )
    return [list(classnames).index(name) for name in names]
