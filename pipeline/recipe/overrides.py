"""What the command line changes in a recipe: single values, places of sources, custom filters.

Works on its YAML mapping.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.places import resolve_place
from vlmill.pipeline.core.yaml_format import parse_yaml
from vlmill.pipeline.filters import FILTERS
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.filters.custom import CustomCode
from vlmill.pipeline.inputs.files import is_remote_folder
from vlmill.pipeline.inputs.hub_files import is_hub
from vlmill.pipeline.recipe.custom_sources import find_source_classes, read_source_kinds
from vlmill.pipeline.recipe.located import take_name
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.signals.custom import METHOD as SIGNAL_METHOD
from vlmill.pipeline.sources import SOURCES

STEP_NAMES = (
    *(
        "survey",
        "read",
        "skip_images",
        "fetch",
        "retry",
        "takedown",
        "image_stats",
        "match",
        "written",
        "boxes",
        "signature",
        "contamination",
        "decontaminate",
    ),
    *("dedupe", "semantic", "render", "outcomes", "quantiles"),
)
"""Names of steps beside the filters, which no custom filter may take."""

MARKED = "[{&*!|>%@`"
"""What a text may not begin with in YAML."""

DEFAULT_FILTERS: tuple[Mapping[str, Mapping[str, Any] | None], ...] = ({"language": None},)
"""Those of a recipe that names none."""


def add_custom_filters(data: dict[str, Any], file: str, code: str) -> None:
    """Add the filters, signals and sources in a file that the command line names to a recipe's mapping.

    The mapping gets the code, each filter that is not there yet as the last one, and each signal that no entry of
    `signals` is of, under its own name. Sources are known by their kind.

    Raises:
        RecipeError: there is none of them in it, or a name is taken.
    """
    signals = custom_filters.find_named_classes(file, code, SIGNAL_METHOD)
    shapes = find_source_classes(file, code)
    filters = {} if signals or shapes else custom_filters.find_filter_classes(file, code)
    filters = {**filters, **custom_filters.find_named_classes(file, code, custom_filters.METHOD)}
    names = [*filters, *signals]
    taken = dict.fromkeys(FILTERS, "one of ours") | dict.fromkeys(STEP_NAMES, "a step of the run")
    taken |= dict.fromkeys(SIGNALS, "a signal of ours")
    shaped = dict.fromkeys(SOURCES, "a source of ours")
    for other, known in data.setdefault("custom_filters", {}).items():
        if other == file:
            raise RecipeError(
                f"--filter {file}: a file of that name is already among the recipe's custom filters; rename one"
            )
        own = parse_block(CustomCode, known, f"custom_filters.{other}")
        taken |= dict.fromkeys(own.names(), f"a filter of {other}")
        shaped |= dict.fromkeys(read_source_kinds(own.code), f"a source of {other}")
    for kind in shapes:
        if kind in shaped:
            raise RecipeError(f"--filter {file}: the kind {kind!r} is taken: {shaped[kind]} has it; choose another")
    for name in names:
        if name in taken:
            raise RecipeError(f"--filter {file}: the name {name!r} is taken: {taken[name]} has it; choose another")
    data["custom_filters"][file] = {"sha256": custom_filters.hash_code(code), "code": code}
    if filters:
        entries = _list_filters(data)
        entries += [{name: None} for name in filters if name not in _list_filter_names(data)]
    if signals:
        block = data["signals"] = data.get("signals") or {}
        kinds = {entry.get("kind") for entry in block.values() if isinstance(entry, Mapping)}
        block |= {name: {"kind": name} for name in signals if name not in kinds}


def set_value(data: dict[str, Any], key: str, text: str) -> None:
    """Replace the value at a dotted key with what `text` says in YAML.

    A number steps into a list, a filter's name into the list of filters. Where names hold dots, the longest counts.

    A filter that the recipe does not name yet is asked last; without `filters.` in front its name is understood as
    well.

    Raises:
        RecipeError: there is no such place, or the text is no YAML.
    """
    value = _read_value(key, text)
    if key.partition(".")[0] == "custom_filters":
        raise RecipeError(f"--set {key}: code of filters comes from a file, with --filter FILE")
    parts = _add_named_filter(data, key.split("."))
    place: Any = data
    part = ""
    last, parts = take_name(parts, _list_names(place))
    while parts:
        place, part = _find_inside(place, last, key), last
        last, parts = take_name(parts, _list_names(place))
    if isinstance(place, list):
        _replace_item(place, last, value, key)
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise RecipeError(f"--set {key}: {part} holds {place!r:.80}, which has no {last!r}")


def _read_value(key: str, text: str) -> Any:
    """What the text of a value says in YAML. Raises RecipeError."""
    try:
        return parse_yaml(text, f"--set {key}={text:.80}: the value")
    except RecipeError as error:
        if not text.startswith(tuple(MARKED)) or {*"'\""} & {*text}:
            raise
        raise RecipeError(f"{error}; if it is a text, put it in quotes: --set '{key}=\"{text:.80}\"'") from None


def _add_named_filter(data: dict[str, Any], parts: list[str]) -> list[str]:
    """The parts of a dotted key with `filters` in front of a filter's name; a filter that is not there yet is added."""
    filters = {*FILTERS, *_list_filter_names(data)}
    if parts[0] != "filters":
        name, _ = take_name(parts, filters)
        if parts[0] in {*data, *Recipe.__dataclass_fields__} or name not in filters:
            _refuse_near_filter(data, parts, filters)
            return parts
        parts = ["filters", *parts]
    if len(parts) == 1:
        return parts
    name, settings = take_name(parts[1:], filters)
    if settings or name in filters:
        entries = _list_filters(data)
        if name not in _list_filter_names(data) and not name.isdigit():
            entries.append({name: {}})
    return parts


