"""What users take away: a Hugging Face folder with its model card, and a task vector alone."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from engine.encoders import Encoder
from engine.errors import CheckpointError, EngineError, UsageError
from engine.exchange.huggingface import from_huggingface, to_huggingface, vision_config
from engine.store import read_tensors, write_bytes

TOLERANCE = 1e-5  # of the largest feature: float32 in another order of operations


def huggingface_folder(
    encoder: Encoder, theta: Mapping[str, Tensor], out: Path, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Write an image encoder as a folder that ``transformers`` loads.

    ``CLIPVisionModelWithProjection`` gives the encoder's features as ``image_embeds``;
    ``CLIPVisionModel`` gives what comes before the projection as ``pooler_output``. The folder
    is written aside, read back and compared, and only then takes its name.

    Args:
        encoder: A plain ViT.
        theta: The parameters, named as ``theta0``.
        out: The folder; it must not be there yet, or be empty.
        record: What made the weights, plain JSON values, for the model card.

    Returns:
        What was verified: ``{"tensors": count, "largest_difference": number}``, the largest
        difference between its features in ``transformers`` and ours, relative to the largest
        feature.

    Raises:
        UsageError: If the tower is of another kind, or the folder holds something.
        CheckpointError: If what was written does not read back as the same model.
        EngineError: If it cannot be written.
    """
    config = vision_config(encoder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already and holds something; name a new folder")
    theta = {name: value.detach().to("cpu", torch.float32) for name, value in theta.items()}
    metadata = {"format": "pt", "tauscope": json.dumps(dict(record), sort_keys=True)}
    files = {
        "model.safetensors": safetensors.torch.save(to_huggingface(theta), metadata),
        "config.json": _json(config),
        "preprocessor_config.json": _json(_preprocessor(encoder)),
        "README.md": model_card(record, config).encode(),
    }
    aside = out.absolute().with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        for name, data in files.items():
            write_bytes(aside / name, data)
        verified = _verified(encoder, theta, aside)
        aside.replace(out)
    except OSError as error:
        raise EngineError(
            f"cannot write {out}: {error.strerror or error}; choose another folder"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return verified


def weights_file(
    tensors: Mapping[str, Tensor], record: Mapping[str, Any], out: Path
) -> dict[str, Any]:
    """Write tensors as safetensors, bit for bit, and read them back.

    Args:
        tensors: ``visual.*``, an image tower for open_clip, or ``tau.visual.*``, a task vector;
            in any floating type, which is kept.
        record: What made them, plain JSON values.
        out: A safetensors file.

    Returns:
        ``{"tensors": count}``, all of them read back equal.

    Raises:
        CheckpointError: If what was written does not read back.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"format": "pt", "tauscope": json.dumps(dict(record), sort_keys=True)}
    write_bytes(out, safetensors.torch.save(tensors, metadata))
    back = read_tensors(out)
    same = back.keys() == tensors.keys() and all(
        back[name].dtype == value.dtype and torch.equal(back[name], value)
        for name, value in tensors.items()
    )
    if not same:
        raise CheckpointError(f"{out} does not read back as it was written; check the disk")
    return {"tensors": len(back)}


def model_card(record: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Write the model card of an exported encoder.

    Args:
        record: What made the weights: encoder, alphas by task, digests, versions, commit.
        config: ``config.json``.

    Returns:
        Markdown with the hub's front matter.
    """
    tasks = [
        f"| {_cell(name)} | {_share(record, name)} | {digest[:16]} | "
        f"{_cell(record['origins'].get(name, {}).get('file', 'fine-tuned here'))} |"
        for name, digest in record["checkpoints"].items()
    ]
    size = config["image_size"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"""---
library_name: transformers
pipeline_tag: image-feature-extraction
tags: [clip, task-arithmetic, model-merging]
---

# {_cell(record["encoder"])} with {len(tasks)} task vectors

The image encoder {_formula(record)}, merged and written by
Tauscope. The text encoder is not in it and is that of the pre-trained model.

| task | alpha | task vector | from |
|---|---|---|---|
{chr(10).join(tasks)}

| | |
|---|---|
| pre-trained encoder | {_cell(record["encoder"])}, digest {record["encoder_digest"]} |
| mode | {record["mode"]}: weights to be read as they are, not linearized |
| trained | {record["trained"]} |
| code | commit {record["commit"]}; {versions} |
| made | {record["created"]} |

```python
from transformers import CLIPVisionModelWithProjection
model = CLIPVisionModelWithProjection.from_pretrained("PATH OF THIS FOLDER")
features = model(pixel_values=pixels).image_embeds  # (N, {config["projection_dim"]})
```

The features are not L2-normalised. `CLIPVisionModel` loads the same folder without the projection.
Pixels: {size} x {size}, normalised as `preprocessor_config.json` says. Accuracy was not measured by
this export; `python -m engine evaluate` measures it.
"""


def _share(record: Mapping[str, Any], task: str) -> str:
    """Return a task vector's coefficient; a dash where a method merged it with the others."""
    alpha = record["coefficients"].get(task)
    return "-" if alpha is None else f"{alpha:g}"


def _formula(record: Mapping[str, Any]) -> str:
    """Say how the weights follow from the task vectors."""
    if record["coefficients"].keys() == record["checkpoints"].keys():
        return "theta_0 + sum_t alpha_t tau_t (Eq. 1 of arXiv:2305.12827)"
    (alpha,) = record["coefficients"].values()
    options = ", ".join(f"{name} {value:g}" for name, value in record["options"].items())
    method = record["method"] + (f" ({options})" if options else "")
    return f"theta_0 + {alpha:g} tau, tau being what {method} makes of the task vectors"


def _verified(encoder: Encoder, theta: Mapping[str, Tensor], folder: Path) -> dict[str, Any]:
    """Return what reading the folder back showed.

    Raises:
        CheckpointError: If tensors or features differ.
    """
    back, _ = from_huggingface(read_tensors(folder / "model.safetensors"), folder.name)
    same = back.keys() == theta.keys() and all(torch.equal(back[n], theta[n]) for n in theta)
    difference = _difference(encoder, theta, folder) if same else math.nan
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"the folder written is not the same model (tensors equal: {same}, features apart by "
            f"{difference}) and was removed; report this as a bug, with the encoder {encoder.name}"
        )
    return {"tensors": len(theta), "largest_difference": difference}


def _difference(encoder: Encoder, theta: Mapping[str, Tensor], folder: Path) -> float:
    """Return how far transformers' features are from ours, of the largest."""
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True).eval()
    here = encoder.to("cpu", torch.float32)
    source = torch.Generator().manual_seed(0)
    size = (2, 3, encoder.image_size, encoder.image_size)
    pixels = here.preprocess(torch.randint(0, 256, size, generator=source, dtype=torch.uint8))
    with torch.no_grad():
        ours = here.features(theta, pixels)
        theirs = model(pixel_values=pixels).image_embeds
    return float((ours - theirs).abs().max() / ours.abs().max())


def _preprocessor(encoder: Encoder) -> dict[str, Any]:
    """Return ``preprocessor_config.json``: shorter side, centre crop, normalisation."""
    size = encoder.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": encoder.mean.tolist(),
        "image_std": encoder.std.tolist(),
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def shown_name(name: str) -> str:
    """Name an encoder without the folder its weights lie in.

    Args:
        name: As ``load_encoder`` takes it.

    Returns:
        ``ARCHITECTURE:weights.safetensors`` for a file; other names as they are.
    """
    architecture, colon, source = name.partition(":")
    return f"{architecture}{colon}{Path(source).name if '/' in source else source}"


def _cell(text: object) -> str:
    """Return a text that cannot break out of a table's cell."""
    return "".join(c if c.isprintable() and c not in "|`<>[]" else " " for c in str(text))
