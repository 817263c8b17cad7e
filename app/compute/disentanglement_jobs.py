"""Maps of the non-linear reading as background jobs: their words, and the cells they have."""

from collections.abc import Sequence

from app.compute.disentanglement import Map, Vectors, as_map
from engine.jobs import Job

VERB = "disentanglement"


def words(
    vectors: Vectors,
    tasks: Sequence[str],
    grid: int,
    limits: tuple[float, float],
    distance: str,
    images: int,
) -> list[str]:
    """Return the command line that computes a map, the same whichever task comes first.

    Args:
        vectors: The non-linear reading.
        tasks: The pair.
        grid: Points an axis.
        limits: The first and the last alpha.
        distance: "error", "tv" or "kl".
        images: Images a task.
    """
    from engine.disentanglement import GRID, REACH

    chosen = [item for name, item in vectors.checkpoints.items() if name in tasks]
    line = [VERB, "--encoder", vectors.encoder, "--tasks", *(item.reference for item in chosen)]
    line += ["--mode", "nonlinear", "--images", str(images)]
    seeds = {item.seed for item in chosen}
    if len(seeds) == 1 and None not in seeds:  # of two seeds the verb takes the newest, as here
        line += ["--seed", str(*seeds)]
    line += ["--grid", str(grid)] if grid != GRID else []
    low, high = limits
    if (low, high) != (-REACH, REACH):
        line += ["--range", *(f"{end:g}" for end in ((high,) if low == -high else (low, high)))]
    return line + (["--distance", distance] if distance != "error" else [])


def so_far(job: Job, tasks: tuple[str, str], encoder: str) -> Map | None:
    """Return the cells that a job has computed.

    Args:
        job: At work, or stopped.
        tasks: The pair, in the order it is shown.
        encoder: Its name.

    Returns:
        The map, NaN where a cell is not computed; None before the first cell.

    Raises:
        CheckpointError: If its working state is damaged.
    """
    from engine.disentanglement import map_so_far
    from engine.store import default_store

    for name in job.working:
        found = map_so_far(default_store(), name, encoder)
        if found is not None and set(found.tasks) == set(tasks):
            return as_map(found if found.tasks == tasks else found.swapped())
    return None
