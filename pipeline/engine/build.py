"""The run: from a recipe to committed shards and lengths, by lanes of tasks.

survey      one lane per origin file          cut it into partitions
benchmarks  one lane per partition, then one  read, inspect, index what training data is held against
curate      one lane per partition            read, fetch, inspect, seek, every judge, sketch, contamination
dedupe      one task per bucket, then one     pairs, resolve
shard       one lane per partition, policy    ... render, measure
settle      one lane per partition            what is kept, where there are no shards to say it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.progress import Watcher
from vlmill.pipeline.core.step import Step
from vlmill.pipeline.decontaminate import Decontaminate
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.engine import benchmarks
from vlmill.pipeline.engine.chain import (
    Chain,
    ChainRunner,
    ChainStep,
    HashInputFile,
    MatchTakedowns,
    read_manifest,
    write_manifest,
)
from vlmill.pipeline.engine.executor import Executor
from vlmill.pipeline.engine.partition_tables import list_table_histories, retrying
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.engine.workdir import copy_list
from vlmill.pipeline.fetch import Fetch, Retry
from vlmill.pipeline.fetch.opt_outs import OptOuts
from vlmill.pipeline.filters import FilterStep, ReadsLists
from vlmill.pipeline.inputs.files import InputFile, list_input_files
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.render import Render
from vlmill.pipeline.steps.retry_images import RetryImages
from vlmill.pipeline.steps.survey import Survey
from vlmill.pipeline.steps.token_lengths import CountTokens
from vlmill.pipeline.takedown import Match, TakedownList
from vlmill.pipeline.takedown.rules import LIST

PHASES = ("survey", "benchmarks", "curate", "dedupe", "shard", "mixture")
"""What `--until` may name, in order. The mixture phase is in the package `mixtures`."""


@dataclass(frozen=True)
class PlannedPartition:
    """A partition: rows [start, stop) of an origin file."""

    origin: InputFile
    file: File
    chunk: int
    start: int
    stop: int
    raw: tuple[File, ...] = ()  # what was read and fetched of it, where no origin is asked any more

    @property
    def name(self) -> str:
        """`<file number>-<chunk>`."""
        return f"{self.origin.number:05d}-{self.chunk:04d}"


Serving = Mapping[str, Mapping[str, str]]
"""Source -> {URL prefix: prefix under which a folder is served on loopback while the build runs}."""


class Build:
    """A build in progress: what the phases share. Only the driver holds one.

    Relative paths start from `base`; without one, the copies count that the folder has of the tokenizer and of lists.
    """

    def __init__(
        self,
        root: Path,
        recipe: Recipe,
        base: Path | None,
        executor: Executor,
        watcher: Watcher,
        serving: Serving,
        *,
        retry: bool = False,
    ) -> None:
        self.root, self.recipe, self.base, self.executor, self.watcher = root, recipe, base, executor, watcher
        self.serving, self.retry = serving, retry
        self.parts: dict[str, list[PlannedPartition]] = {}
        self.index: tuple[File, ...] = ()
        self.rules = TakedownList.read(root)
        self.folders: set[str] = set()  # of the steps that this build has to do with

    # -- phases ----------------------------------------------------------------------------------------------------

    def survey(self) -> None:
        """Find the origin files and cut them into partitions. What is wrong with a list is said first, not after hours of reading."""
        OptOuts.given({file.name: self.root / file.path for file in self._lists})
        origins = [
            origin
            for name, settings in self.recipe.sources.items()
            for origin in list_input_files(
                name,
                self.place(settings.root),
                settings.files,
                subset=settings.subset,
                split=settings.split,
                ranged=self.recipe.source(name).ranged,
            )
        ]
        files: list[File | None] = [None] * len(origins)
        for index, file in self.executor.each(HashInputFile(), origins, lambda origin: origin):
            files[index] = file
        bounds = self.recipe.partition
        lanes = [
            Chain(
                f"{origin.number:05d}",
                (
                    ChainStep(
                        f"steps/{origin.source}/survey",
                        Survey(self.recipe.source(origin.source), bounds.rows, bounds.bytes),
                    ),
                ),
                origin,
                (file,),
            )
            for origin, file in zip(origins, files, strict=True)
            if file
        ]
        for lane, receipts in self.walk("survey", lanes):
            cuts = json.loads((self.root / receipts[-1][1].files[0].path).read_bytes())
            parts = [PlannedPartition(lane.origin, lane.files[0], chunk, *cut) for chunk, cut in enumerate(cuts)]  # type: ignore[arg-type]
            self.parts.setdefault(lane.origin.source, []).extend(parts)  # type: ignore[union-attr]
        for source in self.recipe.sources:
            self.parts[source] = _first(
                sorted(self.parts.get(source, []), key=lambda part: part.name), self.recipe.limit
            )
            if not self.parts[source]:
                raise RecipeError(
                    f"source {source!r}: its files hold no rows; take it out of the recipe, or point it elsewhere with --source {source}=PATH"
                )

    def adopt(self) -> None:
        """In place of `survey` and `benchmarks`: take partitions and index as the manifests have them. What was read and fetched stays as it is.

        Raises:
            StoreError: a source was not read to its end, or there is no index.
        """
        for name in self.recipe.sources:
            steps = ("survey", "read", "fetch") if self.recipe.source(name).fetches else ("survey", "read")
            again = ("retry",) if retrying(self.recipe, name) else ()
            self.folders |= {f"steps/{name}/{step}" for step in (*steps, *again)}
            raw: dict[str, tuple[File, ...]] = {}
            for step in steps[1:]:
                for receipt in self.manifest(f"steps/{name}/{step}"):
                    raw[receipt.part] = (*raw.get(receipt.part, ()), *receipt.files)
            self.parts[name] = [_adopted(name, part, files) for part, files in sorted(raw.items())]
        self.index = benchmarks.adopt_index(self)

    def benchmarks(self) -> None:
        """Index what training data is held against."""
        self.index = benchmarks.build_index(self)

    def curate(self) -> None:
        """Read, fetch, inspect, judge and sketch every partition."""
        for _ in self.walk("curate", [self.lane(part, retry=self.retry) for part in self.all_parts()]):
            pass

    def dedupe(self) -> None:
        """Find pairs over all sources, then say which of them go."""
        settings = self.recipe.deduping()
        if settings is None:
            return
        sketches = self._gather("sketch")
        candidates = self._each("candidates", settings.candidates(), sketches)
        pairs = self._each("pairs", settings.pairs(), (*candidates, *sketches))
        judged = tuple(file for judge in self.recipe.deciding() for file in self._gather(judge))
        inspected, read = self._gather("inspect"), self._gather("read")
        files = (*pairs, *candidates, *sketches, *judged, *inspected, *read)
        lane = Chain("all", (ChainStep("steps/dedupe/resolve", self._resolution(settings)),), files=files)
        for _ in self.walk("dedupe: resolve", [lane]):
            pass

    def _each(self, name: str, steps: Sequence[Step], files: tuple[File, ...]) -> tuple[File, ...]:
        """One lane per step, all over the same files; what they leave, named `<number>/<name>`."""
        lanes = [
            Chain(f"{number:05d}", (ChainStep(f"steps/dedupe/{name}", step),), files=files)
            for number, step in enumerate(steps)
        ]
        found = [receipts[-1][1] for _, receipts in self.walk(f"dedupe: {name}", lanes)]
        return tuple(
            replace(file, name=f"{receipt.part}/{file.name}")
            for receipt in sorted(found, key=lambda receipt: receipt.part)
            for file in receipt.files
        )

    def shard(self) -> None:
        """Render and measure every partition under every policy."""
        tokenizer, verdicts = self._tokenizer(), self.dedupe_verdicts()
        lanes = []
        for policy in self.recipe.policies:
            for part in self.all_parts():
                lane = self.lane(part)
                dropped = verdicts.get(f"{part.origin.source}/{part.name}", ())
                extra = (*dropped, *([tokenizer] if tokenizer else []))
                links = (*lane.links, *self._sharding(part, policy))
                lanes.append(replace(lane, links=links, files=(*lane.files, *extra)))
        for _ in self.walk("shard", lanes):
            pass

    # -- what a lane is made of ------------------------------------------------------------------------------------

    def lane(self, part: PlannedPartition, *, retry: bool = False) -> Chain:
        """A partition up to its sketch, from its origin or from what was read and fetched of it."""
        links = (*self._raw(part, retry=retry), *self._curation(part.origin.source))
        files = (*(part.raw or (part.file,)), *self._lists, *self.index)
        return Chain(part.name, links, None if part.raw else part.origin, files)

    def _images(self, source: str) -> str:
        """Where the paths of a source's image files start."""
        return self.place(self.recipe.sources[source].images or self.recipe.sources[source].root)

    def _retrying(self, source: str) -> Retry | RetryImages | None:
        """The step that tries failed images once more, as this build runs it."""
        step = retrying(self.recipe, source)
        if isinstance(step, Retry):
            return replace(step, fetch=self._fetch(source))
        return replace(step, images=self._images(source)) if step else None

    def _raw(self, part: PlannedPartition, *, retry: bool) -> Iterator[ChainStep]:
        """The steps that leave a partition's raw tables, and what was done to these since."""
        name, settings = part.origin.source, self.recipe.sources[part.origin.source]
        source, folder = self.recipe.source(name), f"steps/{name}"
        if not part.raw:
            read = Read(
                source=source,
                name_of_source=name,
                file=part.origin.name,
                start=part.start,
                stop=part.stop,
                licence=settings.licence,
                images=self._images(name),
            )
            yield ChainStep(f"{folder}/read", read)
            if source.fetches:
                yield ChainStep(f"{folder}/fetch", self._fetch(name))
        yield from list_table_histories(name, self._retrying(name), again=retry)

    def _curation(self, name: str) -> Iterator[ChainStep]:
        """What is found out about a partition of a source."""
        folder = f"steps/{name}"
        yield ChainStep(f"{folder}/inspect", self.recipe.inspecting())
        if self.rules:
            yield MatchTakedowns(f"{folder}/seek", Match(self.rules), f"{folder}/takedown")
        for judge in self.recipe.judging():
            yield ChainStep(f"{folder}/{judge.name}", FilterStep(judge))
        if dedupe := self.recipe.deduping():
            yield ChainStep(f"{folder}/sketch", dedupe.sketch())
        if against := self.recipe.decontaminating():
            yield ChainStep(f"{folder}/contamination", against.contamination())
            if against.action == "drop":
                yield ChainStep(f"{folder}/decontaminate", Decontaminate())

    def _sharding(self, part: PlannedPartition, policy: str) -> tuple[ChainStep, ...]:
        folder, bounds = f"shards/{part.origin.source}/{policy}", self.recipe.shards
        render = Render(
            policy=self.recipe.policy(policy),
            judges=self.recipe.voices(),
            samples=bounds.samples,
            bytes=bounds.bytes,
            file_number=part.origin.number,
            chunk=part.chunk,
        )
        links = [ChainStep(folder, render)]
        if self.recipe.tokenizer:
            links.append(ChainStep(f"{folder}/lengths", CountTokens(self.recipe.chat)))
        return tuple(links)

    def _fetch(self, source: str) -> Fetch:
        fetch = self.recipe.fetching(source)
        return replace(fetch, mirrors={**fetch.mirrors, **self.serving.get(source, {})})

    def _resolution(self, settings: Dedupe) -> Step:
        parts = tuple(f"{source}/{part.name}" for source in sorted(self.parts) for part in self.parts[source])
        priority = {name: source.priority for name, source in self.recipe.sources.items()}
        return settings.resolve(parts=parts, priority=priority, judges=self.recipe.deciding())

    def dedupe_verdicts(self) -> dict[str, tuple[File]]:
        """What dedupe says of each partition, by `<source>/<part>`."""
        if self.recipe.dedupe is None:
            return {}
        files = {file.name: file for file in self.manifest("steps/dedupe/resolve")[0].files}
        return {
            f"{part.origin.source}/{part.name}": (
                replace(
                    files[f"{part.origin.source}.{part.name}.dedupe.verdicts.parquet"], name="dedupe.verdicts.parquet"
                ),
            )
            for part in self.all_parts()
        }

    @cached_property
    def _lists(self) -> tuple[File, ...]:
        """The lists that judges and fetch read, in the run's folder."""
        gone, path = [], self.root / LIST
        if self.rules:
            gone = [File(LIST, LIST, hash_file(path), path.stat().st_size)]
        wanted = [judge.lists for judge in self.recipe.judging() if isinstance(judge, ReadsLists)]
        taken = (copy_list(self.root, self.base, path, name) for lists in wanted for name, path in lists.items())
        return (*taken, *gone)

    def _tokenizer(self) -> File | None:
        """The recipe's tokenizer, copied into the run's folder, where the trainer finds it."""
        if self.recipe.tokenizer is None:
            return None
        origin, here = (self.base or self.root) / self.recipe.tokenizer, self.root / "tokenizer.json"
        if not origin.is_file():
            raise RecipeError(
                f"tokenizer: there is no file {origin}; give the path of a tokenizer.json, relative to the recipe"
            )
        if not here.exists() or hash_file(here) != hash_file(origin):
            write_atomically(here, origin.read_text(encoding="utf-8"))
        return File("tokenizer.json", "tokenizer.json", hash_file(here), here.stat().st_size)

    # -- walking ---------------------------------------------------------------------------------------------------

    def walk(self, phase: str, lanes: Sequence[Chain]) -> Iterator[tuple[Chain, tuple[tuple[str, Receipt], ...]]]:
        """Walk lanes through the executor; when all are walked, write the manifest of every folder they filled."""
        self.watcher.phase(phase, len(lanes))
        books: dict[str, dict[tuple[str, str], Receipt]] = {}
        for index, receipts in self.executor.each(ChainRunner(self.root), lanes, Chain.careful):
            for folder, receipt in receipts:
                books.setdefault(folder, {})[receipt.part, receipt.key] = (
                    receipt  # a lane per policy has its first steps in common
                )
            self.watcher.done()
            yield lanes[index], receipts
        self.folders |= books.keys()
        for folder, found in books.items():  # several of one part stay in their order
            write_manifest(self.root, folder, [found[key] for key in sorted(found, key=lambda key: key[0])])

    def manifest(self, folder: str) -> list[Receipt]:
        """The receipts of a complete step."""
        return read_manifest(self.root, folder)

    def _gather(self, step: str) -> tuple[File, ...]:
        """All partitions' files of one step over all sources, named `<source>/<part>/<name>`."""
        return tuple(
            replace(file, name=f"{source}/{receipt.part}/{file.name}")
            for source in sorted(self.parts)
            for receipt in self.manifest(f"steps/{source}/{step}")
            for file in receipt.files
        )

    def all_parts(self) -> Iterable[PlannedPartition]:
        """The partitions of all sources, in their order."""
        return (part for source in sorted(self.parts) for part in self.parts[source])

    def place(self, root: str) -> str:
        """A root as fsspec takes it; relative ones start from the recipe's folder."""
        return root if "://" in root else str(((self.base or self.root) / root).resolve())


def _adopted(source: str, part: str, raw: tuple[File, ...]) -> PlannedPartition:
    """A partition by its name, without its origin."""
    number, chunk = (int(digits) for digits in part.split("-"))
    return PlannedPartition(InputFile(source, number, "", ""), File("origin", "", "", 0), chunk, 0, 0, raw)


def _first(parts: list[PlannedPartition], limit: int | None) -> list[PlannedPartition]:
    """The partitions that hold the first `limit` rows; the last one is cut short."""
    if limit is None:
        return parts
    kept, left = [], limit
    for part in parts:
        if left <= 0:
            break
        kept.append(replace(part, stop=min(part.stop, part.start + left)))
        left -= kept[-1].stop - kept[-1].start
    return kept


def list_phases(run: Build, until: str | None) -> Iterator[Callable[[], None]]:
    """The phases of a build in order, up to and with `until`."""
    for name in PHASES[: PHASES.index(until) + 1 if until else None]:
        if name != "mixture":
            yield getattr(run, name)
