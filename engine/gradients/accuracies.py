"""Merged accuracy along the paths: after every mark of epochs and at every alpha, exact."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.evaluate import nonlinear_scores, normalized_accuracy, wilson_interval
from engine.finetune.adamw import Layout
from engine.gradients.path import Path
from engine.gradients.pieces import Pieces
from engine.responses import correct_over, predictions, responses

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task

Z = 1.96  # standard deviations of a 95 % interval


@dataclass(frozen=True, eq=False)
class Reader:
    """Who counts right predictions of one mode on one split of every task.

    Attributes:
        encoder: In the precision to predict in.
        mode: "nonlinear" or "linear".
        tasks: By name.
        splits: By name.
        batch: Images a pass.
        tick: Called between passes over a split; may raise to stop.
    """

    encoder: "Encoder"
    mode: str
    tasks: Mapping[str, "Task"]
    splits: Mapping[str, "Split"]
    batch: int = 250
    tick: Callable[[], None] = lambda: None

    @property
    def n(self) -> dict[str, int]:
        """Images by task."""
        return {name: len(split.labels) for name, split in self.splits.items()}

    def along(self, task: str, direction: Tensor, alphas: Sequence[float]) -> list[float]:
        r"""Measure accuracy at theta_0 + alpha times a direction.

        Args:
            task: Whose images and head.
            direction: Shape (P,).
            alphas: A of them.

        Returns:
            A fractions.
        """
        split, layout = self.splits[task], Layout(self.encoder.theta0)
        moved = direction.to(layout.theta0)
        if self.mode == "linear":
            named = {"direction": layout.split(moved)}
            reading = responses(self.encoder, self.tasks[task], split, named, self.batch)
            grid = torch.tensor(list(alphas), dtype=torch.float64)[:, None]
            counts = correct_over(reading.scores(), split.labels, grid).tolist()
            self.tick()
            return [count / len(split.labels) for count in counts]
        head, found = self.encoder.head(self.tasks[task]), []
        for alpha in alphas:
            theta = layout.split(layout.theta0 + alpha * moved)
            scores = nonlinear_scores(self.encoder, theta, split.images, head, self.batch)
            found.append(int((predictions(scores) == split.labels).sum()) / len(split.labels))
            self.tick()
        return found

    def at(self, direction: Tensor) -> dict[str, float]:
        """Measure accuracy at theta_0 + a direction, by task."""
        return {task: self.along(task, direction, [1.0])[0] for task in self.tasks}


def merged(
    paths: Mapping[str, Path],
    marks: Sequence[int],
    alphas: Sequence[float],
    test: Reader,
    validation: Reader,
    pieces: Pieces | None = None,
) -> dict:
    r"""Measure the merge of what the tasks have learnt after so many epochs.

    .. math:: acc_t[f(x; \theta_0 + \alpha \sum_{t'} \tau_{t'}^{(k)})]

    Args:
        paths: By task.
        marks: Epochs k.
        alphas: Coefficients.
        test: Reads what is reported.
        validation: Reads what alpha is chosen by.
        pieces: To go on from.

    Returns:
        The section "merged" of one mode, as docs/design.md says.

    Source:
        Zhou et al., On Task Vectors and Gradients (abstract); normalized: Ortiz-Jimenez et al.
        (2023), arXiv:2305.12827, Eq. (7).
    """
    pieces, rows = pieces or Pieces(), []
    for i, mark in enumerate(marks):
        pieces.told("merged accuracy", i, len(marks))
        rows.append(
            pieces.value(
                f"merged-{mark}", lambda k=mark: _at_mark(paths, k, alphas, test, validation)
            )
        )
    pieces.told("merged accuracy", len(marks), len(marks))
    return {
        "epochs": list(marks),
        "alphas": list(alphas),
        "zeroshot": pieces.value("zeroshot", lambda: _zeroshot(test, paths)),
        **_tables(rows, list(paths), "test"),
        "n": test.n,
        "validation": {**_tables(rows, list(paths), "validation"), "n": validation.n},
    }


def early(table: Mapping) -> list[dict]:
    r"""Choose alpha for the merge after every mark, and set it beside the mean.

    Args:
        table: From ``merged``.

    Returns:
        The section "early" of one mode: for each mark the alpha that is best on validation by
        normalized accuracy (the smallest among equals), and 1/T, the mean of the task vectors.

    Source:
        Zhou et al., On Task Vectors and Gradients (abstract): merging after one epoch performs
        comparably.
    """
    T, rows = len(table["accuracy"]), []
    mean = min(range(len(table["alphas"])), key=lambda a: abs(table["alphas"][a] - 1 / T))
    for e, epoch in enumerate(table["epochs"]):
        said = table["validation"]
        scores = [score or 0.0 for score in said["normalized"][e]]
        best = max(range(len(scores)), key=lambda a: (scores[a], -a))
        for a, at_mean in ((best, False), (mean, True)):
            found = {t: table["accuracy"][t][e][a] for t in table["accuracy"]}
            rows.append({
                "epoch": epoch,
                "alpha": table["alphas"][a],
                "at_mean": at_mean,
                **{
                    kind: table[kind][e][a]
                    for kind in ("absolute", "normalized", "normalized_converged")
                },
                **mean_interval(found, table["n"]),
                "tasks": {
                    t: {
                        "accuracy": value,
                        **_interval(value, table["n"][t]),
                        "single": table["single"][t][e],
                    }
                    for t, value in found.items()
                },
            })
    return rows


def mean_interval(found: Mapping[str, float], n: Mapping[str, int]) -> dict[str, float]:
    r"""Bound the mean of several accuracies, given how many images each rests on.

    .. math:: \bar p \pm \frac{1.96}{T} \sqrt{\sum_t p_t (1 - p_t) / n_t}

    Args:
        found: Accuracy by task.
        n: Images by task.

    Returns:
        "low" and "high", for 95 %: of the images alone, not of training.

    Source:
        The normal approximation of a sum of independent binomials.
    """
    mean = sum(found.values()) / len(found)
    spread = math.sqrt(sum(p * (1 - p) / n[t] for t, p in found.items())) * Z / len(found)
    return {"low": max(0.0, mean - spread), "high": min(1.0, mean + spread)}


def _interval(value: float, n: int) -> dict[str, float]:
    """Return Wilson's interval of an accuracy."""
    low, high = wilson_interval(round(value * n), n)
    return {"low": low, "high": high}


