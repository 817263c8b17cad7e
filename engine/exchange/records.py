"""What is written down of a checkpoint that was brought in, and of a model that is taken away."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.encoders import Encoder
from engine.exchange import Brought
from engine.exchange.export import shown_name
from engine.exchange.recognise import TRAINED
from engine.provenance import provenance
from engine.store import Entry, digest_tensors
from engine.tasks import Task


def brought_meta(
    brought: Brought, encoder: Encoder, task: Task, head_digest: str, **measured: Any
) -> dict[str, Any]:
    """Say what an imported checkpoint is; what training would tell and a file does not is absent.

    Args:
        brought: What ``bring`` returned.
        encoder: Whose task vector it is.
        task: Whose task it was trained on.
        head_digest: Of the frozen head, by ``remembering.head_digest``.
        **measured: ``accuracy``, ``n``, ``split_digests`` where they were measured.

    Returns:
        The meta of an entry of kind "checkpoint", plain JSON values.
    """
    return {
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "task": task.name,
        "task_source": task.source,
        "mode": brought.mode,
        "head_digest": head_digest,
        "dtype": str(next(iter(brought.tau.values())).dtype).removeprefix("torch."),
        "tau_digest": digest_tensors(brought.tau),
        "origin": brought.origin,
        **measured,
        **provenance(),
    }


def taken_record(
    kind: str,
    encoder: Encoder,
    mode: str,
    convention: str,
    typed: Mapping[str, float],
    used: Mapping[str, float],
    entries: Mapping[str, Entry],
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Say what made an exported file; it goes into the file, so no folder of ours is in it.

    Args:
        kind: "open_clip", "huggingface" or "vector".
        encoder: Whose theta_0 it rests on.
        mode: The reading: "nonlinear", "posthoc" or "linear".
        convention: "sum" or "mean".
        typed: Coefficients as they were asked for, by task.
        used: Coefficients as they were applied.
        entries: Checkpoints by task.
        method: What merged them, None for their sum.
        options: Of the method.

    Returns:
        Plain JSON values.
    """
    return {
        "as": kind,
        "contents": "tau" if kind == "vector" else "theta",
        "encoder": shown_name(encoder.name),
        "encoder_digest": encoder.digest,
        "mode": mode,
        "trained": TRAINED[mode],
        "convention": convention,
        "method": method or convention,
        "options": dict(options or {}),
        "alphas": dict(typed),
        "coefficients": dict(used),
        "checkpoints": {name: entry.digest for name, entry in entries.items()},
        "origins": {
            name: entry.meta["origin"] for name, entry in entries.items() if "origin" in entry.meta
        },
        **provenance(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
