"""Weight files: OpenAI's layouts, pinned and published digests, damaged encoders in a list."""

import hashlib
import json
import zipfile

import open_clip
import pytest
import torch

from engine.__main__ import main
from engine.encoders import load_encoder, towers
from engine.encoders import published as published_module
from engine.encoders.towers import build_model, published_digests
from engine.errors import CheckpointError, MissingDataError, UsageError
from tests.tiny_clip import CONFIG as TINY
from tests.tiny_clip import tiny_weights

QUICK = {**TINY, "quick_gelu": True}


@pytest.fixture
def architectures(monkeypatch):
    """The tiny configuration with and without QuickGELU, under names of open_clip's."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-quickgelu", QUICK)


def openai_state(seed=5):
    """A state dict as OpenAI's models give it: float16, three numbers beside the weights."""
    state = {key: value.half() for key, value in build_model(QUICK, seed).state_dict().items()}
    numbers = {"input_resolution": 16, "context_length": 12, "vocab_size": 49408}
    return state | {key: torch.tensor(value) for key, value in numbers.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_openais_state_dict_is_read(tmp_path, architectures, prefix):
    path, state = tmp_path / "weights.pt", openai_state()
    torch.save({prefix + key: value for key, value in state.items()}, path)
    encoder = load_encoder(f"tiny-quickgelu:{path}", None)
    assert torch.equal(encoder.theta0["proj"], state["visual.proj"].float())
    assert "input_resolution" not in encoder.theta0
    with pytest.raises(UsageError, match=r"QuickGELU mismatch.*choose tiny-quickgelu:.*weights.pt"):
        load_encoder(f"tiny:{path}", None)


def test_a_torchscript_program_is_refused_with_the_way_to_convert(tmp_path, architectures):
    class Part(torch.nn.Module):
        def forward(self, x):
            return x

    path = tmp_path / "ViT-tiny.pt"
    with zipfile.ZipFile(path, "w") as archive:  # the members by which such a file is known
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"ViT-tiny/{name}", b"")
    with pytest.raises(
        CheckpointError, match=r"TorchScript program.*torch\.jit\.load\('ViT-tiny"
    ) as e:
        load_encoder(f"tiny-quickgelu:{path}", None)
    assert "ViT-tiny-state.pt" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torch_s_own_archives_are_known_as_programs(tmp_path, architectures):
    path = tmp_path / "traced.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    with pytest.raises(CheckpointError, match="TorchScript program"):
        load_encoder(f"tiny:{path}", None)


def test_a_pinned_digest_is_checked(tmp_path, architectures):
    path = tmp_path / "weights.pt"
    torch.save(build_model(TINY, 5).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    plain = load_encoder(f"tiny:{path}", None)
    for pin in (digest, digest[:8].upper(), f"sha256:{digest}"):
        assert load_encoder(f"tiny:{path}@{pin}", None).digest == plain.digest
    with pytest.raises(
        CheckpointError, match=f"has the sha256 {digest[:16]}.* not the one asked for"
    ):
        load_encoder(f"tiny:{path}@{'0' * 64}", None)
    with pytest.raises(MissingDataError, match="no weight file"):
        load_encoder(f"tiny:{tmp_path / 'absent.pt'}@{digest}", None)


def test_a_file_with_a_published_name_is_checked_against_its_digest(
    tmp_path, architectures, monkeypatch
):
    path = tmp_path / "ViT-tiny.pt"
    torch.save(build_model(TINY, 5).state_dict(), path)
    monkeypatch.setattr(towers, "published_digests", lambda _: {"ViT-tiny.pt": "0" * 64})
    with pytest.raises(CheckpointError, match="not the one of the published ViT-tiny.pt"):
        load_encoder(f"tiny:{path}", None)
    path.rename(tmp_path / "mine.pt")
    load_encoder(f"tiny:{tmp_path / 'mine.pt'}", None)


def test_published_digests_are_those_in_open_clips_addresses():
    found = published_digests("ViT-B-32-quickgelu")
    assert len(found["ViT-B-32.pt"]) == 64
    assert found["vit_b_32-quickgelu-laion400m_e32-46683a32.pt"] == "46683a32"
    assert published_digests("convnext_base_w") == {}


def test_the_list_of_encoders_survives_a_damaged_one_and_needs_no_network(
    store, capsys, monkeypatch
):
    def refuse(*args, **kwargs):
        pytest.fail("network")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    store.put("encoder", tiny_weights(1), {"name": "good", "config": TINY})
    bad = store.put("encoder", tiny_weights(2), {"name": "bad", "config": TINY})
    bad.path.write_bytes(bad.path.read_bytes()[:-7])
    monkeypatch.setattr("engine.store.ROOT", store.home)  # no embedded entries
    assert main(["encoders", "--json", "--cache", str(store.home)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in answer["encoders"]] == ["good"]
    assert [row["name"] for row in answer["damaged"]] == ["bad"]
    assert {"name": "ViT-B-32-quickgelu:openai", "here": False}.keys() == answer["published"][
        0
    ].keys()


def test_published_weights_on_this_machine_are_found(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(published_module, "FOLDER", tmp_path / "clip")
    assert not any(row["here"] for row in published_module.published_here())
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/ViT-L-14.pt").write_bytes(b"x")
    commit = "a" * 40
    root = tmp_path / "hub/models--timm--vit_base_patch32_clip_224.openai"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    (root / "snapshots" / commit / "open_clip_model.safetensors").write_bytes(b"x")
    here = {row["name"] for row in published_module.published_here() if row["here"]}
    assert here == {"ViT-L-14-quickgelu:openai", "ViT-B-32-quickgelu:openai"}
