"""What a stranger meets in a clone: commands that exist, pinned packages, a small cache."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.store import KINDS, Store

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
EMBEDDED = ROOT / "cache" / "embedded"
MB = 10**6
# absolute paths that exist on one machine only
MACHINE_PATHS = re.compile(r"(?<![\w./:~$-])/(?:home|root|Users|work|mnt|data\d?|private)/[\w.-]+")


def load_script(name: str):
    """Import a script of docs/ by its path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tracked() -> list[Path]:
    """Files that git tracks; skip where this is no clone."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git clone")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def machine_paths(text: str) -> list[str]:
    return MACHINE_PATHS.findall(text)


# ------------------------------------------------------------------------------ commands and files


def test_the_readme_s_make_commands_exist():
    named = set(re.findall(r"make ([a-z]+)\b", README))
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.M))
    assert {"app", "test"} <= named <= targets


def test_the_readme_s_verbs_and_options_exist():
    from engine.commands.parser import build_parser

    lines = re.findall(r"python -m engine ([^\n#&`|]+)", README)
    assert len(lines) >= 10
    for line in lines:
        words = line.replace("ENCODER", "miniature").replace("MODE", "linear").split()
        args = build_parser().parse_args(words)
        assert args.verb == words[0]


def test_the_readme_s_links_and_pictures_are_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert "docs/screenshot.png" in local
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_readme_s_tasks_are_the_miniature_s():
    from engine.tasks import TASKS

    named = set(re.findall(r"\b([a-z]+)=-?\d", README))
    assert named
    assert named <= set(TASKS)


def test_the_layout_names_every_folder():
    for folder in ("engine", "app", "cache", "tests", "benchmarks", "docs"):
        assert f"`{folder}/" in README
        assert (ROOT / folder).is_dir()


def test_ci_calls_the_readme_s_test_command():
    script = ROOT / ".ci" / "run"
    lines = script.read_text().splitlines()
    assert "make test" in lines
    started = next(i for i, line in enumerate(lines) if " tests/slurm/run.sh " in line)
    assert lines[started].endswith("&")
    assert 'wait "$slurm"' in lines[started:]  # its status is that of the check
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_make_test_checks_format_lint_and_runs_the_slow_tests():
    command = ["make", "-n", "test", "VENV=.absent"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for part in ("ruff format --check .", "ruff check .", "pytest --slow"):
        assert f"/{part}" in done.stdout or f"-m {part}" in done.stdout
    assert "pip install --no-compile -r requirements-dev.txt" in done.stdout
    assert done.stdout.index("pip install") < done.stdout.index("ruff format")


def test_make_names_what_is_missing(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    for python, said in ((old, "Python 3.9.2"), (tmp_path / "none", "found no")):
        command = ["make", "app", f"VENV={tmp_path}/venv", f"PYTHON={python}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode != 0
        assert "needs Python 3.11 or newer" in done.stderr
        assert said in done.stderr
        assert not (tmp_path / "venv").exists()


# ------------------------------------------------------------------------------------ requirements


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_with_a_reason(name):
    lines = (ROOT / name).read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert len(packages) >= 3
    for line in packages:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*\s+# \S.{8,}", line), line


def test_the_development_requirements_include_the_runtime_s():
    assert "-r requirements.txt" in (ROOT / "requirements-dev.txt").read_text().splitlines()


def test_every_import_is_a_requirement():
    """A package that is imported but not named would be there by chance."""
    names = {"yaml": "pyyaml", "PIL": "pillow", "open_clip": "open_clip_torch"}
    required = {
        re.split("[=<>]", line)[0].lower()
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / name).read_text().splitlines()
    }
    ours = {"tests", "engine", "app", "docs", "benchmarks"}
    ours |= {path.stem for name in ("tests", "benchmarks") for path in (ROOT / name).rglob("*.py")}
    missing = {}
    for path in tracked():
        for module in imported(path) if path.suffix == ".py" else ():
            known = module in sys.stdlib_module_names or module in ours
            if not known and names.get(module, module).lower() not in required:
                missing.setdefault(module, path.name)
    assert missing == {}


def imported(path: Path) -> set[str]:
    """Top names of all packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


# ------------------------------------------------------------------------------------------- cache


