"""One answer of ``gradients`` in the making: its images, paths and sections."""

import argparse
import dataclasses
import time
from collections.abc import Callable

import torch

from engine.encoders import Encoder
from engine.errors import UsageError
from engine.finetune import recipe_for
from engine.gradients import (
    Objective,
    Path,
    Pieces,
    Reader,
    Regime,
    bridge,
    early,
    exactness,
    follow,
    iterative,
    merged,
    objective_of,
    spectral_norm,
    trajectory,
)
from engine.gradients.bridge import ALPHAS
from engine.jobs import reporting
from engine.provenance import provenance
from engine.task_vectors import norms_by_layer
from engine.tasks import Split, Task

DOUBLE_BELOW = 5_000_000  # parameters: up to here the theorem's paths are walked in float64
BATCH = 128
# alphas of the live slider, beside 1/T
ALWAYS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)


class Run:
    """One answer in the making."""

    def __init__(
        self,
        args: argparse.Namespace,
        encoder: Encoder,
        tasks: dict[str, Task],
        load: Callable[[Task, str, int | None], Split],
        stop: Callable[[], None],
        pieces: Pieces,
    ) -> None:
        self.args, self.encoder, self.tasks, self.stop = args, encoder, tasks, stop
        self.pieces, self.load = pieces, load
        self.batch = None if args.regime == "gd" else args.batch or BATCH
        self.train = {n: self._drawn(t) for n, t in tasks.items()}
        self.test = {n: load(t, "test", args.limit) for n, t in tasks.items()}
        self.validation = {n: load(t, "validation", args.limit) for n, t in tasks.items()}
        self.walked = self._in_precision()
        self.rate: dict[str, float] = {}

    def record(self) -> dict:
        """Return the whole answer."""
        began, args = time.perf_counter(), self.args
        reporting.parts(self._parts())
        found = {section: {} for section in ("exactness", "trajectory", "merged", "early",
                                             "iterative")}  # fmt: skip
        bridges = {}
        for mode in args.modes:
            sections = self._mode(mode)
            bridges[mode] = sections.pop("bridge", None)
            for name, section in sections.items():
                found[name][mode] = section
        return {
            **self._about(),
            **{name: section or None for name, section in found.items()},
            "bridge": _joined(bridges) if "bridge" in args.sections else None,
            "seconds": time.perf_counter() - began,
            **provenance(),
        }

    def _mode(self, mode: str) -> dict:
        """Return the sections of one mode."""
        asked, found = self.args.sections, {}
        if "exactness" in asked and self.args.regime == "gd":
            found["exactness"] = self._exactness(mode)
        objectives = self._objectives(mode, self.walked)
        self.rate[mode] = self._rate(mode, objectives)
        if not {"trajectory", "merged", "iterative", "bridge"} & set(asked):
            return found
        regime = Regime(self.args.regime, self.rate[mode], self.batch, self.args.seed)
        paths = {
            name: self._follow(mode, name, [objective], regime, 1.0)
            for name, objective in objectives.items()
        }
        return found | self._of_paths(mode, objectives, regime, paths)

    def _of_paths(
        self,
        mode: str,
        objectives: dict[str, Objective],
        regime: Regime,
        paths: dict[str, Path],
    ) -> dict:
        """Return the sections that rest on the paths."""
        asked, found, mean = self.args.sections, {}, 1 / len(paths)
        marks = self._marks()
        joint = None
        if {"trajectory", "iterative"} & set(asked):
            joint = self._follow(mode, "all", list(objectives.values()), regime, mean)
        if "trajectory" in asked:
            layout = next(iter(objectives.values())).layout
            found["trajectory"] = trajectory(paths, joint, layout, mean, marks)
        test = self._reader(mode, self.test)
        if "merged" in asked:
            alphas = sorted({*ALWAYS, mean})
            found["merged"] = merged(
                paths,
                marks,
                alphas,
                test,
                self._reader(mode, self.validation),
                self.pieces.part(mode),
            )
            found["early"] = early(found["merged"])
        if "iterative" in asked:
            found["iterative"] = iterative(
                paths, joint, objectives, regime, test, marks, self.pieces.part(mode)
            )
        if "bridge" in asked:
            found["bridge"] = {
                **bridge(paths, objectives, regime, test, ALPHAS, self.pieces.part(mode)),
                "steps": regime.steps(next(iter(objectives.values())).n) * self.args.epochs,
            }
        return found

    def _exactness(self, mode: str) -> dict:
        """Return exactness of one mode, in float64 beside float32."""
        if self.encoder.theta0[next(iter(self.encoder.theta0))].device.type == "mps":
            raise UsageError("an mps device has no float64; take --device cpu for exactness")
        device = next(iter(self.encoder.theta0.values())).device
        few = slice(0, self.args.exact_images)
        double = self._objectives(mode, self.encoder.to(device, torch.float64))
        single = self._objectives(mode, self.encoder)
        found = exactness(
            {name: objective.take(few) for name, objective in double.items()},
            rates=self.args.rates,
            steps=self.args.steps,
            singles={name: objective.take(few) for name, objective in single.items()},
            pieces=self.pieces.part(mode),
        )
        return {**found, "images": {n: min(o.n, few.stop) for n, o in double.items()}}

    def _follow(
        self, mode: str, name: str, objectives: list[Objective], regime: Regime, alpha: float
    ) -> Path:
        """Return a path, going on from what is saved of it."""
        state = self.pieces.part(mode).state(f"path of {name}")
        measured = len(objectives) == 1  # losses and gradients are told of a task's own path
        return follow(objectives, regime, self.args.epochs, alpha, measured=measured, **state)

    def _rate(self, mode: str, objectives: dict[str, Objective]) -> float:
        """Return the rate of the paths: that asked for, finetune's, or by the curvature."""
        if self.args.rate is not None:
            return self.args.rate
        if self.args.regime == "adamw":
            return recipe_for(self.encoder.name, mode).rate
        few = slice(0, self.args.exact_images)
        curvatures = [
            self.pieces.part(mode).value(
                f"rate-{name}", lambda o=o: spectral_norm(o.take(few), o.theta0, 12).norm
            )
            for name, o in objectives.items()
        ]
        return 0.5 / max(curvatures)

    def _objectives(self, mode: str, encoder: Encoder) -> dict[str, Objective]:
        """Return the losses of all tasks."""
        return {
            name: objective_of(encoder, task, self.train[name], mode, tick=self.stop)
            for name, task in self.tasks.items()
        }

    def _parts(self) -> int:
        """Return how many things are told of, one after the other."""
        counts = {
            "exactness": 2 if self.args.regime == "gd" else 0,
            "trajectory": 0,
            "merged": 1,
            "iterative": 4,
            "bridge": 1 + len(ALPHAS),
        }
        paths = len(self.tasks) + ("trajectory" in self.args.sections)
        return len(self.args.modes) * (paths + sum(counts[s] for s in self.args.sections))

    def _reader(self, mode: str, splits: dict[str, Split]) -> Reader:
        """Return who measures accuracy."""
        return Reader(self.encoder, mode, self.tasks, splits, tick=self.stop)

    def _drawn(self, task: Task) -> Split:
        """Return the seed's window of a task's train split, which is in a fixed shuffled order.

        Two seeds share no image until the split is used up. The digest is that of all images up
        to the window's end.

        Raises:
            UsageError: If they do not fill one batch.
        """
        seed, n = self.args.seed, self.args.images
        split = self.load(task, "train", (seed + 1) * n)
        n = min(n, len(split.labels))
        n -= n % (self.batch or 1)
        if not n:
            raise UsageError(
                f"{task.name} has {len(split.labels)} train images, fewer than a batch of "
                f"{self.batch}; take a lower --batch"
            )
        rows = (torch.arange(n) + seed * n) % len(split.labels)
        return dataclasses.replace(split, images=split.images[rows], labels=split.labels[rows])

    def _in_precision(self) -> Encoder:
        """Return the encoder in the precision of the paths."""
        theta, asked = self.encoder.theta0, self.args.precision
        device = next(iter(theta.values())).device
        if asked == "float64" and device.type == "mps":
            raise UsageError("an mps device has no float64; take --precision float32")
        small = sum(value.numel() for value in theta.values()) < DOUBLE_BELOW
        if asked == "auto":
            double = self.args.regime == "gd" and small and device.type != "mps"
            asked = "float64" if double else "float32"
        return self.encoder.to(device, getattr(torch, asked))

    def _marks(self) -> list[int]:
        """Return the epochs to look at: 1, 2, 4, ... and the last."""
        K = self.args.epochs
        return sorted({*(2**k for k in range(K.bit_length()) if 2**k <= K), K})

    def _about(self) -> dict:
        """Return what the answer is about."""
        args = self.args
        first = next(iter(self.walked.theta0.values()))
        regime = Regime(args.regime, 1.0, self.batch)
        return {
            "encoder": self.encoder.name,
            "encoder_digest": self.encoder.digest,
            "tasks": list(self.tasks),
            "titles": {name: task.title for name, task in self.tasks.items()},
            "sources": {name: task.source for name, task in self.tasks.items()},
            "modes": list(args.modes),
            "regime": args.regime,
            "rate": dict(self.rate),
            "epochs": args.epochs,
            "seed": args.seed,
            "batch": self.batch,
            "steps_per_epoch": max(regime.steps(len(s.labels)) for s in self.train.values()),
            "images": {name: len(split.labels) for name, split in self.train.items()},
            "n_test": {name: len(split.labels) for name, split in self.test.items()},
            "n_validation": {name: len(s.labels) for name, s in self.validation.items()},
            "precision": str(first.dtype).removeprefix("torch."),
            "exact": True,
            "note": "gradients and accuracies are exact on the images named; curvature is an "
            "estimate from below",
            "split_digests": {
                name: {
                    "train": self.train[name].digest,
                    "validation": self.validation[name].digest,
                    "test": self.test[name].digest,
                }
                for name in self.tasks
            },
            "layers": list(norms_by_layer(self.encoder.theta0)),
        }


def _joined(bridges: dict[str, dict]) -> dict:
    """Return the bridges of the modes as one section."""
    return {
        "alphas": list(ALPHAS),
        "steps": next(iter(bridges.values()))["steps"],
        "interference": {mode: part["interference"] for mode, part in bridges.items()},
        "points": [point for part in bridges.values() for point in part["points"]],
        "summary": {mode: part["summary"] for mode, part in bridges.items()},
    }
