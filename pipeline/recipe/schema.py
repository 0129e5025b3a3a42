"""Recipes: one YAML file says what a run is made of. Read once into frozen objects; an unknown key is an error.

A recipe and the overrides of the command line make the effective recipe; a folder is locked to it by `recipe.lock.yaml`. Both are data:
no code in them runs unless the command line names it (pipeline/filters/custom.py), and their names may be no way out of a folder (pipeline/recipe/validate.py).
What only says where things lie or how fast they are had (`root`, `images`, `serve`, the fetch block's mirrors, threads and times), or what is
expected of a build (`expect`), is not in the lock, as it is in no key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.decontaminate import Decontamination
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.filters import FILTERS, CustomFilter, Filter
from vlmill.pipeline.filters.custom import CustomCode, TrustedCode
from vlmill.pipeline.images import POLICIES, Policy
from vlmill.pipeline.recipe.overrides import DEFAULT_FILTERS
from vlmill.pipeline.sources import SOURCES, Source
from vlmill.pipeline.steps.image_stats import ComputeImageStats

Made = TypeVar("Made")


@dataclass(frozen=True, config=STRICT)
class Expect:
    """What a build has to come to; one that does not ends with an error, after all that it made was committed."""

    kept: Annotated[float, pydantic.Field(ge=0, le=1)]  # least share of a source's samples


@dataclass(frozen=True, config=STRICT)
class SourceSettings:
    """One named source of a recipe."""

    kind: str  # a row shape of SOURCES
    files: str | None = None  # pattern below root
    subset: str | None = None  # in the place of files, of a dataset on the Hugging Face Hub: its configuration ...
    split: str | None = None  # ... and split
    root: str = field(default=".", metadata=RUNTIME)  # folder (relative to the recipe), fsspec URL, hf://datasets/...
    images: str | None = field(default=None, metadata=RUNTIME)  # where paths of image files start; else from root
    licence: str = ""
    priority: int = 0  # of two duplicates the one with the lower priority number is kept
    options: Mapping[str, Any] = field(default_factory=dict)  # of the row shape
    expect: Expect | None = field(default=None, metadata=RUNTIME)  # in the place of the recipe's
    fetch: Mapping[str, Any] = field(default_factory=dict)  # what differs from the recipe's fetch block
    serve: Mapping[str, str] = field(
        default_factory=dict, metadata=RUNTIME
    )  # URL prefix -> folder served on loopback in its place


@dataclass(frozen=True, config=STRICT)
class PartitionBounds:
    """How input files are cut: a partition has at most so many rows and about so many bytes."""

    rows: int = 10_000
    bytes: int = 1 << 30


@dataclass(frozen=True, config=STRICT)
class ShardBounds:
    """Upper bounds of one tar."""

    samples: int = 10_000
    bytes: int = 1 << 30


@dataclass(frozen=True, config=STRICT)
class Stage:
    """One training stage: which policy's shards it reads, in what mixture, and how it trains."""

    name: str
    policy: str
    mixture: Mapping[str, Any]  # mixtures/config.py says what stands in it
    train: Mapping[str, Any] = field(default_factory=dict)  # train/settings.py says what stands in it


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A recipe as it stands in YAML, its blocks still mappings where a table says what they are."""

    name: str
    sources: Mapping[str, SourceSettings]
    seed: int = 0
    limit: int | None = None  # rows per source, from the front
    expect: Expect | None = field(default=None, metadata=RUNTIME)  # of every source that has none of its own
    partition: PartitionBounds = field(default_factory=PartitionBounds)
    fetch: Mapping[str, Any] = field(default_factory=dict)
    image_stats: Mapping[str, Any] = field(default_factory=dict)
    filters: tuple[Mapping[str, Mapping[str, Any] | None], ...] = DEFAULT_FILTERS
    custom_filters: Mapping[str, CustomCode] = field(
        default_factory=dict
    )  # file name -> code; --filter puts it here, and no recipe
    dedupe: Mapping[str, Any] | None = field(default_factory=dict)  # null: none
    decontaminate: Mapping[str, Any] | None = None  # pipeline/decontaminate says what stands in it; null: none
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shards: ShardBounds = field(default_factory=ShardBounds)
    tokenizer: str | None = field(default=None, metadata=RUNTIME)  # a tokenizer.json, relative to the recipe file
    chat: str = "vlmill"
    stages: tuple[Stage, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)  # train/settings.py says what stands in it

    def source(self, name: str) -> Source:
        """The row shape of a source, with its options."""
        settings = self.sources[name]
        return _from_table(SOURCES, {"kind": settings.kind, **settings.options}, f"sources.{name}")

    def fetch_step(self, name: str) -> Fetch:
        """The fetch step of a source: the recipe's block with the source's own keys over it."""
        return parse_block(Fetch, {**self.fetch, **self.sources[name].fetch}, f"sources.{name}.fetch")

    def expected(self, name: str) -> float | None:
        """The share of a source's samples that has to be kept, or None where nothing is said."""
        expect = self.sources[name].expect or self.expect
        return expect.kept if expect else None

    def image_stats_step(self) -> ComputeImageStats:
        """The image stats step."""
        return parse_block(ComputeImageStats, dict(self.image_stats), "image_stats")

    def built_filters(self) -> tuple[Filter, ...]:
        """The filters in the order in which they are asked."""
        filters = []
        for place, entry in enumerate(self.filters):
            if len(entry) != 1:
                raise RecipeError(
                    f"filters[{place}]: one name with its settings, such as `language: {{drop: [zh]}}`, not {dict(entry)!r}"
                )
            ((name, values),) = entry.items()
            filters.append(self._filter(name, values or {}))
        names = [filter_.name for filter_ in filters]
        if len(set(names)) != len(names):
            raise RecipeError(f"filters: each may stand once, not {', '.join(names)}")
        return tuple(filters)

    def _filter(self, name: str, values: Mapping[str, Any]) -> Filter:
        if name in FILTERS:
            return parse_block(FILTERS[name], dict(values), f"filters.{name}")
        for file, code in self.custom_filters.items():
            if name in code.names():
                return CustomFilter(
                    name, values, code.sha256, code.code if isinstance(code, TrustedCode) else None, file
                )
        raise RecipeError(
            f"filters.{name}: {name!r} is unknown; {suggest_names(name, list(FILTERS))}. A custom filter comes with --filter FILE"
        )

    def trusting(self, digests: Collection[str]) -> Recipe:
        """The same, whose custom filters may run where the sha256 of their code is among `digests`."""
        files = {
            file: TrustedCode(code.sha256, code.code) if code.sha256 in digests else code
            for file, code in self.custom_filters.items()
        }
        return dataclasses.replace(self, custom_filters=files)

    def dedupe_settings(self) -> Dedupe | None:
        """The dedupe settings, or None where the recipe says null."""
        return None if self.dedupe is None else parse_block(Dedupe, dict(self.dedupe), "dedupe")

    def decontamination_settings(self) -> Decontamination | None:
        """What training data is held against, or None where the recipe has no such block."""
        return (
            None
            if self.decontaminate is None
            else parse_block(Decontamination, dict(self.decontaminate), "decontaminate")
        )

    def benchmark(self, name: str) -> Source:
        """The row shape of a benchmark, with its options."""
        settings = parse_block(Decontamination, dict(self.decontaminate or {}), "decontaminate").against[name]
        where = f"decontaminate.against.{name}"
        source = _from_table(SOURCES, {"kind": settings.kind, **settings.options}, where)
        if source.fetches:
            raise RecipeError(f"{where}.kind: {settings.kind!r} names addresses; a benchmark has to carry its images")
        return source

    def roots(self) -> dict[str, str]:
        """Where the files of each source and benchmark lie."""
        held = self.decontamination_settings()
        return {name: place.root for name, place in (*self.sources.items(), *(held.against.items() if held else ()))}

    def rooted(self, roots: Mapping[str, str]) -> Recipe:
        """The same with other roots of some sources and benchmarks."""
        sources = {
            name: dataclasses.replace(source, root=roots.get(name, source.root))
            for name, source in self.sources.items()
        }
        if self.decontaminate is None:
            return dataclasses.replace(self, sources=sources)
        against = {
            name: {**settings, **({"root": roots[name]} if name in roots else {})}
            for name, settings in self.decontaminate["against"].items()
        }
        return dataclasses.replace(self, sources=sources, decontaminate={**self.decontaminate, "against": against})

    def verdict_steps(self) -> tuple[str, ...]:
        """Whose verdicts count before dedupe's, in the order of attribution: the filters, and decontaminate where it drops."""
        against = self.decontamination_settings()
        dropping = against is not None and against.action == "drop"
        return (*(filter_.name for filter_ in self.built_filters()), *(("decontaminate",) if dropping else ()))

    def all_verdict_steps(self) -> tuple[str, ...]:
        """The names of all who write verdicts on samples, in the order in which they are heard."""
        return (*self.verdict_steps(), *(() if self.dedupe is None else ("dedupe",)))

    def policy(self, name: str) -> Policy:
        """An image policy."""
        if name not in self.policies:
            raise RecipeError(
                f"policy {name!r} does not stand in the recipe's policies; {suggest_names(name, list(self.policies))}"
            )
        return _from_table(POLICIES, self.policies[name], f"policies.{name}")


def _from_table(table: Mapping[str, type[Made]], values: Mapping[str, Any], where: str) -> Made:
    """The object that `values` describe, of the class that its `kind` names in `table`."""
    kind = str(values.get("kind"))
    if kind not in table:
        raise RecipeError(f"{where}.kind: {kind!r} is unknown; {suggest_names(kind, list(table))}")
    return parse_block(table[kind], {name: value for name, value in values.items() if name != "kind"}, where)
