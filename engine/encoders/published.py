"""Which published weights lie on this machine already; nothing is asked of the network."""

from pathlib import Path

# the towers of the paper and its ConvNeXt; any other of open_clip's may be named as well
ARCHITECTURES = (
    "ViT-B-32-quickgelu",
    "ViT-B-16-quickgelu",
    "ViT-L-14-quickgelu",
    "convnext_base_w",
)
SUPERVISED = ("vit_base_patch16_224.augreg_in1k",)
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
         "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")  # fmt: skip
FOLDER = Path("~/.cache/clip")  # where open_clip keeps what comes from an address


def published_here() -> list[dict]:
    """List published weights of the usual architectures, and whether they are here.

    Returns:
        {"name": what ``load_encoder`` takes, "here": bool} each.
    """
    import open_clip
    import timm
    from open_clip.pretrained import get_pretrained_cfg

    found = []
    for architecture in ARCHITECTURES:
        for tag in open_clip.list_pretrained_tags_by_model(architecture):
            published = get_pretrained_cfg(architecture, tag) or {}
            here = _is_here(published.get("hf_hub"), published.get("url"))
            found.append({"name": f"{architecture}:{tag}", "here": here})
    for model in SUPERVISED:
        architecture, _, tag = model.partition(".")
        published = timm.get_pretrained_cfg(model)
        found.append({
            "name": f"timm/{architecture}:{tag}",
            "here": _is_here(published.hf_hub_id, None),
        })
    return found


def _is_here(hub: str | None, url: str | None) -> bool:
    """Return whether weights lie in the hub's cache, or in open_clip's."""
    from huggingface_hub import try_to_load_from_cache

    if url and (FOLDER.expanduser() / url.rpartition("/")[2]).is_file():
        return True
    repository = (hub or "").strip("/")
    return bool(repository) and any(
        isinstance(try_to_load_from_cache(repository, file), str) for file in FILES
    )
