"""Encoders: their functions, heads, files, names and errors."""

import copy
import threading
from dataclasses import dataclass

import open_clip
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from engine.encoders import encoder_names, load_encoder, plain_attention, random_initialisation
from engine.encoders import towers as towers_module
from engine.encoders.attention import SelfAttention, swap_attention
from engine.encoders.drawing import first_values
from engine.encoders.miniature import CONFIG, rounded
from engine.encoders.towers import build_model, make_encoder
from engine.errors import (
    CheckpointError,
    EngineError,
    MissingDataError,
    NonFiniteError,
    ParameterMismatchError,
    UsageError,
)
from tests.tiny_clip import CONFIG as TINY
from tests.tiny_clip import tiny_encoder, tiny_weights


@dataclass(frozen=True)
class Words:
    classnames: tuple = ("seven", "green arrow")
    templates: tuple = ("a photo of a {}.", "the {}", "{}, from above")


@pytest.fixture(scope="module")
def tiny():
    return tiny_encoder()


@pytest.fixture
def stored(store):
    """A store with an untrained encoder in the miniature's place."""
    state = rounded(build_model(CONFIG, 3).state_dict())
    store.put("encoder", state, {"name": "miniature", "config": CONFIG})
    twin = {"name": "miniature-random", "config": CONFIG, "text": "miniature", "seed": 0}
    store.put("encoder", random_initialisation(0), twin)
    return store


def _images(n, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def test_features_equal_open_clips_own_tower(stored):
    encoder = load_encoder("miniature", stored)
    model = build_model(CONFIG, 3)
    model.load_state_dict({k: v.float() for k, v in rounded(model.state_dict()).items()})
    x = encoder.preprocess(_images(5, 32))
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.features(encoder.theta0, x), model.encode_image(x), rtol=1e-5, atol=1e-5
        )
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert set(encoder.theta0) == {
        k.removeprefix("visual.") for k, _ in model.named_parameters() if k.startswith("visual.")
    }


@pytest.mark.parametrize("plain", [False, True])
def test_attention_equals_torchs_in_float64(plain):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours, x = SelfAttention(theirs), torch.randn(4, 5, 12, dtype=torch.float64)
    assert dict(ours.named_parameters()).keys() == dict(theirs.named_parameters()).keys()
    mask = torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)
    for given in (None, mask):
        expected = theirs(x, x, x, need_weights=False, attn_mask=given)[0]
        if plain:
            with plain_attention():
                got = ours(x, x, x, need_weights=False, attn_mask=given)[0]
        else:
            got = ours(x, x, x, need_weights=False, attn_mask=given)[0]
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="self-attention"):
        ours(x, x.clone(), x)


def test_plain_attention_holds_in_its_own_thread_only(monkeypatch):
    fused = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(
        "engine.encoders.attention.F.scaled_dot_product_attention",
        lambda *args, **kwargs: fused.append(threading.get_ident()) or kernel(*args, **kwargs),
    )
    ours = SelfAttention(nn.MultiheadAttention(4, 2, batch_first=True))
    x = torch.randn(1, 3, 4)
    with plain_attention():
        ours(x, x, x)
        other = threading.Thread(target=lambda: ours(x, x, x))
        other.start()
        other.join()
    assert fused == [other.ident]
    ours(x, x, x)
    assert len(fused) == 2


@pytest.mark.parametrize(
    "attention",
    [
        nn.MultiheadAttention(4, 2),
        nn.MultiheadAttention(4, 2, kdim=6, batch_first=True),
        open_clip.transformer.Attention(4, 2),
    ],
)
def test_attention_that_cannot_be_linearized_is_refused(attention):
    with pytest.raises(UsageError, match="cannot be linearized"):
        swap_attention(nn.Sequential(attention))


def test_features_are_a_function_of_theta(tiny):
    x = tiny.preprocess(_images(2, 16))
    moved = {k: v + 0.1 for k, v in tiny.theta0.items()}
    before = tiny.features(tiny.theta0, x)
    assert not torch.equal(tiny.features(moved, x), before)
    assert torch.equal(tiny.features(tiny.theta0, x), before)
    assert not torch.allclose(before.norm(dim=-1), torch.ones(2))  # not normalised
    leaves = {k: v.clone().requires_grad_() for k, v in tiny.theta0.items()}
    grads = torch.autograd.grad(tiny.features(leaves, x).sum(), list(leaves.values()))
    assert all(float(g.norm()) > 0 for g in grads)
    moved.pop("proj")
    with pytest.raises(ParameterMismatchError, match="1 missing .proj"):
        tiny.features(moved, x)


