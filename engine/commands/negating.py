"""The verb ``negation``: forget a task, keep the control task."""

import argparse
from collections.abc import Mapping

from engine.commands.choices import (
    find_checkpoint,
    open_encoder,
    open_store,
    open_tasks,
    read_taus,
)
from engine.commands.directions import prepared, read_options, responding_alone
from engine.commands.printing import Outcome, percent, table
from engine.commands.stopping import counter
from engine.encoders import Encoder
from engine.errors import UsageError
from engine.evaluate import ALPHAS, FARTHER
from engine.evaluate import negation as run_negation
from engine.exhibits.keys import negation_key
from engine.remembering import PROBE, remembered_responses, tau_digests
from engine.store import Entry, Store
from engine.tasks import Split, Task, load_split, load_task

# what ``negation --json`` begins with, in this order
ANSWER = (
    "target_pretrained",
    "target",
    "control_pretrained",
    "control",
    "control_validation_pretrained",
    "tasks",
)


def negation(args: argparse.Namespace) -> Outcome:
    r"""Run the task negation benchmark, or recall its answer.

    .. math:: \min_\alpha acc_t[f(x; \theta_0 - \alpha \tau_t)] \quad
              \text{s.t. } acc_c[f(x; \theta_0 - \alpha \tau_t)] \ge 0.95\, acc_c[f(x; \theta_0)]

    on validation for each task; everything is then measured once on test. With a merging method
    its direction of all tasks stands in the place of tau_t, and their mean in that of acc_t.

    Args:
        args: With ``encoder``, ``mode``, ``tasks``, ``seed``, ``control``, ``keep``, ``method``,
            ``option``, ``limit``, ``force``, ``device``, ``threads`` and ``cache``.

    Returns:
        The keys of ``ANSWER``, then what made them.

    Raises:
        UsageError: If the share to keep is not in [0, 1], or the control is one of the tasks.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 3, Appendix A, Table 2.
    """
    if not 0 <= args.keep <= 1:
        raise UsageError(f"--keep is {args.keep:g}; choose a share from 0 to 1, as in 0.95")
    options = read_options(args)
    store = open_store(args)
    tasks = {task.name: task for task in open_tasks(args.tasks)}
    control = load_task(args.control)
    if control.name in tasks:
        raise UsageError(
            f"{control.name} cannot be forgotten and kept; choose another task with --control"
        )
    encoder = open_encoder(args, store)
    entries = {
        name: find_checkpoint(store, encoder, task, args.mode, args.seed)
        for name, task in tasks.items()
    }

    def load(task: Task, split: str, limit: int | None = args.limit) -> Split:
        return load_split(task, split, encoder.image_size, store, limit=limit)

    asked = {"mode": args.mode, "keep": args.keep, "limit": args.limit}
    everything = {**tasks, control.name: control}
    along = {"method": args.method, "options": options} if args.method else {}
    key = negation_key(
        encoder,
        entries,
        everything,
        lambda task, split: load(task, split, PROBE),
        **asked,
        **along,
    )
    kept = store.find("result", what="negation", key=key)
    if kept and not args.force:
        return _answered(kept[0].meta["record"], list(tasks))
    record = {**_measured(args, store, encoder, tasks, control, entries, load), **along}
    meta = {
        "what": "negation",
        **asked,
        **along,
        "key": key,
        "encoder": encoder.name,
        "taus": record["taus"],
        "record": record,
    }
    store.put("result", {}, meta)
    return _answered(record, list(tasks))


def _measured(
    args: argparse.Namespace,
    store: Store,
    encoder: Encoder,
    tasks: Mapping[str, Task],
    control: Task,
    entries: Mapping[str, Entry],
    load,
) -> dict:
    """Return the answer, measured now."""
    taus = read_taus(store, encoder, list(entries.values()))
    direction = prepared(args, taus)
    if direction is None:
        respond = remembered_responses(store, encoder, entries, taus, args.mode)
    else:
        respond = responding_alone(store, encoder, entries, args.mode, direction)
    everything = {**tasks, control.name: control}
    record = run_negation(
        encoder,
        args.mode,
        tasks,
        taus,
        control,
        {name: load(task, "validation") for name, task in everything.items()},
        {name: load(task, "test") for name, task in everything.items()},
        direction=direction,
        alphas=FARTHER if args.method else ALPHAS,
        keep=args.keep,
        respond=respond,
        progress=counter(f"negation {args.mode}", "settings"),
    )
    return {
        **record,
        "limit": args.limit,
        "seeds": {name: entry.meta.get("seed") for name, entry in entries.items()},
        "checkpoints": {name: entry.digest for name, entry in entries.items()},
        "taus": tau_digests(entries),
    }


def _answered(record: dict, names: list[str]) -> Outcome:
    """Return an answer as it is printed."""
    ordered = {name: record[name] for name in ANSWER}
    ordered["tasks"] = {name: record["tasks"][name] for name in names}
    ordered |= {name: value for name, value in record.items() if name not in ordered}
    rows = [
        (
            name,
            f"{row['alpha']:g}",
            percent(row["target_pretrained"]),
            percent(row["target"]),
            percent(row["control"]),
            record["n"][name],
        )
        for name, row in ordered["tasks"].items()
    ]
    rows.append((
        "mean",
        "-",
        percent(record["target_pretrained"]),
        percent(record["target"]),
        percent(record["control"]),
        "-",
    ))
    text = table(("task", "alpha", "zero-shot", "negated", "control", "n"), rows)
    whose = f"{record['method']} of all tasks, one alpha" if "method" in record else "alpha a task"
    told = (
        f"{record['encoder']}, read {record['mode']}: control {record['control_task']} "
        f"{percent(record['control_pretrained'])} % before; {whose} chosen on validation so "
        f"that {record['keep']:.0%} of it is kept; "
        f"{'test' if record['limit'] is None else 'first test images'}, exact"
    )
    return Outcome(ordered, f"{text}\n{told}")
