"""The verbs that train."""

import argparse

from engine.commands.arguments import finite, positive
from engine.commands.verbs import options


def _pretrain(verbs) -> None:
    verb = options.declare(
        verbs,
        "pretrain",
        "make the miniature encoder from its procedural world, and its randomly initialised twin",
        "Minimises the symmetric contrastive loss of CLIP over a batch of B pictures u_i and"
        "\ncaptions v_i: -1/2B sum_i [log softmax_j(s u_i.v_j)_i + log softmax_j(s u_j.v_i)_i],"
        "\ns the logit scale. The result is theta_0 of Eq. 1. Stopped, it resumes where it was.",
        "pretrain",
    )
    verb.add_argument("--images", type=positive, metavar="N", help="captioned pictures an epoch")
    verb.add_argument("--epochs", type=positive, metavar="N")
    verb.add_argument("--batch", type=positive, metavar="N")
    verb.add_argument("--rate", type=finite, metavar="R", help="peak learning rate")
    verb.add_argument("--seed", type=int, metavar="N")
    verb.add_argument("--weight-decay", type=finite, metavar="W")
    verb.add_argument(
        "--fresh",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="new pictures every epoch",
    )
    verb.add_argument(
        "--random-init",
        action="store_true",
        help="no training: the randomly initialised twin alone",
    )
    verb.add_argument("--force", action="store_true", help="again, though it is in the store")
    options.device(verb)


def _finetune(verbs) -> None:
    verb = options.declare(
        verbs,
        "finetune",
        "fine-tune the encoder on tasks, one task vector each",
        "nonlinear: minimises the cross-entropy of f(x; theta_0 + tau) over tau, tau_t of Eq. 1."
        "\nlinear: the same of f_lin(x; theta_0 + tau) = f(x; theta_0) + tau . grad f(x; theta_0),"
        "\nthe first-order expansion of Eq. 2 trained by itself, Eq. 3."
        "\nStopped, it resumes where it was; a task already done with the same recipe is skipped."
        "\nWhat memory or disk cannot hold is refused before it begins, with what would fit.",
        "finetune --mode linear --tasks handwriting signs",
    )
    options.encoder(verb)
    options.tasks(verb)
    options.mode(verb, ("nonlinear", "linear"))
    verb.add_argument("--steps", type=positive, metavar="N")
    verb.add_argument("--batch", type=positive, metavar="N")
    verb.add_argument("--rate", type=finite, metavar="R", help="peak learning rate")
    verb.add_argument("--warmup", type=int, metavar="N", help="steps of linear warm-up")
    verb.add_argument("--weight-decay", type=finite, metavar="W")
    verb.add_argument("--seed", type=int, metavar="N")
    verb.add_argument(
        "--modes",
        nargs="+",
        choices=("nonlinear", "linear"),
        help="with --background: a job for each task, mode and seed",
    )
    verb.add_argument("--seeds", nargs="+", type=int, metavar="N", help="the same")
    verb.add_argument(
        "--checkpoint-every", type=positive, metavar="N", help="steps between working states"
    )
    verb.add_argument("--accumulate", type=positive, metavar="N", help="pieces of a batch")
    verb.add_argument(
        "--checkpointing",
        action="store_true",
        default=None,
        help="compute each block again on the way back instead of keeping its inside: less memory",
    )
    verb.add_argument("--augment", choices=("none", "shift", "crop"))
    verb.add_argument("--precision", choices=("auto", "float32", "bfloat16"))
    verb.add_argument(
        "--limit", type=positive, metavar="N", help="train on the first N images only"
    )
    verb.add_argument(
        "--measure-on",
        type=positive,
        metavar="N",
        help="measure on the first N images of validation and of test only (default: all)",
    )
    verb.add_argument(
        "--half",
        action="store_true",
        help="store tau as float16: the rounded tau then is the checkpoint, and is measured",
    )
    verb.add_argument(
        "--force",
        action="store_true",
        help="train again what is in the store, and try what is estimated not to fit",
    )
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: say steps, time, memory and disk, as they are estimated here",
    )
    verb.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="share every batch among N processes of this machine, a GPU each; or start the "
        "command itself with torchrun",
    )
    options.device(verb)


VERBS = (_pretrain, _finetune)