def test_preprocess_by_hand(tiny):
    images = _images(2, 16)
    x = tiny.preprocess(images)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    for channel in range(3):
        expected = (images[1, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(x[1, channel].double(), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ParameterMismatchError, match="28 x 28 .* reads 16 x 16"):
        tiny.preprocess(_images(1, 28))
    with pytest.raises(ValueError, match="expected uint8"):
        tiny.preprocess(images.float())


def test_head_is_open_clips_template_ensemble(tiny):
    task, model = Words(), build_model(TINY, 0)
    tokens = open_clip.SimpleTokenizer(context_length=12)
    with torch.no_grad():
        rows = []
        for name in task.classnames:
            each = [model.encode_text(tokens([t.format(name)]))[0] for t in task.templates]
            mean = sum(e / e.norm() for e in each) / len(each)
            rows.append(mean / mean.norm())
    head = tiny.head(task)
    torch.testing.assert_close(head, torch.stack(rows), rtol=1e-5, atol=1e-6)
    assert tiny.to("cpu", torch.float64).head(task).dtype == torch.float64
    x = tiny.preprocess(_images(3, 16))
    z = tiny.features(tiny.theta0, x)
    expected = tiny.logit_scale * (z / z.norm(dim=-1, keepdim=True)) @ head.T
    torch.testing.assert_close(tiny.logits(tiny.theta0, x, head), expected)


def test_head_outlives_the_text_tower():
    encoder = tiny_encoder()
    head = encoder.head(Words())
    encoder.free_text()
    assert torch.equal(encoder.head(Words()), head)
    with pytest.raises(MissingDataError, match="text tower was freed"):
        encoder.head(Words(classnames=("eight",)))


@pytest.mark.parametrize("task", [Words(classnames=()), Words(templates=("a photo",))])
def test_a_task_without_words_has_no_head(tiny, task):
    with pytest.raises(UsageError, match="class names and templates"):
        tiny.head(task)


def test_digest_follows_every_weight_and_no_device(tiny):
    assert tiny_encoder(0).digest == tiny.digest == tiny.to("cpu", torch.float64).digest
    assert tiny_encoder(1).digest != tiny.digest
    for name in ("visual.proj", "text_projection", "logit_scale"):
        model = build_model(TINY, 0)
        with torch.no_grad():
            model.get_parameter(name).add_(1e-3)
        assert make_encoder("tiny", model, TINY, None).digest != tiny.digest
    other = {**TINY, "quick_gelu": True}  # the same weights in another function
    assert make_encoder("tiny", build_model(other, 0), other, None).digest != tiny.digest


def test_building_leaves_torchs_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tiny_encoder()
    assert torch.equal(torch.rand(3), expected)


def test_the_twin_shares_the_frozen_heads(stored):
    trained, twin = (load_encoder(n, stored) for n in ("miniature", "miniature-random"))
    assert torch.equal(trained.head(Words()), twin.head(Words()))
    assert trained.logit_scale == twin.logit_scale
    assert trained.theta0.keys() == twin.theta0.keys()
    assert not torch.equal(trained.theta0["proj"], twin.theta0["proj"])
    drawn = random_initialisation(0)
    assert torch.equal(twin.theta0["proj"], drawn["visual.proj"].float())
    assert drawn["visual.proj"].dtype == torch.float16
    assert not torch.equal(random_initialisation(1)["visual.proj"], drawn["visual.proj"])
    assert encoder_names(stored) == ["miniature", "miniature-random"]


def test_the_stored_miniature_stays_small(stored):
    assert stored.one("encoder", "", name="miniature").size < 12e6


def test_another_stored_encoder_is_found_by_its_name(store):
    store.put("encoder", tiny_weights(2), {"name": "tiny", "config": TINY})
    assert encoder_names(store) == ["tiny"]
    encoder = load_encoder("tiny", store)
    assert (encoder.name, encoder.embed_dim, encoder.image_size) == ("tiny", 8, 16)


def test_missing_and_foreign_entries_say_so(store):
    with pytest.raises(MissingDataError, match="python -m engine pretrain"):
        load_encoder("miniature", store)
    with pytest.raises(UsageError, match="no encoder is called 'giant'"):
        load_encoder("giant", store)
    store.put("encoder", tiny_weights(), {"name": "miniature"})
    with pytest.raises(CheckpointError, match="does not say its configuration"):
        load_encoder("miniature", store)
    store.put("encoder", tiny_weights(), {"name": "other", "config": CONFIG})
    with pytest.raises(ParameterMismatchError, match="stored encoder other .*of another shape"):
        load_encoder("other", store)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-23:random", "did you mean ViT-B-32"),
        ("ViT-B-32-quickgelu:random:x", "random or random:NUMBER"),
        ("ViT-B-32:nosuchtag", "no published weights called 'nosuchtag'"),
        ("coca_ViT-B-32:random", "text tower that is not supported"),
        ("ViT-B-32:openai", "QuickGELU mismatch.*choose ViT-B-32-quickgelu:openai"),
        ("ViT-B-32-quickgelu:laion2b_s34b_b79k", "no published weights|QuickGELU mismatch"),
    ],
)
def test_names_that_mean_nothing_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        load_encoder(name, store=None)


