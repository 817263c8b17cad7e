"""The Import & export page in Streamlit's own test runner, and what it is made of."""

import io
import json
import os
import shlex
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from brought_files import archive, lora_config
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import state, widgets
from app.compute import bringing, bringing_exports, bringing_tasks, bringing_uploads, catalogue
from app.compute.bringing_uploads import Upload, harmless, staged, typed_path
from engine.__main__ import main
from engine.commands.parser import build_parser
from engine.encoders import load_encoder
from engine.errors import CheckpointError, EngineError, UsageError
from engine.exchange import bring
from engine.store import Store
from engine.task_vectors import combine
from engine.tasks import load_split, load_task
from engine.tasks.own import remembered
from tests import shown_pages
from tests.shown_pages import FEW, PAGES, TIMEOUT, settle, texts, use
from tests.tiny_world import make_world

EVIL = '<img src=x onerror="alert(1)">'

pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Store:
    """A store of one's own with two tasks, seen by the pages alone."""
    return use(monkeypatch, make_world(tmp_path / "cache", FEW))


@pytest.fixture
def encoder(here):
    return load_encoder("miniature", here)


def tuned(encoder, seed: int = 7) -> dict:
    """The encoder's image tower, a little further on."""
    source = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.01 * torch.randn(value.shape, generator=source)
        for name, value in encoder.theta0.items()
    }


def weights(theta: dict) -> dict:
    return {f"visual.{name}": value.contiguous() for name, value in theta.items()}


@pytest.fixture
def file(encoder, tmp_path) -> Path:
    """A fine-tuned checkpoint of open_clip."""
    path = tmp_path / "finetuned.safetensors"
    safetensors.torch.save_file(weights(tuned(encoder)), path)
    return path


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of images, one class of which has a hostile name."""
    root = tmp_path / "land use"
    for place, name in enumerate(("AnnualCrop", "<b>Forest<", "![x](http:evil)")):
        for part, n in (("train", 12), ("test", 4)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", (20, 16), (80 * place, 10 * i, 40)).save(folder / f"{i}.png")
    return root


def open_page(section: str, **query: str) -> AppTest:
    page = shown_pages.open_page("bring", v=section, **query)
    assert not page.exception
    return page


def click(page: AppTest, key: str) -> AppTest:
    page.button(key=key).click().run()
    assert not page.exception
    return settle(page)


def html(page: AppTest) -> str:
    return " ".join(item.proto.body for item in page.get("html"))


def keys(page: AppTest) -> set[str]:
    return {button.key for button in page.button}


def contents(folder: Path) -> dict:
    """Every file below, so that nothing can be written unseen."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def look_at(path: object, task: str = "handwriting") -> AppTest:
    page = open_page("checkpoint")
    page.text_input(key=state.BRING_PATH).set_value(str(path)).run()
    page.selectbox(key=state.BRING_TASK).set_value(task).run()
    return click(page, state.BRING_LOOK)


# ------------------------------------------------------------------------- bring a checkpoint


@pytest.mark.parametrize("section", state.BRING_SECTIONS)
def test_a_section_runs_alone(section, here):
    page = open_page(section)
    assert not page.error
    assert page.title[0].value == "Import & export"
    assert page.query_params["v"] in (section, [section])


@pytest.mark.parametrize("section", ["checkpoint", "export"])
def test_an_empty_cache_is_no_error(section, tmp_path, monkeypatch):
    use(monkeypatch, Store(tmp_path))
    page = open_page(section)
    assert not page.error
    if section == "export":
        assert "python -m engine pretrain" in texts(page, "info")
    else:
        page.text_input(key=state.BRING_PATH).set_value("/nowhere").run()
        assert "Choose an encoder" in texts(click(page, state.BRING_LOOK), "info")


def test_a_file_is_looked_at_before_anything_is_written(here, encoder, file):
    before = contents(here.home)
    page = look_at(file)
    assert not page.error
    assert contents(here.home) == before
    brought = bring(file, encoder)
    norm = sum(float(value.double().square().sum()) for value in brought.tau.values()) ** 0.5
    facts = html(page)
    assert f"{norm:.4g}, {100 * brought.origin['relative_norm']:.2f} %" in facts
    assert f"{len(brought.tau)}, {sum(t.numel() for t in brought.tau.values()):,} values" in facts
    assert "ViT, 2 blocks of width 32, patches of 16 in 32 pixels, 16 features" in facts
    assert brought.origin["sha256"][:32] in facts
    assert "assumed: the file does not say" in facts
    assert "open_clip state dict" in texts(page, "markdown")


