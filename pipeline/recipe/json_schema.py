"""The JSON Schema of a recipe, from its typed blocks.

Editors complete keys from it, and the reference is written from it.

Descriptions come from where the code has them: docstrings, an `Attributes:` section, and the comment behind a field.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from vlmill.pipeline.core.field_comments import read_fields
from vlmill.pipeline.recipe.custom_sources import read_class_names, read_source_kinds
from vlmill.pipeline.recipe.include import Composition, list_presets
from vlmill.pipeline.recipe.published import PresetUse, PublishedUse, list_published_stages
from vlmill.pipeline.recipe.schema import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TAKING: dict[str, Any] = {"composition": Composition, "preset": PresetUse, "published": PublishedUse}
NOT_BESIDE = ("shares", "repeat", "family")
"""Keys that a published mixture or a preset always has itself."""


def make_json_schema(model: type[Any], mixture: type[Any], train: type[Any]) -> dict[str, Any]:
    """The schema of a recipe file, draft 2020-12.

    Args:
        model: the class of the recipe's `model` block.
        mixture: the class of a stage's `mixture` block.
        train: the class of a stage's `train` block.
    """
    blocks: dict[str, Any] = {"recipe": Recipe, "model": model, "mixture": mixture, "train": train, **TAKING}
    roots, named = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(block)) for name, block in blocks.items()], schema_generator=_Generator
    )
    refs = {name: roots[name, "validation"] for name in blocks}
    found: dict[str, Any] = named["$defs"]
    recipe, stage = found.pop("Recipe"), found["Stage"]["properties"]
    composing = found.pop("Composition")["properties"]
    recipe["properties"] = {
        **{name: item for name, item in recipe["properties"].items() if name != "custom_filters"},
        **composing,
    }
    for properties, name in ((recipe["properties"], "model"), (stage, "mixture"), (stage, "train")):
        properties[name] = {**refs[name], "description": found[refs[name]["$ref"].rpartition("/")[2]]["description"]}
    _allow_taking(recipe["properties"]["model"], found, "PresetUse", "preset", list(list_presets()))
    _allow_taking(stage["mixture"], found, "PublishedUse", "published", list_published_stages())
    recipe["required"] = ["name"]
    recipe["anyOf"] = [{"required": ["sources"]}, {"required": ["include"]}]
    # A source and `decontaminate` may add to included ones, and have then what those have.
    source, against = (found[block].pop("required") for block in ("SourceSettings", "Decontamination"))
    whole = {"sources": {"additionalProperties": {"required": source}}, "decontaminate": {"required": against}}
    recipe["if"], recipe["then"] = {"not": {"required": ["include"]}}, {"properties": whole}
    return {"$schema": DIALECT, **recipe, "title": "Recipe of vlmill", "$defs": dict(sorted(found.items()))}


def add_custom_kinds(made: dict[str, Any], codes: Sequence[str]) -> dict[str, Any]:
    """The schema, with the sources and signals in these files, in place; their code is read as text and not run.

    What stands in their options is not checked. Filters of a user may have any name already, and signals any `kind`.
    """
    kind = made["$defs"]["SourceSettings"]["properties"]["kind"]
    kind["enum"] = sorted({*kind["enum"], *(name for code in codes for name in read_source_kinds(code))})
    names = {name: {"type": ["object", "null"]} for code in codes for name in read_class_names(code)}
    made["properties"]["signals"] |= {"properties": names} if names else {}
    return made


def _allow_taking(item: dict[str, Any], found: dict[str, Any], form: str, key: str, names: list[str]) -> None:
    """Let a block be one that takes from what was published, with other keys of the block beside; in place."""
    reference = item.pop("$ref")
    block = found[reference.rpartition("/")[2]]
    own = {name: inside for name, inside in block["properties"].items() if name not in NOT_BESIDE}
    taking = found[form]
    taking["properties"] = {**taking["properties"], **own}
    taking["properties"][key] = {**taking["properties"][key], "enum": names}
    item["anyOf"] = [{"$ref": reference}, {"$ref": f"#/$defs/{form}"}]


class _Generator(GenerateJsonSchema):
    """Pydantic's generator with the descriptions that stand in the code."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """The schema of one block."""
        block, made = schema["cls"], super().dataclass_schema(schema)
        described = describe_fields(block)
        for name, item in made.get("properties", {}).items():
            item.pop("title", None)
            if name in described:
                item["description"] = described[name]
        made["description"] = describe_class(block)
        return _put_kind_beside(made)


def _put_kind_beside(made: JsonSchemaValue) -> JsonSchemaValue:
    """Of a block whose `kind` says what may stand in its `options`: one condition a kind."""
    properties = made.get("properties", {})
    if "kind" not in properties or "oneOf" not in properties.get("options", {}):
        return made
    conditions = []
    for choice in properties["options"].pop("oneOf"):
        kind = choice["properties"]["kind"]["const"]
        options = {
            **choice,
            "properties": {name: item for name, item in choice["properties"].items() if name != "kind"},
            "required": [name for name in choice["required"] if name != "kind"],
        }
        needed = {} if properties["kind"].get("default") == kind else {"required": ["kind"]}
        chosen = {"properties": {"kind": {"const": kind}}, **needed}
        conditions.append({"if": chosen, "then": {"properties": {"options": options}}})
    properties["options"] |= {"type": "object"}
    return {**made, "allOf": conditions}


def describe_class(block: type[Any]) -> str:
    """What a class's docstring says, without its attributes."""
    return _to_yaml_words(inspect.cleandoc(block.__doc__ or "").partition("\n\nAttributes:\n")[0])


def _to_yaml_words(text: str) -> str:
    """A text of the code in one line, with the words that YAML has."""
    for python, said in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"\b{python}\b", said, text)
    return " ".join(text.split())


def describe_fields(block: type[Any]) -> Mapping[str, str]:
    """What the code says of each field of a class and of those that it inherits: field -> one line."""
    return {name: _to_yaml_words(text) for name, text in read_fields(block).items()}
