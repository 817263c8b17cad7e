"""Long answers in pieces: each is kept when it is done, so that a stopped run goes on."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

LoadState = Callable[[str], tuple[dict[str, Tensor], dict] | None]
SaveState = Callable[[str, Mapping[str, Tensor], Mapping[str, Any]], None]
Progress = Callable[[str, int, int], None]


class Pieces:
    """What is done of an answer, under names that begin with the answer's own."""

    def __init__(
        self,
        prefix: str = "gradients",
        load_state: LoadState | None = None,
        save_state: SaveState | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Begin, or go on.

        Args:
            prefix: Names the answer among all working states.
            load_state: As ``Store.load_state``; without it everything is computed anew.
            save_state: As ``Store.save_state``.
            progress: Called as (what is at work, done, total); may raise to stop.
        """
        self.prefix, self.label, self.names = prefix, "", set()
        self._load, self._save = load_state, save_state
        self._progress = progress

    def part(self, label: str) -> "Pieces":
        """Return the pieces of a part, with names of their own; all are among ``names``."""
        child = Pieces(f"{self.prefix}-{label}", self._load, self._save, self._progress)
        child.label, child.names = f"{self.label} {label}".strip(), self.names
        return child

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a plain value, from what is kept or made now and kept.

        Args:
            name: Of the piece.
            make: Makes it: plain JSON values.

        Returns:
            The value.
        """
        full = self._name(name)
        found = self._load(full) if self._load is not None else None
        if found is not None:
            return found[1]["value"]
        value = make()
        if self._save is not None:
            self._save(full, {}, {"value": value})
        return value

    def state(self, name: str) -> dict[str, Callable | None]:
        """Give ``load_state``, ``save_state`` and ``progress`` for a path of that name."""
        full = self._name(name)
        load, save = self._load, self._save
        return {
            "load_state": None if load is None else lambda: load(full),
            "save_state": None if save is None else lambda *state: save(full, *state),
            "progress": lambda done, total: self.told(name, done, total),
        }

    def told(self, name: str, done: int, total: int) -> None:
        """Tell how far a piece is."""
        if self._progress is not None:
            self._progress(f"{self.label} {name}".strip(), done, total)

    def _name(self, name: str) -> str:
        """Return the full name of a piece, which is remembered."""
        full = f"{self.prefix}-{name}"
        self.names.add(full)
        return full
