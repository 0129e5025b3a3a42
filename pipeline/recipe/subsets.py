"""A source with `subsets` as one source per subset: `the_cauldron` becomes `the_cauldron-ai2d` and so on, in one group.

    sources:
      cauldron: {kind: cauldron, root: hf://datasets/HuggingFaceM4/the_cauldron@main, subsets: "*"}

Where the source has `files`, `{subset}` in it stands for a subset's folder. Else the `configs` in the head of the
dataset's README.md say what its subsets are, and where there are none each folder is one. `{subset}` may stand in
`images` as well. The lock of a run holds the sources that came of it, and a later build of that run keeps to them.
Subsets of a dataset on the Hub that are named beside `files` are taken without asking the Hub.
"""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError, SourceError, VlmillError
from vlmill.pipeline.core.places import resolve_place
from vlmill.pipeline.core.yaml_format import parse_yaml
from vlmill.pipeline.inputs.files import list_input_files, open_input
from vlmill.pipeline.inputs.hub_files import is_hub

ALL, PLACE = "*", "{subset}"
README = "README.md"
LONGEST_README = 8 << 20
"""Bytes of a README.md that are read."""
GLOB, MEANS = re.compile(r"\*\*|.", re.DOTALL), {"**": ".*", "*": "[^/]*", "?": "[^/]"}
"""The characters of a pattern of files, and what those mean that are not themselves."""
AT_ONCE = 16
"""Sources whose subsets are listed at the same time."""
SPLIT = "train"
"""What is read of a subset where the source names no `split`."""


def expand_subsets(
    data: dict[str, Any], base: Path, locked: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], list[VlmillError]]:
    """A recipe's mapping with one source per subset of each source that has `subsets`, ordered by name.

    A source whose subsets cannot be listed stays as it is, and what is wrong with it is the second value.

    Args:
        data: the mapping.
        base: the folder that its relative paths start from.
        locked: the mapping that a run's folder is locked to, whose subsets are kept.

    Returns:
        The mapping, and the errors: `subsets` is no list of names, a subset is not there, or two have the same name as
        a source (RecipeError); the Hub or the folder cannot be read (SourceError).
    """
    sources = data.get("sources")
    if not isinstance(sources, dict):
        return data, []
    found, errors = dict[str, Any](), list[VlmillError]()
    with ThreadPoolExecutor(AT_ONCE) as pool:  # the Hub may take its time for each
        listed = {
            name: pool.submit(_expand_source, str(name), block, base, (locked or {}).get("sources", {}))
            for name, block in sources.items()
            if _has_subsets(block)
        }
    for name, block in sources.items():
        made = {name: block}
        if name in listed:
            try:
                made = listed[name].result()
            except VlmillError as error:
                errors.append(error)
        if taken := found.keys() & made.keys():
            told = f"sources.{name}.subsets: there is a source {min(taken)!r} already; rename one of them"
            errors.append(RecipeError(told))
            made = {name: block}
        found |= made
    return {**data, "sources": found}, errors


def list_unlisted(data: Mapping[str, Any]) -> list[str]:
    """The sources of a recipe's mapping whose subsets have not become sources, as where they cannot be listed."""
    sources = data.get("sources")
    blocks = sources.items() if isinstance(sources, dict) else ()
    return [str(name) for name, block in blocks if _has_subsets(block)]


def _has_subsets(block: Any) -> bool:
    return isinstance(block, dict) and block.get("subsets") is not None


def name_subset(source: str, subset: str) -> str:
    """The name of a subset's source: letters, digits, -, _ of the subset's name; all else becomes _."""
    return f"{source}-{re.sub(r'[^A-Za-z0-9_-]+', '_', subset).strip('_')}"


def _expand_source(name: str, block: Mapping[str, Any], base: Path, locked: Mapping[str, Any]) -> dict[str, Any]:
    wanted, where = block["subsets"], f"sources.{name}.subsets"
    listed = isinstance(wanted, list | tuple) and wanted and all(isinstance(item, str) and item for item in wanted)
    if wanted != ALL and not listed:
        raise RecipeError(f'{where}: "*" for all, or a list of names, not {wanted!r:.80}')
    _check_form(name, block)
    places = _recall_places(name, block, locked) if wanted == ALL else None
    if places is None:
        places = _find_places(name, block, base, () if wanted == ALL else tuple(wanted))
    shared = {key: item for key, item in block.items() if key not in ("subsets", "files", "split")}
    made = dict[str, Any]()
    for subset, place in places.items():
        ours = name_subset(name, subset)
        if ours in made:
            raise RecipeError(f"{where}: two subsets would both be the source {ours!r}, one of them {subset!r}")
        made[ours] = {**_name_images(shared, subset), **place, "group": name}
    return dict(sorted(made.items()))


def _name_images(shared: Mapping[str, Any], subset: str) -> dict[str, Any]:
    """What the subsets of a source have in common, with the subset's name in the place of `{subset}` in `images`."""
    images = shared.get("images")
    return {**shared, **({"images": images.replace(PLACE, subset)} if isinstance(images, str) else {})}


def _check_form(name: str, block: Mapping[str, Any]) -> None:
    where, pattern = f"sources.{name}", block.get("files")
    if block.get("subset") is not None:
        raise RecipeError(f"{where}: `subset` names one and `subsets` several; leave one out")
    if pattern is not None and (not isinstance(pattern, str) or pattern.count(PLACE) != 1):
        raise RecipeError(
            f"{where}.files: beside `subsets` it has {PLACE} once, such as '{PLACE}/train-*.parquet', "
            f"not {pattern!r:.80}"
        )
    if pattern is not None and block.get("split") is not None:
        raise RecipeError(f"{where}: `files` says which files to read, and so does `split`; leave one out")


def _recall_places(name: str, block: Mapping[str, Any], locked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Subset -> what tells its files from the others', as the run's lock has it; None where it has none or others."""
    group = {ours: held for ours, held in locked.items() if held.get("group") == name}
    places = {
        ours.removeprefix(f"{name}-"): {key: held[key] for key in ("files", "subset", "split") if key in held}
        for ours, held in group.items()
    }
    if not places or any(not _is_of(place, block) for place in places.values()):
        return None
    return places


def _is_of(place: Mapping[str, Any], block: Mapping[str, Any]) -> bool:
    """Whether a subset's files are those that the recipe's block asks for today."""
    pattern = block.get("files")
    if pattern is not None:
        return _match_subset(pattern, str(place.get("files"))) is not None
    return "files" in place or place.get("split") == block.get("split", SPLIT)


def _match_subset(pattern: str, files: str) -> str | None:
    before, _, behind = pattern.partition(PLACE)
    matched = re.fullmatch(rf"{re.escape(before)}([^/]+){re.escape(behind)}", files)
    return matched[1] if matched else None


def _find_places(name: str, block: Mapping[str, Any], base: Path, wanted: Collection[str]) -> dict[str, Any]:
    """Subset -> `files`, or `subset` and `split`; of those that are wanted, or of all."""
    root, split = str(block.get("root", ".")), str(block.get("split") or SPLIT)
    root = resolve_place(root, base)
    pattern = block.get("files")
    if pattern is not None:
        listed = wanted if wanted and is_hub(root) else _list_folders(name, root, pattern)
        found = {subset: {"files": pattern.replace(PLACE, glob.escape(subset))} for subset in listed}
    else:
        found = _read_configs(name, root, split)
        if not found:
            pattern = f"{PLACE}/{split}*"
            found = {
                subset: {"files": pattern.replace(PLACE, glob.escape(subset))}
                for subset in _list_folders(name, root, pattern)
            }
    if missing := [subset for subset in wanted if subset not in found]:
        raise RecipeError(
            f"sources.{name}.subsets: {root} has no {', '.join(map(repr, missing))}; {suggest_names(missing[0], found)}"
        )
    return {subset: place for subset, place in found.items() if not wanted or subset in wanted}


def _list_folders(name: str, root: str, pattern: str) -> list[str]:
    """The names in the place of `{subset}`, of files that are there."""
    parts = [GLOB.sub(lambda found: MEANS.get(found[0], re.escape(found[0])), part) for part in pattern.split(PLACE)]
    matches = re.compile("([^/]+?)".join(parts)).fullmatch
    found = (matches(file.name) for file in list_input_files(name, root, pattern.replace(PLACE, "*")))
    return sorted({match[1] for match in found if match})


def _read_configs(name: str, root: str, split: str) -> dict[str, Any]:
    """Config -> where its split is, of those that the head of README.md lists; nothing where there are none."""
    try:
        (readme,) = list_input_files(name, root, README)
    except SourceError as error:
        if "no file matches" in str(error):
            return {}
        raise
    configs = _parse_head(_read_readme(readme), f"{root}/{README}")
    found = dict[str, Any]()
    for config in configs:
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            raise SourceError(f"{root}/{README}: a config without a name; give `files` with {PLACE} instead")
        subset = config["config_name"]
        if is_hub(root):
            found[subset] = {"subset": subset, "split": split}
        elif (files := _find_pattern(config, split)) is not None:
            found[subset] = {"files": files}
    return found


def _read_readme(readme: Any) -> str:
    with open_input(readme) as path, path.open("rb") as file:
        text: bytes = file.read(LONGEST_README)
    return text.decode("utf-8", "replace")


def _parse_head(text: str, where: str) -> list[Any]:
    head = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    try:
        data = parse_yaml(head[1], where) if head else {}
    except RecipeError as error:
        raise SourceError(f"{error}; give `files` with {PLACE} instead") from error
    configs = data.get("configs") if isinstance(data, dict) else None
    return configs if isinstance(configs, list) else []


def _find_pattern(config: Mapping[str, Any], split: str) -> str | None:
    """The pattern of a config's split below a local folder; None where it has no such split.

    Raises:
        SourceError: it has several patterns.
    """
    listed = config.get("data_files")
    entries = listed if isinstance(listed, list) else [{"split": SPLIT, "path": listed}]
    for entry in entries:
        if isinstance(entry, dict) and entry.get("split") == split and isinstance(entry.get("path"), str):
            pattern = posixpath.join(str(config.get("data_dir") or ""), entry["path"])
            if pattern.startswith("/") or ".." in pattern.split("/"):
                raise SourceError(f"{config['config_name']}: {pattern!r:.80} leads out of the dataset's folder")
            return pattern
        if isinstance(entry, dict) and entry.get("split") == split:
            raise SourceError(
                f"{config['config_name']}: split {split!r} has several patterns of files, and a source has one; "
                f"give `files` with {PLACE} instead"
            )
    return None
