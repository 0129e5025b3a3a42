"""How plain data from YAML become frozen objects: strict dataclasses whose errors offer the nearest name.

A block whose class depends on its `kind` is declared with `OneOf`, a list entry of a name and its settings with
`OneNamed`, and a block that says what differs from another with `Overrides`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.yaml_format import format_yaml_inline

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
"""For `@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)`, which every block of a recipe is declared with."""

Amount = Annotated[int, Field(ge=1, lt=1 << 63)]
"""A number of things, or of bytes, of which there has to be one."""

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]

MAPPING, SILENT = "dict_type", "silent"
"""Types of errors: what should be a mapping is none; another error says it already."""

FORMS = {
    "tuple_type": "Input should be a list, such as [a, b]",
    MAPPING: "Input should be a mapping, such as {a: 1}",
    "dataclass_type": "Input should be a mapping, such as {a: 1}",
}
"""What YAML calls the forms that Python has other names for."""

T = TypeVar("T")


def check_kind(kind: Any, table: Mapping[str, Any], code: str = "kind", hint: str = "") -> str:
    """`kind`, if the table has it; `code` is the type of the error, which ends with `hint`.

    Raises:
        PydanticCustomError: it has not; the message offers the nearest.
    """
    if isinstance(kind, str) and kind in table:
        return kind
    fault = "is missing" if kind is None else f"{kind!r:.80} is unknown"
    raise PydanticCustomError(
        code, "{fault}; {names}", {"fault": fault, "names": suggest_names(str(kind), table) + hint}
    )


@dataclass(frozen=True, eq=False)
class KindOf:
    """Says of a field that it is a name in a table: `Annotated[str, KindOf(SOURCES)]`.

    `hint` is added to what is said of a name that is not there. With `open`, names are taken as well that `parse_block`
    is given as `kinds`; objects that are made in code may have any, and what they are part of looks them up.
    """

    table: Mapping[str, Any]
    hint: str = ""
    open: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A text that is checked against the table."""
        return core_schema.with_info_before_validator_function(self._check, handler(source))

    def _check(self, kind: Any, info: ValidationInfo) -> Any:
        if self.open and isinstance(kind, str) and (info.context is None or kind in info.context["kinds"]):
            return kind
        own = info.context["kinds"] if self.open and info.context else ()
        return check_kind(kind, {**self.table, **dict.fromkeys(own)}, hint=self.hint)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """An enumeration."""
        del schema, handler
        return {"enum": sorted(self.table)}


@dataclass(frozen=True, eq=False)
class OneOf:
    """Says of a field that its class is the one that `kind` names in a table: `Annotated[Policy, OneOf(POLICIES)]`.

    Objects of these classes are taken as they are. `other` makes an object of a kind that the table has not, and its
    settings; without it such a kind is an error.
    """

    table: Mapping[str, type[Any]]
    other: Any = None  # (kind, settings) -> object
    described: bool = True  # whether the JSON Schema says that there may be other kinds

    def choose(self, values: Any) -> Any:
        """The class of a mapping with a `kind`."""
        return self.table.get(str(values.get("kind"))) if isinstance(values, Mapping) else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A union over the table, tagged by `kind`."""
        del source
        choices: dict[Any, CoreSchema] = {
            kind: core_schema.no_info_before_validator_function(_drop_kind, handler.generate_schema(made))
            for kind, made in self.table.items()
        }
        choices[""] = core_schema.any_schema()
        union = core_schema.tagged_union_schema(choices, self._find_tag)
        return core_schema.no_info_before_validator_function(self._check, union)

    def _find_tag(self, value: Any) -> str:
        return str(value["kind"]) if isinstance(value, dict) else ""

    def _check(self, value: Any) -> Any:
        """What the union takes: a dictionary with a known kind, or an object."""
        if isinstance(value, tuple(self.table.values())) or (self.other and dataclasses.is_dataclass(value)):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError(MAPPING, "a mapping")
        if self.other and isinstance(value.get("kind"), str) and value["kind"] not in self.table:
            return self.other(value["kind"], _drop_kind(value))
        check_kind(value.get("kind"), self.table, "kind_inside")
        return dict(value)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """One schema a kind, each with its `kind` as a constant."""
        choices = _find_choices(schema)
        described = []
        for kind in sorted(self.table):
            made = dict(handler.resolve_ref_schema(handler(choices[kind]["schema"])))
            properties = {
                "kind": {"const": kind, "description": "which of the kinds it is"},
                **made.get("properties", {}),
            }
            described.append({**made, "properties": properties, "required": ["kind", *made.get("required", ())]})
        if self.other and self.described:
            described.append(
                {"type": "object", "properties": {"kind": {"not": {"enum": sorted(self.table)}}}, "required": ["kind"]}
            )
        return {"oneOf": described}


def _find_choices(schema: Any) -> Mapping[str, Any]:
    """Those of the union inside of what validates before it."""
    while "choices" not in schema:
        schema = schema["schema"]
    found: Mapping[str, Any] = schema["choices"]
    return found


def _drop_kind(value: Any) -> Any:
    return {name: item for name, item in value.items() if name != "kind"}


@dataclass(frozen=True, eq=False)
class OneNamed:
    """Marks a field as one name of a table with settings, or none.

    As in `{shape: {max_ratio: 5}}`, `{shape: null}`.

    `other` makes an object of a name that the table has not, and its settings. Objects are taken as they are.
    """

    table: Mapping[str, type[Any]]
    other: Any  # (name, settings) -> object

    def choose(self, values: Any) -> Any:
        """The classes by name."""
        del values
        return self.table

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A union over the table, tagged by the name."""
        del source
        choices: dict[Any, CoreSchema] = {
            name: core_schema.no_info_before_validator_function(_get_settings, handler.generate_schema(made))
            for name, made in self.table.items()
        }
        choices[""] = core_schema.any_schema()
        choices["{}"] = core_schema.no_info_plain_validator_function(self._make_other)
        union = core_schema.tagged_union_schema(choices, self._find_tag)
        return core_schema.no_info_before_validator_function(self._check, union)

    def _check(self, value: Any) -> Any:
        """What the union takes: a dictionary of one name, or an object."""
        if value is None or isinstance(value, int | float | list | tuple):
            raise PydanticCustomError(MAPPING, "a mapping")
        if isinstance(value, str) or (isinstance(value, Mapping) and len(value) != 1):
            example = f"{value:.80}: {{}}" if isinstance(value, str) else "language: {drop: [zh]}"
            form = f"one name with its settings, such as `{example}`"
            raise PydanticCustomError("one_name", "{form}", {"form": form})
        return dict(value) if isinstance(value, Mapping) else value

    def _find_tag(self, value: Any) -> str:
        if not isinstance(value, dict):
            return ""
        (name,) = value
        return name if name in self.table else "{}"

    def _make_other(self, value: Mapping[str, Any]) -> Any:
        ((name, settings),) = value.items()
        if not isinstance(settings, Mapping | None):
            raise PydanticCustomError(MAPPING, "a mapping")
        return self.other(str(name), settings or {})

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """An object of one property; names beside the table may stand there too."""
        choices = _find_choices(schema)
        properties = {
            name: {"anyOf": [handler(choices[name]["schema"]), {"type": "null"}]} for name in sorted(self.table)
        }
        return {"type": "object", "properties": properties, "minProperties": 1, "maxProperties": 1}


