"""Recipes: one YAML file says what a run is made of; frozen objects, where an unknown key is an error.

A recipe and the overrides of the command line make the effective recipe; a folder is locked to it by
`recipe.lock.yaml`. Both are data: no code in them runs unless the command line names it (pipeline/filters/custom.py),
and their names may be no way out of a folder (pipeline/recipe/validate.py). What only says where things lie or how fast
they are had (`root`, `images`, `serve`, the fetch block's mirrors, threads and times), or what is expected of a build
(`expect`), is not in the lock, as it is in no key. What only describes a source (`homepage`, `citation`) is in the lock
for the data card, and binds nobody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from vlmill.pipeline.boxes import ModelBoxes, SourceBoxes
from vlmill.pipeline.chat.settings import ChatField
from vlmill.pipeline.core.config import STRICT, Amount, KindOf, OneNamed, OneOf, Overrides, Seed, suggest_names
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.decontaminate import Decontamination
from vlmill.pipeline.dedupe import CompareVectors, Dedupe, FileVectors, Resolve
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.filters import FILTERS, CustomFilter, Filter, Language, Threshold, reads_tables
from vlmill.pipeline.filters.custom import CustomCode, TrustedCode, list_own_names
from vlmill.pipeline.images import POLICIES, Policy
from vlmill.pipeline.recipe.custom_sources import HINT, CustomSource, name_custom_source, place_custom_source
from vlmill.pipeline.signals import DERIVED, SIGNALS, Clusters, Signal
from vlmill.pipeline.signals.ask import Ask
from vlmill.pipeline.signals.custom import CustomSignal, name_custom_signal, place_custom_signal
from vlmill.pipeline.sources import SOURCES, OnBadFile, Source, show_captions
from vlmill.pipeline.sources.options import add_kind
from vlmill.pipeline.steps.image_stats import ComputeImageStats
from vlmill.pipeline.steps.read import MAX_CHARACTERS
from vlmill.pipeline.steps.write_texts import TextWriter, WriteTexts


@dataclass(frozen=True, config=STRICT)
class Expect:
    """What a build has to reach. One that does not ends with an error, and keeps what it made."""

    kept: Annotated[float, pydantic.Field(ge=0, le=1)]  # least share of a source's rows, or pages, kept as samples


@dataclass(frozen=True, config=STRICT)
class SourceSettings:
    """One named source of a recipe."""

    kind: Annotated[str, KindOf(SOURCES, HINT, open=True)]  # a row shape; needed where no included file names it
    files: str | None = None  # which files below `root`: a pattern such as data/*.parquet
    subset: str | None = None  # in the place of files, of a dataset on the Hugging Face Hub: its configuration
    split: str | None = None  # in the place of files: its split
    subsets: Literal["*"] | tuple[str, ...] | None = (
        None  # a source for each of these subsets, or for all: NAME-SUBSET; `{subset}` in `files` is a subset's folder
    )
    group: str = ""  # a name by which mixtures mean several sources; of sources that are subsets, the source they were
    root: str = field(default=".", metadata=RUNTIME)  # folder (relative to the recipe), fsspec URL, hf://datasets/...
    images: str | None = field(default=None, metadata=RUNTIME)  # where paths of image files start; else from root
    licence: str = ""  # the licence of samples that name none of their own
    homepage: str = field(default="", metadata=RUNTIME)  # where people read about it; for the data card
    citation: str = field(default="", metadata=RUNTIME)  # what to cite, such as arXiv:2306.16527; for the data card
    priority: Annotated[int, pydantic.Field(ge=-(1 << 31), lt=1 << 31)] = (
        0  # of two duplicates the lower number is kept
    )
    options: Annotated[Source, OneOf(SOURCES, name_custom_source, described=False)] = pydantic.Field(
        default_factory=dict, validate_default=True
    )  # of the row shape
    boxes: SourceBoxes | None = None  # coordinates in its texts, which every image policy moves along
    expect: Expect | None = field(default=None, metadata=RUNTIME)  # in the place of the recipe's
    on_bad_file: OnBadFile = "error"  # a cut or damaged input file ends the build, or is counted and left out (skip)
    max_characters: Amount = MAX_CHARACTERS  # of a sample's texts and addresses; one with more is refused
    unescape: bool = False  # whether HTML entities in its texts, such as `&amp;`, become characters
    fetch: Annotated[Mapping[str, Any], Overrides(Fetch)] = field(
        default_factory=dict
    )  # what differs from the recipe's fetch block
    serve: Mapping[str, str] = field(
        default_factory=dict, metadata=RUNTIME
    )  # URL prefix -> folder served on loopback in its place

    @field_validator("options", mode="before")
    @classmethod
    def _with_kind(cls, options: Any, info: ValidationInfo) -> Any:
        return add_kind(options, info.data.get("kind"))


@dataclass(frozen=True, config=STRICT)
class PartitionBounds:
    """How input files are cut: a partition has at most so many rows and about so many bytes."""

    rows: Amount = 10_000  # of an input file, or of several small ones
    bytes: Amount = 1 << 30  # of these rows; a larger row has a partition of its own


@dataclass(frozen=True, config=STRICT)
class ShardBounds:
    """Upper bounds of one tar."""

    samples: Amount = 10_000  # samples in one tar at most
    bytes: Amount = 1 << 30  # of these samples; a larger one has a tar of its own


@dataclass(frozen=True, config=STRICT)
class Stage:
    """One training stage: which policy's shards it reads, in what mixture, and how it trains.

    The last two are data here, since the packages that know them stand above this one; vlmill.train.validate reads them
    as well.
    """

    name: str  # of its folders and in commands
    policy: str  # one of the recipe's policies
    mixture: Mapping[str, Any]  # mixtures/config.py says what stands in it
    train: Mapping[str, Any] = field(default_factory=dict)  # train/settings.py says what stands in it

    def list_entry_names(self) -> tuple[str, ...]:
        """The sources, groups and patterns that its mixture names, in whichever form; malformed entries name none."""
        held, found = self.mixture.get("held_out"), list[str]()
        for form in ("shares", "repeat", "entries"):
            listed = self.mixture.get(form) or ()
            if isinstance(listed, Mapping):
                found += map(str, listed)
            elif isinstance(listed, list | tuple):
                found += [str(entry["source"]) for entry in listed if isinstance(entry, Mapping) and "source" in entry]
        whole = [str(name) for name, part in held.items() if part == 1] if isinstance(held, Mapping) else []
        return tuple(dict.fromkeys((*found, *whole)))


def _name_custom_filter(name: str, settings: Mapping[str, Any]) -> CustomFilter:
    """A filter that is not ours: the recipe says in which file it is."""
    return CustomFilter(name, settings, "", None, "")


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """What a run is made of. Each block is a frozen object, and the engine works with these."""

    name: str  # of the run; by default it is built in build/NAME
    sources: Mapping[str, SourceSettings]  # what is read, by names that mixtures use
    seed: Seed = 0  # of what mixtures hold out, take at random, and of their order and packing
    limit: Amount | None = None  # rows per source, from the front
    scale: Annotated[float, pydantic.Field(gt=0, le=1)] = (
        1.0  # fraction of each source's rows, every budget, steps and warm_up
    )
    expect: Expect | None = field(default=None, metadata=RUNTIME)  # for every source without its own
    partition: PartitionBounds = field(default_factory=PartitionBounds)  # how much one task works on
    fetch: Fetch = field(default_factory=Fetch)  # how images are fetched that sources name by address
    image_stats: ComputeImageStats = field(default_factory=ComputeImageStats)  # what is found out about each image
    signals: Mapping[str, Annotated[Signal | Clusters, OneOf({**SIGNALS, **DERIVED}, name_custom_signal)]] = field(
        default_factory=dict
    )  # what models say of images and texts, by names that thresholds and conditions use
    filters: tuple[Annotated[Filter, OneNamed(FILTERS, _name_custom_filter)], ...] = field(
        default_factory=lambda: (Language(),)
    )  # in the order in which they are asked; without the key `language` alone
    custom_filters: Mapping[str, CustomCode] = field(
        default_factory=dict
    )  # file name -> code; --filter puts it here, and no recipe
    dedupe: Dedupe | None = field(default_factory=Dedupe)  # which duplicates go; null: none
    decontaminate: Decontamination | None = None  # the benchmarks that data is compared with; null: none
    policies: Mapping[str, Annotated[Policy, OneOf(POLICIES)]] = field(
        default_factory=dict
    )  # image policies by name; a source is rendered under those of the stages that use it, without stages under all
    boxes: ModelBoxes | None = None  # how the model is to see coordinates of texts; null: in each source's own form
    shards: ShardBounds = field(default_factory=ShardBounds)  # how large the tars of shards are
    tokenizer: str | None = field(default=None, metadata=RUNTIME)  # a tokenizer.json, relative to the recipe file
    chat: ChatField = (
        "vlmill"  # how conversations and images are written in tokens: a format of ours, or a published model's
    )
    stages: tuple[Stage, ...] = ()  # the stages of training, in their order
    model: Mapping[str, Any] = field(default_factory=dict)  # train/settings.py says what stands in it

    def __post_init__(self) -> None:
        """Give custom filters, signals and sources their code; refuse unknown ones, and filters that stand twice."""
        filters = tuple(self._find_code(item) if isinstance(item, CustomFilter) else item for item in self.filters)
        object.__setattr__(self, "filters", filters)
        signals = {name: self._find_signal(name, self.signals[name]) for name in sorted(self.signals)}  # as locks do
        object.__setattr__(self, "signals", signals)
        placed = {
            name: dataclasses.replace(
                settings, options=place_custom_source(settings.options, name, self.custom_filters)
            )
            for name, settings in self.sources.items()
            if isinstance(settings.options, CustomSource)
        }
        object.__setattr__(self, "sources", {**self.sources, **placed})
        names = [filter_.name for filter_ in filters]
        if len(set(names)) != len(names):
            raise ValueError(f"filters: each may stand once, not {', '.join(names)}")

    def _find_code(self, found: CustomFilter) -> CustomFilter:
        """The same filter with the code of its name. It may run where that is trusted."""
        for file, code in self.custom_filters.items():
            if found.name in code.names():
                trusted = code.code if isinstance(code, TrustedCode) else None
                return CustomFilter(found.name, found.settings, code.sha256, trusted, file)
        known = suggest_names(found.name, [*FILTERS, *list_own_names(self.custom_filters)])
        raise ValueError(
            f"filters.{found.name}: {found.name!r} is unknown; {known}. "
            "A custom filter comes with --filter FILE; docs/adding.md says how to write one"
        )

    def _find_signal(self, name: str, found: Signal | Clusters) -> Signal | Clusters:
        """The same signal, one of a user with the code of its kind. It may run where that is trusted."""
        if not isinstance(found, CustomSignal):
            return found
        for file, code in self.custom_filters.items():
            if found.kind in code.names():
                trusted = code.code if isinstance(code, TrustedCode) else None
                return place_custom_signal(found, name, code.sha256, trusted, file)
        raise ValueError(
            f"signals.{name}.kind: {found.kind!r} is unknown; "
            f"{suggest_names(found.kind, [*SIGNALS, *DERIVED, *list_own_names(self.custom_filters)])}. "
            "A custom signal comes with --filter FILE; docs/signals.md says how to write one"
        )

    @property
    def models(self) -> dict[str, Signal]:
        """Its signals that ask a model."""
        return {name: signal for name, signal in self.signals.items() if not isinstance(signal, Clusters)}

    @property
    def clusters(self) -> dict[str, Clusters]:
        """Its signals that group the vectors of others."""
        return {name: signal for name, signal in self.signals.items() if isinstance(signal, Clusters)}

    def source(self, name: str) -> Source:
        """The row shape of a source, with its options."""
        return self.sources[name].options

    def fetch_step(self, name: str) -> Fetch:
        """The fetch step of a source: the recipe's block with the source's own keys over it."""
        return dataclasses.replace(self.fetch, **self.sources[name].fetch)

    def expected(self, name: str) -> float | None:
        """The share of a source's samples that has to be kept, or None where nothing is said."""
        expect = self.sources[name].expect or self.expect
        return expect.kept if expect else None

    def trusting(self, digests: Collection[str]) -> Recipe:
        """The same, whose custom filters may run where the sha256 of their code is among `digests`.

        Raises:
            RecipeError: one of these cannot be made, or its settings are wrong.
        """
        files = {
            file: TrustedCode(code.sha256, code.code) if code.sha256 in digests else code
            for file, code in self.custom_filters.items()
        }
        return dataclasses.replace(self, custom_filters=files)

    def find_members(self, name: str, entries: Collection[str] = ()) -> tuple[str, ...]:
        """The sources that a mixture means by a name: one of that name, else a group, else what a pattern matches.

        In the order of their names. Sources among the names of its `entries` are in no group and match no pattern.
        """
        if name in self.sources:
            return (name,)
        group = tuple(source for source, settings in self.sources.items() if name and settings.group == name)
        found = group or tuple(source for source in self.sources if "*" in name and fnmatchcase(source, name))
        return tuple(sorted(source for source in found if source not in entries))

    def list_policies(self, source: str) -> tuple[str, ...]:
        """The image policies under which a source is rendered, in the recipe's order.

        They are those of the stages whose mixtures mean it; in a recipe without stages, all.
        """
        if not self.stages:
            return tuple(self.policies)
        used = set[str]()
        for stage in self.stages:
            names = stage.list_entry_names()
            if stage.policy not in used and any(source in self.find_members(name, names) for name in names):
                used.add(stage.policy)
        return tuple(policy for policy in self.policies if policy in used)

    def list_groups(self) -> list[str]:
        """The names of all sources and groups of them."""
        groups = {settings.group for settings in self.sources.values() if settings.group}
        return [*self.sources, *sorted(groups - {*self.sources})]

    def roots(self) -> dict[str, str]:
        """Where the files of each source and benchmark lie."""
        held = self.decontaminate
        return {name: place.root for name, place in (*self.sources.items(), *(held.against.items() if held else ()))}

    def rooted(self, roots: Mapping[str, str]) -> Recipe:
        """The same with other roots of some sources and benchmarks."""
        sources = {
            name: dataclasses.replace(source, root=roots.get(name, source.root))
            for name, source in self.sources.items()
        }
        held = self.decontaminate
        if held is not None:
            against = {
                name: dataclasses.replace(benchmark, root=roots.get(name, benchmark.root))
                for name, benchmark in held.against.items()
            }
            held = dataclasses.replace(held, against=against)
        return dataclasses.replace(self, sources=sources, decontaminate=held)

    def verdict_steps(self) -> tuple[str, ...]:
        """Steps whose verdicts count before dedupe's, in order.

        Coordinates of texts where sources have some, signals, filters, and decontaminate where it drops.
        """
        dropping = self.decontaminate is not None and self.decontaminate.action == "drop"
        filters = (filter_.name for filter_ in self.filters)
        boxes = ("boxes",) if self.has_boxes() else ()
        return (*boxes, *self.models, *filters, *(("decontaminate",) if dropping else ()))

    def has_boxes(self) -> bool:
        """Whether texts of a source hold coordinates."""
        return any(source.boxes is not None for source in self.sources.values())

    def unscored_verdict_steps(self) -> tuple[str, ...]:
        """Those of them that need no signal, so that they are there before any model was asked."""
        scored = {*self.models, *(filter_.name for filter_ in self.filters if reads_tables(filter_))}
        return tuple(name for name in self.verdict_steps() if name not in scored)

    def list_values(self) -> tuple[str, ...]:
        """The values that its signals give, by name; of vectors none."""
        return tuple(column for name, signal in self.signals.items() for column in signal.columns(name))

    def list_asking_signals(self) -> dict[str, Ask]:
        """Its signals that ask a server, by name."""
        return {name: signal for name, signal in self.signals.items() if isinstance(signal, Ask)}

    def write_step(self) -> WriteTexts | None:
        """The step that makes nodes of what servers wrote; None where nothing is to become one."""
        writers = (
            TextWriter(name, signal.model, signal.prompt_sha256, signal.writes, signal.text)
            for name, signal in self.list_asking_signals().items()
            if signal.writes is not None
        )
        found = tuple(writers)
        return WriteTexts(found) if found else None

    def list_writers(self) -> tuple[str, ...]:
        """The signals whose answers become nodes. They are asked before all filters."""
        step = self.write_step()
        return tuple(writer.signal for writer in step.writers) if step else ()

    def list_readers(self) -> tuple[str, ...]:
        """The other signals, which see what was written."""
        writers = self.list_writers()
        return tuple(name for name in self.models if name not in writers)

    def list_labels(self) -> tuple[str, ...]:
        """Those of its values that are numbers of groups, not amounts."""
        return tuple(column for name, signal in self.clusters.items() for column in signal.labels(name))

    def list_needs(self) -> dict[str, bool]:
        """What an executor of the recipe has to have: room for pictures on their way to models, and GPUs."""
        gpus = any(signal.resources.gpus for signal in self.models.values())
        return {"models": bool(self.models), "gpus": gpus}

    def find_threshold(self) -> Threshold | None:
        """The filter on signals, if there is one."""
        return next((filter_ for filter_ in self.filters if isinstance(filter_, Threshold)), None)

    def all_verdict_steps(self) -> tuple[str, ...]:
        """The names of all steps that write verdicts on samples, in the order in which they count."""
        return (*self.verdict_steps(), *(() if self.dedupe is None else ("dedupe",)))

    def resolve_step(self, settings: Dedupe, partitions: tuple[str, ...]) -> Resolve:
        """The last step of dedupe, over partitions named `<source>/<partition>`."""
        return settings.resolve(
            partitions=partitions,
            priority={name: source.priority for name, source in self.sources.items()},
            filters=self.verdict_steps(),
            captioned=[name for name, source in self.sources.items() if show_captions(source.options)],
            thing="text" if self._find_semantic()[0] == "texts" else "image",
        )

    def _find_semantic(self) -> tuple[str, str]:
        """What the vectors of `dedupe.semantic` are of, and the signal of clusters that they are compared within."""
        semantic = self.dedupe and self.dedupe.semantic
        if not semantic:
            return "", ""
        within = [name for name, signal in self.clusters.items() if signal.of == semantic.of]
        return self.models[semantic.of].of, semantic.within or within[0]

    def list_semantic_steps(self, buckets: int | None = None) -> tuple[CompareVectors, ...]:
        """The steps that compare vectors, for so many buckets of clusters, or as the recipe says."""
        if self.dedupe is None or self.dedupe.semantic is None:
            return ()
        clusters = self.clusters[self._find_semantic()[1]].clusters
        priority = {name: source.priority for name, source in self.sources.items()}
        return self.dedupe.semantic_steps(clusters, priority, buckets)

    def vector_step(self) -> FileVectors | None:
        """The step that files the vectors of a partition for them."""
        if self.dedupe is None or self.dedupe.semantic is None:
            return None
        return FileVectors(self.dedupe.semantic.of, self._find_semantic()[1])
