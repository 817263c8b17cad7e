"""Encoders without a text tower: timm's trunks, heads trained once and frozen, the whole chain."""

import json
import math

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F

from engine.__main__ import main
from engine.encoders import load_encoder
from engine.encoders.probing import PENALTIES, WHAT, choose_head, fit_head
from engine.errors import CheckpointError, MissingDataError, ParameterMismatchError, UsageError
from engine.remembering import head_digest
from engine.tasks import load_task
from tests.test_tasks import COLOURS, write_images

NAME = "timm/test_vit:random"


@pytest.fixture(scope="module")
def trunk():
    return load_encoder(NAME, None)


def images(n, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture
def cars(tmp_path):
    for part, count in (("train", 10), ("test", 4)):
        write_images(tmp_path / "cars" / part, dict.fromkeys(COLOURS, count))
    return tmp_path / "cars"


# the trunk


@pytest.mark.parametrize("architecture", ["test_vit", "test_convnext"])
def test_features_are_timms_pooled_ones(architecture):
    encoder = load_encoder(f"timm/{architecture}:random:3", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = timm.create_model(architecture, num_classes=0).eval()
    x = encoder.preprocess(images(2, 160))
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.features(encoder.theta0, x), model(x), rtol=1e-5, atol=1e-5
        )
    assert encoder.theta0.keys() == dict(model.named_parameters()).keys()
    assert (encoder.embed_dim, encoder.image_size) == (64, 160)
    torch.testing.assert_close(x, images(2, 160) / 127.5 - 1)  # mean and deviation 0.5
    assert load_encoder(f"timm/{architecture}:random:4", None).digest != encoder.digest


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_weight_file_may_hold_the_classifier_too(tmp_path, suffix):
    model = timm.create_model("test_vit", num_classes=7)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    encoder = load_encoder(f"timm/test_vit:{path}", None)
    assert torch.equal(encoder.theta0["cls_token"], model.cls_token)
    with pytest.raises(ParameterMismatchError, match="does not fit this encoder"):
        load_encoder(f"timm/test_convnext:{path}", None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "timm/vit_bas_patch16:random",
            "timm has no model 'vit_bas_patch16'; did you mean .*vit_base",
        ),
        ("timm/test_resnet:random", "test_resnet is a ResNet; choose a vision transformer or"),
        ("timm/test_vit:random:x", "names no seed"),
        ("timm/test_vit:nosuchtag", "no published weights called 'nosuchtag'; choose random"),
    ],
)
def test_names_that_mean_nothing_are_refused(name, said):
    with pytest.raises(UsageError, match=said):
        load_encoder(name, None)


def test_weights_out_of_reach_say_what_to_run(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return create(name, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        MissingDataError, match="create_model.'test_vit.r160_in1k', pretrained=True"
    ):
        load_encoder("timm/test_vit:r160_in1k", None)


# heads


def blobs(n, seed, classes=3, d=5):
    """Features in directions of their own, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(9))
    return centres[labels] + 0.4 * torch.randn(n, d, generator=generator), labels


def test_a_head_is_where_the_penalised_loss_is_flat():
    z, labels = blobs(60, 0)
    scale, penalty = 4.0, 1e-2
    head = fit_head(z, labels, 3, scale, penalty).double().requires_grad_()
    unit = z.double() / z.double().norm(dim=1, keepdim=True)
    loss = 0.0  # the slow twin: image by image, exponentials and all
    for row, label in zip(unit, labels.tolist(), strict=True):
        logits = [scale * (row * h).sum() for h in head]
        total = sum(logit.exp() for logit in logits)
        loss = loss - (logits[label].exp() / total).log() / len(labels)
    loss = loss + penalty / 2 * (scale * head).square().sum()
    (gradient,) = torch.autograd.grad(loss, head)
    assert float(gradient.norm()) < 1e-4
    worse = fit_head(z, labels, 3, scale, 1e-1)
    assert worse.norm() < head.detach().norm()


def test_the_penalty_is_chosen_on_validation():
    head, penalty, accuracy = choose_head(blobs(60, 0), blobs(40, 1), 3, 4.0)
    z, labels = blobs(40, 1)
    assert float((F.normalize(z, dim=1) @ head.T).argmax(1).eq(labels).double().mean()) == accuracy
    assert penalty in PENALTIES
    assert accuracy > 0.8


def test_a_missing_head_names_the_command(store, cars):
    task, encoder = load_task(str(cars)), load_encoder(NAME, store)
    with pytest.raises(MissingDataError, match=f"engine heads --encoder {NAME} --tasks {cars}"):
        encoder.head(task)
    encoder.free_text()


def test_a_head_belongs_to_its_encoder_task_and_classes(store, cars):
    task, encoder = load_task(str(cars)), load_encoder(NAME, store)
    about = {
        "what": WHAT,
        "encoder_digest": encoder.digest,
        "task": task.name,
        "task_source": task.source,
        "classnames": list(task.classnames),
    }
    first = torch.randn(3, 64)
    store.put("result", {"head": first}, about)
    assert torch.equal(encoder.head(task), first)
    before = head_digest(encoder, task)
    store.put("result", {"head": first + 1}, about)
    assert torch.equal(encoder.head(task), first + 1)  # the newest
    assert head_digest(encoder, task) != before  # so that nothing kept for the other is taken
    assert load_encoder(NAME, store).to("cpu", torch.float64).head(task).dtype == torch.float64
    with pytest.raises(MissingDataError, match="no trained head of cars"):
        load_encoder("timm/test_vit:random:8", store).head(task)
    store.put("result", {"head": first}, {**about, "classnames": ["a", "b"]})
    with pytest.raises(CheckpointError, match="trained for other classes; train it again with"):
        encoder.head(task)


@pytest.mark.slow
def test_the_whole_chain_of_a_closed_vocabulary(cars, tmp_path, capsys):
    def ask(*words):
        code = main([*words, "--encoder", NAME, "--cache", str(tmp_path / "cache"), "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    for folder, colours in (("birds", ("red_car", "green_car")), ("fish", ("BlueCar", "red_car"))):
        for part, count in (("train", 10), ("test", 4)):
            write_images(tmp_path / folder / part, dict.fromkeys(colours, count))
    tasks = ["--tasks", str(tmp_path / "birds"), str(tmp_path / "fish")]
    (one, _) = ask("heads", *tasks)["heads"]
    assert one["accuracy"]["train"] == 1.0
    assert ask("heads", *tasks)["heads"][0]["skipped"]
    for mode in ("nonlinear", "linear"):
        made = ask(
            "finetune", *tasks, "--mode", mode, "--steps", "2", "--batch", "4", "--rate", "1e-4"
        )
        assert all(math.isfinite(row["accuracy"]["test"]) for row in made["checkpoints"])
    for mode in ("nonlinear", "posthoc", "linear"):
        answer = ask("addition", *tasks, "--mode", mode)
        assert answer["n"] == {"birds": 8, "fish": 8}
    answer = ask("disentanglement", *tasks, "--mode", "posthoc", "--grid", "3")
    assert answer["xi"][1][1] == 0


def test_an_encoder_with_a_text_tower_needs_no_heads(capsys):
    assert main(["heads", "--encoder", "miniature", "--tasks", "signs"]) == 2
    assert "miniature has a text tower, which makes its heads" in capsys.readouterr().err
