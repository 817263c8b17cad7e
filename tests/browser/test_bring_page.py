"""Import & export in Chromium: mouse and keyboard, files that are sent, downloads, both sizes."""

import io
import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from engine.encoders import load_encoder
from engine.exchange import bring
from engine.store import Store
from engine.task_vectors import combine
from tests.browser.conftest import faults
from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
FEW = ("signs", "letters")
LIMIT = 90_000


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    return make_world(tmp_path_factory.mktemp("cache"), FEW)


@pytest.fixture(scope="module")
def address(world, server) -> str:
    return server(APP, {"TAUSCOPE_CACHE": str(world.home)})


@pytest.fixture(scope="module")
def theta(world) -> dict:
    source = torch.Generator().manual_seed(3)
    theta0 = load_encoder("miniature", world).theta0
    return {k: v + 0.01 * torch.randn(v.shape, generator=source) for k, v in theta0.items()}


@pytest.fixture
def weights(theta) -> bytes:
    return safetensors.torch.save({f"visual.{k}": v.contiguous() for k, v in theta.items()})


def go(page, address: str, section: str, query: str = "") -> None:
    page.goto(f"{address}/bring?v={section}{query}", timeout=LIMIT)
    page.get_by_role("heading", name="Import & export").wait_for(timeout=LIMIT)


def test_a_checkpoint_is_brought_by_keyboard(page, settled, address, world, weights, tmp_path):
    path = tmp_path / "finetuned.safetensors"
    path.write_bytes(weights)
    go(page, address, "checkpoint")
    field = page.get_by_role("textbox", name="File or folder")
    field.wait_for(timeout=LIMIT)
    field.focus()
    page.keyboard.type(str(path))
    page.keyboard.press("Enter")
    settled(page, LIMIT)
    page.get_by_role("button", name="Look at it").focus()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Import", exact=True)
    button.wait_for(timeout=LIMIT)
    assert page.get_by_text("open_clip state dict").first.is_visible()
    assert world.find("checkpoint", task="handwriting") == []
    settled(page, LIMIT)
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_text("on Checkpoints and Merge from now on").wait_for(timeout=LIMIT)
    (entry,) = world.find("checkpoint", task="handwriting")
    assert entry.meta["origin"]["file"] == path.name
    # by itself on Checkpoints, and on Merge
    with page.expect_popup(timeout=LIMIT) as opened:
        page.locator('a[href*="merge?e="]').click(timeout=LIMIT)
    opened.value.get_by_text("Handwritten digits").first.wait_for(timeout=LIMIT)
    world.delete(entry)


def test_a_file_that_is_sent_may_be_refused(page, settled, address, world, weights):
    before = {entry.digest for entry in world.find("checkpoint")}
    go(page, address, "checkpoint")
    page.get_by_text("Files of mine").click(timeout=LIMIT)
    chooser = page.locator("input[type=file]")
    chooser.wait_for(state="attached", timeout=LIMIT)
    look = page.get_by_role("button", name="Look at it")
    assert look.is_disabled()
    name = "<img src=x onerror=window.owned=1>.safetensors"
    chooser.set_input_files({"name": name, "mimeType": "", "buffer": weights[:500]})
    page.get_by_test_id("stFileChip").wait_for(timeout=LIMIT)
    look.click(timeout=LIMIT)  # once the file has come
    alert = page.get_by_role("alert")
    alert.wait_for(timeout=LIMIT)
    assert "damaged" in alert.inner_text()
    assert ".decode" not in alert.inner_text()
    assert page.evaluate("window.owned") is None
    assert {entry.digest for entry in world.find("checkpoint")} == before
    assert list(world.home.glob(".decode-*")) == []


