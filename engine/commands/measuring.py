"""The verbs that measure: ``evaluate`` and ``addition``."""

import argparse
from collections.abc import Callable, Mapping

from torch import Tensor

from engine.commands.choices import (
    find_checkpoint,
    open_encoder,
    open_store,
    open_tasks,
    read_alphas,
    read_taus,
)
from engine.commands.directions import prepared, read_options, responding
from engine.commands.printing import Outcome, paced, percent, table
from engine.commands.stopping import counter
from engine.encoders import Encoder
from engine.errors import UsageError
from engine.evaluate import (
    ALPHAS,
    FARTHER,
    addition_each,
    evaluate_nonlinear,
    linearized_accuracy,
    wilson_interval,
)
from engine.evaluate import addition as run_addition
from engine.exhibits.keys import addition_key
from engine.merging import share
from engine.provenance import provenance
from engine.remembering import PROBE, remembered_responses, tau_digests
from engine.store import Entry, Store
from engine.task_vectors import combine
from engine.tasks import Split, Task, load_split, load_task

# what ``addition --json`` begins with, in this order
ANSWER = (
    "encoder",
    "mode",
    "alpha",
    "absolute",
    "normalized",
    "zeroshot",
    "single",
    "merged",
    "validation",
    "n",
)

Taus = Mapping[str, Mapping[str, Tensor]]


def measurer(
    store: Store, encoder: Encoder, mode: str, entries: Mapping[str, Entry], taus: Taus
) -> Callable[[Task, Split, Mapping[str, float]], float]:
    """Make ``measure(task, split, alphas)``, the accuracy of a merged model in a reading.

    Args:
        store: Where responses are kept.
        encoder: On the device to compute on.
        mode: The reading.
        entries: Checkpoints by name.
        taus: Their task vectors, in the same order.

    Returns:
        ``measure``; its alphas are final coefficients, 0 where not named.
    """
    if mode == "nonlinear":

        def measure(task: Task, split: Split, alphas: Mapping[str, float]) -> float:
            used = {name: alphas[name] for name in taus if alphas.get(name)}
            theta = combine(encoder.theta0, {name: taus[name] for name in used}, used)
            return evaluate_nonlinear(encoder, theta, split, encoder.head(task))

        return measure
    respond = remembered_responses(store, encoder, entries, taus, mode)
    return lambda task, split, alphas: linearized_accuracy(respond(task, split), alphas)


def evaluate(args: argparse.Namespace) -> Outcome:
    r"""Measure accuracy at given coefficients, on the tasks chosen and the control task.

    .. math:: acc[f(x; \theta_0 + \sum_t \alpha_t \tau_t)] \quad\text{or that of } f_{lin}

    Args:
        args: With ``encoder``, ``mode``, ``tasks``, ``alpha`` or ``alphas``, ``convention``,
            ``split``, ``limit``, ``control``, ``device``, ``threads`` and ``cache``.

    Returns:
        ``{"accuracy": {task: fraction}, "interval": {task: [low, high]}, "n": {...}, ...}``.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (1) and (3).
    """
    store = open_store(args)
    tasks = open_tasks(args.tasks)
    typed = read_alphas(args, tasks)
    encoder = open_encoder(args, store)
    factor = share(args.convention, len(tasks))
    alphas = {name: factor * alpha for name, alpha in typed.items() if alpha != 0}
    entries = {
        task.name: find_checkpoint(store, encoder, task, args.mode)
        for task in tasks
        if task.name in alphas
    }
    taus = read_taus(store, encoder, list(entries.values()))
    measure = measurer(store, encoder, args.mode, entries, taus)
    control = None if args.control == "none" else load_task(args.control)
    measured = [*tasks]
    if control is not None and control.name not in typed:
        measured.append(control)
    speak, rows = paced(), []
    for task in measured:
        speak(f"measuring {task.name}")
        split = load_split(task, args.split, encoder.image_size, store, limit=args.limit)
        n, fraction = len(split.labels), measure(task, split, alphas)
        interval = wilson_interval(round(fraction * n), n)
        rows.append((task.name, typed.get(task.name), fraction, interval, n, split.digest))
    record = {
        "encoder": encoder.name,
        "mode": args.mode,
        "split": args.split,
        "convention": args.convention,
        "alphas": typed,
        "absolute": sum(row[2] for row in rows[: len(tasks)]) / len(tasks),
        "accuracy": {row[0]: row[2] for row in rows},
        "interval": {row[0]: list(row[3]) for row in rows},
        "n": {row[0]: row[4] for row in rows},
        "control": control.name if control is not None else None,
        "exact": True,
        "encoder_digest": encoder.digest,
        "split_digests": {row[0]: row[5] for row in rows},
        "checkpoints": {name: entry.digest for name, entry in entries.items()},
        **provenance(),
    }
    text = table(
        ("task", "alpha", "accuracy", "95 % interval", "n"),
        [
            (
                name + (" (control)" if name == record["control"] else ""),
                "-" if alpha is None else f"{alpha:g}",
                percent(fraction),
                f"{percent(low)} .. {percent(high)}",
                n,
            )
            for name, alpha, fraction, (low, high), n, _ in rows
        ],
    )
    mean = f"mean of the {len(tasks)} tasks: {percent(record['absolute'])} %"
    return Outcome(record, f"{text}\n{mean}, {args.split}, read {args.mode}, exact")


