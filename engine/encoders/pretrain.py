"""Contrastive pre-training of the miniature on captioned renderings, with open_clip's own loss.

On small virtual machines page faults dominate: start the process with the environment variables
``MALLOC_TRIM_THRESHOLD_`` and ``MALLOC_MMAP_THRESHOLD_`` both at 100000000000 (glibc reads them
at start only), and give torch no more threads than there are idle cores.
"""

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass

import open_clip
import torch
from torch import Tensor, nn

from engine.encoders.miniature import CONFIG, rounded, tokenizer
from engine.encoders.towers import build_model
from engine.errors import CheckpointError, EngineError, NonFiniteError, UsageError

Captioned = Callable[[range, int], tuple[Tensor, list[str], Tensor]]
Progress = Callable[[int, int, dict | None], None]
SaveState = Callable[[str, dict[str, Tensor], dict], None]
LoadState = Callable[[str], tuple[dict[str, Tensor], dict] | None]

LARGEST_SCALE = math.log(100.0)  # of the logits; Radford et al. (2021), Sec. 2.5
WARMUP = 0.1  # share of the steps
CHUNK = 512  # images rendered between two calls of progress
LOG_EVERY, SAVE_EVERY = 25, 250  # steps


@dataclass(frozen=True)
class Recipe:
    """How the miniature is pre-trained.

    Attributes:
        images: Captioned pictures an epoch.
        epochs: Passes over them.
        batch: Pictures a step, about: whole groups are taken.
        rate: Peak learning rate of AdamW.
        weight_decay: On matrices; norms, biases and positions are spared.
        clip: Largest norm of the gradient.
        seed: Of initialisation, pictures and their order.
        fresh: New pictures every epoch.
        distinct: Contrast each picture with captions of other classes only. Otherwise a batch is
            one group, in which a class meets itself as a negative.
    """

    images: int = 60_000
    epochs: int = 9
    batch: int = 256
    rate: float = 1.5e-3
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    fresh: bool = True
    distinct: bool = True


@dataclass(frozen=True)
class Pictures:
    """One epoch's pictures.

    Attributes:
        images: uint8 (N, 3, H, W).
        tokens: int32 (N, context).
        classes: int64 (N,).
    """

    images: Tensor
    tokens: Tensor
    classes: Tensor


def pretrain(
    recipe: Recipe,
    progress: Progress | None = None,
    captioned: Captioned | None = None,
    device: torch.device | str = "cpu",
    config: Mapping = CONFIG,
    save_state: SaveState | None = None,
    load_state: LoadState | None = None,
) -> tuple[dict[str, Tensor], list[dict]]:
    r"""Train image and text tower together.

    .. math:: -\frac{1}{2B} \sum_i \left[ \log \frac{e^{s\,u_i^\top v_i}}{\sum_j e^{s\,u_i^\top
        v_j}} + \log \frac{e^{s\,u_i^\top v_i}}{\sum_j e^{s\,u_j^\top v_i}} \right]

    over each group of B pictures u and captions v, averaged over the groups of a step. The result
    is rounded to float16; those values are the encoder. To keep it, put them into the store as
    kind ``encoder`` with meta ``{"name", "config", "recipe", "log", ...}``; its untrained twin is
    ``random_initialisation(seed, config)`` with meta ``{"name", "config", "text": name}``.

    Args:
        recipe: How.
        progress: Called as (steps done, steps, new log entry or None) after each step, and with 0
            steps done while pictures are rendered. If it raises, the working state is saved first.
        captioned: (indices, seed) to images, captions and class numbers; the miniature world's
            by default.
        device: Where to train.
        config: Model configuration.
        save_state: Takes (name, tensors, meta), as ``Store.save_state``.
        load_state: Takes a name, as ``Store.load_state``.

    Returns:
        The state dict of open_clip's model, floating tensors in float16 on the CPU, and the log:
        entries {"step", "loss", "rate", "seconds", "accuracy", "scale"}, loss in nats, accuracy the
        share of pictures whose own caption scores highest in their group.

    Raises:
        UsageError: If the recipe is empty.
        NonFiniteError: If the loss is no longer finite.
        CheckpointError: If the saved working state does not fit.
        KeyboardInterrupt: If the user stops; the working state has been saved.

    Source:
        Radford et al. (2021), arXiv:2103.00020, Sec. 2.3, Fig. 3.
    """
    if min(recipe.images, recipe.epochs, recipe.batch) < 1:
        raise UsageError("images, epochs and batch must each be at least 1; got " + str(recipe))
    run = _Run(recipe, config, torch.device(device), captioned or _world())
    name = state_name(recipe, config)
    if load_state is not None:
        run.resume(load_state(name))

    def notify(entry: dict | None = None) -> None:
        if progress is not None:
            progress(run.done, run.total, entry)

    try:
        for entry in run.steps(notify):
            if save_state is not None and run.done % SAVE_EVERY == 0:
                save_state(name, *run.state())
            notify(entry)
    except (Exception, KeyboardInterrupt) as error:
        if save_state is not None and not isinstance(error, EngineError):
            save_state(name, *run.state())
        raise
    return rounded(run.model.state_dict()), run.log


