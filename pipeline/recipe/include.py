"""`include`: one recipe made of several files. A file takes blocks of others, and says what it replaces in them.

    include:
      - {recipe: obelics, take: [sources, filters.shape]}
      - {recipe: fragments/benchmarks, take: [decontaminate.against.mmmu]}
    replace:
      sources.obelics.priority: 3

What two files say differently of one value is an error that names both places, unless `replace` says the value. The
result is a mapping of one file with the origin of every value. Nothing but YAML is read, and no code is taken along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.given import RecipePlace
from vlmill.pipeline.recipe.located import Located, locate_data, read_located
from vlmill.pipeline.recipe.mapping import refuse_code
from vlmill.pipeline.recipe.merge import merge_mappings, replace_values, select_value
from vlmill.pipeline.recipe.published import Mapped, expand_stages
from vlmill.pipeline.recipe.rebase import rebase_paths

DEEPEST = 16
"""Files that include each other in a row."""
OWN = "name"
"""What a recipe never takes from another."""
SUFFIXES = (".yaml", ".yml")
SHIPPED = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, config=STRICT)
class Include:
    """What a recipe takes from another file."""

    recipe: (
        str  # a shipped recipe or fragment (`obelics`, `fragments/drop_chinese`), or a YAML file, relative to this one
    )
    take: Annotated[tuple[str, ...], Field(min_length=1)] | None = (
        None  # blocks, or dotted keys such as `sources.web`; null: all but the name
    )


@dataclass(frozen=True, config=STRICT)
class Composition:
    """How a recipe is put together from other files; both keys stand at the top of the file."""

    include: tuple[Include, ...] = ()  # other files, whose values count as if they stood here
    replace: Mapping[str, Any] = field(
        default_factory=dict
    )  # dotted key -> value in the place of the included one, which has to be there


COMPOSING = ("include", "replace")
"""The keys of `Composition`."""


def list_shipped() -> dict[str, Path]:
    """Recipes, fragments and presets that ship: name -> file."""
    top = Path(str(files("vlmill.recipes")))
    found = [*top.glob("*.yaml"), *(top / "fragments").glob("*.yaml"), *(top / "presets").glob("*.yaml")]
    return {path.relative_to(top).with_suffix("").as_posix(): path for path in sorted(found)}


def list_presets() -> dict[str, Path]:
    """Model presets that ship: name -> file."""
    return {name.partition("/")[2]: file for name, file in list_shipped().items() if name.startswith("presets/")}


def _refuse_names(found: Located | None, path: RecipePlace) -> None:
    """Refuse a name where a mapping belongs, and say which mapping. Raises RecipeError."""
    entries = found.to_data() if found is not None else None
    named = [one for one in (entries if isinstance(entries, list) else [entries]) if isinstance(one, str)]
    if named:
        said = ", ".join(f"{{recipe: {name}}}" for name in named)
        raise RecipeError(f"{path}: include: a list of mappings, not names: include: [{said}]")


class Composer:
    """Puts a recipe's files together. It reads every file once.

    Args:
        base: the folder of the recipe that the command names: relative paths start there, and no included file of
            one's own lies outside of it.
        filters: code of custom filters that the command line names, by file name.
    """

    def __init__(self, base: Path, filters: Mapping[str, str]) -> None:
        self.base, self.filters = base.resolve(), filters
        self.mapped: list[Mapped] = []
        self._done: dict[Path, Located] = {}

    def compose(self, whole: Located, path: RecipePlace, above: Sequence[Path] = ()) -> Located:
        """The mapping of a file with all that it includes.

        Args:
            whole: what stands in the file.
            path: the file.
            above: the files that led to it, from the top.

        Raises:
            RecipeError: an included file is not there, not allowed, or includes itself; it has not what is to be taken
                or replaced; or two files say different things of one value.
        """
        how = {key: whole.value[key] for key in COMPOSING if key in whole.value}
        _refuse_names(how.get("include"), path)
        spelt = parse_block(
            Composition, {key: item.to_data() for key, item in how.items() if item.value is not None}, str(path)
        )
        own = Located({key: item for key, item in whole.value.items() if key not in COMPOSING}, whole.origin)
        own = expand_stages(own, self._take_preset, self.mapped)
        taken = Located(dict[Any, Located](), whole.origin)
        for number, wanted in enumerate(spelt.include):
            entry = how["include"].value[number]
            taken = merge_mappings(taken, self._take(wanted, entry.origin, path, above), replaced=spelt.replace)
        if spelt.replace:
            taken = replace_values(taken, how["replace"])
        return merge_mappings(taken, own)

    def _take(self, wanted: Include, origin: str, path: RecipePlace, above: Sequence[Path]) -> Located:
        """What an entry of `include` takes."""
        file = self._find(wanted.recipe, origin, path)
        chain = [*above, *([path.resolve()] if isinstance(path, Path) else [])]
        if file in chain:
            names = " includes ".join(str(step) for step in (*chain[chain.index(file) :], file))
            raise RecipeError(f"{origin}: include {wanted.recipe!r}: a file cannot include itself: {names}")
        if len(chain) > DEEPEST:
            raise RecipeError(f"{origin}: include {wanted.recipe!r}: more than {DEEPEST} files include each other")
        if file not in self._done:
            self._done[file] = self._read(file, chain)
        found = self._done[file]
        if wanted.take is None:
            return Located({key: item for key, item in found.value.items() if key != OWN}, found.origin)
        result = Located(dict[Any, Located](), found.origin)
        for dotted in wanted.take:
            result = merge_mappings(
                result, select_value(found, dotted, f"{origin}: include {wanted.recipe}: take {dotted}")
            )
        return result

    def _read(self, file: Path, chain: Sequence[Path]) -> Located:
        """A file with all that it includes, without code that the command line does not name."""
        found = read_located(file)
        refuse_code(file, found.to_data(), self.filters)
        found = Located({key: item for key, item in found.value.items() if key != "custom_filters"}, found.origin)
        own = rebase_paths(found, file.parent, self.base)
        return self.compose(own, file, chain)

    def _find(self, name: str, origin: str, path: RecipePlace) -> Path:
        """The file of an entry.

        Raises:
            RecipeError: there is none, or it lies outside of the recipe's folder.
        """
        where = f"{origin}: include {name!r:.200}"
        shipped = list_shipped()
        if not name.endswith(SUFFIXES):
            if not SHIPPED.fullmatch(name) or name not in shipped:
                raise RecipeError(
                    f"{where}: is neither a YAML file (FILE.yaml, relative to this one) nor a shipped recipe; "
                    f"{suggest_names(name, shipped)}"
                )
            return shipped[name].resolve()
        if Path(name).is_absolute():
            raise RecipeError(f"{where}: the path of an included file is relative to the file that includes it")
        file = (path.parent / name).resolve()
        if not file.is_relative_to(self.base) and file not in {item.resolve() for item in shipped.values()}:
            raise RecipeError(
                f"{where}: is {file}, outside of {self.base}; an included file lies in the recipe's folder or below it"
            )
        if not file.is_file():
            raise RecipeError(f"{where}: there is no file {file}")
        return file

    def _take_preset(self, name: Any, origin: str) -> Located:
        """The `model` block of a preset."""
        presets = list_presets()
        if not isinstance(name, str) or name not in presets:
            raise RecipeError(f"model.preset: there is no {name!r:.80}; {suggest_names(str(name), presets)} ({origin})")
        model: Located = read_located(presets[name]).value["model"]
        return model


def compose_file(
    path: RecipePlace, data: Mapping[str, Any], filters: Mapping[str, str]
) -> tuple[Located, list[Mapped]]:
    """The recipe in a file with all that it includes, and how its stages map published mixtures.

    Args:
        path: the file.
        data: what was set at its top on the command line: `include` or `replace`.
        filters: code that the command line names, by file name.

    Raises:
        RecipeError: see `Composer.compose`.
    """
    whole = read_located(path)
    for key, value in data.items():
        whole = whole.with_item(key, locate_data(value, f"--set {key}"))
    composer = Composer(path.parent, filters)
    return composer.compose(whole, path), composer.mapped
