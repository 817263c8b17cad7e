"""The miniature: a small CLIP in open_clip's own classes, with its weights in the store."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from engine.encoders.encoder import Encoder
from engine.errors import CheckpointError, UsageError
from engine.store import Entry, Store

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


def load_stored(store: Store, name: str = NAME) -> Encoder:
    """Load an encoder whose weights are in the store: the miniature or its untrained twin.

    An entry that holds an image tower only names in ``meta["text"]`` the encoder whose text tower
    it shares, and so its frozen heads.

    Args:
        store: Where the weights are kept.
        name: What the entry's meta calls it.

    Returns:
        The encoder, in float32 on the CPU; the stored float16 values are its weights.

    Raises:
        UsageError: If nothing in the store has that name and it is no miniature.
        MissingDataError: If a miniature's weights have not been made.
        CheckpointError: If the entry is damaged or says nothing about its configuration.
        ParameterMismatchError: If the weights do not fit the configuration.
    """
    from engine.encoders.towers import build_model, load_weights, make_encoder

    entry = _entry(store, name)
    config, weights = _config(entry), store.get(entry)
    if not any(not key.startswith("visual.") for key in weights):
        whole = store.get(_entry(store, entry.meta.get("text", NAME)))
        weights |= {k: v for k, v in whole.items() if not k.startswith("visual.")}
    model = build_model(config, seed=None)
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

    # open_clip's own, read when it was imported: another of the same words would take 0.2 s
    return partial(open_clip.tokenize, context_length=config["text_cfg"]["context_length"])


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


def _entry(store: Store, name: str) -> Entry:
    """Return the newest entry of that name.

    Raises:
        UsageError: If nothing has that name and it is no miniature.
    """
    if name not in {NAME, RANDOM_NAME} and not store.find("encoder", name=name):
        raise UsageError(
            f"no encoder is called {name!r}; choose {NAME}, {RANDOM_NAME}, or an open_clip model "
            "with its weights, such as ViT-B-32-quickgelu:openai or ViT-B-32-quickgelu:random"
        )
    return store.one(
        "encoder", f"the encoder {name} is not on disk; make it with `{HINT}`", name=name
    )


def _config(entry: Entry) -> dict:
    """Return the configuration an entry was made with.

    Raises:
        CheckpointError: If it does not say.
    """
    config = entry.meta.get("config")
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise CheckpointError(
            f"the stored encoder {entry.meta.get('name')} does not say its configuration; "
            f"make it again with `{HINT}`"
        )
    return config
