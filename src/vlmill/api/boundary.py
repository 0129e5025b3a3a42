"""The boundary of the API: what every public function, method and property passes on the way in and out.

Arguments are looked at by their annotations before any work: one of another kind is named with its value and with what
is taken in its place. Errors leave with Python's arguments in the place of options (wording.py).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, wraps
from operator import index
from typing import Any, ParamSpec, TypeVar, cast

from rich.console import Console

from vlmill.api.wording import reword_error
from vlmill.pipeline.core.errors import VlmillError

Given = ParamSpec("Given")
Returned = TypeVar("Returned")
Class = TypeVar("Class")


def _is_place(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _is_whole(value: Any) -> bool:
    try:
        index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_machine(value: Any) -> bool:
    from vlmill.train.settings import Machine

    return isinstance(value, Machine)


def _is_recipe(value: Any) -> bool:
    from vlmill.api.builds import LoadedRecipe

    return _is_place(value) or _is_named(value) or isinstance(value, LoadedRecipe)


def _is_mixture(value: Any) -> bool:
    from vlmill.api.runs import Run
    from vlmill.api.stages import StageMixture

    return _is_place(value) or isinstance(value, (Run, StageMixture))


RECIPE = "a recipe file, the name of a shipped recipe, or a dict"

KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "a text"),
    "int": (_is_whole, "a whole number"),
    "float": (lambda value: _is_whole(value) or isinstance(value, float), "a number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str | Path": (_is_place, "a path or a name"),
    "str | Path | Mapping[str, Any]": (lambda value: _is_place(value) or _is_named(value), RECIPE),
    "str | Path | Mapping[str, Any] | LoadedRecipe": (_is_recipe, f"{RECIPE}, or what load_recipe made of one"),
    "str | Path | Run | StageMixture": (_is_mixture, "a run, a stage of one, or a text such as 'run:tune'"),
    "Mapping[str, Any]": (_is_named, 'a dict, such as {"language.in_doubt": "drop"}'),
    "Mapping[str, str | Path]": (_is_named, 'a dict, such as {"web": "/data/web"}'),
    "Callable[[str], None]": (callable, "a function that takes a line of text, such as print"),
    "Console": (lambda value: isinstance(value, Console), "a rich.console.Console"),
    "Machine": (_is_machine, "vlmill.Machine(device={value!r})"),
}
"""Annotation, without `| None` -> whether a value is of this kind, and what is taken."""

SAMPLE = "the id of a sample, such as 'web/part-0.parquet#12'"
TAKEN = {
    "folder": "the folder of a run",
    "row": "the id of a row or page, such as 'web/part-0.parquet#12'",
    "sample": SAMPLE,
    "workers": "0 for this process, a number of processes, or None for one per core",
}
"""Arguments of which more can be said than their kind."""

ELSEWHERE = {"str | Sequence[str]", "str | Path | Sequence[str | Path]", "PreTrainedModel", "Any"}
"""Annotations of what is looked at where it is used."""


def guard_call(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """A function of the API behind the boundary."""
    signature = inspect.signature(function)
    kinds = {name: str(one.annotation) for name, one in signature.parameters.items() if name != "self"}

    @wraps(function)
    def call(*arguments: Given.args, **named: Given.kwargs) -> Returned:
        _check_kinds(signature, kinds, arguments, named)
        with _leaving():
            found = function(*arguments, **named)
        return cast("Returned", _guard_rest(found)) if inspect.isgenerator(found) else found

    return call


def guard_methods(found: type[Class]) -> type[Class]:
    """A class of the API whose own public methods and properties are behind the boundary."""
    for name, item in list(vars(found).items()):
        if name.startswith("_"):
            continue
        if inspect.isfunction(item):
            setattr(found, name, guard_call(item))
        elif isinstance(item, property) and item.fget:
            setattr(found, name, property(guard_call(item.fget), doc=item.__doc__))
        elif isinstance(item, cached_property):
            item.func = guard_call(item.func)
    return found


def _check_kinds(
    signature: inspect.Signature, kinds: Mapping[str, str], arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> None:
    try:
        given = signature.bind(*arguments, **named).arguments
    except TypeError:
        return  # of too many or too few: the call itself says so
    for name, value in given.items():
        kind = kinds.get(name, "Any")
        optional = kind.endswith(" | None")
        fits, taken = KINDS.get(kind.removesuffix(" | None"), (lambda _: True, ""))
        if not (fits(value) or (optional and value is None)):
            said = TAKEN.get(name, taken.format(value=str(value)) if name == "machine" else taken)
            none = ", or None" if optional and "None" not in said else ""
            raise TypeError(f"{name}={value!r:.200}: give {said}{none}")


@contextmanager
def _leaving() -> Iterator[None]:
    try:
        yield
    except VlmillError as error:
        reword_error(error)
        raise


def _guard_rest(rest: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """What a generator has yet to give."""
    with _leaving():
        return (yield from rest)
