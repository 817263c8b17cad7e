"""A tiny encoder, task and splits that satisfy the engine's contracts, for fast tests."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

SIZE, DIM = 8, 6


@dataclass(frozen=True)
class FakeTask:
    name: str = "shapes"
    classnames: tuple[str, ...] = ("disc", "square", "cross")
    templates: tuple[str, ...] = ("a {}",)
    title: str = "Shapes"
    source: str = "test"


@dataclass(frozen=True, eq=False)
class FakeSplit:
    task: str
    name: str
    images: Tensor
    labels: Tensor
    digest: str


def _tower() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=4, stride=4),  # 4 patches
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.LayerNorm(16),
        nn.GELU(),
        nn.Linear(16, DIM, bias=False),
    )


@dataclass(frozen=True, eq=False)
class FakeEncoder:
    theta0: dict[str, Tensor]
    tower: nn.Module = field(repr=False)
    name: str = "miniature-fake"
    digest: str = "fake"
    image_size: int = SIZE
    embed_dim: int = DIM
    logit_scale: float = 10.0

    def features(self, theta, x):
        return functional_call(self.tower, dict(theta), (x,))

    def preprocess(self, images):
        first = next(iter(self.theta0.values()))
        return images.to(first) / 127.5 - 1

    def head(self, task):
        source = torch.Generator().manual_seed(sum(map(ord, task.name)))
        head = torch.randn(len(task.classnames), DIM, generator=source, dtype=torch.float64)
        first = next(iter(self.theta0.values()))
        return nn.functional.normalize(head, dim=1).to(first)


def fake_encoder(seed: int = 0, dtype: torch.dtype = torch.float32) -> FakeEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = _tower().to(dtype).eval().requires_grad_(False)
    theta0 = {name: value.detach().clone() for name, value in tower.named_parameters()}
    return FakeEncoder(theta0=theta0, tower=tower)


def fake_split(task: FakeTask, name: str = "train", n: int = 60, seed: int = 0) -> FakeSplit:
    """Images whose mean colour depends on the class: easy to learn, with noise."""
    source = torch.Generator().manual_seed(1000 * seed + sum(map(ord, task.name + name)))
    C = len(task.classnames)
    labels = torch.randint(0, C, (n,), generator=source)
    colours = torch.randint(40, 215, (C, 3), generator=torch.Generator().manual_seed(C))
    noise = torch.randint(-40, 41, (n, 3, SIZE, SIZE), generator=source)
    images = (colours[labels][:, :, None, None] + noise).clamp(0, 255).to(torch.uint8)
    return FakeSplit(task.name, name, images, labels, f"{task.name}-{name}-{n}-{seed}")


def fake_taus(encoder: FakeEncoder, names, scale: float = 0.1, seed: int = 0):
    source = torch.Generator().manual_seed(seed)
    return {
        name: {
            key: scale * torch.randn(value.shape, generator=source, dtype=torch.float64).to(value)
            for key, value in encoder.theta0.items()
        }
        for name in names
    }


def other_task(name: str, C: int) -> FakeTask:
    return replace(FakeTask(), name=name, classnames=tuple(f"{name} {c}" for c in range(C)))
