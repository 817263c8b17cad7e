"""A CLIP small enough for float64 tests, in the miniature's own classes."""

from engine.encoders.encoder import Encoder
from engine.encoders.miniature import rounded, tokenizer
from engine.encoders.towers import build_model, make_encoder

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


def tiny_encoder(seed: int = 0) -> Encoder:
    model = build_model(CONFIG, seed)
    return make_encoder(f"tiny-{seed}", model, CONFIG, tokenizer(CONFIG))


def tiny_weights(seed: int = 0) -> dict:
    return rounded(build_model(CONFIG, seed).state_dict())
