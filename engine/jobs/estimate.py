"""What a fine-tune will cost before it is launched: steps, time, memory, disk; or why it cannot."""

import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch

from engine.errors import UsageError
from engine.finetune import Recipe
from engine.jobs import processes
from engine.jobs.jobs import Jobs
from engine.jobs.local import process_of
from engine.jobs.probe import Probe, memory_there, probed, recalled

if TYPE_CHECKING:
    from engine.store import Store

PROCESS = 0.95e9  # bytes of a process with torch and open_clip, without any model
CONTEXT = 0.6e9  # bytes CUDA takes of a GPU for itself
STARTING = 8.0  # seconds until torch and the encoder are there
MARGIN = 0.92  # of the memory that is there
ALIKE = ("batch", "accumulate", "precision", "augment")  # what a step's time depends on
LOOKED_AT = 40  # jobs, newest first


@dataclass(frozen=True)
class Estimate:
    """What one task in one mode will cost.

    Attributes:
        steps: Updates.
        seconds: From start to stored checkpoint, estimated.
        memory: Bytes at most, on the device, estimated.
        disk: Bytes that stay: the checkpoint.
        refusal: Why it cannot be done here, a sentence with the next action; None if it can.
        batch_that_fits: The most images at once that fit; None if unknown.
        measured: How the time is known, in words.
    """

    steps: int
    seconds: float
    memory: int
    disk: int
    refusal: str | None
    batch_that_fits: int | None
    measured: str


def estimate(
    store: "Store",
    encoder_name: str,
    mode: str,
    recipe: Recipe,
    sizes: Mapping[str, int],
    device: str = "auto",
    held: int = 0,
) -> Estimate:
    r"""Estimate what fine-tuning on one task costs.

    .. math:: t = K \, a (t_0 + t_1 b), \qquad m = m_0 + m_1 b + 20 P, \qquad b = \lceil B/a \rceil

    for K steps of batch B in a pieces; the times and memories of a step are those of a like job
    done before, else measured on two small batches, once a machine. Estimates, not promises.

    Args:
        store: Where the encoder lies and the jobs were done.
        encoder_name: As ``load_encoder`` takes it.
        mode: "nonlinear" or "linear".
        recipe: How it would be trained.
        sizes: Images in "train", "validation" and "test".
        device: "auto", "cpu", "cuda" or "mps".
        held: Bytes of this machine's memory that the process which would do it holds already.

    Returns:
        The cost.

    Raises:
        UsageError: If the device is not here.
    """
    device = _device(device)
    precision = _precision(recipe.precision, device)
    probe = probed(store, encoder_name, mode, precision, device, recipe.checkpointing)
    piece = ceil(recipe.batch / recipe.accumulate)
    step, measured = recipe.accumulate * (probe.start + probe.image * piece), "two small batches"
    like = _like(store, encoder_name, mode, recipe, device)
    if like:
        step, measured = statistics.median(like), f"{len(like)} like jobs done here"
    # five readings of validation and one of test: a reading costs a third or a half of a gradient
    read = 5 * sizes.get("validation", 0) + sizes.get("test", 0)
    seconds = STARTING + recipe.steps * step + read * probe.image / (2 if mode == "linear" else 3)
    fixed = _fixed(probe, sizes, device)
    memory, there = fixed + probe.each * piece, memory_there(device)
    if there is not None and device != "cuda":
        there += held
    fits = None if there is None else int((MARGIN * there - fixed) / max(probe.each, 1.0))
    state = 4 * probe.parameters
    disk = state + 50_000
    free = shutil.disk_usage(next(p for p in (store.home, *store.home.parents) if p.exists())).free
    refusal = None
    if fits is not None and fits < piece:
        refusal = _too_large(memory, there, recipe, fits)
    elif free < disk + 6 * state:  # the working state, three vectors, old and new side by side
        refusal = (
            f"it needs {(disk + 6 * state) / 1e6:.0f} MB of disk while it runs and "
            f"{free / 1e6:.0f} MB are free at {store.home}; make room there"
        )
    return Estimate(
        steps=recipe.steps,
        seconds=seconds,
        memory=int(memory),
        disk=disk,
        refusal=refusal,
        batch_that_fits=None if fits is None else max(fits, 0),
        measured=f"measured on {measured}",
    )


