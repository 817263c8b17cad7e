"""Task negation: subtract a task vector so that its task is forgotten and the control task kept."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from torch import Tensor

from engine.errors import UsageError
from engine.evaluate.addition import ALPHAS, MERGED, Measure, Report, measure_of
from engine.evaluate.measures import wilson_interval
from engine.linearize import MODES
from engine.provenance import provenance
from engine.responses import Responses

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

KEEP = 0.95  # of the pre-trained model's accuracy on the control task

# alpha, and right predictions by task
_Entry = tuple[float, Mapping[str, int]]


def negation(
    encoder: "Encoder",
    mode: str,
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    control: "Task",
    validation: Mapping[str, "Split"],
    test: Mapping[str, "Split"],
    *,
    direction: Mapping[str, Tensor] | None = None,
    alphas: Sequence[float] = ALPHAS,
    keep: float = KEEP,
    batch: int = 250,
    respond: Callable[["Task", "Split"], Responses] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    r"""Run the task negation benchmark.

    .. math:: \hat\alpha_t = \arg\min_\alpha acc_t[f(x; \theta_0 - \alpha \tau_t)] \quad
              \text{s.t. } acc_c[f(x; \theta_0 - \alpha \tau_t)] \ge 0.95\, acc_c[f(x; \theta_0)]

    for each task t by itself, both accuracies on validation, the lowest alpha among equals;
    everything is then measured once on test. For "posthoc" and "linear", f is f_lin.

    With a direction :math:`m(\tau_1, .., \tau_T)` all tasks are forgotten at once, with one alpha:

    .. math:: \hat\alpha = \arg\min_\alpha \frac{1}{T} \sum_t acc_t[f(x; \theta_0 - \alpha m)]
              \quad \text{s.t. } acc_c[f(x; \theta_0 - \alpha m)] \ge 0.95\, acc_c[f(x; \theta_0)]

    Args:
        encoder: On the device to compute on.
        mode: In which the weights are read: "nonlinear", "posthoc" or "linear".
        tasks: Target tasks by name.
        taus: Task vectors by task name.
        control: The control task.
        validation: Splits by task name, the control's too.
        test: Splits by task name, the control's too.
        direction: What ``merging.prepare`` made of ``taus``: subtracted in their place.
        alphas: To choose from; 0 is always among them, so that some alpha keeps the control.
        keep: Share of the control accuracy that must be left.
        batch: Images a pass.
        respond: Gives the responses of a split to ``taus``, or to the direction alone, named
            ``MERGED``, for instance remembered ones; computed here by default. Linearized readings
            only.
        progress: Called as (settings measured, settings).

    Returns:
        Plain JSON values: {"target_pretrained", "target", "control_pretrained", "control"}: means
        over tasks, on test; "control_validation_pretrained"; "tasks": {task: {"alpha", "target",
        "control", "target_pretrained", "target_validation", "control_validation", "intervals",
        "curve": [{"alpha", "target_validation", "control_validation"}]}}; and what made them.
        Accuracies are fractions. Along a direction alpha and the control's figures are the same in
        every task.

    Raises:
        UsageError: If the control is one of the tasks, or a split is missing.
        ValueError: If the mode does not exist.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3 ("Task negation"), Appendix A,
        Table 2. Several tasks at once, by a merging method: ours.
    """
    if mode not in MODES:
        raise ValueError(f"got mode {mode!r}, expected one of {MODES}")
    names = tuple(taus)
    _check(names, control.name, tasks, validation, test)
    everything = {**tasks, control.name: control}
    # each edit: the vector that is subtracted, and the tasks it is to make forgotten
    edits = [(name, (name,)) for name in names] if direction is None else [(MERGED, names)]
    vectors = taus if direction is None else {MERGED: direction}
    grid = sorted({0.0, *map(float, alphas)})
    report = Report(len(edits) * (len(grid) + 1) + 2, progress)

    def measuring(splits: Mapping[str, "Split"]) -> Measure:
        given = everything, vectors, splits
        return report.counting(measure_of(encoder, mode, *given, batch=batch, respond=respond))

    on_validation, on_test = measuring(validation), measuring(test)
    n_validation = {name: len(validation[name].labels) for name in everything}
    n = {name: len(test[name].labels) for name in everything}
    intact = on_validation({}, [control.name])[control.name]
    zeroshot = on_test({}, list(everything))
    table = {}
    for vector, targets in edits:
        measured = [*targets, control.name]
        curve = [(a, on_validation({vector: -a}, measured)) for a in grid]
        chosen = _chosen(curve, targets, control.name, keep * intact, n_validation)
        right = on_test({vector: -chosen[0]}, measured)
        for name in targets:
            table[name] = {
                "target_pretrained": zeroshot[name] / n[name],
                **_tested((right[name], right[control.name]), (n[name], n[control.name])),
                **_point(chosen, name, control.name, n_validation),
                "curve": [_point(entry, name, control.name, n_validation) for entry in curve],
            }
    return {
        "encoder": encoder.name,
        "mode": mode,
        "target_pretrained": _mean(row["target_pretrained"] for row in table.values()),
        "target": _mean(row["target"] for row in table.values()),
        "control_pretrained": zeroshot[control.name] / n[control.name],
        "control": _mean(row["control"] for row in table.values()),
        "control_validation_pretrained": intact / n_validation[control.name],
        "tasks": table,
        "control_task": control.name,
        "keep": keep,
        "n": n,
        "n_validation": n_validation,
        "exact": True,
        "encoder_digest": encoder.digest,
        "split_digests": {
            "validation": {name: validation[name].digest for name in everything},
            "test": {name: test[name].digest for name in everything},
        },
        **provenance(),
    }


def _chosen(
    curve: Sequence[_Entry],
    targets: Sequence[str],
    control: str,
    least: float,
    n: Mapping[str, int],
) -> _Entry:
    """Return the entry that forgets most, by mean accuracy, and keeps the control."""
    allowed = [entry for entry in curve if entry[1][control] >= least]

    def left(entry: _Entry) -> tuple[Fraction, float]:  # exact, so that equals are equal
        alpha, right = entry
        return sum(Fraction(right[name], n[name]) for name in targets), alpha

    return min(allowed, key=left)


def _point(entry: _Entry, target: str, control: str, n: Mapping[str, int]) -> dict[str, float]:
    """Return one setting's accuracies on validation."""
    alpha, right = entry
    return {
        "alpha": alpha,
        "target_validation": right[target] / n[target],
        "control_validation": right[control] / n[control],
    }


def _tested(right: tuple[int, int], n: tuple[int, int]) -> dict:
    """Return accuracies and Wilson's intervals of target and control."""
    kinds = dict(zip(("target", "control"), zip(right, n, strict=True), strict=True))
    return {
        **{kind: correct / count for kind, (correct, count) in kinds.items()},
        "intervals": {kind: list(wilson_interval(*pair)) for kind, pair in kinds.items()},
    }


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def _check(names: Sequence[str], control: str, tasks, validation, test) -> None:
    """Refuse arguments that do not speak of the same tasks.

    Raises:
        UsageError: Naming what is wrong.
    """
    if not names:
        raise UsageError("no task vectors were given; choose at least one task")
    if control in names:
        raise UsageError(f"{control} cannot be forgotten and kept; choose another control task")
    for what, given in (("tasks", tasks), ("validation", validation), ("test", test)):
        wanted = names if what == "tasks" else (*names, control)
        missing = [name for name in wanted if name not in given]
        if missing:
            raise UsageError(f"{what} lacks {', '.join(missing)}; give it for every task vector")
