"""Merging methods: `prepare` a direction once, `apply` it at any alpha."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.checks import check_finite, check_same_parameters
from engine.errors import UsageError
from engine.merging import elementwise, layers, spectral
from engine.task_vectors import combine

CONVENTIONS = ("sum", "mean")  # those whose direction is a plain sum, with a slider a task
Vectors = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Option:
    """A hyper-parameter of a method.

    Attributes:
        usual: Its usual value; a whole number where only whole numbers make sense.
        low: The least it may be.
        high: The most it may be.
        does: What it does, a few words.
        later: It came after answers were kept without it: ``asked_of`` leaves it out of their keys
            at its usual value, at which it changes nothing.
    """

    usual: float | int
    low: float
    high: float
    does: str
    later: bool = False


@dataclass(frozen=True)
class Method:
    """A way to merge task vectors into one direction.

    Attributes:
        title: What a reader sees.
        does: One sentence.
        alpha: Usual scale of the direction.
        options: Hyper-parameters by name.
        function: Task vectors and options to direction.
    """

    title: str
    does: str
    alpha: float
    function: Callable[..., dict[str, Tensor]]
    options: Mapping[str, Option] = field(default_factory=dict)


def _sum(taus: Vectors) -> dict[str, Tensor]:
    return _scaled(taus, "sum")


def _mean(taus: Vectors) -> dict[str, Tensor]:
    return _scaled(taus, "mean")


def _scaled(taus: Vectors, convention: str) -> dict[str, Tensor]:
    """Return the sum or the mean of task vectors."""
    zero = {name: torch.zeros_like(value) for name, value in next(iter(taus.values())).items()}
    return combine(zero, taus, dict.fromkeys(taus, share(convention, len(taus))))


METHODS: dict[str, Method] = {
    "sum": Method("Sum", "Adds the task vectors (task arithmetic).", 0.3, _sum),
    "mean": Method("Mean", "Averages the task vectors.", 1.0, _mean),
    "ties": Method(
        "TIES",
        "Keeps each task's largest entries and, entry by entry, those of the elected sign.",
        0.3,
        elementwise.ties,
        {
            "density": Option(0.2, 0.0, 1.0, "share of each task vector that is kept"),
            "average": Option(0, 0, 1, "1 averages the entries kept, 0 adds them", later=True),
            "drop": Option(
                0.0, 0.0, 0.99, "share dropped at random before, as by DARE", later=True
            ),
            "seed": Option(0, 0, 2**31 - 1, "of what is dropped", later=True),
        },
    ),
    "dare": Method(
        "DARE",
        "Drops entries at random, rescales the rest, then adds.",
        0.3,
        elementwise.dare,
        {
            "drop": Option(0.5, 0.0, 0.99, "share of each task vector that is dropped"),
            "seed": Option(0, 0, 2**31 - 1, "of what is dropped"),
        },
    ),
    "breadcrumbs": Method(
        "Breadcrumbs",
        "Drops each tensor's outliers and smallest entries, then adds.",
        0.3,
        elementwise.breadcrumbs,
        {
            "density": Option(0.9, 0.0, 1.0, "share of each tensor that is kept"),
            "gamma": Option(0.01, 0.0, 0.5, "share of each tensor dropped as outliers"),
        },
    ),
    "consensus": Method(
        "Consensus mask",
        "Keeps the entries of the sum that matter to two tasks or more.",
        0.3,
        elementwise.consensus,
        {
            "threshold": Option(
                0.4, 0.0, 2.0, "lambda, one for all tasks: how large an entry is against the rest"
            ),
            "agree": Option(2, 1, 64, "how many tasks must need an entry"),
        },
    ),
    "tsv": Method(
        "TSV-M",
        "Keeps a T-th of each task's singular directions and makes them orthogonal.",
        1.0,
        spectral.tsv_merge,
    ),
    "iso-c": Method("Iso-C", "Gives the sum's singular directions one size.", 1.5, spectral.iso_c),
    "iso-cts": Method(
        "Iso-CTS",
        "As Iso-C, with some directions kept for each task alone.",
        1.5,
        spectral.iso_cts,
        {"common": Option(0.8, 0.0, 1.0, "share of the directions that are common")},
    ),
    "lines": Method(
        "LiNeS",
        "Scales the sum linearly in depth: deep blocks count more.",
        1.0,
        layers.lines,
        {"slope": Option(0.5, 0.0, 2.0, "b: what the last block gets beyond 1 / T")},
    ),
}


def share(convention: str, T: int) -> float:
    """Give the factor between the slider of a task and the coefficient of its task vector.

    Args:
        convention: "sum" or "mean".
        T: How many tasks are merged.

    Returns:
        1 for the sum, 1 / T for the mean.

    Raises:
        ValueError: If there is no such convention, or no task.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"got {convention!r}, expected one of {', '.join(CONVENTIONS)}")
    if T < 1:
        raise ValueError(f"got {T} task vectors, expected at least one")
    return 1.0 if convention == "sum" else 1.0 / T


