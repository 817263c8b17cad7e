"""The GPU checklist: what it says without a GPU, its table, and that all of it runs small."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bench_finetune, gpu_checks, gpu_parts, measuring
from benchmarks.gpu_checks import SECTIONS, Asked, Row, table

ROOT = Path(__file__).resolve().parent.parent


def test_without_a_gpu_it_says_so_and_ends_with_2(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_checks.main([]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 1
    assert "There is no GPU here" in said.err
    assert "--device cpu --quick" in said.err


@pytest.mark.slow
def test_the_script_ends_as_the_module_does():
    done = subprocess.run(
        ["benchmarks/gpu_checks.sh", "--only", "machine"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no GPU here" in done.stderr


def test_a_row_says_whether_it_holds_and_the_whole_ends_with_1(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        gpu_checks,
        "SECTIONS",
        {
            "first": lambda asked: [Row("speed", "2.0x", "<= 1.8", False), Row("name", "a | b")],
            "second": lambda asked: [Row("bits", "yes", "yes", True)],
        },
    )
    out = tmp_path / "checks.json"
    words = ["--device", "cpu", "--out", str(out)]
    assert gpu_checks.main([*words, "--only", "first"]) == 1
    assert gpu_checks.main([*words, "--only", "second"]) == 1  # the kept section still fails
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "| first | speed | 2.0x | <= 1.8 | NO |",
        "| first | name | a / b |  |  |",
        "| second | bits | yes | yes | yes |",
    ]
    assert list(json.loads(out.read_text())["sections"]) == ["first", "second"]
    assert table({}).count("\n") == 1


def test_a_section_that_fails_is_a_row(monkeypatch):
    monkeypatch.setattr(measuring, "fresh", lambda *_: {"failed": "out of memory"})
    monkeypatch.setattr(gpu_parts, "main", lambda: 1 / 0)

    class Args:
        device, quick, encoder = "cpu", False, "miniature"

    for quick in (False, True):
        Args.quick = quick
        asked = Asked(Args)
        for name in ("machine", "exact", "bits", "large", "memory", "curvature"):
            (row,) = SECTIONS[name](asked)
            assert row.holds is False
            assert ("division by zero" if quick else "out of memory") in row.measured


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_runs_small_on_the_cpu_and_prints_the_table(capsys, tmp_path, monkeypatch):
    fresh = measuring.fresh

    def here(module, words, *more):
        """Several processes are several; what wants one for its figures alone runs in this one."""
        if "--processes" in words and words[words.index("--processes") + 1] != "1":
            return fresh(module, words, *more)
        out = io.StringIO()
        monkeypatch.setattr(sys, "argv", [module, *words])
        with contextlib.redirect_stdout(out):
            importlib.import_module({"engine": "engine.__main__"}.get(module, module)).main()
        return json.loads(out.getvalue().splitlines()[-1])

    monkeypatch.setattr(measuring, "fresh", here)
    words = ["--device", "cpu", "--quick", "--out", str(tmp_path / "checks.json"), "--only"]
    chosen = list(SECTIONS)
    assert gpu_checks.main([*words, *chosen]) == 0
    lines = capsys.readouterr().out.splitlines()
    sections = [line.split(" | ")[0].removeprefix("| ") for line in lines if line[:1] == "|"]
    assert list(dict.fromkeys(sections[2:])) == chosen
    said = "\n".join(lines)
    assert "failed" not in said
    for wanted in ("same bits | yes", "the paper's route", "2,000 steps of 8", "ntk, N = 4"):
        assert wanted in said
    for wanted in ("memory of a linear fine-tune", "one fine-tune over 2 processes", "<= 2x"):
        assert wanted in said


@pytest.mark.parametrize(
    ("encoder", "seconds", "aim", "holds"),
    [
        ("ViT-B-32-quickgelu:random", 1.9, "<= 2x", True),
        ("ViT-B-32-quickgelu:random", 2.1, "<= 2x", False),
        ("ViT-L-14-quickgelu:random", 9.0, "", None),
    ],
)
def test_a_kernel_is_held_against_its_products(monkeypatch, encoder, seconds, aim, holds):
    class Args:
        device, quick = "cuda", False

    Args.encoder = encoder
    asked = Asked(Args)
    monkeypatch.setattr(asked, "run", lambda *_: {"seconds": seconds, "bytes": 2**30})
    monkeypatch.setattr(asked, "part", lambda *_: {"seconds": 1.0})
    (row,) = SECTIONS["ntk"](asked)
    assert (row.aim, row.holds) == (aim, holds)
    assert f"{seconds:.2f}x" in row.measured


# ------------------------------------------------------------------------------- how it is measured


def test_operations_are_those_of_the_products():
    a, b, c = torch.randn(3, 4), torch.randn(4, 5), torch.zeros(3, 5)
    assert measuring.operations(lambda: a @ b) == 2 * 3 * 4 * 5
    assert measuring.operations(lambda: c.addmm_(a, b)) == 2 * 3 * 4 * 5
    assert measuring.operations(lambda: a + a) == 0


def test_a_linear_step_takes_five_thirds_of_the_products():
    """Value, two products a tangent, two on the way back: 5 for 3; and what recomputing adds."""
    made = bench_finetune.setup("miniature", "cpu", 4)
    counted = {
        name: measuring.operations(bench_finetune.route(made, name, "float32"))
        for name in ("forward", "nonlinear", "linear", "nonlinear again", "linear again")
    }
    forward = counted["forward"]
    # the first layer's images and the frozen head have no tangent: a little less than whole passes
    assert 2.8 <= counted["nonlinear"] / forward <= 3.0
    assert 1.6 <= counted["linear"] / counted["nonlinear"] <= 5 / 3
    assert 0.9 <= (counted["nonlinear again"] - counted["nonlinear"]) / forward <= 1.0
    assert 0.9 <= (counted["linear again"] - counted["linear"]) / forward <= 1.0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_the_papers_route_gives_our_gradient():
    made = bench_finetune.setup("miniature", "cpu", 4)
    assert 0 < bench_finetune.agreement(made) < 1e-5


def test_routes_take_turns_and_one_that_fails_says_so():
    calls = []
    found = measuring.alternating(
        {"a": lambda: calls.append("a"), "bad": lambda: 1 / 0, "b": lambda: calls.append("b")},
        2,
        "cpu",
    )
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert found["bad"] == {"failed": "ZeroDivisionError: division by zero"}
    assert list(found) == ["a", "bad", "b"]
    assert found["a"]["spread"][0] <= found["a"]["seconds"] <= found["a"]["spread"][1]
