"""How YAML becomes frozen objects: strict dataclasses whose errors offer the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vlmill.pipeline.core.errors import RecipeError

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
"""For `@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)`, which every block of a recipe is declared with."""

FORMS = {
    "tuple_type": "Input should be a list, such as [a, b]",
    "dict_type": "Input should be a mapping, such as {a: 1}",
}
"""What YAML calls the forms that Python has other names for."""

T = TypeVar("T")


def parse_block(kind: type[T], values: Any, where: str) -> T:
    """The frozen object of class `kind` that `values` from YAML describe.

    Raises:
        RecipeError: names `where`, each wrong key or value, what was allowed, and the nearest name.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(kind, where, item) for item in error.errors(include_url=False))) from None


def suggest_names(name: str, allowed: Mapping[str, Any] | list[str]) -> str:
    """`did you mean 'x'? ` where something is near, and the list of what is allowed."""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(name), names, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"allowed: {', '.join(names)}"


def _explain(kind: type[Any], where: str, item: Any) -> str:
    place = ".".join([where, *(str(part) for part in item["loc"])])
    if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        names = [f.name for f in dataclasses.fields(_owner(kind, item["loc"][:-1]))]
        return f"{place}: unknown key {item['loc'][-1]!r}; {suggest_names(str(item['loc'][-1]), names)}"
    if item["type"] in {"missing", "missing_argument"}:
        return f"{place}: is missing"
    if item["type"] == "value_error":  # raised by a class of ours, which names the value itself
        return f"{place}: {item['ctx']['error']}"
    return f"{place}: {FORMS.get(item['type'], item['msg'])}, not {item['input']!r}"


def _owner(kind: Any, path: tuple[Any, ...]) -> type[Any]:
    """The dataclass that `path` leads to from `kind`, through fields, mappings and lists, as far as annotations tell."""
    owner: type[Any] = kind
    for part in path:
        if dataclasses.is_dataclass(kind):
            kind = get_type_hints(kind).get(str(part))
        else:
            kind = next(
                (item for item in reversed(get_args(kind)) if item is not ...), None
            )  # of Mapping[str, V], tuple[V, ...]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            owner = kind
    return owner
