"""What `import vlmill` offers: every name of it, each where it says, and nothing heavy before it is asked for."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vlmill
from vlmill.pipeline.core.field_comments import list_classes, list_fields

HEAVY = ("torch", "ray", "transformers", "polars", "pyarrow", "numpy")


def imported_after(script: str) -> list[str]:
    """Which of HEAVY a fresh process has imported at the end of a script."""
    script += f"; import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_importing_vlmill_imports_nothing_heavy():
    assert imported_after("import vlmill; dir(vlmill)") == []


@pytest.mark.parametrize("name", ["build", "load_recipe", "open_run", "Run", "Filter", "Drop", "WhatIfAnswer"])
def test_what_does_not_train_needs_neither_torch_nor_ray(name):
    assert not {"torch", "ray", "transformers"} & {*imported_after(f"import vlmill; vlmill.{name}")}


@pytest.mark.parametrize("name", vlmill.__all__)
def test_every_name_is_there(name):
    assert getattr(vlmill, name) is not None
    assert name in dir(vlmill)


def test_type_checkers_see_the_names_that_python_finds():
    tree = ast.parse(Path(vlmill.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        node.module: tuple(alias.name for alias in node.names)
        for node in ast.walk(checked)
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == vlmill._MODULES
    assert sorted(vlmill.__all__) == sorted([*vlmill._HOMES, "__version__"])


def test_a_name_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(AttributeError, match="'opem_run'; it has .*open_run"):
        vlmill.opem_run  # noqa: B018


def test_the_command_says_its_version(capsys):
    from tests.helpers.small import vlmill as command

    assert command("--version") == 0
    assert capsys.readouterr().out.startswith(f"vlmill {vlmill.__version__} (")


CLASSES = [name for name in vlmill.__all__ if isinstance(getattr(vlmill, name), type)]


@pytest.mark.parametrize("name", CLASSES)
def test_help_says_what_each_field_of_a_class_is_and_of_those_that_it_holds(name):
    for block in list_classes(getattr(vlmill, name), set()):
        if block.__module__.startswith(("vlmill.pipeline.recipe.", "vlmill.mixtures.config")):
            continue  # docs/recipe.md
        lines = inspect.getdoc(block).partition("\n\nAttributes:\n")[2].splitlines()
        told = [line.partition(":")[0].strip() for line in lines if line.startswith("    ") and line[4] != " "]
        assert sorted(told) == sorted(list_fields(block)), block
        assert not [line for line in lines if line.rstrip().endswith(":")]


def test_what_public_calls_return_is_public():
    returned = set()
    for owner in (vlmill, vlmill.Run, vlmill.StageMixture):
        for name in dir(owner):
            if not name.startswith("_") and inspect.isfunction(item := getattr(owner, name)):
                returned |= set(re.findall(r"\b[A-Z][A-Za-z]+\b", str(inspect.signature(item).return_annotation)))
    others = {"Any", "DataFrame", "Image", "Iterator", "LazyFrame", "Path", "StageDataset"}
    assert returned - others <= {*vlmill.__all__}
