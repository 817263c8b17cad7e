"""Backbones and frozen heads as one ``f(theta, x)``: the miniature, open_clip's, timm's models."""

import torch

from engine.encoders import postponed  # isort: skip - before anything imports open_clip
from engine.encoders.attention import plain_attention
from engine.encoders.encoder import Encoder
from engine.encoders.heads import TextTower
from engine.encoders.miniature import NAME, RANDOM_NAME, load_stored, random_initialisation
from engine.store import Store

__all__ = [
    "Encoder",
    "TextTower",
    "encoder_names",
    "load_encoder",
    "plain_attention",
    "postponed",
    "random_initialisation",
]


def load_encoder(name: str, store: Store, device: torch.device | str = "cpu") -> Encoder:
    """Load an encoder by name.

    Args:
        name: ``miniature``, ``miniature-random``, or an open_clip model as
            ``ARCHITECTURE:random[:SEED]``, ``ARCHITECTURE:TAG`` or ``ARCHITECTURE:FILE[@SHA256]``;
            ``timm/ARCHITECTURE:...`` is one of timm's, without a text tower.
        store: Where the miniatures' weights and trained heads are kept.
        device: Where to compute.

    Returns:
        The encoder, in float32.

    Raises:
        UsageError: If the name is unknown.
        MissingDataError: If its weights are not on this machine.
        CheckpointError: If they are damaged.
        ParameterMismatchError: If they are those of another architecture.
    """
    if name.startswith("timm/"):
        from engine.encoders.supervised import load_supervised

        encoder = load_supervised(name, store)
    elif ":" in name:
        from engine.encoders.towers import load_open_clip

        encoder = load_open_clip(name)
    else:
        encoder = load_stored(store, name)
    return encoder if torch.device(device).type == "cpu" else encoder.to(device)


def encoder_names(store: Store) -> list[str]:
    """List the encoders whose weights are in the store, the miniature first.

    Args:
        store: Where they are kept.

    Returns:
        Names for ``load_encoder``, each once.
    """
    found = {entry.meta.get("name") for entry in store.find("encoder")}
    first = [name for name in (NAME, RANDOM_NAME) if name in found]
    return first + sorted(name for name in found - {NAME, RANDOM_NAME} if isinstance(name, str))
