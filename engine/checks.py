"""The guards: each checks one thing where it enters and raises one clear error."""

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.errors import NonFiniteError, ParameterMismatchError


def check_finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinity.

    Args:
        name: What the tensors are, for the message ("task vector of digits").
        tensors: Tensors by name; integer tensors are always finite.

    Raises:
        NonFiniteError: Naming the first bad tensor and how many of its values are bad.
    """
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        # one pass and nothing allocated, where isfinite of every value takes six times as long
        if torch.stack(torch.aminmax(tensor.detach())).isfinite().all():
            continue
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise NonFiniteError(
                f"{name}: {key} holds {bad} NaN or infinite values of {tensor.numel()}; "
                "make it again, with a lower learning rate if it came from training"
            )


def check_same_parameters(
    name: str, got: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Refuse parameters whose names or shapes differ from those expected.

    Args:
        name: What is being checked, for the message.
        got: Parameters received, by name.
        expected: Parameters whose names and shapes they must have.

    Raises:
        ParameterMismatchError: Counts and the first three names of what differs.
    """
    missing = [key for key in expected if key not in got]
    extra = [key for key in got if key not in expected]
    shapes = [k for k in expected if k in got and got[k].shape != expected[k].shape]
    problems = []
    for label, keys in (("missing", missing), ("unknown", extra), ("of another shape", shapes)):
        if keys:
            problems.append(f"{len(keys)} {label} ({', '.join(keys[:3])})")
    if problems:
        raise ParameterMismatchError(
            f"{name} does not fit this encoder: {'; '.join(problems)}; "
            "choose the encoder it was made for"
        )
