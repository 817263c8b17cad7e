"""What a map needs, in one buffer: its tables, and what is said about a cell."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from app.components.buffers import Arrays, frame

FORMAT = 1


def pack(
    alphas: np.ndarray,
    tables: Mapping[str, np.ndarray],
    *,
    shown: str,
    titles: tuple[str, str],
    limits: tuple[float, float],
    chosen: tuple[float, float],
    ends: tuple[float, float],
    colours: Sequence[tuple[float, str]],
    lines: Sequence[str],
    heading: Sequence[str],
    name: str,
    filename: str,
    alt: str,
    box: tuple[float, float] = (0.0, 1.0),
) -> bytes:
    """Pack a map.

    Args:
        alphas: Of both axes, equally spaced, shape (G,).
        tables: By key, shape (G, G), [i][j] at alpha_1 = alphas[i], alpha_2 = alphas[j]; NaN
            where not computed.
        shown: Key of the table that is drawn.
        titles: Of the two tasks.
        limits: What both axes show, outer cells drawn whole.
        chosen: The alphas in force.
        ends: Of the colour range.
        colours: Stops from 0 to 1, each "#rrggbb".
        lines: What a cell says under its alphas, a line each; "{key}" stands for a table's value.
        heading: Lines above the map, which a saved picture has too.
        name: Of the quantity, above the colour bar.
        filename: Of a saved picture, without suffix.
        alt: What it shows, for those who do not see it.
        box: The search box: both alphas' ends.

    Returns:
        The buffer for ``xi_map``.

    Raises:
        ValueError: If shapes do not agree or the table to be drawn is not among them.
    """
    G = len(alphas)
    wrong = {key: table.shape for key, table in tables.items() if table.shape != (G, G)}
    if wrong or shown not in tables:
        raise ValueError(f"tables {wrong or list(tables)}, expected {shown} and ({G}, {G}) each")
    arrays = Arrays()
    places = {key: arrays.add(table, "f4") for key, table in tables.items()}
    body = arrays.bytes()
    header = {
        "format": FORMAT,
        "digest": hashlib.blake2b(body, digest_size=16).hexdigest(),
        "alphas": [float(alpha) for alpha in alphas],
        "tables": places,
        "shown": shown,
        "titles": list(titles),
        "limits": [float(limit) for limit in limits],
        "chosen": [float(alpha) for alpha in chosen],
        "ends": [float(end) for end in ends],
        "colours": [[float(at), colour] for at, colour in colours],
        "lines": list(lines),
        "heading": list(heading),
        "name": name,
        "filename": filename,
        "alt": alt,
        "box": [float(end) for end in box],
    }
    return frame(header, body)
