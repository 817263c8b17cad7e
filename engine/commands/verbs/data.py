"""The verbs that bring data sets and heads to this machine."""

from engine.commands.arguments import positive
from engine.commands.verbs import options


def _fetch(verbs) -> None:
    verb = options.declare(
        verbs,
        "fetch",
        "bring data sets of the hub to this machine, and decode them for an encoder",
        "A data set is a sample of mu_t on the support D_t of Eq. 1 and Eq. 7. Names: cars dtd"
        "\neurosat gtsrb mnist resisc45 sun397 svhn (the papers' eight), imagenet (their control),"
        "\ncifar10 cifar100 stl10 food101; hub:owner/name[:config]; or a task file. What is here"
        "\nalready is not fetched again; decoding goes on where it was stopped.",
        "fetch eurosat mnist --encoder ViT-B-32-quickgelu:openai",
    )
    verb.add_argument("names", nargs="+", metavar="T", help="names, hub ids, task files or folders")
    verb.add_argument(
        "--encoder", metavar="E", help="also decode every split at the size this encoder reads"
    )
    verb.add_argument("--size", type=positive, metavar="S", help="the same at S pixels a side")
    verb.add_argument("--limit", type=positive, metavar="N", help="the first N images a split only")
    verb.add_argument(
        "--leaks", action="store_true", help="count test images whose bytes are in train too"
    )


def _heads(verbs) -> None:
    verb = options.declare(
        verbs,
        "heads",
        "train linear heads for an encoder without a text tower; they are frozen afterwards",
        "min over H of the mean cross-entropy of s H.f(x; theta_0)/|f(x; theta_0)| plus a penalty"
        "\nchosen on validation: the head of the closed-vocabulary models of App. D.6, trained"
        "\nbefore fine-tuning, so that every mode shares it.",
        "heads --encoder timm/vit_base_patch16_224:augreg_in1k --tasks eurosat mnist",
    )
    options.encoder(verb)
    options.tasks(verb)
    verb.add_argument(
        "--limit", type=positive, metavar="N", help="train on the first N images only"
    )
    verb.add_argument(
        "--measure-on",
        type=positive,
        metavar="N",
        help="choose and measure on the first N images of validation and test only (default: all)",
    )
    verb.add_argument("--force", action="store_true", help="train again what is in the store")
    options.device(verb)


VERBS = (_fetch, _heads)
