"""Who may import whom: packages run from train to mixtures to pipeline, and in pipeline from the command line down to core."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "mixtures", "train")
MODULES = {
    path: "vlmill." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
LAYERS = (
    {"core"},
    {"images", "chat", "verdicts", "inputs", "fetch"},
    {"sources", "filters", "dedupe", "shards"},
    {"decontaminate", "takedown"},
    {"steps"},
    {"recipe"},
    {"engine"},
    {"reports"},
    {"page"},
    {"cli"},
)
"""The packages of pipeline, the lowest first. One imports those below it and itself, and none beside it."""

LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it; names that are no modules are cut off."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES.values() else node.module)
    return found


def test_every_package_of_pipeline_has_a_layer():
    assert {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")} == set(LAYER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down_and_never_up_or_across(path):
    package, *below = path.relative_to(ROOT).parts
    for name in imported(path):
        if not name.startswith("vlmill."):
            continue
        other, *inside = name.split(".")[1:]
        if below[0] == "cli":
            continue  # puts the three packages together
        assert PACKAGES.index(other) <= PACKAGES.index(package), f"{path} imports {name}"
        if other == package == "pipeline" and inside and len(below) > 1 and inside[0] != below[0]:
            assert LAYER[inside[0]] < LAYER[below[0]], f"{path} imports {name}"


def test_only_the_command_line_imports_the_api():
    users = {
        path.relative_to(ROOT) for path in MODULES if any(name.startswith("vlmill.api") for name in imported(path))
    }
    assert {path.parent for path in users} == {Path("pipeline/cli")}


@pytest.mark.parametrize("path", sorted((ROOT / "src/vlmill/api").glob("*.py")), ids=lambda path: path.stem)
def test_the_api_imports_nothing_of_the_command_line(path):
    assert not {name for name in imported(path) if name.startswith("vlmill.pipeline.cli")}


def test_only_the_executor_imports_ray():
    users = [path.relative_to(ROOT) for path in MODULES if any(name.split(".")[0] == "ray" for name in imported(path))]
    assert users == [Path("pipeline/engine/executor.py")]


@pytest.mark.parametrize("folder", [*PACKAGES, "recipes", "tests", "benchmarks", "examples", "tools"])
def test_everything_is_imported_by_its_whole_name(folder):
    """From the repository's root `import pipeline` works, and makes every class a second time."""
    for path in (ROOT / folder).rglob("*.py"):
        tops = {name.split(".")[0] for name in imported(path)}
        assert not tops & {*PACKAGES, "recipes"}, path
