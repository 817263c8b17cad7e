"""What the Fine-tune page launches: the plan, what it will cost, the jobs it becomes."""

import importlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.compute import jobs
from app.compute.background import Work, board
from engine.jobs import Job, Suite
from engine.jobs.words import value_of, values_of, without

MODES = ("nonlinear", "linear")
NUMBERS = {  # fields of a recipe that the form sets: how each is read back from a job
    "steps": int,
    "batch": int,
    "rate": float,
    "warmup": int,
    "weight_decay": float,
    "accumulate": int,
    "checkpoint_every": int,
}
WORDS = ("augment", "precision")
SWITCHES = ("checkpointing",)  # on or off
# what the form has a field for; a copied job's other words are kept as they are
FIELDS = ("encoder", "tasks", "mode", "seed", "device", "limit", *NUMBERS, *WORDS, *SWITCHES)
ELSEWHERE = "Time and memory are not known before: the nodes are not this machine"
DEFAULT = "default"  # stands for the recipe's own value where a control has no empty state


@dataclass(frozen=True)
class Plan:
    """Fine-tunes to launch: each task in each mode with each seed.

    Attributes:
        encoder: As ``load_encoder`` takes it.
        tasks: As ``load_task`` takes them.
        modes: "nonlinear", "linear" or both.
        seeds: Of data order and augmentation.
        changes: Fields of the recipe set otherwise than by default, as pairs.
        device: "auto", "cpu", "cuda" or "mps".
        on: The back end, "local" or "slurm".
        gpus: A job, where it runs on GPUs.
        limit: Train on the first so many images; all of them with None.
        kept: Further words of the command line, of the job this was copied from.
    """

    encoder: str
    tasks: tuple[str, ...]
    modes: tuple[str, ...]
    seeds: tuple[int, ...]
    changes: tuple[tuple[str, Any], ...] = ()
    device: str = "auto"
    on: str = "local"
    gpus: int = 1
    limit: int | None = None
    kept: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many jobs it becomes."""
        return len(self.tasks) * len(self.modes) * len(self.seeds)

    def suite(self) -> Suite:
        """Return it in the words of the command line."""
        options = [*self.changes, ("device", self.device)]
        options += [] if self.limit is None else [("limit", self.limit)]
        words = [
            word
            for name, value in options
            for word in (_dashed(name), *([] if value is True else [str(value)]))
        ]
        return Suite(self.encoder, self.tasks, self.modes, self.seeds, (*words, *self.kept))


@dataclass(frozen=True)
class Cost:
    """What a plan will take.

    Attributes:
        jobs: How many.
        steps: Of all jobs.
        seconds: Of all jobs, one after the other; None where no rate is known.
        memory: Bytes, of the largest job.
        disk: Bytes, of all jobs.
        refusals: Why it cannot be launched, one sentence each; none where it can.
        batches: The batch that would fit, where memory is what is short.
        measured: How the time is known, a sentence.
    """

    jobs: int
    steps: int
    seconds: float | None
    memory: int | None
    disk: int | None
    refusals: tuple[str, ...] = ()
    batches: int | None = None
    measured: str = ""


def ready() -> Work:
    """Start, or find, the import of the engine: it takes seconds, and no page waits for it."""

    def bring(work: Work) -> bool:
        for done, name in enumerate(("encoders", "tasks", "finetune", "jobs.estimate")):
            work.step(done, 4, "loading the engine")
            importlib.import_module(f"engine.{name}")
        return True

    return board().start("engine", "everyone", "engine", bring)


def defaults(encoder: str, modes: tuple[str, ...], steps: int | None) -> dict[str, str]:
    """Say what each field of the recipe is when it is left empty, one value a mode.

    Args:
        encoder: As ``load_encoder`` takes it.
        modes: Training modes.
        steps: As set; the warm-up follows it.

    Returns:
        What stands in each empty field.
    """
    from engine.finetune import recipe_for

    changes = {} if steps is None else {"steps": steps}
    recipes = [recipe_for(encoder, mode, **changes) for mode in modes or MODES]
    return {
        name: " / ".join(dict.fromkeys(f"{getattr(recipe, name):g}" for recipe in recipes))
        for name in NUMBERS
    } | {name: getattr(recipes[0], name) for name in WORDS}


def choices() -> dict[str, tuple[str, ...]]:
    """Name what a recipe's words may be, and the devices and back ends there are."""
    import torch

    from engine.finetune import recipe

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    back_ends = jobs.back_ends()
    return {
        "augment": (DEFAULT, *recipe.AUGMENTATIONS),
        "precision": (DEFAULT, *recipe.PRECISIONS),
        # a cluster's nodes may have what this machine lacks
        "device": ("auto", "cpu", *(name for name in there if there[name] or "slurm" in back_ends)),
        "on": back_ends,
    }


def cost(plan: Plan, visitor: str, stamp: float) -> Work:
    """Start, or find, the estimate of what a plan costs; a later one replaces it.

    Args:
        plan: What would be launched.
        visitor: Who asks.
        stamp: When a job last ended: the rates measured since then are new.

    Returns:
        Work whose result is a :class:`Cost`.
    """
    key = (plan, str(jobs.jobs_home()), stamp)
    return board().start("cost", visitor, key, lambda work: _cost(plan, work))


