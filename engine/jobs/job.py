"""What a job is: the values that its folder tells, checked one by one."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.jobs import words
from engine.jobs.folder import NEW_STATUS

FORMAT = "tauscope-job-1"
STATES = ("queued", "running", "done", "failed", "cancelled", "lost")
FINISHED = ("done", "failed", "cancelled", "lost")
BACK_ENDS = ("local", "slurm")
DEVICES = ("auto", "cpu", "cuda", "mps")
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


@dataclass(frozen=True)
class Job:
    """One job as its folder tells it.

    Attributes:
        id: UTC time and six hex digits: sorts by age.
        verb: Of the command line.
        arguments: The words after the verb.
        title: What a reader calls it.
        state: One of ``STATES``.
        step: Steps done, over all parts.
        steps: Steps of all parts; 0 while unknown.
        part: What is at work, as "digits nonlinear".
        loss: Of the newest log entry, nats.
        validation: Newest accuracy on validation, a fraction.
        rate: Steps a second, lately.
        seconds_left: At that rate.
        seconds: At work, over all attempts.
        peak_memory: Bytes: of the GPU where one is used, else of the process.
        device: Where it runs or ran; before that, what was asked for.
        error: One sentence with the next action.
        waiting: Why it is not started yet, a sentence.
        artifacts: Digests of what it put in the store.
        working: Names of the working states it saved, which a page can look into.
        priority: Higher first.
        after: Ids of the jobs it waits for.
        on: "local" or "slurm".
        gpus: How many it takes where it runs on GPUs.
        suite: The name it shares with the other jobs of a suite.
        pid: Of its process.
        pid_started: When that was started, in the system's unit.
        attempt: How many times it was started.
        created: Unix time, as ``started`` and ``ended``.
        started: Of the newest attempt.
        ended: Of the newest attempt.
        folder: Where all this is kept.
    """

    id: str
    verb: str
    arguments: tuple[str, ...]
    title: str
    state: str
    step: int
    steps: int
    part: str | None
    loss: float | None
    validation: float | None
    rate: float | None
    seconds_left: float | None
    seconds: float
    peak_memory: int | None
    device: str | None
    error: str | None
    waiting: str | None
    artifacts: tuple[str, ...]
    working: tuple[str, ...]
    priority: int
    after: tuple[str, ...]
    on: str
    gpus: int
    suite: str | None
    pid: int | None
    pid_started: float | None
    attempt: int
    created: float
    started: float | None
    ended: float | None
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether nothing of it is at work or waiting."""
        return self.state in FINISHED

    def option(self, name: str) -> str | None:
        """Return the first value of one of its options; None if it is not given."""
        return words.value_of(self.arguments, name)

    def record(self) -> dict:
        """Return plain JSON values: all fields, the folder as text."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class Suite:
    """Many like jobs: one for each task, mode and seed.

    Attributes:
        encoder: As ``--encoder`` takes it.
        tasks: As ``--tasks`` takes them.
        modes: As ``--mode`` takes them.
        seeds: As ``--seed`` takes them.
        options: Further words for each.
        verb: What each does.
        name: What they have in common; made up if None.
    """

    encoder: str
    tasks: tuple[str, ...]
    modes: tuple[str, ...]
    seeds: tuple[int, ...]
    options: tuple[str, ...] = ()
    verb: str = "finetune"
    name: str | None = None

    def lines(self) -> list[list[str]]:
        """Return the command lines, verb first: seeds outermost, then modes, then tasks.

        Raises:
            UsageError: If there are none.
        """
        if not (self.tasks and self.modes and self.seeds):
            raise UsageError("a suite needs at least one task, one mode and one seed; choose them")
        return [
            [self.verb, "--encoder", self.encoder, "--tasks", str(task), "--mode", mode]
            + ["--seed", str(seed), *self.options]
            for seed in self.seeds
            for mode in self.modes
            for task in self.tasks
        ]


def new_spec(
    line: list[str],
    *,
    title: str | None,
    priority: int,
    after: tuple[str, ...],
    on: str,
    device: str | None,
    gpus: int,
    suite: str | None,
) -> dict:
    """Check what is asked for and write it down.

    Args:
        line: The verb and its words.
        title: Made from the words if None.
        priority: Higher first.
        after: Ids.
        on: The back end.
        device: That of ``--device`` if None.
        gpus: How many.
        suite: Its name, or None.

    Returns:
        A spec without id, folder and time.

    Raises:
        UsageError: If it cannot be asked for.
    """
    verb, *rest = [str(word) for word in line] or [""]
    rest = words.without(rest, words.STARTING)
    device = device or words.value_of(rest, "--device") or "auto"
    rules = (
        (re.fullmatch("[a-z][a-z-]*", verb), f"{verb!r} is no verb of the command line"),
        (verb != "jobs", "jobs is about jobs and is none itself"),
        (sum(map(len, rest)) < 2**16, "the words of the job are too long"),
        (not any("\0" in word for word in rest), "the words of the job hold a zero byte"),
        (on in BACK_ENDS, f"there is no back end {on!r}; take local or slurm"),
        (device in DEVICES, f"there is no device {device!r}; take one of {', '.join(DEVICES)}"),
        (1 <= gpus <= 1024, f"gpus is {gpus}; take 1 or more"),
        (abs(priority) <= 10**6, f"priority is {priority}; take one from -1000000 to 1000000"),
    )
    for holds, sentence in rules:
        if not holds:
            raise UsageError(f"{sentence}; nothing was submitted")
    return {
        "format": FORMAT,
        "verb": verb,
        "arguments": rest,
        "title": (title or titled(verb, rest))[:200],
        "priority": priority,
        "after": list(after),
        "on": on,
        "device": device,
        "gpus": gpus,
        "suite": suite,
    }


def titled(verb: str, arguments: list[str]) -> str:
    """Make a title of a command line: verb, tasks, mode, seed and encoder."""
    named = [words.values_of(arguments, name) or [] for name in ("--tasks", "--task", "--control")]
    tasks = [Path(task).name for task in sum(named, [])]
    parts = [verb, " ".join(tasks) if len(tasks) < 4 else f"{len(tasks)} tasks"]
    parts += [words.value_of(arguments, name) or "" for name in ("--mode", "--encoder")]
    seed = words.value_of(arguments, "--seed")
    return " ".join(part for part in (*parts, f"seed {seed}" if seed else "") if part)


def described(folder: Path, spec: Mapping, status: Mapping, who: Mapping, state: str) -> Job:
    """Make a job of what its files say, each value checked.

    Args:
        folder: Of the job.
        spec: From spec.json.
        status: From status.json.
        who: From pid.json; empty if there is none.
        state: The state as it is now.

    Returns:
        The job.

    Raises:
        ValueError: Naming the first value that is wrong.
    """
    if spec.get("format") != FORMAT or spec.get("id") != folder.name:
        raise ValueError("spec.json is not that of this job")
    told, here = {**NEW_STATUS, **status}, who.get("claim") == status.get("claim")
    return Job(
        id=folder.name,
        verb=_text(spec, "verb"),
        arguments=_texts(spec, "arguments"),
        title=_text(spec, "title"),
        state=_one_of(state, STATES, "state"),
        step=int(_number(told, "step")),
        steps=int(_number(told, "steps")),
        part=_text(told, "part", None),
        loss=_number(told, "loss", None),
        validation=_number(told, "validation", None),
        rate=_number(told, "rate", None),
        seconds_left=_number(told, "seconds_left", None),
        seconds=_number(told, "seconds"),
        peak_memory=_number(told, "peak_memory", None),
        device=_text(told, "device", None) or _one_of(spec.get("device"), DEVICES, "device"),
        error=_text(told, "error", None),
        waiting=_text(told, "waiting", None),
        artifacts=tuple(digest for _, digest in pairs(told["artifacts"])),
        working=_texts(told, "states"),
        priority=int(_number(spec, "priority")),
        after=_texts(spec, "after"),
        on=_one_of(spec.get("on"), BACK_ENDS, "on"),
        gpus=int(_number(spec, "gpus")),
        suite=_text(spec, "suite", None),
        pid=int(_number(who, "pid")) if here and who else None,
        pid_started=_number(who, "started", None) if here and who else None,
        attempt=int(_number(told, "attempt")),
        created=_number(spec, "created"),
        started=_number(told, "started", None),
        ended=_number(told, "ended", None),
        folder=folder,
    )


def pairs(value: Any) -> list[tuple[str, str]]:
    """Return the kinds and digests of artifacts.

    Raises:
        ValueError: If they are anything else.
    """
    if not isinstance(value, list):
        raise ValueError("artifacts is not a list")  # noqa: TRY004 - one class for a bad file
    for item in value:
        if not (
            isinstance(item, list)
            and len(item) == 2
            and all(isinstance(text, str) for text in item)
            and re.fullmatch("[0-9a-f]{64}", item[1])
        ):
            raise ValueError("an artifact is not a kind and a digest")
    return [(kind, digest) for kind, digest in value]


def _text(table: Mapping, key: str, *default: None) -> Any:
    """Return a text of a table."""
    value = table.get(key)
    if isinstance(value, str) or (value is None and default):
        return value
    raise ValueError(f"{key} is {value!r}, expected a text")


def _texts(table: Mapping, key: str) -> tuple[str, ...]:
    """Return a list of texts of a table."""
    value = table.get(key)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise ValueError(f"{key} is not a list of texts")


def _number(table: Mapping, key: str, *default: None) -> Any:
    """Return a finite number of a table."""
    value = table.get(key)
    if value is None and default:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63:
        return value if math.isfinite(value) else None
    raise ValueError(f"{key} is {str(value)[:40]}, expected a number")


def _one_of(value: Any, allowed: tuple[str, ...], key: str) -> str:
    """Return a value that is allowed."""
    if value in allowed:
        return value
    raise ValueError(f"{key} is {str(value)[:40]!r}, expected one of {', '.join(allowed)}")
