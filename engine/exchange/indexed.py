"""The linear checkpoints of the tangent-space paper's code: numbered tensors, named by a table.

That code wraps open_clip's model (its text transformer deleted) with functorch, which forgets the
names: ``model.params.{i}`` is the i-th of ``named_parameters()`` after training and
``model.params0.{i}`` the same before it.

Source:
    github.com/gortizji/tangent_task_arithmetic, linearized model and image encoder; order of
    open_clip's CLIP and VisionTransformer.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from engine.errors import CheckpointError, ParameterMismatchError
from engine.exchange.sources import shown

NUMBERED = re.compile(r"(?:model\.)?(params0?)\.(\d+)")
# before and after the image tower among CLIP's parameters, its text transformer deleted
BEFORE = ("positional_embedding", "text_projection", "logit_scale")
AFTER = ("token_embedding.weight", "ln_final.weight", "ln_final.bias")
STEM = (
    "class_embedding", "positional_embedding", "proj", "conv1.weight", "ln_pre.weight",
    "ln_pre.bias",
)  # fmt: skip
BLOCK = (
    "ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight",
    "attn.out_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias",
    "mlp.c_proj.weight", "mlp.c_proj.bias",
)  # fmt: skip
END = ("ln_post.weight", "ln_post.bias")
# the architectures that code was run with -> blocks of the image tower
BLOCKS = {"ViT-B-32": 12, "ViT-B-16": 12, "ViT-L-14": 24}


def names_of(architecture: str) -> tuple[str, ...]:
    """Name every number of a linear checkpoint.

    Args:
        architecture: What the file's ``model_name`` says.

    Returns:
        Names in the order of the numbers; those of the image tower begin with ``visual.``.

    Raises:
        CheckpointError: If there is no table for it.
    """
    plain = architecture.split("__")[0].removesuffix("-quickgelu")
    if plain not in BLOCKS:
        raise CheckpointError(
            f"a linear checkpoint of {shown(architecture, 60)} holds numbers instead of names, and "
            f"the order is known for {', '.join(BLOCKS)} only; save its tensors by name"
        )
    blocks = [
        f"transformer.resblocks.{layer}.{name}" for layer in range(BLOCKS[plain]) for name in BLOCK
    ]
    tower = [f"visual.{name}" for name in (*STEM, *blocks, *END)]
    return (*BEFORE, *tower, *AFTER)


def from_indexed(
    tensors: Mapping[str, Tensor], architecture: str, label: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Name the tensors of a linear checkpoint.

    Args:
        tensors: ``model.params.{i}`` and ``model.params0.{i}``.
        architecture: The file's ``model_name``.
        label: The file, for messages.

    Returns:
        theta and theta_0 of the image tower, under the names of the tower.

    Raises:
        ParameterMismatchError: If numbers are missing or left over.
    """
    names = names_of(architecture)
    numbered: dict[str, dict[int, Tensor]] = {"params": {}, "params0": {}}
    for name, tensor in tensors.items():
        found = NUMBERED.fullmatch(name)
        if found:
            numbered[found[1]][int(found[2])] = tensor
    wanted = set(range(len(names)))
    for group, values in numbered.items():
        if values.keys() != wanted:
            raise ParameterMismatchError(
                f"{label} has {len(values)} tensors {group} where {shown(architecture, 60)} has "
                f"{len(names)}; it was saved by another version of the code: save its tensors by "
                "name"
            )
    theta, theta0 = (
        {
            name.removeprefix("visual."): numbered[group][place]
            for place, name in enumerate(names)
            if name.startswith("visual.")
        }
        for group in ("params", "params0")
    )
    return theta, theta0