def _cost(plan: Plan, work: Work) -> Cost:
    """Return the sum of the estimates of every task and mode."""
    from engine.finetune import recipe_for
    from engine.jobs.estimate import estimate
    from engine.store import default_store
    from engine.tasks import describe, load_task

    if plan.on != "local":
        recipes = [recipe_for(plan.encoder, mode, **dict(plan.changes)) for mode in plan.modes]
        steps = sum(recipe.steps for recipe in recipes) * len(plan.tasks) * len(plan.seeds)
        return Cost(plan.count, steps, None, None, None, measured=ELSEWHERE)
    store, found = default_store(), []
    for done, reference in enumerate(plan.tasks):
        work.step(done, len(plan.tasks), "estimating")
        sizes = dict(describe(load_task(reference))["counts"])
        most = {"train": plan.limit}
        most |= dict.fromkeys(
            ("validation", "test"), _number(value_of(plan.kept, "measure-on"), int)
        )
        sizes = {name: min(count, most[name] or count) for name, count in sizes.items()}
        for mode in plan.modes:
            recipe = recipe_for(plan.encoder, mode, **dict(plan.changes))
            found.append(estimate(store, plan.encoder, mode, recipe, sizes, plan.device))
    seeds = len(plan.seeds)
    times, disk = [item.seconds for item in found], seeds * sum(item.disk for item in found)
    memories = [item.memory for item in found if item.memory is not None]
    batches = [item.batch_that_fits for item in found if item.batch_that_fits is not None]
    return Cost(
        jobs=plan.count,
        steps=seeds * sum(item.steps for item in found),
        seconds=None if None in times else seeds * sum(times),
        memory=max(memories, default=None),
        disk=disk,
        refusals=_refusals([item.refusal for item in found], disk, jobs.jobs_home(), plan.count),
        batches=min(batches, default=None),
        measured="; ".join(dict.fromkeys(item.measured for item in found)),
    )


def _refusals(each: list[str | None], disk: int, home: Path, count: int) -> tuple[str, ...]:
    """Return what the jobs are refused for, each sentence once, and what the suite is."""
    found = list(dict.fromkeys(sentence for sentence in each if sentence))
    there = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if not found and disk > free:
        found.append(
            f"the {count} jobs need {disk / 1e9:.1f} GB of disk and {free / 1e9:.1f} GB are free; "
            "launch fewer, or make room"
        )
    return tuple(found)


def launch(plan: Plan) -> list[Job]:
    """Ask for the jobs of a plan.

    Args:
        plan: What to launch.

    Returns:
        The jobs, queued.
    """
    queue, suite = jobs.queue(), plan.suite()
    if plan.count == 1:
        return [queue.submit(suite.lines()[0], on=plan.on, gpus=plan.gpus)]
    return queue.submit_suite(suite, on=plan.on, gpus=plan.gpus)


def form_of(job: Job) -> dict[str, Any]:
    """Return what the form's fields are for a job that was launched; None leaves one empty.

    Args:
        job: A fine-tuning job.

    Returns:
        By name; under "kept" the words that the form has no field for, as ``--half``.
    """
    fields: dict[str, Any] = {
        "encoder": job.option("--encoder") or "miniature",
        "tasks": values_of(job.arguments, "--tasks") or [],
        "modes": [job.option("--mode") or "nonlinear"],
        "seeds": job.option("--seed") or "0",
        "device": job.option("--device") or "auto",
        "on": job.on,
        "gpus": job.gpus,
        "limit": _number(job.option("--limit"), int),
    }
    for name, read in NUMBERS.items():
        fields[name] = _number(job.option(_dashed(name)), read)
    fields |= {name: job.option(_dashed(name)) is not None for name in SWITCHES}
    fields["kept"] = without(job.arguments, {_dashed(name): None for name in FIELDS})
    return fields | {name: job.option(f"--{name}") or DEFAULT for name in WORDS}


def _dashed(name: str) -> str:
    """Return a field's name as the command line has it."""
    return f"--{name.replace('_', '-')}"


def _number(text: str | None, read: type) -> Any:
    """Return a number as it was typed; None where there is none."""
    try:
        return None if text is None else read(text)
    except ValueError:
        return None


def plan_of(fields: Mapping[str, Any], seeds: tuple[int, ...]) -> Plan:
    """Return the plan that the form's fields ask for.

    Args:
        fields: By name; None where nothing was typed.
        seeds: As they were read.
    """
    changes = [(name, fields[name]) for name in NUMBERS if fields.get(name) is not None]
    changes += [(name, fields[name]) for name in WORDS if fields.get(name, DEFAULT) != DEFAULT]
    changes += [(name, True) for name in SWITCHES if fields.get(name)]
    return Plan(
        encoder=fields["encoder"] or "",
        tasks=tuple(fields["tasks"]),
        modes=tuple(mode for mode in MODES if mode in fields["modes"]),
        seeds=seeds,
        changes=tuple(changes),
        device=fields["device"],
        on=fields["on"],
        gpus=int(fields.get("gpus") or 1),
        limit=fields.get("limit"),
        kept=tuple(fields.get("kept") or ()),
    )
