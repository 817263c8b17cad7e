"""Task addition: one alpha for every task vector, chosen on validation, then one run on test."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from engine.errors import UsageError
from engine.evaluate.measures import nonlinear_scores, normalized_accuracy, wilson_interval
from engine.linearize import MODES
from engine.merging import share
from engine.provenance import provenance
from engine.responses import Responses, merged_scores, predictions, responses
from engine.task_vectors import combine

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

MERGED = "merged direction"  # stands beside the task vectors' names
ALPHAS = tuple(round(0.05 * k, 2) for k in range(21))
FARTHER = tuple(round(0.05 * k, 2) for k in range(41))  # methods that shrink the sum want more

# (coefficients by task, those not named 0; tasks to measure) -> right predictions by task
Measure = Callable[[Mapping[str, float], Sequence[str]], dict[str, int]]


def addition(
    encoder: "Encoder",
    mode: str,
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    validation: Mapping[str, "Split"],
    test: Mapping[str, "Split"],
    *,
    convention: str = "sum",
    direction: Mapping[str, Tensor] | None = None,
    alphas: Sequence[float] = ALPHAS,
    batch: int = 250,
    respond: Callable[["Task", "Split"], Responses] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    r"""Run the task addition benchmark.

    .. math:: \hat\alpha = \arg\max_\alpha \frac{1}{T} \sum_t
              \frac{acc_t[f(x; \theta_0 + \alpha \sum_s \tau_s)]}{acc_t[f(x; \theta_0 + \tau_t)]}

    on validation, the lowest alpha among equals; then everything is measured once on test. For
    "posthoc" and "linear", f is f_lin.

    Args:
        encoder: On the device to compute on.
        mode: In which the weights are read: "nonlinear", "posthoc" or "linear".
        tasks: By name.
        taus: Task vectors by task name.
        validation: Splits by task name.
        test: Splits by task name.
        convention: "sum", or "mean": alpha / T in the place of alpha.
        direction: What ``merging.prepare`` made of ``taus``, in the place of their sum.
        alphas: To choose from.
        batch: Images a pass.
        respond: Gives the responses of a split to ``taus``, for instance remembered ones; computed
            here by default. Linearized readings only.
        progress: Called as (settings measured, settings).

    Returns:
        Plain JSON values: {"encoder", "mode", "alpha", "absolute", "normalized", "zeroshot",
        "single": {task: accuracy}, "merged": {task: accuracy}, "validation": [{"alpha",
        "absolute", "normalized"}], "n": {task: images}} on test, and what made them. Accuracies
        are fractions; "intervals" are Wilson's at 95 %.

    Raises:
        UsageError: If the tasks of the arguments differ, or a single-task accuracy is 0.
        ValueError: If mode or convention do not exist, or there is no alpha.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3 ("Task addition"), Appendix A,
        Eq. (7).
    """
    if mode not in MODES or not alphas:
        raise ValueError(f"got mode {mode!r} and {len(alphas)} alphas, expected one of {MODES}")
    names = tuple(taus)
    check_tasks(names, tasks=tasks, validation=validation, test=test)
    report = Report(2 * len(names) + len(alphas) + 2, progress)
    vectors = dict(taus) if direction is None else {**taus, MERGED: direction}

    setting = shared_setting(names, convention)
    if direction is not None:
        setting = shared_setting([MERGED], "sum")

    def measuring(splits: Mapping[str, "Split"]) -> Measure:
        chosen = (
            {name: tasks[name] for name in names},
            vectors,
            {name: splits[name] for name in names},
        )
        return report.counting(measure_of(encoder, mode, *chosen, batch=batch, respond=respond))

    n_validation = {name: len(validation[name].labels) for name in names}
    curve = shared_curve(measuring(validation), n_validation, setting, alphas)
    alpha = best_of(curve)["alpha"]
    n = {name: len(test[name].labels) for name in names}
    return {
        "encoder": encoder.name,
        "mode": mode,
        "alpha": alpha,
        **tested(measuring(test), n, setting(alpha)),
        "validation": curve,
        "n": n,
        "n_validation": n_validation,
        "convention": convention,
        "exact": True,
        "encoder_digest": encoder.digest,
        "split_digests": {
            "validation": {name: validation[name].digest for name in names},
            "test": {name: test[name].digest for name in names},
        },
        **provenance(),
    }


def shared_setting(names: Sequence[str], convention: str) -> Callable[[float], dict[str, float]]:
    """Give the coefficients of all task vectors at one slider, alpha or alpha / T each."""
    factor = share(convention, len(names))
    return lambda alpha: dict.fromkeys(names, alpha * factor)


def shared_curve(
    measure: Measure,
    n: Mapping[str, int],
    setting: Callable[[float], Mapping[str, float]],
    alphas: Sequence[float],
) -> list[dict]:
    """Measure a merged model at each shared alpha.

    Args:
        measure: Counts right predictions.
        n: Images by task; its keys are the tasks merged.
        setting: Gives the coefficients of the task vectors at a shared alpha.
        alphas: Of the slider.

    Returns:
        Entries {"alpha", "absolute", "normalized"}: mean accuracy, and Eq. (7).
    """
    names = tuple(n)
    single = single_accuracies(measure, n)
    curve = []
    for alpha in alphas:
        counts = measure(setting(alpha), names)
        merged = {name: counts[name] / n[name] for name in names}
        curve.append({
            "alpha": float(alpha),
            "absolute": sum(merged.values()) / len(merged),
            "normalized": normalized_accuracy(merged, single),
        })
    return curve


def best_of(curve: Sequence[dict]) -> dict:
    """Return the entry of the highest normalized accuracy, the first one among equals."""
    return max(curve, key=lambda entry: entry["normalized"])


def single_accuracies(measure: Measure, n: Mapping[str, int]) -> dict[str, float]:
    """Measure each task with its own task vector at alpha = 1.

    Args:
        measure: Counts right predictions.
        n: Images by task.

    Returns:
        Accuracy by task.
    """
    return {name: measure({name: 1.0}, [name])[name] / n[name] for name in n}


def measure_of(
    encoder: "Encoder",
    mode: str,
    tasks: Mapping[str, "Task"],
    vectors: Mapping[str, Mapping[str, Tensor]],
    splits: Mapping[str, "Split"],
    *,
    batch: int,
    respond: Callable[["Task", "Split"], Responses] | None,
) -> Measure:
    """Give the measure of a reading.

    Args:
        encoder: On the device to compute on.
        mode: In which the weights are read.
        tasks: Those measured, by name.
        vectors: Task vectors, or directions, by name.
        splits: By task name.
        batch: Images a pass.
        respond: Gives the responses of a split to ``vectors``; computed here with None. Linearized
            readings only.

    Returns:
        A measure of the tasks.
    """
    if mode == "nonlinear":
        return nonlinear_measure(encoder, tasks, vectors, splits, batch)
    ask = respond or (lambda task, split: responses(encoder, task, split, vectors, batch))
    readings = {name: ask(task, splits[name]) for name, task in tasks.items()}
    return linearized_measure(readings, tuple(vectors))


def linearized_measure(readings: Mapping[str, Responses], names: Sequence[str]) -> Measure:
    """Give the measure of linearized readings: algebra on their responses.

    Args:
        readings: Responses by task.
        names: Of the task vectors that may be asked for.

    Returns:
        A measure of the tasks of ``readings``.
    """
    chosen = {task: reading.select(names) for task, reading in readings.items()}
    scores = {task: reading.scores() for task, reading in chosen.items()}

    def measure(alphas: Mapping[str, float], tasks: Sequence[str]) -> dict[str, int]:
        setting = [float(alphas.get(name, 0.0)) for name in names]
        guesses = {task: predictions(merged_scores(scores[task], setting)) for task in tasks}
        return {task: int((guesses[task] == chosen[task].labels).sum()) for task in tasks}

    return measure


def nonlinear_measure(
    encoder: "Encoder",
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    splits: Mapping[str, "Split"],
    batch: int,
) -> Measure:
    """Give the measure of the non-linear reading: forward passes of the merged weights.

    Args:
        encoder: On the device to compute on.
        tasks: By name.
        taus: Task vectors by name.
        splits: By task name.
        batch: Images a pass.

    Returns:
        A measure of the tasks of ``splits``.
    """
    heads = {name: encoder.head(tasks[name]) for name in splits}

    def measure(alphas: Mapping[str, float], wanted: Sequence[str]) -> dict[str, int]:
        theta = combine(encoder.theta0, {name: taus[name] for name in alphas}, alphas)
        counts = {}
        for name in wanted:
            split = splits[name]
            scores = nonlinear_scores(encoder, theta, split.images, heads[name], batch)
            counts[name] = int((predictions(scores) == split.labels).sum())
        return counts

    return measure


def tested(measure: Measure, n: Mapping[str, int], merged: Mapping[str, float]) -> dict:
    """Measure everything once, the merged model at the coefficients given.

    Args:
        measure: Counts right predictions on test.
        n: Images by task.
        merged: Coefficients by task vector.

    Returns:
        "absolute", "normalized", "zeroshot", "single", "merged", "zeroshot_tasks", "intervals".
    """
    names = tuple(n)
    counts = {
        "single": {name: measure({name: 1.0}, [name])[name] for name in names},
        "merged": measure(merged, names),
        "zeroshot_tasks": measure({}, names),
    }
    table = {
        kind: {name: right[name] / n[name] for name in names} for kind, right in counts.items()
    }
    return {
        "absolute": sum(table["merged"].values()) / len(names),
        "normalized": normalized_accuracy(table["merged"], table["single"]),
        "zeroshot": sum(table["zeroshot_tasks"].values()) / len(names),
        **table,
        "intervals": {
            kind: {name: list(wilson_interval(right[name], n[name])) for name in names}
            for kind, right in counts.items()
        },
    }


def check_tasks(names: Sequence[str], **given: Mapping) -> None:
    """Refuse arguments that speak of other tasks than the task vectors do.

    Raises:
        UsageError: Naming what is missing.
    """
    if not names:
        raise UsageError("no task vectors were given; choose at least one task")
    for what, mapping in given.items():
        missing = [name for name in names if name not in mapping]
        if missing:
            raise UsageError(f"{what} lacks {', '.join(missing)}; give it for every task vector")


class Report:
    """Counts settings measured and tells the caller."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def counting(self, measure: Measure) -> Measure:
        """Return the same measure, which reports each call."""

        def counted(alphas: Mapping[str, float], tasks: Sequence[str]) -> dict[str, int]:
            counts = measure(alphas, tasks)
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total)
            return counts

        return counted
