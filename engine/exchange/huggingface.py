"""The names of Hugging Face's CLIP vision models and open_clip's, both ways.

The two write the same function: queries, keys and values apart or in one matrix, the projection
as a linear layer or as a matrix that stands on the right.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from engine.encoders import Encoder
from engine.errors import CheckpointError, ParameterMismatchError, UsageError
from engine.exchange.sources import shown

OUTER = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
INNER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
THIRDS = ("q_proj", "k_proj", "v_proj")
LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
PROJECTION = "visual_projection.weight"
# of a whole CLIP: its text tower, and numbers that are no parameters
BESIDE = re.compile(r"text_model\..+|text_projection\.weight|logit_scale|.*\.position_ids")
QUICK, GELU = "quick_gelu", ("gelu", "gelu_python")


class Place(NamedTuple):
    """Where a tensor of theirs lies in ours."""

    name: str
    third: int | None = None  # of the rows: queries, keys, values
    transposed: bool = False


def place(name: str) -> Place | None:
    """Find where a tensor of a CLIP vision model belongs.

    Args:
        name: With or without ``vision_model.``.

    Returns:
        The parameter of the image tower, or None for an unknown name.
    """
    name = name.removeprefix("vision_model.")
    if name == PROJECTION:
        return Place("proj", transposed=True)
    if name in OUTER:
        return Place(OUTER[name])
    found = LAYER.fullmatch(name)
    if not found:
        return None
    layer, module, kind = found.groups()
    block = f"transformer.resblocks.{int(layer)}."
    if module in INNER:
        return Place(f"{block}{INNER[module]}.{kind}")
    part = module.removeprefix("self_attn.")
    if part in THIRDS and part != module:
        return Place(f"{block}attn.in_proj_{kind}", THIRDS.index(part))
    return None


def from_huggingface(
    tensors: Mapping[str, Tensor], label: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Name the tensors of a CLIP vision model as open_clip does.

    Args:
        tensors: By Hugging Face's names.
        label: The file, for messages.

    Returns:
        Parameters by the tower's names, without ``proj`` where the file has no projection; and
        the names that are no part of the image tower.

    Raises:
        ParameterMismatchError: If a name is unknown, or queries, keys and values do not go
            together.
    """
    beside = [name for name in tensors if BESIDE.fullmatch(name)]
    places = {name: place(name) for name in tensors if name not in set(beside)}
    unknown = [name for name, found in places.items() if found is None]
    if unknown:
        raise ParameterMismatchError(
            f"{label} has {len(unknown)} tensors that no CLIP vision model has "
            f"({', '.join(shown(n, 80) for n in unknown[:3])}); give the weights of a "
            "CLIPVisionModel"
        )
    theta: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = {}
    for name, (ours, third, transposed) in places.items():
        tensor = tensors[name]
        if third is not None:
            thirds.setdefault(ours, {})[third] = tensor
        else:
            theta[ours] = tensor.T if transposed and tensor.ndim == 2 else tensor
    for ours, parts in thirds.items():
        shapes = {part.shape for part in parts.values()}
        if len(parts) != 3 or len(shapes) != 1:
            raise ParameterMismatchError(
                f"{label} has queries, keys and values that do not go together in {ours}; "
                "it is damaged or of another architecture: download it again"
            )
        theta[ours] = torch.cat([parts[third] for third in range(3)])
    return theta, beside


def to_huggingface(theta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the parameters of an image tower as a ``CLIPVisionModelWithProjection`` does.

    Args:
        theta: Of a plain ViT of open_clip.

    Returns:
        Contiguous tensors by Hugging Face's names.

    Raises:
        UsageError: If the tower is no CLIP vision model.
    """
    layers = len({name.split(".")[2] for name in theta if name.startswith("transformer.resblocks")})
    theirs = [*OUTER, "visual_projection.weight"]
    for layer in range(layers):
        modules = [*INNER, *(f"self_attn.{part}" for part in THIRDS)]
        theirs += [
            f"encoder.layers.{layer}.{m}.{kind}" for m in modules for kind in ("weight", "bias")
        ]
    places = {name: place(name) for name in theirs}
    if {found.name for found in places.values()} != theta.keys():
        raise UsageError(
            "this image tower is no CLIP vision model of Hugging Face; choose a ViT encoder such "
            "as ViT-B-32-quickgelu, or --as open_clip"
        )
    tensors = {}
    for name, (ours, third, transposed) in places.items():
        tensor = theta[ours] if third is None else theta[ours].chunk(3)[third]
        prefix = "" if name == PROJECTION else "vision_model."
        tensors[prefix + name] = (tensor.T if transposed else tensor).contiguous()
    return tensors


def vision_config(encoder: Encoder) -> dict:
    """Describe an image tower as ``CLIPVisionConfig`` does.

    Args:
        encoder: Of a plain ViT.

    Returns:
        The values of ``config.json``.

    Raises:
        UsageError: If the tower computes something that a CLIP vision model does not.
    """
    from open_clip.transformer import VisionTransformer

    tower = encoder.tower
    plain = isinstance(tower, VisionTransformer) and tower.pool_type == "tok"
    if not plain or tower.attn_pool is not None:
        raise UsageError(
            f"{encoder.name} has an image tower that is no CLIP vision model of Hugging Face; "
            "choose a ViT encoder such as ViT-B-32-quickgelu, or --as open_clip"
        )
    block = tower.transformer.resblocks[0]
    width, d = encoder.theta0["proj"].shape
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": encoder.theta0["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": len(tower.transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "num_channels": 3,
        "image_size": encoder.image_size,
        "patch_size": encoder.theta0["conv1.weight"].shape[-1],
        "projection_dim": d,
        "hidden_act": activation(encoder),
        "layer_norm_eps": block.ln_1.eps,
        "attention_dropout": 0.0,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def activation(encoder: Encoder) -> str:
    """Name the activation of an image tower as Hugging Face does.

    Args:
        encoder: Any encoder.

    Returns:
        "quick_gelu", "gelu_pytorch_tanh" or "gelu".
    """
    for module in encoder.tower.modules():
        if type(module).__name__ == "QuickGELU":
            return QUICK
        if getattr(module, "approximate", "none") == "tanh":
            return "gelu_pytorch_tanh"
    return "gelu"


def check_config(config: Mapping, encoder: Encoder, label: str) -> None:
    """Refuse a model whose configuration computes another function than the encoder.

    Args:
        config: ``config.json`` of a vision model or a whole CLIP; empty where there is none.
        encoder: What it is to be read as.
        label: The file, for messages.

    Raises:
        CheckpointError: If activation or heads differ: neither shows in the weights.
    """
    said = config.get("vision_config", config)
    said = said if isinstance(said, dict) else {}
    given = said.get("hidden_act", QUICK if said else None)
    wanted = activation(encoder)
    if given is not None and given != wanted and not (given in GELU and wanted == "gelu"):
        raise CheckpointError(
            f"{label} computes with {shown(given, 40)} and {encoder.name} with {wanted}; choose an "
            f"encoder {'with' if given == QUICK else 'without'} QuickGELU"
        )
    heads = said.get("num_attention_heads")
    ours = {m.num_heads for m in encoder.tower.modules() if hasattr(m, "num_heads")}
    if heads is not None and ours and heads not in ours:
        raise CheckpointError(
            f"{label} has {shown(heads, 20)} heads a layer and {encoder.name} has "
            f"{max(ours)}; choose the encoder it was made for"
        )