def test_import_writes_what_the_verb_writes(here, encoder, file, capsys):
    page = click(look_at(file), state.BRING_IMPORT)
    assert "on Checkpoints and Merge from now on" in texts(page, "success")
    (entry,) = here.find("checkpoint", task="handwriting")
    brought = bring(file, encoder)
    for name, value in here.get(entry).items():
        assert torch.equal(value, brought.tau[name])
    # the command line that the page shows makes the same entry
    command = page.code[0].value
    here.delete(entry)
    words = shlex.split(command.removeprefix("python -m engine "))
    assert main([*words, "--cache", str(here.home)]) == 0
    (again,) = here.find("checkpoint", task="handwriting")
    assert again.digest == entry.digest
    assert again.meta == entry.meta
    # and what lists checkpoints has it
    assert "handwriting" in catalogue.newest(catalogue.checkpoints(), "miniature", "nonlinear")


def test_a_dry_run_says_what_the_page_says_and_writes_nothing(here, file, capsys):
    before = contents(here.home)
    words = ["import", str(file), "--task", "signs", "--dry-run", "--cache", str(here.home)]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dry_run"] is True
    assert said["origin"]["mode_from"] == "default"
    assert main(words) == 0
    assert "would be the nonlinear task vector of signs" in capsys.readouterr().out
    assert contents(here.home) == before


def test_another_choice_must_be_looked_at_again(here, file):
    page = look_at(file)
    assert state.BRING_IMPORT in keys(page)
    page.segmented_control(key=state.BRING_MODE).set_value("linear").run()
    assert state.BRING_IMPORT not in keys(page)
    assert "look again" in texts(page, "markdown")
    page = click(page, state.BRING_LOOK)
    assert "Linear, as you say" in html(page)


def test_a_file_that_changes_before_its_import_is_not_imported(here, encoder, file):
    asked = bringing.Asked(str(file), (), "miniature", "handwriting")
    seen = bringing.look(asked, "me")
    assert seen.wait(TIMEOUT)
    assert seen.error is None
    safetensors.torch.save_file(weights(tuned(encoder, 8)), file)
    work = bringing.bring_in(asked, seen.result, "me")
    assert work.wait(TIMEOUT)
    assert isinstance(work.error, UsageError)
    assert "has changed since" in str(work.error)
    assert here.find("checkpoint", task="handwriting") == []


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def hostile(kind: str, encoder, folder: Path) -> Path:
    """Write a file that must be refused."""
    theta = weights(tuned(encoder))
    name = next(iter(theta))
    path = folder / f"{kind}.safetensors"
    if kind == "payload":
        path = folder / "payload.pt"
        torch.save({"visual.proj": Payload(folder / "marker")}, path)
        return path
    if kind == "nan":
        theta[name] = theta[name].clone()
        theta[name].view(-1)[0] = float("nan")
    elif kind == "shapes":
        theta[name] = torch.zeros(3, 5)
    elif kind == "foreign":
        theta = {f"encoder.{place}": value for place, value in enumerate(theta.values())}
    elif kind == "markup":
        path = folder / f"{EVIL.replace('/', '')}.safetensors"
        theta = {f"{EVIL}![x](http://evil.example/x.png)": torch.zeros(3)}
    elif kind == "theta0":
        theta = weights(encoder.theta0)
    safetensors.torch.save_file({k: v.contiguous() for k, v in theta.items()}, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:999])
    return path


HOSTILE = ("payload", "truncated", "nan", "shapes", "foreign", "markup", "theta0")


