"""The gradients that ``bench_finetune`` and the GPU checklist measure, by name, on noise."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

from engine.encoders import Encoder, load_encoder, plain_attention
from engine.finetune import Recipe, checkpointed, head_loss
from engine.finetune.adamw import Layout, State
from engine.finetune.batches import Feed
from engine.finetune.parallel import ALONE
from engine.finetune.steps import Run, batch_gradient, deterministic
from engine.linearize import linear_gradient
from engine.store import default_store
from engine.tasks import Split

ENCODER = "ViT-B-32-quickgelu:random"
CLASSES = 10
ROUTES = ("forward", "nonlinear", "linear", "jvp", "nonlinear again", "linear again")
GRAPHED = ("nonlinear graphed", "linear graphed")


@dataclass(frozen=True, eq=False)
class Setup:
    """What all routes work on."""

    encoder: Encoder
    images: Split
    batch: int

    @property
    def device(self) -> str:
        """Where to compute."""
        return self.encoder.mean.device.type


def setup(name: str, device: str, batch: int, images: int | None = None) -> Setup:
    """Load an encoder and make noise to train it on: cost does not depend on what is seen."""
    encoder = load_encoder(name, default_store(), device)
    source, n = torch.Generator().manual_seed(0), images or batch
    size = (n, 3, encoder.image_size, encoder.image_size)
    pixels = torch.randint(0, 256, size, generator=source, dtype=torch.uint8)
    labels = torch.arange(n) % CLASSES
    return Setup(encoder, Split("noise", "train", pixels, labels, f"noise-{n}"), batch)


def route(made: Setup, name: str, precision: str) -> Callable[[], object]:
    """Return one gradient by name, or one forward pass, ready to be called."""
    mode, _, how = name.partition(" ")
    encoder = checkpointed(made.encoder) if how == "again" else made.encoder
    source = torch.Generator().manual_seed(1)
    head = torch.nn.functional.normalize(
        torch.randn(CLASSES, encoder.embed_dim, generator=source), dim=1
    ).to(encoder.mean)
    layout = Layout(encoder.theta0)
    recipe = Recipe(batch=made.batch, precision=precision)
    run = Run(
        encoder, "nonlinear" if mode == "nonlinear" else "linear", recipe, made.images,
        made.images.take(1), head, layout, precision, ALONE,
    )  # fmt: skip
    state = State.start(layout)
    state.tau.add_(torch.randn(state.tau.shape, generator=source).to(state.tau), alpha=1e-4)
    feed = Feed(made.images, 0, made.batch, run.device, ahead=False)
    if mode == "forward":
        return lambda: forward(run, feed)
    if mode == "jvp":
        return lambda: figure7(run, state, feed)
    if how == "graphed":
        return graphed(run, state, feed)

    def step() -> tuple[float, Tensor]:
        with deterministic(run.device):
            return batch_gradient(run, state, feed)

    return step


def forward(run: Run, feed: Feed) -> Tensor:
    """Return the features of a batch."""
    low = torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16")
    with torch.no_grad(), low:
        x = run.encoder.preprocess(feed.take(0)[0])
        return run.encoder.features(run.encoder.theta0, x)


def figure7(run: Run, state: State, feed: Feed) -> tuple[Tensor, Tensor]:
    """Return loss and flat gradient by way of backward through forward mode.

    As the paper's Figure 7: jvp of the functional model at theta_0 along the difference, which is
    the leaf; autograd keeps the values and the tangents.
    """
    images, labels = feed.take(0)
    leaf = state.tau.detach().requires_grad_()
    low = torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16")
    with low, plain_attention(), deterministic(run.device):
        x = run.encoder.preprocess(images)
        z0, jz = jvp(
            lambda theta: run.encoder.features(theta, x),
            (run.encoder.theta0,),
            (run.layout.split(leaf),),
        )
        loss = head_loss(z0 + jz, run.head, run.encoder.logit_scale, labels)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def graphed(run: Run, state: State, feed: Feed) -> Callable[[], object]:
    """Return a gradient whose kernels are recorded at the first call and replayed at the others."""
    recorded: list[torch.cuda.CUDAGraph] = []

    def gradient(x: Tensor, labels: Tensor) -> object:
        def loss(z: Tensor) -> Tensor:
            return head_loss(z, run.head, run.encoder.logit_scale, labels)

        low = run.precision == "bfloat16"
        with torch.autocast("cuda", torch.bfloat16, enabled=low):
            if run.mode == "linear":
                named = run.layout.split(run.layout.theta0), run.layout.split(state.tau)
                return linear_gradient(run.encoder.features, *named, x, loss)
            leaf = (run.layout.theta0 + state.tau).requires_grad_()
            value = loss(run.encoder.features(run.layout.split(leaf), x))
            return torch.autograd.grad(value, leaf)

    def call() -> None:
        if recorded:
            recorded[0].replay()
            return
        images, labels = feed.take(0)
        x, side = run.encoder.preprocess(images), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                gradient(x, labels)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            gradient(x, labels)
        recorded.append(graph)

    return call
