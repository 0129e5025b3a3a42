"""Mixtures of other projects, read into ours: the YAML that LLaVA-NeXT and LLaVA-OneVision are trained with.

    datasets:
      - json_path: /data/ai2d_llava_format_2434.json
        sampling_strategy: first:10%

Strategies are those of `LazySupervisedDataset` in LLaVA-NeXT's llava/train/train.py (all, first, end, random;
percentages rounded up), and ours have the same names. What comes out has the form of the published mixtures beside this
file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vlmill.mixtures.config import TAKE, MixtureSettings
from vlmill.pipeline.core.config import parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.yaml_format import format_yaml, read_yaml

KEYS = ("json_path", "sampling_strategy")

COUNT = re.compile(r"(?<!\d)([1-9]\d*)k(?![a-z\d])|(?<!\d)([1-9]\d{2,})(?!\d)", re.IGNORECASE)
"""A number of samples in a file's name: 39k, or three digits and more."""


def read_mixture(path: Path, sequence_length: int) -> dict[str, Any]:
    """A published mixture of one stage, as plain data, made of a file of datasets and sampling strategies.

    Counts are those in the files' names, where these hold one: the last.

    Raises:
        RecipeError: there is no such file, or it has another form; the message names the entry and what was allowed.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such file")
    data = read_yaml(path)
    if not isinstance(data, Mapping) or not isinstance(data.get("datasets"), list) or not data["datasets"]:
        raise RecipeError(
            f"{path}: no list `datasets`; such a file has entries of json_path and sampling_strategy, as "
            "LLaVA-NeXT's scripts/train/*.yaml"
        )
    found = [_read_entry(entry, f"{path}: datasets[{place}]") for place, entry in enumerate(data["datasets"])]
    names = _name_files(dict.fromkeys(file for file, _ in found), path)
    entries = _group_entries([(names[file], take) for file, take in found])
    mixture = parse_block(MixtureSettings, {"sequence_length": sequence_length, "entries": entries}, str(path))
    labels = mixture.labels()
    counts = {
        label: {"samples": count}
        for label, (file, _) in zip(labels, found, strict=True)
        if (count := count_rows(make_source_name(file.stem))) is not None
    }
    stage = {"mixture": {"sequence_length": sequence_length, "entries": entries}, "published": counts}
    return {"title": path.stem, "stages": {make_source_name(path.stem): stage}}


def _read_entry(entry: Any, where: str) -> tuple[PurePosixPath, str]:
    """The file and `take` of an entry."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("json_path"), str):
        raise RecipeError(f"{where}: an entry names its file under json_path, not {entry!r}")
    for key in entry:
        if key not in KEYS:
            raise RecipeError(f"{where}: unknown key {key!r}; {suggest_names(str(key), list(KEYS))}")
    take = str(entry.get("sampling_strategy", "all"))
    if not TAKE.fullmatch(take):
        raise RecipeError(
            f"{where}: sampling_strategy {take!r}; allowed: all, first:N, end:N, random:N, each N a number or a "
            "percentage"
        )
    file = PurePosixPath(entry["json_path"])
    if not make_source_name(file.stem):
        raise RecipeError(f"{where}: json_path {entry['json_path']!r} names no file")
    return file, take


def _name_files(paths: Iterable[PurePosixPath], where: Path) -> dict[PurePosixPath, str]:
    """A source's name for each file, with as many folders before it as tell it from the others.

    Raises:
        RecipeError: two files have the same name with all their folders.
    """
    found = {path: make_source_name(path.stem) for path in paths}
    for folders in range(1, max(len(path.parts) for path in found) + 1):
        counts = Counter(found.values())
        alike = [path for path, name in found.items() if counts[name] > 1]
        if not alike:
            return found
        for path in alike:
            found[path] = make_source_name("_".join((*path.parent.parts[-folders:], path.stem)))
    raise RecipeError(
        f"{where}: {' and '.join(map(str, alike))} would be sources of one name, {found[alike[0]]!r}; rename one of "
        "them"
    )


def _group_entries(entries: list[tuple[str, str]]) -> dict[str, Any] | list[dict[str, Any]]:
    """`entries` of a mixture: a mapping, or a list where a file is named more than once."""
    settings = [{} if take == "all" else {"take": take} for _, take in entries]
    names = [name for name, _ in entries]
    if max(Counter(names).values()) == 1:
        return dict(zip(names, settings, strict=True))
    return [{"source": name, **more} for name, more in zip(names, settings, strict=True)]


def make_source_name(stem: str) -> str:
    """A file's name as that of a source: letters, digits, - and _."""
    return re.sub(r"[^\w-]", "_", stem.replace("+", "plus"), flags=re.ASCII).strip("_-")


def count_rows(name: str) -> int | None:
    """The number of samples in a file's name, or None."""
    found = list(COUNT.finditer(name))
    if not found:
        return None
    thousands, number = found[-1].groups()
    return int(thousands) * 1000 if thousands else int(number)


def to_yaml(published: Mapping[str, Any]) -> str:
    """As YAML that a person goes on editing: an entry per line, in the order it came in."""
    return format_yaml(dict(published), sort_keys=False, width=160)
