"""open_clip models by name: built from their configuration, loaded strictly, made into encoders."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping

import open_clip
import torch
from open_clip.factory import load_checkpoint
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from torch import Tensor, nn

from engine.checks import check_finite, check_same_parameters
from engine.encoders.attention import swap_attention
from engine.encoders.drawing import first_values
from engine.encoders.encoder import Encoder
from engine.encoders.heads import TextTower
from engine.encoders.weights import checked_file, read_weights, seed_of
from engine.errors import CheckpointError, MissingDataError, UsageError
from engine.store import digest_tensors

_FILES = (".safetensors", ".pt", ".pth", ".bin")
_OPENAI = ("input_resolution", "context_length", "vocab_size")


def load_open_clip(name: str) -> Encoder:
    """Load an open_clip model by name.

    Args:
        name: ``ARCHITECTURE:random``, ``ARCHITECTURE:random:SEED``, ``ARCHITECTURE:TAG`` or
            ``ARCHITECTURE:FILE`` with a file of type safetensors, pt, pth or bin: open_clip's names
            or OpenAI's state dict. ``FILE@SHA256`` pins its digest; a file that has the name of a
            published one is checked against that one's.

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
        model = build_model(config, seed=seed_of(name, source))
    elif source.partition("@")[0].endswith(_FILES) or "/" in source:
        model = build_model(config, seed=None)
        path = checked_file(source, published_digests(architecture))
        load_weights(model, _plain(name, architecture, config, read_weights(path)), str(path))
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


def published_digests(architecture: str) -> dict[str, str]:
    """Return the digests that published files carry in their addresses.

    Args:
        architecture: open_clip's name.

    Returns:
        By file name, the sha256 or its first 8 hex digits.
    """
    found = {}
    for tag in open_clip.list_pretrained_tags_by_model(architecture):
        url = (get_pretrained_cfg(architecture, tag) or {}).get("url") or ""
        folder, _, file = url.rpartition("/")
        whole = re.fullmatch(r"[0-9a-f]{64}", folder.rpartition("/")[2])
        short = re.fullmatch(r".*-([0-9a-f]{8})\.pt", file)
        if whole or short:
            found[file] = whole[0] if whole else short[1]
    return found


def build_model(config: Mapping, seed: int | None = 0) -> nn.Module:
    """Build open_clip's model of a configuration, initialised at random or not at all.

    Args:
        config: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and open_clip's further options.
        seed: Seeds the initialisation. None: nothing is drawn, for weights that fill it.

    Returns:
        The model, in eval mode.
    """
    options = dict(config)
    custom = options.pop("custom_text", False)
    with first_values(seed):
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
        theta0=empty_tower(tower),
        logit_scale=float(model.logit_scale.detach().exp()),
        mean=torch.tensor(preprocessing.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        std=torch.tensor(preprocessing.get("std", open_clip.OPENAI_DATASET_STD)),
        tower=tower,
        text=TextTower(model, tokenizer),
    )


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


def _plain(
    name: str, architecture: str, config: Mapping, weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return weights without the three numbers that OpenAI's state dicts carry beside them.

    Raises:
        UsageError: If they are OpenAI's and the architecture computes without QuickGELU.
    """
    if not set(_OPENAI) <= weights.keys():
        return weights
    if not config.get("quick_gelu"):
        raise UsageError(
            f"QuickGELU mismatch: OpenAI's weights were trained with QuickGELU and {architecture} "
            f"computes without it; choose {architecture}-quickgelu:{name.partition(':')[2]}"
        )
    return {key: value for key, value in weights.items() if key not in _OPENAI}


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
    model = build_model(config, seed=None)
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


def empty_tower(tower: nn.Module) -> dict[str, Tensor]:
    """Take the trainable parameters out of a tower, which keeps empty ones of the same shapes.

    Args:
        tower: Image tower, changed in place.

    Returns:
        The parameters in the tower's order.
    """
    theta0 = {}
    for prefix, module in tower.named_modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.requires_grad:
                theta0[f"{prefix}.{key}".removeprefix(".")] = parameter.detach()
                empty = torch.empty_like(parameter, device="meta")
                module._parameters[key] = nn.Parameter(empty, requires_grad=False)
    return {name: theta0[name] for name, _ in tower.named_parameters() if name in theta0}
