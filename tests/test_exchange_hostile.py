"""Files that are damaged or hostile: one clear sentence each, nothing run, nothing written."""

import collections
import importlib
import json
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from brought_files import (
    archive,
    linear_checkpoint,
    linear_state,
    lora_folder,
    pickled_module,
    reference_code,
    save,
    tower,
    tuned,
    vision_folder,
    vision_names,
)
from tiny_clip import CONFIG, tiny_weights

from engine.__main__ import main
from engine.encoders import load_encoder
from engine.encoders.towers import build_model
from engine.exchange import indexed, opcodes, sources
from engine.store import Store


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache that holds the tiny encoder alone."""
    home = tmp_path_factory.mktemp("cache")
    Store(home).put("encoder", tiny_weights(), {"name": "miniature", "config": CONFIG})
    return home


@pytest.fixture(scope="module")
def encoder(home):
    return load_encoder("miniature", Store(home))


@pytest.fixture(autouse=True)
def prepared(monkeypatch, tmp_path, encoder):
    """One encoder for all; two blocks where the model it is named after has twelve."""
    monkeypatch.setattr("engine.commands.choices.load_encoder", lambda *a, **k: encoder)
    monkeypatch.setitem(indexed.BLOCKS, "ViT-B-32", 2)
    monkeypatch.setattr("engine.store.ROOT", tmp_path / "checkout")


@pytest.fixture
def refused(home, capsys, monkeypatch, tmp_path):
    """``refused(path, *words) -> str``: the sentence of a refusal that leaves nothing behind."""

    def asked(path, *words):
        monkeypatch.chdir(tmp_path)
        before = {folder: contents(folder) for folder in (home, tmp_path)}
        capsys.readouterr()
        words = ["import", str(path), "--task", "signs", "--cache", str(home), *map(str, words)]
        assert main(words) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.err
        assert len(said.err) < 700
        assert {folder: contents(folder) for folder in before} == before
        assert Store(home).find("checkpoint") == []
        return said.err

    return asked


def contents(folder) -> dict:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def start() -> dict:
    """The stored encoder's weights, which went through float16."""
    return {name: value.float() for name, value in tiny_weights().items()}


def state(**changes) -> dict:
    return tuned(start=start()).state_dict() | changes


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


# --------------------------------------------------------------------------- pickles with a payload


def payloads(marker) -> dict:
    touch = f"touch {marker}"
    return {
        "os.system": Payload(os.system, touch),
        "eval": Payload(eval, f"__import__('os').system('{touch}')"),
        "exec": Payload(exec, f"import os; os.system('{touch}')"),
        "popen": Payload(os.popen, touch),
        "open": Payload(open, str(marker), "w"),
    }


@pytest.mark.parametrize("where", ["alone", "state", "module", "key"])
@pytest.mark.parametrize("name", ["os.system", "eval", "exec", "popen", "open"])
def test_a_payload_runs_nothing(refused, tmp_path, name, where):
    marker = tmp_path / "marker"
    payload, path = payloads(marker)[name], tmp_path / "finetuned.pt"
    if where == "alone":
        torch.save(payload, path)
    elif where == "state":
        torch.save(state(extra=payload), path)
    elif where == "module":
        with reference_code() as code:
            encoder = code.ImageEncoder(tuned(start=start()))
            encoder.train_preprocess = payload
            torch.save(encoder, path)
    else:
        torch.save({"state_dict": state(), "hook": [{"deep": (payload,)}]}, path)
    said = refused(path)
    assert "wants to run" in said
    assert "do not trust it" in said
    assert not marker.exists()
    # the payload is one: whoever unpickles it runs it
    with zipfile.ZipFile(path) as file:
        program = file.read(next(n for n in file.namelist() if n.endswith("data.pkl")))
    if where == "alone" and name in {"os.system", "eval", "exec"}:
        pickle.loads(program)
        assert marker.exists()


