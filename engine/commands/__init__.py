"""The verbs of the command line: one module a group; only here is it decided what to save."""

import argparse
import gc
import importlib
import keyword
from collections.abc import Sequence
from types import ModuleType

# verb -> the module of its function, which has the verb's name; imported only when called,
# because it brings torch with it
GROUPS = {
    "encoders": "listing",
    "tasks": "listing",
    "fetch": "fetching",
    "heads": "heads",
    "checkpoints": "listing",
    "pretrain": "pretraining",
    "finetune": "finetuning",
    "evaluate": "measuring",
    "addition": "measuring",
    "negation": "negating",
    "disentanglement": "disentangling",
    "merge": "exporting",
    "embed": "exporting",
    "ntk": "kernels",
    "gradients": "gradienting",
    "import": "exchanging",
    "export": "exchanging",
    "reproduce": "reproducing",
    "jobs": "jobs",
}


def call(args: argparse.Namespace, words: Sequence[str]) -> tuple[dict, str]:
    """Do what a verb asks, or have it done in the background.

    Args:
        args: The verb and its options.
        words: What was typed.

    Returns:
        The answer for ``--json`` and the answer for a reader.
    """
    group = "jobs" if (later := is_for_later(args)) else GROUPS[args.verb]
    module = _import(f"engine.commands.{group}")
    # a word of Python's own cannot name a function
    name = f"{args.verb}_" if keyword.iskeyword(args.verb) else args.verb
    return module.submit(args, words) if later else getattr(module, name)(args)


def _import(name: str) -> ModuleType:
    """Import a module while no garbage is looked for: what modules are made of is none."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        if collecting:
            gc.enable()


def is_for_later(args: argparse.Namespace) -> bool:
    """Return whether a verb is to run as a job."""
    return args.verb != "jobs" and (args.background or args.on is not None)
