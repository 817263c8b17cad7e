"""Models that visitors take away: merged weights or a task vector, written and read back."""

import shlex
import shutil
import tempfile
import time
import weakref
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.compute import catalogue, models
from app.compute.background import Work, board

TAKE = "export a model"
PREFIX, STALE = ".export-", 24 * 3600.0  # of folders, and seconds until nobody can want one
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
        method: What merges them into one direction; None for their sum.
        options: Of the method, name and value.
    """

    kind: str
    encoder: str
    reading: str
    convention: str
    alphas: tuple[tuple[str, float], ...]
    digests: tuple[tuple[str, str], ...]
    references: tuple[str, ...] = ()
    method: str | None = None
    options: tuple[tuple[str, float], ...] = ()

    @property
    def coefficients(self) -> dict[str, float]:
        """What each task vector is multiplied with; those that add nothing are left out."""
        if self.method is not None:
            return {name: alpha for name, alpha in self.alphas if alpha}
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
        if self.method is None:
            words += ["--alphas", *(f"{name}={alpha:.6g}" for name, alpha in self.alphas)]
            words += ["--convention", self.convention] if self.convention != "sum" else []
        else:
            words += ["--alpha", f"{self.alphas[0][1]:.6g}", "--method", self.method]
            set_ = [f"{name}={value:.12g}" for name, value in self.options]
            words += ["--option", *set_] if set_ else []
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


def setting(
    kind: str,
    encoder: str,
    reading: str,
    convention: str,
    alphas: Mapping[str, float],
    method: str | None = None,
    options: Mapping[str, float] | None = None,
) -> Taking:
    """Return what a choice takes away, with the newest task vectors of the encoder.

    Args:
        kind: One of :data:`KINDS`.
        encoder: Its name.
        reading: "nonlinear", "posthoc" or "linear".
        convention: "sum" or "mean".
        alphas: By task; with a method the same for each, its direction's.
        method: What merges them; None for their sum.
        options: Of the method.
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
        method,
        tuple((options or {}).items()),
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
    """Write, verify and pack, in a folder that goes with the parcel."""
    from engine.store import default_store

    home = default_store().home
    home.mkdir(parents=True, exist_ok=True)
    _sweep(home)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=home))
    try:
        parcel = _written(taking, work, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(parcel, shutil.rmtree, folder, ignore_errors=True)
    return parcel


def _sweep(home: Path) -> None:
    """Remove what a server that was killed left behind."""
    for old in home.glob(f"{PREFIX}*"):
        if time.time() - old.stat().st_mtime > STALE:
            shutil.rmtree(old, ignore_errors=True)


def _written(taking: Taking, work: Work, folder: Path) -> Parcel:
    """Write, verify and pack."""
    import torch

    from engine.evaluate import MERGED
    from engine.exchange.export import huggingface_folder, weights_file
    from engine.exchange.records import taken_record
    from engine.merging import prepare
    from engine.store import default_store
    from engine.task_vectors import combine

    work.step(0, 3, "reading the task vectors")
    store, used = default_store(), taking.coefficients
    entries = _entries(taking)
    encoder = models.encoder(taking.encoder).to("cpu", torch.float32)
    raw = {name: store.get(entries[name]) for name in used}
    taus = {name: {k: v.float() for k, v in tau.items()} for name, tau in raw.items()}
    names = list(used)
    if taking.method is not None:
        taus = {MERGED: prepare(taus, taking.method, **dict(taking.options))}
        used = {MERGED: taking.alphas[0][1]}
    record = taken_record(
        taking.kind,
        encoder,
        taking.reading,
        taking.convention,
        dict(taking.alphas),
        used,
        {name: entries[name] for name in names},
        taking.method,
        dict(taking.options),
    )
    work.step(1, 3, "writing and reading back")
    path, card = folder / taking.file_name(), ""
    if taking.kind == "huggingface":
        inner = folder / path.stem
        theta = combine(encoder.theta0, taus, used)
        verified = huggingface_folder(encoder, theta, inner, record)
        card = (inner / "README.md").read_text()
        work.step(2, 3, "packing")
        _zip(inner, path)
    else:
        tensors = _tensors(taking, encoder, raw, taus, used)
        verified = weights_file(tensors, record, path)
    return Parcel(path, path.name, path.stat().st_size, record, card, verified)


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


def _tensors(taking: Taking, encoder: Any, raw: Mapping, taus: Mapping, used: dict) -> dict:
    """Return what a file holds; a single task vector at alpha = 1 keeps its bits and its type."""
    from engine.merging.weights import merged_tensors

    alone = taking.kind == "vector" and taking.method is None
    if alone and list(used.values()) == [1.0]:
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
