"""What can be asked of local energies."""

from dataclasses import dataclass

POINTS = 200  # of the task, of the control, and held out: the paper's
MOST_POINTS = 1000
LOGITS = ("1", "2", "3", "10", "all", "trace")
LOGIT_TITLES = {
    "1": "1 logit",
    "2": "2 logits",
    "3": "3 logits",
    "10": "10 logits",
    "all": "every logit",
    "trace": "trace kernel",
}
READOUT = "cosine"  # f_c = w_c . z / |z|


@dataclass(frozen=True)
class Question:
    """Whose eigenfunctions, between which tasks, on how many points.

    ``task`` and ``control`` are what ``load_task`` takes; ``logits`` is one of :data:`LOGITS`;
    ``limit`` is how many of the first train images points are drawn from, None for the engine's
    choice.
    """

    encoder: str
    task: str
    control: str
    points: int
    logits: str
    seed: int = 0
    limit: int | None = None


def logits_argument(logits: str, classes: int) -> int | str:
    """Return a choice of logits as the engine takes it.

    Args:
        logits: One of :data:`LOGITS`.
        classes: How many the task has.

    Returns:
        A number, "all" or "trace".
    """
    return min(int(logits), classes) if logits.isdecimal() else logits