def test_an_unknown_name_is_never_imported(tmp_path, monkeypatch, home, capsys):
    """A class of a module that nobody knows: its tensors are read, the module is not touched."""
    (tmp_path / "stranger.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'marker')!r}).touch()\n"
        "class Model:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stranger = importlib.import_module("stranger")

    stranger.Model.__reduce__ = lambda self: (stranger.Model, ("run me",))
    torch.save(state() | {"config": stranger.Model()}, tmp_path / "mixed.pt")
    del sys.modules["stranger"]
    (tmp_path / "marker").unlink()
    home = tmp_path / "cache"
    Store(home).put("encoder", tiny_weights(), {"name": "miniature", "config": CONFIG})
    words = ["import", str(tmp_path / "mixed.pt"), "--task", "signs", "--cache", str(home)]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["origin"]["kind"] == "open_clip"
    assert not (tmp_path / "marker").exists()
    assert "stranger" not in sys.modules


def test_what_is_built_and_set_stays_inert(refused, tmp_path):
    """BUILD on a name would set attributes of a class, where classes are looked up."""
    program = b"\x80\x02ccollections\nOrderedDict\nN}X\x04\x00\x00\x00evilK\x01s\x86b."
    assert "holds no tensors" in refused(archive(tmp_path / "a.pt", program))
    assert not hasattr(collections.OrderedDict, "evil")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"", "damaged"),
        (b"\x80\x02}", "damaged"),  # no end
        (b"\x80\x02.", "damaged"),  # nothing on the stack
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x02Pname\n.", "opcode PERSID"),
        (b"\x80\x02]q\x00h\x00a.", "holds no tensors"),  # a list that holds itself
        (b"\x80\x02" + b"}" + b")" + b"\x85" * 20_000 + b"K\x01s.", "keys that are no texts"),
        (b"\x80\x02" + b"]" + b"2\x86" * 200 + b"Q.", "storage is not described"),
        (b"\x80\x02" + b"]" + b"2\x86" * 200 + b")R.", "holds no tensors"),  # 2^200 texts long
        (b"\x80\x02cbuiltins\nexec\nX\x01\x00\x00\x001\x85R.", "builtins.exec"),
        (b"(iposix\nsystem\n.", "posix.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
    ],
)
def test_programs_written_by_hand(refused, tmp_path, program, said):
    assert said in refused(archive(tmp_path / "a.pt", program))


@pytest.mark.parametrize(
    ("numel", "shape", "stride", "offset", "key", "said"),
    [
        (4, (4,), (1,), 1, "0", "reaches beyond its storage"),
        (4, (2, 2), (4, 1), 0, "0", "reaches beyond its storage"),
        (4, (10**12,), (0,), 0, "0", "reaches beyond its storage"),
        (4, (4,), (-1,), 3, "0", "a size is"),
        (4, (4.0,), (1,), 0, "0", "a size is"),
        (10**9, (4,), (1,), 0, "0", "another size than it says"),
        (4, (4,), (1,), 0, "../../secret", "no item named"),
        (4, (4,), (1,), 0, "9", "no item named"),
    ],
)
def test_tensors_that_reach_out_of_their_bytes(
    refused, tmp_path, numel, shape, stride, offset, key, said
):
    program = rebuilt(numel, shape, stride, offset, key)
    path = archive(tmp_path / "a.pt", program, {"archive/data/0": bytes(16)})
    assert said in refused(path)
    if said == "no item named":
        assert not (tmp_path / "secret").exists()


def rebuilt(numel, shape, stride, offset, key) -> bytes:
    """A program that describes one tensor as torch does."""

    class Storage:
        pass

    class Rebuilt:
        def __reduce__(self):
            empty = collections.OrderedDict()
            arguments = (Storage(), offset, shape, stride, False, empty)
            return torch._utils._rebuild_tensor_v2, arguments

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, key, "cpu", numel)
            return None

    import io

    out = io.BytesIO()
    Pickler(out, 2).dump({"visual.proj": Rebuilt()})
    return out.getvalue()


# ------------------------------------------------------------------------------ archives and files


