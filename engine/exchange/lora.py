"""A LoRA adapter in peft's layout as a task vector."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.errors import CheckpointError, ParameterMismatchError
from engine.exchange.huggingface import THIRDS, Place, place
from engine.exchange.sources import shown

FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
# what a configuration may ask for that is more than two factors a matrix
BEYOND = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
)


def from_lora(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], theta0: Mapping[str, Tensor],
    label: str,
) -> dict[str, Tensor]:  # fmt: skip
    r"""Multiply an adapter out.

    .. math:: \tau_W = s B A, \quad s = \alpha / r \text{ or, rank-stabilised, } \alpha / \sqrt{r}

    with A of shape (r, in) and B of shape (out, r). ``fan_in_fan_out`` says that the base layer
    stores its weight as (in, out); open_clip stores (out, in), so it changes nothing here.

    Args:
        tensors: ``base_model.model.<module>.lora_A.weight`` and ``lora_B``.
        config: ``adapter_config.json``.
        theta0: Parameters of the image tower.
        label: The folder, for messages.

    Returns:
        tau, float32, zero where the adapter has no factors.

    Raises:
        CheckpointError: If it is no LoRA adapter, or more than that.
        ParameterMismatchError: If a module is unknown or a shape does not fit.

    Source:
        Hu et al. (2021), arXiv:2106.09685, Sec. 4.1; Kalajdzievski (2023), arXiv:2312.03732
        (the rank-stabilised scale).
    """
    check_config(config, label)
    tau = {name: torch.zeros(value.shape) for name, value in theta0.items()}
    for module, factors in _pairs(tensors, label).items():
        found = place(f"{module}.weight")
        if found is None or found.name not in theta0:
            raise ParameterMismatchError(
                f"{label} adapts {shown(module, 80)}, which is no matrix of this encoder's image "
                "tower; choose the encoder it was made for, or an adapter of the vision model alone"
            )
        _add(tau[found.name], found, module, factors, scale(module, factors["A"], config), label)
    return tau


def check_config(config: Mapping[str, Any], label: str) -> None:
    """Refuse what is no plain LoRA.

    Args:
        config: ``adapter_config.json``.
        label: The folder, for messages.

    Raises:
        CheckpointError: Naming what it asks for beyond two factors a matrix.
    """
    if not config:
        raise CheckpointError(
            f"{label} holds LoRA factors without adapter_config.json beside them, and their scale "
            "is unknown; give the whole adapter folder"
        )
    if str(config.get("peft_type", "")).upper() != "LORA":
        raise CheckpointError(f"{label} is an adapter of another kind than LoRA; merge it first")
    beyond = [key for key in BEYOND if config.get(key)]
    beyond += ["bias"] if config.get("bias", "none") != "none" else []
    if beyond:
        raise CheckpointError(
            f"{label} uses {', '.join(beyond)}, which two factors a matrix cannot say; merge it "
            "into its model (merge_and_unload) and import that"
        )


def scale(module: str, a: Tensor, config: Mapping[str, Any]) -> float:
    """Return what a module's product is multiplied by.

    Args:
        module: Its name, for the patterns of the configuration.
        a: The factor A, whose rows are the rank.
        config: ``adapter_config.json``.

    Returns:
        alpha / r, or alpha / sqrt(r).

    Raises:
        CheckpointError: If alpha or a rank is missing, impossible or contradicted by the factor.
    """
    alpha = _patterned(module, config.get("alpha_pattern"), config.get("lora_alpha"))
    rank = _patterned(module, config.get("rank_pattern"), config.get("r"))
    known = isinstance(alpha, int | float) and abs(alpha) < 1e6
    if not known or rank != a.shape[0] or not a.shape[0]:
        raise CheckpointError(
            f"adapter_config.json says lora_alpha {shown(alpha, 20)} and rank {shown(rank, 20)} "
            f"for {shown(module, 80)}, whose factor has rank {a.shape[0]}; download the adapter "
            "again"
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _patterned(module: str, patterns: Any, default: Any) -> Any:
    """Return the value of the first pattern that ends a module's name, as peft matches them.

    Patterns are compared as plain endings, never run as expressions of a stranger's.
    """
    for key, value in (patterns if isinstance(patterns, dict) else {}).items():
        plain = str(key).removeprefix("^").removesuffix("$").replace("\\.", ".")
        if module == plain or module.endswith(f".{plain}"):
            return value
    return default


def _pairs(tensors: Mapping[str, Tensor], label: str) -> dict[str, dict[str, Tensor]]:
    """Return the factors A and B by module.

    Raises:
        ParameterMismatchError: If a tensor is no factor or a factor stands alone.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = FACTOR.fullmatch(name)
        if not found or tensor.ndim != 2:
            raise ParameterMismatchError(
                f"{label} has {shown(name)}, which is no LoRA factor of a matrix; merge the "
                "adapter into its model (merge_and_unload) and import that"
            )
        pairs.setdefault(found[1], {})[found[2]] = tensor
    alone = [module for module, factors in pairs.items() if len(factors) != 2]
    if alone:
        raise ParameterMismatchError(
            f"{label} has one factor of two for {len(alone)} modules ({shown(alone[0], 80)}); "
            "download the adapter again"
        )
    return pairs


def _add(
    matrix: Tensor, where: Place, module: str, factors: Mapping[str, Tensor], factor: float,
    label: str,
) -> None:  # fmt: skip
    """Add a product to its matrix, or to its third of the rows.

    Raises:
        ParameterMismatchError: If the product has another shape.
    """
    target = matrix.T if where.transposed else matrix
    if where.third is not None:
        target = target.chunk(len(THIRDS))[where.third]
    a, b = factors["A"].float(), factors["B"].float()
    if a.shape[0] != b.shape[1] or tuple(target.shape) != (b.shape[0], a.shape[1]):
        raise ParameterMismatchError(
            f"{label} has factors of {tuple(b.shape)} and {tuple(a.shape)} for "
            f"{shown(module, 80)}, which is {tuple(target.shape)} in this encoder; choose "
            "the encoder it was made for"
        )
    target += factor * (b @ a)
