"""The verb that sets task vectors beside gradients."""

from engine.commands.arguments import finite, positive
from engine.commands.verbs import options

SECTIONS = ("exactness", "trajectory", "merged", "iterative", "bridge")


def _gradients(verbs) -> None:
    verb = options.declare(
        verbs,
        "gradients",
        "set task vectors beside gradients: exactness, paths, merging early and in rounds, bridge",
        "tau^(1) = -eta g after one full-batch step, and tau^(K) = -eta K g +"
        "\neta^2 K(K-1)/2 H g + O(eta^3): On Task Vectors and Gradients. In each regime apart:"
        "\ngd (full batch, an epoch is a step), sgd, adamw; constant rate, no decay, no clipping."
        "\nThe answer is kept; stopped, it goes on where it was.",
        "gradients --tasks letters signs sites --regime adamw --epochs 8 --images 512 --json",
    )
    options.encoder(verb)
    options.tasks(verb)
    verb.add_argument(
        "--modes", nargs="+", choices=("nonlinear", "linear"), default=["nonlinear", "linear"],
        metavar="M", help="side by side: nonlinear, linear (default: both)",
    )  # fmt: skip
    verb.add_argument("--regime", choices=("gd", "sgd", "adamw"), default="gd")
    verb.add_argument(
        "--rate", type=finite, metavar="ETA",
        help="of the paths (default: gd and sgd by the curvature; adamw as finetune's)",
    )  # fmt: skip
    verb.add_argument(
        "--rates", nargs="+", type=finite, metavar="ETA",
        help="at which exactness is looked at (default: by the curvature, each half the next)",
    )  # fmt: skip
    verb.add_argument("--epochs", type=positive, default=16, metavar="K", help="(default: 16)")
    verb.add_argument(
        "--steps", type=positive, default=4, metavar="K", help="of exactness (default: 4)"
    )
    verb.add_argument("--batch", type=positive, metavar="B", help="of sgd, adamw (default: 128)")
    verb.add_argument(
        "--images", type=positive, default=512, metavar="N",
        help="train images a task: the seed's window of the shuffled split (default: 512)",
    )  # fmt: skip
    verb.add_argument(
        "--exact-images", type=positive, default=64, metavar="N",
        help="of these for exactness, in float64 (default: 64)",
    )  # fmt: skip
    verb.add_argument(
        "--limit", type=positive, default=500, metavar="N",
        help="the first N test and validation images a task (default: 500)",
    )  # fmt: skip
    verb.add_argument(
        "--sections", nargs="+", choices=SECTIONS, metavar="S", default=list(SECTIONS),
        help=f"what to answer: {', '.join(SECTIONS)} (default: all that the regime has)",
    )  # fmt: skip
    verb.add_argument(
        "--precision", choices=("auto", "float32", "float64"), default="auto",
        help="of the paths (default: float64 in gd where the encoder is small)",
    )  # fmt: skip
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="of images and their order")
    verb.add_argument(
        "--check", action="store_true", help="check every statement on small networks instead"
    )
    verb.add_argument("--force", action="store_true", help="compute again what is kept")
    options.device(verb)


VERBS = (_gradients,)
