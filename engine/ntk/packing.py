"""Local energies of one task against several controls as one file: what they share, once."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import CheckpointError
from engine.ntk.energy import ARRANGEMENTS, LocalEnergy

OWN = ("paper", "heldout")  # arrangements with the control's points among their columns
_PLACES = [ARRANGEMENTS.index(name) for name in OWN]
_NULL = ARRANGEMENTS.index("null")
STACKED = ("spectrum", "energy_leading", "energy_ridge")  # their first axis is the arrangement
POINTS = ("task", "heldout")
# plain values that depend on the task alone
COMMON = (
    *("encoder", "encoder_digest", "task", "n", "seed", "readout", "layers", "exact"),
    *("logits", "leading", "ridges", "regression"),
)


def pack(energies: Sequence[LocalEnergy]) -> tuple[dict[str, Tensor], dict]:
    """Give what a store keeps of several controls.

    The null has no control in it: it is kept once, as are the task's points and layers and the
    eigenvalues of its square kernel. The full sum is the last of the leading ones, and is not
    kept beside it.

    Args:
        energies: Of one task on the same points, with the same settings.

    Returns:
        Tensors, and ``{"shared": ..., "energies": {control: ...}}``.
    """
    tensors: dict[str, Tensor] = {}
    metas, shared = {}, {}
    for energy in energies:
        own, meta = energy.to_tensors()
        own.pop("energy")
        for name in STACKED:
            tensors[f"shared/{name}"] = own[name][_NULL].contiguous()
            own[name] = own[name][_PLACES].contiguous()
        for name in [f"{kind}.{block}" for kind in ("indices", "labels") for block in POINTS]:
            tensors[f"shared/{name}"] = own.pop(name)
        if "eigvals" in own:
            tensors["shared/eigvals"] = own.pop("eigvals")
        tensors |= {f"{energy.control}/{name}": value for name, value in own.items()}
        shared = {name: meta.pop(name) for name in COMMON if name in meta}
        metas[energy.control] = meta
    return tensors, {"shared": shared, "energies": metas}


def unpack(tensors: Mapping[str, Tensor], record: Mapping, control: str) -> LocalEnergy:
    """Undo ``pack`` for one control.

    Args:
        tensors: As kept.
        record: As kept.
        control: Which.

    Returns:
        The local energy, its energies rounded to float16.

    Raises:
        CheckpointError: If a part is missing or of another shape.
    """
    common = _under(tensors, "shared")
    own = _under(tensors, control)
    try:
        stacked = {name: _stacked(own[name], common.pop(name)) for name in STACKED}
        meta = {**record["shared"], **record["energies"][control]}
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"a stored local energy against {control} lacks a part ({error}); delete it, it is "
            "computed again"
        ) from error
    energy = stacked["energy_leading"][:, :, -1]
    return LocalEnergy.from_tensors({**common, **own, **stacked, "energy": energy}, meta)


def _under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors under a name."""
    return {
        key.removeprefix(f"{name}/"): value
        for key, value in tensors.items()
        if key.startswith(f"{name}/")
    }


def _stacked(own: Tensor, null: Tensor) -> Tensor:
    """Put the null between the two arrangements that have the control's points."""
    whole = torch.empty(len(ARRANGEMENTS), *null.shape, dtype=null.dtype)
    whole[_PLACES], whole[_NULL] = own, null
    return whole
