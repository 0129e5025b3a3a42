"""What `import vlmill` offers: every name of it, each where it says, and nothing heavy before it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vlmill

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
