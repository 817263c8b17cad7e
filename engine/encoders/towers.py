"""open_clip models by name: built from their configuration, loaded strictly, made into encoders."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from open_clip.factory import load_checkpoint
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from torch import Tensor, nn

from engine.checks import check_finite, check_same_parameters
from engine.encoders.attention import swap_attention
from engine.encoders.encoder import Encoder
from engine.encoders.heads import TextTower
from engine.errors import CheckpointError, MissingDataError, UsageError
from engine.store import digest_tensors, read_tensors


def load_open_clip(name: str) -> Encoder:
    """Load an open_clip model by name.

    Args:
        name: ``ARCHITECTURE:random``, ``ARCHITECTURE:random:SEED``, ``ARCHITECTURE:TAG`` or
            ``ARCHITECTURE:FILE`` with a file of type safetensors, pt, pth or bin.

    Returns:
        The encoder, in float32 on the CPU.

    Raises:
        UsageError: If architecture or tag is unknown, cannot be linearized, or if the tag was
            trained with the other kind of GELU.
        MissingDataError: If the file is absent, or the tag's weights are neither cached nor
            within reach.
        CheckpointError: If the file is damaged or no plain file of tensors.
        ParameterMismatchError: If the weights are those of another architecture.
    """
    architecture, _, source = name.partition(":")
    config = architecture_config(architecture)
    if source == "random" or source.startswith("random:"):
        model = build_model(config, seed=_seed(name, source))
    elif source.endswith((".safetensors", ".pt", ".pth", ".bin")) or "/" in source:
        model = build_model(config)
        load_weights(model, read_weights(Path(source).expanduser()), source)
    else:
        return _load_tag(name, architecture, source, config)
    return make_encoder(name, model, config, open_clip.get_tokenizer(architecture))


def architecture_config(architecture: str) -> dict:
    """Look an architecture up among open_clip's configurations.

    Args:
        architecture: open_clip's name, such as ``ViT-B-32-quickgelu``.

    Returns:
        Its configuration, a copy.

    Raises:
        UsageError: If the name is unknown, or its text tower or pooling is of a kind that is not
            supported.
    """
    names = open_clip.list_models()
    config = open_clip.get_model_config(architecture) if architecture in names else None
    if config is None:
        near = difflib.get_close_matches(architecture, names, n=3) or ["ViT-B-32-quickgelu"]
        raise UsageError(f"no encoder is called {architecture!r}; did you mean {', '.join(near)}?")
    if "multimodal_cfg" in config or "hf_model_name" in config["text_cfg"]:
        raise UsageError(
            f"{architecture} has a text tower that is not supported; "
            "choose a CLIP architecture such as ViT-B-32-quickgelu"
        )
    return config


def build_model(config: Mapping, seed: int = 0) -> nn.Module:
    """Build open_clip's model of a configuration, initialised at random.

    Args:
        config: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and open_clip's further options.
        seed: Seeds the initialisation; torch's own generator is left as it was.

    Returns:
        The model, in eval mode.
    """
    options = dict(config)
    custom = options.pop("custom_text", False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**options)
    return model.eval()


def make_encoder(name: str, model: nn.Module, config: Mapping, tokenizer) -> Encoder:
    """Part a model into image tower and text tower.

    Args:
        name: What the encoder is called.
        model: open_clip model; it is taken apart.
        config: Its configuration.
        tokenizer: Texts to token numbers.

    Returns:
        The encoder, in float32 on the CPU.

    Raises:
        UsageError: If the image tower cannot be linearized.
        NonFiniteError: If a weight is NaN or infinite.
    """
    state = model.state_dict()
    check_finite(f"weights of {name}", state)
    described = json.dumps(dict(config), sort_keys=True) + digest_tensors(state)
    digest = hashlib.sha256(described.encode()).hexdigest()
    preprocessing = open_clip.get_model_preprocess_cfg(model)
    tower = model.visual
    del model.visual
    swap_attention(tower)
    size = tower.image_size
    return Encoder(
        name=name,
        digest=digest,
        image_size=size[0] if isinstance(size, tuple) else size,
        embed_dim=config["embed_dim"],
        theta0=_empty_tower(tower),
        logit_scale=float(model.logit_scale.detach().exp()),
        mean=torch.tensor(preprocessing.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        std=torch.tensor(preprocessing.get("std", open_clip.OPENAI_DATASET_STD)),
        tower=tower,
        text=TextTower(model, tokenizer),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a user's weight file; code in it is never run.

    Args:
        path: safetensors, or a state dict saved by torch.

    Returns:
        Tensors by name, on the CPU; a wrapping ``state_dict`` and a ``module.`` prefix are removed.

    Raises:
        MissingDataError: If there is no such file.
        CheckpointError: If it is damaged or holds anything but tensors.
    """
    if not path.is_file():
        raise MissingDataError(f"there is no weight file {path}; check the path")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file raises almost anything
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors; save the model's state dict as "
            "safetensors and name that file"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(f"{path} holds no state dict; save the model's state dict instead")
    weights = {str(key).removeprefix("module."): value for key, value in loaded.items()}
    strange = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"{path} holds {len(strange)} values that are no tensors ({', '.join(strange[:3])}); "
            "save the model's state dict alone"
        )
    return weights


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Fill a model with weights that must fit it name by name.

    Args:
        model: open_clip model, changed in place.
        weights: Tensors by open_clip's names, of any floating type.
        source: Where they come from, for the message.

    Raises:
        ParameterMismatchError: If names or shapes differ.
        NonFiniteError: If a weight is NaN or infinite.
    """
    expected = model.state_dict()
    check_same_parameters(source, weights, expected)
    check_finite(source, weights)
    model.load_state_dict(dict(weights))


def _load_tag(name: str, architecture: str, tag: str, config: dict) -> Encoder:
    """Return the encoder of published weights.

    Raises:
        UsageError: If the tag is unknown or was trained with the other kind of GELU.
        MissingDataError: If the weights are out of reach.
        CheckpointError: If they are damaged.
    """
    published = get_pretrained_cfg(architecture, tag)
    if not published:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise UsageError(
            f"{architecture} has no published weights called {tag!r}; choose random, a file"
            f"{' or ' if tags else ''}{', '.join(tags[:6])}"
        )
    wanted, given = bool(published.get("quick_gelu")), bool(config.get("quick_gelu"))
    if wanted != given:
        twin = architecture + "-quickgelu" if wanted else architecture.removesuffix("-quickgelu")
        raise UsageError(
            f"QuickGELU mismatch: the weights {tag} were trained {'with' if wanted else 'without'} "
            f"QuickGELU and {architecture} computes {'with' if given else 'without'} it; "
            f"choose {twin}:{tag}"
        )
    try:
        path = download_pretrained(published)
    except Exception as error:  # network and hub client raise almost anything
        raise MissingDataError(
            f"the weights of {name} are not on this machine and the hub cannot be reached; where "
            f'there is a network run `python -c "import open_clip; open_clip.create_model('
            f"'{architecture}', '{tag}')\"`, or name a local file as {architecture}:FILE"
        ) from error
    model = build_model(config)
    try:
        load_checkpoint(model, path, strict=True, weights_only=True)
    except Exception as error:  # the same as for any file that was not made here
        raise CheckpointError(
            f"the weights of {name} at {path} are damaged or do not fit; delete that file so that "
            "it is fetched again"
        ) from error
    open_clip.factory.set_model_preprocess_cfg(
        model, {key: published[key] for key in ("mean", "std") if published.get(key)}
    )
    return make_encoder(name, model, config, open_clip.get_tokenizer(architecture))


def _seed(name: str, source: str) -> int:
    """Return the seed of ``random`` or ``random:SEED``.

    Raises:
        UsageError: If it is no number.
    """
    text = source.removeprefix("random").removeprefix(":") or "0"
    if not text.isdecimal():
        raise UsageError(f"{name} names no seed: expected random or random:NUMBER, got {source!r}")
    return int(text)


def _empty_tower(tower: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters of a tower, which keeps empty ones of the same shapes."""
    theta0 = {}
    for prefix, module in tower.named_modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.requires_grad:
                theta0[f"{prefix}.{key}".removeprefix(".")] = parameter.detach()
                empty = torch.empty_like(parameter, device="meta")
                module._parameters[key] = nn.Parameter(empty, requires_grad=False)
    return {name: theta0[name] for name, _ in tower.named_parameters() if name in theta0}