@pytest.mark.parametrize("how", ["path", "upload"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_one_sentence_and_nothing_is_written(kind, how, here, encoder, tmp_path):
    path = hostile(kind, encoder, tmp_path)
    before = contents(tmp_path)
    if how == "path":
        page = look_at(path)
    else:
        page = open_page("checkpoint")
        page.segmented_control(key=state.BRING_FROM).set_value("upload").run()
        (uploader,) = page.file_uploader
        uploader.set_value([(path.name, path.read_bytes(), "")]).run()
        page = click(page, state.BRING_LOOK)
        assert str(here.home) not in texts(page, "error")
    (error,) = page.error
    assert "\n" not in error.value
    assert len(error.value) < 700
    assert "Traceback" not in error.value
    # no markup of the file's own: every mark is written so that it is read as text
    assert "<img" not in error.value.replace(r"\<img", "")
    assert "![" not in error.value.replace(r"\!\[", "")
    assert state.BRING_IMPORT not in keys(page)
    assert contents(tmp_path) == before
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no path is given"),
        ("weights.pt", "does not begin with"),
        ("/etc/../etc/passwd", "leads upwards"),
        ("../weights.pt", "leads upwards"),
        ("/etc/\x00weights", "cannot be a path"),
        ("/" + "x" * 3000, "cannot be a path"),
        ("/" + "x" * 1000, "cannot be opened"),
        ("~nobody-of-that-name/x", "names no user"),
        ("/nowhere/weights.pt", "there is no file"),
        ("/dev/null", "there is no file"),
    ],
)
def test_a_path_that_cannot_be_is_one_sentence(text, said, here):
    before = contents(here.home)
    page = look_at(text)
    told = texts(page, "error") + texts(page, "info")
    assert said in told.replace("\\", "").lower()
    assert contents(here.home) == before


def test_files_of_a_folder_are_sent_together(here, encoder):
    factors = {}
    for layer in range(2):
        name = f"base_model.model.vision_model.encoder.layers.{layer}.self_attn.q_proj"
        factors[f"{name}.lora_A.weight"] = torch.randn(2, 32)
        factors[f"{name}.lora_B.weight"] = torch.randn(32, 2) / 50
    data = safetensors.torch.save(factors)
    page = open_page("checkpoint")
    page.segmented_control(key=state.BRING_FROM).set_value("upload").run()
    sent = [
        ("adapter_model.safetensors", data, ""),
        ("adapter_config.json", json.dumps(lora_config()).encode(), ""),
        ("README.md", b"# mine", ""),
    ]
    page.file_uploader[0].set_value(sent).run()
    page = click(page, state.BRING_LOOK)
    assert "LoRA adapter of peft" in texts(page, "markdown")
    page = click(page, state.BRING_IMPORT)
    (entry,) = here.find("checkpoint", task="handwriting")
    assert entry.meta["origin"]["kind"] == "lora"
    name = "transformer.resblocks.1.attn.in_proj_weight"
    (a, b) = (
        factors[f"base_model.model.vision_model.encoder.layers.1.self_attn.q_proj.lora_{x}.weight"]
        for x in "AB"
    )
    torch.testing.assert_close(here.get(entry)[name][:32], 8 / 2 * b @ a)
    assert not here.get(entry)[name][32:].any()
    assert list(here.home.glob(".decode-*")) == []


# ------------------------------------------------------------------------------------ uploads


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return file.getvalue()


def opened(data: bytes, home: Path, name: str = "folder.zip") -> dict[str, bytes]:
    with staged([Upload(name, "1", data)], home) as path:
        assert path.is_relative_to(home)
        if path.is_file():
            return {path.name: path.read_bytes()}
        return {item.name: item.read_bytes() for item in path.iterdir()}


def test_a_zipped_folder_is_unpacked_with_its_known_files_alone(tmp_path):
    found = opened(
        zipped({
            "mine/adapter_config.json": b"{}",
            "mine/adapter_model.safetensors": b"weights",
            "mine/run.py": b"import os",
            "mine/deeper/config.json.py": b"import os",
        }),
        tmp_path,
    )
    assert found == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
    assert list(tmp_path.iterdir()) == []


def link() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("mine/model.safetensors")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def linked() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("mine/config.json", b"{}")
        packed.writestr(link(), "/etc/passwd")
    return file.getvalue()


def bomb() -> bytes:
    members = {"mine/config.json": b"{}", "mine/model.safetensors": bytes(64 * 2**20)}
    return zipped(members, zipfile.ZIP_DEFLATED)


def swollen() -> bytes:
    """A zip that says a small size of a member whose data goes on."""
    data = zipped({"mine/config.json": b"{}", "mine/model.safetensors": b"x" * 1000})
    return data.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little"))


