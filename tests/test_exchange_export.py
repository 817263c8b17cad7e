"""What users take away: written, read back by others' code, and brought in again the same."""

import json

import open_clip
import pytest
import safetensors
import safetensors.torch
import torch
import transformers
from brought_files import pickled_module, tuned
from tiny_clip import CONFIG, tiny_encoder, tiny_weights

from engine.__main__ import main
from engine.encoders import load_encoder
from engine.encoders.towers import build_model, make_encoder
from engine.errors import CheckpointError, UsageError
from engine.exchange import bring, export
from engine.merging import prepare
from engine.store import Store, digest_tensors

TASKS = ("signs", "handwriting")
RECORD = {
    "encoder": "tiny",
    "encoder_digest": "0" * 64,
    "mode": "nonlinear",
    "trained": "nonlinear",
    "coefficients": {"signs": 0.5},
    "checkpoints": {"signs": "1" * 64},
    "origins": {},
    "versions": {"torch": torch.__version__},
    "commit": "test",
    "created": "2026-01-01T00:00:00+00:00",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache with the tiny encoder and a task vector of two tasks in both modes."""
    home = tmp_path_factory.mktemp("cache")
    store = Store(home)
    store.put("encoder", tiny_weights(), {"name": "miniature", "config": CONFIG})
    encoder = load_encoder("miniature", store)
    source = torch.Generator().manual_seed(0)
    for mode in ("nonlinear", "linear"):
        for place, task in enumerate(TASKS):
            dtype = (torch.float32, torch.float16)[place]
            tau = {
                name: (0.02 * torch.randn(value.shape, generator=source)).to(dtype)
                for name, value in encoder.theta0.items()
            }
            meta = {
                "encoder": encoder.name,
                "encoder_digest": encoder.digest,
                "task": task,
                "task_source": "miniature",
                "mode": mode,
                "tau_digest": digest_tensors(tau),
            }
            store.put("checkpoint", tau, meta)
    return home


@pytest.fixture(autouse=True)
def nothing_embedded(monkeypatch, tmp_path):
    monkeypatch.setattr("engine.store.ROOT", tmp_path / "checkout")


@pytest.fixture
def ask(capsys, home):
    """``ask(*words) -> dict``: the answer of a verb with --json."""

    def asked(*words, cache=home):
        capsys.readouterr()
        assert main([*map(str, words), "--cache", str(cache), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return asked


@pytest.fixture
def refused(capsys, home):
    def asked(*words):
        capsys.readouterr()
        assert main([*map(str, words), "--cache", str(home)]) == 2
        return capsys.readouterr().err

    return asked


def fresh(home, tmp_path):
    """Another person's cache: the same encoder, no task vectors."""
    store = Store(tmp_path / "theirs")
    store.put("encoder", tiny_weights(), {"name": "miniature", "config": CONFIG})
    return tmp_path / "theirs"


def merged(home, alphas) -> dict:
    """theta_0 + sum alpha tau in float64, from the store."""
    store = Store(home)
    theta = {n: v.double() for n, v in load_encoder("miniature", store).theta0.items()}
    for task, alpha in alphas.items():
        (entry,) = store.find("checkpoint", task=task, mode="nonlinear")
        for name, value in store.get(entry).items():
            theta[name] += alpha * value.double()
    return theta


# -------------------------------------------------------------------------- task vectors alone


@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
@pytest.mark.parametrize("task", TASKS)
def test_a_task_vector_comes_back_to_the_bit(ask, home, tmp_path, task, mode):
    out = tmp_path / "tau.safetensors"
    told = ask("export", "--as", "vector", "--tasks", task, "--mode", mode, "--out", out)
    assert told["verified"]["tensors"] == len(tiny_encoder().theta0)
    theirs = fresh(home, tmp_path)
    brought = ask("import", out, "--task", task, cache=theirs)
    (entry,) = Store(home).find("checkpoint", task=task, mode=mode)
    assert brought["mode"] == mode
    assert brought["tau_digest"] == entry.meta["tau_digest"]
    (mine,) = Store(theirs).find("checkpoint")
    ours, again = Store(home).get(entry), Store(theirs).get(mine)
    assert {n: v.dtype for n, v in ours.items()} == {n: v.dtype for n, v in again.items()}
    for name, value in ours.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


def test_a_task_vector_of_another_encoder_is_refused(ask, home, tmp_path):
    out = tmp_path / "tau.safetensors"
    ask("export", "--as", "vector", "--tasks", "signs", "--out", out)
    with pytest.raises(CheckpointError, match="task vector of miniature"):
        bring(out, tiny_encoder(seed=3))
    with pytest.raises(UsageError, match="is a task vector already"):
        bring(out, load_encoder("miniature", Store(home)), zeroshot=out)


def test_a_sum_of_task_vectors_is_exported_alone(ask, home, tmp_path):
    out = tmp_path / "tau.safetensors"
    words = ["--tasks", *TASKS, "--alphas", "signs=0.5", "handwriting=-0.25", "--out", out]
    told = ask("export", "--as", "vector", *words, "--convention", "mean")
    assert told["coefficients"] == {"signs": 0.25, "handwriting": -0.125}
    theta0 = load_encoder("miniature", Store(home)).theta0
    with safetensors.safe_open(out, "pt") as file:
        for name, value in merged(home, told["coefficients"]).items():
            got = file.get_tensor(f"tau.visual.{name}").double()
            torch.testing.assert_close(got, value - theta0[name].double(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["vector", "open_clip", "huggingface"])
def test_what_a_method_merges_is_exported(ask, home, tmp_path, kind):
    store, out = Store(home), tmp_path / ("folder" if kind == "huggingface" else "x.safetensors")
    words = ["--tasks", *TASKS, "--method", "ties", "--option", "density=0.5", "--alpha", "0.8"]
    told = ask("export", "--as", kind, *words, "--out", out)
    usual = {"average": 0, "drop": 0.0, "seed": 0}
    assert (told["method"], told["options"]) == ("ties", {"density": 0.5, **usual})
    assert told["coefficients"] == {"merged direction": 0.8}
    assert set(told["checkpoints"]) == set(TASKS)
    encoder = load_encoder("miniature", store)
    taus = {
        task: store.get(store.one("checkpoint", "", task=task, mode="nonlinear")) for task in TASKS
    }
    direction = prepare(taus, "ties", density=0.5)
    if kind == "huggingface":
        card = (out / "README.md").read_text()
        made = "ties (density 0.5, average 0, drop 0, seed 0)"
        assert f"theta_0 + 0.8 tau, tau being what {made} makes of" in card
        assert all(f"| {task} | - | " in card for task in TASKS)
        return
    with safetensors.safe_open(out, "pt") as file:
        for name, value in direction.items():
            wanted = 0.8 * value.double()
            if kind == "open_clip":
                wanted = encoder.theta0[name].double() + wanted
            got = file.get_tensor(("tau." if kind == "vector" else "") + f"visual.{name}")
            torch.testing.assert_close(got.double(), wanted, rtol=0, atol=3e-7)


# ------------------------------------------------------------------------------ models, open_clip


def test_a_merged_model_loads_into_open_clip_and_comes_back(ask, home, tmp_path):
    out = tmp_path / "merged.safetensors"
    words = ["--tasks", *TASKS, "--alpha", "0.4", "--out", out]
    told = ask("export", "--as", "open_clip", *words)
    state = safetensors.torch.load_file(out)
    model = open_clip.CLIP(**CONFIG).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == []
    assert not any(name.startswith("visual.") for name in missing)
    encoder = load_encoder("miniature", Store(home))
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    theta = {name.removeprefix("visual."): value for name, value in state.items()}
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(x), encoder.features(theta, x))
    for name, value in merged(home, told["coefficients"]).items():
        torch.testing.assert_close(theta[name].double(), value, rtol=0, atol=3e-7)  # float32
    # brought in again: theta_0 + tau is the same model, up to one rounding of the difference
    brought = bring(out, encoder)
    for name, value in theta.items():
        back = encoder.theta0[name] + brought.tau[name]
        torch.testing.assert_close(back, value, rtol=2e-7, atol=1e-9)


# --------------------------------------------------------------------------- models, Hugging Face


@pytest.mark.parametrize("quick", [False, True])
def test_transformers_computes_our_features(tmp_path, quick):
    config = CONFIG | {"quick_gelu": quick}
    model = build_model(config, 0)
    theta = {n: p.detach().clone() for n, p in tuned().visual.named_parameters()}
    encoder = make_encoder("tiny", model, config, None)
    verified = export.huggingface_folder(encoder, theta, tmp_path / "hf", RECORD)
    assert verified["tensors"] == len(theta)
    assert verified["largest_difference"] <= 1e-5
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    load = {"pretrained_model_name_or_path": tmp_path / "hf", "local_files_only": True}
    whole, said = transformers.CLIPVisionModelWithProjection.from_pretrained(
        **load, output_loading_info=True
    )
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    bare, said = transformers.CLIPVisionModel.from_pretrained(**load, output_loading_info=True)
    assert not said["missing_keys"]
    assert set(said["unexpected_keys"]) <= {"visual_projection.weight"}
    with torch.no_grad():
        ours = encoder.features(theta, x)
        # with the projection, and before it
        torch.testing.assert_close(whole.eval()(x).image_embeds, ours, rtol=1e-5, atol=1e-5)
        pooled = bare.eval()(x).pooler_output
        torch.testing.assert_close(pooled @ theta["proj"], ours, rtol=1e-5, atol=1e-5)


def test_transformers_prepares_pixels_as_we_do(ask, home, tmp_path):
    from PIL import Image

    words = ["--tasks", "signs", "--alpha", "1", "--out", tmp_path / "hf"]
    ask("export", "--as", "huggingface", *words)
    encoder = load_encoder("miniature", Store(home))
    source = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (3, 16, 16), generator=source, dtype=torch.uint8)
    said = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    processor = getattr(transformers, said["image_processor_type"]).from_pretrained(tmp_path / "hf")
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    got = processor(picture, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(got, encoder.preprocess(image[None]), rtol=1e-5, atol=1e-5)


def test_a_hugging_face_folder_comes_back_and_says_what_made_it(ask, home, tmp_path):
    out = tmp_path / "hf"
    words = ["--tasks", *TASKS, "--alphas", "signs=0.5", "handwriting=-0.2", "--out", out]
    told = ask("export", "--as", "huggingface", *words)
    assert {p.name for p in out.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert 0 < told["verified"]["largest_difference"] <= 1e-5  # compared, whatever is installed
    card = (out / "README.md").read_text()
    for entry in Store(home).find("checkpoint", mode="nonlinear"):
        assert entry.digest[:16] in card
    for said in ("| signs | 0.5 |", "| handwriting | -0.2 |", told["commit"], "fine-tuned here"):
        assert said in card
    assert told["encoder_digest"] in card
    encoder = load_encoder("miniature", Store(home))
    brought = bring(out, encoder)
    assert brought.origin["absent"] == []
    for name, value in merged(home, {"signs": 0.5, "handwriting": -0.2}).items():
        back = encoder.theta0[name].double() + brought.tau[name].double()
        torch.testing.assert_close(back, value, rtol=0, atol=3e-7)  # float32
    assert list(tmp_path.glob(".*")) == []


def test_an_export_that_differs_is_removed(tmp_path, monkeypatch):
    encoder, theta = tiny_encoder(), dict(tiny_encoder().theta0)
    real = export.to_huggingface

    def swapped(theta):
        tensors = real(theta)
        q, k = (f"vision_model.encoder.layers.0.self_attn.{x}_proj.weight" for x in "qk")
        return tensors | {q: tensors[k], k: tensors[q]}

    monkeypatch.setattr(export, "to_huggingface", swapped)
    with pytest.raises(CheckpointError, match="tensors equal: False"):
        export.huggingface_folder(encoder, theta, tmp_path / "hf", RECORD)
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_computes_otherwise_is_found(tmp_path, monkeypatch):
    encoder = tiny_encoder()
    monkeypatch.setattr(
        export,
        "vision_config",
        lambda e: real_config(e) | {"num_attention_heads": 1},
    )
    with pytest.raises(CheckpointError, match="features apart by"):
        export.huggingface_folder(encoder, encoder.theta0, tmp_path / "hf", RECORD)
    assert list(tmp_path.iterdir()) == []


real_config = export.vision_config


def test_towers_that_are_no_clip_vision_model_are_refused(tmp_path):
    pooled = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"pool_type": "avg"}}
    scaled = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"ls_init_value": 0.1}}
    for config in (pooled, scaled):
        encoder = make_encoder("other", build_model(config, 0), config, None)
        with pytest.raises(UsageError, match="no CLIP vision model of Hugging Face"):
            export.huggingface_folder(encoder, encoder.theta0, tmp_path / "hf", RECORD)


