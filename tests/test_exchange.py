"""Checkpoints users bring: every kind in its own layout, mapped by name to the same task vector."""

import json
import math
import sys

import open_clip
import pytest
import torch
import transformers
from brought_files import (
    linear_checkpoint,
    lora_config,
    lora_factors,
    lora_folder,
    pickled_module,
    save,
    tower,
    tuned,
    vision_config,
    vision_folder,
    vision_names,
)
from tiny_clip import CONFIG, tiny_encoder

from engine.encoders.towers import build_model
from engine.errors import CheckpointError, ParameterMismatchError, UsageError
from engine.exchange import bring, indexed
from engine.exchange.huggingface import from_huggingface, to_huggingface


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch):
    """The tiny CLIP has two blocks where the model it is named after has twelve."""
    monkeypatch.setitem(indexed.BLOCKS, "ViT-B-32", 2)


def expected_tau(encoder, model) -> dict:
    return {name: value - encoder.theta0[name] for name, value in tower(model).items()}


def check_tau(got: dict, expected: dict) -> None:
    assert list(got) == list(expected)
    assert {value.dtype for value in got.values()} == {torch.float32}
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=0)


# ------------------------------------------------------------------------------- the four kinds


@pytest.mark.parametrize("classifier", [False, True])
def test_a_pickled_module_yields_its_tensors(encoder, tmp_path, classifier):
    model = tuned()
    path = pickled_module(tmp_path / "finetuned.pt", model, classifier)
    brought = bring(path, encoder)
    check_tau(brought.tau, expected_tau(encoder, model))
    assert brought.mode == "nonlinear"
    assert brought.origin["kind"] == "module"
    assert brought.origin["file"] == "finetuned.pt"
    assert len(brought.origin["sha256"]) == 64
    assert "src.modeling" not in sys.modules
    with pytest.raises(Exception, match="weights_only"):  # what torch's own safe loader says
        torch.load(path, weights_only=True)


def test_a_zeroshot_file_gives_theta0(encoder, tmp_path):
    model = tuned()
    # pre-trained weights that went through float16: not to the bit the encoder's
    start = {k: v.half().float() for k, v in build_model(CONFIG, 0).state_dict().items()}
    begun = tuned(scale=0.0, start=start)
    zeroshot = pickled_module(tmp_path / "zeroshot.pt", begun)
    brought = bring(pickled_module(tmp_path / "finetuned.pt", model), encoder, zeroshot=zeroshot)
    theta0 = tower(begun)
    check_tau(brought.tau, {name: v - theta0[name] for name, v in tower(model).items()})
    assert brought.origin["theta0"]["file"] == "zeroshot.pt"
    assert 0 < brought.origin["theta0"]["apart"] < 1e-3


def test_a_linear_checkpoint_is_named_by_its_table(encoder, tmp_path):
    model = tuned()
    expected = expected_tau(encoder, model)
    path = linear_checkpoint(tmp_path / "linear_finetuned.pt", model, build_model(CONFIG, 0))
    brought = bring(path, encoder)
    check_tau(brought.tau, expected)
    assert brought.mode == "linear"
    assert brought.origin["kind"] == "indexed"
    assert brought.origin["theta0"] == {"from": "the file itself", "apart": 0.0}


@pytest.mark.parametrize("architecture", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_the_tables_are_open_clip_s_own_order(architecture, monkeypatch):
    monkeypatch.undo()
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(architecture))
    del model.transformer
    named = indexed.names_of(architecture)
    assert list(named) == [name for name, _ in model.named_parameters()]
    visual = [place for place, name in enumerate(named) if name.startswith("visual.")]
    assert visual == list(range(3, 3 + len(visual)))
    if architecture == "ViT-B-32":
        assert (visual[0], visual[-1]) == (3, 154)


@pytest.mark.parametrize("prefix", ["", "vision_model."])
@pytest.mark.parametrize("projected", [False, True])
def test_a_hugging_face_vision_model_is_mapped_by_name(encoder, tmp_path, prefix, projected):
    model = tuned()
    theta = tower(model)
    tensors = vision_names(theta, prefix)
    tensors[f"{prefix}embeddings.position_ids"] = torch.arange(5)[None]
    if projected:
        tensors["visual_projection.weight"] = theta["proj"].T
    brought = bring(vision_folder(tmp_path / "clip-mnist", tensors), encoder)
    expected = expected_tau(encoder, model)
    if not projected:
        expected["proj"] = torch.zeros_like(expected["proj"])
    check_tau(brought.tau, expected)
    assert brought.origin["absent"] == ([] if projected else ["proj"])
    assert brought.origin["file"] == "clip-mnist/model.safetensors"
    # the file alone is the same
    check_tau(bring(tmp_path / "clip-mnist" / "model.safetensors", encoder).tau, brought.tau)


