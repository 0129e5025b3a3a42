"""Paths of an included file, as the recipe that includes it has to write them.

A recipe's relative paths start from its own folder. Those of an included file are written anew to start from the folder
of the recipe that the command names, so that they lead where they led. Folders of models are written whole in the end,
for a run's folder is trained in without its recipe, by processes with other working folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
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
    ("filters", "opt_out", ANY, ANY),  # of the list of filters the one of that name
)
"""Where paths stand that start from the recipe's folder."""

MODELS: tuple[tuple[str, ...], ...] = (("chat", "path"), ("model", ANY, "path"), ("model", "vision", ANY, "path"))
"""Where a folder stands that starts from there as well, or a name on the Hub."""

REPLACED: tuple[tuple[str, ...], ...] = ((), ("model",))
"""Blocks with a `replace`: dotted keys of the block with values for them."""

ROOTED = {("sources",): "kind", ("decontaminate", "against"): "files"}
"""Blocks whose entries have a `root`, which is the recipe's folder where they name none -> the key without which an
entry only adds to one of an included file, and has its root."""


def rebase_paths(whole: Located, folder: Path, base: Path) -> Located:
    """The mapping of a file in `folder` with paths that start from `base`.

    Of the file system nothing is looked at but whether a model's path is a folder: else it is a name on the Hub.
    """
    if folder == base:
        return whole

    def rebase(found: Located) -> Located:
        return Located(_rebase_path(found.value, folder, base), found.origin)

    def rebase_model(found: Located) -> Located:
        return Located(_place_model(found.value, folder), found.origin)

    for keys, key in ROOTED.items():
        whole = _change_values(whole, (*keys, ANY), partial(_name_root, key))
    for wanted, change in ((PATHS, rebase), (MODELS, rebase_model)):
        for keys in wanted:
            whole = _change_values(whole, keys, change)
            for block in REPLACED:
                if keys[: len(block)] == block:
                    within = partial(_change_replaced, keys=keys[len(block) :], change=change)
                    whole = _change_values(whole, (*block, "replace"), within)
    return whole


def _place_model(path: Any, base: Path) -> Any:
    """The whole path of a model's folder that starts from `base`; a name on the Hub, and what is no path, as it is."""
    if not isinstance(path, str) or "://" in path:
        return path
    is_folder = path.split("/")[0] in {".", ".."} or (base / path).is_dir()
    return str((base / path).resolve()) if is_folder else path


def place_models(data: Any, base: Path) -> None:
    """Write folders of models whole in a recipe's mapping, in place."""
    for keys in MODELS:
        for block, key in _find_blocks(data, keys):
            block[key] = _place_model(block[key], base)


def _find_blocks(data: Any, keys: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    """The mappings in which the last of `keys` stands, and that key."""
    first, *rest = keys
    if isinstance(data, dict):
        for key in list(data) if first == ANY else [first] if first in data else []:
            if rest:
                yield from _find_blocks(data[key], tuple(rest))
            else:
                yield data, key


def _change_replaced(replaced: Located, keys: tuple[str, ...], change: Callable[[Located], Located]) -> Located:
    """The values of a `replace` with what stands at `keys` of the whole changed, wherever its dotted keys lead."""
    if not isinstance(replaced.value, dict):
        return replaced
    for stop in range(1, len(keys) + 1):
        pattern = re.compile(r"\.".join(".+" if key == ANY else re.escape(key) for key in keys[:stop]))
        for dotted, value in replaced.value.items():
            if isinstance(dotted, str) and pattern.fullmatch(dotted):
                replaced = replaced.with_item(dotted, _change_values(value, keys[stop:], change))
    return replaced


def _name_root(key: str, entry: Located) -> Located:
    if not isinstance(entry.value, dict) or "root" in entry.value or key not in entry.value:
        return entry
    return entry.with_item("root", Located(".", entry.origin))


def _rebase_path(path: Any, folder: Path, base: Path) -> Any:
    """Relative to `base` where the file lies below it, else whole."""
    if not isinstance(path, str):
        return path
    inside, chain, path = path.rpartition("::") if "://" in path else ("", "", path)
    if chain:  # an archive on this machine may be relative as well
        return f"{inside}{chain}{_rebase_path(path, folder, base)}"
    if "://" in path or Path(path).is_absolute():
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