def test_truncated_files(refused, tmp_path):
    whole = tmp_path / "whole.pt"
    torch.save(state(), whole)
    data = whole.read_bytes()
    for kept in (0, 3, 100, len(data) // 2, len(data) - 10):
        (tmp_path / "short.pt").write_bytes(data[:kept])
        assert "damaged" in refused(tmp_path / "short.pt")
    save(tmp_path / "whole.safetensors", state())
    data = (tmp_path / "whole.safetensors").read_bytes()
    for kept in (0, 7, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "short.safetensors").write_bytes(data[:kept])
        assert "damaged" in refused(tmp_path / "short.safetensors")


def test_a_flipped_byte_is_found(refused, tmp_path):
    torch.save(state(), tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "a.pt").write_bytes(data)
    assert "damaged" in refused(tmp_path / "a.pt")


def test_archives_that_are_no_archives_of_torch(refused, tmp_path):
    bomb = archive(tmp_path / "bomb.pt", bytes(10**6), compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(bomb)
    other = {"archive/../../evil": b"x"}
    assert "leads out of the archive" in refused(archive(tmp_path / "up.pt", b"}.", other))
    script = {"archive/constants.pkl": b"x"}
    assert "TorchScript" in refused(archive(tmp_path / "jit.pt", b"}.", script))
    big = archive(tmp_path / "big.pt", b"}.", {"archive/byteorder2": b"", "archive/x": b""})
    assert "holds no tensors" in refused(big)
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as file:
        file.writestr("letter.txt", "hello")
    assert "no archive of torch" in refused(tmp_path / "plain.zip")


def test_members_that_overlap_claim_more_than_there_is(refused, tmp_path):
    path = archive(tmp_path / "a.pt", b"}.", {"archive/data/0": bytes(4096)})
    data = bytearray(path.read_bytes())
    # the central directory says that the first member has the bytes of all that follow
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 10**6, 10**6)
    path.write_bytes(data)
    assert "claim more bytes" in refused(path)


def test_a_big_endian_file_is_refused(refused, tmp_path):
    torch.save(state(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    assert "big-endian" in refused(tmp_path / "b.pt")


def test_files_of_other_formats(refused, tmp_path):
    torch.save(state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "weights_only=False" in refused(tmp_path / "old.pt")
    (tmp_path / "notes.txt").write_text("these are no weights at all")
    assert "no file of weights" in refused(tmp_path / "notes.txt")
    (tmp_path / "folder").mkdir()
    assert "holds no weights under a known name" in refused(tmp_path / "folder")
    assert "there is no file" in refused(tmp_path / "absent.pt")
    os.mkfifo(tmp_path / "pipe")
    assert "there is no file" in refused(tmp_path / "pipe")


def test_size_is_bounded(refused, tmp_path, monkeypatch):
    torch.save(state(), tmp_path / "a.pt")
    monkeypatch.setattr(sources, "LIMIT", 1000)
    assert "more than the" in refused(tmp_path / "a.pt")
    monkeypatch.undo()


def test_a_safetensors_header_that_lies(refused, tmp_path):
    for length in (2**62, 10**9, 5):
        data = struct.pack("<Q", length) + b'{"a": 1}'
        (tmp_path / "a.safetensors").write_bytes(data)
        assert "damaged" in refused(tmp_path / "a.safetensors")


def test_links_that_leave_their_folder(refused, tmp_path):
    folder = vision_folder(tmp_path / "model", vision_names(tower(tuned(start=start()))))
    outside = tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    assert "leads out of its folder" in refused(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/passwd")
    assert "leads out of its folder" in refused(folder)


def test_the_hub_s_own_links_are_followed(tmp_path, capsys):
    """models--x/snapshots/<revision>/model.safetensors links to models--x/blobs/<digest>."""
    root = tmp_path / "models--x"
    folder = vision_folder(root / "snapshots" / "abc", vision_names(tower(tuned(start=start()))))
    (root / "blobs").mkdir()
    (folder / "model.safetensors").rename(root / "blobs" / "123")
    (folder / "model.safetensors").symlink_to("../../blobs/123")
    home = tmp_path / "cache"
    Store(home).put("encoder", tiny_weights(), {"name": "miniature", "config": CONFIG})
    words = ["import", str(folder), "--task", "signs", "--cache", str(home), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["origin"]["file"] == "abc/model.safetensors"


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, "\0"])
def test_a_configuration_that_is_none(refused, tmp_path, text):
    folder = vision_folder(tmp_path / "model", vision_names(tower(tuned(start=start()))))
    (folder / "config.json").write_text(text)
    assert "no table" in refused(folder)
    adapter = lora_folder(tmp_path / "lora")
    (adapter / "adapter_config.json").write_text(text)
    assert "no table" in refused(adapter)


# ----------------------------------------------------------------------- tensors that do not fit


def test_swapped_shapes(refused, tmp_path):
    first = "visual.transformer.resblocks.0.mlp."
    weights = state()
    swapped = {
        f"{first}c_fc.weight": weights[f"{first}c_proj.weight"],
        f"{first}c_proj.weight": weights[f"{first}c_fc.weight"],
    }
    torch.save(weights | swapped, tmp_path / "swapped.pt")
    assert "2 of another shape" in refused(tmp_path / "swapped.pt")
    theta = tower(tuned(start=start()))
    names = vision_names(theta)
    names["vision_model.encoder.layers.0.mlp.fc1.weight"] = theta["conv1.weight"]
    assert "1 of another shape" in refused(vision_folder(tmp_path / "hf", names))
    transposed = tuned(start=start())
    transposed.visual.conv1.weight = torch.nn.Parameter(
        transposed.visual.conv1.weight.detach().transpose(0, 1).clone()
    )
    path = pickled_module(tmp_path / "module.pt", transposed)
    assert "1 of another shape (conv1.weight)" in refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite(refused, tmp_path, value):
    model = tuned(start=start())
    with torch.no_grad():
        model.visual.proj[0, 0] = value
    said = []
    torch.save(model.state_dict(), tmp_path / "a.pt")
    said.append(refused(tmp_path / "a.pt"))
    said.append(refused(save(tmp_path / "a.safetensors", model.state_dict())))
    theta = tower(model)
    names = vision_names(theta) | {"visual_projection.weight": theta["proj"].T}
    said.append(refused(vision_folder(tmp_path / "hf", names)))
    path = linear_checkpoint(tmp_path / "linear.pt", model, build_model(CONFIG, 0))
    said.append(refused(path))
    said.append(refused(pickled_module(tmp_path / "module.pt", model)))
    for sentence in said:
        assert "holds 1 NaN or infinite values" in sentence


def test_factors_that_are_not_finite(refused, tmp_path):
    from brought_files import lora_factors

    factors = lora_factors()
    next(iter(factors.values()))[0, 0] = float("nan")
    assert "NaN or infinite" in refused(lora_folder(tmp_path / "lora", factors))


def test_foreign_architectures(refused, tmp_path):
    wide = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"width": 32}}
    torch.save(build_model(wide, 0).state_dict(), tmp_path / "wide.pt")
    assert "of another shape" in refused(tmp_path / "wide.pt")
    deep = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"layers": 3}}
    torch.save(build_model(deep, 0).state_dict(), tmp_path / "deep.pt")
    assert "12 unknown" in refused(tmp_path / "deep.pt")
    convnext = {
        "visual.trunk.stem.0.weight": torch.ones(4, 3, 4, 4),
        "visual.head.x": torch.ones(1),
    }
    assert "does not fit this encoder" in refused(save(tmp_path / "c.safetensors", convnext))
    resnet = {"conv1.weight": torch.ones(4, 3, 7, 7), "layer1.0.bn1.weight": torch.ones(4)}
    assert "of no known kind" in refused(save(tmp_path / "resnet.safetensors", resnet))
    siglip = {"vision_model.embeddings.patch_embedding.weight": torch.ones(4, 3, 8, 8)}
    siglip["vision_model.head.attention.in_proj_weight"] = torch.ones(4)
    assert "no CLIP vision model has" in refused(save(tmp_path / "siglip.safetensors", siglip))