CONFIG = {"mine/config.json": b"{}"}
ZIPS = {
    "upwards": (lambda: zipped(CONFIG | {"mine/../../evil.txt": b"x"}), "leads out of its folder"),
    "backslash": (lambda: zipped(CONFIG | {"..\\evil.txt": b"x"}), "leads out of its folder"),
    "absolute": (lambda: zipped(CONFIG | {"/etc/evil": b"x"}), "leads out of its folder"),
    "drive": (lambda: zipped(CONFIG | {"C:evil": b"x"}), "leads out of its folder"),
    "link": (linked, "leads out of its folder"),
    "bomb": (bomb, "was not unpacked"),
    "swollen": (swollen, "damaged zip"),
    "many": (lambda: zipped({f"m/{i}": b"" for i in range(1001)}), "holds 1001 files"),
    "two": (lambda: zipped(CONFIG | {"other/config.json": b"{}"}), "holds 2 folders"),
    "none": (lambda: zipped({"a.txt": b"x"}), "holds 0 folders"),
    "cut": (lambda: zipped(CONFIG)[:-30], "damaged zip"),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_one_sentence_and_leaves_nothing(name, tmp_path):
    make, said = ZIPS[name]
    with pytest.raises(EngineError, match=said) as caught:
        opened(make(), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.rglob("*")) == []


def test_a_zip_that_would_be_too_large_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(bringing_uploads, "UNPACKED", 1000)
    members = CONFIG | {"mine/model.safetensors": os.urandom(2000)}
    with pytest.raises(CheckpointError, match="send the files themselves"):
        opened(zipped(members), tmp_path)


def test_torch_s_own_archive_is_no_zipped_folder(tmp_path):
    path = archive(tmp_path / "x.pt", b"\x80\x02}.")
    home = tmp_path / "home"
    assert opened(path.read_bytes(), home, "x.pt") == {"x.pt": path.read_bytes()}


def test_what_was_sent_is_not_kept_for_its_question():
    sent = (Upload("a.pt", "1", bytes(10)),)
    asked = bringing.Asked("", sent, "miniature", "signs")
    assert asked.light() == asked
    assert hash(asked.light()) == hash(asked)
    assert asked.light().uploads[0].data == b""


def test_files_that_do_not_go_together_are_refused(tmp_path):
    sent = [Upload("config.json", "1", b"{}"), Upload("run.exe", "2", b"x")]
    with pytest.raises(UsageError, match=r"run\.exe does not belong"), staged(sent, tmp_path):
        pass
    twice = [Upload("config.json", "1", b"{}"), Upload("a/config.json", "2", b"x")]
    with pytest.raises(UsageError, match="does not belong"), staged(twice, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\weights.pt", "weights.pt"),
        ("<b>x.pt", "_b_x.pt"),
        ("a\x00b\n.pt", "a_b_.pt"),
        ("..", "upload"),
        ("", "upload"),
        (".bashrc", "bashrc"),
        ("ß weights-1.pt", "ß weights-1.pt"),
    ],
)
def test_a_sent_name_is_only_a_name(name, safe):
    assert harmless(name) == safe
    assert Path(safe).name == safe


def test_a_typed_path_is_taken_as_it_is(tmp_path):
    assert typed_path(f"  {tmp_path}/a b ") == tmp_path / "a b"
    assert typed_path("~/x") == Path.home() / "x"


def test_a_text_of_a_stranger_s_is_no_markdown():
    plain = widgets.plain
    assert plain("a_b*c") == r"a\_b\*c"
    assert plain("run `python -m x_y` now_") == r"run `python -m x_y` now\_"
    assert plain("x `a` `![x](u)") == "x \u2019a\u2019 \u2019\\!\\[x\\](u)"
    assert "`" not in plain("``[x](u)``")
    assert plain("http://a :red[b]") == r"http\://a \:red\[b\]"


# --------------------------------------------------------------------------------- bring a task


def look_at_task(path: object) -> AppTest:
    page = open_page("task")
    page.text_input(key=state.BRING_DATA).set_value(str(path)).run()
    return click(page, state.BRING_DATA_LOOK)


def word(page: AppTest, name: str):
    key = state.BRING_WORDS + name
    return next(item for item in (*page.text_input, *page.text_area) if item.key == key)