def is_measured(
    store: "Store", encoder_name: str, mode: str, recipe: Recipe, device: str = "auto"
) -> bool:
    """Say whether what a step costs is known without measuring it.

    Args:
        store: Where the encoder lies and the jobs were done.
        encoder_name: As ``load_encoder`` takes it.
        mode: "nonlinear" or "linear".
        recipe: How it would be trained.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        Whether ``estimate`` answers at once.

    Raises:
        UsageError: If the device is not here.
    """
    device = _device(device)
    asked = (mode, _precision(recipe.precision, device), device, recipe.checkpointing)
    return recalled(store, encoder_name, *asked) is not None


def advice(store: "Store", encoder_name: str, mode: str, recipe: Recipe, device: str) -> str:
    """Say what would fit after memory has run out.

    Args:
        store: Where the encoder lies.
        encoder_name: As ``load_encoder`` takes it.
        mode: "nonlinear" or "linear".
        recipe: That did not fit.
        device: Where.

    Returns:
        One sentence.
    """
    piece = ceil(recipe.batch / recipe.accumulate)
    fits = estimate(store, encoder_name, mode, recipe, {}, device).batch_that_fits
    # it did not fit, whatever was estimated
    fits = piece // 2 if fits is None else min(fits, piece // 2)
    return f"out of memory with {piece} images at once; {_instead(recipe, fits)}"


def _too_large(memory: float, there: int, recipe: Recipe, fits: int) -> str:
    """Say that memory does not suffice, and what would."""
    need = f"it needs about {memory / 1e9:.1f} GB of memory and {there / 1e9:.1f} GB are there"
    return f"{need}; {_instead(recipe, fits)}"


def _instead(recipe: Recipe, fits: int) -> str:
    """Say which batch would fit."""
    again = "" if recipe.checkpointing else "turn checkpointing on, "
    if fits < 1:
        return f"not even one image fits: {again}take a smaller encoder or another device"
    pieces = ceil(recipe.batch / fits)
    return (
        f"about {fits} would fit: set accumulate to {pieces} (the same batch in {pieces} pieces), "
        f"{again}or set batch to {fits}"
    )


def _fixed(probe: Probe, sizes: Mapping[str, int], device: str) -> float:
    """Return the bytes that do not depend on the batch."""
    # theta0 twice, tau, two moments, all in single precision; the gradient is in the probe
    vectors = 20 * probe.parameters + probe.fixed
    if device == "cuda":
        return CONTEXT + vectors
    pixels = 3 * probe.image_size**2 * sum(sizes.values())
    return PROCESS + 2 * probe.weights + vectors + pixels


def _like(store: "Store", encoder_name: str, mode: str, recipe: Recipe, device: str) -> list[float]:
    """Return the seconds a step of like jobs that were done on this machine."""
    jobs, found = Jobs(store.home), []
    done = [job for job in jobs.list() if job.state == "done" and job.verb == "finetune"]
    for job in done[:LOOKED_AT]:
        answer = jobs.answer(job.id) or {}
        told = answer.get("recipe")
        same = (
            answer.get("encoder") == encoder_name
            and answer.get("mode") == mode
            and isinstance(told, dict)
            and all(told.get(name) == getattr(recipe, name) for name in ALIKE)
            and bool(told.get("checkpointing")) == recipe.checkpointing
            and str(job.device).partition(":")[0] == device
            and processes.is_here(process_of(job.folder))
            and job.gpus == 1
        )
        last = (jobs.curve(job.id) or [{}])[-1] if same else {}
        if last.get("seconds") and last.get("part_step"):
            found.append(last["seconds"] / last["part_step"])
    return found


def _device(device: str) -> str:
    """Return the kind of device meant.

    Raises:
        UsageError: If it is not here.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(kind for kind in there if there[kind])
    if not there.get(device):
        raise UsageError(f"there is no {device} device here; take cpu")
    return device


def _precision(wanted: str, device: str) -> str:
    """Return what "auto" means on a device, as training decides it."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
