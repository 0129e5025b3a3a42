"""Custom filters: a file named on the command line, whose code is part of the recipe.

The lock of a run holds the code, a step carries it to workers, and its sha256 is in the key: an edit makes the verdicts
of this filter anew and nothing else. What a recipe or a lock holds is data (`CustomCode`): its filters are known by
name, and nothing of it runs. Only what the command line named, by a file or by its sha256, becomes `TrustedCode`, and
only of that there are filters that can be asked.

A custom filter is a frozen dataclass, its fields are its settings:

    @dataclass(frozen=True)
    class Shouting:
        name = "shouting"
        share: float = 0.5

        def decide(self, samples, image_stats):
            for row, sample in samples:
                for index, node in enumerate(sample.nodes):
                    if capitals(node.text or "") > self.share:
                        yield Drop(row, index)

It promises what every filter does (see `base.Filter`), but need not have `version`, `made_by`, nor `image_stats` if it
looks at no images. Its name stands there as it is, in quotes and on one line, so that it can be read without running
the file. It yields `Drop`, or `Undecided`; the reason of what it drops is `filter:<name>`. What the file imports has to
be installed wherever it is asked: the file alone travels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic.dataclasses import dataclass as checked

from vlmill.pipeline.core.config import STRICT, parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError, VlmillError
from vlmill.pipeline.core.names import OWN_MODULE
from vlmill.pipeline.core.reasons import FILTER_NAME, Reason
from vlmill.pipeline.core.sample import IMAGE_STATS, WHOLE_SAMPLE, ImageStats, Sample, Verdict
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.filters.base import Finding, Undecided

NAMED = re.compile(rf"""^[ \t]+name[ \t]*(?::[^=\n]*)?=[ \t]*(["'])({FILTER_NAME.pattern})\1""", re.MULTILINE)
"""The attribute with the name of a filter."""

METHOD = "decide"
"""A class that has it is a filter."""

ALONE = ". What the file imports has to be installed wherever it is read: the file alone travels"
"""What is said of an import that fails."""

_KINDS = {METHOD: "filter", "score": "signal"}

SHOW = 'import sys, yaml; [print(own["code"]) for own in yaml.safe_load(open(sys.argv[1]))["custom_filters"].values()]'
"""A program that prints the code that a lock holds."""


@dataclass(frozen=True, slots=True)
class Drop:
    """What a custom filter yields to drop a sample or one node of it."""

    sample: int  # row in samples.parquet
    node: int = WHOLE_SAMPLE  # index into Sample.nodes, or WHOLE_SAMPLE
    score: float = 0.0  # as measured; tables and `what-if` show it


@checked(frozen=True, config=STRICT)
class CustomCode:
    """What stands in a filter's file, and the sha256 of that, as recipes and locks have it.

    It is data: nothing runs it.
    """

    sha256: str  # of that text
    code: str  # the text of the file

    def __post_init__(self) -> None:
        """Refuse code that the sha256 does not speak for."""
        if hash_code(self.code) != self.sha256:
            raise ValueError(
                f"sha256 is {self.sha256!r}, and that of its code is {hash_code(self.code)}: one of them was "
                "changed by hand. Build again with --filter FILE and --accept-changes"
            )

    def names(self) -> frozenset[str]:
        """The names of its filters, read without running it; perhaps also what other classes of it call themselves."""
        return frozenset(found[2] for found in NAMED.finditer(self.code))


@checked(frozen=True, config=STRICT)
class TrustedCode(CustomCode):
    """Code that the command line named. No YAML describes one."""


def list_own_names(held: Mapping[str, CustomCode]) -> set[str]:
    """The names of the filters and signals in files, read without running any."""
    return {name for code in held.values() for name in code.names()}


def list_untrusted(held: Mapping[str, CustomCode]) -> dict[str, CustomCode]:
    """What of a run's custom filters the command line did not name, by file."""
    return {file: code for file, code in held.items() if not isinstance(code, TrustedCode)}


def find_named_code(
    files: Sequence[str], digests: Sequence[str], held: Mapping[str, CustomCode]
) -> list[tuple[str, str]]:
    """The code that a command line names: file name and code.

    A file that the lock holds too has the name that it has there.

    Args:
        files: of --filter.
        digests: of --trust-code.
        held: the files that the lock of the run, or the recipe, holds.

    Raises:
        RecipeError: a file is missing, or nothing held has such a sha256.
    """
    known, codes = {code.sha256: file for file, code in held.items()}, [(path, read_code(path)) for path in files]
    found = [(known.get(hash_code(code), Path(path).name), code) for path, code in codes]
    for digest in digests:
        if digest not in known:
            there = ", ".join(f"{digest} ({file})" for digest, file in known.items())
            raise RecipeError(
                f"--trust-code {digest}: there is no code of this sha256 in the run's lock; it has {there or 'none'}"
            )
        found += [(known[digest], held[known[digest]].code)]
    return list(dict.fromkeys(found))


def explain_refusal(where: str, held: Mapping[str, CustomCode], command: Sequence[object] = ()) -> str:
    """The message where code would have to run that the command line did not name.

    It gives the code's sha256, how to look at it, and the next command.

    Args:
        where: the lock or recipe that holds it.
        held: the files that were not named.
        command: that was given, in words; none where it takes no --trust-code.
    """
    listed = "\n".join(f"  {file!r}: sha256 {code.sha256}" for file, code in held.items())
    again = shlex.join(map(str, [*command, *(f"--trust-code={code.sha256}" for code in held.values())]))
    trusts = command or where.endswith(".lock.yaml")
    trust = f", or trust what is held there:\n  {again}" if trusts else ", and take the code out of there"
    return (
        f"{where} holds code that is not ours, and code runs only if it is named:\n{listed}\n"
        f"Look at it first:\n  {shlex.join(['python', '-c', SHOW, where])}\n"
        f"Then name its file, with --filter FILE (an edited one has to be called as it is here){trust}"
    )


@dataclass(frozen=True)
class CustomFilter:
    """A custom filter, as every other filter is. Made anew from its code wherever it is asked; known without it."""

    name: str
    settings: Mapping[str, Any]
    sha256: str  # of the code
    code: str | None = field(metadata=RUNTIME, repr=False, compare=False)  # sha256 speaks for it; None: not to be run
    file: str = field(metadata=RUNTIME)  # its name, for errors

    version = 1  # the code is in the key

    def __post_init__(self) -> None:
        if self.code is not None:
            self._made()

    @property
    def image_stats(self) -> tuple[str, ...]:
        """What its class says, nothing by default."""
        return tuple(getattr(self._class(), "image_stats", ()))

    def made_by(self) -> Mapping[str, str]:
        """What its class says, nothing by default."""
        filter_ = self._made()
        return dict(filter_.made_by()) if hasattr(filter_, "made_by") else {}

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Finding]:
        """Its findings as verdicts.

        Raises:
            RecipeError: it raised, or yielded something else; the message names the last sample that it was given.
        """
        given = dict[int, int]()
        last = ""

        def noted() -> Iterator[tuple[int, Sample]]:
            nonlocal last
            for row, sample in samples:
                given[row], last = len(sample.nodes), str(sample.id)
                yield row, sample

        try:
            for finding in self._made().decide(noted(), image_stats):
                if not isinstance(finding, Drop | Undecided):
                    raise TypeError(f"it yields {finding!r}, not Drop(row, node, score) or Undecided(row, node)")  # noqa: TRY301
                if finding.sample not in given or not WHOLE_SAMPLE <= finding.node < given[finding.sample]:
                    raise IndexError(f"{finding!r} is about no node of the samples that it was given")  # noqa: TRY301
                yield self._verdict(finding)
        except VlmillError:  # its settings are wrong, or a table that it reads is damaged
            raise
        except (Exception, SystemExit) as error:  # the latter would end the build without a word
            place = f"on sample {last}" if last else "before its first sample"
            raise RecipeError(
                f"filter {self.name!r} ({self.file}{find_line(error, self.file)}) failed {place}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _verdict(self, finding: Drop | Undecided) -> Finding:
        if isinstance(finding, Undecided):
            return finding
        return Verdict(finding.sample, finding.node, self.name, Reason(f"filter:{self.name}"), float(finding.score))

    def _class(self) -> type[Any]:
        code = take_named_code(self.code, f"filter {self.name!r} ({self.file}) cannot be asked", self.sha256)
        found = find_filter_classes(self.file, code)
        if self.name not in found:
            raise RecipeError(f"filters.{self.name}: {self.file} has no such filter; {suggest_names(self.name, found)}")
        return found[self.name]

    def _made(self) -> Any:
        return make_with_settings(self._class(), self.settings, f"filters.{self.name}", "share: float = 0.9")


def take_named_code(code: str | None, what: str, sha256: str) -> str:
    """The code, which may run. Raises RecipeError, which says `what` cannot be done, where it may not."""
    if code is None:
        raise RecipeError(f"{what}: its code runs only if it is named, with --filter FILE or --trust-code {sha256}")
    return code


def make_with_settings(kind: type[Any], settings: Mapping[str, Any], where: str, example: str) -> Any:
    """An object of a class of a user, whose fields are its settings.

    Args:
        kind: a dataclass.
        settings: of the recipe.
        where: they stand there.
        example: a field with a type, as such a class may have.

    Raises:
        RecipeError: it has no such field, or not with such a value.
    """
    known = [item.name for item in dataclasses.fields(kind)]
    for name in settings:
        if name not in known:
            hint = "" if known else f"; a setting is a field with a type, such as `{example}`"
            raise RecipeError(f"{where}: unknown key {name!r}; {suggest_names(name, known)}{hint}")
    return parse_block(kind, dict(settings), where)


def hash_code(code: str) -> str:
    """The sha256, in hexadecimal, of a filter's code."""
    return hashlib.sha256(code.encode()).hexdigest()


def read_code(path: str) -> str:
    """The code of a filter's file.

    Raises:
        RecipeError: there is no such file, or it is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"--filter {path}: there is no such file") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise RecipeError(f"--filter {path}: this is no Python file: {error}") from error


def find_filter_classes(file: str, code: str) -> Mapping[str, type[Any]]:
    """The filters in a file, by name. This runs it: call it with what the command line named, and nothing else.

    Raises:
        RecipeError: it is no Python, raises when it is imported, or holds no filter; the message names the line.
    """
    found = find_named_classes(file, code, METHOD)
    if not found:
        raise RecipeError(
            f"{file}: there is no filter in it. A filter is a frozen dataclass with a `name` and `decide(self, "
            "samples, image_stats)`; a signal has `score(self, model, batch)`, a source `kind` and `page(self, row)`"
        )
    return found


@cache
def find_named_classes(file: str, code: str, method: str) -> Mapping[str, type[Any]]:
    """The classes in a file that have a method, by the names that they give themselves. This runs it, as above.

    Raises:
        RecipeError: it is no Python, raises when it is imported, or a class has no name; the message names the line.
    """
    module, written = load_module(file, code), CustomCode(hash_code(code), code).names()
    found: dict[str, type[Any]] = {}
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, method):
            name = _name_class(file, kind)
            if name not in written:
                raise RecipeError(
                    f"{file}: the name of {_KINDS[method]} {kind.__name__} has to stand in its class as it is: name = "
                    f'"{name}"'
                )
            if found.setdefault(name, kind) is not kind:
                raise RecipeError(f"{file}: two {_KINDS[method]}s in it are called {name!r}; give each its name")
    return found


def _name_class(file: str, kind: type[Any]) -> str:
    """The name of a filter or signal, whose class keeps to the rules."""
    what = _KINDS[METHOD if hasattr(kind, METHOD) else "score"]
    name = getattr(kind, "name", None)
    if not isinstance(name, str) or not FILTER_NAME.fullmatch(name):
        raise RecipeError(
            f"{file}: the name of {what} {kind.__name__} is {name!r}; give it `name = ...` of small letters, "
            "digits and _"
        )
    if not dataclasses.is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise RecipeError(
            f"{file}: {what} {kind.__name__} is no frozen dataclass; put @dataclass(frozen=True) above it"
        )
    image_stats = getattr(kind, "image_stats", ())
    if not isinstance(image_stats, tuple | list):
        raise RecipeError(
            f"{file}: filter {kind.__name__} has image_stats = {image_stats!r}; give it a tuple, such as "
            '("width", "height")'
        )
    for stats in image_stats:
        if stats not in IMAGE_STATS.names:
            raise RecipeError(
                f"{file}: filter {kind.__name__} asks for the fact {stats!r}; {suggest_names(stats, IMAGE_STATS.names)}"
            )
    return name


@cache
def load_module(file: str, code: str) -> ModuleType:
    """The module of a file that the command line named. This runs it.

    Raises:
        RecipeError: it is no Python, or raises when it is imported; the message names the line.
    """
    module = ModuleType(f"{OWN_MODULE}{hash_code(code)[:12]}")
    sys.modules[module.__name__] = module  # where dataclasses look annotations up
    try:
        exec(compile(code, file, "exec"), vars(module))  # noqa: S102 - code that the command line named
    except SyntaxError as error:
        raise RecipeError(f"{file}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        hint = ALONE if isinstance(error, ImportError) else ""
        raise RecipeError(f"{file}{find_line(error, file)}: {type(error).__name__}: {error}{hint}") from error
    return module


def find_line(error: BaseException, file: str) -> str:
    """The last line of the file that an error went through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""
