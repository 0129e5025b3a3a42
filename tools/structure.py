"""How a checkout is built, in numbers: `python tools/structure.py [DIR]`.

Run it on two checkouts to compare them. It reads Python files as text and imports nothing of theirs. Packages are the
folders `pipeline`, `mixtures`, `train` and `recipes` at the top level, imported as `vlmill.pipeline...` or, in old
checkouts, as `pipeline...`.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("pipeline", "mixtures", "train", "recipes")
COLUMNS = 120
"""Of a line, at most."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file."""

    path: Path  # relative to the checkout
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The dotted name, without `vlmill`."""
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")

    def functions(self) -> list[Function]:
        """Its top-level functions."""
        return [node for node in self.tree.body if isinstance(node, Function)]

    def classes(self) -> list[str]:
        """The names of its top-level classes."""
        return [node.name for node in self.tree.body if isinstance(node, ast.ClassDef)]


def read_modules(root: Path) -> list[Module]:
    """Every module of the packages in a checkout, in the order of their paths.

    Raises:
        SystemExit: the folder holds none of the packages.
    """
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    if not paths:
        raise SystemExit(f"{root} is no checkout of vlmill: it has none of the folders {', '.join(PACKAGES)}")
    texts = {path.relative_to(root): path.read_text(encoding="utf-8") for path in paths}
    return [Module(path, text, ast.parse(text)) for path, text in texts.items()]


def list_imports(module: Module, names: set[str]) -> set[str]:
    """The modules among `names` that a module imports, wherever in it; relative imports are resolved."""
    found = set()
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            wanted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in wanted:
            short = name.removeprefix("vlmill.")
            found.add(short if short in names else short.rpartition(".")[0])
    return (found & names) - {module.name}


def count_edges(modules: list[Module]) -> dict[str, int]:
    """Package -> pairs of entries of it (files and folders at its top level) of which one imports the other."""
    names = {module.name for module in modules}
    edges: set[tuple[str, str, str]] = set()
    for module in modules:
        package, *inside = module.name.split(".")
        for other in list_imports(module, names):
            owner, *there = other.split(".")
            if owner == package and inside and there and inside[0] != there[0]:
                edges.add((package, inside[0], there[0]))
    return Counter(package for package, *_ in edges)


def measure_length(node: Function) -> int:
    """Lines of a function, its docstring and decorators left out."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or node.lineno) - body[0].lineno + 2 if body else 1


def find_longest_function(modules: list[Module]) -> tuple[int, str]:
    """Lines and name of the longest function or method."""
    found = [
        (measure_length(node), f"{module.path}:{node.lineno} {node.name}")
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, Function)
    ]
    return max(found, default=(0, "none"))


def list_one_word(modules: list[Module]) -> tuple[list[str], list[str]]:
    """Top-level functions whose names are one word: the public ones, and the private ones."""
    found = [
        (function.name, f"{module.path}:{function.lineno} {function.name}")
        for module in modules
        for function in module.functions()
        if "_" not in function.name.strip("_")
    ]
    return (
        [where for name, where in found if not name.startswith("_")],
        [where for name, where in found if name.startswith("_")],
    )


def list_doubled_classes(modules: list[Module]) -> list[str]:
    """Names that several top-level classes share."""
    counts = Counter(name for module in modules for name in module.classes())
    return sorted(name for name, number in counts.items() if number > 1)


def count_long_lines(modules: list[Module]) -> int:
    """Lines of more than COLUMNS characters."""
    return sum(len(line) > COLUMNS for module in modules for line in module.text.splitlines())


def describe_checkout(root: Path) -> str:
    """The numbers of a checkout, a line each.

    Raises:
        SystemExit: the folder holds none of the packages.
    """
    modules = read_modules(root)
    edges, lines = count_edges(modules), []
    lines.append(f"{'package':12}{'entries':>8}{'files':>7}{'lines':>8}{'edges':>7}")
    for package in PACKAGES:
        mine = [module for module in modules if module.path.parts[0] == package]
        entries = {module.path.parts[1] for module in mine} - {"__init__.py"}
        length = sum(len(module.text.splitlines()) for module in mine)
        lines.append(f"{package:12}{len(entries):>8}{len(mine):>7}{length:>8,}{edges.get(package, 0):>7}")
    size, path = max((len(module.text.splitlines()), str(module.path)) for module in modules)
    longest, where = find_longest_function(modules)
    public, private = list_one_word(modules)
    doubled = list_doubled_classes(modules)
    return "\n".join(
        [
            *lines,
            f"largest file: {size} lines, {path}",
            f"longest function: {longest} lines, {where}",
            f"one-word functions: {len(public)} public, {len(private)} private",
            *(f"  {name}" for name in public),
            f"doubled class names: {len(doubled)}" + (f" ({', '.join(doubled)})" if doubled else ""),
            f"lines over {COLUMNS} columns: {count_long_lines(modules)}",
        ]
    )


if __name__ == "__main__":
    print(describe_checkout(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]))
