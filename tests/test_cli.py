import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import open_clip
import pytest
import safetensors
import torch
from tiny_clip import CONFIG, tiny_weights

from engine.__main__ import GROUPS, build_parser, main
from engine.commands import finetuning, listing, measuring
from engine.commands.choices import open_tasks
from engine.commands.printing import table
from engine.commands.stopping import stoppable
from engine.encoders import load_encoder
from engine.evaluate import evaluate_nonlinear
from engine.merging import CONVENTIONS, METHODS
from engine.store import Store
from engine.tasks import load_split, miniature

ROOT = Path(__file__).parents[1]
TASKS = ("signs", "handwriting")  # not in the alphabet's order, which is that of JSON on disk
SHORT = ("--steps", "6", "--batch", "16", "--rate", "0.003", "--threads", "1")
FIRST_KEYS = [
    "encoder",
    "mode",
    "alpha",
    "absolute",
    "normalized",
    "zeroshot",
    "single",
    "merged",
    "validation",
    "n",
]


@pytest.fixture(scope="module", autouse=True)
def nothing_embedded(tmp_path_factory):
    """A checkout whose embedded cache is empty: what a test finds, it has made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.store.ROOT", tmp_path_factory.mktemp("checkout"))
        yield


@pytest.fixture(scope="module")
def world():
    """A small world, so that whole splits are measured in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(miniature.SIZES, "train", 300)
        patch.setitem(miniature.SIZES, "test", 80)
        yield


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A cache with a tiny encoder and its task vectors of two tasks, both ways of training."""
    home = tmp_path_factory.mktemp("cache")
    add_encoder(home)
    for mode in ("nonlinear", "linear"):
        words = ["finetune", "--tasks", *TASKS, "--mode", mode, "--half", *SHORT]
        assert main([*words, "--cache", str(home)]) == 0
    return home


@pytest.fixture
def ask(capsys):
    """``ask(*words) -> dict``: run a verb with --json; the answer is all of standard output."""

    def asked(*words):
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        assert out.startswith("{")
        assert out.endswith("}\n")
        return json.loads(out)

    return asked


@pytest.fixture
def refused(capsys):
    """``refused(*words) -> str``: run a verb that must end with 2; the one sentence it says."""

    def asked(*words):
        capsys.readouterr()
        try:
            status = main([*map(str, words)])
        except SystemExit as left:
            status = left.code
        said = capsys.readouterr()
        assert status == 2
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.err
        return said.err

    return asked


def add_encoder(home: Path) -> None:
    meta = {"name": "miniature", "config": CONFIG}
    Store(home).put("encoder", tiny_weights(), meta)


# ------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    ("verb", "equation"),
    [
        ("encoders", "Eq. 1"),
        ("fetch", "mu_t on the support D_t of Eq. 1"),
        ("heads", "closed-vocabulary models of App. D.6"),
        ("tasks", "Eq. 7"),
        ("checkpoints", "tau_t = theta_t* - theta_0"),
        ("pretrain", "log softmax"),
        ("finetune", "Eq. 3"),
        ("evaluate", "Wilson"),
        ("addition", "normalized accuracy of Eq. 7"),
        ("negation", "while the control task keeps 95 %"),
        ("disentanglement", "Eq. 6"),
        ("ntk", "K = U S V^T"),
        ("gradients", "tau^(1) = -eta g"),
        ("merge", "theta_0 + sum_t alpha_t tau_t, Eq. 1"),
        ("embed", "Eq. 1"),
        ("import", "tau = theta - theta_0"),
        ("export", "theta_0 + sum_t alpha_t tau_t, Eq. 1"),
        ("reproduce", "normalized by\nthat of theta_0 + tau_t (Eq. 7)"),
        ("jobs", "tau_t of Eq. 1"),
    ],
)
def test_help_names_the_equation(verb, equation, capsys):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert equation in said
    assert "arXiv:2305.12827" in said
    assert f"python -m engine {verb}" in said
    assert "--json" in said


@pytest.mark.parametrize("verb", ["addition", "negation", "merge", "export"])
def test_help_explains_every_method_and_option(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    said = capsys.readouterr().out
    offered = [name for name in METHODS if name not in CONVENTIONS or verb == "negation"]
    (typed,) = [a.choices for a in parser_of(verb)._actions if "--method" in a.option_strings]
    assert sorted(typed) == sorted(offered)
    for name in offered:
        assert f"{name}: {METHODS[name].does}" in said
        for option, about in METHODS[name].options.items():
            assert f"{option}={about.usual:g}: {about.does}; " in said


def parser_of(verb: str):
    (verbs,) = [action for action in build_parser()._actions if action.dest == "verb"]
    return verbs.choices[verb]


def test_every_verb_has_its_help_tested_and_its_function():
    tested = test_help_names_the_equation.pytestmark[0].args[1]
    assert {verb for verb, _ in tested} == set(GROUPS)


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in GROUPS)
    assert "95 % Wilson" in " ".join(said.split())


def test_help_is_quick_because_nothing_heavy_is_imported():
    heavy = "{'torch', 'numpy', 'open_clip', 'datasets'} & set(sys.modules)"
    code = f"import sys; import engine.__main__ as m; m.build_parser(); sys.exit(len({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# ---------------------------------------------------------------------------------- user's mistakes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "required: VERB; see python -m engine --help"),
        (["nosuch"], "invalid choice: 'nosuch'"),
        (["finetune", "--mode", "posthoc"], "invalid choice: 'posthoc'"),
        (["finetune", "--steps", "0"], "'0' is not a whole number above zero"),
        (["finetune", "--rate", "nan"], "'nan' is not a finite number"),
        (["evaluate", "--alphas", "signs"], "'signs' is not task=number"),
        (["evaluate", "--alphas", "=1"], "'=1' is not task=number"),
        (["evaluate", "--alpha", "1", "--alphas", "signs=1"], "not both"),
        (["evaluate", "--alphas", "birds=1"], "birds, which is not among: handwriting"),
        (["evaluate", "--encoder", "nosuch"], "no encoder is called 'nosuch'"),
        (["evaluate", "--tasks", "nosuch"], "no task named 'nosuch'"),
        (["evaluate", "--tasks", "/nosuch/folder"], "/nosuch/folder is not a folder"),
        (["addition", "--tasks", "signs", "signs"], "two tasks are called signs"),
        (["merge", "--out", "merged.pt", "--alpha", "1"], "must end in .safetensors"),
        (["merge", "--out", "merged.safetensors"], "say how much of each task"),
        (["merge"], "required: --out"),
    ],
)
def test_a_mistake_is_one_sentence(words, sentence, refused, tmp_path):
    if words and words[0] in GROUPS:
        words = [*words, "--cache", str(tmp_path)]
    assert sentence in refused(*words)


def test_what_is_missing_is_named_with_its_command(refused, tmp_path):
    assert "python -m engine pretrain" in refused("evaluate", "--cache", tmp_path)
    add_encoder(tmp_path)
    said = refused("addition", "--mode", "posthoc", "--cache", tmp_path)
    assert "finetune --encoder miniature --mode nonlinear --tasks handwriting" in said


def test_an_absent_device_is_named(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["evaluate", "--device", "cuda", "--cache", tmp_path]
    add_encoder(tmp_path)
    assert "there is no cuda device here" in refused(*words)


def test_a_cache_that_is_a_file_is_a_mistake(refused, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["pretrain", "--random-init", "--cache", tmp_path / "file"]
    assert "cannot write" in refused(*words)


def test_a_bug_stays_loud(monkeypatch, tmp_path):
    def broken(args):
        raise ValueError("a bug")

    monkeypatch.setattr(listing, "encoders", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["encoders", "--cache", str(tmp_path)])


def test_noise_of_libraries_stays_off_standard_output(monkeypatch, ask, tmp_path):
    real = listing.open_store

    def noisy(args):
        sys.stdout.write("library noise")
        return real(args)

    monkeypatch.setattr(listing, "open_store", noisy)
    assert ask("checkpoints", "--cache", tmp_path)["damaged"] == []


# --------------------------------------------------------------------------------------- listings


def test_encoders_are_listed(ask, trained, capsys):
    (row,) = ask("encoders", "--cache", trained)["encoders"]
    encoder = load_encoder("miniature", Store(trained))
    assert row["digest"] == encoder.digest
    assert row["parameters"] == sum(p.numel() for p in encoder.theta0.values())
    assert row["image_size"] == 16
    assert main(["encoders", "--cache", str(trained)]) == 0
    assert row["digest"][:12] in capsys.readouterr().out


def test_tasks_are_listed_with_those_of_the_user(ask, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for number, name in enumerate(("magpie", "robin")):
            folder = tmp_path / "birds" / split / name
            folder.mkdir(parents=True)
            for i in range(12):
                Image.new("RGB", (20, 20), (100 * number, 10 * i, 0)).save(folder / f"{i}.png")
    rows = ask("tasks", tmp_path / "birds")["tasks"]
    assert [row["name"] for row in rows][:-1] == [*miniature.family_names()]
    assert sum(row["control"] for row in rows) == 1
    birds = rows[-1]
    assert birds["classes"] == ["magpie", "robin"]
    assert birds["counts"]["test"] == 24
    assert birds["counts"]["train"] + birds["counts"]["validation"] == 24
    assert all("{}" in template for template in birds["templates"])


def test_checkpoints_are_listed_and_filtered_and_damage_is_told(ask, trained, tmp_path):
    everything = ask("checkpoints", "--cache", trained)["checkpoints"]
    assert len(everything) == 4
    linear = ask("checkpoints", "--cache", trained, "--mode", "linear")["checkpoints"]
    assert {row["task"] for row in linear} == set(TASKS)
    assert ask("checkpoints", "--cache", trained, "--task", "sites")["checkpoints"] == []
    assert all(row["n"] == {"validation": 30, "test": 80} for row in everything)
    assert all(0 <= row["accuracy"]["test"] <= 1 for row in everything)

    add_encoder(tmp_path)
    manifest = next((tmp_path / "encoder").glob("*.json"))
    manifest.write_text("{")
    (damaged,) = ask("checkpoints", "--cache", tmp_path)["damaged"]
    assert damaged["path"] == str(manifest)
    assert "damaged" in damaged["reason"]


# --------------------------------------------------------------------------------------- training


def test_a_checkpoint_says_what_made_it(trained):
    (entry,) = Store(trained).find("checkpoint", task="signs", mode="linear")
    tau = Store(trained).get(entry)
    encoder = load_encoder("miniature", Store(trained))
    assert tau.keys() == encoder.theta0.keys()
    assert {value.dtype for value in tau.values()} == {torch.float16}
    meta = entry.meta
    assert meta["encoder_digest"] == encoder.digest
    assert meta["recipe"]["rate"] == 0.003
    assert (meta["seed"], meta["steps"], meta["task_source"]) == (0, 6, "miniature")
    assert meta["versions"]["torch"] == torch.__version__.split("+")[0]
    assert [row["step"] for row in meta["log"]] == [1, 2, 3, 4, 5, 6]
    task = open_tasks(["signs"])[0]
    test = load_split(task, "test", 16, Store(trained))
    assert meta["split_digests"]["test"] == test.digest


def test_the_same_recipe_is_not_trained_twice(ask, trained, monkeypatch):
    words = ["finetune", "--tasks", *TASKS, "--half", *SHORT, "--cache", trained]
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "train_task", None)
        rows = ask(*words)["checkpoints"]
    assert [row["skipped"] for row in rows] == [True, True]


def test_force_trains_again_to_the_same_bits(ask, trained):
    words = ["finetune", "--tasks", "signs", "--half", *SHORT, "--cache", trained]
    (first,) = ask(*words)["checkpoints"]
    (second,) = ask(*words, "--force")["checkpoints"]
    assert second["skipped"] is False
    assert second["tau_digest"] == first["tau_digest"]


@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
def test_stopped_by_hand_it_resumes_to_the_same_bits(ask, world, tmp_path, monkeypatch, mode):
    add_encoder(tmp_path)
    words = ["finetune", "--tasks", "signs", "--mode", mode, *SHORT, "--cache", tmp_path]
    steps = []

    def interrupting(name, check):
        def progress(done, total, entry):
            steps.append(done)
            if done == 4 and steps.count(4) == 1:
                os.kill(os.getpid(), signal.SIGINT)
            check()

        return progress

    monkeypatch.setattr(finetuning, "reporter", interrupting)
    assert main([*map(str, words)]) == 130
    assert Store(tmp_path).find("checkpoint") == []
    (resumed,) = ask(*words)["checkpoints"]
    assert steps == [1, 2, 3, 4, 5, 6]
    (whole,) = ask(*words, "--force")["checkpoints"]
    assert steps[6:] == [1, 2, 3, 4, 5, 6]
    assert resumed["tau_digest"] == whole["tau_digest"]


@pytest.mark.slow
def test_killed_it_resumes_to_the_same_bits(tmp_path, capsys, as_elsewhere):
    words = ["finetune", "--tasks", "handwriting", "--steps", "600", "--batch", "16", "--json"]
    words += ["--checkpoint-every", "100", "--threads", "1", "--limit", "200", "--device", "cpu"]
    for name in ("killed", "whole"):
        add_encoder(tmp_path / name)
    command = [sys.executable, "-m", "engine", *words, "--cache", str(tmp_path / "killed")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    state = tmp_path / "killed" / "state"
    end = time.monotonic() + 120
    while not list(state.glob("*.safetensors")) and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert Store(tmp_path / "killed").find("checkpoint") == []

    def here(name):
        capsys.readouterr()
        assert main([*words, "--cache", str(tmp_path / name)]) == 0
        told = capsys.readouterr()
        return json.loads(told.out)["checkpoints"][0]["tau_digest"], told.err

    resumed, progress = here("killed")
    first = int(re.search(r"step (\d+) of 600", progress)[1])
    assert first > 100  # a run from the start tells of its step 12 first
    assert list(state.glob("*.safetensors")) == []
    assert resumed == here("whole")[0]


def test_a_second_ctrl_c_is_not_held_back():
    before = signal.getsignal(signal.SIGINT)
    with stoppable() as check:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_sigterm_is_held_back_until_the_state_is_saved():
    with stoppable() as check:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            check()


def test_pretraining_stores_both_encoders_and_is_not_repeated(ask, tmp_path):
    words = ["pretrain", "--images", "64", "--epochs", "1", "--batch", "32", "--cache", tmp_path]
    rows = ask(*words)["encoders"]
    assert [row["name"] for row in rows] == ["miniature", "miniature-random"]
    again = ask(*words)["encoders"]
    assert [row["skipped"] for row in again] == [True, True]
    assert [row["digest"] for row in again] == [row["digest"] for row in rows]
    names = [row["name"] for row in ask("encoders", "--cache", tmp_path)["encoders"]]
    assert names == ["miniature", "miniature-random"]
    (entry,) = Store(tmp_path).find("encoder", name="miniature")
    assert entry.meta["recipe"]["images"] == 64
    assert entry.meta["log"][-1]["step"] == 2
    assert list((tmp_path / "state").glob("*")) == []


# -------------------------------------------------------------------------------------- measuring


@pytest.mark.parametrize("mode", ["nonlinear", "posthoc", "linear"])
def test_addition_agrees_with_evaluate(ask, trained, mode):
    common = ["--mode", mode, "--cache", trained, "--tasks"]
    found = ask("addition", *common, *TASKS)
    assert list(found)[:10] == FIRST_KEYS
    assert (found["encoder"], found["mode"]) == ("miniature", mode)
    assert found["n"] == dict.fromkeys(TASKS, 80)
    assert [list(row) for row in found["validation"]] == [["alpha", "absolute", "normalized"]] * 21
    assert [row["alpha"] for row in found["validation"]] == [round(0.05 * k, 2) for k in range(21)]
    best = max(row["normalized"] for row in found["validation"])
    chosen = [row for row in found["validation"] if row["normalized"] == best]
    assert found["alpha"] == chosen[0]["alpha"]

    merged = ask("evaluate", *common, *TASKS, "--alpha", found["alpha"])
    assert {name: merged["accuracy"][name] for name in TASKS} == found["merged"]
    assert merged["absolute"] == pytest.approx(found["absolute"], rel=1e-12)
    zeroshot = ask("evaluate", *common, *TASKS)
    assert zeroshot["absolute"] == pytest.approx(found["zeroshot"], rel=1e-12)
    ratios = []
    for name in TASKS:
        alone = ask("evaluate", *common, *TASKS, "--alphas", f"{name}=1", "--control", "none")
        assert alone["accuracy"][name] == found["single"][name]
        ratios.append(found["merged"][name] / found["single"][name])
    assert sum(ratios) / 2 == pytest.approx(found["normalized"], rel=1e-12)


@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
def test_negation_agrees_with_evaluate_and_is_kept(ask, trained, mode):
    common = ["--mode", mode, "--cache", trained, "--tasks"]
    found = ask("negation", *common, *TASKS)
    heads = ["target_pretrained", "target", "control_pretrained", "control"]
    assert list(found)[:6] == [*heads, "control_validation_pretrained", "tasks"]
    assert list(found["tasks"]) == list(TASKS)
    for name, row in found["tasks"].items():
        words = [*common, *TASKS, "--alphas", f"{name}={-row['alpha']}"]
        again = ask("evaluate", *words)["accuracy"]
        assert (again[name], again["objects"]) == (row["target"], row["control"])
        on_validation = ask("evaluate", *words, "--split", "validation")["accuracy"]
        assert on_validation[name] == row["target_validation"]
        assert on_validation["objects"] == row["control_validation"]
        bound = 0.95 * found["control_validation_pretrained"]
        assert row["control_validation"] >= bound
    assert found["target"] == pytest.approx(sum(r["target"] for r in found["tasks"].values()) / 2)
    kept = Store(trained).find("result", what="negation", mode=mode)
    assert len(kept) == 1
    assert ask("negation", *common, *TASKS) == found
    assert len(Store(trained).find("result", what="negation", mode=mode)) == 1


def test_addition_by_a_method_is_kept_beside_the_sum(ask, trained, tmp_path):
    common = ["--mode", "nonlinear", "--cache", trained, "--tasks", *TASKS]
    total = ask("addition", *common)
    ties = ask("addition", *common, "--method", "ties", "--option", "density=0.3")
    usual = {"density": 0.2, "average": 0, "drop": 0.0, "seed": 0}
    assert (ties["method"], ties["options"]) == ("ties", {**usual, "density": 0.3})
    assert ties["single"] == total["single"]
    assert ask("addition", *common)["method"] == "sum"
    assert ask("addition", *common, "--method", "ties")["options"] == usual
    out = tmp_path / "ties.safetensors"
    words = ["merge", *common, "--method", "ties", "--option", "density=0.3", "--out", out]
    told = ask(*words, "--alpha", ties["alpha"])
    assert (told["method"], told["options"]) == ("ties", {**usual, "density": 0.3})
    with safetensors.safe_open(out, "pt") as file:
        theta = {n.removeprefix("visual."): file.get_tensor(n) for n in file.keys()}
    store = Store(trained)
    encoder = load_encoder("miniature", store)
    for task in open_tasks(TASKS):
        split = load_split(task, "test", encoder.image_size, store)
        assert evaluate_nonlinear(encoder, theta, split, encoder.head(task)) == pytest.approx(
            ties["merged"][task.name]
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["negation", "--keep", "2"], "--keep is 2; choose a share from 0 to 1"),
        (["negation", "--control", "signs"], "signs cannot be forgotten and kept"),
        (["addition", "--option", "density=1"], "--option belongs to a merging method"),
        (["addition", "--method", "ties", "--convention", "mean"], "does not go with --method"),
        (["addition", "--method", "ties", "--option", "gamma=1"], "TIES has no option 'gamma'"),
        (["addition", "--method", "dare", "--option", "drop=7"], "drop of DARE is 7; choose from"),
        (["negation", "--method", "dare", "--option", "seed=0.5"], "seed of DARE is 0.5; give a"),
        (["negation", "--option", "density=1"], "--option belongs to a merging method"),
        (
            ["merge", "--method", "tsv", "--alphas", "signs=1", "--out", "x.safetensors"],
            "tsv makes one direction: say how far with --alpha 1",
        ),
    ],
)
def test_wrong_settings_of_methods_are_one_sentence(refused, trained, words, said):
    assert said in refused(*words, "--cache", trained, "--tasks", *TASKS)


def test_the_modes_are_different_models(ask, trained):
    words = ["evaluate", "--tasks", *TASKS, "--alpha", "1", "--cache", trained]
    found = [ask(*words, "--mode", m)["accuracy"] for m in ("nonlinear", "posthoc", "linear")]
    assert found[0] != found[2]
    zeroshot = [
        ask("evaluate", "--cache", trained, "--tasks", *TASKS, "--mode", m)["accuracy"]
        for m in ("nonlinear", "posthoc", "linear")
    ]
    assert zeroshot[0] == zeroshot[1] == zeroshot[2]


def test_a_linear_checkpoint_is_measured_as_evaluate_measures_it(ask, trained):
    for mode in ("nonlinear", "linear"):
        rows = ask("checkpoints", "--cache", trained, "--mode", mode, "--task", "signs")
        measured = rows["checkpoints"][0]["accuracy"]
        for split in ("validation", "test"):
            words = ["--mode", mode, "--cache", trained, "--split", split, "--control", "none"]
            told = ask("evaluate", *words, "--tasks", "signs", "--alpha", "1")
            assert told["accuracy"]["signs"] == measured[split]


def test_the_same_question_is_answered_from_the_store(ask, trained, monkeypatch, capsys):
    words = ["addition", "--mode", "linear", "--tasks", *TASKS, "--cache", trained]
    first = ask(*words)
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "run_addition", None)
        assert ask(*words) == first
        again = ask(*words)
        assert list(again) == list(first)
        for table_of in ("single", "merged", "n", "taus"):
            assert list(again[table_of]) == list(first[table_of]) == list(TASKS)
        assert main([*map(str, words)]) == 0
        assert "chosen on validation" in capsys.readouterr().out
        with pytest.raises(TypeError):
            main([*map(str, words), "--force"])
        with pytest.raises(TypeError):
            main([*map(str, words), "--limit", "20"])
    assert ask(*words, "--force") == first


def test_another_task_vector_is_another_question(ask, trained, tmp_path):
    words = ["addition", "--mode", "linear", "--tasks", *TASKS, "--cache", trained]
    first = ask(*words)
    train = ["finetune", "--mode", "linear", "--tasks", "signs", "--half", "--cache", trained]
    ask(*train, *SHORT, "--seed", "7")
    second = ask(*words)
    assert second["seeds"] == {"handwriting": 0, "signs": 7}
    assert second["taus"]["signs"] != first["taus"]["signs"]
    ask(*train, *SHORT, "--force")  # the first one is the newest again
    assert ask(*words)["taus"] == first["taus"]


def test_responses_kept_for_more_task_vectors_serve_fewer(ask, trained, monkeypatch):
    words = ["evaluate", "--mode", "posthoc", "--cache", trained, "--tasks", *TASKS]
    both = ask(*words, "--alphas", "handwriting=0.4", "signs=0.2")
    alone = ask(*words, "--alphas", "handwriting=0.4", "signs=0.0")
    monkeypatch.setattr("engine.remembering.responses", None)
    assert ask(*words, "--alphas", "handwriting=0.4", "signs=0.2") == both
    assert ask(*words, "--alphas", "handwriting=0.4")["accuracy"] == alone["accuracy"]


def test_the_mean_convention_divides_alpha_by_the_number_of_tasks(ask, trained):
    words = ["evaluate", "--mode", "linear", "--cache", trained, "--tasks", *TASKS]
    total = ask(*words, "--alpha", "0.4")["accuracy"]
    assert ask(*words, "--alpha", "0.8", "--convention", "mean")["accuracy"] == total
    found = ask("addition", *words[1:], "--convention", "mean")
    merged = ask(*words, "--alpha", found["alpha"] / 2)["accuracy"]
    assert {name: merged[name] for name in TASKS} == found["merged"]


def test_evaluate_gives_control_and_interval(ask, trained):
    told = ask("evaluate", "--cache", trained, "--tasks", *TASKS, "--limit", "40")
    assert told["control"] == "objects"
    assert told["n"] == {"handwriting": 40, "signs": 40, "objects": 40}
    for name, fraction in told["accuracy"].items():
        low, high = told["interval"][name]
        assert low <= fraction <= high
        assert high - low < 0.33
    assert told["absolute"] == pytest.approx(
        (told["accuracy"]["handwriting"] + told["accuracy"]["signs"]) / 2
    )


# -------------------------------------------------------------------------------------- exporting


def test_merged_weights_give_the_accuracy_of_evaluate_in_open_clip(ask, trained, tmp_path):
    out = tmp_path / "merged.safetensors"
    common = ["--cache", trained, "--tasks", *TASKS, "--alphas", "handwriting=0.7", "signs=-0.2"]
    told = ask("merge", *common, "--out", out)
    assert told["contents"] == "theta"
    with safetensors.safe_open(out, "pt") as file:
        record = json.loads(file.metadata()["tauscope"])
        weights = {name: file.get_tensor(name) for name in file.keys()}
    assert record["alphas"] == {"handwriting": 0.7, "signs": -0.2}
    assert record["checkpoints"].keys() == set(TASKS)

    model = open_clip.CLIP(**CONFIG).eval()
    text = {k: v.float() for k, v in tiny_weights().items() if not k.startswith("visual.")}
    missing, unexpected = model.load_state_dict({**text, **weights}, strict=False)
    assert (missing, unexpected) == ([], [])
    expected = ask("evaluate", *common)["accuracy"]
    encoder = load_encoder("miniature", Store(trained))
    for task in open_tasks(TASKS):
        split = load_split(task, "test", 16, Store(trained))
        with torch.no_grad():
            z = model.encode_image(encoder.preprocess(split.images))
        guesses = (z @ encoder.head(task).T).argmax(dim=1)
        right = sum(int(g == y) for g, y in zip(guesses, split.labels, strict=True))
        assert right / len(split.labels) == expected[task.name]


def test_a_linearized_merge_holds_the_sum_of_task_vectors_alone(ask, trained, tmp_path, capsys):
    out = tmp_path / "tau.safetensors"
    words = ["merge", "--mode", "linear", "--cache", trained, "--tasks", *TASKS, "--out", out]
    assert ask(*words, "--alpha", "0.5", "--convention", "mean")["contents"] == "tau"
    with safetensors.safe_open(out, "pt") as file:
        got = {name: file.get_tensor(name) for name in file.keys()}
    store = Store(trained)
    taus = [store.get(store.find("checkpoint", task=name, mode="linear")[0]) for name in TASKS]
    assert got.keys() == {f"tau.visual.{name}" for name in taus[0]}
    for name in taus[0]:
        twin = 0.25 * taus[0][name].double() + 0.25 * taus[1][name].double()
        # float32 against float64
        torch.testing.assert_close(got[f"tau.visual.{name}"].double(), twin, rtol=1e-6, atol=1e-9)
    assert main([*map(str, words), "--alpha", "0.5"]) == 0
    assert "f_lin needs theta_0 and tau apart" in capsys.readouterr().out


def test_embedding_copies_what_is_final_once(ask, trained, tmp_path):
    folder = tmp_path / "embedded"
    ask("addition", "--mode", "linear", "--tasks", *TASKS, "--cache", trained)
    words = ["embed", "--cache", trained, "--to", folder, "--encoders", "miniature"]
    dry = ask(*words, "--dry-run")
    assert not folder.exists()
    done = ask(*words)
    assert [row["digest"] for row in done["copied"]] == [row["digest"] for row in dry["copied"]]
    kinds = [row["kind"] for row in done["copied"]]
    assert kinds.count("encoder") == 1
    assert kinds.count("checkpoint") == 4
    assert kinds.count("result") >= 1
    assert done["bytes"] == sum(p.stat().st_size for p in folder.rglob("*.*"))
    again = ask(*words)
    assert again["copied"] == []
    assert again["bytes"] == done["bytes"]

    # the copy answers without the original
    copy = Store(tmp_path / "empty", folder)
    assert len(copy.find("checkpoint")) == 4
    for entry in copy.find("checkpoint"):
        copy.get(entry)


def test_tasks_of_the_user_s_and_trials_are_not_embedded(ask, trained, tmp_path):
    store = Store(trained)
    (entry,) = store.find("checkpoint", task="signs", mode="nonlinear")[:1]
    mine = {**entry.meta, "task": "birds", "task_source": "/somewhere/birds", "tau_digest": "b"}
    words = ["--cache", trained]
    addition = ["addition", "--mode", "linear", "--tasks", *TASKS, *words]
    ask(*addition)
    ask(*addition, "--limit", "60")
    ask("evaluate", "--mode", "linear", "--tasks", "signs", *words)  # responses of theta_0 alone
    kinds = ["checkpoint", "responses", "result"]
    embed = ["embed", *words, "--to", tmp_path / "e", "--dry-run", "--kinds", *kinds]
    before = ask(*embed)["copied"]
    added = store.put("checkpoint", store.get(entry), mine)
    try:
        assert ask(*embed)["copied"] == before
    finally:
        store.delete(added)
    by_digest = {e.digest: e.meta for kind in kinds for e in store.find(kind)}
    chosen = [by_digest[row["digest"]] for row in before]
    assert all(meta["record"]["limit"] is None for meta in chosen if "record" in meta)
    assert all(meta["taus"] for meta in chosen if meta.get("content") == "class scores")
    assert any(meta.get("content") == "class scores" for meta in chosen)


def test_embedding_refuses_more_than_a_clone_may_carry(refused, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.commands.exporting.EMBEDDED_LIMIT", 10_000)
    words = ["embed", "--cache", trained, "--to", tmp_path / "e", "--encoders", "miniature"]
    assert "more than the 0.0 MB that a clone may carry" in refused(*words)
    assert not (tmp_path / "e").exists()


def test_embedding_nothing_is_a_mistake(refused, tmp_path):
    assert "nothing to embed" in refused("embed", "--cache", tmp_path, "--to", tmp_path / "e")


# --------------------------------------------------------------------------------------- printing


def test_tables_align_numbers_right_and_words_left():
    assert table(("name", "n"), [("a", 5), ("long", 1000)]) == "name     n\na        5\nlong  1000"


def test_the_module_runs_as_a_command(tmp_path):
    command = [sys.executable, "-m", "engine", "evaluate", "--alphas", "oops"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "not task=number" in done.stderr
