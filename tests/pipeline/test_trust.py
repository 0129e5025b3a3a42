"""Foreign input is data: no code of a recipe, lock or run folder runs unless the command line names it."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

from tests.helpers.signals import SIGNALS
from tests.helpers.small import RECIPE, vlmill, write_recipe
from tests.pipeline.test_custom_filters import FILTER as FIVE
from vlmill.pipeline import cli
from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.seal import seal_yaml
from vlmill.pipeline.engine.store import Receipt
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import read_lock, read_locked_recipe
from vlmill.pipeline.recipe.validate import LONGEST
from vlmill.train.ablation.runs import prepare_runs
from vlmill.train.ablation.spec import list_trials, read_ablation

FILTER = FIVE.replace("int = 5", "int = 8")

HELD_OUT = [
    {
        **RECIPE["stages"][0],
        "mixture": {**RECIPE["stages"][0]["mixture"], "held_out": {"web": 0.5}},
    }
]


class Touches:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


# -- filters of somebody else
# -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with a custom filter, trained; then its lock, and a recipe, hold other code, which leaves a file behind."""
    folder = tmp_path_factory.mktemp("trust")
    recipe = write_recipe(folder, stages=HELD_OUT, expect={"kept": 0})  # the filter drops all of a source
    (folder / "mine.py").write_text(FILTER)
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0, "--filter", folder / "mine.py") == 0
    assert vlmill("train", folder / "run", "--device", "cpu", "--threads", 1) == 0
    shutil.copytree(folder / "run", folder / "honest")
    code = f"open({str(folder / 'ran')!r}, 'w').close()\n{FILTER}"
    held = {"custom_filters": {"mine.py": {"sha256": custom_filters.hash_code(code), "code": code}}}
    lock = folder / "run/recipe.lock.yaml"
    lock.write_text(seal_yaml(yaml.safe_dump(yaml.safe_load(lock.read_text()) | held)))
    (folder / "inline.yaml").write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | held))
    (folder / "ablation.yaml").write_text(
        yaml.safe_dump({"recipe": "inline.yaml", "baseline": "a", "variants": {"a": {}, "b": {"seed": 1}}})
    )
    return folder


WORKS, REFUSES = 0, 1

COMMANDS = {
    "build": [
        (REFUSES, "build recipe.yaml --out run --workers 0"),
        (REFUSES, "build inline.yaml --out other --workers 0"),
        (REFUSES, "build run/recipe.lock.yaml --out other --workers 0"),
    ],
    "new": [(REFUSES, "new run/recipe.lock.yaml"), (REFUSES, "new run/steps")],
    "check": [(WORKS, "check recipe.yaml"), (REFUSES, "check inline.yaml")],
    "schema": [(WORKS, "schema")],
    "status": [(WORKS, "status run"), (WORKS, "status run --json")],
    "report": [
        (WORKS, "report run"),
        (WORKS, "report run --reason filter:short"),
        (WORKS, "report run --html report.html"),
        (REFUSES, "report run --section contamination"),  # it was compared with nothing
    ],
    "what-if": [
        (WORKS, "what-if run"),
        (WORKS, "what-if recipe.yaml --out run --set shape.max_ratio=2"),
        (REFUSES, "what-if run --set short.least=9"),
        (REFUSES, "what-if recipe.yaml --out run --set short.least=9"),
        (REFUSES, "what-if inline.yaml --out run"),
    ],
    "stats": [(WORKS, "stats run"), (WORKS, "stats run --html stats.html")],
    "diff": [(WORKS, "diff run run")],
    "trace": [(WORKS, "trace run quiz/quiz.parquet#0"), (WORKS, "trace run --step 0")],
    "verify": [(WORKS, "verify run")],
    "takedown": [
        (WORKS, "takedown run --id quiz/quiz.parquet#0 --dry-run --workers 0"),
        (REFUSES, "takedown run --id quiz/quiz.parquet#0 --workers 0"),
    ],
    "clean": [(WORKS, "clean run"), (WORKS, "clean run --yes")],
    "disclose": [(WORKS, "disclose run")],
    "export": [(WORKS, "export run --to llava --out exported")],
    "explore": [(REFUSES, "explore run/steps")],  # of a run it serves until it is interrupted, and runs no code
    "preview": [(WORKS, "preview recipe.yaml"), (REFUSES, "preview inline.yaml")],
    "train": [(WORKS, "train run --device cpu --threads 1")],
    "evaluate": [(WORKS, "evaluate run --device cpu --threads 1")],
    "ablate": [(REFUSES, "ablate ablation.yaml --out ablation --workers 0 --device cpu")],
    "mixtures list": [(WORKS, "mixtures list")],
    "mixtures show": [(REFUSES, "mixtures show run/recipe.lock.yaml")],
    "mixtures import": [(REFUSES, "mixtures import run/recipe.lock.yaml")],
}
"""Every command, over a run, a recipe and a lock of somebody else, and whether it ends with 0."""