def test_weights_out_of_reach_say_what_to_run(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(towers_module, "download_pretrained", offline)
    with pytest.raises(MissingDataError, match="create_model.'ViT-B-32-quickgelu', 'openai'"):
        load_encoder("ViT-B-32-quickgelu:openai", store=None)


@pytest.fixture
def small_architecture(monkeypatch):
    """The tiny configuration under a name of open_clip's."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)
    return "tiny"


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "bin"])
def test_a_weight_file_is_the_encoder(tmp_path, small_architecture, suffix):
    path, weights = tmp_path / f"weights.{suffix}", build_model(TINY, 5).state_dict()
    if suffix == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:  # as open_clip's own training writes it
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, path)
    encoder = load_encoder(f"{small_architecture}:{path}", store=None)
    assert torch.equal(encoder.theta0["proj"], weights["visual.proj"])
    assert encoder.digest == make_encoder("x", build_model(TINY, 5), TINY, None).digest
    drawn = load_encoder(f"{small_architecture}:random:5", store=None)
    assert drawn.digest == encoder.digest
    assert load_encoder(f"{small_architecture}:random", store=None).digest != encoder.digest


class Hostile:
    def __reduce__(self):
        return (print, ("code of a weight file ran",))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", CheckpointError),
        (b"not a checkpoint at all", CheckpointError),
        (Hostile(), CheckpointError),
        ({"state_dict": {}}, CheckpointError),
        ({"a": torch.ones(2), "b": "text"}, CheckpointError),
        ([torch.ones(2)], CheckpointError),
        ({"a": torch.ones(2)}, ParameterMismatchError),
        (tiny_weights() | {"visual.proj": torch.zeros(16, 9)}, ParameterMismatchError),
        (tiny_weights() | {"visual.proj": torch.full((16, 8), torch.nan)}, NonFiniteError),
    ],
)
def test_hostile_weight_files(tmp_path, small_architecture, content, error, capsys):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(error):
        load_encoder(f"{small_architecture}:{path}", store=None)
    assert "code of a weight file ran" not in capsys.readouterr().out


def test_truncated_safetensors_and_absent_files(tmp_path, small_architecture):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(tiny_weights(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EngineError):
        load_encoder(f"{small_architecture}:{path}", store=None)
    with pytest.raises(MissingDataError, match="no weight file"):
        load_encoder(f"{small_architecture}:{tmp_path / 'absent.pt'}", store=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-32-quickgelu",
        "ViT-B-16-quickgelu",
        "ViT-L-14-quickgelu",
        "ViT-B-32",
        "convnext_base_w",
    ],
)
def test_real_towers_equal_open_clips(name, monkeypatch):
    if name != "ViT-B-32-quickgelu":  # the others differ from it in what two layers show
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, _shallow(name))
    encoder = load_encoder(f"{name}:random:4", store=None)
    model = build_model(towers_module.architecture_config(name), 4)
    x = encoder.preprocess(_images(2, encoder.image_size))
    with torch.no_grad():
        expected = model.encode_image(x)
        got = encoder.features(encoder.theta0, x)
        assert float((got - expected).norm() / expected.norm()) < 1e-5
        if name == "ViT-B-32-quickgelu":
            wide, model = encoder.to("cpu", torch.float64), model.double()
            got = wide.features(wide.theta0, x.double())
            torch.testing.assert_close(got, model.encode_image(x.double()), rtol=0, atol=1e-10)
            assert len(wide.theta0) == 152
    assert encoder.head(Words()).shape == (2, encoder.embed_dim)


def _shallow(name):
    """An architecture with two layers in either tower; a ConvNeXt as it is."""
    config = copy.deepcopy(open_clip.get_model_config(name))
    for tower in ("vision_cfg", "text_cfg"):
        if "layers" in config[tower]:
            config[tower]["layers"] = 2
    return config


@pytest.mark.gpu
def test_on_an_accelerator():
    device = "cuda" if torch.cuda.is_available() else "mps"
    encoder = tiny_encoder()
    there = encoder.to(device)
    images = _images(3, 16)
    got = there.features(there.theta0, there.preprocess(images)).cpu()
    expected = encoder.features(encoder.theta0, encoder.preprocess(images))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert there.head(Words()).device.type == device


def test_weights_that_follow_are_not_drawn_first():
    before = torch.get_rng_state()
    with first_values(None):
        tensor = torch.zeros(3, 4)
        nn.init.trunc_normal_(nn.init.normal_(nn.init.kaiming_uniform_(tensor)))
        tensor.normal_().uniform_()
    assert not tensor.any()
    assert torch.equal(torch.get_rng_state(), before)
    drawn, empty = build_model(TINY, 3), build_model(TINY, None)
    empty.load_state_dict(drawn.state_dict())
    whole, filled = (dict(m.named_buffers()) | m.state_dict() for m in (drawn, empty))
    assert whole.keys() == filled.keys()
    assert all(torch.equal(whole[key], filled[key]) for key in whole)
