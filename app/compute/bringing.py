"""Checkpoints that visitors bring: what a file is, before anything is written; then the import."""

import shlex
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.compute import models
from app.compute.background import Work, board
from app.compute.bringing_uploads import Upload, harmless, staged, typed_path
from app.compute.geometry import parts_of

LOOK, IMPORT = "look at a checkpoint", "import a checkpoint"
KINDS = {
    "module": "Pickled image encoder of the tangent-space paper's code, read without running it",
    "indexed": "Linear checkpoint of the tangent-space paper's code",
    "huggingface": "Hugging Face CLIP vision model",
    "open_clip": "open_clip state dict",
    "tau": "Task vector written by Tauscope",
    "lora": "LoRA adapter of peft",
}


@dataclass(frozen=True)
class Asked:
    """What a visitor wants to bring; equal ones are the same question.

    Attributes:
        path: Typed; empty where files were sent.
        uploads: Files sent.
        encoder: As ``load_encoder`` takes it.
        task: As ``load_task`` takes it.
        mode: "nonlinear" or "linear"; None for what the file says.
        zeroshot: Path of the pre-trained weights; empty for the encoder's or the file's own.
    """

    path: str
    uploads: tuple[Upload, ...]
    encoder: str
    task: str
    mode: str | None = None
    zeroshot: str = ""

    @property
    def named(self) -> str:
        """What a command line would call the file."""
        if self.path.strip() or not self.uploads:
            return self.path.strip()
        return "FOLDER" if len(self.uploads) > 1 else harmless(self.uploads[0].name)

    def light(self) -> "Asked":
        """Return the same question without the bytes that were sent: equal, and kept for long."""
        return replace(self, uploads=tuple(replace(item, data=b"") for item in self.uploads))

    def command(self) -> str:
        """Return the words that do the same without the page."""
        words = ["import", self.named, "--encoder", self.encoder, "--task", self.task]
        words += ["--mode", self.mode] if self.mode else []
        words += ["--zeroshot", self.zeroshot.strip()] if self.zeroshot.strip() else []
        return f"python -m engine {shlex.join(words)}"


@dataclass(frozen=True)
class Seen:
    """What a file turned out to be; nothing was written.

    Attributes:
        origin: Of the checkpoint: file, sha256, bytes, kind, left_out, absent, theta0, ...
        architecture: Of the encoder whose names and shapes it has.
        mode: How it was trained.
        mode_from: "file", "asked" or "default".
        tensors: Of the task vector.
        parameters: Values in them.
        dtype: Of the task vector.
        norm: Euclidean norm of tau, in the units of the weights.
        parts: Share of its square by part of the network, from input to output.
        stamp: Of the files looked at.
    """

    origin: dict[str, Any]
    architecture: str
    mode: str
    mode_from: str
    tensors: int
    parameters: int
    dtype: str
    norm: float
    parts: dict[str, float] = field(default_factory=dict)
    stamp: tuple = ()


@dataclass(frozen=True)
class Kept:
    """An imported checkpoint."""

    digest: str
    size: int  # bytes
    encoder: str
    task: str
    mode: str

    def merge_link(self) -> str:
        """Return where the Merge page shows it."""
        from urllib.parse import quote, urlencode

        query = {"e": self.encoder, "r": self.mode, "t": quote(self.task, safe="")}
        return f"merge?{urlencode(query)}"


def look(asked: Asked, visitor: str, times: int = 0) -> Work:
    """Find out what a file is, in the background.

    Args:
        asked: The question.
        visitor: Who asks.
        times: Which time it is asked: another time it is looked at anew.

    Returns:
        Work whose result is what was :class:`Seen`.

    Raises:
        UsageError: If a path cannot be one.
    """
    stamp = _stamp(asked)

    def seen(work: Work) -> Seen:
        work.step(0, 3, "loading the encoder")
        encoder = models.encoder(asked.encoder)
        models.task(asked.task)  # a wrong name is said before a large file is read
        work.step(1, 3, "reading the file")
        with _opened(asked) as path:
            brought = _bring(asked, path, encoder)
        work.step(2, 3, "measuring it")
        return replace(_seen(brought, encoder), stamp=stamp)

    return board().start(LOOK, visitor, (asked.light(), stamp, visitor, times), seen)


