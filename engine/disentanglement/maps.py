r"""What disentanglement is told in: a map over two alphas, a matrix of pairs, a diagonal."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from engine.disentanglement.distances import interval_of_sum, wilson_intervals
from engine.errors import CheckpointError, UsageError

GRID, REACH, IMAGES = 20, 3.0, 2048  # of the paper, App. A


def axis(points: int = GRID, reach: float = REACH, low: float | None = None) -> Tensor:
    """Give equally spaced alphas.

    Args:
        points: How many, at least 2.
        reach: The largest alpha.
        low: The smallest one; ``-reach`` by default, and then the axis is symmetric to the bit
            and holds 0 where ``points`` is odd.

    Returns:
        Shape (points,), float64, ascending.

    Raises:
        UsageError: If there are fewer than 2 points or they do not ascend.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, App. A ("Disentanglement error"): 20 values
        in [-3, 3].
    """
    start = -reach if low is None else low
    if points < 2 or not start < reach or not math.isfinite(reach - start):
        raise UsageError(
            f"{points} alphas from {start:g} to {reach:g} make no grid; "
            "give at least 2 points and a range above 0"
        )
    steps = torch.arange(points, dtype=torch.float64)
    if low is None:
        return (2 * steps - (points - 1)) / (points - 1) * reach
    return start + steps / (points - 1) * (reach - start)


@dataclass(frozen=True, eq=False)
class XiMap:
    r"""The disentanglement error of two tasks over a grid of both alphas.

    .. math:: \xi(\alpha_1, \alpha_2) = \sum_{t=1}^2 E_{x \sim \mu_t} \left[ dist\left(
              f(x; \theta_0 + \alpha_t \tau_t),
              f(x; \theta_0 + \alpha_1 \tau_1 + \alpha_2 \tau_2) \right) \right]

    Every table is float64, shape (G, G), NaN where not computed yet; [i][j] belongs to alphas[i]
    on the first task's vector and alphas[j] on the second's.

    Attributes:
        encoder: Name of the encoder.
        encoder_digest: Its digest.
        mode: The reading: "nonlinear", "posthoc" or "linear".
        tasks: Names of the pair.
        alphas: Of both axes, shape (G,), float64.
        xi_task: Each task's own term, by name.
        low_task: Lower ends of the terms' 95 % intervals: Wilson's for "error", of a bootstrap
            over images for "tv" and "kl".
        high_task: Upper ends.
        low: Lower end of the sum's interval.
        high: Upper end.
        n: Images, by task.
        distance: "error", "tv" or "kl".
        exact: Whether this is what the definition says on the images named.
        taus: Digests of the task vectors, by name.
        splits: Digests of the images, by task.
        note: What makes it approximate.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 4, Eq. (6).
    """

    encoder: str
    encoder_digest: str
    mode: str
    tasks: tuple[str, str]
    alphas: Tensor
    xi_task: dict[str, Tensor]
    low_task: dict[str, Tensor]
    high_task: dict[str, Tensor]
    low: Tensor
    high: Tensor
    n: dict[str, int]
    distance: str
    exact: bool
    taus: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def xi(self) -> Tensor:
        """The sum of both terms, shape (G, G)."""
        first, second = self.tasks
        return self.xi_task[first] + self.xi_task[second]

    @property
    def done(self) -> int:
        """Cells computed."""
        return int((~self.xi.isnan()).sum())

    def swapped(self) -> "XiMap":
        """Return the same map with the tasks the other way round."""

        def turned(tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tables[name].T.contiguous() for name in reversed(self.tasks)}

        return replace(
            self,
            tasks=self.tasks[::-1],
            xi_task=turned(self.xi_task),
            low_task=turned(self.low_task),
            high_task=turned(self.high_task),
            low=self.low.T.contiguous(),
            high=self.high.T.contiguous(),
        )

    def box_share(
        self, threshold: float = 0.1, box: tuple[float, float] = (0.0, 1.0)
    ) -> tuple[float, int]:
        """Tell how much of the search box is disentangled.

        Args:
            threshold: The largest xi that counts.
            box: Both alphas' range, ends included.

        Returns:
            The share of the computed cells in the box with xi at most ``threshold``, NaN without
            any; and how many cells there are.
        """
        inside = (self.alphas >= box[0]) & (self.alphas <= box[1])
        cells = self.xi[inside][:, inside]
        cells = cells[~cells.isnan()]
        share = float((cells <= threshold).double().mean()) if cells.numel() else math.nan
        return share, cells.numel()

    def to_json(self) -> dict:
        """Return plain JSON values; None where a cell is not computed."""
        share, cells = self.box_share()
        return {
            "alphas": self.alphas.tolist(),
            "xi": plain(self.xi),
            "xi_task": {name: plain(self.xi_task[name]) for name in self.tasks},
            "n": self.n,
            "exact": self.exact,
            "interval": {"low": plain(self.low), "high": plain(self.high)},
            "interval_task": {
                name: {"low": plain(self.low_task[name]), "high": plain(self.high_task[name])}
                for name in self.tasks
            },
            "box": {"threshold": 0.1, "share": None if math.isnan(share) else share, "of": cells},
            "encoder": self.encoder,
            "encoder_digest": self.encoder_digest,
            "mode": self.mode,
            "tasks": list(self.tasks),
            "distance": self.distance,
            "taus": self.taus,
            "split_digests": self.splits,
            "note": self.note,
        }

    def to_tensors(self) -> tuple[dict[str, Tensor], dict]:
        """Give what a store keeps of a finished map.

        Returns:
            Tensors by name, and plain values for ``from_tensors``. Wilson's intervals follow from
            the terms and are not among them.
        """
        tensors = {
            "alphas": self.alphas,
            "xi_task": torch.stack([self.xi_task[name] for name in self.tasks]),
        }
        if self.distance != "error":
            for end in ("low", "high"):
                tables = getattr(self, f"{end}_task")
                parts = [*(tables[name] for name in self.tasks), getattr(self, end)]
                tensors[end] = torch.stack(parts)
        values = {
            name: getattr(self, name)
            for name in (
                "encoder", "encoder_digest", "mode", "n", "distance", "exact", "taus", "splits",
                "note",
            )
        }  # fmt: skip
        return tensors, {**values, "tasks": list(self.tasks)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping) -> "XiMap":
        """Undo ``to_tensors``.

        Args:
            tensors: As kept.
            meta: As kept; further keys are ignored.

        Returns:
            The map.

        Raises:
            CheckpointError: If a part is missing or of another shape.
        """
        try:
            tasks, alphas, terms = tuple(meta["tasks"]), tensors["alphas"], tensors["xi_task"]
            values = {name: meta[name] for name in ("encoder", "encoder_digest", "mode")}
            n, said = dict(meta["n"]), (meta["distance"], bool(meta["exact"]))
            ends = None if said[0] == "error" else (tensors["low"], tensors["high"])
            rest = {name: dict(meta[name]) for name in ("taus", "splits")}
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"a stored map lacks {error}; delete it, it is computed again"
            ) from error
        if len(tasks) != 2 or terms.shape != (2, len(alphas), len(alphas)):
            raise CheckpointError("a stored map does not fit its axes; delete it")
        bounds = bounds_of(tasks, terms, n) if ends is None else named_bounds(tasks, *ends)
        parts = dict(zip(tasks, terms.unbind(0), strict=True))
        return cls(
            **values, tasks=tasks, alphas=alphas, xi_task=parts, **bounds, n=n,
            distance=said[0], exact=said[1], **rest, note=str(meta.get("note", "")),
        )  # fmt: skip


def bounds_of(tasks: tuple[str, str], terms: Tensor, n: Mapping[str, int]) -> dict:
    """Return the interval fields of a map of distance "error": Wilson's, and of their sum.

    Args:
        tasks: The pair.
        terms: Both terms, shape (2, G, G).
        n: Images by task.

    Returns:
        ``low_task``, ``high_task``, ``low``, ``high``.
    """
    ends = [wilson_intervals(term, n[name]) for name, term in zip(tasks, terms, strict=True)]
    low, high = [list(side) for side in zip(*ends, strict=True)]
    total = interval_of_sum(list(terms), low, high)
    return named_bounds(tasks, torch.stack([*low, total[0]]), torch.stack([*high, total[1]]))


def named_bounds(tasks: tuple[str, str], low: Tensor, high: Tensor) -> dict:
    """Return the interval fields of a map from stacks of three tables: both terms, the sum."""
    return {
        "low_task": dict(zip(tasks, low[:2], strict=True)),
        "high_task": dict(zip(tasks, high[:2], strict=True)),
        "low": low[2],
        "high": high[2],
    }


def plain(table: Tensor) -> list:
    """Return nested lists with None in the place of NaN."""
    if table.ndim > 1:
        return [plain(row) for row in table]
    return [None if math.isnan(value) else value for value in table.tolist()]


@dataclass(frozen=True, eq=False)
class PairMatrix:
    """The error of every pair of tasks at one alpha.

    Attributes:
        names: T task names.
        alpha: Of both vectors of a pair.
        terms: Shape (T, T), float64: [a][b] on the images of task a, its vector beside that of b;
            NaN on the diagonal, and where not computed.
        n: Images by task.
        exact: As of a map.
    """

    names: tuple[str, ...]
    alpha: float
    terms: Tensor
    n: dict[str, int]
    exact: bool = True

    @property
    def xi(self) -> Tensor:
        """Eq. (6) of every pair, shape (T, T), symmetric."""
        return self.terms + self.terms.T

    def to_json(self) -> dict:
        """Return plain JSON values; None on the diagonal."""
        return {
            "tasks": list(self.names),
            "alpha": self.alpha,
            "xi": plain(self.xi),
            "terms": plain(self.terms),
            "n": self.n,
            "exact": self.exact,
        }


@dataclass(frozen=True, eq=False)
class Diagonal:
    r"""The error of all T tasks at once, with one alpha for every vector.

    .. math:: \xi_T(\alpha) = \sum_{t=1}^T E_{x \sim \mu_t} \left[ dist\left(
              f(x; \theta_0 + \alpha \tau_t), f(x; \theta_0 + \alpha \textstyle\sum_s \tau_s)
              \right) \right]

    the natural extension of Eq. (6), between 0 and T for "error" and "tv".

    Attributes:
        names: T task names.
        alphas: Shape (G,).
        xi_task: Each task's own term, by name, shape (G,), float64.
        n: Images by task.
        exact: As of a map.
    """

    names: tuple[str, ...]
    alphas: Tensor
    xi_task: dict[str, Tensor]
    n: dict[str, int]
    exact: bool = True

    @property
    def xi(self) -> Tensor:
        """The sum of all terms, shape (G,)."""
        return torch.stack([self.xi_task[name] for name in self.names]).sum(dim=0)

    def to_json(self) -> dict:
        """Return plain JSON values."""
        return {
            "tasks": list(self.names),
            "alphas": self.alphas.tolist(),
            "xi": plain(self.xi),
            "xi_task": {name: plain(self.xi_task[name]) for name in self.names},
            "n": self.n,
            "exact": self.exact,
        }