def state_name(recipe: Recipe, config: Mapping = CONFIG) -> str:
    """Name the working state of a run.

    Args:
        recipe: How it is trained.
        config: Model configuration.

    Returns:
        A name that differs where recipe or configuration do.
    """
    text = json.dumps([asdict(recipe), dict(config)], sort_keys=True)
    return "pretrain-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def rate_at(step: int, steps: int, peak: float) -> float:
    """Give the learning rate of a step: linear warm-up over a tenth, then a cosine to 0.

    Args:
        step: Steps done, from 0.
        steps: Steps in all.
        peak: Largest rate.

    Returns:
        The rate.
    """
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def groups(classes: Tensor, batch: int, seed: int, epoch: int, distinct: bool) -> list[Tensor]:
    """Order an epoch's pictures and part them into groups to be contrasted.

    Args:
        classes: Class of each picture, shape (N,).
        batch: Largest size of a group.
        seed: Of the order.
        epoch: From 0; each has its own order.
        distinct: No class twice in a group: pictures are dealt in rounds, one of each class.

    Returns:
        Indices by group; a picture is in one group at most, groups of one are left out.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(classes), generator=generator)
    if not distinct:
        return [part for part in order.split(batch) if len(part) > 1]
    by_class = torch.argsort(classes[order], stable=True)
    counts = torch.bincount(classes)
    first = (counts.cumsum(0) - counts)[classes[order][by_class]]
    turn = torch.empty_like(order)
    turn[by_class] = torch.arange(len(order)) - first  # how many of the class came before
    dealt = order[torch.argsort(turn, stable=True)]
    rounds = dealt.split(torch.bincount(turn).tolist())
    return [part for whole in rounds for part in whole.split(batch) if len(part) > 1]


def render_pictures(
    captioned: Captioned, indices: range, seed: int, config: Mapping, notify: Callable[[], None]
) -> Pictures:
    """Render captioned pictures and turn the captions into tokens.

    Args:
        captioned: (indices, seed) to images, captions and class numbers.
        indices: Which pictures.
        seed: Which world.
        config: Model configuration, for the tokenizer.
        notify: Called after each chunk, so that a user can stop.

    Returns:
        The pictures, on the CPU.
    """
    tokens_of = tokenizer(config)
    images, tokens, classes = [], [], []
    for start in range(indices.start, indices.stop, CHUNK):
        part = range(start, min(start + CHUNK, indices.stop))
        pictures, captions, labels = captioned(part, seed)
        images.append(pictures)
        tokens.append(tokens_of(captions).int())
        classes.append(labels)
        notify()
    return Pictures(torch.cat(images), torch.cat(tokens), torch.cat(classes))


class _Run:
    """Model, optimizer and log of one pre-training run, between its steps."""

    def __init__(
        self, recipe: Recipe, config: Mapping, device: torch.device, captioned: Captioned
    ) -> None:
        self.recipe, self.config, self.device, self.captioned = recipe, config, device, captioned
        self.model = build_model(config, recipe.seed).to(device).train()
        self.optimizer = _optimizer(self.model, recipe)
        self.loss = open_clip.ClipLoss()
        self.log: list[dict] = []
        self.window: list[tuple[float, float]] = []  # loss and accuracy since the last entry
        self.done, self.per_epoch, self.seconds = 0, 0, 0.0
        self.mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN, device=device)[:, None, None]
        self.std = torch.tensor(open_clip.OPENAI_DATASET_STD, device=device)[:, None, None]

    @property
    def total(self) -> int:
        """Number of steps in all, 0 before the first pictures are there."""
        return self.per_epoch * self.recipe.epochs

    def steps(self, notify: Callable[[], None]) -> Generator[dict | None]:
        """Yield each step's new log entry, or None, until all steps are done."""
        recipe, pictures = self.recipe, None
        for epoch in range(recipe.epochs):
            if self.per_epoch and self.done >= (epoch + 1) * self.per_epoch:
                continue  # done before a resume
            if pictures is None or recipe.fresh:
                start = epoch * recipe.images if recipe.fresh else 0
                span = range(start, start + recipe.images)
                pictures = render_pictures(self.captioned, span, recipe.seed, self.config, notify)
            batches = self._batches(pictures.classes, epoch)
            self.per_epoch = self.per_epoch or len(batches)
            first = self.done - epoch * self.per_epoch
            for batch in itertools.islice(itertools.cycle(batches), first, self.per_epoch):
                began = time.perf_counter()
                self.window.append(self._step(pictures, batch))
                self.done += 1
                self.seconds += time.perf_counter() - began
                due = self.done % LOG_EVERY == 0 or self.done == self.total
                yield self._entry() if due else None

    def _batches(self, classes: Tensor, epoch: int) -> list[list[Tensor]]:
        """Return an epoch's groups, as many a step as come nearest to the batch.

        Raises:
            UsageError: If no group has two pictures.
        """
        recipe = self.recipe
        parts = groups(classes, recipe.batch, recipe.seed, epoch, recipe.distinct)
        if not parts:
            raise UsageError("a batch must hold at least 2 pictures; raise images or batch")
        many = max(1, round(recipe.batch / max(len(part) for part in parts)))
        return [parts[i : i + many] for i in range(0, len(parts), many)]

    def _step(self, pictures: Pictures, batch: Sequence[Tensor]) -> tuple[float, float]:
        """Return loss and share of pictures matched to their captions, having taken one step.

        Raises:
            NonFiniteError: If the loss is not finite.
        """
        rows = torch.cat(tuple(batch))
        pixels = pictures.images[rows].to(self.device).float() / 255
        u, v, scale = self.model(
            (pixels - self.mean) / self.std, pictures.tokens[rows].to(self.device).long()
        )
        sizes = [len(part) for part in batch]
        pairs = list(zip(u.split(sizes), v.split(sizes), strict=True))
        losses = [self.loss(a, b, scale) * len(a) for a, b in pairs]
        loss = torch.stack(losses).sum() / len(rows)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(
                f"the loss became {value} at step {self.done + 1}; lower the learning rate"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.done, self.total, self.recipe.rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, LARGEST_SCALE)
            right = sum(
                int(((a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)).sum())
                for a, b in pairs
            )
        return value, right / len(rows)

    def _entry(self) -> dict:
        """Return a new log entry: means over the steps since the one before."""
        losses, accuracies = zip(*self.window, strict=True)
        entry = {
            "step": self.done,
            "loss": sum(losses) / len(losses),
            "accuracy": sum(accuracies) / len(accuracies),
            "rate": rate_at(self.done - 1, self.total, self.recipe.rate),
            "scale": float(self.model.logit_scale.detach().exp()),
            "seconds": self.seconds,
        }
        self.log.append(entry)
        self.window.clear()
        return entry

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Return the working state: tensors, and what is no tensor."""
        tensors = {f"model.{k}": v.detach().cpu() for k, v in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value.detach().cpu()
        kept = ("done", "per_epoch", "seconds", "log", "window")
        return tensors, {key: getattr(self, key) for key in kept}

    def resume(self, saved: tuple[dict[str, Tensor], dict] | None) -> None:
        """Continue from a working state, if there is one.

        Raises:
            CheckpointError: If it does not fit.
        """
        if saved is None:
            return
        tensors, meta = saved
        try:
            self.model.load_state_dict({k: tensors[f"model.{k}"] for k in self.model.state_dict()})
            self.done, self.per_epoch = int(meta["done"]), int(meta["per_epoch"])
            self.seconds, self.log = float(meta["seconds"]), list(meta["log"])
            self.window = [tuple(pair) for pair in meta["window"]]
            for name, parameter in self.model.named_parameters() if self.done else ():
                self.optimizer.state[parameter] = {
                    key: tensors[f"optimizer.{key}.{name}"].to(
                        "cpu" if key == "step" and self.device.type == "cpu" else self.device
                    )
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                "the saved state of this pre-training run does not fit; delete it and start again"
            ) from error


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW that spares norms, biases, positions and the logit scale from decay."""
    spared = model.no_weight_decay()
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        (free if parameter.ndim < 2 or name in spared else decayed).append(parameter)
    parts = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(parts, lr=recipe.rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _world() -> Captioned:
    """Return the miniature world's renderer of captioned pictures."""
    from engine.tasks.miniature import captioned_with_labels

    return captioned_with_labels