def _refuse_near_filter(data: Mapping[str, Any], parts: list[str], filters: Collection[str]) -> None:
    """Refuse a key that is none of a recipe's and looks like a filter. Raises RecipeError."""
    near = difflib.get_close_matches(parts[0], filters, n=1, cutoff=0.8)
    if near and len(parts) > 1 and parts[0] not in {*data, *Recipe.__dataclass_fields__}:
        raise RecipeError(
            f"--set {'.'.join(parts)}: there is no filter {parts[0]!r}, and no such key of a recipe; did you mean "
            f"{near[0]!r}?"
        )


def _list_names(place: Any) -> list[Any]:
    """What a part of a dotted key may name in a mapping, or in a list."""
    if isinstance(place, list):
        return [name for item in place if isinstance(item, dict) for name in (*item, *_get_names(item))]
    return list(place) if isinstance(place, dict) else []


def _replace_item(items: list[Any], last: str, value: Any, key: str) -> None:
    """Put `value` in the place of the item of a list that a number, its name or its only key means."""
    named = [n for n, item in enumerate(items) if isinstance(item, dict) and (last in item or last in _get_names(item))]
    if named and last in items[named[0]]:
        items[named[0]][last] = value
    elif named:
        items[named[0]] = value
    elif last.isdecimal() and len(last) < 10 and int(last) < len(items):
        items[int(last)] = value
    else:
        raise RecipeError(f"--set {key}: no {last!r} in this list of {len(items)}; its items are counted from 0")


def _list_filter_names(data: Mapping[str, Any]) -> list[str]:
    """The filters that a recipe's mapping names."""
    entries = data.get("filters", DEFAULT_FILTERS)
    return (
        [name for entry in entries if isinstance(entry, dict) for name in entry]
        if isinstance(entries, list | tuple)
        else []
    )


def _list_filters(data: dict[str, Any]) -> list[Any]:
    """The list of filters in a recipe's mapping, where it has none the default ones, which it has from now on."""
    entries = data.setdefault("filters", [dict(entry) for entry in DEFAULT_FILTERS])
    if not isinstance(entries, list):
        raise RecipeError(f"filters: a list such as [{{language: {{drop: [zh]}}}}], not {entries!r:.80}")
    return entries


def _get_names(item: Mapping[str, Any]) -> tuple[Any, Any]:
    """What an item of a list goes by beside its only key: a stage's name, or the source of a mixture's entry."""
    return item.get("name"), item.get("source")


def _find_inside(place: Any, part: str, key: str) -> Any:
    if isinstance(place, list):
        named = [item for item in place if isinstance(item, dict) and (part in item or part in _get_names(item))]
        if named and part in named[0]:
            return _find_inside(named[0], part, key)
        if named:
            return named[0]
        if part.isdecimal() and len(part) < 10 and int(part) < len(place):
            return place[int(part)]
        raise RecipeError(f"--set {key}: no {part!r} in this list of {len(place)}")
    if isinstance(place, dict):
        if place.get(part) is None:
            place[part] = {}
        return place[part]
    raise RecipeError(f"--set {key}: {place!r:.80} has no {part!r}")


def list_locations(data: Mapping[str, Any]) -> dict[str, Any]:
    """Blocks of a recipe's mapping that say where files lie: of its sources, and of benchmarks that are written out."""
    block, sources = data.get("decontaminate"), data.get("sources")
    against = block.get("against") if isinstance(block, dict) else None
    found = {**(against if isinstance(against, dict) else {}), **(sources if isinstance(sources, dict) else {})}
    return {name: place for name, place in found.items() if isinstance(place, dict)}


def move_source(data: dict[str, Any], source: str, place: str) -> None:
    """Point a source or benchmark at other files.

    A folder or repository keeps the pattern, a file or pattern replaces it.

    A source's images are there too.
    """
    sources = list_locations(data)
    if source not in sources:
        raise RecipeError(
            f"--source {source}: the recipe has no such source or benchmark; {suggest_names(source, list(sources))}"
        )
    sources[source].pop("images", None)
    if Path(place).is_dir() or place.endswith("/") or _is_repository(place) or is_remote_folder(place):
        sources[source]["root"] = resolve_place(place, Path())
        return
    root, pattern = _split_pattern(place)
    sources[source] |= {"root": resolve_place(root, Path()), "files": pattern}
    for name in ("subset", "split"):
        sources[source].pop(name, None)


def _is_repository(place: str) -> bool:
    if not is_hub(place):
        return False
    from vlmill.pipeline.inputs import hub  # noqa: PLC0415 - imports huggingface_hub

    return hub.is_repository(place)


def _split_pattern(place: str) -> tuple[str, str]:
    """The folder of a file or pattern, and the rest; of this machine the deepest folder that is there."""
    if "://" not in place:
        folder = next(parent for parent in Path(place).parents if parent.is_dir() or not parent.name)
        rest = str(Path(place).relative_to(folder))
        fixed = re.split(r"[*?\[]", rest, maxsplit=1)[0].rpartition("/")[0]
        pattern = rest.removeprefix(f"{fixed}/")
        return str(folder / fixed), glob.escape(pattern) if Path(place).is_file() else pattern
    root, _, _ = re.split(r"[*?\[]", place, maxsplit=1)[0].rpartition("/")
    return root, place.removeprefix(f"{root}/")
