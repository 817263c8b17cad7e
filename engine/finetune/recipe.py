"""How to train: the recipe, its defaults for each encoder, and the learning rate of each step."""

import math
from dataclasses import asdict, dataclass, fields, replace

from engine.errors import UsageError

TRAINED_MODES = ("nonlinear", "linear")
AUGMENTATIONS = ("none", "shift", "crop")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the tangent-space paper's.

    Attributes:
        steps: Updates of tau.
        batch: Images a step.
        rate: Peak learning rate.
        warmup: Steps of linear warm-up; cosine to 0 follows.
        weight_decay: Decoupled, of theta = theta_0 + tau.
        clip: Largest Euclidean norm of a gradient; ``inf`` for none.
        seed: Of data order and augmentation.
        accumulate: Pieces a batch is computed in, to save memory; changes rounding alone.
        augment: "none"; "shift" by up to 2 pixels, for small images; "crop", a random resized
            crop of 0.9 to 1 of the area, as the paper's code does.
        precision: "float32"; "bfloat16" autocast; "auto": bfloat16 on a GPU that has it.
        checkpoint_every: Steps between working states.
        checkpointing: Compute each block again on the way back instead of keeping its inside:
            less memory, for towers as large as ViT-L/14, at the price of one forward pass.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Appendix A.
    """

    steps: int = 2000
    batch: int = 128
    rate: float = 1e-5
    warmup: int = 200
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    accumulate: int = 1
    augment: str = "none"
    precision: str = "auto"
    checkpoint_every: int = 100
    checkpointing: bool = False


MINIATURE = Recipe(steps=300, warmup=30, precision="float32")
MINIATURE_RATES = {"nonlinear": 3e-4, "linear": 1e-3}


def recipe_for(encoder_name: str, mode: str, **changes: object) -> Recipe:
    """Give the recipe an encoder is trained with by default.

    Args:
        encoder_name: As ``load_encoder`` takes it.
        mode: "nonlinear" or "linear".
        **changes: Fields of ``Recipe`` to set otherwise; ``steps`` without ``warmup`` sets the
            warm-up to a tenth of it.

    Returns:
        The paper's recipe; for the miniature, fewer steps at a higher rate.

    Raises:
        ValueError: If a field does not exist.
    """
    check_mode(mode)
    unknown = changes.keys() - {field.name for field in fields(Recipe)}
    if unknown:
        raise ValueError(f"no such fields in a recipe: {', '.join(sorted(unknown))}")
    recipe = Recipe()
    if encoder_name.startswith("miniature"):
        recipe = replace(MINIATURE, rate=MINIATURE_RATES[mode])
    if "steps" in changes:
        changes = {"warmup": int(changes["steps"]) // 10, **changes}
    recipe = replace(recipe, **changes)
    check_recipe(recipe)
    return recipe


def described(recipe: Recipe) -> dict:
    """Give what of a recipe decides the numbers of a run, in plain values.

    Args:
        recipe: Any.

    Returns:
        Its fields without ``checkpoint_every``; ``checkpointing`` only where it is on, so that
        records made before it existed are still found.
    """
    kept = {name: value for name, value in asdict(recipe).items() if name != "checkpoint_every"}
    if not recipe.checkpointing:
        del kept["checkpointing"]
    return kept


def rate_at(step: int, recipe: Recipe) -> float:
    r"""Learning rate: linear warm-up, then cosine to zero.

    .. math:: \eta_k = \eta (k + 1) / w \;\; (k < w), \qquad
              \eta_k = \frac{\eta}{2} \left(1 + \cos \pi \frac{k - w}{K - w}\right)

    Args:
        step: Steps already taken, k.
        recipe: With ``rate`` eta, ``warmup`` w and ``steps`` K.

    Returns:
        The rate of the next step.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Appendix A.
    """
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * done))


def check_mode(mode: str) -> None:
    """Refuse a mode weights cannot be trained in.

    Args:
        mode: What was asked for.

    Raises:
        ValueError: If it is neither "nonlinear" nor "linear".
    """
    if mode not in TRAINED_MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(TRAINED_MODES)}")


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be carried out.

    Args:
        recipe: What was asked for.

    Raises:
        UsageError: Naming the first field that is wrong, and what it may be.
    """
    rules = (
        ("steps", recipe.steps >= 1, "at least 1"),
        ("batch", recipe.batch >= 1, "at least 1"),
        ("rate", 0 < recipe.rate < math.inf, "above 0 and finite"),
        ("warmup", 0 <= recipe.warmup < recipe.steps, f"from 0 to {recipe.steps - 1}, below steps"),
        ("weight_decay", 0 <= recipe.weight_decay < math.inf, "at least 0 and finite"),
        ("clip", recipe.clip > 0, "above 0"),
        ("accumulate", 1 <= recipe.accumulate <= recipe.batch, f"from 1 to {recipe.batch}, batch"),
        ("augment", recipe.augment in AUGMENTATIONS, f"one of {', '.join(AUGMENTATIONS)}"),
        ("precision", recipe.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
        ("checkpoint_every", recipe.checkpoint_every >= 1, "at least 1"),
        ("checkpointing", isinstance(recipe.checkpointing, bool), "true or false"),
    )
    for name, holds, allowed in rules:
        if not holds:
            got = getattr(recipe, name)
            raise UsageError(f"{name} of the recipe is {got}; set it to a value {allowed}")
