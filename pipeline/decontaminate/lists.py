"""Lists of benchmarks that a recipe takes by name: the shipped ones in recipes/fragments, or a file of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.yaml_format import read_yaml

WHERE = "decontaminate.against"


def expand_benchmarks(data: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A recipe's mapping with every benchmark written out, so that its lock is complete.

    `against: benchmarks` takes a whole list, `against: {mmmu: benchmarks}` one entry of it. A list is a shipped one by
    name, or a YAML file, relative to `base`, that maps names to benchmarks as `against` does. Their roots start from
    the recipe's folder.

    Raises:
        RecipeError: there is no such list, or it has no such benchmark.
    """
    block = data.get("decontaminate")
    if not isinstance(block, dict):
        return dict(data)
    against = block.get("against")
    if isinstance(against, str):
        found = _read_list(against, base)
    elif isinstance(against, dict):
        found = {
            name: _read_entry(name, value, base) if isinstance(value, str) else value for name, value in against.items()
        }
    else:
        return dict(data)
    return {**data, "decontaminate": {**block, "against": found}}


def _read_entry(name: str, value: str, base: Path) -> Any:
    listed = _read_list(value, base)
    if name not in listed:
        raise RecipeError(f"{WHERE}.{name}: the list {value!r} has no such benchmark; {suggest_names(name, listed)}")
    return listed[name]


def _read_list(name: str, base: Path) -> dict[str, Any]:
    """The benchmarks of a list."""
    shipped = {Path(str(item)).stem: Path(str(item)) for item in (files("vlmill.recipes") / "fragments").iterdir()}
    path = base / name if name.endswith((".yaml", ".yml")) else shipped.get(name)
    if path is None or not path.is_file():
        raise RecipeError(
            f"{WHERE}: {name!r} is neither a YAML file nor a shipped list; {suggest_names(name, shipped)}"
        )
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise RecipeError(
            f"{path}: a list of benchmarks maps names to `files`, `root` and `options`, not {found!r:.60}"
        )
    return found
