"""Gradient checkpointing: the same gradients from less memory, in both modes."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engine.commands.parser import build_parser
from engine.encoders import load_encoder
from engine.encoders.miniature import tokenizer
from engine.encoders.towers import build_model, make_encoder
from engine.errors import UsageError
from engine.finetune import Recipe, checkpointed, described, finetune, recipe_for, state_name
from engine.jobs import probe
from engine.linearize import linear_gradient, linearized
from tests.fake_encoder import FakeTask, fake_encoder, fake_split
from tests.tiny_clip import CONFIG, tiny_encoder

MODES = ("nonlinear", "linear")
TASK = FakeTask()
SHORT = Recipe(steps=8, batch=8, rate=3e-3, warmup=2, checkpoint_every=3)


def _images(encoder, n):
    size = (n, 3, encoder.image_size, encoder.image_size)
    source = torch.Generator().manual_seed(0)
    return encoder.preprocess(torch.randint(0, 256, size, generator=source, dtype=torch.uint8))


def _tau(encoder, scale=0.05):
    source = torch.Generator().manual_seed(1)
    return {
        name: scale * torch.randn(value.shape, generator=source).to(value)
        for name, value in encoder.theta0.items()
    }


def _gradient(encoder, mode, x):
    """Loss and gradients at a point that is not theta_0."""
    source = torch.Generator().manual_seed(2)
    head = F.normalize(torch.randn(5, encoder.embed_dim, generator=source), dim=1).to(encoder.mean)
    labels = torch.arange(len(x)) % 5

    def loss(z):
        return F.cross_entropy(9 * F.normalize(z.to(head.dtype), dim=-1) @ head.T, labels)

    tau = _tau(encoder)
    if mode == "linear":
        return linear_gradient(encoder.features, encoder.theta0, tau, x, loss)
    theta = {k: (v + tau[k]).requires_grad_() for k, v in encoder.theta0.items()}
    value = loss(encoder.features(theta, x))
    return value.detach(), dict(
        zip(theta, torch.autograd.grad(value, list(theta.values())), strict=True)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("low", [False, True])
def test_gradients_are_the_same(mode, low):
    encoder = tiny_encoder() if low else tiny_encoder().to("cpu", torch.float64)
    x = _images(encoder, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        expected_value, expected = _gradient(encoder, mode, x)
        value, got = _gradient(checkpointed(encoder), mode, x)
    # each block runs again with the same kernels; only the order of sums may differ
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if low else {"rtol": 1e-12, "atol": 1e-14}
    torch.testing.assert_close(value, expected_value, rtol=0, atol=0)
    assert list(got) == list(expected)
    torch.testing.assert_close(got, expected, **tolerance)
    assert all(bool(part.any()) for part in got.values())


def test_the_recomputed_blocks_remember_their_precision():
    """Backward passes run where autocast is unknown; a block in float32 would differ by 1e-2."""
    encoder = tiny_encoder()
    again = checkpointed(encoder)
    x, seen = _images(encoder, 4), []
    block = again.tower.transformer.resblocks[0]
    block.mlp.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    theta = {k: v.clone().requires_grad_() for k, v in encoder.theta0.items()}
    with torch.autocast("cpu", torch.bfloat16):
        z = again.features(theta, x)
    z.float().square().sum().backward()  # outside of autocast
    assert seen == [torch.bfloat16, torch.bfloat16]


def test_a_block_runs_once_more_and_its_inside_is_not_kept():
    deep = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "layers": 8}}
    encoder = make_encoder("deep", build_model(deep, 0), deep, tokenizer(deep))
    again, runs = checkpointed(encoder), []
    for block in again.tower.transformer.resblocks:
        block.ln_1.register_forward_hook(lambda *_: runs.append(1))
    for mode in MODES:
        runs.clear()
        whole = probe._held_by(encoder, mode, "float32", 64)
        less = probe._held_by(again, mode, "float32", 64)
        assert len(runs) == 2 * 8
        # 8 blocks keep their input instead of about 16 tensors of its size
        assert less < 0.5 * whole


def test_features_and_expansion_are_those_of_the_encoder():
    encoder = tiny_encoder().to("cpu", torch.float64)
    again, x, tau = checkpointed(encoder), _images(encoder, 3), _tau(encoder)
    with torch.no_grad():
        torch.testing.assert_close(
            again.features(encoder.theta0, x), encoder.features(encoder.theta0, x), rtol=0, atol=0
        )
    torch.testing.assert_close(
        linearized(again.features, encoder.theta0, tau, x),
        linearized(encoder.features, encoder.theta0, tau, x),
        rtol=0,
        atol=0,
    )
    assert again.digest == encoder.digest


def test_towers_without_blocks_are_refused():
    with pytest.raises(UsageError, match="has no blocks .* set accumulate"):
        checkpointed(fake_encoder())


# ------------------------------------------------------------------------------------ fine-tuning


def _splits():
    splits = []
    for name, n in (("train", 24), ("validation", 12)):
        small = fake_split(TASK, name, n)
        splits.append(
            replace(small, images=small.images.repeat_interleave(2, 2).repeat_interleave(2, 3))
        )
    return splits


class Stopped(Exception):
    pass


@pytest.mark.parametrize("mode", MODES)
def test_a_fine_tune_is_the_same_and_resumes_to_the_bit(mode):
    encoder, (train, validation), states = tiny_encoder(), _splits(), {}
    recipe = replace(SHORT, checkpointing=True)
    plain = finetune(encoder, TASK, train, validation, mode, SHORT)
    whole = finetune(encoder, TASK, train, validation, mode, recipe)
    torch.testing.assert_close(whole.tau, plain.tau, rtol=1e-3, atol=1e-5)

    def stop(done, *_):
        if done == 5:
            raise Stopped

    def save(name, tensors, meta):
        states[name] = tensors, copy.deepcopy(meta)

    with pytest.raises(Stopped):
        finetune(encoder, TASK, train, validation, mode, recipe, stop, save, states.get)
    resumed = finetune(encoder, TASK, train, validation, mode, recipe, None, save, states.get)
    assert all(torch.equal(whole.tau[key], resumed.tau[key]) for key in whole.tau)
    names = {
        state_name(encoder, TASK, train, validation, mode, chosen) for chosen in (SHORT, recipe)
    }
    assert len(names) == 2


def test_records_made_before_it_existed_are_still_found():
    assert "checkpointing" not in described(SHORT)
    assert described(replace(SHORT, checkpointing=True))["checkpointing"] is True
    assert "checkpoint_every" not in described(SHORT)
    with pytest.raises(UsageError, match="checkpointing of the recipe is 3; .* true or false"):
        recipe_for("miniature", "linear", checkpointing=3)


def test_the_command_takes_it():
    words = ["finetune", "--mode", "linear"]
    assert build_parser().parse_args(words).checkpointing is None
    assert build_parser().parse_args([*words, "--checkpointing"]).checkpointing is True


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu:random", "convnext_tiny:random"])
def test_real_towers_can_be_recomputed(name):
    encoder = load_encoder(name, store=None)
    encoder.free_text()
    x = _images(encoder, 1)
    for mode in MODES:
        _, expected = _gradient(encoder, mode, x)
        _, got = _gradient(checkpointed(encoder), mode, x)
        for key, part in got.items():
            assert float((part - expected[key]).norm()) <= 1e-4 * float(expected[key].norm()), key
