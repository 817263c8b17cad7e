"""Task negation: subtract a task vector so that its task is forgotten and the control task kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from engine.errors import UsageError
from engine.evaluate.addition import ALPHAS, Measure, measure_of
from engine.evaluate.measures import wilson_interval
from engine.linearize import MODES
from engine.provenance import provenance
from engine.responses import Responses

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

KEEP = 0.95  # of the pre-trained model's accuracy on the control task


def negation(
    encoder: "Encoder",
    mode: str,
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    control: "Task",
    validation: Mapping[str, "Split"],
    test: Mapping[str, "Split"],
    *,
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

    Args:
        encoder: On the device to compute on.
        mode: In which the weights are read: "nonlinear", "posthoc" or "linear".
        tasks: Target tasks by name.
        taus: Task vectors by task name.
        control: The control task.
        validation: Splits by task name, the control's too.
        test: Splits by task name, the control's too.
        alphas: To choose from; 0 is always among them, so that some alpha keeps the control.
        keep: Share of the control accuracy that must be left.
        batch: Images a pass.
        respond: Gives the responses of a split to ``taus``, for instance remembered ones; computed
            here by default. Linearized readings only.
        progress: Called as (settings measured, settings).

    Returns:
        Plain JSON values: {"target_pretrained", "target", "control_pretrained", "control"}: means
        over tasks, on test; "control_validation_pretrained"; "tasks": {task: {"alpha", "target",
        "control", "target_pretrained", "target_validation", "control_validation", "intervals",
        "curve": [{"alpha", "target_validation", "control_validation"}]}}; and what made them.
        Accuracies are fractions.

    Raises:
        UsageError: If the control is one of the tasks, or a split is missing.
        ValueError: If the mode does not exist.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3 ("Task negation"), Appendix A,
        Table 2.
    """
    if mode not in MODES:
        raise ValueError(f"got mode {mode!r}, expected one of {MODES}")
    names = tuple(taus)
    _check(names, control.name, tasks, validation, test)
    grid = sorted({0.0, *map(float, alphas)})
    everything = {**tasks, control.name: control}
    done, total = 0, len(names) * (len(grid) + 1)

    def measuring(splits: Mapping[str, "Split"]) -> Measure:
        return measure_of(encoder, mode, everything, taus, splits, batch=batch, respond=respond)

    def pair(measure: Measure, name: str, alpha: float) -> tuple[int, int]:
        nonlocal done
        right = measure({name: -alpha}, [name, control.name])
        done += 1
        if progress is not None:
            progress(done, total)
        return right[name], right[control.name]

    on_validation, on_test = measuring(validation), measuring(test)
    n_validation = {name: len(validation[name].labels) for name in everything}
    n = {name: len(test[name].labels) for name in everything}
    intact = on_validation({}, [control.name])[control.name]
    zeroshot = on_test({}, list(everything))
    table = {}
    for name in names:
        curve = [(alpha, *pair(on_validation, name, alpha)) for alpha in grid]
        alpha, target, kept = _chosen(curve, keep * intact)
        measured = pair(on_test, name, alpha)
        table[name] = {
            "alpha": alpha,
            "target_pretrained": zeroshot[name] / n[name],
            **_tested(measured, (n[name], n[control.name])),
            "target_validation": target / n_validation[name],
            "control_validation": kept / n_validation[control.name],
            "curve": [
                {
                    "alpha": alpha,
                    "target_validation": right / n_validation[name],
                    "control_validation": left / n_validation[control.name],
                }
                for alpha, right, left in curve
            ],
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


def _chosen(curve: Sequence[tuple[float, int, int]], least: float) -> tuple[float, int, int]:
    """Return the entry (alpha, target, control) that forgets most and keeps the control."""
    allowed = [entry for entry in curve if entry[2] >= least]
    return min(allowed, key=lambda entry: (entry[1], entry[0]))


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