def addition(args: argparse.Namespace) -> Outcome:
    r"""Run the task addition benchmark, or recall its answer.

    .. math:: \frac{1}{T} \sum_t \frac{acc_t[f(x; \theta_0 + \alpha \sum_s \tau_s)]}
              {acc_t[f(x; \theta_0 + \tau_t)]}

    is maximised over alpha on validation; everything is then measured once on test.

    Args:
        args: With ``encoder``, ``mode``, ``tasks``, ``seed``, ``convention``, ``method``,
            ``option``, ``each``, ``limit``, ``force``, ``device``, ``threads`` and ``cache``.

    Returns:
        The keys of ``ANSWER``, then what made them.

    Raises:
        UsageError: If choices contradict each other.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Appendix A, Eq. (7).
    """
    options = read_options(args)
    if args.each and (args.method or args.convention != "sum" or args.mode == "nonlinear"):
        raise UsageError(
            "--each is the sum with an alpha for each task, read posthoc or linear; leave --method "
            "and --convention out and choose --mode posthoc or linear"
        )
    store = open_store(args)
    tasks = {task.name: task for task in open_tasks(args.tasks)}
    encoder = open_encoder(args, store)
    entries = {
        name: find_checkpoint(store, encoder, task, args.mode, args.seed)
        for name, task in tasks.items()
    }

    def load(task: Task, split: str, limit: int | None = args.limit) -> Split:
        return load_split(task, split, encoder.image_size, store, limit=limit)

    key = addition_key(
        encoder,
        entries,
        tasks,
        lambda task, split: load(task, split, PROBE),
        mode=args.mode,
        convention=args.convention,
        limit=args.limit,
        method=args.method,
        options=options,
        each=args.each,
    )
    kept = store.find("result", what="addition", key=key)
    if kept and not args.force:
        return _answered(kept[0].meta["record"], list(tasks))
    record = _measured_addition(args, store, encoder, tasks, entries, load)
    meta = {
        "what": "addition",
        "key": key,
        "encoder": encoder.name,
        "mode": args.mode,
        "taus": record["taus"],
        "record": record,
    }
    store.put("result", {}, meta)
    return _answered(record, list(tasks))


def _measured_addition(
    args: argparse.Namespace,
    store: Store,
    encoder: Encoder,
    tasks: Mapping[str, Task],
    entries: Mapping[str, Entry],
    load: Callable[[Task, str], Split],
) -> dict:
    """Return the answer, measured now."""
    taus = read_taus(store, encoder, list(entries.values()))
    splits = [
        {name: load(task, split) for name, task in tasks.items()}
        for split in ("validation", "test")
    ]
    if args.each:
        record = addition_each(
            encoder,
            args.mode,
            tasks,
            taus,
            *splits,
            respond=responding(store, encoder, entries, taus, args.mode, None),
            progress=counter(f"addition {args.mode}", "splits"),
        )
    else:
        direction = prepared(args, taus)
        record = run_addition(
            encoder,
            args.mode,
            tasks,
            taus,
            *splits,
            convention=args.convention,
            direction=direction,
            alphas=FARTHER if args.method else ALPHAS,
            respond=responding(store, encoder, entries, taus, args.mode, direction),
            progress=counter(f"addition {args.mode}", "settings"),
        )
    return {
        **{name: record[name] for name in ANSWER},
        **record,
        "method": "each" if args.each else args.method or args.convention,
        "options": read_options(args),
        "limit": args.limit,
        "seeds": {name: entry.meta.get("seed") for name, entry in entries.items()},
        "checkpoints": {name: entry.digest for name, entry in entries.items()},
        "taus": tau_digests(entries),
    }


def _answered(record: dict, names: list[str]) -> Outcome:
    """Return an answer as it is printed: keys and tasks in their order, which the store sorts."""
    record = _in_order(record, names)
    ordered = {name: record[name] for name in ANSWER}
    keys = ("alpha", "absolute", "normalized")
    ordered["validation"] = [{key: row[key] for key in keys} for row in record["validation"]]
    ordered |= {name: value for name, value in record.items() if name not in ordered}
    zeroshot = record["zeroshot_tasks"]
    rows = [
        (
            name,
            percent(zeroshot[name]),
            percent(record["single"][name]),
            percent(record["merged"][name]),
            record["n"][name],
        )
        for name in names
    ]
    mean = sum(record["single"].values()) / len(rows)
    rows.append((
        "mean",
        *(percent(x) for x in (record["zeroshot"], mean, record["absolute"])),
        "-",
    ))
    text = table(("task", "zero-shot", "single", "merged", "n"), rows)
    told = (
        f"{record['encoder']}, read {record['mode']}, "
        f"{record.get('method', record['convention'])}: alpha "
        f"{record['alpha']:g} chosen on validation; normalized {percent(record['normalized'])} % "
        f"(Eq. 7); {'test' if record['limit'] is None else 'first test images'}, exact"
    )
    return Outcome(ordered, f"{text}\n{told}")


def _in_order(value: object, names: list[str]) -> object:
    """Return plain values with every table of tasks in the order of the tasks."""
    if not isinstance(value, dict):
        return value
    keys = names if value.keys() == set(names) else value
    return {key: _in_order(value[key], names) for key in keys}
