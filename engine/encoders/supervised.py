"""Closed-vocabulary encoders: timm's image models as trunks, with heads trained and then frozen."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from engine.checks import check_finite, check_same_parameters
from engine.encoders.attention import swap_attention
from engine.encoders.drawing import first_values
from engine.encoders.encoder import Encoder
from engine.encoders.probing import TrainedHeads
from engine.encoders.weights import checked_file, read_weights, seed_of
from engine.errors import CheckpointError, MissingDataError, UsageError
from engine.store import digest_tensors

if TYPE_CHECKING:
    from engine.store import Store

PREFIX = "timm/"
USUAL = "timm/vit_base_patch16_224"
SCALE = 1 / 0.07  # CLIP's before training: arXiv:2103.00020, Sec. 2.5
_CLASSIFIER = re.compile(r"(head|head_dist|head\.fc|fc)\.(weight|bias)")


def load_supervised(name: str, store: "Store") -> Encoder:
    """Load one of timm's vision transformers or ConvNeXts as an encoder without a text tower.

    Args:
        name: ``timm/ARCHITECTURE:random[:SEED]``, ``timm/ARCHITECTURE:TAG`` or
            ``timm/ARCHITECTURE:FILE[@SHA256]``; a classifier in the weights is left out.
        store: Where its trained heads are kept.

    Returns:
        The encoder, in float32 on the CPU; ``head`` gives what the verb ``heads`` trained.

    Raises:
        UsageError: If the architecture or tag is unknown, or of a kind that is not supported.
        MissingDataError: If the weights are out of reach.
        CheckpointError: If they are damaged.
        ParameterMismatchError: If they are those of another architecture.
    """
    architecture, _, source = name.removeprefix(PREFIX).partition(":")
    if source == "random" or source.startswith("random:"):
        model = build_trunk(architecture, seed_of(name, source))
    elif source.partition("@")[0].endswith((".safetensors", ".pt", ".pth", ".bin")):
        model = build_trunk(architecture, seed=None)
        path = checked_file(source, {})
        _fill(model, read_weights(path), str(path))
    else:
        model = _published(name, architecture, source)
    return make_supervised(name, architecture, model, store)


def build_trunk(architecture: str, seed: int | None = 0) -> nn.Module:
    """Build timm's model without its classifier, initialised at random.

    Args:
        architecture: timm's name, such as ``vit_base_patch16_224``.
        seed: Seeds the initialisation. None: nothing is drawn, for weights that fill it.

    Returns:
        The model, in eval mode.

    Raises:
        UsageError: If the name is unknown or the model is of another kind.
    """
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise UsageError(
            f"timm has no model {architecture!r}; did you mean "
            f"{', '.join(near) or 'vit_base_patch16_224'}?"
        )
    with first_values(seed):
        model = timm.create_model(architecture, pretrained=False, num_classes=0)
    if type(model) not in (VisionTransformer, ConvNeXt):
        raise UsageError(
            f"{architecture} is a {type(model).__name__}; choose a vision transformer or ConvNeXt "
            f"of timm such as {USUAL}:random"
        )
    return model.eval()


def make_supervised(name: str, architecture: str, model: nn.Module, store: "Store") -> Encoder:
    """Make a trunk into an encoder.

    Args:
        name: What the encoder is called.
        architecture: timm's name.
        model: The trunk; it is taken apart.
        store: Where its heads are kept.

    Returns:
        The encoder, in float32 on the CPU.

    Raises:
        NonFiniteError: If a weight is NaN or infinite.
    """
    from engine.encoders.towers import empty_tower

    state = model.state_dict()
    check_finite(f"weights of {name}", state)
    config = timm.data.resolve_model_data_config(model)
    said = {"timm": architecture, "input": config["input_size"]}
    said |= {key: config[key] for key in ("mean", "std")}
    described = json.dumps(said, sort_keys=True) + digest_tensors(state)
    digest = hashlib.sha256(described.encode()).hexdigest()
    swap_attention(model)
    return Encoder(
        name=name,
        digest=digest,
        image_size=config["input_size"][-1],
        embed_dim=model.num_features,
        theta0=empty_tower(model),
        logit_scale=SCALE,
        mean=torch.tensor(config["mean"]),
        std=torch.tensor(config["std"]),
        tower=model,
        text=TrainedHeads(store, name, digest, model.num_features),
    )


def _fill(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Fill a trunk with weights that fit it name by name; a classifier is left out.

    Raises:
        ParameterMismatchError: If names or shapes differ.
        NonFiniteError: If a weight is NaN or infinite.
    """
    expected = model.state_dict()
    kept = {k: v for k, v in weights.items() if k in expected or not _CLASSIFIER.fullmatch(k)}
    check_same_parameters(source, kept, expected)
    check_finite(source, kept)
    model.load_state_dict(kept)


def _published(name: str, architecture: str, tag: str) -> nn.Module:
    """Return a trunk with published weights.

    Raises:
        UsageError: If the tag is unknown.
        MissingDataError: If the weights are out of reach.
        CheckpointError: If they are damaged.
    """
    build_trunk(architecture, seed=None)  # refuses what is unknown or of another kind
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if f"{architecture}.{tag}" not in known:
        tags = [entry.partition(".")[2] for entry in known]
        raise UsageError(
            f"{architecture} has no published weights called {tag!r}; choose random, a file"
            f"{' or ' if tags else ''}{', '.join(tags[:6])}"
        )
    try:
        return timm.create_model(f"{architecture}.{tag}", pretrained=True, num_classes=0).eval()
    except (RuntimeError, KeyError, ValueError) as error:
        if "state_dict" in str(error) or isinstance(error, KeyError):
            raise CheckpointError(
                f"the weights of {name} are damaged or do not fit; delete them so that they are "
                "fetched again"
            ) from error
        raise MissingDataError(_out_of_reach(name, architecture, tag)) from error
    except Exception as error:  # network and hub client raise almost anything
        raise MissingDataError(_out_of_reach(name, architecture, tag)) from error


def _out_of_reach(name: str, architecture: str, tag: str) -> str:
    """Return the sentence that says where to get weights."""
    return (
        f"the weights of {name} are not on this machine and the hub cannot be reached; where there "
        f"is a network run `python -c \"import timm; timm.create_model('{architecture}.{tag}', "
        f'pretrained=True)"`, or name a local file as {PREFIX}{architecture}:FILE'
    )
