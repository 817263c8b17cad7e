"""Checkpoints that users bring, and what they take away."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.checks import check_finite
from engine.encoders import Encoder
from engine.errors import CheckpointError, ParameterMismatchError, UsageError
from engine.exchange.recognise import Found, recognise
from engine.exchange.sources import Source, open_source, shown

__all__ = ["Brought", "bring"]

# of the norm of theta_0: rounding to bfloat16 alone moves weights by 0.002, training by up to 0.1,
# and two trainings from different beginnings lie 1.1 apart
SAME, FOREIGN = 5e-3, 0.7


@dataclass(frozen=True)
class Brought:
    """A task vector made from a user's file."""

    tau: dict[str, Tensor]  # float32, or float16 as our own file has it; names of theta0
    mode: str  # how it was trained: "nonlinear" | "linear"
    origin: dict[str, Any]  # plain JSON values: file, sha256, kind, mode_from, ...


def bring(
    path: Path | str, encoder: Encoder, mode: str | None = None, zeroshot: Path | str | None = None
) -> Brought:
    r"""Make a task vector from a user's checkpoint.

    .. math:: \tau = \theta - \theta_0

    with theta_0 from the file itself (linear checkpoints carry it), from ``zeroshot``, or the
    encoder's; from wherever it comes, it must be the encoder's up to rounding. Parameters that a
    Hugging Face vision model lacks (the projection) have the task vector 0.

    Args:
        path: A file or folder of one of the kinds of ``sources.KNOWN``.
        encoder: Whose theta_0 it was fine-tuned from, in float32.
        mode: How it was trained; None for what the file says, else "nonlinear".
        zeroshot: The pre-trained weights it was fine-tuned from, as saved by the same code.

    Returns:
        The task vector, its mode and where it comes from.

    Raises:
        UsageError: If mode or zeroshot contradict what the file is, or tau is zero.
        ParameterMismatchError: If the file was made for, or fine-tuned from, another encoder.
        CheckpointError: If it is damaged, hostile or of no known kind.
        NonFiniteError: If it holds NaN or infinity.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 2 (definition of task vectors).
    """
    source = open_source(path)
    found = recognise(source, encoder)
    theta0 = {name: value.to("cpu", torch.float32) for name, value in encoder.theta0.items()}
    origin: dict[str, Any] = {
        "file": source.label,
        "sha256": source.sha256(),
        "bytes": source.size,
        "kind": found.kind,
        "left_out": found.left_out,
    }
    if zeroshot is not None and (found.tau is not None or found.theta0 is not None):
        raise UsageError(
            f"{source.label} brings its own theta_0 or is a task vector already; leave --zeroshot "
            "out"
        )
    tau = found.tau
    if tau is None:
        base, origin["theta0"] = _base(found, source, theta0, encoder, zeroshot)
        tau = {
            name: found.theta[name] - base[name]
            if name in found.theta
            else torch.zeros_like(theta0[name])
            for name in theta0
        }
        origin["absent"] = list(found.absent)
    check_finite(f"task vector of {source.label}", tau)
    known = _check_encoder(found, encoder, source.label)
    origin["relative_norm"] = _relative(tau, theta0)
    _check_plausible(origin["relative_norm"], known, encoder, source.label)
    known_mode = _mode(found, mode, source.label)
    origin["mode_from"] = "file" if found.mode else "default" if mode is None else "asked"
    return Brought(tau, known_mode, origin)


def _base(
    found: Found,
    source: Source,
    theta0: Mapping[str, Tensor],
    encoder: Encoder,
    zeroshot: Path | str | None,
) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Return the theta_0 to subtract and a record of where it is from.

    Raises:
        UsageError: If the zeroshot file is a task vector.
        ParameterMismatchError: If it is not the encoder's theta_0.
    """
    if zeroshot is not None:
        begun = open_source(zeroshot)
        other = recognise(begun, encoder)
        base = other.theta0 if other.theta0 is not None else other.theta
        if base is None:
            raise UsageError(f"{begun.label} is a task vector; give the pre-trained weights")
        said = {"from": "zeroshot file", "file": begun.label, "sha256": begun.sha256()}
        label = begun.label
    elif found.theta0 is not None:
        base, said, label = found.theta0, {"from": "the file itself"}, source.label
    else:
        return theta0, {"from": "encoder"}
    missing = [name for name in found.theta if name not in base]
    if missing:
        raise ParameterMismatchError(
            f"{label} lacks {len(missing)} parameters that {source.label} has ({missing[0]}); "
            "give a zeroshot file of the same kind"
        )
    apart = _relative({name: base[name] - theta0[name] for name in base}, theta0)
    if apart > SAME:
        raise ParameterMismatchError(
            f"{source.label} was fine-tuned from other weights than those of {encoder.name} (its "
            f"theta_0 lies {100 * apart:.1f} % of the norm away); choose the encoder it began with"
        )
    return base, {**said, "apart": apart}


def _check_encoder(found: Found, encoder: Encoder, label: str) -> bool:
    """Return whether a file of ours says it belongs to this encoder; refuse one of another.

    Raises:
        CheckpointError: Naming both.
    """
    said = found.said.get("encoder_digest")
    if said is not None and said != encoder.digest:
        raise CheckpointError(
            f"{label} is a task vector of {shown(found.said.get('encoder'), 80)} "
            f"({shown(said, 14)}), not of {encoder.name} ({encoder.digest[:12]}) as it is here; "
            "choose the encoder it was made for"
        )
    return said is not None


def _check_plausible(relative: float, known: bool, encoder: Encoder, label: str) -> None:
    """Refuse a task vector of zero, and one that leads to another pre-training.

    Raises:
        UsageError: If it is zero.
        ParameterMismatchError: If it is as long as theta_0 itself.
    """
    if relative == 0:
        raise UsageError(
            f"{label} holds the pre-trained weights themselves: its task vector is zero; give the "
            "fine-tuned file"
        )
    if relative > FOREIGN and not known:
        raise ParameterMismatchError(
            f"{label} lies {100 * relative:.0f} % of the norm of theta_0 away from {encoder.name}: "
            "it was not fine-tuned from it; choose the encoder it began with"
        )


def _mode(found: Found, asked: str | None, label: str) -> str:
    """Return how a checkpoint was trained.

    Raises:
        UsageError: If what is asked contradicts what the file says.
    """
    if asked is not None and found.mode is not None and asked != found.mode:
        raise UsageError(
            f"{label} was trained {found.mode}, and --mode says {asked}: a task vector read in "
            "the other way is another model; leave --mode out"
        )
    return asked or found.mode or "nonlinear"


def _relative(tau: Mapping[str, Tensor], theta0: Mapping[str, Tensor]) -> float:
    """Return the norm of tau in units of the norm of theta_0, both over tau's names."""
    squares = [
        sum(float(values[name].double().square().sum()) for name in tau) for values in (tau, theta0)
    ]
    return (squares[0] / squares[1]) ** 0.5 if squares[1] else 0.0
