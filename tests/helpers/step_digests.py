"""Digests of the code that decides the bytes of steps, filters, image policies and sources, with their versions.

A digest is over the definition and every definition of the project that it names, and those that these name, without
comments, docstrings and versions. What is found by value at run time (a policy, a source, a filter) has an entry of its
own. To record today's code:

    python -m tests.helpers.step_digests
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests/repo/step_digests.json"
COMMAND = "python -m tests.helpers.step_digests"
PREFIX = "vlmill."
PACKAGES = ("pipeline", "mixtures")
NOT_BYTES = {f"vlmill.pipeline.core.{module}" for module in ("config", "errors", "meter", "progress", "reasons")}
"""Modules that decide messages and what may be said, and no bytes: a reason more in the list changes no step that does
not name it."""

STEPS = {
    "filters": ("vlmill.pipeline.filters.base", "FilterStep"),
    "signals": ("vlmill.pipeline.steps.score", "ScoreSignal"),
}
"""Package -> the step around what is in it, whose code decides bytes as well."""

SOURCES = ("vlmill.pipeline.sources", "SOURCES")
READERS = ("vlmill.pipeline.steps.read:Read", "vlmill.pipeline.steps.survey:Survey")
"""The steps whose versions stand for the code of sources, which have none."""

Definition = tuple[str, str]
"""Module, name at its top."""


@dataclass(frozen=True)
class Entry:
    """What is recorded of one step."""

    version: str
    sha256: str


@dataclass(frozen=True)
class Code:
    """The packages of a checkout, parsed."""

    root: Path = ROOT

    @cached_property
    def modules(self) -> dict[str, Module]:
        """By the name that they are imported under."""
        return {
            PREFIX + ".".join(path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__"): Module(
                ast.parse(path.read_text(encoding="utf-8"))
            )
            for package in PACKAGES
            for path in sorted((self.root / package).rglob("*.py"))
        }

    def list_entries(self) -> dict[str, Entry]:
        """`module:Class` -> version and digest, of every class with a version and every source."""
        versions = dict(self._list_versions())
        entries = {}
        for name, version in versions.items():
            module, _, top = name.partition(":")
            more = [step for package, step in STEPS.items() if module.startswith(f"vlmill.pipeline.{package}.")]
            entries[name] = Entry(str(version), self.digest((module, top), *more))
        if all(reader in versions for reader in READERS):
            version = ", ".join(f"{reader.rpartition(':')[2]} {versions[reader]}" for reader in READERS)
            for module, top in self._list_sources():
                entries[f"{module}:{top}"] = Entry(version, self.digest((module, top)))
        return dict(sorted(entries.items()))

    def digest(self, *starts: Definition) -> str:
        """sha256, in hexadecimal, over the definitions that can be reached from some."""
        reached, waiting = dict[Definition, str](), list(starts)
        while waiting:
            module, name = place = waiting.pop()
            node = self.modules[module].definitions.get(name)
            if place in reached or node is None or module in NOT_BYTES:
                continue
            reached[place] = normalise(node)
            waiting += self._list_used(module, node)
        lines = (f"{module}:{name} {text}\n" for (module, name), text in sorted(reached.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _list_versions(self) -> Iterator[tuple[str, int]]:
        for module, code in self.modules.items():
            for name, node in code.definitions.items():
                for line in node.body if isinstance(node, ast.ClassDef) else ():
                    if is_version(line):
                        yield f"{module}:{name}", line.value.value

    def _list_sources(self) -> Iterator[Definition]:
        module, name = SOURCES
        table = self.modules[module].definitions[name]
        for place in self._list_used(module, table):
            if isinstance(self.modules[place[0]].definitions.get(place[1]), ast.ClassDef) and place[1] != "Source":
                yield place

    def _list_used(self, module: str, node: ast.AST) -> list[Definition]:
        """The definitions of the project that a definition names."""
        bound = self.modules[module].imports
        found = list[Definition]()
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                found += self._resolve(bound.get(inner.id, f"{module}.{inner.id}"))
            elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id in bound:
                found += self._resolve(f"{bound[inner.value.id]}.{inner.attr}")
        return found

    def _resolve(self, whole: str) -> list[Definition]:
        """Where a dotted name is defined, through the packages that import it from elsewhere."""
        module, _, name = whole.rpartition(".")
        if module not in self.modules:
            return []
        if name in self.modules[module].definitions:
            return [(module, name)]
        again = self.modules[module].imports.get(name)
        return self._resolve(again) if again and again != whole else []


@dataclass(frozen=True)
class Module:
    """One module, by what it defines and imports."""

    tree: ast.Module

    @cached_property
    def definitions(self) -> dict[str, ast.AST]:
        """Functions, classes and values at the top, by name."""
        found = dict[str, ast.AST]()
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[node.name] = node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    found |= {inner.id: node for inner in ast.walk(target) if isinstance(inner, ast.Name)}
        return found

    @cached_property
    def imports(self) -> dict[str, str]:
        """Local name -> dotted name, of all imports of the project, wherever in the module."""
        return {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PREFIX)
            for alias in node.names
        }


def is_version(node: ast.AST) -> bool:
    """Whether a line of a class says its version."""
    target = (
        node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
    )
    if not isinstance(target, ast.Name) or target.id != "version":
        return False
    return isinstance(node.value, ast.Constant) and isinstance(node.value.value, int)


def normalise(value: Any) -> str:
    """Code as text that does not depend on its format.

    Without docstrings, versions and what Python versions add to empty nodes.
    """
    if isinstance(value, list):
        kept = (item for item in value if not _is_text(item) and not (isinstance(item, ast.AST) and is_version(item)))
        return f"[{','.join(map(normalise, kept))}]"
    if not isinstance(value, ast.AST):
        return ascii(value)  # which letters can be printed depends on Python's Unicode
    if isinstance(value, ast.JoinedStr):
        value = ast.JoinedStr([part for part in value.values if not _is_blank(part)])
    fields = ((name, item) for name, item in ast.iter_fields(value) if name not in {"ctx", "kind", "type_comment"})
    told = (f"{name}={normalise(item)}" for name, item in fields if item not in (None, []))
    return f"{type(value).__name__}({','.join(told)})"


def _is_blank(node: Any) -> bool:
    """Whether a part of a text is empty, as Python 3.12 has one behind a format that is filled in."""
    return isinstance(node, ast.Constant) and node.value == ""


def _is_text(node: Any) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def read_record() -> dict[str, Entry]:
    """What was recorded last."""
    return {name: Entry(**entry) for name, entry in json.loads(RECORD.read_text(encoding="utf-8")).items()}


def write_record() -> None:
    """Record the code as it is."""
    entries = {name: vars(entry) for name, entry in Code().list_entries().items()}
    RECORD.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_record()
    print(f"{RECORD.relative_to(ROOT)}: {len(read_record())} entries")
