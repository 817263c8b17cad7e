"""Where the tangent kernel's eigenfunctions live: local energy on a task and on a control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.errors import CheckpointError, UsageError
from engine.ntk.contents import Content
from engine.ntk.scores import scored
from engine.ntk.spectrum import effective_rank

ARRANGEMENTS = ("paper", "null", "heldout")
# the two blocks of columns of each arrangement; the rows are always the task's points
BLOCKS = {
    "paper": ("task", "control"),
    "null": ("task", "heldout"),
    "heldout": ("heldout", "control"),
}
PLAIN = ("coefficients", "captured", "eigvals")  # kept in float32
ENERGIES = ("energy", "energy_leading", "energy_ridge", "energy_weighted")


@dataclass(frozen=True, eq=False)
class LocalEnergy:
    r"""Local energy of the n x 2n tangent kernels between a task's points and two blocks of points.

    .. math:: E_{loc}(x_j) = \sum_\rho \phi_\rho(x_j)^2

    in three arrangements of the columns. "paper": the rows themselves, then the control's points;
    the full sum then rises on the rows because they are rows, whatever they are points of. "null"
    says by how much: the second block is further points of the same task. "heldout" is free of
    it: those further points, then the control's, so that no column is a row.

    Attributes:
        encoder: Its name.
        encoder_digest: Its digest.
        task: Whose points are rows.
        control: The other task.
        n: Points of each block.
        seed: By which they were drawn from the training splits.
        readout: "cosine" or "score".
        logits: Names of the classes, L of them, or ("trace",).
        spectrum: Singular values of each arrangement, largest first, shape (3, L, n), float64.
        energy: All right singular vectors, shape (3, L, 2n): in [0, 1], sums to n.
        leading: The R's of ``energy_leading``, the last is n.
        energy_leading: The R leading vectors, shape (3, L, G, 2n); each sums to its R.
        ridges: The lambdas of ``energy_ridge``, as fractions of the largest singular value.
        energy_ridge: Weights s^2 / (s^2 + lambda^2), shape (3, L, H, 2n).
        coefficients: c_rho of the linearly fine-tuned change of the logit on the eigenfunctions
            of the first arrangement, shape (L, n); None without a task vector.
        energy_weighted: Weights c^2 / sum c^2, shape (L, 2n).
        captured: The share of that change that lies in their span, shape (L,).
        scores: For each arrangement ``engine.ntk.scores.scored`` of ``energy``.
        layers: Each parameter's share of the kernel's trace over the rows.
        indices: "task", "control", "heldout": places in the training splits, shape (n,).
        labels: Their classes.
        split_digests: Of the training splits of task and control.
        layer_scores: For each block of the network ``scored`` of the energy of that block's own
            kernel, all vectors, held-out columns; None where it was not asked for.
        eigvals: Of the square kernel between the task's points, largest first, shape (L, n),
            float64; None in answers of before.
        regression: How well kernel regression on the task's points gives the linearly fine-tuned
            model's outputs on the held-out ones (``engine.ntk.regression``); None without a task
            vector.
        content: What it rests on; None in answers of before.
        exact: True: these points, all vectors, no approximation but rounding.
        made: How: algorithm, precision, seconds, number of vectors below rounding, versions.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1, Fig. 6 and App. D.8; the second
        and third arrangement, the leading sum and the ridge are not in the paper.
    """

    encoder: str
    encoder_digest: str
    task: str
    control: str
    n: int
    seed: int
    readout: str
    logits: tuple[str, ...]
    spectrum: Tensor
    energy: Tensor
    leading: tuple[int, ...]
    energy_leading: Tensor
    ridges: tuple[float, ...]
    energy_ridge: Tensor
    scores: dict
    layers: dict[str, float]
    indices: dict[str, Tensor]
    labels: dict[str, Tensor]
    split_digests: dict[str, str]
    coefficients: Tensor | None = None
    energy_weighted: Tensor | None = None
    captured: Tensor | None = None
    layer_scores: dict[str, dict] | None = None
    eigvals: Tensor | None = None
    regression: dict | None = None
    content: Content | None = None
    exact: bool = True
    made: dict = field(default_factory=dict)

    def task_energy(
        self, arrangement: str = "paper", leading: int | None = None, ridge: float | None = None
    ) -> Tensor:
        """Give the energy of the first block.

        Args:
            arrangement: One of ``ARRANGEMENTS``.
            leading: One of ``self.leading``; None for all vectors.
            ridge: One of ``self.ridges``; None for none. Not both.

        Returns:
            Shape (L, n).
        """
        return self._chosen(arrangement, leading, ridge)[:, : self.n]

    def control_energy(
        self, arrangement: str = "paper", leading: int | None = None, ridge: float | None = None
    ) -> Tensor:
        """Give the energy of the second block, shape (L, n); arguments as ``task_energy``."""
        return self._chosen(arrangement, leading, ridge)[:, self.n :]

    def score(
        self, arrangement: str, leading: int | None = None, ridge: float | None = None
    ) -> dict:
        """Score one reading of the energy; arguments as ``task_energy``, answer as ``scores``."""
        if leading is None and ridge is None:
            return self.scores[arrangement]
        return scored(self._chosen(arrangement, leading, ridge))

    @property
    def corrected(self) -> dict:
        """The scores that nothing but the difference of the tasks can raise."""
        return self.scores["heldout"]

    def effective_rank(self, arrangement: str = "paper") -> Tensor:
        """Give the effective rank of each logit's kernel, shape (L,)."""
        return effective_rank(self.spectrum[ARRANGEMENTS.index(arrangement)])

    def layer_shares(self) -> dict[str, float]:
        """Give the shares of the trace by module: weight and bias together."""
        shares: dict[str, float] = {}
        for name, share in self.layers.items():
            module = name.removesuffix("weight").removesuffix("bias").rstrip("._") or name
            shares[module] = shares.get(module, 0.0) + share
        return shares

    def record(self, leading: Sequence[int] = (), ridges: Sequence[float] = ()) -> dict:
        """Give plain values, as the command line prints them; energies are means over logits.

        Args:
            leading: Some of ``self.leading``, whose energies are given too.
            ridges: Some of ``self.ridges``, likewise.

        Returns:
            Plain values.
        """
        mean = {side: getattr(self, f"{side}_energy") for side in ("task", "control")}
        return {
            "encoder": self.encoder,
            "task": self.task,
            "control": self.control,
            "local_energy": {side: give().double().mean(0).tolist() for side, give in mean.items()},
            "localization_auc": self.scores["paper"]["auc"],
            "corrected_auc": self.corrected["auc"],
            "spectrum": self.spectrum[0].tolist(),
            "logits": list(self.logits),
            "layers": self.layers,
            "scores": self.scores,
            "heldout_energy": {
                side: give("heldout").double().mean(0).tolist() for side, give in mean.items()
            },
            "corrected_auc_leading": {
                str(R): self.score("heldout", leading=R)["auc"] for R in self.leading
            },
            "corrected_auc_ridge": {
                str(ridge): self.score("heldout", ridge=ridge)["auc"] for ridge in self.ridges
            },
            **self._settings(leading, ridges),
            "effective_rank": self.effective_rank().tolist(),
            "captured": None if self.captured is None else self.captured.tolist(),
            "layer_scores": self.layer_scores,
            "eigvals": None if self.eigvals is None else self.eigvals.tolist(),
            "regression": self.regression,
            "content": None if self.content is None else self.content.plain(),
            "n": self.n,
            "seed": self.seed,
            "readout": self.readout,
            "encoder_digest": self.encoder_digest,
            "split_digests": self.split_digests,
            "indices": {name: value.tolist() for name, value in self.indices.items()},
            "exact": self.exact,
            **self.made,
        }

    def _settings(self, leading: Sequence[int], ridges: Sequence[float]) -> dict[str, dict]:
        """Return energies at some settings, means over logits, by arrangement and block."""

        def means(**reading) -> dict:
            return {
                arrangement: {
                    "task": self.task_energy(arrangement, **reading).double().mean(0).tolist(),
                    "control": self
                    .control_energy(arrangement, **reading)
                    .double()
                    .mean(0)
                    .tolist(),
                }
                for arrangement in ARRANGEMENTS
            }

        found = {
            "leading_energy": {str(R): means(leading=R) for R in leading},
            "ridge_energy": {str(ridge): means(ridge=ridge) for ridge in ridges},
        }
        return {name: value for name, value in found.items() if value}

    def to_tensors(self) -> tuple[dict[str, Tensor], dict]:
        """Give what a store keeps: energies in float16, the rest as it is, and plain values."""
        tensors = {"spectrum": self.spectrum.float()}
        for name in (*ENERGIES, *PLAIN):
            value = getattr(self, name)
            if value is not None:
                tensors[name] = value.half() if name in ENERGIES else value.float()
        for name in ("task", "control", "heldout"):
            tensors[f"indices.{name}"] = self.indices[name].to(torch.int32)
            tensors[f"labels.{name}"] = self.labels[name].to(torch.int16)
        plain = ("encoder", "encoder_digest", "task", "control", "n", "seed", "readout", "scores")
        plain += ("layers", "split_digests", "exact", "made", "layer_scores", "regression")
        meta = {name: getattr(self, name) for name in plain}
        meta = {name: value for name, value in meta.items() if value is not None}
        if self.content is not None:
            meta["content"] = self.content.plain()
        meta |= {name: list(getattr(self, name)) for name in ("logits", "leading", "ridges")}
        return {name: value.contiguous() for name, value in tensors.items()}, meta

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping) -> "LocalEnergy":
        """Undo ``to_tensors``, but for the rounding of the energies.

        Args:
            tensors: As kept.
            meta: As kept; further keys are ignored.

        Returns:
            The local energy.

        Raises:
            CheckpointError: If a part is missing or of another shape.
        """
        try:
            named = {
                name: tensors[name].float() for name in ("energy", "energy_leading", "energy_ridge")
            }
            named |= {
                name: tensors[name].float()
                for name in ("energy_weighted", "coefficients", "captured")
                if name in tensors
            }
            if "eigvals" in tensors:
                named["eigvals"] = tensors["eigvals"].double()
            n, L = meta["n"], len(meta["logits"])
            shape = (3, L, 2 * n)
            if named["energy"].shape != shape or tensors["spectrum"].shape != (3, L, n):
                raise CheckpointError(
                    "a stored local energy has other shapes than it says; delete it, it is "
                    "computed again"
                )
            blocks = ("task", "control", "heldout")
            return cls(
                spectrum=tensors["spectrum"].double(),
                indices={name: tensors[f"indices.{name}"].long() for name in blocks},
                labels={name: tensors[f"labels.{name}"].long() for name in blocks},
                logits=tuple(meta["logits"]),
                leading=tuple(meta["leading"]),
                ridges=tuple(meta["ridges"]),
                **named,
                **{
                    name: meta[name]
                    for name in (
                        *("encoder", "encoder_digest", "task", "control", "n", "seed"),
                        *("readout", "layers", "split_digests", "exact", "made"),
                    )
                },
                # a store sorts the names
                scores={name: meta["scores"][name] for name in ARRANGEMENTS},
                layer_scores=in_order(meta.get("layer_scores")),
                regression=meta.get("regression"),
                content=Content(**meta["content"]) if "content" in meta else None,
            )
        except KeyError as error:
            raise CheckpointError(
                f"a stored local energy lacks {error}; delete it, it is computed again"
            ) from error

    def _chosen(self, arrangement: str, leading: int | None, ridge: float | None) -> Tensor:
        """Return one reading of the energy, shape (L, 2n).

        Raises:
            UsageError: If it was not computed.
        """
        if arrangement not in ARRANGEMENTS or (leading is not None and ridge is not None):
            raise UsageError(
                f"got the arrangement {arrangement!r}, {leading} leading vectors and a ridge of "
                f"{ridge}; choose one of {', '.join(ARRANGEMENTS)} and one of the two at most"
            )
        place = ARRANGEMENTS.index(arrangement)
        if leading is not None:
            return self.energy_leading[place][:, _place("leading", self.leading, leading)]
        if ridge is not None:
            return self.energy_ridge[place][:, _place("ridge", self.ridges, ridge)]
        return self.energy[place]


def in_order(layer_scores: Mapping[str, dict] | None) -> dict[str, dict] | None:
    """Give the scores of blocks from input to output, whatever order a store gave them."""
    if layer_scores is None:
        return None

    def place(label: str) -> tuple[int, str, int]:
        name, _, number = label.partition(" ")
        return {"input": 0, "output": 2}.get(label, 1), name, int(number or 0)

    return {label: layer_scores[label] for label in sorted(layer_scores, key=place)}


def _place(name: str, grid: Sequence, value: float) -> int:
    """Return where a value stands in a grid.

    Raises:
        UsageError: If it is not in it.
    """
    if value not in grid:
        raise UsageError(
            f"{name} {value} was not computed; choose one of {', '.join(map(str, grid))}"
        )
    return list(grid).index(value)
