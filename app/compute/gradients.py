"""Kept answers of how far task vectors are gradients, as the Gradients page draws them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.compute import models
from app.compute.background import Work, board
from app.state import GRADIENT_MODES, REGIMES

METHODS = ("one-shot", "ATM", "joint")
MEASURES = ("absolute", "normalized", "normalized_converged")


@dataclass(frozen=True, eq=False)
class Answer:
    """One kept answer.

    Attributes:
        run: Short name, made of what was asked; two answers to one question share it.
        record: What ``gradients --json`` printed.
    """

    run: str
    record: Mapping[str, Any]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return self.record["tasks"]

    @property
    def modes(self) -> list[str]:
        """The modes measured."""
        return [mode for mode in GRADIENT_MODES if mode in self.record["modes"]]

    def title(self, task: str) -> str:
        """Return what a reader sees of a task."""
        return self.record["titles"][task]

    def titles(self) -> list[str]:
        """Return what a reader sees of the tasks."""
        return [self.title(task) for task in self.tasks]

    def each(self, section: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Return what a section says of each task, in the order of the tasks.

        What the store gives back is in the order of the alphabet.
        """
        return [(task, section["tasks"][task]) for task in self.tasks]

    def layers(self, part: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Return what a task's section says of each layer, from input to output."""
        return [(layer, part["layers"][layer]) for layer in self.record["layers"]]

    def part(self, section: str, mode: str) -> Mapping[str, Any] | None:
        """Return a section of a mode; None where it was not asked or does not exist."""
        return (self.record[section] or {}).get(mode)


def kept(encoder: str) -> dict[str, list[Answer]]:
    """Return what was measured of an encoder's weights.

    Args:
        encoder: Its name.

    Returns:
        By regime, in their order: answers to different questions, those with most sections first,
        then the newest; of one question each section's newest answer.
    """
    from engine.gradients import joined, kept_gradients
    from engine.store import default_store

    records = kept_gradients(default_store(), models.encoder(encoder).digest)
    found: dict[str, dict[str, Answer]] = {regime: {} for regime in REGIMES}
    for record in joined(records):
        run = run_of(record)
        found[record["regime"]].setdefault(run, Answer(run, record))
    return {regime: list(answers.values()) for regime, answers in found.items()}


def holding(answers: Sequence[Answer], section: str) -> Answer | None:
    """Return the first answer that has a section, None without one."""
    return next((answer for answer in answers if answer.record[section] is not None), None)


def run_of(record: Mapping[str, Any]) -> str:
    """Name an answer by what was asked: eight hex digits, the same on every machine."""
    asked = {key: record[key] for key in ("regime", "tasks", "modes", "epochs", "seed", "batch")}
    asked |= {key: record[key] for key in ("images", "precision", "n_test", "n_validation")}
    asked["rate"] = {mode: f"{rate:.5e}" for mode, rate in record["rate"].items()}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def named(answer: Answer) -> str:
    """Say in a line what was asked: tasks, epochs, rates (non-linear / linear), images, seed."""
    record = answer.record
    rates = " / ".join(dict.fromkeys(f"{record['rate'][mode]:.3g}" for mode in answer.modes))
    images = _span(record["images"].values())
    words = f"{len(answer.tasks)} tasks, {record['epochs']} epochs, η = {rates}, {images} images"
    return f"{words}, seed {record['seed']}{_partly(record)}"


def _partly(record: Mapping[str, Any]) -> str:
    """Say which parts of a regime's answer were asked, where it is not all of them."""
    there = [name for name in ("exactness", "trajectory", "merged", "iterative", "bridge")
             if name != "exactness" or record["regime"] == "gd"]  # fmt: skip
    held = [name for name in there if record[name] is not None]
    if len(held) == len(there):
        return ""
    if 2 * len(held) < len(there):
        return f", {' and '.join(held)} only"
    return f", without {' and '.join(name for name in there if name not in held)}"


def about(answer: Answer) -> str:
    """Say whether numbers are exact, of what, and on how many images."""
    record = answer.record
    kind = "Exact" if record["exact"] else "Approximate"
    n = f"n = {_span(record['images'].values())} training images a task"
    return f"{kind}, {record['precision']}, {n}, {record['encoder']}, seed {record['seed']}"


def exactly(answer: Answer, mode: str) -> str:
    """Say what the numbers of exactness are, which are of fewer images, always in float64."""
    n = _span(answer.part("exactness", mode)["images"].values())
    record = answer.record
    return f"Exact, float64, n = {n} training images a task, {record['encoder']}"


def tested(answer: Answer) -> str:
    """Say on how many test images accuracies were measured."""
    return f"n = {_span(answer.record['n_test'].values())} test images a task"


def _span(counts: Sequence[int]) -> str:
    counts = sorted(set(counts))
    return " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))


# ---------------------------------------------------------------------------------- exactness


def worst_equalities(answer: Answer, mode: str) -> dict[str, tuple[float | None, float | None]]:
    """Return how far each equality is from holding, over tasks: in ulps and relative.

    Args:
        answer: With exactness of that mode.
        mode: Of training.

    Returns:
        {"one_step", "one_step_float32", "telescoping", "merge"}: (ulps, relative) of the worst;
        None where it was not measured.
    """
    found = answer.part("exactness", mode)
    tasks = found["tasks"].values()

    def worst(part: str, suffix: str = "") -> tuple[float | None, float | None]:
        ulps, relative = (
            [task[part][f"{kind}{suffix}"] for task in tasks] for kind in ("ulps", "relative")
        )
        return _most(ulps), _most(relative)

    return {
        "one_step": worst("one_step"),
        "one_step_float32": worst("one_step", "_float32"),
        "telescoping": worst("telescoping"),
        "merge": (max(found["merge"]["ulps"]), None),
    }


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def layers_of(
    answer: Answer, mode: str, task: str, place: int
) -> dict[str, dict[str, float | None]]:
    """Return how large the error is in each layer at one rate, against the layer's displacement.

    Args:
        answer: With exactness of that mode.
        mode: Of training.
        task: Name.
        place: Of the rate.

    Returns:
        By layer: {"raw", "corrected"}: error over displacement; None where nothing moved.
    """

    def ratio(error: float, moved: float) -> float | None:
        return error / moved if moved else None

    return {
        layer: {
            name: ratio(found[name][place], found["displacement"][place])
            for name in ("raw", "corrected")
        }
        for layer, found in answer.layers(answer.part("exactness", mode)["tasks"][task])
    }


def check(visitor: str) -> Work:
    """Start, or find, the check of every statement on a small smooth network, in float64.

    Args:
        visitor: Who asks.

    Returns:
        Work whose result is what ``gradients --check --json`` prints.
    """

    def compute(work: Work) -> dict:
        from engine.gradients import check as run

        work.step(0, 1, "checking every statement in float64")
        return run()

    return board().start("gradients check", visitor, "gradients check", compute)


# ------------------------------------------------------------------------------ the live slider


def live(answer: Answer, mode: str, epoch: int, alpha: float | None, revision: int) -> dict:
    """Return what the epochs explorer shows.

    Args:
        answer: With merged accuracies of that mode.
        mode: Of training.
        epoch: Where the slider stands.
        alpha: The same; None: at each epoch the one chosen on validation.
        revision: Raised when the page, not its user, moves the sliders.
    """
    merged = answer.part("merged", mode)
    return {
        "revision": revision,
        "epoch": epoch,
        "alpha": alpha,
        "epochs": merged["epochs"],
        "alphas": merged["alphas"],
        "last": answer.record["epochs"],
        "chosen": chosen_places(answer, mode),
        "mean": _place(merged["alphas"], 1 / len(answer.tasks)),
        "tasks": [
            {
                "name": task,
                "title": answer.title(task),
                "n": merged["n"][task],
                "zeroshot": merged["zeroshot"][task],
                "single": merged["single"][task],
                "merged": merged["accuracy"][task],
            }
            for task in answer.tasks
        ],
        "absolute": merged["absolute"],
        "normalized": merged["normalized"],
        "converged": merged["normalized_converged"],
        "plane": plane(answer, mode),
        "note": f"top-1 accuracy in %, exact, {tested(answer)}",
    }


def chosen_places(answer: Answer, mode: str) -> list[int]:
    """Return the place of the alpha chosen on validation, for each epoch of the slider."""
    merged = answer.part("merged", mode)
    rows = early_rows(answer, mode, at_mean=False)
    return [_place(merged["alphas"], rows[epoch]["alpha"]) for epoch in merged["epochs"]]


def plane(answer: Answer, mode: str) -> dict | None:
    """Return the projection as the explorer draws it; None where there is none."""
    trajectory = answer.part("trajectory", mode)
    if trajectory is None:
        return None
    found = trajectory["projection"]
    x, y = (f"{100 * share:.0f} % of the variation" for share in found["explained"])
    return {
        "x": f"θ − θ₀ along direction 1 ({x})",
        "y": f"direction 2 ({y})",
        "alpha": found["alpha"],
        "paths": [found["paths"][task] for task in answer.tasks],
        "joint": found["joint"],
    }


def _place(values: Sequence[float], wanted: float) -> int:
    return min(range(len(values)), key=lambda place: abs(values[place] - wanted))


# ----------------------------------------------------------------------------- early and bridge


def early_rows(answer: Answer, mode: str, *, at_mean: bool) -> dict[int, Mapping[str, Any]]:
    """Return what merging after so many epochs gives, by epoch.

    Args:
        answer: With that section.
        mode: Of training.
        at_mean: Whether alpha is 1 / T; else it was chosen on validation.
    """
    rows = answer.part("early", mode) or []
    return {row["epoch"]: row for row in rows if row["at_mean"] == at_mean}


def points(answer: Answer, alpha: float) -> list[Mapping[str, Any]]:
    """Return the points of the bridge at one alpha."""
    found = answer.record["bridge"]
    return [point for point in found["points"] if point["alpha"] == alpha]


def largest(tables: Sequence[Sequence[Sequence[float | None]]]) -> float:
    """Return the largest entry of several matrices, the end of colours that they share."""
    return _most([value for table in tables for row in table for value in row]) or 1.0
