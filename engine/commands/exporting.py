"""The verbs that write files for others: ``merge`` and ``embed``."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import safetensors.torch

from engine.commands.choices import (
    TRAINED,
    find_checkpoint,
    open_store,
    open_tasks,
    read_alphas,
    read_taus,
)
from engine.commands.directions import prepared, read_options
from engine.commands.printing import Outcome, megabytes, table
from engine.encoders import load_encoder
from engine.errors import MissingDataError, UsageError
from engine.evaluate import MERGED
from engine.merging import METHODS, asked_of, share
from engine.merging.weights import merged_tensors
from engine.provenance import provenance
from engine.store import Entry, Store, default_store, write_bytes
from engine.tasks import CONTROL, TASKS

EMBEDDED_LIMIT = 64_000_000  # bytes; the folder is part of every clone


def merge(args: argparse.Namespace) -> Outcome:
    r"""Write merged weights as safetensors.

    .. math:: \theta_0 + \sum_t \alpha_t \tau_t

    under ``visual.*`` for the non-linear reading. A linearized reading is not a set of weights:
    ``f_lin`` needs theta_0 and tau apart, so the sum of the task vectors alone is written, under
    ``tau.visual.*``.

    Args:
        args: With ``encoder``, ``mode``, ``tasks``, ``alpha`` or ``alphas``, ``convention``,
            ``method``, ``option``, ``out`` and ``cache``.

    Returns:
        Where the file is, what it holds and what it was made of.

    Raises:
        UsageError: If no coefficient is given or the file is not to be a safetensors file.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (1) and (3).
    """
    out = Path(args.out).expanduser()
    if out.suffix != ".safetensors":
        raise UsageError(f"{out} must end in .safetensors, the only format written")
    if args.alpha is None and args.alphas is None:
        raise UsageError(
            "say how much of each task: --alpha 0.3, or --alphas handwriting=0.3 signs=0.2"
        )
    store = open_store(args)
    tasks = open_tasks(args.tasks)
    typed = read_alphas(args, tasks)
    factor = share(args.convention, len(tasks))
    alphas = {name: factor * alpha for name, alpha in typed.items()}
    encoder = load_encoder(args.encoder, store)
    entries = [find_checkpoint(store, encoder, t, args.mode) for t in tasks if alphas[t.name] != 0]
    taus = read_taus(store, encoder, entries)
    direction = prepared(args, taus) if taus else None
    if direction is not None:
        if args.alpha is None:
            raise UsageError(f"{args.method} makes one direction: say how far with --alpha 1")
        tensors = merged_tensors(encoder, args.mode, {MERGED: direction}, {MERGED: args.alpha})
    else:
        tensors = merged_tensors(encoder, args.mode, taus, alphas)
    record = {
        "out": str(out.absolute()),
        "contents": "theta" if args.mode == "nonlinear" else "tau",
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "mode": args.mode,
        "trained": TRAINED[args.mode],
        "convention": args.convention,
        "method": args.method or args.convention,
        "options": read_options(args),
        "alphas": typed,
        "factor": factor,
        "checkpoints": {entry.meta["task"]: entry.digest for entry in entries},
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        **provenance(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # the format's own metadata: text only
    metadata = {"format": "pt", "tauscope": json.dumps(record, sort_keys=True)}
    data = safetensors.torch.save(tensors, metadata)
    write_bytes(out, data)
    record["bytes"] = len(data)
    return Outcome(record, _told(record))


def _told(record: dict) -> str:
    """Return what a reader is told of a merged file."""
    lines = [
        f"wrote {record['out']} ({megabytes(record['bytes'])}): {record['parameters']:,} "
        f"values, the {record['contents']} of {record['encoder']}, {record['mode']}"
    ]
    if record["contents"] == "tau":
        lines.append(
            "f_lin needs theta_0 and tau apart (Eq. 3): this is tau; "
            f"theta_0 is that of {record['encoder']}"
        )
    else:
        lines.append(
            "load it over an open_clip model with strict=False: the text tower is not in it"
        )
    return "\n".join(lines)


def embed(args: argparse.Namespace) -> Outcome:
    """Copy entries of the home store into the embedded one, once they are final.

    Of every encoder, task and mode only the newest checkpoint is taken, of the results only those
    of the checkpoints taken.

    Args:
        args: With ``cache``, ``encoders``, ``kinds``, ``to`` and ``dry_run``.

    Returns:
        What was copied and the size of the folder.

    Raises:
        MissingDataError: If nothing is there to copy.
        UsageError: If the folder would grow beyond 64 MB; then nothing is copied.
    """
    store = open_store(args)
    folder = Path(args.to).expanduser().absolute() if args.to else default_store().embedded
    chosen = choose_entries(Store(store.home, folder), args.encoders, args.kinds)
    if not chosen:
        raise MissingDataError(f"nothing to embed in {store.home}; train first")
    target = Store(folder)
    there = {entry.digest for kind in args.kinds for entry in target.find(kind)}
    fresh = [entry for entry in chosen if entry.digest not in there]
    before = folder_size(folder)
    after = before + sum(entry_size(entry) for entry in fresh)
    if after > EMBEDDED_LIMIT:
        raise UsageError(
            f"{folder} would hold {megabytes(after)}, more than the {megabytes(EMBEDDED_LIMIT)} "
            "that a clone may carry; choose fewer --kinds, or remove what is there"
        )
    if not args.dry_run:
        for entry in fresh:
            target.put(entry.kind, store.get(entry), entry.meta)
        after = folder_size(folder)
    rows = [
        {"kind": e.kind, "digest": e.digest, "bytes": entry_size(e), **_label(e)} for e in fresh
    ]
    record = {"to": str(folder), "copied": rows, "kept": len(chosen) - len(fresh), "bytes": after}
    text = table(
        ("kind", "encoder", "task", "mode", "size", "digest"),
        [
            (r["kind"], r["encoder"], r["task"], r["mode"], megabytes(r["bytes"]), r["digest"][:12])
            for r in rows
        ],
    )
    verb = "would be copied" if args.dry_run else "copied"
    return Outcome(
        {**record, "dry_run": args.dry_run},
        f"{text}\n{len(rows)} {verb}, {record['kept']} there already; "
        f"{folder}: {megabytes(after)} of {megabytes(EMBEDDED_LIMIT)}",
    )


def choose_entries(store: Store, encoders: list[str], kinds: list[str]) -> list[Entry]:
    """Choose what is worth embedding.

    Args:
        store: The home store, and the folder to embed in: results may rest on what is there.
        encoders: Names of encoders.
        kinds: Kinds of entries.

    Returns:
        The newest entry of each encoder and of each of its (task, mode), for the miniature's own
        tasks; of the responses and results that rest on these alone, the widest or newest of each
        question about whole splits.
    """
    newest: dict[tuple, Entry] = {}
    for kind in ("encoder", "checkpoint", "responses", "result"):
        for entry in sorted(store.find(kind), key=_width):  # newest first among equals
            if _label(entry)["encoder"] in encoders and _of_the_miniature(entry):
                key = (kind, *_label(entry).values(), _asked(entry))
                newest.setdefault(key, entry)
    taus = {e.meta.get("tau_digest") for e in newest.values() if e.kind == "checkpoint"}

    def rests(entry: Entry) -> bool:
        return set(entry.meta.get("taus", {}).values()) <= taus

    return [entry for entry in newest.values() if entry.kind in kinds and rests(entry)]


def _asked(entry: Entry) -> tuple:
    """Return what a result answers, whatever it was measured with; newer ones replace older."""
    meta = entry.meta
    if entry.kind != "result":
        return (meta.get("key"),)
    record = meta["record"]
    convention = record.get("convention")
    asked = (meta.get("what"), meta.get("distance"), convention)
    # the sum and each method are different questions
    method, options = record.get("method", convention), record.get("options") or {}
    options = asked_of(method, options) if method in METHODS else options
    asked += (method, str(sorted(options.items())))
    asked += (*meta.get("controls", ()), *meta.get("asked", ()))
    return (*asked, *sorted(meta["taus"]))


def _width(entry: Entry) -> tuple[int, int]:
    """Return a key that puts first what tells most: of the most task vectors, cells and images."""
    record = entry.meta.get("record", {})
    passes = record.get("cells", 0) * sum(record.get("images", {}).values())
    return -len(entry.meta.get("taus", ())), -passes


def _of_the_miniature(entry: Entry) -> bool:
    """Return whether an entry is about the miniature's own tasks, and no trial on a part of them.

    A task of the user's lies at a path of one machine and stays out of the repository, and so does
    a checkpoint that was brought from elsewhere.
    """
    meta = entry.meta
    if entry.kind == "checkpoint":
        return meta.get("task_source") == "miniature" and "origin" not in meta
    if entry.kind == "responses":
        return bool(meta.get("taus")) and meta.get("task") in (*TASKS, CONTROL)
    record = meta.get("record", {})
    own = set(record.get("sources", {}).values()) <= {"miniature"}
    return own and record.get("limit") is None


def _label(entry: Entry) -> dict[str, str]:
    """Return what an entry belongs to."""
    meta = entry.meta
    return {
        "encoder": str(meta.get("encoder", meta.get("name", "-"))),
        "task": str(meta.get("task", "-")),
        "mode": str(meta.get("mode", "-")),
    }


def entry_size(entry: Entry) -> int:
    """Return the bytes of an entry with its manifest."""
    return entry.size + entry.path.with_suffix(".json").stat().st_size


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
