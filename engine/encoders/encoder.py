"""An image encoder as one function of its parameters, with its frozen heads."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from engine.checks import check_same_parameters
from engine.encoders.heads import TextTower
from engine.encoders.probing import TrainedHeads
from engine.errors import ParameterMismatchError

if TYPE_CHECKING:
    from engine.tasks import Task


@dataclass(frozen=True, eq=False)
class Encoder:
    """A backbone ``f(theta, x)`` and the text tower that gives its frozen heads.

    Attributes:
        name: What ``load_encoder`` was asked for.
        digest: sha256 over every weight and the configuration; the same on every device.
        image_size: Pixels a side.
        embed_dim: Features d.
        theta0: Trainable parameters of the image tower, named as open_clip's ``visual.`` names
            without that prefix.
        logit_scale: Factor between cosine and logit.
        mean: Mean of each colour channel, shape (3,).
        std: Standard deviation of each colour channel, shape (3,).
    """

    name: str
    digest: str
    image_size: int
    embed_dim: int
    theta0: dict[str, Tensor]
    logit_scale: float
    mean: Tensor
    std: Tensor
    tower: nn.Module = field(repr=False)  # structure and buffers only; its parameters are empty
    text: TextTower | TrainedHeads = field(repr=False)

    def features(self, theta: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Encode images, in eval mode and as a pure function of its arguments.

        Args:
            theta: Parameters, with the names and shapes of ``theta0``.
            x: Normalised pixels, shape (N, 3, H, W).

        Returns:
            Features, shape (N, d), not L2-normalised.

        Raises:
            ParameterMismatchError: If ``theta`` has other names.
        """
        if theta.keys() != self.theta0.keys():
            check_same_parameters("theta", theta, self.theta0)
        return functional_call(self.tower, dict(theta), (x,))

    def preprocess(self, images: Tensor) -> Tensor:
        """Turn stored pixels into the tower's input.

        Args:
            images: uint8, shape (N, 3, image_size, image_size).

        Returns:
            Normalised pixels on the device and in the dtype of ``theta0``, the same shape.

        Raises:
            ValueError: If the images are not uint8 with three channels.
            ParameterMismatchError: If they have another size than this encoder reads.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"expected uint8 images of shape (N, 3, H, W), got {images.dtype} "
                f"of shape {tuple(images.shape)}"
            )
        if images.shape[2:] != (self.image_size, self.image_size):
            raise ParameterMismatchError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels do not fit {self.name}, "
                f"which reads {self.image_size} x {self.image_size}; "
                f"load the split with image_size={self.image_size}"
            )
        pixels = images.to(self.mean.device).to(self.mean.dtype) / 255
        return (pixels - self.mean[:, None, None]) / self.std[:, None, None]

    def head(self, task: "Task") -> Tensor:
        """Give the frozen head of a task.

        Args:
            task: Class names and templates.

        Returns:
            Shape (C, d), on the device and in the dtype of ``theta0``; unit rows where a text
            tower made it.
        """
        return self.text.of(task).to(self.mean)

    def head_mark(self, task: "Task") -> list[str]:
        """Give what a task's head depends on beside this encoder's digest and the task's words.

        Args:
            task: Class names and templates.

        Returns:
            Nothing for a text tower, the digest of a trained head.
        """
        return self.text.mark(task)

    def logits(self, theta: Mapping[str, Tensor], x: Tensor, head: Tensor) -> Tensor:
        r"""Classify images.

        .. math:: s \, \frac{f(x; \theta)}{\lVert f(x; \theta) \rVert} H^\top

        Args:
            theta: Parameters, as ``theta0``.
            x: Normalised pixels, shape (N, 3, H, W).
            head: Unit rows, shape (C, d).

        Returns:
            Logits, shape (N, C).

        Source:
            Radford et al. (2021), arXiv:2103.00020, Fig. 3.
        """
        return self.logit_scale * F.normalize(self.features(theta, x), dim=-1) @ head.T

    def free_text(self) -> None:
        """Give the memory of the text tower back; heads already made stay."""
        self.text.free()

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Encoder":
        """Give this encoder on another device or in another precision.

        Args:
            device: Where to compute.
            dtype: Floating type of parameters and pixels.

        Returns:
            A new encoder with the same digest; this one is left as it is.
        """
        tower = copy.deepcopy(self.tower)
        for module in tower.modules():
            for kept in (module._parameters, module._buffers):
                for key, tensor in kept.items():
                    if tensor is not None and not tensor.is_meta:
                        kept[key] = _moved(tensor, device, dtype)
        return replace(
            self,
            theta0={name: value.to(device, dtype) for name, value in self.theta0.items()},
            mean=self.mean.to(device, dtype),
            std=self.std.to(device, dtype),
            tower=tower,
        )


def _moved(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Return a buffer or frozen parameter elsewhere; integers keep their type."""
    moved = tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype)
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved
