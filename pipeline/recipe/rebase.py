"""Paths of an included file, as the recipe that includes it has to write them.

A recipe's relative paths start from its own folder. Those of an included file are written anew to start from the folder
of the recipe that the command names, so that they lead where they led.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vlmill.pipeline.recipe.located import Located

ANY = "*"

PATHS: tuple[tuple[str, ...], ...] = (
    ("tokenizer",),
    ("sources", ANY, "root"),
    ("sources", ANY, "images"),
    ("sources", ANY, "serve", ANY),
    ("decontaminate", "against", ANY, "root"),
    ("filters", ANY, "opt_out", ANY, ANY),
)
"""Where paths stand that start from the recipe's folder."""

ROOTED = {("sources",): "kind", ("decontaminate", "against"): "files"}
"""Blocks whose entries have a `root`, which is the recipe's folder where they name none -> the key without which an
entry only adds to one of an included file, and has its root."""


def rebase_paths(whole: Located, folder: Path, base: Path) -> Located:
    """The mapping of a file in `folder` with paths that start from `base`; pure, no file is looked at."""
    if folder == base:
        return whole

    def rebase(found: Located) -> Located:
        return Located(_rebase_path(found.value, folder, base), found.origin)

    for keys, key in ROOTED.items():
        whole = _change_values(whole, (*keys, ANY), partial(_name_root, key))
    for keys in PATHS:
        whole = _change_values(whole, keys, rebase)
    return whole


def _name_root(key: str, entry: Located) -> Located:
    if not isinstance(entry.value, dict) or "root" in entry.value or key not in entry.value:
        return entry
    return entry.with_item("root", Located(".", entry.origin))


def _rebase_path(path: Any, folder: Path, base: Path) -> Any:
    """Relative to `base` where the file lies below it, else whole."""
    if not isinstance(path, str) or "://" in path or Path(path).is_absolute():
        return path
    if folder.is_relative_to(base):
        return os.path.normpath(folder.relative_to(base) / path)
    return os.path.normpath(folder / path)


def _change_values(found: Located, keys: tuple[str, ...], change: Callable[[Located], Located]) -> Located:
    """The same with what stands at `keys` changed; ANY is every key or list place."""
    if not keys:
        return change(found)
    first, rest = keys[0], keys[1:]
    if isinstance(found.value, list):
        inside = [_change_values(item, rest if first == ANY else keys, change) for item in found.value]
        return Located(inside, found.origin)
    if not isinstance(found.value, dict):
        return found
    wanted = list(found.value) if first == ANY else [first] if first in found.value else []
    return Located(
        {**found.value, **{key: _change_values(found.value[key], rest, change) for key in wanted}}, found.origin
    )