def test_the_embedded_cache_is_small_and_whole():
    assert EMBEDDED.is_dir(), "nothing is embedded: python -m engine embed"
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 64 * MB
    store = Store(EMBEDDED)
    assert store.damaged() == []
    entries = [entry for kind in KINDS for entry in store.find(kind)]
    for entry in entries:
        store.get(entry)
    assert max(e.size for e in entries if e.kind == "encoder") <= 12 * MB
    named = {e.path for e in entries} | {e.path.with_suffix(".json") for e in entries}
    assert sorted(set(files) - named) == []


def test_git_ignores_the_local_cache_alone():
    ignored = ["cache/local/x", ".venv/x", "engine/__pycache__/x"]
    kept = ["cache/embedded/encoder/x", "cache/README.md", "docs/screenshot.png"]
    command = ["git", "-C", str(ROOT), "check-ignore", *ignored, *kept]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a git clone")
    assert done.stdout.split() == ignored


def test_nothing_tracked_names_one_machine_s_paths():
    found = {}
    for path in tracked():
        if path.suffix in {".safetensors", ".png", ".parquet"} or path == Path(__file__):
            continue
        paths = machine_paths(path.read_text())
        if paths:
            found[str(path.relative_to(ROOT))] = paths
    assert found == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("open('/home/ann/x.png')", ["/home/ann"]),
        ("see /root/project and /Users/bob", ["/root/project", "/Users/bob"]),
        ("/path/to/birds, cache/work/x, https://host/home/page, $A/data/b", []),
    ],
)
def test_machine_paths_are_recognised(text, expected):
    assert machine_paths(text) == expected


# ----------------------------------------------------------------------------- the README's figures


def result(encoder: str, mode: str, n: dict) -> dict:
    return {
        "encoder": encoder,
        "mode": mode,
        "alpha": 0.35,
        "absolute": 0.7,
        "normalized": 0.8125,
        "zeroshot": 0.5,
        "single": dict(zip(n, (0.9, 0.8), strict=True)),
        "merged": dict.fromkeys(n, 0.7),
        "seeds": dict.fromkeys(n, 0),
        "n": n,
    }


def test_the_figures_table_is_filled_between_its_marks():
    script = load_script("make_figures_table")
    n = {"a": 1000, "b": 500}
    table = script.table_of([result("miniature", mode, n) for mode in script.MODES])
    assert "| miniature | posthoc | 50.0 | 85.0 | 70.0 | 81.2 | 0.35 |" in table
    assert "over 2 tasks, 1,500 test images" in table
    text = f"before\n{script.BEGIN}\nold\n{script.END}\nafter"
    filled = script.filled(text, table)
    assert filled == f"before\n{script.BEGIN}\n{table}\n{script.END}\nafter"
    assert script.filled(filled, table) == filled
    with pytest.raises(ValueError, match="once each"):
        script.filled("no marks", table)


def test_results_of_different_images_do_not_share_a_table():
    script = load_script("make_figures_table")
    unlike = [result("m", "linear", {"a": 1, "b": 2}), result("m", "linear", {"a": 1, "b": 3})]
    with pytest.raises(ValueError, match="different images"):
        script.table_of(unlike)


def test_the_readme_s_figures_are_those_of_the_embedded_results():
    """Every row of the table is an embedded answer of ``addition``."""
    script = load_script("make_figures_table")
    table = README.split(script.BEGIN)[1].split(script.END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| mini")]
    results = Store(EMBEDDED).find("result", what="addition")
    known = script.rows_of([entry.meta["record"] for entry in results])
    assert len(rows) >= 3
    assert [row for row in rows if row not in known] == [], json.dumps(known, indent=1)


def test_the_figures_on_gradients_are_drawn_from_the_embedded_records(tmp_path, monkeypatch):
    script = load_script("make_gradient_figures")
    monkeypatch.setattr(script, "DOCS", tmp_path)
    script.main()

    def written(path: Path) -> list[str]:
        return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text("utf-8"))

    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"gradients_{name}.svg" for name in ("bridge", "error", "merging", "shares")]
    for name in names:
        assert written(tmp_path / name) == written(ROOT / "docs" / name)
        assert f"]({name})" in (ROOT / "docs" / "findings.md").read_text("utf-8")
    labels = " ".join(written(tmp_path / "gradients_error.svg"))
    record = script.holding(script.answers()["gd"], "exactness")
    for mode in ("nonlinear", "linear"):
        tasks = record["exactness"][mode]["tasks"].values()
        slope = sum(task["slope_corrected"] for task in tasks) / len(tasks)
        assert f"Hg: slope {slope:.2f}" in labels
