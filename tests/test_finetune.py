import copy
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jvp

from engine.errors import CheckpointError, NonFiniteError, UsageError
from engine.finetune import (
    Recipe,
    finetune,
    head_loss,
    rate_at,
    recipe_for,
    state_name,
)
from engine.finetune.adamw import Layout, State, adamw_step
from engine.finetune.batches import augmented, batch_indices, generator
from engine.store import Store
from tests.fake_encoder import FakeTask, fake_encoder, fake_split, fake_taus

ROOT = Path(__file__).resolve().parent.parent
TASK = FakeTask()
TRAIN, VALIDATION = fake_split(TASK, "train", 50), fake_split(TASK, "validation", 40)
SHORT = Recipe(steps=20, batch=16, rate=3e-3, warmup=4, checkpoint_every=6)
MODES = ("nonlinear", "linear")


class Stopped(Exception):
    pass


class Memory:
    """States kept in a dictionary, as ``Store.save_state`` and ``load_state`` keep them."""

    def __init__(self):
        self.states = {}

    def save(self, name, tensors, meta):
        self.states[name] = (tensors, copy.deepcopy(meta))

    def load(self, name):
        return self.states.get(name)


def without_seconds(log):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in log]


def assert_same_bits(one, other):
    assert one.tau.keys() == other.tau.keys()
    assert all(torch.equal(one.tau[key], other.tau[key]) for key in one.tau)
    assert without_seconds(one.log) == without_seconds(other.log)
    assert one.validation == other.validation


def stop_at(step):
    def progress(done, steps, entry):
        if done == step:
            raise Stopped

    return progress


# ----------------------------------------------------------------------------------- the recipe


def test_defaults_are_the_papers_and_the_miniature_has_its_own():
    paper = recipe_for("ViT-B-32-quickgelu:openai", "linear")
    assert (paper.steps, paper.warmup, paper.batch, paper.rate) == (2000, 200, 128, 1e-5)
    assert (paper.weight_decay, paper.clip, paper.accumulate) == (0.1, 1.0, 1)
    small = {mode: recipe_for("miniature", mode) for mode in MODES}
    assert small["nonlinear"].steps < paper.steps
    assert small["nonlinear"].rate < small["linear"].rate


def test_changed_steps_take_the_warmup_along_unless_it_is_given():
    assert recipe_for("miniature", "linear", steps=50).warmup == 5
    assert recipe_for("miniature", "linear", steps=50, warmup=7).warmup == 7
    with pytest.raises(ValueError, match="no such fields in a recipe: speed"):
        recipe_for("miniature", "linear", speed=3)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch": 0},
        {"rate": 0.0},
        {"rate": math.nan},
        {"warmup": 20},
        {"weight_decay": -1.0},
        {"clip": 0.0},
        {"accumulate": 17},
        {"augment": "mixup"},
        {"precision": "float8"},
        {"checkpoint_every": 0},
    ],
)
def test_impossible_recipe_is_refused_by_field(change):
    (field,) = change
    with pytest.raises(UsageError, match=f"^{field} of the recipe is"):
        finetune(fake_encoder(), TASK, TRAIN, VALIDATION, "linear", replace(SHORT, **change))


def test_unknown_mode_is_a_bug():
    with pytest.raises(ValueError, match="mode is 'posthoc', expected one of nonlinear, linear"):
        finetune(fake_encoder(), TASK, TRAIN, VALIDATION, "posthoc", SHORT)


def test_rate_equals_torchs_schedulers():
    recipe = Recipe(steps=40, warmup=8, rate=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
    rates = []
    for step in range(40):
        if step == 8:
            optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
            warm = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=32)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warm.step()
    # the schedulers multiply step by step, so rounding piles up a little
    torch.testing.assert_close(
        torch.tensor([rate_at(k, recipe) for k in range(40)]),
        torch.tensor(rates),
        rtol=1e-5,
        atol=1e-7,
    )
    assert rate_at(0, recipe) == 0.5 / 8
    assert rate_at(39, recipe) > 0


# ------------------------------------------------------------------------- order and augmentation


@pytest.mark.parametrize(("n", "batch"), [(50, 16), (10, 10), (7, 20)])
def test_every_image_is_seen_once_an_epoch(n, batch):
    steps = 3 * n  # a whole number of epochs
    seen = torch.cat([batch_indices(5, step, n, batch) for step in range(steps)])
    assert len(seen) == steps * batch
    epochs = seen.view(-1, n)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(n).expand(len(epochs), n))
    assert not torch.equal(epochs[0], epochs[1])