def test_a_folder_is_shown_before_it_is_added(here, pictures):
    before = contents(pictures.parent)
    page = look_at_task(pictures)
    assert not page.error
    shown = html(page)
    assert "33 train, 3 validation, 12 test" in shown
    assert shown.count("data:image/png;base64,") == 16
    # names of classes are text, whatever they are
    assert "&lt;b&gt;Forest&lt;" in shown
    assert "<b>" not in shown
    assert word(page, "classnames").value.splitlines() == [
        "![x](http:evil)",
        "<b>Forest<",
        "annual crop",
    ]
    (table,) = page.dataframe
    assert table.value["train"].tolist() == [12, 12, 12]
    assert contents(pictures.parent) == before
    assert remembered(here) == {}


def test_an_added_task_is_offered_by_the_pages(here, pictures):
    page = click(look_at_task(pictures), state.BRING_ADD)
    assert "Added" in texts(page, "success")
    assert not (pictures / "tauscope.yaml").exists()  # its words were not changed
    assert catalogue.own_tasks() == {str(pictures): "land use"}
    assert catalogue.titles(["signs", "land_use", str(pictures)])[1:] == ["land use"] * 2
    chooser = open_page("checkpoint").selectbox(key=state.BRING_TASK)
    assert "land use" in chooser.options
    from app.compute import ntk_pairs

    assert ntk_pairs.references()[str(pictures)] == "land use"
    page = click(page, state.BRING_FORGET)
    assert catalogue.own_tasks() == {}
    assert pictures.is_dir()


def test_changed_words_are_written_beside_the_images(here, pictures):
    page = look_at_task(pictures)
    word(page, "title").set_value("Fields & forests").run()
    word(page, "classnames").set_value("river\nforest\ncrop").run()
    word(page, "templates").set_value("a photo of {} from above.").run()
    assert any("crop" in item.value for item in page.code)  # what will be written
    page = click(page, state.BRING_ADD)
    task = load_task(str(pictures))
    assert task.title == "Fields & forests"
    assert task.classnames == ("river", "forest", "crop")
    assert task.templates == ("a photo of {} from above.",)
    assert catalogue.own_tasks() == {str(pictures): "Fields & forests"}


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("classnames", "river\nforest", "list of 3 names, got list of 2 names".split(", ")[0]),
        ("classnames", "river\nriver\ncrop", "stand for several classes"),
        ("templates", "a photo", "exactly once"),
        ("templates", "a {} {}", "exactly once"),
        ("templates", "", "list of prompts"),
    ],
)
def test_words_that_cannot_be_are_one_sentence(here, pictures, field, text, said):
    page = look_at_task(pictures)
    word(page, field).set_value(text).run()
    assert said in texts(page, "error").replace("\\", "")
    assert page.button(key=state.BRING_ADD).disabled
    assert not (pictures / "tauscope.yaml").exists()


def test_words_lie_in_the_cache_where_the_folder_stays_as_it_is(here, pictures):
    page = look_at_task(pictures)
    word(page, "classnames").set_value("river\nforest\ncrop").run()
    page.toggle[0].set_value(False).run()
    page = click(page, state.BRING_ADD)
    assert not (pictures / "tauscope.yaml").exists()
    (reference,) = catalogue.own_tasks()
    assert Path(reference).is_relative_to(here.home)
    task, plain = load_task(reference), load_task(str(pictures))
    assert task.name == plain.name == "land_use"
    assert task.classnames == ("river", "forest", "crop")
    ours, theirs = (load_split(t, "test", 16, here) for t in (task, plain))
    assert torch.equal(ours.images, theirs.images)
    assert torch.equal(ours.labels, theirs.labels)
    # looked at again and changed once more, it stays where it is
    page = look_at_task(reference)
    word(page, "title").set_value("Fields").run()
    click(page, state.BRING_ADD)
    assert catalogue.own_tasks() == {reference: "Fields"}


def test_a_folder_that_cannot_be_written_is_no_error(here, pictures, monkeypatch):
    from engine.tasks import own

    real = own.write_bytes

    def refuse(path, data):
        if path.is_relative_to(pictures):
            raise EngineError("read-only")
        real(path, data)

    monkeypatch.setattr(own, "write_bytes", refuse)
    monkeypatch.setattr(bringing_tasks.os, "access", lambda *_: False)
    page = look_at_task(pictures)
    word(page, "title").set_value("Fields").run()
    assert "cannot be written" in texts(page, "caption")
    click(page, state.BRING_ADD)
    (reference,) = catalogue.own_tasks()
    assert Path(reference).is_relative_to(here.home)
    assert load_task(reference).title == "Fields"


