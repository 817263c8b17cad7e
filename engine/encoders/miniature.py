"""The miniature: a small CLIP in open_clip's own classes, with its weights in the store."""

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.encoders.encoder import Encoder
from engine.errors import CheckpointError, UsageError
from engine.store import Store

NAME = "miniature"
RANDOM_NAME = "miniature-random"
HINT = "python -m engine pretrain"
CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "width": 128,
        "layers": 3,
        "head_width": 32,
    },
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
}


def load_miniature(store: Store, name: str = NAME) -> Encoder:
    """Load the miniature or its randomly initialised twin.

    The twin has its own image tower and the text tower of the pre-trained miniature, so that both
    share their frozen heads.

    Args:
        store: Where the weights are kept.
        name: ``miniature`` or ``miniature-random``.

    Returns:
        The encoder, in float32 on the CPU; the stored float16 values are its weights.

    Raises:
        UsageError: If the name is another.
        MissingDataError: If the weights have not been made.
        CheckpointError: If the entry is damaged or says nothing about its configuration.
        ParameterMismatchError: If the weights do not fit the configuration.
    """
    from engine.encoders.towers import build_model, load_weights, make_encoder

    if name not in {NAME, RANDOM_NAME}:
        raise UsageError(f"no miniature is called {name!r}; choose {NAME} or {RANDOM_NAME}")
    hint = f"the encoder {NAME} is not on disk; make it with `{HINT}`"
    entry = store.one("encoder", hint, name=NAME)
    weights, config = store.get(entry), _config(entry.meta)
    if name == RANDOM_NAME:
        entry = store.one("encoder", hint.replace(NAME, RANDOM_NAME), name=RANDOM_NAME)
        weights = {k: v for k, v in weights.items() if not k.startswith("visual.")}
        weights |= store.get(entry)
    model = build_model(config)
    load_weights(model, weights, f"the stored encoder {name}")
    return make_encoder(name, model, config, tokenizer(config))


def tokenizer(config: Mapping = CONFIG):
    """Make open_clip's byte-pair tokenizer for a configuration's context.

    Args:
        config: Model configuration.

    Returns:
        A callable from texts to token numbers, shape (number of texts, context).
    """
    import open_clip

    return open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])


def random_initialisation(seed: int = 0, config: Mapping = CONFIG) -> dict[str, Tensor]:
    """Draw an image tower from open_clip's initialisation.

    Args:
        seed: Seeds the draw.
        config: Model configuration.

    Returns:
        The tower's tensors, named ``visual.*``, rounded to float16.
    """
    from engine.encoders.towers import build_model

    state = build_model(config, seed).state_dict()
    return rounded({name: value for name, value in state.items() if name.startswith("visual.")})


def rounded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round floating tensors to float16: what is stored, and what the encoder then is.

    Args:
        state: Tensors by name.

    Returns:
        Contiguous copies on the CPU.
    """
    return {
        name: value
        .detach()
        .to("cpu", torch.float16 if value.is_floating_point() else value.dtype)
        .contiguous()
        .clone()
        for name, value in state.items()
    }


def _config(meta: Mapping) -> dict:
    """Read the configuration an entry was made with."""
    config = meta.get("config")
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise CheckpointError(
            f"the stored encoder {NAME} does not say its configuration; make it again with `{HINT}`"
        )
    return config
