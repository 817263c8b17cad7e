"""Models that visitors take away: merged weights or a task vector, written and read back."""

import shlex
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.compute import catalogue, models
from app.compute.background import Work, board

TAKE = "export a model"
TRAINED = {"nonlinear": "nonlinear", "posthoc": "nonlinear", "linear": "linear"}
KINDS = {
    "open_clip": "Weights for open_clip",
    "huggingface": "Hugging Face folder",
    "vector": "Task vector",
}
ABOUT = {
    "open_clip": "θ₀ + Σ αₜ τₜ as safetensors under open_clip's names `visual.*`.",
    "huggingface": "θ₀ + Σ αₜ τₜ as a folder (zip) that `transformers` loads as "
    "`CLIPVisionModelWithProjection`, with a model card.",
    "vector": "Σ αₜ τₜ alone as safetensors, which Import reads again.",
}


@dataclass(frozen=True)
class Taking:
    """What is taken away; equal ones are the same file.

    Attributes:
        kind: One of :data:`KINDS`.
        encoder: Its name.
        reading: "nonlinear", "posthoc" or "linear".
        convention: "sum" or "mean".
        alphas: As typed, by task, as pairs.
        digests: Of the checkpoints, by task, as pairs.
        references: What ``load_task`` takes, one a task.
    """

    kind: str
    encoder: str
    reading: str
    convention: str
    alphas: tuple[tuple[str, float], ...]
    digests: tuple[tuple[str, str], ...]
    references: tuple[str, ...] = ()

    @property
    def coefficients(self) -> dict[str, float]:
        """What each task vector is multiplied with; those that add nothing are left out."""
        share = 1 / len(self.alphas) if self.convention == "mean" else 1.0
        return {name: alpha * share for name, alpha in self.alphas if alpha}

    def refusal(self) -> str:
        """Say in a sentence why it cannot be taken away; empty where it can."""
        if not self.alphas:
            return "Choose at least one task."
        if self.kind != "vector" and self.reading != "nonlinear":
            return (
                "A linearized reading is no single set of weights: f_lin needs θ₀ and τ apart, and "
                "no other program computes it. Take the task vector, or the non-linear reading."
            )
        if not self.coefficients:
            return "Every alpha is 0: that is θ₀ alone, and no task's. Set one of them."
        return ""

    def file_name(self) -> str:
        """Name the file."""
        parts = ["merged" if self.kind != "vector" else "tau", self.encoder, *self.coefficients]
        plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in "_".join(parts[:5]))
        return plain[:100] + (".zip" if self.kind == "huggingface" else ".safetensors")

    def command(self) -> str:
        """Return the words that write the same without the page."""
        words = ["export", "--as", self.kind, "--encoder", self.encoder, "--mode", self.reading]
        words += ["--tasks", *self.references]
        words += ["--alphas", *(f"{name}={alpha:.6g}" for name, alpha in self.alphas)]
        words += ["--convention", self.convention] if self.convention != "sum" else []
        words += ["--out", self.file_name().removesuffix(".zip")]
        return f"python -m engine {shlex.join(words)}"


@dataclass(frozen=True, eq=False)
class Parcel:
    """A file that was written and read back; it goes when nobody holds it any more.

    Attributes:
        path: Where it lies.
        name: What it is to be called.
        size: Bytes.
        record: What made it.
        card: The model card; empty where there is none.
        verified: What reading it back showed.
    """

    path: Path
    name: str
    size: int
    record: Mapping[str, Any]
    card: str
    verified: Mapping[str, Any]
    folder: tempfile.TemporaryDirectory = field(repr=False)


def setting(
    kind: str, encoder: str, reading: str, convention: str, alphas: Mapping[str, float]
) -> Taking:
    """Return what a choice takes away, with the newest task vectors of the encoder.

    Args:
        kind: One of :data:`KINDS`.
        encoder: Its name.
        reading: "nonlinear", "posthoc" or "linear".
        convention: "sum" or "mean".
        alphas: By task.
    """
    found = vectors(encoder, reading)
    chosen = {name: found[name] for name in alphas if name in found}
    return Taking(
        kind,
        encoder,
        reading,
        convention,
        tuple((name, float(alphas[name])) for name in chosen),
        tuple((name, item.digest) for name, item in chosen.items()),
        tuple(item.reference for item in chosen.values()),
    )