def test_names_that_lead_elsewhere(refused, tmp_path):
    evil = save(tmp_path / "a.safetensors", state(**{"../../etc/passwd": torch.ones(1)}))
    assert "no CLIP has (../../etc/passwd)" in refused(evil)
    evil = save(tmp_path / "b.safetensors", state(**{"visual.../../x": torch.ones(1)}))
    assert "1 unknown" in refused(evil)
    names = vision_names(tower(tuned(start=start()))) | {"../model": torch.ones(1)}
    assert "no CLIP vision model has (../model)" in refused(vision_folder(tmp_path / "hf", names))


def test_names_cannot_write_to_the_terminal(refused, tmp_path):
    ugly = {"visual.\x1b[2J\nsecond line": torch.ones(1), "visual." + "x" * 5000: torch.ones(1)}
    said = [refused(save(tmp_path / "a\x1b[2J.safetensors", state(**ugly)))]
    names = vision_names(tower(tuned(start=start()))) | ugly
    said.append(refused(vision_folder(tmp_path / "hf\x1b[2J", names)))
    factors = {f"{name}.lora_A.weight": torch.ones(2, 2) for name in ugly}
    said.append(refused(lora_folder(tmp_path / "lora", factors)))
    program = b"\x80\x02cos\x1b[2J.x\nsystem\x1b[2J\n."
    said.append(refused(archive(tmp_path / "a.pt", program)))
    program = b"\x80\x02cos.\x1b[2J\nsystem\x1b[2J\n."
    said.append(refused(archive(tmp_path / "b.pt", program)))
    assert "\x1b" not in "".join(said)


