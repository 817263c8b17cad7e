"""Checkpoints as users have them: the same keys, shapes and prefixes, at a tiny size."""

import json
import sys
import types
import zipfile
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from tiny_clip import CONFIG
from torch import nn

from engine.encoders.towers import build_model

MODEL_NAME = "ViT-B-32"  # what the paper's code writes into a linear checkpoint


def tuned(seed: int = 1, scale: float = 0.01, start=None) -> nn.Module:
    """The tiny CLIP with a fine-tuned image tower."""
    model = build_model(CONFIG, 0)
    if start is not None:
        model.load_state_dict(start)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=source)
    return model


def tower(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.visual.named_parameters()}


@contextmanager
def reference_code():
    """The module ``src.modeling`` of the paper's code, there only while a file is written."""

    class ImageEncoder(nn.Module):
        def __init__(self, model):
            from torchvision import transforms

            super().__init__()
            self.model = model
            bicubic = transforms.InterpolationMode.BICUBIC
            self.train_preprocess = transforms.Compose([
                transforms.RandomResizedCrop(224, scale=(0.9, 1.0), interpolation=bicubic),
                transforms.ToTensor(),
            ])
            self.val_preprocess = self.train_preprocess
            self.cache_dir = None
            if hasattr(self.model, "transformer"):
                del self.model.transformer

    class ImageClassifier(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.image_encoder = encoder
            self.classification_head = nn.Linear(8, 5)

    module = types.ModuleType("src.modeling")
    for name, kind in (("ImageEncoder", ImageEncoder), ("ImageClassifier", ImageClassifier)):
        kind.__module__, kind.__qualname__ = "src.modeling", name
        setattr(module, name, kind)
    sys.modules |= {"src": types.ModuleType("src"), "src.modeling": module}
    try:
        yield module
    finally:
        del sys.modules["src"], sys.modules["src.modeling"]


def pickled_module(path: Path, model: nn.Module, classifier: bool = False) -> Path:
    """``{D}Val/finetuned.pt``: a pickled image encoder."""
    with reference_code() as code:
        encoder = code.ImageEncoder(model)
        torch.save(code.ImageClassifier(encoder) if classifier else encoder, path)
    return path


def linear_state(theta: nn.Module, theta0: nn.Module, model_name: str | None = MODEL_NAME) -> dict:
    """The state dict of a linearized encoder: numbers instead of names."""
    state = {}
    for group, model in (("params0", theta0), ("params", theta)):
        if hasattr(model, "transformer"):
            del model.transformer
        holder = nn.Module()
        holder.model = nn.Module()
        # ImageEncoder wraps CLIP; functorch lists its parameters in their own order
        setattr(holder.model, group, nn.ParameterList(list(model.parameters())))
        state |= holder.state_dict()
    return state if model_name is None else state | {"model_name": model_name}


def linear_checkpoint(path: Path, *args, **kwargs) -> Path:
    torch.save(linear_state(*args, **kwargs), path)
    return path


def vision_names(theta: dict, prefix: str = "vision_model.") -> dict[str, torch.Tensor]:
    """A tower under Hugging Face's names, written out one by one; a twin of the engine's table."""
    out = {
        "embeddings.class_embedding": theta["class_embedding"],
        "embeddings.patch_embedding.weight": theta["conv1.weight"],
        "embeddings.position_embedding.weight": theta["positional_embedding"],
    }
    for theirs, ours in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        out |= {f"{theirs}.{k}": theta[f"{ours}.{k}"] for k in ("weight", "bias")}
    for i in range(CONFIG["vision_cfg"]["layers"]):
        block, layer = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
        for k in ("weight", "bias"):
            qkv = theta[f"{block}attn.in_proj_{k}"]
            d = len(qkv) // 3
            out[f"{layer}self_attn.q_proj.{k}"] = qkv[:d]
            out[f"{layer}self_attn.k_proj.{k}"] = qkv[d : 2 * d]
            out[f"{layer}self_attn.v_proj.{k}"] = qkv[2 * d :]
            out[f"{layer}self_attn.out_proj.{k}"] = theta[f"{block}attn.out_proj.{k}"]
            out[f"{layer}layer_norm1.{k}"] = theta[f"{block}ln_1.{k}"]
            out[f"{layer}layer_norm2.{k}"] = theta[f"{block}ln_2.{k}"]
            out[f"{layer}mlp.fc1.{k}"] = theta[f"{block}mlp.c_fc.{k}"]
            out[f"{layer}mlp.fc2.{k}"] = theta[f"{block}mlp.c_proj.{k}"]
    return {prefix + name: tensor.contiguous().clone() for name, tensor in out.items()}


def vision_config(**changes) -> dict:
    return {
        "architectures": ["CLIPVisionModel"],
        "model_type": "clip_vision_model",
        "hidden_act": "gelu",
        "num_attention_heads": 2,
        "patch_size": 8,
        "image_size": 16,
    } | changes


def vision_folder(folder: Path, tensors: dict, config: dict | None = None) -> Path:
    """The files of a hub repository like tanganke/clip-vit-base-patch32_mnist."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config or vision_config()))
    return folder


def lora_factors(rank: int = 2, seed: int = 3, prefix: str = "vision_model.") -> dict:
    """Factors of a peft adapter on the queries, values, fc1 and out_proj of both layers."""
    source = torch.Generator().manual_seed(seed)
    sizes = {
        "self_attn.q_proj": (16, 16),
        "self_attn.v_proj": (16, 16),
        "self_attn.out_proj": (16, 16),
        "mlp.fc1": (64, 16),
        "mlp.fc2": (16, 64),
    }
    factors = {}
    for layer in range(2):
        for module, (rows, columns) in sizes.items():
            name = f"base_model.model.{prefix}encoder.layers.{layer}.{module}"
            factors[f"{name}.lora_A.weight"] = torch.randn(rank, columns, generator=source) / 10
            factors[f"{name}.lora_B.weight"] = torch.randn(rows, rank, generator=source) / 10
    return factors


def lora_config(**changes) -> dict:
    return {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 8,
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj", "out_proj", "fc1", "fc2"],
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "base_model_name_or_path": "openai/clip-vit-base-patch32",
    } | changes


def lora_folder(folder: Path, factors: dict | None = None, config: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "adapter_model.safetensors", lora_factors() if factors is None else factors)
    (folder / "adapter_config.json").write_text(json.dumps(config or lora_config()))
    return folder


def save(path: Path, tensors: dict) -> Path:
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return path


def archive(path: Path, program: bytes, members: dict[str, bytes] | None = None, **how) -> Path:
    """A torch archive with a program written by hand."""
    with zipfile.ZipFile(path, "w", **how) as file:
        file.writestr("archive/data.pkl", program)
        for name, data in ({"archive/byteorder": b"little"} | (members or {})).items():
            file.writestr(name, data)
    return path
