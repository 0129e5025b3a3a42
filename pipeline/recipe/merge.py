"""Two mappings of recipes as one, parts of one, and values in the place of others, all with their origins; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.located import Keys, Located, find_keys, name_item, replace_at

NAMED_LISTS = ("filters", "stages")
"""Lists whose items go by a name. Those of several files stand one behind the other."""
BESIDE = ". `replace` changes what an included file says; a key that none has stands in this file, outside of `replace`"


def merge_mappings(
    one: Located, other: Located, dotted: str = "", replaced: Collection[str] = (), where: str = ""
) -> Located:
    """Two mappings as one: blocks are put together, and a value that both have has to be the same.

    Args:
        one: values that come first where order counts: filters and stages.
        other: values behind them.
        dotted: the key of both.
        replaced: dotted keys at which they may differ.
        where: what stands before the key in errors, and before the `replace` that decides.

    Raises:
        RecipeError: they say different things of a value; names both places.
    """
    if dotted in replaced:
        return one
    if isinstance(one.value, dict) and isinstance(other.value, dict):
        inside = dict(one.value)
        for key, item in other.value.items():
            name = f"{dotted}.{key}".lstrip(".")
            inside[key] = merge_mappings(inside[key], item, name, replaced, where) if key in inside else item
        return Located(inside, one.origin)
    if dotted in NAMED_LISTS and isinstance(one.value, list) and isinstance(other.value, list):
        return _merge_named(one, other, dotted, replaced)
    if one.to_data() != other.to_data():
        places = f"{_shorten_value(one)} ({one.origin}), and {_shorten_value(other)} ({other.origin})"
        raise RecipeError(
            f"{where}{dotted}: {places}; take it from one place, or say which value counts: "
            f"{where}replace: {{{dotted}: VALUE}}"
        )
    return one


def _merge_named(one: Located, other: Located, dotted: str, replaced: Collection[str]) -> Located:
    items = list(one.value)
    places = {name: place for place, item in enumerate(items) if (name := name_item(item)) is not None}
    for item in other.value:
        name = name_item(item)
        if name in places:
            items[places[name]] = _merge_item(items[places[name]], item, f"{dotted}.{name}", replaced)
        else:
            items.append(item)
    return Located(items, one.origin)


def _merge_item(one: Located, other: Located, dotted: str, replaced: Collection[str]) -> Located:
    """Two items of one name: stages, or filters, whose settings stand under the name."""
    if "name" in one.value:
        return merge_mappings(one, other, dotted, replaced)
    (mine,), (theirs,) = one.value.items(), other.value.items()
    return one.with_item(mine[0], merge_mappings(mine[1], theirs[1], dotted, replaced))


def _shorten_value(found: Located) -> str:
    return f"{found.to_data()!r:.80}"


def select_value(whole: Located, dotted: str, where: str) -> Located:
    """A mapping that holds one value of another, at its place.

    Raises:
        RecipeError: it is not there.
    """
    keys, value = find_keys(whole, dotted, _explain_missing(where))
    first, *rest = keys
    return Located({first: _wrap_value(whole.value[first], rest, value)}, whole.origin)


def _wrap_value(whole: Located, keys: Sequence[object], value: Located) -> Located:
    """`value` in the blocks that `keys` lead through, each with its `name` if it has one."""
    if not keys:
        return value
    first, *rest = keys
    inside = _wrap_value(whole.value[first], rest, value)
    if isinstance(whole.value, list):
        return Located([inside], whole.origin)
    named = {"name": whole.value["name"]} if "name" in whole.value else {}
    return Located({**named, first: inside}, whole.origin)


def replace_values(whole: Located, replaced: Located, where: str = "") -> Located:
    """A mapping with values in the place of those that it has, by dotted key.

    Raises:
        RecipeError: there is none to be replaced.
    """
    for dotted, value in replaced.value.items():
        fault = _explain_missing(f"{where}replace {dotted} ({value.origin})", BESIDE)
        keys: Keys = find_keys(whole, str(dotted), fault)[0]
        whole = replace_at(whole, keys, value)
    return whole


def _explain_missing(where: str, more: str = "") -> Callable[[str, str], RecipeError]:
    return lambda part, names: RecipeError(f"{where}: there is no {part!r:.80}; {names}{more}")