def _at_mark(
    paths: Mapping[str, Path],
    mark: int,
    alphas: Sequence[float],
    test: Reader,
    validation: Reader,
) -> dict:
    """Return accuracies of the merge and of each task's own model after so many epochs."""
    taus = {name: path.tau(mark) for name, path in paths.items()}
    direction = sum(taus.values())
    return {
        name: {
            task: {
                "merged": reader.along(task, direction, alphas),
                "own": reader.along(task, taus[task], [1.0])[0],
            }
            for task in taus
        }
        for name, reader in (("test", test), ("validation", validation))
    }


def _zeroshot(reader: Reader, paths: Mapping[str, Path]) -> dict[str, float]:
    """Return the accuracies at theta_0."""
    return reader.at(torch.zeros_like(next(iter(paths.values())).last))


def _tables(rows: Sequence[Mapping], tasks: Sequence[str], split: str) -> dict:
    """Return the accuracies of one split as tables of marks and alphas."""
    single = {t: [row[split][t]["own"] for row in rows] for t in tasks}
    accuracy = {t: [row[split][t]["merged"] for row in rows] for t in tasks}
    A = range(len(rows[0][split][tasks[0]]["merged"]))

    def table(measure: Callable[[dict[str, float], int], float | None]) -> list[list]:
        return [
            [measure({t: accuracy[t][e][a] for t in tasks}, e) for a in A] for e in range(len(rows))
        ]

    def against(denominators: Callable[[int], int]) -> list[list]:
        def measure(found: dict[str, float], e: int) -> float | None:
            own = {t: single[t][denominators(e)] for t in tasks}
            return normalized_accuracy(found, own) if all(own.values()) else None

        return table(measure)

    return {
        "accuracy": accuracy,
        "single": single,
        "absolute": table(lambda found, _: sum(found.values()) / len(found)),
        "normalized": against(lambda e: e),
        "normalized_converged": against(lambda _: len(rows) - 1),
    }
