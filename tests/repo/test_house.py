"""House rules that would otherwise be a paragraph: how long files are, what the README may claim, what --help says."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vlmill.mixtures.published import catalogue as published
from vlmill.pipeline.cli import app
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.train.ablation.spec import find_ablation, read_ablation
from vlmill.train.validate import validate_whole_recipe

ROOT = Path(__file__).parents[2]
FOLDERS = ("pipeline", "mixtures", "train", "src/vlmill/explore")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_idea_long_and_says_its_place(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "begin the file with a docstring that says what it holds"


def test_polars_takes_no_letter_of_a_run_folder_for_a_pattern():
    paths = [*MODULES, *(ROOT / "src/vlmill/api").rglob("*.py")]
    calls = [
        (str(path.relative_to(ROOT)), call)
        for path in paths
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in {"pl.read_parquet", "pl.scan_parquet"}
    ]
    assert len(calls) > 30
    literal = ast.dump(ast.Constant(False))  # else `[` in a path is a pattern, and another file may match it
    assert [
        f"{path}:{call.lineno}"
        for path, call in calls
        if literal not in [ast.dump(keyword.value) for keyword in call.keywords if keyword.arg == "glob"]
    ] == []


def test_importing_a_package_does_nothing_heavy():
    import subprocess
    import sys

    script = (
        "import sys, vlmill.pipeline.cli, vlmill.train.settings, vlmill.mixtures; print([name for name in ('torch', "
        "'ray', 'transformers') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )


COMMANDS = sorted(
    [command.name or command.callback.__name__ for command in app.registered_commands]
    + [group.name for group in app.registered_groups]
)


def test_every_command_is_documented_and_every_documented_one_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([\w-]+)[^`]*` \| [a-z]", readme, re.MULTILINE))
    assert documented == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


@pytest.mark.parametrize("text", [command.help for command in app.registered_commands], ids=lambda text: text[:24])
def test_lines_that_stand_in_columns_are_indented_so_that_help_does_not_join_them(text):
    assert not [one for one in text.split("\n\n") if "  " in one and not one.startswith("[b][/b]")]


def read_help(name):
    """The docstring of a command."""
    return next(
        inspect.getdoc(one.callback) for one in app.registered_commands if (one.name or one.callback.__name__) == name
    )


def test_the_ablation_in_help_is_one(tmp_path):
    text = read_help("ablate")
    example = "\n".join(line[4:] for line in text[text.index("    recipe: ") :].splitlines())
    (tmp_path / "spec.yaml").write_text(example.replace("my-recipe.yaml", "quickstart"))
    spec = read_ablation(tmp_path / "spec.yaml")
    assert len(spec.variants) == 2
    for sets in spec.variants.values():
        recipe, _, _ = load_recipe(spec.recipe, sets={key: json.dumps(value) for key, value in sets.items()})
        validate_whole_recipe(recipe)
    for name in re.findall(r"^ +vlmill ablate ([\w-]+)(?= |$)", text, re.MULTILINE):
        assert find_ablation(name)


def test_the_recipe_of_the_readme_is_a_recipe(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / "readme.yaml").write_text(text)
    recipe, _, _ = load_recipe(str(tmp_path / "readme.yaml"))
    validate_whole_recipe(recipe)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_read_whole(path):
    recipe, _, _ = load_recipe(str(path))
    validate_whole_recipe(recipe)


@pytest.mark.parametrize("path", sorted((ROOT / "mixtures/published").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_published_mixture_is_read_whole(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))
    assert path.stem in published.list_names()
    assert published.load_published(path.stem)
