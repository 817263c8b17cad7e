"""What leaves the Disentanglement page: rows of maps, pairs and changed images; provenance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.compute import records
from app.compute.disentanglement import Map, Vectors
from app.compute.disentanglement_changes import Changes
from app.compute.disentanglement_pairs import Pairs

XI = "disentanglement error, Eq. (6) of arXiv:2305.12827, of a pair of tasks"


def map_rows(found: Map) -> list[dict]:
    """Return a map as rows, a cell a row; cells not computed are left out.

    Args:
        found: The map.
    """
    first, second = found.tasks
    cells = np.argwhere(~np.isnan(found.xi)).tolist()
    return [
        {
            f"alpha {first}": float(found.alphas[i]),
            f"alpha {second}": float(found.alphas[j]),
            "xi": float(found.xi[i, j]),
            "low": float(found.low[i, j]),
            "high": float(found.high[i, j]),
            f"xi on {first}": float(found.terms[0][i, j]),
            f"xi on {second}": float(found.terms[1][i, j]),
        }
        for i, j in cells
    ]


def map_provenance(found: Map, vectors: Vectors, threshold: float) -> dict[str, Any]:
    """Return what made a map.

    Args:
        found: The map.
        vectors: What it rests on.
        threshold: Of the share of the search box.
    """
    share, cells = found.share(threshold)
    return records.provenance(
        XI,
        exact=found.exact,
        **_facts(vectors, found.tasks),
        pair=list(found.tasks),
        distance=found.source.distance,
        grid=len(found.alphas),
        range=[float(found.alphas[0]), float(found.alphas[-1])],
        n=dict(zip(found.tasks, found.n, strict=True)),
        split="test",
        split_digests=dict(found.source.splits),
        taus=dict(found.source.taus),
        search_box={"threshold": threshold, "share": share if cells else None, "cells": cells},
        interval="95 %; of a term Wilson's (error) or a bootstrap's (tv, kl), of the sum from both",
        note=found.source.note,
    )


def difference_rows(first: Map, second: Map) -> list[dict]:
    """Return the difference of two maps on one grid as rows.

    Args:
        first: From which is subtracted.
        second: What is subtracted.
    """
    tasks, cells = first.tasks, np.argwhere(~np.isnan(first.xi - second.xi)).tolist()
    return [
        {
            f"alpha {tasks[0]}": float(first.alphas[i]),
            f"alpha {tasks[1]}": float(first.alphas[j]),
            first.mode: float(first.xi[i, j]),
            second.mode: float(second.xi[i, j]),
            "difference": float(first.xi[i, j] - second.xi[i, j]),
        }
        for i, j in cells
    ]


def line_rows(lines: Mapping[str, Mapping[str, Any]]) -> list[dict]:
    """Return lines of xi as rows: a point a row.

    Args:
        lines: {"alphas", "xi"} and perhaps "low", "high", by reading.
    """
    keys = ("low", "high")
    return [
        {"reading": mode, "alpha": float(alpha), "xi": float(line["xi"][k])}
        | {key: float(line[key][k]) for key in keys if key in line}
        for mode, line in lines.items()
        for k, alpha in enumerate(line["alphas"])
        if not np.isnan(line["xi"][k])
    ]


def pair_rows(found: Pairs) -> list[dict]:
    """Return a matrix as rows: a pair a row.

    Args:
        found: The matrix.
    """
    names = found.names
    return [
        {
            "first": names[a],
            "second": names[b],
            "alpha": found.alpha,
            "xi": float(found.xi[a, b]),
            "xi on first": float(found.terms[a, b]),
            "xi on second": float(found.terms[b, a]),
            "n first": found.n[a],
            "n second": found.n[b],
        }
        for a in range(len(names))
        for b in range(a + 1, len(names))
    ]


def change_rows(found: Sequence[Changes]) -> list[dict]:
    """Return all images whose prediction changes, not only those shown.

    Args:
        found: One for each task of the pair.
    """
    return [
        {"task": part.task, "index": int(at), "single": one, "merged": both, "label": label}
        for part in found
        for at, one, both, label in zip(
            part.indices, part.single, part.merged, part.labels, strict=True
        )
    ]


def provenance(what: str, vectors: Mapping[str, Vectors] | Vectors, **facts: Any) -> dict[str, Any]:
    """Return what made exact numbers of one reading or several.

    Args:
        what: The quantity, in words.
        vectors: What they rest on; by reading where there are several.
        **facts: Further plain values.
    """
    if isinstance(vectors, Vectors):
        return records.provenance(what, exact=True, **_facts(vectors, vectors.names), **facts)
    readings = {mode: _facts(each, each.names) for mode, each in vectors.items()}
    return records.provenance(what, exact=True, readings=readings, **facts)


def _facts(vectors: Vectors, tasks: Sequence[str]) -> dict[str, Any]:
    chosen = vectors.of(tasks)
    return {
        "checkpoints": {name: item.digest for name, item in chosen.items()},
        "encoder": vectors.encoder,
        "encoder_digest": vectors.encoder_digest,
        "reading": vectors.mode,
        "seeds": {name: item.seed for name, item in chosen.items()},
    }
