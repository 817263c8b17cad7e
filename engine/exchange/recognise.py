"""What a file of weights is, by its content, and its tensors under the image tower's names."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.checks import check_finite, check_same_parameters
from engine.encoders import Encoder
from engine.errors import CheckpointError, ParameterMismatchError
from engine.exchange import huggingface, indexed, lora
from engine.exchange.pickled import Contents, read_pickled
from engine.exchange.sources import KNOWN, Source, shown
from engine.store import read_tensors

TAU = "tau.visual."
# how a file of ours says it is read -> how it was trained
TRAINED = {"nonlinear": "nonlinear", "posthoc": "nonlinear", "linear": "linear"}
TOWER = re.compile(r"((?:[A-Za-z_]\w*\.)*?)visual\.(.+)")
# of a whole CLIP or an image classifier: what is beside its image tower
BESIDE = re.compile(
    r"(positional_embedding|text_projection|logit_scale|logit_bias|attn_mask|input_resolution|"
    r"context_length|vocab_size|token_embedding\.weight|ln_final\.(weight|bias)|"
    r"transformer\.resblocks\..+|text\..+|classification_head\..+)"
)


@dataclass(frozen=True)
class Found:
    """What was recognised; either ``theta`` or ``tau`` is there."""

    kind: str  # "module" | "indexed" | "huggingface" | "open_clip" | "tau" | "lora"
    theta: dict[str, Tensor] | None = None  # float32, names of the tower; what is absent is equal
    theta0: dict[str, Tensor] | None = None  # the pre-trained weights, where the file has them
    tau: dict[str, Tensor] | None = None  # float16 where our own file has that
    mode: str | None = None  # how it was trained, where the file says
    absent: tuple[str, ...] = ()  # parameters that the file has not
    left_out: int = 0  # tensors beside the image tower
    said: dict[str, Any] = field(default_factory=dict)  # what our own files say of themselves


def recognise(source: Source, encoder: Encoder) -> Found:
    """Read a file and name its tensors as the encoder's image tower does.

    Args:
        source: An opened file.
        encoder: Whose names, shapes and activation it must have.

    Returns:
        The kind and the parameters, finite and in float32.

    Raises:
        CheckpointError: If it is damaged or of no known kind.
        ParameterMismatchError: If it was made for another architecture.
        NonFiniteError: If a parameter is NaN or infinite.
    """
    if source.container == "safetensors":
        contents, said = Contents(read_tensors(source.path), {}, False), _header(source)
    else:
        contents, said = read_pickled(source), {}
    names = contents.tensors
    if any(".lora_" in name for name in names):
        tau = lora.from_lora(names, source.adapter, encoder.theta0, source.label)
        return Found("lora", tau=_checked(tau, encoder, source.label))
    if any(indexed.NUMBERED.fullmatch(name) for name in names):
        return _indexed(contents, encoder, source.label)
    if all(name.startswith(TAU) for name in names):
        tau = {name.removeprefix(TAU): tensor for name, tensor in names.items()}
        mode = TRAINED.get(str(said.get("trained", said.get("mode"))))
        kept = {tensor.dtype for tensor in tau.values()} == {torch.float16}
        tau = _checked(tau, encoder, source.label, dtype=torch.float16 if kept else torch.float32)
        return Found("tau", tau=tau, mode=mode, said=said)
    if any(name.endswith("embeddings.patch_embedding.weight") for name in names):
        return _huggingface(contents, encoder, source)
    return _open_clip(contents, encoder, source.label)


def _indexed(contents: Contents, encoder: Encoder, label: str) -> Found:
    """Return a linear checkpoint of the tangent-space paper's code.

    Raises:
        CheckpointError: If it does not say its architecture.
    """
    architecture = contents.texts.get("model_name")
    if architecture is None:
        raise CheckpointError(
            f"{label} holds numbers instead of names and no model_name to tell them apart; save "
            "it with the code that trained it"
        )
    theta, theta0 = indexed.from_indexed(contents.tensors, architecture, label)
    return Found(
        "indexed",
        theta=_checked(theta, encoder, label),
        theta0=_checked(theta0, encoder, label),
        mode="linear",
        left_out=len(indexed.BEFORE) + len(indexed.AFTER),
    )


def _huggingface(contents: Contents, encoder: Encoder, source: Source) -> Found:
    """Return a CLIP vision model of Hugging Face."""
    theta, beside = huggingface.from_huggingface(contents.tensors, source.label)
    huggingface.check_config(source.config, encoder, source.label)
    absent = ("proj",) if "proj" not in theta and "proj" in encoder.theta0 else ()
    return Found(
        "huggingface",
        theta=_checked(theta, encoder, source.label, absent),
        absent=absent,
        left_out=len(beside),
    )


def _open_clip(contents: Contents, encoder: Encoder, label: str) -> Found:
    """Return a state dict of open_clip, or a pickled module that holds one of its models.

    Raises:
        CheckpointError: If there is no image tower, or it was trained with the other GELU.
        ParameterMismatchError: If there are tensors of no known place.
    """
    matches = {name: TOWER.fullmatch(name) for name in contents.tensors}
    prefixes = {found[1] for found in matches.values() if found}
    if len(prefixes) != 1:
        some = ", ".join(shown(name, 60) for name in list(matches)[:3])
        raise CheckpointError(
            f"{label} holds {len(matches)} tensors ({some}) of no known kind; give {KNOWN}"
        )
    (prefix,) = prefixes
    theta = {found[2]: contents.tensors[name] for name, found in matches.items() if found}
    beside = [name.removeprefix(prefix) for name, found in matches.items() if not found]
    unknown = [name for name in beside if not BESIDE.fullmatch(name)]
    if unknown:
        raise ParameterMismatchError(
            f"{label} has {len(unknown)} tensors that no CLIP has "
            f"({', '.join(shown(name, 80) for name in unknown[:3])}); save the model's "
            "state dict alone"
        )
    quick = any(name.endswith(".QuickGELU") for name in contents.named)
    if contents.module and quick and huggingface.activation(encoder) != huggingface.QUICK:
        raise CheckpointError(
            f"{label} computes with QuickGELU and {encoder.name} does not; choose an encoder with "
            "QuickGELU, such as ViT-B-32-quickgelu:openai"
        )
    buffers = encoder.tower.state_dict().keys() - encoder.theta0.keys()
    theta = {name: tensor for name, tensor in theta.items() if name not in buffers}
    kind = "module" if contents.module else "open_clip"
    return Found(kind, theta=_checked(theta, encoder, label), left_out=len(beside))


def _checked(
    tensors: Mapping[str, Tensor],
    encoder: Encoder,
    label: str,
    absent: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Return parameters in one type and the encoder's order once names, shapes and values fit.

    Raises:
        CheckpointError: If one holds whole numbers.
    """
    expected = {name: value for name, value in encoder.theta0.items() if name not in absent}
    check_same_parameters(label, {shown(n): value for n, value in tensors.items()}, expected)
    whole = [name for name in expected if not tensors[name].is_floating_point()]
    if whole:
        raise CheckpointError(
            f"{label} holds whole numbers in {len(whole)} parameters ({whole[0]}): it is "
            "quantised; give the weights in floating point"
        )
    check_finite(label, {name: tensors[name] for name in expected})
    return {name: tensors[name].to("cpu", dtype).contiguous() for name in expected}


def _header(source: Source) -> dict[str, Any]:
    """Return what our own safetensors files say of themselves; empty for those of others."""
    with source.path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        metadata = json.loads(file.read(length)).get("__metadata__") or {}
    try:
        said = json.loads(metadata.get("tauscope", "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
