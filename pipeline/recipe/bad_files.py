"""What is wrong with an input file, as a person needs it: with the source or benchmark, its row shape, and the remedy.

What reads a file knows its path alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass

from vlmill.pipeline.core.errors import BadFileError, list_faults
from vlmill.pipeline.inputs.files import InputFile
from vlmill.pipeline.recipe.schema import Recipe

MISSING = re.compile(r"(?:column|no row has) '(?P<column>.+?)'(?: or |;| is missing)")
"""What formats say of a column, or of a key, that a file does not have."""


@contextmanager
def explain_bad_file(recipe: Recipe, name: str) -> Iterator[None]:
    """A BadFileError about files of a source or benchmark, with what `list_bad_files` adds, and how to go without."""
    try:
        yield
    except BadFileError as error:
        ends = name in recipe.sources and recipe.sources[name].on_bad_file == "error"
        damaged = ends and not any(map(MISSING.search, error.faults))
        way = f"; to go on with the other files: --set sources.{name}.on_bad_file=skip" if damaged else ""
        *others, last = list_bad_files(recipe, name, error.faults)
        raise BadFileError(*others, f"{last}{way}") from error


def list_bad_files(recipe: Recipe, name: str, faults: Sequence[str]) -> tuple[str, ...]:
    """Faults of input files with the source and its kind; the last says how to read another row shape.

    Args:
        recipe: Has the source or benchmark.
        name: A source, a benchmark, or a split of one; else the faults stay as they are.
        faults: At least one.
    """
    owner = name.partition(".")[0]
    against = recipe.decontaminate.against if recipe.decontaminate else {}
    settings = recipe.sources.get(owner) or against.get(owner)
    if settings is None:
        return tuple(faults)
    word, block = ("source", "sources") if owner in recipe.sources else ("benchmark", "decontaminate.against")
    *others, last = (f"{word} {owner} (kind {settings.kind}): {fault}" for fault in faults)
    named = _find_option(settings.options, faults[-1])
    renamed = f"; if it is called otherwise: --set {block}.{owner}.options.{named}=COLUMN" if named else ""
    return (*others, f"{last}{renamed}; if the files are of another row shape: --set {block}.{owner}.kind=KIND")


def _find_option(options: object, fault: str) -> str:
    """The option of a row shape that names the column which a fault misses; empty where there is none."""
    missing = MISSING.search(fault)
    if missing is None or not is_dataclass(options):
        return ""
    held = {option.name: getattr(options, option.name) for option in fields(options)}
    columns = {name: value if isinstance(value, list | tuple) else (value,) for name, value in held.items()}
    return next((name for name, named in columns.items() if missing["column"] in named), "")


def raise_bad_files(recipe: Recipe, found: Sequence[tuple[Sequence[InputFile], BadFileError]]) -> None:
    """Raise one error for all bad input files of a build, with the option that goes on without those of each source.

    Args:
        recipe: Has the sources and benchmarks.
        found: Input files of one source, and what is wrong with some of them; nothing is raised where there are none.
    """
    by_source = dict[str, list[BadFileError]]()
    for files, error in found:
        by_source.setdefault(files[0].source if files else "", []).append(error)
    faults = [
        fault for name, errors in by_source.items() for fault in list_bad_files(recipe, name, list_faults(errors))
    ]
    sources = sorted(by_source.keys() & recipe.sources.keys())
    ways = [f"to go on without it: --set sources.{source}.on_bad_file=skip" for source in sources]
    if faults:
        raise BadFileError(*faults, *ways)
