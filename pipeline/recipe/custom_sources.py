"""Custom sources: a row shape in a file that the command line names, as custom filters are.

    @dataclass(frozen=True, config=STRICT)
    class Scenes(JsonSource):
        kind: ClassVar[str] = "scenes"
        opens: ClassVar[bool] = True

        def page(self, row):
            ...

It promises what every source does (pipeline/sources/base.py). Its fields are the `options` of the recipe. The same
rule of trust holds as for filters: what a recipe or lock holds is data, and only what the command line named runs
(pipeline/filters/custom.py). So that a run can be looked at without its code, `kind`, `fetches`, `opens` and `captions`
stand in the class as they are, and are read from its text.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import BadFileError, RecipeError, SourceError, VlmillError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.filters.custom import (
    ALONE,
    CustomCode,
    TrustedCode,
    find_line,
    load_module,
    make_with_settings,
    take_named_code,
)
from vlmill.pipeline.sources import SOURCES, Page, Source, SourceRow
from vlmill.pipeline.sources.base import READ_REASONS
from vlmill.pipeline.sources.data_uris import is_data_uri
from vlmill.pipeline.sources.page_faults import describe_value, lose_faulty_pages

METHODS = ("survey", "rows")
"""A class that has them, and says its `kind`, is a source."""

HINT = ". A row shape of yours comes with --filter FILE; docs/adding.md says how to write one"
"""What is said of a kind that is unknown, after what is allowed."""

LOOKED_BEHIND = 1000
"""Rows behind those that `survey` counts which are counted for an error, at most."""

TRAITS = ("fetches", "opens", "captions")
"""What a source says of its pictures and rows: true or false, each by itself in the class."""


@dataclass(frozen=True)
class CustomSource:
    """A custom source, as every other source is. Made anew from its code wherever it is asked; known without it."""

    kind: str
    settings: Mapping[str, Any]
    sha256: str  # of the code
    code: str | None = field(metadata=RUNTIME, repr=False, compare=False)  # sha256 speaks for it; None: not to be run
    file: str = field(metadata=RUNTIME)  # its name, for errors
    entry: str = field(default="", metadata=RUNTIME, compare=False)  # the recipe's name of the source, for errors
    fetches: bool = field(default=False, metadata=RUNTIME)  # these three are in the code, and so in its sha256
    opens: bool = field(default=False, metadata=RUNTIME)
    captions: bool = field(default=False, metadata=RUNTIME)
    isolated: bool = field(default=False, metadata=RUNTIME, init=False)

    version = 3  # the code is in the key

    def __post_init__(self) -> None:
        if self.code is not None:
            self._made()

    def ranged(self, name: str) -> bool:
        """What its class says; without its code a file is copied whole."""
        return self.code is not None and bool(self._made().ranged(name))

    def survey(self, path: Path) -> list[int]:
        """See Source.

        Raises:
            RecipeError: its code may not run.
            SourceError: its code broke, which the message says with the line; it gives something else, or counts fewer
                rows than `rows` gives, of which the others would never be read.
        """
        source = self._made()
        with self._explain_break(f"over {path.name}"), _name_bad_file(path):
            weights = source.survey(path)
            if not isinstance(weights, list):
                raise TypeError(f"survey gives {describe_value(weights)}, expected a list with the bytes of each row")
            for row, weight in enumerate(weights):
                if not isinstance(weight, int) or weight < 0:
                    raise TypeError(f"survey gives {describe_value(weight)} for row {row}, expected its bytes")
        self._refuse_more_rows(path, len(weights))
        return weights

    def _refuse_more_rows(self, path: Path, counted: int) -> None:
        """Ask `rows` for what lies behind the last row that `survey` counts. Raises SourceError where there is more."""
        behind = range(counted, counted + LOOKED_BEHIND)
        try:
            if next(self.rows(path, behind[:1]), None) is None:
                return
            more = sum(1 for _ in islice(self.rows(path, behind), LOOKED_BEHIND))
        except BadFileError:  # what lies there is damaged, which is seen when the rows are read
            return
        said = f"{counted + more:,}" if more < LOOKED_BEHIND else f"at least {counted + more:,}"
        raise SourceError(
            f"{self._name_itself()} ({self.file}): of {path}, survey counts {counted:,} rows and rows gives {said}: "
            "the others would be lost. Let both go over the same rows; for numbers behind the last, rows gives nothing"
        )

    def _name_itself(self) -> str:
        return f"source {self.entry!r} of kind {self.kind!r}" if self.entry else f"source of kind {self.kind!r}"

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """See Source. Raises as `survey`; code that breaks in `page` loses that row alone (sources/base.py)."""
        source = self._made()
        with self._explain_break(f"over {path.name}"), _name_bad_file(path):
            rows = iter(source.rows(path, numbers))
        for due in numbers:
            with self._explain_break(f"at row {due} of {path.name}"), _name_bad_file(path):
                row = next(rows, None)
                if row is not None and not isinstance(row, SourceRow):
                    raise TypeError(f"rows gives {describe_value(row)}, expected a SourceRow")
                _check_reasons(row)
                row = None if row is None else lose_faulty_pages(row, empty=True)
                _check_pictures(source, () if row is None else row.pages)
            if row is None:
                return
            yield row
        with self._explain_break(f"behind the last row it was asked for of {path.name}"):
            row = next(rows, None)
        if row is not None:
            yield row  # one too many: the reader says so

    @contextmanager
    def _explain_break(self, place: str) -> Iterator[None]:
        """What its code raises as a SourceError that names the line, whatever it is.

        What has nothing to do with its code is left as it is: trouble with the input file or memory.
        """
        try:
            yield
        except (VlmillError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # the latter would end the build without a word
            line = find_line(error, self.file)
            if isinstance(error, OSError) and not line:
                raise
            hint = ""
            if isinstance(error, ImportError):
                hint = ALONE
            elif isinstance(error, OSError):
                hint = ". Where the row is at fault, and not the machine, raise UnreadableRow in its place"
            raise SourceError(
                f"{self._name_itself()} ({self.file}{line}) failed {place}: "
                f"{f'{type(error).__name__}: {error}'.removesuffix(': ')}{hint}"
            ) from error

    def _made(self) -> Source:
        where = f"sources.{self.entry}" if self.entry else "sources"
        refused = f"{where}: rows of kind {self.kind!r} ({self.file}) cannot be read"
        kind = find_source_classes(self.file, take_named_code(self.code, refused, self.sha256))[self.kind]
        made: Source = make_with_settings(kind, self.settings, f"{where}.options", "hardest: int = 9")
        return made


@contextmanager
def _name_bad_file(path: Path) -> Iterator[None]:
    """A BadFileError of code that does not say which file it is, with the file, as those of our own sources have it."""
    try:
        yield
    except BadFileError as error:
        named = (fault if str(path) in fault else f"{path}: {fault}" for fault in error.faults)
        raise BadFileError(*named) from error


def _check_reasons(row: SourceRow | None) -> None:
    """Refuse reasons of other steps in what `rows` gives itself. Raises TypeError."""
    for reason, _ in () if row is None else row.failed:
        if reason not in (*READ_REASONS, Reason.PAGE_CAP):
            raise TypeError(
                f"rows gives {str(reason)!r} as the reason of a lost row; allowed: {', '.join(READ_REASONS)}"
            )


def _check_pictures(source: Source, pages: Sequence[Page]) -> None:
    """Refuse pictures that the build would neither open nor fetch. Raises TypeError."""
    for picture in (picture for page in pages for picture in page.pictures):
        if picture.data is not None or picture.reason is not None or is_data_uri(picture.path or picture.url):
            continue
        trait, said, what = "fetches", source.fetches, "addresses"
        if picture.path is not None:
            trait, said, what = "opens", source.opens, "files"
        if not said:
            raise TypeError(f"its pictures are {what}; say so in its class: {trait}: ClassVar[bool] = True")


def name_custom_source(kind: str, settings: Mapping[str, Any]) -> CustomSource:
    """A source that is not ours, before its code is found: the recipe says in which file it is."""
    return CustomSource(kind, dict(settings), "", None, "")


def place_custom_source(named: CustomSource, entry: str, held: Mapping[str, CustomCode]) -> Source:
    """A named source with its code, under the name of its entry in the recipe. It may run where that is trusted.

    Args:
        named: the source.
        entry: what the recipe calls it.
        held: the recipe's code by file.

    Raises:
        ValueError: no file has its kind.
        RecipeError: it may run, and cannot be made; or a setting is wrong.
    """
    for file, one in held.items():
        if said := read_source_kinds(one.code).get(named.kind):
            code = one.code if isinstance(one, TrustedCode) else None
            placed: dict[str, Any] = {"sha256": one.sha256, "code": code, "file": file, "entry": entry, **said}
            return cast("Source", dataclasses.replace(named, **placed))
    known = suggest_names(named.kind, SOURCES)
    raise ValueError(f"sources.{entry}.kind: {named.kind!r} is unknown; {known}{HINT}")


@cache
def read_source_kinds(code: str) -> Mapping[str, Mapping[str, bool]]:
    """The kinds of the sources in a file, with their TRAITS, read without running it; none where it is no Python.

    Perhaps also what other classes of it call their `kind`.
    """
    found = {}
    for said in _read_classes(code):
        if isinstance(said.get("kind"), str):
            found[said["kind"]] = {name: said.get(name) is True for name in TRAITS}
    return found


def read_class_names(code: str) -> list[str]:
    """What the classes of a file call their `name`, as signals and filters do; read without running it."""
    return [said["name"] for said in _read_classes(code) if isinstance(said.get("name"), str)]


def _read_classes(code: str) -> list[dict[str, Any]]:
    """The constants of each class of a file; none where it is no Python."""
    try:
        classes = [item for item in ast.parse(code).body if isinstance(item, ast.ClassDef)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [dict(_list_constants(item)) for item in classes]


def _list_constants(item: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """Attributes of a class whose value stands there as it is."""
    for line in item.body:
        targets = [line.target] if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [])
        value = getattr(line, "value", None)
        if isinstance(value, ast.Constant):
            yield from ((target.id, value.value) for target in targets if isinstance(target, ast.Name))


@cache
def find_source_classes(file: str, code: str) -> Mapping[str, type[Any]]:
    """The sources in a file, by kind. This runs it: call it with what the command line named, and nothing else.

    Raises:
        RecipeError: it is no Python, raises when it is imported, or a class does not keep to the rules.
    """
    module, written = load_module(file, code), read_source_kinds(code)
    found: dict[str, type[Any]] = {}
    classes = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
    named = [one for one in classes if "kind" in vars(one)]
    if nameless := [] if named else [one.__name__ for one in classes if Source in one.__mro__]:
        raise RecipeError(
            f"{file}: source {nameless[-1]} has no kind, by which a recipe names it: kind: ClassVar[str] = "
            f'"{nameless[-1].lower()}"'
        )
    for made in named:
        if all(callable(getattr(made, method, None)) for method in METHODS):
            _check_class(file, made, written)
            if found.setdefault(made.kind, made) is not made:  # type: ignore[attr-defined]
                raise RecipeError(f"{file}: two sources in it are of kind {made.kind!r}; give each its own")  # type: ignore[attr-defined]
    return found


def _check_class(file: str, made: type[Any], written: Mapping[str, Mapping[str, bool]]) -> None:
    """Refuse a class that says of itself what its text does not show, or is no frozen dataclass."""
    if made.kind not in written:
        raise RecipeError(
            f"{file}: the kind of source {made.__name__} has to stand in its class as it is: "
            f'kind: ClassVar[str] = "{made.kind}"'
        )
    for method in METHODS:
        if getattr(made, method) is getattr(Source, method):
            raise RecipeError(
                f"{file}: source {made.__name__} has no {method}: {getattr(Source, method).__doc__.splitlines()[0]} "
                "(docs/adding.md, A custom source)"
            )
    for name in TRAITS:
        if bool(getattr(made, name, False)) != written[made.kind][name]:
            raise RecipeError(
                f"{file}: source {made.__name__} has to say {name} in its class as it is: "
                f"{name}: ClassVar[bool] = {bool(getattr(made, name))}"
            )
    if getattr(made, "isolated", False):
        raise RecipeError(f"{file}: source {made.__name__} is isolated, which a custom source cannot be")
    if not dataclasses.is_dataclass(made) or not made.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise RecipeError(
            f"{file}: source {made.__name__} is no frozen dataclass; put @dataclass(frozen=True, config=STRICT) "
            "above it"
        )