def bring_in(asked: Asked, seen: Seen, visitor: str, times: int = 0) -> Work:
    """Write what was seen into the store, in the background.

    Args:
        asked: The question.
        seen: Its answer; the file must still be the same.
        visitor: Who asks.
        times: Which time it is asked for.

    Returns:
        Work whose result is the checkpoint :class:`Kept`.
    """

    def kept(work: Work) -> Kept:
        from engine.errors import UsageError
        from engine.exchange.records import brought_meta
        from engine.remembering import head_digest
        from engine.store import default_store

        work.step(0, 3, "loading the encoder")
        encoder, task = models.encoder(asked.encoder), models.task(asked.task)
        work.step(1, 3, "reading the file")
        with _opened(asked) as path:
            brought = _bring(asked, path, encoder)
        if brought.origin["sha256"] != seen.origin["sha256"]:
            raise UsageError(f"{brought.origin['file']} has changed since; look at it again")
        work.step(2, 3, "writing")
        meta = brought_meta(brought, encoder, task, head_digest(encoder, task))
        entry = default_store().put("checkpoint", brought.tau, meta)
        return Kept(entry.digest, entry.size, encoder.name, task.name, brought.mode)

    key = (asked.light(), seen.origin["sha256"], visitor, times)
    return board().start(IMPORT, visitor, key, kept)


def _bring(asked: Asked, path: Path, encoder: Any) -> Any:
    """Return the task vector in a file, as the verb reads it."""
    from engine.exchange import bring

    zeroshot = typed_path(asked.zeroshot) if asked.zeroshot.strip() else None
    return bring(path, encoder, asked.mode, zeroshot)


@contextmanager
def _opened(asked: Asked) -> Generator[Path]:
    """Give the path of what is asked about; files that were sent lie there only meanwhile."""
    from engine.errors import EngineError
    from engine.store import default_store

    if not asked.uploads:
        yield typed_path(asked.path)
        return
    with staged(asked.uploads, default_store().home) as path:
        try:
            yield path
        except EngineError as error:  # where it lay for a moment tells a visitor nothing
            told = str(error).replace(str(path), path.name).replace(str(path.parent), "")
            raise type(error)(told) from error


def _stamp(asked: Asked) -> tuple:
    """Return what tells the files apart from those of another moment."""
    paths = [typed_path(text) for text in (asked.path, asked.zeroshot) if text.strip()]
    if not paths and not asked.uploads:
        typed_path("")  # says what is missing
    files = [path for path in paths if path.is_file()]
    files += [item for path in paths if path.is_dir() for item in sorted(path.iterdir())[:64]]
    return tuple((str(item), item.lstat().st_size, item.lstat().st_mtime_ns) for item in files)


def _architecture(encoder: Any) -> str:
    """Describe an image tower in a few words, by its parameters' shapes where it is a ViT."""
    theta0, size = encoder.theta0, encoder.image_size
    if "conv1.weight" not in theta0 or "class_embedding" not in theta0:
        return f"{encoder.name.partition(':')[0]}, {size} pixels, {encoder.embed_dim} features"
    blocks = {name.split(".")[2] for name in theta0 if name.startswith("transformer.resblocks.")}
    width, patch = theta0["conv1.weight"].shape[0], theta0["conv1.weight"].shape[-1]
    return (
        f"ViT, {len(blocks)} blocks of width {width}, patches of {patch} in {size} pixels, "
        f"{encoder.embed_dim} features"
    )


def _seen(brought: Any, encoder: Any) -> Seen:
    """Return what a reader wants to know of a task vector."""
    from engine.task_vectors import norm

    tau = brought.tau
    total = norm(tau)
    groups = parts_of(list(tau))
    squares = {
        part: norm({name: tau[name] for name in names}) ** 2 for part, names in groups.items()
    }
    return Seen(
        origin=brought.origin,
        architecture=_architecture(encoder),
        mode=brought.mode,
        mode_from=brought.origin["mode_from"],
        tensors=len(tau),
        parameters=sum(tensor.numel() for tensor in tau.values()),
        dtype=str(next(iter(tau.values())).dtype).removeprefix("torch."),
        norm=total,
        parts={part: square / total**2 for part, square in squares.items()} if total else {},
    )
