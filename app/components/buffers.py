"""One buffer for the browser: the length of a JSON header, the header, then arrays.

Layout: ``uint32`` length of the header (little endian), the header as UTF-8 JSON padded with
spaces to a multiple of four bytes, then the arrays one after another, each starting at a multiple
of four bytes from the end of the header; the header says every array's type, shape and offset.
"""

import json
import struct
from collections.abc import Mapping

import numpy as np

LARGEST_PAYLOAD = 5 * 2**20  # bytes; mounting hashes the payload, about 6 ms a MB


class Arrays:
    """Arrays one after another, each at a multiple of four bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, array: np.ndarray, kind: str) -> dict:
        """Append an array as little-endian ``kind``.

        Args:
            array: Any shape.
            kind: "f4", "u2" or "u1".

        Returns:
            Where it lies: {"offset", "shape", "kind"}, for the header.
        """
        data = np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<")).tobytes()
        place = {"offset": self._size, "shape": list(array.shape), "kind": kind}
        self._parts += [data, bytes(-len(data) % 4)]
        self._size += len(data) + -len(data) % 4
        return place

    @property
    def size(self) -> int:
        """Bytes so far: where the next array will begin."""
        return self._size

    def bytes(self) -> bytes:
        """Return all of them."""
        return b"".join(self._parts)


def frame(header: Mapping, body: bytes) -> bytes:
    """Put a header in front of arrays.

    Args:
        header: Plain JSON values; NaN is refused.
        body: Of :meth:`Arrays.bytes`.

    Returns:
        Length, padded header and body together.
    """
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + body