def parquet(folder: Path, names: list[str] | None = None) -> Path:
    """Parquet files in the hub's layout; labels without names where none are given."""
    import datasets

    folder.mkdir()
    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    for part, n in (("train", 30), ("test", 9)):
        cells = []
        for i in range(n):
            file = io.BytesIO()
            Image.new("RGB", (12, 12), (i, 0, 80 * (i % 3))).save(file, "PNG")
            cells.append({"bytes": file.getvalue(), "path": None})
        features = datasets.Features({"image": datasets.Image(), "label": label})
        rows = {"image": cells, "label": [i % 3 for i in range(n)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{part}.parquet")
    return folder


def test_labels_without_names_are_named_on_the_page(here, tmp_path):
    folder = parquet(tmp_path / "digits")
    page = look_at_task(folder)
    assert "numbers without names" in texts(page, "info").replace("\\", "")
    assert word(page, "classnames").value.splitlines() == ["class 0", "class 1", "class 2"]
    word(page, "classnames").set_value("zero\none\ntwo").run()
    click(page, state.BRING_ADD)
    assert load_task(str(folder)).classnames == ("zero", "one", "two")


def test_pictures_of_parquet_files_are_those_of_their_rows(here, tmp_path):
    work = bringing_tasks.look(str(parquet(tmp_path / "digits", ["a", "b", "c"])), "me")
    assert work.wait(TIMEOUT)
    found = work.result
    assert found.counts == {"train": 27, "validation": 3, "test": 9}
    assert {part: n.tolist() for part, n in found.per_class.items()} == {
        "train": [10] * 3,
        "test": [3] * 3,
    }
    # blue says the class, red the row: the twin of what parquet() painted
    for picture, label in zip(found.pictures, found.shown, strict=True):
        red, _, blue = picture[40, 40]
        assert blue == 80 * label
        assert red % 3 == label
    assert np.bincount(found.shown).tolist() == [6, 5, 5]


def ruined(kind: str, folder: Path) -> Path:
    """Make a folder that must be refused."""
    root = folder / "ruined"
    root.mkdir()
    if kind == "parquet":
        (root / "train.parquet").write_bytes(b"PAR1" + b"x" * 50)
    elif kind == "columns":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), root / "train.parquet")
    elif kind == "pictures":
        for name in ("a", "b"):
            (root / name).mkdir()
            (root / name / "0.png").write_bytes(b"no picture")
    elif kind == "one class":
        (root / "a").mkdir()
        Image.new("RGB", (9, 9)).save(root / "a" / "0.png")
    elif kind == "bomb":
        import zlib

        for name in ("a", "b"):
            (root / name).mkdir()
            head = b"IHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
            chunk = (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
            (root / name / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    elif kind == "yaml":
        for name in ("a", "b"):
            (root / name).mkdir()
            Image.new("RGB", (9, 9)).save(root / name / "0.png")
        (root / "tauscope.yaml").write_text("!!python/object/apply:os.system ['touch marker']")
    return root


@pytest.mark.parametrize("kind", ["empty", "parquet", "columns", "pictures", "one class", "bomb"])
def test_a_ruined_data_set_is_one_sentence(kind, here, tmp_path):
    root = ruined(kind, tmp_path)
    before = contents(tmp_path)
    page = look_at_task(root)
    (told,) = [*page.error, *page.info]
    assert "\n" not in told.value
    assert state.BRING_ADD not in keys(page)
    assert contents(tmp_path) == before


def test_words_with_code_in_them_run_nothing(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = look_at_task(ruined("yaml", tmp_path))
    assert "not readable YAML" in texts(page, "info")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no path is given"),
        ("../birds", "leads upwards"),
        ("/nowhere/birds", "is not a folder"),
        ("nothing_of_that_name", "no data set named"),
        ("nobody/has-this-data", "not on this machine"),
        ("owner/../name", "no data set named"),
        (EVIL, "no data set named"),
    ],
)
def test_a_name_that_is_no_data_set_is_one_sentence(text, said, here):
    page = look_at_task(text)
    (told,) = [*page.error, *page.info]
    assert said in told.value.replace("\\", "").lower()
    assert "<img" not in told.value.replace(r"\<img", "")
    assert remembered(here) == {}


def test_a_task_is_decoded_in_the_background(here, pictures):
    page = click(look_at_task(pictures), state.BRING_ADD)
    page = click(page, state.BRING_DECODE)
    assert "33 train, 3 validation, 12 test" in texts(page, "success")
    split = load_split(load_task(str(pictures)), "train", 32, here)
    assert len(split.labels) == 33


def test_a_data_set_of_the_hub_keeps_its_words_in_a_task_file(here, tmp_path):
    """Where its words are changed, nothing of the hub's is."""
    from engine.tasks.own import write_task_file
    from engine.tasks.registry import of_file, of_hub

    known = of_hub("hub:tanganke/mnist-like:plain")
    path = write_task_file(known, {"title": "Mine", "classnames": ["a", "b"]}, here.home)
    again = of_file(path)
    assert (again.hub, again.config, again.name) == ("tanganke/mnist-like", "plain", known.name)
    assert again.given["classnames"] == ["a", "b"]
    file = tmp_path / "own.yaml"
    file.write_text("hub: a/b\ncolumns: {image: img}\ntitle: Old\n")
    write_task_file(of_file(file), {"title": "New"}, here.home)
    assert of_file(file).given == {"title": "New", "hub": "a/b", "columns": {"image": "img"}}


# ---------------------------------------------------------------------------- take a model away


def packed(page: AppTest) -> bringing_exports.Parcel:
    return page.session_state[state.OUT_WORK].result


def merge_at(alphas: dict[str, float], reading: str = "nonlinear", **changes) -> dict[str, str]:
    view = state.MergeView("miniature", reading, "sum", tuple(alphas), alphas)
    return {**state.to_query(view), **changes}


def test_the_export_starts_from_merge(here):
    page = AppTest.from_file(str(PAGES / "bring.py"), default_timeout=TIMEOUT)
    page.session_state[state.MERGE_ADDRESS] = merge_at({"signs": 0.7, "letters": -0.2})
    page.query_params["v"] = "export"
    page.run()
    assert page.number_input(key=f"{state.OUT_ALPHA}signs").value == 0.7
    assert page.number_input(key=f"{state.OUT_ALPHA}letters").value == -0.2
    (command,) = page.code
    args = build_parser().parse_args(shlex.split(command.value)[3:])
    assert dict(args.alphas) == {"signs": 0.7, "letters": -0.2}
    assert page.query_params["a"] in ("-0.2,0.7", ["-0.2,0.7"])


@pytest.mark.parametrize("kind", bringing_exports.KINDS)
def test_what_is_taken_away_is_what_the_verb_writes(kind, here, encoder, tmp_path, capsys):
    page = open_page("export", **merge_at({"letters": 0.25, "signs": 0.5}))
    page.segmented_control(key=state.OUT_KIND).set_value(kind).run()
    command = page.code[0].value
    page = click(page, state.OUT_TAKE)
    assert not page.error
    assert "32 tensors, equal to the bit" in html(page)
    parcel = packed(page)
    assert parcel.size == parcel.path.stat().st_size
    args = shlex.split(command)[3:]
    out = tmp_path / args[-1]
    assert main([*args[:-1], str(out), "--cache", str(here.home)]) == 0
    if kind == "huggingface":
        assert "CLIPVisionModelWithProjection" in parcel.card
        assert "| letters | 0.25 |" in texts(page, "markdown")
        with zipfile.ZipFile(parcel.path) as zipped:
            zipped.extractall(tmp_path / "unpacked")
        (folder,) = (tmp_path / "unpacked").iterdir()
        assert {p.name for p in folder.iterdir()} == {p.name for p in out.iterdir()}
        ours, theirs = folder / "model.safetensors", out / "model.safetensors"
        brought = bring(folder, encoder)
    else:
        ours, theirs = parcel.path, out
        brought = bring(parcel.path, encoder)
    ours, theirs = (safetensors.torch.load_file(path) for path in (ours, theirs))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    taus = {t: here.get(here.one("checkpoint", "", task=t, mode="nonlinear")) for t in FEW}
    expected = combine(encoder.theta0, taus, {"letters": 0.25, "signs": 0.5})
    for name, value in expected.items():
        torch.testing.assert_close(
            encoder.theta0[name] + brought.tau[name], value, rtol=0, atol=1e-6
        )


def test_one_task_vector_alone_keeps_its_bits(here, encoder):
    page = open_page("export", **merge_at({"signs": 1.0}, "linear"))
    page.segmented_control(key=state.OUT_KIND).set_value("vector").run()
    page = click(page, state.OUT_TAKE)
    entry = here.one("checkpoint", "", task="signs", mode="linear")
    brought = bring(packed(page).path, encoder)
    assert brought.mode == "linear"
    assert all(torch.equal(brought.tau[name], value) for name, value in here.get(entry).items())


def test_a_method_of_merge_is_exported(here, tmp_path):
    view = state.MergeView(
        "miniature", "nonlinear", None, FEW, {state.DIRECTION: 0.8}, "ties", {"density": 0.3}
    )
    page = open_page("export", **state.to_query(view))
    assert "density 0.3" in texts(page, "caption")
    command = shlex.split(page.code[0].value)[3:]
    page = click(page, state.OUT_TAKE)
    out = tmp_path / command[-1]
    assert main([*command[:-1], str(out), "--cache", str(here.home)]) == 0
    ours, theirs = (safetensors.torch.load_file(p) for p in (packed(page).path, out))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert packed(page).record["method"] == "ties"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (merge_at({"signs": 0.3}, "linear"), "no single set of weights"),
        (merge_at({"signs": 0.0}), "Every alpha is 0"),
    ],
)
def test_what_cannot_be_taken_away_says_why(query, said, here):
    page = open_page("export", **query)
    assert said in texts(page, "info")
    assert state.OUT_TAKE not in keys(page)


