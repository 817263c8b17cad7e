"""A store with a tiny encoder named miniature and random task vectors: real pages, fast."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch

from engine.encoders import load_encoder
from engine.encoders.miniature import CONFIG, rounded
from engine.encoders.towers import build_model
from engine.store import Store, digest_tensors
from engine.tasks import TASKS

TINY = CONFIG | {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 16,
        "width": 32,
        "layers": 2,
        "head_width": 16,
    },
}


def make_encoder(home: Path, name: str = "miniature", seed: int = 1) -> Store:
    """Store the tiny encoder alone."""
    store = Store(home)
    weights = rounded(build_model(TINY, seed=seed).state_dict())
    store.put("encoder", weights, {"name": name, "config": TINY})
    return store


def make_world(
    home: Path,
    tasks: tuple[str, ...] = TASKS,
    modes: tuple[str, ...] = ("nonlinear", "linear"),
    name: str = "miniature",
    seed: int = 1,
) -> Store:
    """Store the tiny encoder with a random task vector for each task and mode."""
    shutil.copytree(_world(tuple(tasks), tuple(modes), name, seed), home, dirs_exist_ok=True)
    return Store(home)


@cache
def _world(tasks: tuple[str, ...], modes: tuple[str, ...], name: str, seed: int) -> Path:
    """Return a store made once, to be copied."""
    home = Path(tempfile.mkdtemp(prefix="tiny_world."))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    store = make_encoder(home, name, seed)
    encoder = load_encoder(name, store)
    source = torch.Generator().manual_seed(0)
    for mode in modes:
        for place, task in enumerate(tasks):
            tau = {
                name: 0.03 * torch.randn(value.shape, generator=source)
                for name, value in encoder.theta0.items()
            }
            store.put("checkpoint", tau, _meta(encoder, task, mode, place, tau))
    return home


def _meta(encoder, task: str, mode: str, place: int, tau: dict) -> dict:
    """Return what a checkpoint of the command line says of itself."""
    return {
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "task": task,
        "task_source": "miniature",
        "mode": mode,
        "seed": 0,
        "steps": 20,
        "recipe": {"steps": 20},
        "train_digest": "0" * 64,
        "tau_digest": digest_tensors(tau),
        # as training logs it: validation at some steps only
        "log": [
            {"step": step, "loss": 3.0 / step} | ({"validation": 0.5} if step % 10 == 0 else {})
            for step in range(1, 21)
        ],
        "accuracy": {"validation": 0.5 + place / 100, "test": 0.4 + place / 100},
        "n": {"validation": 500, "test": 1000},
        "versions": {},
        "commit": "test",
    }
