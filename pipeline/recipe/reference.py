"""The reference of recipes as Markdown, written from their JSON Schema: a section a block, a line a key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

HEAD = """# Recipe reference

Every key that a recipe may have. `vlmill schema --markdown` writes this page from the classes that a recipe is read
into; do not edit it. An editor with a YAML language server completes and checks recipes by the JSON Schema: write it
with `vlmill schema > recipe.schema.json`, and put `# yaml-language-server: $schema=recipe.schema.json` into the
recipe's first line.

Where `kind` or a filter's name decides what else a block may hold, each kind and each filter has a section.
`--set KEY=VALUE` replaces any value for one command, with dots between keys: `--set shape.max_ratio=5`,
`--set stages.align.train.steps=200`. A filter is named as it is, or with `filters.` before it.
"""
LARGEST = 1 << 53
"""From here on a bound only says that an integer has 64 bits."""


def write_reference(schema: Mapping[str, Any]) -> str:
    """The page of a schema that `make_json_schema` made."""
    sections = [HEAD, *_write_block("Recipe", schema, level=2)]
    for name, block in schema["$defs"].items():
        if name != "CustomCode":
            sections += _write_block(name, block, level=2)
    return "\n".join(sections).rstrip() + "\n"


def _write_block(name: str, block: Mapping[str, Any], level: int) -> Iterator[str]:
    """A block with its keys, and below it what stands in these by kind or by name."""
    yield f"{'#' * level} {name}\n\n{_escape_cell(block.get('description', ''))}\n"
    properties = block.get("properties", {})
    if properties:
        yield "| key | value | default | meaning |\n|---|---|---|---|"
        for key, item in properties.items():
            yield _write_key(key, item, needed=key in block.get("required", ()))
        yield ""
    for key, choices in _list_choices(block).items():
        for choice, inside in choices.items():
            yield from _write_block(f"{name}: {key} {choice}", inside, level + 1)


def _write_key(key: str, item: Mapping[str, Any], *, needed: bool) -> str:
    default = "needed" if needed else f"`{json.dumps(item['default'])}`" if "default" in item else ""
    return f"| `{key}` | {_name_type(item)} | {default} | {_escape_cell(item.get('description', ''))} |"


def _list_choices(block: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Key -> name -> block: the options of sources by kind, policies by kind, filters by name."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for condition in block.get("allOf", ()):
        kind = condition["if"]["properties"]["kind"]["const"]
        found.setdefault("options of kind", {})[kind] = condition["then"]["properties"]["options"]
    for key, item in block.get("properties", {}).items():
        inside = item.get("additionalProperties", {})
        for choice in inside.get("oneOf", ()) if isinstance(inside, Mapping) else ():
            if "const" in (kind := choice["properties"]["kind"]):  # else a kind of a user
                found.setdefault(f"{key} of kind", {})[kind["const"]] = choice
        for name, choice in item.get("items", {}).get("properties", {}).items():
            found.setdefault(key, {})[name] = choice["anyOf"][0]
    return found


def _name_type(item: Mapping[str, Any]) -> str:
    """What a value may be, in a few words, with links to blocks."""
    if "$ref" in item:
        name = item["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in item or "enum" in item:
        return ", ".join(f"`{value}`" for value in item.get("enum") or [item["const"]])
    if choices := item.get("anyOf") or item.get("oneOf"):
        return " or ".join(dict.fromkeys(_name_type(choice) for choice in choices))
    if item.get("type") == "array":
        return _name_list(item)
    if item.get("type") == "object":
        return _name_mapping(item)
    return f"{item.get('type', 'anything')}{_name_bounds(item)}"


def _name_list(item: Mapping[str, Any]) -> str:
    if "prefixItems" in item:
        return f"[{', '.join(_name_type(inside) for inside in item['prefixItems'])}]"
    if item["items"].get("properties"):
        return "list of one of the names below, with its settings"
    return f"list of {_name_type(item['items'])}"


def _name_mapping(item: Mapping[str, Any]) -> str:
    inside = item.get("additionalProperties")
    if not isinstance(inside, Mapping):
        return "mapping"
    if "kind" in str(inside.get("oneOf", "")):
        return "name: one of the kinds below"
    names = " or ".join(f"`{name}`" for name in item.get("propertyNames", {}).get("enum", ()))
    return f"{names or 'name'}: {_name_type(inside)}"


def _name_bounds(item: Mapping[str, Any]) -> str:
    signs = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    said = [f"{sign} {item[key]:g}" for key, sign in signs.items() if key in item and abs(item[key]) < LARGEST]
    return f" {' '.join(said)}" if said else ""


def _escape_cell(text: str) -> str:
    """A text for a cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()
