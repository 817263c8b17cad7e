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


VERBS = (_fetch,)