def vectors(encoder: str, reading: str) -> dict[str, catalogue.Checkpoint]:
    """Return the newest task vector of every task that fits an encoder and a reading."""
    digest = models.encoder(encoder).digest
    return catalogue.newest(catalogue.checkpoints(), encoder, TRAINED[reading], digest)


def take(taking: Taking, visitor: str, times: int = 0) -> Work:
    """Write what is taken away and read it back, in the background.

    Args:
        taking: What.
        visitor: Who asks.
        times: Which time it is asked for.

    Returns:
        Work whose result is a :class:`Parcel`.
    """
    return board().start(
        TAKE, visitor, (taking, visitor, times), lambda work: _packed(taking, work)
    )


def drop(work: Work) -> None:
    """Forget a parcel: its file goes with it."""
    work.cancel()
    board().drop(work)


def _packed(taking: Taking, work: Work) -> Parcel:
    """Write, verify and pack."""
    import torch

    from engine.exchange.export import huggingface_folder, weights_file
    from engine.exchange.records import taken_record
    from engine.store import default_store
    from engine.task_vectors import combine
    from engine.tasks.files import scratch_folder

    work.step(0, 3, "reading the task vectors")
    store, used = default_store(), taking.coefficients
    entries = _entries(taking)
    encoder = models.encoder(taking.encoder).to("cpu", torch.float32)
    raw = {name: store.get(entries[name]) for name in used}
    taus = {name: {k: v.float() for k, v in tau.items()} for name, tau in raw.items()}
    record = taken_record(
        taking.kind,
        encoder,
        taking.reading,
        taking.convention,
        dict(taking.alphas),
        used,
        {name: entries[name] for name in used},
    )
    work.step(1, 3, "writing and reading back")
    folder = scratch_folder(store.home)
    path, card = Path(folder.name) / taking.file_name(), ""
    if taking.kind == "huggingface":
        inner = Path(folder.name) / path.stem
        theta = combine(encoder.theta0, taus, used)
        verified = huggingface_folder(encoder, theta, inner, record)
        card = (inner / "README.md").read_text()
        work.step(2, 3, "packing")
        _zip(inner, path)
    else:
        tensors = _tensors(taking, encoder, raw, taus)
        verified = weights_file(tensors, record, path)
    return Parcel(path, path.name, path.stat().st_size, record, card, verified, folder)


def _entries(taking: Taking) -> dict[str, Any]:
    """Return the store's entries by task.

    Raises:
        MissingDataError: If one was deleted since.
    """
    from engine.errors import MissingDataError

    listed = {item.digest: item.entry for item in catalogue.checkpoints()}
    gone = [name for name, digest in taking.digests if digest not in listed]
    if gone:
        raise MissingDataError(f"the checkpoint of {gone[0]} is no longer on disk; reload the page")
    return {name: listed[digest] for name, digest in taking.digests}


def _tensors(taking: Taking, encoder: Any, raw: Mapping, taus: Mapping) -> dict:
    """Return what a file holds; a single task vector at alpha = 1 keeps its bits and its type."""
    from engine.merging.weights import merged_tensors

    used = taking.coefficients
    if taking.kind == "vector" and list(used.values()) == [1.0]:
        return {f"tau.visual.{name}": value for name, value in raw[next(iter(used))].items()}
    reading = "nonlinear" if taking.kind == "open_clip" else "linear"
    return merged_tensors(encoder, reading, dict(taus), used)


def _zip(folder: Path, path: Path) -> None:
    """Pack a folder under its own name; weights do not shrink, so they are only stored.

    Raises:
        CheckpointError: If it does not read back.
    """
    from engine.errors import CheckpointError

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for item in sorted(folder.iterdir()):
            archive.write(item, f"{folder.name}/{item.name}")
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise CheckpointError(f"{bad} does not read back as it was written; check the disk")