def test_a_parcel_goes_when_another_is_made(here):
    page = open_page("export", **merge_at({"signs": 0.3}))
    page = click(page, state.OUT_TAKE)
    first = packed(page).path
    assert first.exists()
    page.number_input(key=f"{state.OUT_ALPHA}signs").set_value(0.4).run()
    page = click(page, state.OUT_TAKE)
    import gc

    gc.collect()
    assert packed(page).path != first
    assert not first.exists()


def test_an_address_of_a_stranger_s_opens(here):
    page = open_page("<script>", e="../../x", r="x", t="%2e%2e,signs", a="nan,1e9", m="evil", o=":")
    assert not page.error
    page = open_page("export", e="../../x", r="x", t="%2e%2e,signs", a="nan,1e9", m="evil", o="a:b")
    assert not page.exception


def test_the_address_gives_the_view_back():
    merge = state.MergeView("miniature", "linear", "mean", FEW, {"signs": 0.5, "letters": -0.25})
    view = state.BringView("export", merge)
    assert state.bring_from_query(state.bring_to_query(view)) == view
    assert state.bring_from_query({"v": "<b>"}).section == "checkpoint"
    assert state.bring_to_query(state.BringView("task", merge)) == {"v": "task"}


# ------------------------------------------------------------------------------- command line