def _get_settings(value: Mapping[str, Any]) -> Any:
    (settings,) = value.values()
    return {} if settings is None else settings


@dataclass(frozen=True, eq=False)
class Overrides:
    """Marks a field that holds some fields of a class, checked as that class checks them.

    As in `Annotated[Mapping[str, Any], Overrides(Fetch)]`.
    """

    made: type[Any]

    def choose(self, values: Any) -> Any:
        """The class."""
        del values
        return self.made

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The class's own schema, of which the keys that are given remain."""
        del source
        return core_schema.no_info_wrap_validator_function(_select_given, handler.generate_schema(self.made))


def _select_given(values: Any, handler: ValidatorFunctionWrapHandler) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise PydanticCustomError(MAPPING, "a mapping")
    made = handler(dict(values))
    return {name: getattr(made, name) for name in values}


def parse_block(kind: type[T], values: Any, where: str, kinds: Collection[str] = ()) -> T:
    """The frozen object of class `kind` that `values` from YAML describe; `kinds` are names beside those of tables.

    Raises:
        RecipeError: names `where`, each wrong key or value, what was allowed, and the nearest name.
    """
    try:
        return TypeAdapter(kind).validate_python(values, context={"kinds": kinds})
    except ValidationError as error:
        found = [item for item in error.errors(include_url=False) if item["type"] != SILENT]
        raise RecipeError(*(explain_fault(kind, values, where, item) for item in found)) from None


def suggest_names(name: str, allowed: Iterable[str]) -> str:
    """`did you mean 'x'? ` where something is near, and the list of what is allowed."""
    names = sorted(allowed)
    return f"{suggest_nearest([name], names)}allowed: {', '.join(names) or 'none'}"


def suggest_nearest(wanted: Iterable[str], names: Iterable[str]) -> str:
    """`did you mean 'x'? ` where a name is near to one of those wanted, whatever its capitals; nothing else."""
    by_letters = {name.casefold(): name for name in names}
    asked = [str(name)[:80].casefold() for name in wanted]
    close = [found for name in asked for found in difflib.get_close_matches(name, by_letters, n=1)]
    return f"did you mean {by_letters[close[0]]!r}? " if close else ""


def join_place(where: str, keys: Sequence[Any]) -> str:
    """The place of a value in errors: `model.text.path` in a block, `my.yaml: model.text.path` in a file."""
    inside = ".".join(map(str, keys))
    separator = ": " if where.endswith((".yaml", ".yml")) else "."
    return f"{where}{separator}{inside}" if inside else where