def make_pictures(root: Path) -> Path:
    for place, name in enumerate(("Forest", "SeaLake", "<img src=x onerror=window.owned=1>")):
        for part, n in (("train", 12), ("test", 4)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", (20, 16), (80 * place, 10 * i, 40)).save(folder / f"{i}.png")
    return root


def test_a_task_is_brought_with_words_of_its_own(page, settled, address, tmp_path):
    root = make_pictures(tmp_path / "land")
    go(page, address, "task")
    field = page.get_by_role("textbox", name="Folder or data set")
    field.fill(str(root), timeout=LIMIT)
    # at once: leaving the field and the press reach the page together
    page.get_by_role("button", name="Look at it").click()
    add = page.get_by_role("button", name="Add this task")
    add.wait_for(timeout=LIMIT)
    assert page.locator("figure img").count() == 16
    assert page.evaluate("window.owned") is None
    page.get_by_text("Words: title, class names, prompts").click()
    title = page.get_by_role("textbox", name="Title")
    title.fill("Land from above")
    title.press("Enter")
    page.get_by_text("Written when you add it").wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    add.click()
    page.get_by_text("Added: choose it").wait_for(timeout=LIMIT)
    assert "Land from above" in (root / "tauscope.yaml").read_text()
    page.get_by_role("button", name="Decode now").click()
    page.get_by_text("Decoded: 33 train").wait_for(timeout=LIMIT)
    # chosen on Fine-tune, by keyboard
    page.goto(f"{address}/finetune", timeout=LIMIT)
    tasks = page.get_by_role("combobox", name=re.compile("Tasks"))
    tasks.wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    tasks.focus()
    page.keyboard.type("Land from")
    page.get_by_role("option", name="Land from above").wait_for(timeout=LIMIT)


def test_a_model_is_taken_away_at_merge_s_alphas(
    page, settled, address, world, theta, tmp_path, downloaded
):
    go(page, address, "export", "&e=miniature&r=nonlinear&c=sum&t=signs,letters&a=0.5,-0.25")
    page.get_by_text("Hugging Face folder").click(timeout=LIMIT)
    settled(page, LIMIT)
    # the keyboard moves an alpha: 0.5 to 0.55
    alpha = page.get_by_label("α Traffic signs")
    alpha.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.get_by_text("signs=0.55").wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    alpha.fill("0.6")
    # at once: leaving the field and the press reach the page together
    page.get_by_role("button", name="Prepare").click()
    page.get_by_text("signs=0.6 ").wait_for(timeout=LIMIT)
    download = page.get_by_role("button", name="Download")
    download.wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    assert page.get_by_text("Model card", exact=True).is_visible()
    file = downloaded(page, download)
    assert file.suggested_filename.endswith(".zip")
    data = Path(file.path()).read_bytes()
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    encoder = load_encoder("miniature", world)
    taus = {t: world.get(world.one("checkpoint", "", task=t, mode="nonlinear")) for t in FEW}
    expected = combine(encoder.theta0, taus, {"signs": 0.6, "letters": -0.25})
    brought = bring(folder, encoder)
    for name, value in expected.items():
        back = encoder.theta0[name] + brought.tau[name]
        torch.testing.assert_close(back, value, rtol=0, atol=1e-6)


def test_merge_leads_to_the_export_at_its_alphas(page, settled, address):
    query = "e=miniature&r=nonlinear&c=sum&t=signs,letters&a=0.65,0.1"
    page.goto(f"{address}/merge?{query}", timeout=LIMIT)
    link = page.get_by_role("link", name="Export at these alphas")
    link.wait_for(timeout=LIMIT)
    page.get_by_test_id("alpha-widget").wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    link.click()
    page.get_by_text("signs=0.65").wait_for(timeout=LIMIT)
    assert "v=export" in page.url


@pytest.mark.parametrize("section", ["checkpoint", "task", "export"])
def test_a_section_fits_a_telephone_without_errors(open_page, settled, address, section):
    with open_page(390, 844, "dark") as page:
        go(page, address, section)
        page.get_by_role("button", name=re.compile("Look at it|Prepare")).wait_for(timeout=LIMIT)
        settled(page, LIMIT)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.get_by_role("alert").count() == 0
        assert faults(page) == []