def test_the_names_are_those_of_transformers():
    with torch.device("meta"):
        theirs = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig())
        ours = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu")).visual
    state = {n: v for n, v in theirs.state_dict().items() if not n.endswith("position_ids")}
    theta, beside = from_huggingface(state, "vision model")
    shapes = {name: value.shape for name, value in ours.named_parameters()}
    assert {name: value.shape for name, value in theta.items()} == shapes
    assert beside == []
    assert shapes["positional_embedding"] == (50, 768)
    back = to_huggingface(dict(ours.named_parameters()))
    assert {n: v.shape for n, v in back.items()} == {n: v.shape for n, v in state.items()}


def test_a_whole_clip_of_the_hub_leaves_its_text_tower_out(encoder, tmp_path):
    theta = tower(tuned())
    tensors = vision_names(theta) | {
        "visual_projection.weight": theta["proj"].T,
        "text_model.final_layer_norm.weight": torch.ones(8),
        "text_projection.weight": torch.ones(8, 8),
        "logit_scale": torch.tensor(4.6),
    }
    config = {"model_type": "clip", "vision_config": vision_config()}
    brought = bring(vision_folder(tmp_path / "clip", tensors, config), encoder)
    check_tau(brought.tau, expected_tau(encoder, tuned()))
    assert brought.origin["left_out"] == 3


@pytest.mark.parametrize(
    "layout", ["whole", "tower", "parallel", "half", "safetensors", "bfloat16"]
)
def test_open_clip_state_dicts(encoder, tmp_path, layout):
    model = tuned()
    state = model.state_dict()
    expected = expected_tau(encoder, model)
    path = tmp_path / "epoch_1.pt"
    if layout == "tower":
        state = {name: v for name, v in state.items() if name.startswith("visual.")}
    if layout == "parallel":  # open_clip's own training
        state = {"epoch": 1, "state_dict": {f"module.{name}": v for name, v in state.items()}}
    if layout in {"half", "bfloat16"}:
        dtype = {"half": torch.float16, "bfloat16": torch.bfloat16}[layout]
        state = {name: v.to(dtype) for name, v in state.items()}
        rounded = {name: v.to(dtype).float() for name, v in tower(model).items()}
        expected = {name: v - encoder.theta0[name] for name, v in rounded.items()}
    if layout == "safetensors":
        path = save(tmp_path / "model.safetensors", state)
    else:
        torch.save(state, path)
    brought = bring(path, encoder)
    check_tau(brought.tau, expected)
    assert brought.origin["kind"] == "open_clip"
    torch_said = brought.origin["relative_norm"]
    squares = [sum(float((v**2).sum()) for v in t.values()) for t in (expected, encoder.theta0)]
    assert torch_said == pytest.approx(math.sqrt(squares[0] / squares[1]), rel=1e-5)


def test_strided_and_shared_tensors_are_read_as_torch_reads_them(encoder, tmp_path):
    model = tuned()
    state = {name: v for name, v in model.state_dict().items() if name.startswith("visual.")}
    big = torch.zeros(3, *state["visual.proj"].T.shape)
    big[1] = state["visual.proj"].T
    state["visual.proj"] = big[1].T  # transposed, in the middle of a larger storage
    torch.save(state, tmp_path / "strided.pt")
    check_tau(bring(tmp_path / "strided.pt", encoder).tau, expected_tau(encoder, model))


# ----------------------------------------------------------------------------------------- LoRA


@pytest.mark.parametrize("prefix", ["", "vision_model."])
@pytest.mark.parametrize("rslora", [False, True])
def test_a_lora_adapter_is_its_merged_model_less_the_base(encoder, tmp_path, rslora, prefix):
    factors = lora_factors(prefix=prefix)
    config = lora_config(use_rslora=rslora, fan_in_fan_out=True)
    brought = bring(lora_folder(tmp_path / "lora", factors, config), encoder)
    scale = 8 / (math.sqrt(2) if rslora else 2)
    merged = vision_names(encoder.theta0, prefix)
    for name in list(factors):
        if name.endswith("lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            a, b = factors[name], factors[name.replace("lora_A", "lora_B")]
            # W x + scale B (A x), column by column
            merged[f"{module}.weight"] += scale * torch.stack([b @ column for column in a.T], dim=1)
    whole = bring(vision_folder(tmp_path / "merged", merged), encoder)
    for name, value in whole.tau.items():
        torch.testing.assert_close(brought.tau[name], value, rtol=0, atol=1e-6)
    assert brought.mode == "nonlinear"
    assert bring(tmp_path / "lora", encoder, mode="linear").mode == "linear"


def test_lora_patterns_of_rank_and_alpha(encoder, tmp_path):
    factors = lora_factors()
    base = "base_model.model.vision_model.encoder.layers.0.mlp.fc1"
    factors[f"{base}.lora_A.weight"] = torch.full((4, 16), 0.01)
    factors[f"{base}.lora_B.weight"] = torch.full((64, 4), 0.01)
    config = lora_config(rank_pattern={"layers.0.mlp.fc1": 4}, alpha_pattern={"fc1": 2})
    tau = bring(lora_folder(tmp_path / "lora", factors, config), encoder).tau
    got = tau["transformer.resblocks.0.mlp.c_fc.weight"]
    torch.testing.assert_close(got, torch.full((64, 16), 4 * 1e-4 * 2 / 4))
    assert float(tau["conv1.weight"].abs().max()) == 0
    queries, keys, _ = tau["transformer.resblocks.1.attn.in_proj_weight"].chunk(3)
    assert float(queries.abs().max()) > 0
    assert float(keys.abs().max()) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "another kind than LoRA"),
        ({"use_dora": True}, "uses use_dora"),
        ({"modules_to_save": ["visual_projection"]}, "uses modules_to_save"),
        ({"bias": "lora_only"}, "uses bias"),
        ({"r": 3}, "rank 3"),
        ({"lora_alpha": None}, "lora_alpha None"),
        ({"lora_alpha": float("nan")}, "lora_alpha nan"),
        ({"lora_alpha": 10**400}, "lora_alpha 1000"),
    ],
)
def test_an_adapter_that_is_more_than_lora_is_refused(encoder, tmp_path, changes, said):
    with pytest.raises(CheckpointError, match=said):
        bring(lora_folder(tmp_path / "lora", config=lora_config(**changes)), encoder)