def test_queries_without_keys(refused, tmp_path):
    names = vision_names(tower(tuned(start=start())))
    del names["vision_model.encoder.layers.1.self_attn.k_proj.weight"]
    assert "do not go together" in refused(vision_folder(tmp_path / "hf", names))


def test_whole_numbers_are_no_weights(refused, tmp_path):
    quantised = {name: (100 * value).to(torch.int8) for name, value in state().items()}
    assert "quantised" in refused(save(tmp_path / "int8.safetensors", quantised))


def test_linear_checkpoints_that_say_too_little(refused, tmp_path):
    def linear(name, change, model_name="ViT-B-32"):
        theta, theta0 = tuned(start=start()), build_model(CONFIG, 0)
        numbers = linear_state(theta, theta0, model_name)
        change(numbers)
        torch.save(numbers, tmp_path / name)
        return refused(tmp_path / name)

    assert "no model_name" in linear("nameless.pt", lambda s: None, None)
    assert "order is known for" in linear("other.pt", lambda s: None, "convnext_base")
    assert "params where ViT-B-32 has" in linear("short.pt", lambda s: s.pop("model.params.7"))
    more = linear("long.pt", lambda s: s.update({"model.params0.99": torch.ones(1)}))
    assert "params0 where ViT-B-32 has" in more
    swap = linear("swapped.pt", lambda s: s.update({"model.params.3": s["model.params.4"]}))
    assert "of another shape (class_embedding)" in swap


def test_modules_within_each_other_without_end(refused, tmp_path):
    with reference_code() as code:
        encoder = code.ImageEncoder(tuned(start=start()))
        encoder._modules["again"] = encoder  # a cycle is walked once
        torch.save(encoder, tmp_path / "cycle.pt")
        deep = inner = torch.nn.Module()
        for _ in range(100):
            inner.inside = torch.nn.Module()
            inner = inner.inside
        torch.save(deep, tmp_path / "deep.pt")
    assert "without end" in refused(tmp_path / "deep.pt")
    with pytest.raises(AssertionError):  # the cycle is harmless: this one is imported
        refused(tmp_path / "cycle.pt")


def test_nothing_that_unpickles_is_imported():
    source = Path(opcodes.__file__).read_text()
    assert "import pickle\n" not in source
    assert "getattr(" not in source
    assert "__import__" not in source
