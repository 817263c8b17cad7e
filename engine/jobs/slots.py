"""Where a job may run here: one slot a GPU, some on the CPU; as the settings say, else as found."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import UsageError
from engine.jobs.folder import read_table


@dataclass(frozen=True)
class Settings:
    """What ``<home>/jobs/settings.json`` or the environment says.

    Attributes:
        gpus: What ``CUDA_VISIBLE_DEVICES`` takes, one a slot; ``TAUSCOPE_GPUS=0,1``.
        cpu_slots: Jobs on the CPU at once; ``TAUSCOPE_CPU_SLOTS``.
        threads: CPU threads a job on the CPU; None for torch's own; ``TAUSCOPE_JOB_THREADS``.
        nice: Added to the niceness of jobs on the CPU; ``TAUSCOPE_JOB_NICE``.
        slurm: For the Slurm back end.
    """

    gpus: tuple[str, ...]
    cpu_slots: int = 1
    threads: int | None = None
    nice: int = 10
    slurm: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where one job runs: ``device`` names it, ``visible`` is what CUDA is let see."""

    device: str
    visible: str = ""


def settings(root: Path) -> Settings:
    """Read the settings: the environment first, then the file, then what the machine has.

    Args:
        root: The folder of all jobs.

    Returns:
        The settings.

    Raises:
        UsageError: If a value cannot be used.
    """
    path, told = root / "settings.json", {}
    if path.exists():
        try:
            told = read_table(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read ({error}); mend or delete it") from error
    gpus = os.environ.get("TAUSCOPE_GPUS")
    gpus = told.get("gpus") if gpus is None else [name for name in gpus.split(",") if name.strip()]
    if gpus is None:
        gpus = found_gpus()
    if not isinstance(gpus, list | tuple) or not all(
        re.fullmatch(r"[\w./-]+", str(g).strip()) for g in gpus
    ):
        raise UsageError(f'gpus of {path} is {gpus!r}; make it a list as in ["0", "1"]')
    slurm = told.get("slurm", {})
    if not isinstance(slurm, dict):
        raise UsageError(f"slurm of {path} is {slurm!r}; make it a table")
    return Settings(
        gpus=tuple(str(name).strip() for name in gpus),
        cpu_slots=_whole(told, "cpu_slots", "TAUSCOPE_CPU_SLOTS", 1, path),
        threads=_whole(told, "threads", "TAUSCOPE_JOB_THREADS", None, path),
        nice=_whole(told, "nice", "TAUSCOPE_JOB_NICE", 10, path),
        slurm=slurm,
    )


def found_gpus() -> list[str]:
    """Return the NVIDIA devices this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        said = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    # parts of a GPU are listed below it; whoever has any cannot use the whole
    parts = re.findall(r"^\s+MIG .*UUID: (MIG-[\w/-]+)\)", said, re.MULTILINE)
    return parts or re.findall(r"^GPU \d+: .*UUID: (GPU-[\w-]+)\)", said, re.MULTILINE)


def has_mps() -> bool:
    """Return whether this is a Mac whose GPU torch can use."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def kind_of(device: str, known: Settings) -> str:
    """Say which slots a job takes: "cuda", "mps" or "cpu".

    Args:
        device: "auto" takes the fastest kind that is here.
        known: The settings.

    Returns:
        The kind.
    """
    if device != "auto":
        return device
    return "cuda" if known.gpus else "mps" if has_mps() else "cpu"


def free_place(kind: str, gpus: int, taken: Sequence[str], known: Settings) -> Place | None:
    """Find a place that no job has.

    Args:
        kind: From ``kind_of``.
        gpus: How many GPUs the job takes.
        taken: Devices of the jobs at work: "cpu", "cuda:0", "cuda:0,1", "mps".
        known: The settings.

    Returns:
        The place; None while there is none.

    Raises:
        UsageError: If there can never be one here.
    """
    if kind == "cpu":
        if known.cpu_slots < 1:
            raise UsageError("no job may run on the CPU here; set TAUSCOPE_CPU_SLOTS to 1 or more")
        return Place("cpu") if list(taken).count("cpu") < known.cpu_slots else None
    if kind == "mps":
        if not has_mps():
            raise UsageError("there is no mps device here; duplicate the job with --device cpu")
        return Place("mps") if "mps" not in taken else None
    if len(known.gpus) < gpus:
        raise UsageError(
            f"the job asks for {gpus} GPU{'s' * (gpus > 1)} and {len(known.gpus)} are here; "
            "duplicate it with --device cpu or fewer GPUs"
        )
    busy = {
        int(number)
        for device in taken
        if device.startswith("cuda:")
        for number in device.removeprefix("cuda:").split(",")
    }
    free = [number for number in range(len(known.gpus)) if number not in busy][:gpus]
    if len(free) < gpus:
        return None
    numbers = ",".join(map(str, free))
    return Place(f"cuda:{numbers}", ",".join(known.gpus[number] for number in free))


def _whole(told: dict, key: str, variable: str, default: int | None, path: Path) -> int | None:
    """Return a whole number from the environment, the file or the default.

    Raises:
        UsageError: If it is no such number.
    """
    value = os.environ.get(variable, told.get(key, default))
    if value is None:
        return None
    with contextlib.suppress(TypeError, ValueError):
        if not isinstance(value, bool | float) and 0 <= int(value) <= 10_000:
            return int(value)
    raise UsageError(f"{key} is {value!r}; set {variable}, or {key} in {path}, to a whole number")
