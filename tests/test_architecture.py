"""The law of the house: who may import whom, and what no file may do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# each room imports only from those before it; docs/design.md says the same
ENGINE_ORDER = (
    "errors", "checks", "provenance", "store", "banks", "tasks", "encoders", "linearize",
    "finetune", "task_vectors", "merging", "exchange", "responses", "evaluate", "remembering",
    "disentanglement", "ntk", "gradients", "jobs", "exhibits", "commands", "__main__",
)  # fmt: skip
APP_ROOMS = ("state", "figures", "components", "compute", "widgets", "pages", "server")
HEAVY = ("torch", "torchvision", "open_clip", "datasets", "transformers")
VAGUE = ("utils", "util", "helpers", "common", "misc")
CODE_CARRIERS = (
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
)


def sources(root: Path) -> list[Path]:
    """Every source file of the engine, the app and the entry script."""
    found = [*(root / "engine").rglob("*.py"), *(root / "app").rglob("*.py")]
    entry = root / "streamlit_app.py"
    return sorted([*found, entry] if entry.exists() else found)


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(root: Path, path: Path, tree: ast.AST) -> Iterator[str]:
    """Every module imported in a tree, relative ones resolved; ``from a import b`` gives a.b."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """Return the room of engine.x.y or app.x.y: x."""
    return (name.split(".") + [""])[1]


def wrong_directions(root: Path) -> list[str]:
    """Imports in the engine that run against its order, and modules without a place in it."""
    problems = []
    for path in sources(root):
        here = module_name(root, path)
        if not here.startswith("engine."):
            continue
        if room(here) not in ENGINE_ORDER:
            problems.append(f"{here} has no place in the order")
            continue
        for name in imported(root, path, ast.parse(path.read_text())):
            if name.split(".")[0] == "app":
                problems.append(f"{here} imports {name}: the engine does not know the app")
            elif name.startswith("engine.") and room(name) not in ENGINE_ORDER:
                problems.append(f"{here} imports {name}, which has no place in the order")
            elif name.startswith("engine."):
                if ENGINE_ORDER.index(room(name)) > ENGINE_ORDER.index(room(here)):
                    problems.append(f"{here} imports {name}, which comes after it")
    return problems


def forbidden_imports(root: Path) -> list[str]:
    """Imports that a floor may not have, whatever the order."""
    problems = []
    for path in sources(root):
        here = module_name(root, path)
        for name in imported(root, path, ast.parse(path.read_text())):
            top = name.split(".")[0]
            engine = name.startswith("engine.") and room(name) != "errors"
            rules = {
                "the engine draws nothing": here.startswith("engine")
                and top in ("streamlit", "plotly"),
                "no file may carry code": top in CODE_CARRIERS,
                "the miniature knows no other engine module": here.startswith(
                    "engine.tasks.miniature"
                )
                and name.startswith("engine.")
                and not name.startswith("engine.tasks.miniature"),
                "the verbs are __main__'s alone": name.startswith("engine.commands")
                and room(here) not in ("commands", "__main__"),
                "only app.compute asks the engine": here.startswith(("app", "streamlit_app"))
                and engine
                and room(here) != "compute",
                "figures are pure": here.startswith("app.figures")
                and (top in ("streamlit", "torch") or name.startswith("app.compute")),
                "nothing imports a page": name.startswith("app.pages")
                and not here.startswith("app.pages"),
                "who computes does not choose the store": name.endswith("store.default_store")
                and not here.startswith(("engine.commands", "app.compute")),
            }
            problems += [
                f"{here} imports {name}: {rule}" for rule, broken in rules.items() if broken
            ]
    return problems


def top_level_imports(root: Path, path: Path) -> set[str]:
    """What importing a file imports at once: not what waits inside functions or type hints."""
    tree = ast.parse(path.read_text())

    class Lazy(ast.NodeTransformer):
        def visit_FunctionDef(self, node):  # noqa: N802
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

        def visit_If(self, node):  # noqa: N802
            hints = "TYPE_CHECKING" in ast.unparse(node.test)
            return None if hints else self.generic_visit(node)

    return set(imported(root, path, Lazy().visit(tree)))


def reached_at_once(root: Path, start: Path) -> set[str]:
    """Every module that importing a file reaches, through our own modules."""
    files = {module_name(root, path): path for path in sources(root)}
    seen: set[str] = set()
    waiting = list(top_level_imports(root, start))
    while waiting:
        name = waiting.pop()
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            prefix = ".".join(parts[:end])
            if prefix not in seen:
                seen.add(prefix)
                if prefix in files:
                    waiting += top_level_imports(root, files[prefix])
    return seen


def unsafe_loads(root: Path) -> list[str]:
    """Calls that could unpickle: torch.load without weights_only=True, allow_pickle."""
    problems = []
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            named = {word.arg: ast.unparse(word.value) for word in node.keywords}
            unsafe = ast.unparse(node.func) == "torch.load" and named.get("weights_only") != "True"
            if unsafe or named.get("allow_pickle", "False") != "False":
                problems.append(f"{path.relative_to(root)}:{node.lineno}")
    return problems


def vague_names(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in sources(root) if path.stem in VAGUE]


def test_data_flows_one_way_in_the_engine():
    assert wrong_directions(ROOT) == []


def test_no_floor_imports_what_it_may_not():
    assert forbidden_imports(ROOT) == []


@pytest.mark.parametrize("start", ["streamlit_app.py", "app/pages/overview.py"])
def test_the_first_page_waits_for_no_heavy_import(start):
    reached = {name.split(".")[0] for name in reached_at_once(ROOT, ROOT / start)}
    assert "streamlit" in reached
    assert reached.isdisjoint(HEAVY)


def test_nothing_can_be_unpickled():
    assert unsafe_loads(ROOT) == []


def test_every_file_names_its_subject():
    assert vague_names(ROOT) == []


def test_rooms_of_the_app_are_the_known_ones():
    rooms = {room(module_name(ROOT, path)) for path in (ROOT / "app").rglob("*.py")}
    assert rooms - {""} <= set(APP_ROOMS)


def test_the_order_is_the_one_in_the_design():
    text = " ".join((ROOT / "docs" / "design.md").read_text().split())
    said = text.split("A module imports only from those before it: ")[1].split(". ")[0]
    assert said.replace("`", "").rstrip(".").split(", ") == list(ENGINE_ORDER)


def house(tmp_path: Path, files: dict[str, str]) -> Path:
    """Write a small house to break the law in."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("law", "files", "said"),
    [
        (wrong_directions, {"engine/store.py": "from engine.ntk import ntk"}, "comes after it"),
        (wrong_directions, {"engine/store.py": "def f():\n    import engine.ntk"}, "comes after"),
        (wrong_directions, {"engine/tasks/a.py": "from ..ntk import ntk"}, "comes after it"),
        (wrong_directions, {"engine/tasks/a.py": "from .. import ntk"}, "comes after it"),
        (wrong_directions, {"engine/checks.py": "from engine import store"}, "comes after it"),
        (wrong_directions, {"engine/ntk.py": "import app.compute"}, "does not know the app"),
        (wrong_directions, {"engine/new.py": ""}, "engine.new has no place"),
        (wrong_directions, {"engine/ntk.py": "from engine.new import x"}, "has no place"),
        (forbidden_imports, {"engine/ntk.py": "import plotly.graph_objects"}, "draws nothing"),
        (forbidden_imports, {"engine/ntk.py": "import pickle"}, "carry code"),
        (forbidden_imports, {"app/pages/a.py": "from engine.store import Store"}, "only app.comp"),
        (forbidden_imports, {"app/figures.py": "import streamlit"}, "figures are pure"),
        (forbidden_imports, {"app/compute.py": "import app.pages.a"}, "nothing imports a page"),
        (
            forbidden_imports,
            {"engine/tasks/miniature/a.py": "from engine.errors import UsageError"},
            "knows no other",
        ),
        (
            forbidden_imports,
            {"engine/ntk.py": "from engine.store import default_store"},
            "does not choose",
        ),
        (forbidden_imports, {"engine/jobs.py": "from engine.commands import a"}, "__main__'s"),
        (unsafe_loads, {"engine/ntk.py": "torch.load(p)"}, "ntk.py:1"),
        (unsafe_loads, {"engine/ntk.py": "torch.load(p, weights_only=False)"}, "ntk.py:1"),
        (unsafe_loads, {"app/a.py": "np.load(p, allow_pickle=True)"}, "a.py:1"),
        (vague_names, {"engine/tasks/helpers.py": ""}, "helpers.py"),
    ],
)
def test_the_law_is_enforced(tmp_path, law, files, said):
    problems = law(house(tmp_path, files))
    assert len(problems) == 1
    assert said in problems[0]


def test_heavy_imports_are_found_through_our_own_modules(tmp_path):
    root = house(tmp_path, {
        "app/pages/overview.py": "from app.compute import catalogue",
        "app/compute/__init__.py": "",
        "app/compute/catalogue.py": "try:\n    import engine.checks\nexcept ImportError:\n    pass",
        "engine/checks.py": "import torch",
    })  # fmt: skip
    assert "torch" in reached_at_once(root, root / "app/pages/overview.py")
    (root / "engine/checks.py").write_text("def f():\n    import torch")
    assert "torch" not in reached_at_once(root, root / "app/pages/overview.py")