def test_order_depends_on_seed_and_step_alone():
    wanted = batch_indices(3, 17, 50, 16)
    torch.manual_seed(99)
    batch_indices(4, 2, 50, 16)
    assert torch.equal(batch_indices(3, 17, 50, 16), wanted)
    assert not torch.equal(batch_indices(4, 17, 50, 16), wanted)


def test_shift_equals_a_crop_of_the_padded_image():
    images = torch.randint(0, 256, (9, 3, 12, 10), dtype=torch.uint8)
    got = augmented(images, "shift", generator(1, "augment", 4))
    moves = torch.randint(-2, 3, (2, 9, 1), generator=generator(1, "augment", 4))[:, :, 0]
    for n in range(9):
        padded = F.pad(images[n].float(), (2, 2, 2, 2), mode="replicate")
        dy, dx = 2 + int(moves[0, n]), 2 + int(moves[1, n])
        assert torch.equal(got[n].float(), padded[:, dy : dy + 12, dx : dx + 10])
    assert {int(move) for move in moves.flatten()} == {-2, -1, 0, 1, 2}


def test_crop_keeps_nine_tenths_of_the_area_or_more_and_stays_inside():
    # red is x and green is y, so the pixels tell where they came from
    side = 64
    ramp = torch.arange(side, dtype=torch.float32) * 3 + 30
    image = torch.stack(
        [ramp.expand(side, side), ramp[:, None].expand(side, side)]
        + [torch.full((side, side), 77.0)]
    )
    images = image.to(torch.uint8).expand(200, 3, side, side)
    got = augmented(images, "crop", generator(0, "augment", 0)).float()
    inner = slice(4, side - 4)  # bicubic weights reproduce a ramp away from the edge
    x, y = (got[:, 0, :, inner].mean(1) - 30) / 3, (got[:, 1, inner].mean(2) - 30) / 3
    width, height = ((v[:, -1] - v[:, 0]) / (side - 9) for v in (x, y))
    area = width * height
    assert area.min() > 0.89
    assert area.max() < 1.005
    assert 0.93 < area.mean() < 0.97  # uniform between 0.9 and 1
    assert width.max() < 1.005
    assert height.max() < 1.005
    assert (width / height).std() > 0.01
    assert torch.equal(got[:, 2], torch.full_like(got[:, 2], 77.0))
    again = augmented(images, "crop", generator(0, "augment", 0)).float()
    assert torch.equal(got, again)
    assert not torch.equal(got, augmented(images, "crop", generator(0, "augment", 1)).float())


def test_unknown_augmentation_is_a_bug():
    with pytest.raises(ValueError, match="augment is 'flip'"):
        augmented(TRAIN.images, "flip", generator(0, "augment", 0))


# ------------------------------------------------------------------------------------ one step


def test_adamw_on_tau_is_torchs_adamw_on_theta():
    theta0 = {"w": torch.randn(4, 3, dtype=torch.float64), "b": torch.randn(5, dtype=torch.float64)}
    layout = Layout(theta0)
    state = State.start(layout)
    leaf = nn.Parameter(layout.theta0.clone())
    optimizer = torch.optim.AdamW([leaf], lr=1.0, weight_decay=0.3)
    for step in range(25):
        gradient, rate = torch.randn(17, dtype=torch.float64), 0.01 * (step + 1)
        optimizer.param_groups[0]["lr"] = rate
        leaf.grad = gradient.clone()
        optimizer.step()
        adamw_step(state, gradient, layout.theta0, rate, 0.3)
    torch.testing.assert_close(layout.theta0 + state.tau, leaf.detach(), rtol=1e-12, atol=1e-12)


def test_decay_alone_pulls_theta_and_not_tau_to_zero():
    layout = Layout({"w": torch.full((3,), 2.0, dtype=torch.float64)})
    state = State.start(layout)
    adamw_step(state, torch.zeros(3, dtype=torch.float64), layout.theta0, 0.1, 0.5)
    torch.testing.assert_close(state.tau, torch.full((3,), -0.1, dtype=torch.float64))