def told(capsys, *words) -> dict:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_line_remembers_as_the_page_does(here, pictures, tmp_path, capsys):
    cache = ("--cache", here.home)
    said = told(capsys, "tasks", "--add", pictures, *cache)
    assert said["added"] == said["remembered"] == [str(pictures)]
    assert said["tasks"][-1]["name"] == "land_use"
    assert catalogue.own_tasks() == {str(pictures): "land use"}
    file = tmp_path / "words.yaml"
    file.write_text("title: Fields\nclassnames: [river, forest, crop]\n")
    said = told(capsys, "tasks", "--add", pictures, "--words", file, *cache)
    assert said["tasks"][-1]["classes"] == ["river", "forest", "crop"]
    assert load_task(str(pictures)).title == "Fields"
    pictures.rename(tmp_path / "elsewhere")
    said = told(capsys, "tasks", *cache)
    assert [row["reference"] for row in said["gone"]] == [str(pictures)]
    said = told(capsys, "tasks", "--forget", pictures, *cache)
    assert said["remembered"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--add", "signs"), "miniature's own"),
        (("--forget", "signs"), "not among the tasks remembered"),
        (("--add", "a", "b", "--words", "x.yaml"), "those of one task"),
        (("--add", "/nowhere/birds"), "not a folder"),
        (("--add", "signs", "--words", "/nowhere.yaml"), "is no file"),
        (("--add", "/nowhere/birds", "--words", "WORDS"), "not a folder"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(here, words, said, tmp_path, capsys):
    (tmp_path / "words.yaml").write_text("title: Mine\n")
    words = [str(tmp_path / "words.yaml") if word == "WORDS" else word for word in words]
    assert main(["tasks", *words, "--cache", str(here.home)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert remembered(here) == {}
