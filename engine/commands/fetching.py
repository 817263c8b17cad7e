"""The verb ``fetch``: data sets of the hub onto this machine, decoded for an encoder."""

import argparse
import time

from engine.commands.choices import open_store
from engine.commands.printing import Outcome, say, table
from engine.commands.stopping import counter, stoppable
from engine.encoders import load_encoder
from engine.errors import MissingDataError, UsageError
from engine.store import Store
from engine.tasks import SPLITS, Task, describe, find_known, hub, leaked, load_split, load_task


def fetch(args: argparse.Namespace) -> Outcome:
    """Bring data sets here where they are not, and decode them where asked.

    Args:
        args: With ``names``, ``encoder``, ``size``, ``limit``, ``leaks`` and ``cache``.

    Returns:
        ``{"tasks": [{name, source, fetched, counts, warning, leaked, decoded: {split: {n,
        seconds, digest}}}]}``; ``leaked`` and ``decoded`` are null where not asked for.

    Raises:
        UsageError: If both an encoder and a size are named.
    """
    if args.encoder and args.size:
        raise UsageError("--encoder names a size already; give it or --size, not both")
    store = open_store(args)
    size = load_encoder(args.encoder, store).image_size if args.encoder else args.size
    rows = []
    for name in args.names:
        task, fetched = _brought(name)
        about = describe(task)
        rows.append({
            "name": task.name,
            "source": task.source,
            "fetched": fetched,
            "counts": about["counts"],
            "warning": task.warning,
            "leaked": leaked(task) if args.leaks else None,
            "decoded": None if size is None else _decoded(task, store, size, args.limit),
        })
    text = table(
        ("task", "train", "validation", "test", "leaked", "from"),
        [
            (
                row["name"],
                *row["counts"].values(),
                "-" if row["leaked"] is None else row["leaked"],
                row["source"],
            )
            for row in rows
        ],
    )
    return Outcome({"tasks": rows}, text)


def _brought(name: str) -> tuple[Task, bool]:
    """Return a task whose data is here, and whether it had to be fetched."""
    try:
        return load_task(name), False
    except MissingDataError:
        known = find_known(name)
        if known is None:
            raise
    say(f"fetching {known.hub}")
    hub.fetch(known)
    return load_task(name), True


def _decoded(task: Task, store: Store, size: int, limit: int | None) -> dict:
    """Decode every split and return what was decoded how fast."""
    found = {}
    with stoppable() as check:
        for name in SPLITS:
            tell, began = counter(f"decoding {task.name} {name}", "pictures"), time.perf_counter()

            def progress(done: int, total: int, tell=tell) -> None:
                tell(done, total)
                check()

            split = load_split(task, name, size, store, limit, progress)
            seconds = time.perf_counter() - began
            found[name] = {"n": len(split.labels), "seconds": seconds, "digest": split.digest}
    return found
