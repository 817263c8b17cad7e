"""A map's cells on the disk while it is made: one run's, or the shares of several, put together."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import CheckpointError, UsageError

LoadState = Callable[[str], tuple[dict[str, Tensor], dict] | None]
Tables = dict[str, Tensor]  # "xi" (2, G, G), "low" and "high" (3, G, G): terms, and the sum
Cell = tuple[int, int]


def check_share(share: int | None, shares: int, cells: int) -> None:
    """Refuse a division of a map that leaves somebody nothing to do.

    Args:
        share: Which, from 1; None for the one who puts them together.
        shares: How many.
        cells: Of the map.

    Raises:
        UsageError: If there are more shares than cells, or no such share.
    """
    if not 1 <= shares <= cells:
        raise UsageError(f"{shares} shares of {cells} cells leave some empty; give fewer --shards")
    if share is not None and not 1 <= share <= shares:
        raise UsageError(f"there is no share {share} of {shares}; give one from 1 to {shares}")


def share_of(cells: Sequence[Cell], share: int | None, shares: int) -> list[Cell]:
    """Choose the cells of one share: every ``shares``-th, so that each refines the whole map.

    Args:
        cells: Of the map, coarse to fine.
        share: Which, from 1; None for all.
        shares: How many.

    Returns:
        The cells, in the same order.
    """
    return list(cells) if share is None else list(cells[share - 1 :: shares])


def states_of(name: str, shares: int) -> list[str]:
    """Name the working states of a map: its own, then one for each share.

    Args:
        name: From ``engine.disentanglement.nonlinear.state_name``.
        shares: How many.

    Returns:
        Names; that of share k is the k-th behind the map's own.
    """
    return [name, *(f"{name}-{share}of{shares}" for share in range(1, shares + 1))]


def read_tables(
    load_state: LoadState | None,
    name: str,
    G: int,
    identity: Mapping,
    share: int | None = None,
    shares: int = 1,
) -> Tables:
    """Return the cells computed so far.

    Args:
        load_state: As ``Store.load_state``; None: none are.
        name: Of the map's own state.
        G: Alphas an axis.
        identity: What its cells depend on.
        share: The share at work, which reads its own state alone; None reads those of all.
        shares: How many.

    Returns:
        Tables with NaN where a cell is not computed.

    Raises:
        CheckpointError: If a state is of another run.
    """
    shapes = {"xi": (2, G, G), "low": (3, G, G), "high": (3, G, G)}
    tables = {
        key: torch.full(shape, torch.nan, dtype=torch.float64) for key, shape in shapes.items()
    }
    states = states_of(name, shares)
    for state in states if share is None else [states[share]]:
        found = load_state(state) if load_state is not None else None
        if found is None:
            continue
        tensors, meta = found
        right = {key: tuple(value.shape) for key, value in tensors.items()} == shapes
        if meta != identity or not right:
            raise CheckpointError(
                f"the working state {state} is of another run; delete it from the cache's state "
                "folder"
            )
        for key, table in tables.items():
            tables[key] = torch.where(table.isnan(), tensors[key], table)
    return tables