def explain_fault(kind: type[Any], values: Any, where: str, item: Any) -> str:
    """What pydantic's error `item` says of `values`, with the place as --set has it and what was allowed."""
    code, loc = item["type"], list(item["loc"])
    unknown, missing = (
        code in {"unexpected_keyword_argument", "extra_forbidden"},
        code in {"missing", "missing_argument"},
    )
    last = [loc.pop()] if unknown or missing else []
    path = drop_tags(values, loc)
    place = join_place(where, [*name_items(values, path), *last])
    if unknown:
        return f"{place}: unknown key {last[0]!r:.80}; {suggest_names(str(last[0]), _list_keys(kind, values, path))}"
    if missing:
        return f"{place}: is missing{_suggest_sibling(values, path)}"
    if code == "value_error":  # raised by a class of ours, which names the value itself
        return f"{place}: {item['ctx']['error']}"
    if code in {"kind", "kind_inside"}:
        return f"{place}{'.kind' if code == 'kind_inside' else ''}: {item['msg']}"
    form = FORMS.get(code, item["msg"])
    if code == "string_type" and loc[-1:] == ["[key]"]:
        form = f"A name should be a text, in quotes: '{item['input']}'"
    if code == "tuple_type" and (shown := _show_items(item["input"])):
        form = f"Input should be a list, an item for each key: {shown}"
    return f"{place}: {form}, not {item['input']!r:.200}"


def _suggest_sibling(values: Any, path: Sequence[Any]) -> str:
    """Which block beside the one that lacks something may have been meant: a misspelt name makes a block of its own."""
    *above, name = path or [None]
    for step in above:
        values = values[step]
    names = [str(key) for key in values if key != name] if isinstance(values, Mapping) else []
    near = difflib.get_close_matches(str(name)[:80], names, n=1)
    return f"; did you mean {'.'.join(map(str, (*above, near[0])))!r}, which is there?" if near else ""


def _show_items(given: Any) -> str:
    """The first key of a mapping of blocks as an item of a list in YAML; of anything else nothing."""
    if not isinstance(given, Mapping) or not all(isinstance(block, Mapping | None) for block in given.values()):
        return ""
    return next((f"- {name}: {format_yaml_inline(dict(block or {}))}" for name, block in given.items()), "")


def drop_tags(values: Any, loc: Sequence[Any]) -> list[Any]:
    """The keys and places on the way to an error, without the tags of unions between them."""
    path = []
    for step in loc:
        if (isinstance(values, Mapping) and step in values) or (isinstance(values, list) and isinstance(step, int)):
            values = values[step]
            path.append(step)
        elif step == "[key]":
            path.append(step)
    return path


def name_items(values: Any, path: Sequence[Any]) -> list[Any]:
    """The path as --set has it: an item of a list by its name, or by its only key."""
    named = []
    for place, step in enumerate(path):
        inside = values[step] if step != "[key]" else None
        if isinstance(values, list) and isinstance(inside, Mapping):
            if isinstance(inside.get("name"), str):
                named.append(inside["name"])
            elif not (len(inside) == 1 and path[place + 1 : place + 2] == list(inside)):
                named.append(step)
        else:
            named.append(step)
        values = inside
    return named


def _list_keys(kind: Any, values: Any, path: Sequence[Any]) -> list[str]:
    """The fields of the class of the block that `path` leads to, as far as annotations tell."""
    for step in path:
        owner = _find_owner(kind, values)
        if isinstance(owner, Mapping):
            kind = owner.get(step)
        elif dataclasses.is_dataclass(owner):
            kind = get_type_hints(owner, include_extras=True).get(str(step))
        else:  # of Mapping[str, V] or tuple[V, ...]
            kind = next((item for item in reversed(get_args(owner)) if item is not ...), None)
        values = _add_kind(owner, values, values[step])
    owner = _find_owner(kind, values)
    return [item.name for item in dataclasses.fields(owner) if item.init] if dataclasses.is_dataclass(owner) else []


def _add_kind(owner: Any, values: Any, inside: Any) -> Any:
    """A block with the `kind` that stands beside it, if one does: options of a source."""
    beside = {item.name: item.default for item in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else {}
    if "kind" not in beside or not isinstance(inside, Mapping):
        return inside
    return {"kind": values.get("kind", beside["kind"]), **inside}


def _find_owner(kind: Any, values: Any) -> Any:
    """The class that annotations mean for `values`: of a union the one whose `kind` these name."""
    if get_origin(kind) is Annotated:
        chosen = [note.choose(values) for note in kind.__metadata__ if hasattr(note, "choose")]
        return chosen[0] if chosen else _find_owner(get_args(kind)[0], values)
    if get_origin(kind) not in (types.UnionType, Union):
        return kind
    owners = [_find_owner(item, values) for item in get_args(kind) if item is not type(None)]
    named = [owner for owner in owners if isinstance(values, Mapping) and values.get("kind") in _list_kinds(owner)]
    return (named or owners)[0]


def _list_kinds(owner: Any) -> tuple[Any, ...]:
    return get_args(get_type_hints(owner).get("kind")) if dataclasses.is_dataclass(owner) else ()