def registered(command, name=""):
    """The names of all commands."""
    if not hasattr(command, "commands"):
        return [name]
    return [found for below, item in command.commands.items() for found in registered(item, f"{name} {below}".strip())]


def test_every_command_is_tried_below():
    assert sorted(COMMANDS) == sorted(registered(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_runs_code_that_its_line_does_not_name(folder, monkeypatch, name, capsys):
    monkeypatch.chdir(folder)
    before = (folder / "run/recipe.lock.yaml").read_bytes()
    for status, line in COMMANDS[name]:
        (folder / "ran").unlink(missing_ok=True)
        assert vlmill(*shlex.split(line)) == status, line
        assert not (folder / "ran").exists(), line
        if status == REFUSES and name in ("build", "what-if", "takedown", "ablate"):
            assert "code runs only if it is named" in " ".join(capsys.readouterr().err.split()), line
    assert (folder / "run/recipe.lock.yaml").read_bytes() == before
    assert not (folder / "run/takedowns.yaml").exists()


def test_what_is_refused_says_the_sha256_how_to_look_and_the_next_command(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert vlmill("what-if", "run", "--set", "short.least=9") == 1
    said = capsys.readouterr().err
    code = read_lock(Path("run"))["custom_filters"]["mine.py"]
    assert f"'mine.py': sha256 {code['sha256']}" in said
    (look,) = re.findall(r"^  python (.*)$", said, re.MULTILINE)
    shown = subprocess.run([sys.executable, *shlex.split(look)], capture_output=True, text=True, check=True)
    assert shown.stdout == code["code"] + "\n"
    (again,) = re.findall(r"^  vlmill (.*)$", said, re.MULTILINE)
    assert not (folder / "ran").exists()
    try:
        assert vlmill(*shlex.split(again)) == 0
        assert (folder / "ran").exists(), "what was named runs, so that the tests above would see it"
    finally:
        (folder / "ran").unlink(missing_ok=True)


def test_a_build_goes_on_with_the_same_file_or_with_the_sha256_of_its_code_and_else_asks(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    lock = Path("honest/recipe.lock.yaml").read_bytes()
    build = ("build", "recipe.yaml", "--out", "honest", "--workers", 0)
    digest = custom_filters.hash_code(FILTER)
    Path("renamed.py").write_text(FILTER)
    for named in (("--filter", "mine.py"), ("--trust-code", digest), ("--filter", "renamed.py")):
        assert vlmill(*build, *named) == 0
        assert Path("honest/recipe.lock.yaml").read_bytes() == lock
    capsys.readouterr()
    assert vlmill(*build) == 1
    assert f"vlmill build recipe.yaml --out honest --workers 0 --trust-code={digest}" in capsys.readouterr().err
    assert vlmill(*build, "--trust-code", "0" * 64) == 1
    assert f"no code of this sha256 in the run's lock; it has {digest} (mine.py)" in capsys.readouterr().err
    assert vlmill("build", "honest/recipe.lock.yaml", "--out", "other", "--until", "survey", "--workers", 0) == 1
    assert "--trust-code" in capsys.readouterr().err


def test_takedcustom_filters_again_with_the_file_or_the_sha256(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    root = shutil.copytree("honest", tmp_path / "run")
    take = ("takedown", root, "--id", "quiz/quiz.parquet#0", "--workers", 0)
    assert vlmill(*take) == 1
    assert not (root / "takedowns.yaml").exists()
    assert vlmill(*take, "--filter", "mine.py") == 0
    assert vlmill("verify", root) == 0


def test_code_that_is_not_what_its_sha256_says_is_refused_by_all(folder, tmp_path, capsys):
    root = tmp_path / "run"
    root.mkdir()
    lock = yaml.safe_load((folder / "run/recipe.lock.yaml").read_text())
    lock["custom_filters"]["mine.py"]["code"] += "\n"
    (root / "recipe.lock.yaml").write_text(yaml.safe_dump(lock))
    with pytest.raises(StoreError, match=r"custom_filters\.mine\.py: sha256 is .* changed by hand.*--accept-changes"):
        read_locked_recipe(root)


def test_the_filters_of_a_lock_are_known_without_their_code(folder):
    recipe = read_locked_recipe(folder / "run")
    assert [filter_.name for filter_ in recipe.filters] == ["language", "shape", "short"]
    assert recipe.all_verdict_steps() == ("language", "shape", "short", "dedupe")
    with pytest.raises(RecipeError, match="'short' .*mine.py.* cannot be asked: its code runs only if it is named"):
        list(recipe.filters[-1].decide([], []))
    assert not (folder / "ran").exists()


def test_an_ablation_asks_the_filters_whose_files_its_line_names(folder, tmp_path):
    spec = folder / "clean.yaml"
    spec.write_text(yaml.safe_dump({"recipe": "recipe.yaml", "baseline": "a", "variants": {"a": {}, "b": {"seed": 1}}}))
    planned = list_trials(read_ablation(spec), {}, None, [("mine.py", FILTER)])
    made = []
    with pytest.raises(StoreError, match="no mixture"):
        prepare_runs(tmp_path, planned, lambda _, recipe, *__: made.append(recipe.filters[-1]))
    assert [filter_.code for filter_ in made[:1]] == [FILTER]


@pytest.mark.parametrize("value", ["{mine.py: {sha256: '0', code: x}}", "null"])
def test_set_brings_no_code(folder, value):
    with pytest.raises(
        RecipeError, match="--set custom_filters: code of filters comes from a file, with --filter FILE"
    ):
        load_recipe(str(folder / "recipe.yaml"), sets={"custom_filters": value})


def test_a_filter_has_its_name_where_it_can_be_read(folder):
    code = FILTER.replace('name = "short"', 'name = "sh" + "ort"')
    with pytest.raises(
        RecipeError, match='the name of filter Short has to stand in its class as it is: name = "short"'
    ):
        custom_filters.find_filter_classes("mine.py", code)
    typed = FILTER.replace('name = "short"', "name: 'ClassVar[str]' = 'short'")
    assert custom_filters.CustomCode(custom_filters.hash_code(typed), typed).names() == {"short"}


def test_the_signals_of_a_lock_are_known_without_their_code_and_are_not_asked(folder, tmp_path, monkeypatch, capsys):
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w').close()\n{SIGNALS}"
    recipe = write_recipe(
        tmp_path,
        stages=[],
        sources={"quiz": RECIPE["sources"]["quiz"]},
        filters=[{"threshold": {"any": {"redness": {"min": 0.1}}}}],
        signals={"redness": {"kind": "redness"}},
    )
    (tmp_path / "signals.py").write_text(SIGNALS)
    root = tmp_path / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == REFUSES
    assert "A custom signal comes with --filter FILE" in " ".join(capsys.readouterr().err.split())
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--filter", tmp_path / "signals.py") == WORKS
    lock = root / "recipe.lock.yaml"
    held = {"custom_filters": {"signals.py": {"sha256": custom_filters.hash_code(code), "code": code}}}
    lock.write_text(seal_yaml(yaml.safe_dump(yaml.safe_load(lock.read_text()) | held)))
    monkeypatch.chdir(tmp_path)
    for status, line in (
        (WORKS, "status run"),
        (WORKS, "report run"),
        (WORKS, "what-if run --set threshold.any.redness.min=0.9"),
        (WORKS, "verify run"),
        (REFUSES, "build recipe.yaml --out run --workers 0"),
        (REFUSES, "takedown run --id quiz/quiz.parquet#0 --workers 0"),
    ):
        assert vlmill(*shlex.split(line)) == status, line
        assert not marker.exists(), line


# -- files that could hold code ----------------------------------------------------------------------------------------


def test_an_export_of_somebody_else_is_scored_without_its_code(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    export = shutil.copytree("honest/train/align/export", tmp_path / "export")
    leaves = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    for name in ("modeling_other.py", "configuration_other.py", "custom_generate/generate.py"):
        (export / name).parent.mkdir(exist_ok=True)
        (export / name).write_text(leaves)
    config = json.loads((export / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_other.Other",
        "AutoModelForImageTextToText": "modeling_other.Other",
    }
    config["attn_implementation"] = "somebody/attention"
    (export / "config.json").write_text(json.dumps(config))
    scored = ("evaluate", "honest", "--device", "cpu", "--threads", 1, "--export", export)
    assert vlmill(*scored) == 0
    (export / "model.safetensors").rename(tmp_path / "aside")
    (export / "pytorch_model.bin").write_bytes(pickle.dumps(Touches(tmp_path / "ran")))
    assert vlmill(*scored) == 1
    assert "model.safetensors" in capsys.readouterr().err
    (tmp_path / "aside").rename(export / "model.safetensors")
    (export / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "elsewhere")}))
    assert vlmill(*scored) == 1
    assert "adapter_config.json: an adapter names another model's folder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mapped", [False, True])
def test_an_array_that_holds_objects_is_refused_by_name(tmp_path, mapped):
    path, marker = tmp_path / "evidence.npy", tmp_path / "ran"
    np.save(path, np.array([Touches(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match=r"evidence\.npy cannot be read"):
        read_array(path, mapped=mapped)
    path.write_bytes(pickle.dumps(Touches(marker)))
    with pytest.raises(StoreError, match=r"evidence\.npy cannot be read"):
        read_array(path, mapped=mapped)
    assert not marker.exists()
    np.save(path, np.arange(3))
    assert read_array(path, mapped=mapped).tolist() == [0, 1, 2]


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "steps/../../outside"])
def test_a_receipt_names_no_file_outside_of_the_folder(path):
    said = {"key": "0", "partition": "00000-0000", "counts": {}, "made_by": {}}
    file = {"name": "a", "path": path, "sha256": "0", "size": 0}
    with pytest.raises(StoreError, match="00000-0000 names .* lie in its folder"):
        Receipt.from_json({**said, "files": [file]})


# -- names are folders -------------------------------------------------------------------------------------------------

BAD = (
    *("../x", "/tmp/x", "a/b", "a\\b", "", ".", "..", ".hidden", "-x", "_x", "a b", "a\nb", "a\0b", "a*", "a@2"),
    *("x" * (LONGEST + 1), "é" * LONGEST),
)
GOOD = ("a", "A-1", "the_cauldron", "v1.5", "0", "äpfel", "x" * LONGEST)


def named(place, name):
    """A recipe with one name in it."""
    against = {"files": "x", "kind": "evaluation"}
    changes = {
        "name": {"name": name},
        "sources": {"sources": {name: RECIPE["sources"]["quiz"]}, "stages": []},
        "policies": {"policies": {name: RECIPE["policies"]["small"]}, "stages": []},
        "stages.name": {"stages": [{**RECIPE["stages"][0], "name": name}]},
        "stages.policy": {"stages": [{**RECIPE["stages"][0], "policy": name}]},
        "decontaminate.against": {"decontaminate": {"against": {name: against}}},
        "splits": {"decontaminate": {"against": {"held": {**against, "files": {name: "x"}}}}},
    }
    return {**RECIPE, **changes[place]}


PLACES = ("name", "sources", "policies", "stages.name", "stages.policy", "decontaminate.against", "splits")


@pytest.mark.parametrize("place", PLACES)
def test_names_that_are_no_folders_are_refused_in_recipes_and_in_locks(tmp_path, place):
    key = "decontaminate.against" if place == "splits" else place
    for name in BAD:
        path, lock = tmp_path / "recipe.yaml", tmp_path / "recipe.lock.yaml"
        for file in (path, lock):
            file.write_text(yaml.safe_dump(named(place, name)))
        said = f"{re.escape(key)}: {re.escape(repr(name))} is to name a folder: it may hold letters, digits, "
        with pytest.raises(RecipeError, match=said):
            load_recipe(str(path))
        with pytest.raises(StoreError, match=said):
            read_locked_recipe(tmp_path)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "stages.policy"])
def test_other_names_are_folders(tmp_path, place):
    for name in GOOD:
        if "." in name and place in ("sources", "decontaminate.against", "splits"):
            continue  # where a dot stands before a split
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(named(place, name)))
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        *(("sources", name) for name in ("benchmarks", "dedupe", "mixtures")),
        *(("decontaminate.against", name) for name in ("index", "quiz")),
    ],
)
def test_names_of_folders_of_our_own_are_taken(tmp_path, place, name):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(named(place, name)))
    with pytest.raises(RecipeError, match=f"{place}: '{name}': this name is taken"):
        load_recipe(str(tmp_path / "recipe.yaml"))


