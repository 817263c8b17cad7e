"""What a job asks of Slurm: from settings.json of the jobs' folder, then from its own words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.jobs import words
from engine.jobs.slots import settings

if TYPE_CHECKING:
    from engine.jobs.job import Job

FURTHER = re.compile("[a-z][a-z0-9-]*")
# of sbatch, but decided here
OURS = ("array", "chdir", "error", "job-name", "open-mode", "output", "requeue", "signal", "time")


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of Slurm.

    Attributes:
        partition: Where; None for the cluster's own.
        minutes: The time limit of one start; a job that needs longer is started again.
        gpus: For a job that is not sent to the CPU: 0 when the cluster has none.
        cpus: Cores a job; None for the cluster's own.
        memory_gb: Memory a job; None for the cluster's own.
        array: Jobs of a suite at once.
        array_size: Jobs of a suite in one array; a cluster's MaxArraySize, at most.
        notice: Seconds before the time limit at which a job saves its state and leaves.
        kills: How many times a job that was killed is started again.
        further: Other options of sbatch, such as {"constraint": "a100"}.
    """

    partition: str | None = None
    minutes: int = 240
    gpus: int = 1
    cpus: int | None = None
    memory_gb: int | None = None
    array: int = 64
    array_size: int = 500
    notice: int = 120
    kills: int = 3
    further: Mapping[str, str] = field(default_factory=dict)


NAMES = tuple(part.name for part in fields(SlurmOptions) if part.name != "further")
WORDS = "--slurm"  # partition=gpu minutes=60 constraint=a100


def slurm_options(root: Path, job: "Job") -> SlurmOptions:
    """Read what a job asks of Slurm.

    Args:
        root: The folder of all jobs; "slurm" of its settings.json holds what is common to them.
        job: Whose words may say ``--slurm NAME=VALUE ..``, which come first.

    Returns:
        The options.

    Raises:
        UsageError: If one cannot be used; it says where it was found.
    """
    where = f'"slurm" in {root / "settings.json"}'
    common = {key.replace("-", "_"): value for key, value in settings(root).slurm.items()}
    chosen = with_options(SlurmOptions(), common, where)
    asked = dict(_pair(word) for word in words.values_of(job.arguments, WORDS) or ())
    return with_options(chosen, asked, f"{WORDS} of the job")


def with_options(options: SlurmOptions, changes: Mapping, where: str) -> SlurmOptions:
    """Change options, each checked.

    Args:
        options: Before.
        changes: By name; a name that is none of ours is one of sbatch.
        where: They were found, for the message.

    Returns:
        The options after.

    Raises:
        UsageError: Naming the first that cannot be used.
    """
    ours, further = {}, dict(options.further)
    for name, value in changes.items():
        text = str(value)
        dashed = name.replace("_", "-")
        if name == "partition" and re.fullmatch(r"[\w.,-]+", text):
            ours[name] = text
        elif name in NAMES and name != "partition":
            least = 0 if name in ("gpus", "kills", "notice") else 1
            if not (re.fullmatch(r"\d{1,7}", text) and int(text) >= least):
                raise UsageError(
                    f"{name} of {where} is {text!r}; make it a whole number from {least}"
                )
            ours[name] = int(text)
        elif name not in NAMES and FURTHER.fullmatch(dashed) and dashed not in OURS:
            if not text.isprintable() or isinstance(value, list | dict):
                raise UsageError(f"{name} of {where} is {text!r}; make it one line of text")
            further[dashed] = text
        else:
            raise UsageError(f"{name}={text} of {where} cannot be used; take {', '.join(NAMES)}")
    return replace(options, **ours, further=further)


def _pair(word: str) -> tuple[str, str]:
    """Return the name and the value of NAME=VALUE.

    Raises:
        UsageError: If it is not of that form.
    """
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{word!r} is not name=value, as in {WORDS} partition=gpu minutes=60")
    return name.replace("-", "_"), value