def prepare(taus: Vectors, method: str, **options: float) -> dict[str, Tensor]:
    r"""Merge task vectors into one direction.

    Each method's formula and source stand at its function, ``METHODS[method].function``.

    Args:
        taus: Task vectors by task name; not changed.
        method: One of ``METHODS``.
        options: Hyper-parameters; those not named have their usual values.

    Returns:
        The direction, in at least single precision, named as the task vectors.

    Raises:
        UsageError: If there is no such option, or its value is out of range.
        ParameterMismatchError: If names or shapes differ.
        NonFiniteError: If a task vector holds NaN or infinity.
        ValueError: If there is no such method, or no task vector.
    """
    if method not in METHODS or not taus:
        raise ValueError(f"got {method!r} and {len(taus)} task vectors; methods: {list(METHODS)}")
    about = METHODS[method]
    for name, value in options.items():
        _check_option(about, name, value)
    first = next(iter(taus.values()))
    for task, tau in taus.items():
        check_same_parameters(f"task vector of {task}", tau, first)
        check_finite(f"task vector of {task}", tau)
    with torch.no_grad():
        return about.function({task: _single(tau) for task, tau in taus.items()}, **options)


def asked_of(method: str, options: Mapping[str, float]) -> dict[str, float]:
    """Give the hyper-parameters by which an answer of a method is kept.

    Args:
        method: One of ``METHODS``.
        options: All its hyper-parameters.

    Returns:
        The same without those that came later and have their usual value, so that what was kept
        before they were there is found.
    """
    about = METHODS[method].options
    return {
        name: value
        for name, value in options.items()
        if name not in about or not about[name].later or value != about[name].usual
    }


def _check_option(about: Method, name: str, value: float) -> None:
    """Refuse a hyper-parameter that a method does not have, or a value that it cannot take.

    Raises:
        UsageError: Naming what it can.
    """
    if name not in about.options:
        known = ", ".join(about.options) or "none"
        raise UsageError(f"{about.title} has no option {name!r}; its options: {known}")
    option = about.options[name]
    if not option.low <= value <= option.high:
        raise UsageError(
            f"{name} of {about.title} is {value:g}; choose from {option.low:g} to {option.high:g}"
        )
    if isinstance(option.usual, int) and value != int(value):
        raise UsageError(f"{name} of {about.title} is {value:g}; give a whole number")


def _single(tau: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a task vector in at least single precision."""
    return {
        name: value.detach().to(torch.promote_types(value.dtype, torch.float32))
        for name, value in tau.items()
    }


def apply(
    theta0: Mapping[str, Tensor], direction: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    r"""Move the pre-trained weights along a direction, :math:`\theta_0 + \alpha \tau`.

    Args:
        theta0: Pre-trained parameters; not changed.
        direction: From ``prepare``.
        alpha: How far.

    Returns:
        Merged parameters, in the dtype and on the device of ``theta0``.

    Raises:
        ParameterMismatchError: If the direction has other names or shapes.
        NonFiniteError: If the result holds NaN or infinity.
    """
    return combine(theta0, {"merged": direction}, {"merged": alpha})