def test_names_that_come_from_the_command_line_keep_to_the_rule(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    for key, where in (("stages.0.name", "stages.name"), ("stages.align.policy", "stages.policy"), ("name", "name")):
        with pytest.raises(RecipeError, match=f"{where}: '../x' is to name a folder"):
            load_recipe(str(path), sets={key: "../x"})
    with pytest.raises(RecipeError, match="no such source or benchmark"):
        load_recipe(str(path), {"../x": str(tmp_path)})


@pytest.mark.parametrize("name", ["../../../outside", "{}/outside"])
def test_a_build_writes_nothing_outside_of_its_folder(tmp_path, name, capsys):
    outside = tmp_path / "outside"
    policy = name.format(tmp_path)
    recipe = write_recipe(tmp_path, policies={policy: RECIPE["policies"]["small"]}, stages=[])
    assert vlmill("build", recipe, "--out", tmp_path / "a/b/run", "--workers", 0) == 1
    assert "is to name a folder" in " ".join(capsys.readouterr().err.split())
    assert not outside.exists()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("line", ["stats run", "trace run --step 0", "train run", "evaluate run"])
def test_a_stage_of_the_command_line_is_one_of_the_recipe(folder, monkeypatch, capsys, line):
    monkeypatch.chdir(folder)
    assert vlmill(*shlex.split(line), "--stage", "../../x") == 1
    assert "--stage ../../x: the recipe has no such stage" in " ".join(capsys.readouterr().err.split())


def test_a_lock_that_is_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "run/recipe.lock.yaml").symlink_to(tmp_path / "other.yaml")
    recipe = write_recipe(tmp_path, stages=[])
    assert vlmill("status", tmp_path / "run") == 0
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--until", "survey") == 0
    assert yaml.safe_load((tmp_path / "other.yaml").read_text()) == RECIPE
    assert not (tmp_path / "run/recipe.lock.yaml").is_symlink()
