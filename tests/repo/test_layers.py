"""The import layers: from train to mixtures to pipeline, and in pipeline from the command line down to core."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
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
    {"boxes", "sources", "filters", "dedupe", "shards"},
    {"decontaminate", "takedown", "signals"},
    {"steps"},
    {"recipe"},
    {"engine"},
    {"reports"},
    {"proposal"},
    {"checks"},
    {"page"},
    {"cli"},
)
"""The packages of pipeline, the lowest first. One imports those below it and itself, and none beside it."""

LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


NO_CONCRETE_STEP = ("chain", "executor", "flow", "nodes", "ray_cluster", "ray_flow", "ray_nodes", "ray_work", "store")
"""The modules of the engine that run any step."""

STEP_PACKAGES = {
    *("decontaminate", "dedupe", "fetch", "filters", "shards", "signals", "sources", "steps", "takedown", "verdicts")
}


def imported(path: Path, *, for_types: bool = True) -> set[str]:
    """The modules that a file imports, wherever in it; names that are no modules are cut off.

    Those for type checkers on request.
    """
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    hidden = {id(inner) for node in ast.walk(tree) if _is_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in hidden and not for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES.values() else node.module)
    return found


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


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


@pytest.mark.parametrize("package", ["mixtures", "train"])
def test_the_parts_of_a_package_import_each_other_in_one_direction(package):
    """A part is a sub-package or a module at the top."""
    parts = dict[str, set[str]]()
    for path, module in MODULES.items():
        part = f"{module}.__init__".split(".")[2]
        others = {
            f"{name}.__init__".split(".")[2]
            for name in imported(path, for_types=False)
            if name.startswith(f"vlmill.{package}")
        }
        if path.relative_to(ROOT).parts[0] == package:
            parts.setdefault(part, set()).update(others - {part})
    assert len(parts) > 5
    list(graphlib.TopologicalSorter(parts).static_order())


@pytest.mark.parametrize("module", NO_CONCRETE_STEP)
def test_what_runs_steps_knows_no_concrete_one(module):
    used = {
        name.split(".")[2]
        for name in imported(ROOT / f"pipeline/engine/{module}.py")
        if name.startswith("vlmill.pipeline.")
    }
    assert not used & STEP_PACKAGES


def test_the_trainer_does_without_what_builds_runs():
    script = (
        "import sys, vlmill.train.run; print(*(name for name in sys.modules if name.startswith('vlmill.pipeline.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    parts = [name.split(".")[2:] for name in loaded]
    assert [part for part in parts if part[0] == "engine"] == [["engine"], ["engine", "lease"], ["engine", "store"]]
    assert not {part[0] for part in parts} & {"reports", "proposal", "checks", "page", "cli"}


def test_only_the_executor_and_what_it_stands_on_import_ray():
    users = [path.relative_to(ROOT) for path in MODULES if any(name.split(".")[0] == "ray" for name in imported(path))]
    names = ("executor", "ray_cluster", "ray_flow", "ray_nodes", "ray_train", "ray_work")
    assert users == [Path(f"pipeline/engine/{name}.py") for name in names]


@pytest.mark.parametrize("folder", [*PACKAGES, "recipes", "tests", "benchmarks", "examples", "tools"])
def test_everything_is_imported_by_its_whole_name(folder):
    """From the repository's root `import pipeline` works, and makes every class a second time."""
    for path in (ROOT / folder).rglob("*.py"):
        tops = {name.split(".")[0] for name in imported(path)}
        assert not tops & {*PACKAGES, "recipes"}, path


NAMES = ROOT / "pipeline/core/names.py"
FILE_NAMES = {
    node.value.value
    for node in ast.parse(NAMES.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_names_of_files_between_steps_stand_in_one_place(path):
    assert {"samples.parquet", ".verdicts.parquet"} <= FILE_NAMES
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose and path != NAMES:
            spelt = {name for name in FILE_NAMES if node.value.endswith(name)}
            assert not spelt, f"{path}:{node.lineno}: {spelt}; take it from vlmill.pipeline.core.names"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train/families/exported").glob("[!_]*.py")), ids=lambda path: path.stem
)
def test_what_travels_with_exports_imports_nothing_of_ours(path):
    beside = {other.stem for other in path.parent.glob("*.py")}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, "transformers copies files of the same folder alone"
            assert node.module in beside
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            tops = {(name or "").split(".")[0] for name in names}
            assert tops <= {*sys.stdlib_module_names, "torch", "transformers"}, f"{path} imports {tops}"