def test_lora_factors_that_do_not_fit_are_refused(encoder, tmp_path):
    def refused(name, factors, config=None):
        with pytest.raises((ParameterMismatchError, CheckpointError)) as error:
            bring(lora_folder(tmp_path / name, factors, config), encoder)
        return str(error.value)

    first = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"
    alone = {name: v for name, v in lora_factors().items() if name != first}
    assert "one factor of two" in refused("alone", alone)
    assert "(2, 9)" in refused("shape", lora_factors() | {first: torch.ones(2, 9)})
    text = {n.replace("vision_model", "text_model"): v for n, v in lora_factors().items()}
    assert "no matrix of this encoder's image tower" in refused("text", text)
    bias = {"base_model.model.vision_model.post_layernorm.bias": torch.ones(16)}
    assert "no LoRA factor" in refused("bias", lora_factors() | bias)
    save(tmp_path / "adapter.safetensors", lora_factors())
    with pytest.raises(CheckpointError, match="without adapter_config.json"):
        bring(tmp_path / "adapter.safetensors", encoder)


# ------------------------------------------------------------------------------- mode and theta0


def test_the_mode_of_a_linear_checkpoint_cannot_be_talked_away(encoder, tmp_path):
    path = linear_checkpoint(tmp_path / "linear.pt", tuned(), build_model(CONFIG, 0))
    with pytest.raises(UsageError, match="was trained linear, and --mode says nonlinear"):
        bring(path, encoder, mode="nonlinear")
    assert bring(path, encoder, mode="linear").mode == "linear"
    with pytest.raises(UsageError, match="brings its own theta_0"):
        bring(path, encoder, zeroshot=path)


def test_another_pre_training_is_refused(encoder, tmp_path):
    other = build_model(CONFIG, 5)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    with pytest.raises(ParameterMismatchError, match="was not fine-tuned from it"):
        bring(tmp_path / "other.pt", encoder)
    path = linear_checkpoint(tmp_path / "linear.pt", tuned(), other)
    with pytest.raises(ParameterMismatchError, match="fine-tuned from other weights"):
        bring(path, encoder)
    torch.save(tuned().state_dict(), tmp_path / "tuned.pt")
    with pytest.raises(ParameterMismatchError, match="fine-tuned from other weights"):
        bring(tmp_path / "tuned.pt", encoder, zeroshot=tmp_path / "other.pt")


def test_the_pre_trained_weights_are_no_task_vector(encoder, tmp_path):
    torch.save(build_model(CONFIG, 0).state_dict(), tmp_path / "zeroshot.pt")
    with pytest.raises(UsageError, match="its task vector is zero"):
        bring(tmp_path / "zeroshot.pt", encoder)


def test_an_activation_that_differs_is_refused(encoder, tmp_path):
    quick = vision_config(hidden_act="quick_gelu")
    folder = vision_folder(tmp_path / "quick", vision_names(tower(tuned())), quick)
    with pytest.raises(CheckpointError, match="computes with quick_gelu"):
        bring(folder, encoder)
    del quick["hidden_act"]  # the default of CLIPVisionConfig
    (folder / "config.json").write_text(json.dumps(quick))
    with pytest.raises(CheckpointError, match="computes with quick_gelu"):
        bring(folder, encoder)
    (folder / "config.json").write_text(json.dumps(vision_config(num_attention_heads=4)))
    with pytest.raises(CheckpointError, match="4 heads"):
        bring(folder, encoder)


def test_a_pickled_module_with_quickgelu_needs_such_an_encoder(encoder, tmp_path):
    model = build_model(CONFIG | {"quick_gelu": True}, 0)
    with torch.no_grad():
        model.visual.proj += 0.01
    path = pickled_module(tmp_path / "finetuned.pt", model)
    with pytest.raises(CheckpointError, match="computes with QuickGELU"):
        bring(path, encoder)
