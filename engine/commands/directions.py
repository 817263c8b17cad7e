"""Merging methods on the command line: their options, their direction, its responses."""

import argparse
from collections.abc import Callable, Mapping

from torch import Tensor

from engine.encoders import Encoder
from engine.errors import UsageError
from engine.evaluate import MERGED
from engine.merging import METHODS, prepare
from engine.remembering import remembered_direction, remembered_responses, stand_in
from engine.responses import Responses
from engine.store import Entry, Store
from engine.tasks import Split, Task

Respond = Callable[[Task, Split], Responses]


def read_options(args: argparse.Namespace) -> dict[str, float]:
    """Return a method's hyper-parameters, those not named at their usual values.

    Args:
        args: With ``method``, ``option`` and, where the verb has it, ``convention``.

    Returns:
        Values by name; empty without a method.

    Raises:
        UsageError: If they are given without a method, or with the other convention.
    """
    if args.method is None:
        if args.option:
            raise UsageError("--option belongs to a merging method; name it with --method")
        return {}
    if getattr(args, "convention", "sum") != "sum":  # negation has none
        raise UsageError(f"--convention mean does not go with --method {args.method}; leave it out")
    usual = {name: option.usual for name, option in METHODS[args.method].options.items()}
    # whole numbers are typed as such, for keys; what is not whole is refused by ``prepare``
    given = {
        name: int(value) if isinstance(usual.get(name), int) and value == int(value) else value
        for name, value in args.option
    }
    return {**usual, **given}


def prepared(args: argparse.Namespace, taus: Mapping[str, Mapping[str, Tensor]]) -> dict | None:
    """Return the direction of the method asked for, or None.

    Args:
        args: With ``method``, ``option`` and ``convention``.
        taus: Task vectors by task.

    Raises:
        UsageError: If an option is unknown or out of range.
    """
    options = read_options(args)
    return None if args.method is None else prepare(taus, args.method, **options)


def responding(
    store: Store,
    encoder: Encoder,
    entries: Mapping[str, Entry],
    taus: Mapping[str, Mapping[str, Tensor]],
    mode: str,
    direction: Mapping[str, Tensor] | None,
) -> Respond:
    """Make ``respond(task, split)`` for task vectors and, behind them, a merged direction.

    Args:
        store: Where responses are kept.
        encoder: On the device to compute on.
        entries: Checkpoints by name.
        taus: Their task vectors.
        mode: The reading.
        direction: What a method made of them; None for the plain sum.

    Returns:
        ``respond``; both parts are kept by content.
    """
    if direction is None:
        return remembered_responses(store, encoder, entries, taus, mode)
    return remembered_direction(store, encoder, entries, taus, mode, direction)


def responding_alone(
    store: Store,
    encoder: Encoder,
    entries: Mapping[str, Entry],
    mode: str,
    direction: Mapping[str, Tensor],
) -> Respond:
    """Make ``respond(task, split)`` for a merged direction without its task vectors.

    Args:
        store: Where responses are kept.
        encoder: On the device to compute on.
        entries: Checkpoints by name, of the task vectors it was made of.
        mode: The reading.
        direction: What a method made of them.

    Returns:
        ``respond``; kept by the direction's values.
    """
    alone = {MERGED: stand_in(entries, direction)}
    return remembered_responses(store, encoder, alone, {MERGED: direction}, mode)