def test_a_model_card_keeps_its_table_and_its_secrets():
    name = "ViT-B-32-quickgelu:/secret/place/weights.safetensors"
    assert export.shown_name(name) == "ViT-B-32-quickgelu:weights.safetensors"
    assert export.shown_name("ViT-B-32-quickgelu:openai") == "ViT-B-32-quickgelu:openai"
    evil = RECORD | {
        "coefficients": {"a|b\n<script>": 1.0},
        "checkpoints": {"a|b\n<script>": "2" * 64},
    }
    card = export.model_card(evil, {"image_size": 16, "projection_dim": 8})
    assert "<script>" not in card
    assert "| a b  script  | 1 | 2222222222222222 |" in card


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["huggingface", "--mode", "posthoc", "--alpha", "1", "--out", "x"], "no single set"),
        (["open_clip", "--mode", "linear", "--alpha", "1", "--out", "x.safetensors"], "no single"),
        (["huggingface", "--out", "x"], "say how much of each task"),
        (["vector", "--alpha", "1", "--out", "x.pt"], "must end in .safetensors"),
        (["vector", "--alpha", "0", "--out", "x.safetensors"], "every coefficient is 0"),
        (["huggingface", "--alpha", "1", "--out", "full"], "holds something"),
        (["huggingface", "--method", "ties", "--out", "x"], "ties makes one direction"),
        (
            ["huggingface", "--alpha", "1", "--option", "density=1", "--out", "x"],
            "--option belongs",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(refused, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert said in refused("export", "--tasks", *TASKS, "--as", *words)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["x"]


# ---------------------------------------------------------------------------- imported, then used


def test_an_imported_checkpoint_is_listed_merged_and_measured(ask, home, tmp_path, capsys):
    from engine.tasks import miniature

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(miniature.SIZES, "train", 800)
        patch.setitem(miniature.SIZES, "test", 100)
        theirs = fresh(home, tmp_path)
        start = {name: value.float() for name, value in tiny_weights().items()}
        for seed, task in enumerate(TASKS):
            path = pickled_module(tmp_path / "finetuned.pt", tuned(seed + 1, 0.02, start))
            told = ask("import", path, "--task", task, "--measure", cache=theirs)
            assert told["n"] == {"validation": 80, "test": 100}
        rows = ask("checkpoints", cache=theirs)["checkpoints"]
        assert [row["task"] for row in rows] == list(reversed(TASKS))
        assert rows[0]["origin"]["kind"] == "module"
        assert (rows[0]["seed"], rows[0]["steps"]) == (None, None)
        assert rows[0]["accuracy"]["test"] == told["accuracy"]["test"]
        for mode in ("nonlinear", "posthoc"):
            found = ask("addition", "--mode", mode, "--tasks", *TASKS, cache=theirs)
            assert list(found["seeds"].values()) == [None, None]
            assert list(found["taus"]) == list(TASKS)
        alone = ask(
            "evaluate", "--tasks", *TASKS, "--alphas", f"{TASKS[1]}=1", "--control", "none",
            cache=theirs,
        )  # fmt: skip
        assert alone["accuracy"][TASKS[1]] == told["accuracy"]["test"]
        # not measured: shown as such
        ask("import", tmp_path / "finetuned.pt", "--task", "letters", cache=theirs)
        assert main(["checkpoints", "--task", "letters", "--cache", str(theirs)]) == 0
        assert " - " in capsys.readouterr().out
        embedded = ["embed", "--to", tmp_path / "e", "--dry-run", "--kinds", "checkpoint"]
        assert main([*map(str, embedded), "--cache", str(theirs)]) == 2


def test_an_imported_checkpoint_is_on_the_pages(ask, home, tmp_path, monkeypatch):
    pytest.importorskip("streamlit")
    from app.compute import catalogue

    theirs = fresh(home, tmp_path)
    monkeypatch.setenv("TAUSCOPE_CACHE", str(theirs))
    start = {name: value.float() for name, value in tiny_weights().items()}
    path = pickled_module(tmp_path / "finetuned.pt", tuned(start=start))
    told = ask("import", path, "--task", "signs", cache=theirs)
    (item,) = catalogue.checkpoints()
    assert item.digest == told["digest"]
    assert (item.test, item.seed, item.steps) == (None, None, None)
    assert catalogue.newest([item], "miniature", "nonlinear") == {"signs": item}
