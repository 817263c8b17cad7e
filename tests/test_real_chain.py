"""The command line on real pictures with open_clip's and timm's towers, end to end, bounded."""

import json
import math

import open_clip
import pytest
import safetensors.torch
import torch

from engine.__main__ import main
from engine.encoders.towers import build_model

# the configuration of ViT-B-32-quickgelu with small numbers: every kind of layer stays
SMALL = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def encoder(monkeypatch, tmp_path):
    """A local weight file of a small architecture, pinned to its digest by nothing but its path."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small-quickgelu", SMALL)
    path = tmp_path / "small.safetensors"
    safetensors.torch.save_file(build_model(SMALL, 3).state_dict(), path)
    return f"small-quickgelu:{path}"


@pytest.fixture
def ask(tmp_path, capsys):
    """Run a verb with --json in a cache of its own."""

    def asked(*words):
        capsys.readouterr()
        code = main([*map(str, words), "--json", "--cache", str(tmp_path / "cache")])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return asked


def chain(ask, encoder, paths):
    """Fine-tune in both modes, measure in all three; return the addition answers by mode."""
    on = ["--encoder", encoder]
    tasks = ["--tasks", *paths]
    short = ["--steps", "2", "--batch", "8", "--limit", "40", "--measure-on", "60"]
    for mode in ("nonlinear", "linear"):
        made = ask("finetune", *on, *tasks, "--mode", mode, *short)["checkpoints"]
        assert [row["n"] for row in made] == [{"validation": 60, "test": 60}] * len(paths)
    answers = {}
    for mode in ("nonlinear", "posthoc", "linear"):
        got = ask("evaluate", *on, *tasks, "--mode", mode, "--alpha", "0.5", "--limit", "60",
                  "--control", "none")  # fmt: skip
        assert all(0 <= value <= 1 for value in got["accuracy"].values())
        answers[mode] = ask("addition", *on, *tasks, "--mode", mode, "--limit", "60")
        assert math.isfinite(answers[mode]["normalized"])
        pair = ["--tasks", *paths[:2]]
        xi = ask("disentanglement", *on, *pair, "--mode", mode, "--grid", "3", "--images", "16")
        assert xi["xi"][1][1] == 0
    return answers


@pytest.mark.slow
def test_real_tasks_with_a_clip_tower_from_a_file(ask, encoder, real_data):
    paths = [real_data / name for name in ("mnist", "eurosat", "dtd10", "signdigits")]
    answers = chain(ask, encoder, paths)
    assert answers["posthoc"]["n"] == dict.fromkeys(("mnist", "eurosat", "dtd10", "signdigits"), 60)
    assert answers["linear"]["taus"] != answers["posthoc"]["taus"]
    assert answers["nonlinear"]["taus"] == answers["posthoc"]["taus"]
    energy = ask("ntk", "--encoder", encoder, "--task", paths[0], "--control", paths[1],
                 "--points", "6", "--logits", "1")  # fmt: skip
    assert json.dumps(energy)
    ask("negation", "--encoder", encoder, "--tasks", *paths[:2], "--control", paths[3],
        "--mode", "posthoc", "--limit", "60")  # fmt: skip


@pytest.mark.slow
def test_real_tasks_with_a_closed_vocabulary(ask, real_data):
    encoder = "timm/test_vit:random"
    paths = [real_data / name for name in ("mnist", "signdigits")]
    heads = ask("heads", "--encoder", encoder, "--tasks", *paths, "--limit", "200",
                "--measure-on", "60")["heads"]  # fmt: skip
    assert heads[0]["accuracy"]["validation"] > 0.2  # random features tell digits apart somewhat
    chain(ask, encoder, paths)


@pytest.mark.slow
def test_vit_b_32_takes_linear_steps(ask, real_data, tmp_path):
    """The real architecture, on eight pictures: what the small one stands for."""
    torch.manual_seed(0)
    words = ["--steps", "2", "--batch", "4", "--limit", "8", "--measure-on", "4"]
    made = ask("finetune", "--encoder", "ViT-B-32-quickgelu:random", "--mode", "linear",
               "--tasks", real_data / "mnist", *words)  # fmt: skip
    assert made["checkpoints"][0]["n"] == {"validation": 4, "test": 4}