def test_layout_joins_what_it_splits():
    encoder = fake_encoder()
    layout = Layout(encoder.theta0)
    parts = layout.split(layout.theta0)
    assert list(parts) == list(encoder.theta0)
    assert all(torch.equal(parts[key], encoder.theta0[key]) for key in parts)
    assert torch.equal(layout.join(parts), layout.theta0)


def test_loss_equals_its_formula():
    z, head = torch.randn(6, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    labels = torch.tensor([0, 3, 2, 1, 1, 0])
    expected = 0.0
    for n in range(6):
        logits = [7 * float(z[n] @ row) / float(z[n].norm()) for row in head]
        expected -= logits[labels[n]] - math.log(sum(math.exp(v) for v in logits))
    assert float(head_loss(z, head, 7.0, labels)) == pytest.approx(expected / 6, rel=1e-12)


# --------------------------------------------------------------------------- the loop, by a twin


def twin(encoder, mode, recipe):
    """The paper's way: theta is the leaf, torch's optimizer and clipping, backward through jvp."""
    theta = {key: nn.Parameter(value.clone()) for key, value in encoder.theta0.items()}
    optimizer = torch.optim.AdamW(theta.values(), lr=1.0, weight_decay=recipe.weight_decay)
    head = encoder.head(TASK)
    for step in range(recipe.steps):
        index = batch_indices(recipe.seed, step, len(TRAIN.labels), recipe.batch)
        x, y = encoder.preprocess(TRAIN.images[index]), TRAIN.labels[index]

        def f(params, x=x):
            return functional_call(encoder.tower, params, (x,))

        if mode == "linear":
            change = {key: theta[key] - encoder.theta0[key] for key in theta}
            z0, jz = jvp(f, (encoder.theta0,), (change,))
            z = z0 + jz
        else:
            z = f(theta)
        logits = encoder.logit_scale * F.normalize(z, dim=1) @ head.T
        optimizer.zero_grad()
        F.cross_entropy(logits, y).backward()
        nn.utils.clip_grad_norm_(theta.values(), recipe.clip)
        optimizer.param_groups[0]["lr"] = rate_at(step, recipe)
        optimizer.step()
    return {key: (theta[key] - encoder.theta0[key]).detach() for key in theta}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_loop_equals_the_papers_own_way(mode, accumulate):
    encoder = fake_encoder(dtype=torch.float64)
    recipe = replace(SHORT, accumulate=accumulate, clip=5.0)
    expected = twin(encoder, mode, recipe)
    got = finetune(encoder, TASK, TRAIN, VALIDATION, mode, recipe)
    norms = [entry["grad_norm"] for entry in got.log]
    assert min(norms) < 5.0 < max(norms)  # some steps are clipped, some are not
    # Adam divides by the root of tiny squares, which amplifies rounding
    torch.testing.assert_close(got.tau, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_it_learns_and_says_how(mode):
    encoder = fake_encoder()
    before = {key: value.clone() for key, value in encoder.theta0.items()}
    recipe = replace(SHORT, steps=120, batch=32)
    seen = []
    got = finetune(encoder, TASK, TRAIN, VALIDATION, mode, recipe, lambda *args: seen.append(args))
    assert [entry["step"] for entry in got.log] == list(range(2, 121, 2))
    assert [args[0] for args in seen] == list(range(1, 121))
    assert [args[2] for args in seen if args[2] is not None] == got.log
    validated = [entry["step"] for entry in got.log if "validation" in entry]
    assert validated == [30, 60, 90, 120]
    assert got.log[-1]["loss"] < 0.3 * got.log[0]["loss"]
    assert got.validation == got.log[-1]["validation"] > 0.9
    assert [e["seconds"] for e in got.log] == sorted(e["seconds"] for e in got.log)
    assert all(torch.equal(encoder.theta0[key], before[key]) for key in before)
    assert all(value.dtype == torch.float32 for value in got.tau.values())


@pytest.mark.parametrize("mode", MODES)
def test_validation_accuracy_is_that_of_the_mode_image_by_image(mode):
    encoder = fake_encoder(dtype=torch.float64)
    got = finetune(encoder, TASK, TRAIN, VALIDATION, mode, replace(SHORT, steps=8))
    head, right = encoder.head(TASK), 0
    for n in range(len(VALIDATION.labels)):
        x = encoder.preprocess(VALIDATION.images[n : n + 1])

        def f(theta, x=x):
            return encoder.features(theta, x)

        if mode == "linear":
            z = sum(jvp(f, (encoder.theta0,), (got.tau,)))
        else:
            z = f({key: encoder.theta0[key] + got.tau[key] for key in got.tau})
        scores = [float(z[0] @ row) for row in head]
        right += scores.index(max(scores)) == int(VALIDATION.labels[n])
    assert got.validation == right / len(VALIDATION.labels)


def test_seed_decides_and_nothing_else_does():
    encoder, recipe = fake_encoder(), replace(SHORT, augment="shift")
    torch.manual_seed(1)
    one = finetune(encoder, TASK, TRAIN, VALIDATION, "nonlinear", recipe)
    torch.manual_seed(2)
    assert_same_bits(one, finetune(encoder, TASK, TRAIN, VALIDATION, "nonlinear", recipe))
    for change in ({"seed": 1}, {"augment": "none"}):
        other = finetune(encoder, TASK, TRAIN, VALIDATION, "nonlinear", replace(recipe, **change))
        assert any(not torch.equal(one.tau[key], other.tau[key]) for key in one.tau)


def test_bfloat16_changes_the_passes_and_not_what_is_kept():
    encoder = fake_encoder()
    full, half = (
        finetune(encoder, TASK, TRAIN, VALIDATION, "nonlinear", replace(SHORT, precision=p))
        for p in ("float32", "bfloat16")
    )
    assert all(value.dtype == torch.float32 for value in half.tau.values())
    distance = sum(float((full.tau[k] - half.tau[k]).square().sum()) for k in full.tau) ** 0.5
    length = sum(float(value.square().sum()) for value in full.tau.values()) ** 0.5
    assert 0 < distance < 0.5 * length


# ------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stop", [1, 7, 13])
def test_stopped_and_resumed_is_uninterrupted_to_the_bit(mode, stop):
    encoder, memory = fake_encoder(), Memory()
    recipe = replace(SHORT, augment="shift", accumulate=2)
    arguments = (encoder, TASK, TRAIN, VALIDATION, mode, recipe)
    whole = finetune(*arguments)
    with pytest.raises(Stopped):
        finetune(*arguments, stop_at(stop), memory.save, memory.load)
    ((_, meta),) = memory.states.values()
    assert meta["step"] == stop
    steps = []
    resumed = finetune(*arguments, lambda done, *_: steps.append(done), memory.save, memory.load)
    assert steps == list(range(stop + 1, 21))
    assert_same_bits(whole, resumed)
    # the state found is not changed by going on from it
    memory.states = {state_name(*arguments): memory.states[state_name(*arguments)]}
    assert_same_bits(whole, finetune(*arguments, None, None, memory.load))


CHILD = """
import sys, torch
torch.set_num_threads(1)
from engine.finetune import finetune
from engine.store import Store
from tests.test_finetune import SHORT, TASK, TRAIN, VALIDATION
from tests.fake_encoder import fake_encoder
from pathlib import Path

store = Store(Path(sys.argv[1]))

def progress(done, steps, entry):
    if done == 15:
        print("at 15", flush=True)
        sys.stdin.read()  # until killed

finetune(fake_encoder(), TASK, TRAIN, VALIDATION, "linear", SHORT,
         progress, store.save_state, store.load_state)
"""


def test_killed_process_resumes_to_the_bit(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdout.readline() == "at 15\n"
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        store = Store(tmp_path)
        arguments = (fake_encoder(), TASK, TRAIN, VALIDATION, "linear", SHORT)
        _, meta = store.load_state(state_name(*arguments))
        assert meta["step"] == 12  # the last multiple of checkpoint_every
        steps = []
        resumed = finetune(
            *arguments, lambda done, *_: steps.append(done), store.save_state, store.load_state
        )
        assert steps[0] == 13
        assert_same_bits(finetune(*arguments), resumed)
        store.drop_state(state_name(*arguments))
        assert store.load_state(state_name(*arguments)) is None
    finally:
        torch.set_num_threads(threads)


def test_every_difference_that_matters_names_another_state():
    encoder = fake_encoder()
    base = [encoder, TASK, TRAIN, VALIDATION, "linear", SHORT]
    variants = {
        0: [replace(encoder, digest="other")],
        1: [replace(TASK, templates=("the {}",)), replace(TASK, name="b")],
        2: [fake_split(TASK, "train", 51)],
        3: [fake_split(TASK, "validation", 41)],
        4: ["nonlinear"],
        5: [replace(SHORT, **change) for change in ({"seed": 1}, {"rate": 1e-4}, {"steps": 21})],
    }
    names = {state_name(*base)}
    for place, others in variants.items():
        for other in others:
            names.add(state_name(*base[:place], other, *base[place + 1 :]))
    assert len(names) == 1 + sum(map(len, variants.values()))
    rarer = replace(SHORT, checkpoint_every=7)  # changes no number
    assert state_name(*base[:5], rarer) == state_name(*base)


@pytest.mark.parametrize("damage", ["identity", "shape", "lost", "format", "step"])
def test_state_of_another_run_is_refused(damage):
    memory, arguments = Memory(), (fake_encoder(), TASK, TRAIN, VALIDATION, "linear", SHORT)
    with pytest.raises(Stopped):
        finetune(*arguments, stop_at(3), memory.save, memory.load)
    ((tensors, meta),) = memory.states.values()
    if damage == "identity":
        meta["identity"]["train"] = "another split"
    elif damage == "shape":
        tensors["first"] = tensors["first"][:-1]
    elif damage == "lost":
        del tensors["second"]
    else:
        meta[damage] = 99
    with pytest.raises(CheckpointError, match="delete it to train from the start"):
        finetune(*arguments, None, memory.save, memory.load)


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("mode", MODES)
def test_loss_that_is_not_finite_stops_with_the_step(mode):
    encoder = fake_encoder()
    encoder.theta0["0.bias"][0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"not finite at step 1 of 20 \(loss nan\)"):
        finetune(encoder, TASK, TRAIN, VALIDATION, mode, SHORT)


def test_splits_that_do_not_fit_the_head_are_refused():
    encoder = fake_encoder()
    few = replace(TASK, classnames=("disc", "square"))
    with pytest.raises(UsageError, match="train split of shapes has labels outside its 2 classes"):
        finetune(encoder, few, TRAIN, VALIDATION, "linear", SHORT)
    empty = replace(VALIDATION, images=VALIDATION.images[:0], labels=VALIDATION.labels[:0])
    with pytest.raises(UsageError, match="validation split of shapes is empty"):
        finetune(encoder, TASK, TRAIN, empty, "linear", SHORT)


# ------------------------------------------------------------------------- the real architecture


def miniature():
    """The miniature's architecture with random weights and its real heads."""
    from engine.encoders.miniature import CONFIG, tokenizer
    from engine.encoders.towers import build_model, make_encoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(CONFIG)
    return make_encoder("miniature-random", model, CONFIG, tokenizer(CONFIG))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_miniatures_architecture_learns_in_both_modes(mode):
    encoder = miniature()
    task = replace(TASK, name="colours", classnames=("red", "green", "blue"))
    splits = {}
    for name, n in (("train", 96), ("validation", 48)):
        small = fake_split(TASK, name, n)
        images = small.images.repeat_interleave(4, 2).repeat_interleave(4, 3)
        splits[name] = replace(small, images=images)
    recipe = recipe_for("miniature", mode, steps=30, batch=32)
    got = finetune(encoder, task, splits["train"], splits["validation"], mode, recipe)
    assert got.tau.keys() == encoder.theta0.keys()
    assert all(bool(value.any()) for value in got.tau.values())
    assert got.log[-1]["loss"] < 0.7 * got.log[0]["loss"]
    assert got.validation > 0.6


@pytest.mark.slow
def test_a_linear_step_of_the_miniature_equals_backward_through_the_jvp():
    from engine import linearize
    from engine.encoders import plain_attention

    encoder = miniature().to("cpu", torch.float64)
    tau = fake_taus(encoder, ["t"], scale=0.01)["t"]
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    head, labels = torch.randn(5, 64, dtype=torch.float64), torch.tensor([0, 4, 2, 1])
    value, gradient = linearize.linear_gradient(
        encoder.features, encoder.theta0, tau, x, lambda z: head_loss(z, head, 10.0, labels)
    )
    leaves = {key: entry.clone().requires_grad_() for key, entry in tau.items()}
    with plain_attention():
        z0, jz = jvp(lambda theta: encoder.features(theta, x), (encoder.theta0,), (leaves,))
    loss = head_loss(z0 + jz, head, 10.0, labels)
    expected = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    torch.testing.assert_close(value, loss.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)
