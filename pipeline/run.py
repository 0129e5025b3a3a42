"""The run: from a recipe to committed shards and lengths, by lanes of tasks.

survey      one lane per origin file          cut it into partitions
benchmarks  one lane per partition, then one  read, inspect, index what training data is held against
curate      one lane per partition            read, fetch, inspect, every judge, sketch, contamination
dedupe      one task per bucket, then one     pairs, resolve
shard       one lane per partition, policy    ... render, measure
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pipeline import benchmarks
from pipeline.decontaminate import Decontaminate
from pipeline.dedupe import Dedupe
from pipeline.errors import RecipeError
from pipeline.execute import Executor
from pipeline.fetch import Fetch, Retry
from pipeline.folder import take_in
from pipeline.judges import Judging, ReadsLists
from pipeline.keys import file_sha256
from pipeline.lanes import Content, Lane, Link, Rounds, Walk, read_manifest, write_manifest
from pipeline.measure import Measure
from pipeline.origin import Origin, Survey, list_origins
from pipeline.read import Read
from pipeline.recipe import Recipe
from pipeline.render import Render
from pipeline.step import Step
from pipeline.store import File, Receipt, write_atomically

PHASES = ("survey", "benchmarks", "curate", "dedupe", "shard", "mixture")
"""What `--until` may name, in order. The mixture phase is in the package `mixtures`."""


@dataclass(frozen=True)
class Part:
    """A partition: rows [start, stop) of an origin file."""

    origin: Origin
    file: File
    chunk: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """`<file number>-<chunk>`."""
        return f"{self.origin.number:05d}-{self.chunk:04d}"


Serving = Mapping[str, Mapping[str, str]]
"""Source -> {URL prefix: prefix under which a folder is served on loopback while the build runs}."""


class Watcher(Protocol):
    """Is told how far a run has come."""

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` lanes begins."""
        ...

    def done(self, number: int = 1) -> None:
        """So many lanes of the phase are done."""
        ...


class Run:
    """A build in progress: what the phases share. Only the driver holds one."""

    def __init__(
        self,
        root: Path,
        recipe: Recipe,
        base: Path,
        executor: Executor,
        watcher: Watcher,
        serving: Serving,
        *,
        retry: bool = False,
    ) -> None:
        self.root, self.recipe, self.base, self.executor, self.watcher = root, recipe, base, executor, watcher
        self.serving, self.retry = serving, retry
        self.parts: dict[str, list[Part]] = {}
        self.index: tuple[File, ...] = ()

    # -- phases ----------------------------------------------------------------------------------------------------

    def survey(self) -> None:
        """Find the origin files and cut them into partitions."""
        origins = [
            origin
            for name, settings in self.recipe.sources.items()
            for origin in list_origins(
                name,
                self.place(settings.root),
                settings.files,
                subset=settings.subset,
                split=settings.split,
                ranged=self.recipe.source(name).ranged,
            )
        ]
        files: list[File | None] = [None] * len(origins)
        for index, file in self.executor.each(Content(), origins, lambda origin: origin):
            files[index] = file
        bounds = self.recipe.partition
        lanes = [
            Lane(
                f"{origin.number:05d}",
                (
                    Link(
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
            parts = [Part(lane.origin, lane.files[0], chunk, *cut) for chunk, cut in enumerate(cuts)]  # type: ignore[arg-type]
            self.parts.setdefault(lane.origin.source, []).extend(parts)  # type: ignore[union-attr]
        for source in self.recipe.sources:
            self.parts[source] = _first(
                sorted(self.parts.get(source, []), key=lambda part: part.name), self.recipe.limit
            )
            if not self.parts[source]:
                raise RecipeError(
                    f"source {source!r}: its files hold no rows; take it out of the recipe, or point it elsewhere with --source {source}=PATH"
                )

    def benchmarks(self) -> None:
        """Index what training data is held against."""
        self.index = benchmarks.index(self)

    def curate(self) -> None:
        """Read, fetch, inspect, judge and sketch every partition."""
        lists = self._lists()
        for _ in self.walk(
            "curate",
            [
                Lane(part.name, self._curation(part, retry=self.retry), part.origin, (part.file, *lists, *self.index))
                for part in self._all_parts()
            ],
        ):
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
        lane = Lane("all", (Link("steps/dedupe/resolve", self._resolution(settings)),), files=files)
        for _ in self.walk("dedupe: resolve", [lane]):
            pass

    def _each(self, name: str, steps: Sequence[Step], files: tuple[File, ...]) -> tuple[File, ...]:
        """One lane per step, all over the same files; what they leave, named `<number>/<name>`."""
        lanes = [
            Lane(f"{number:05d}", (Link(f"steps/dedupe/{name}", step),), files=files)
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
        tokenizer, lists, verdicts = self._tokenizer(), self._lists(), self._dedupe_verdicts()
        lanes = []
        for policy in self.recipe.policies:
            for part in self._all_parts():
                dropped = verdicts.get(f"{part.origin.source}/{part.name}", ())
                extra = (*lists, *dropped, *([tokenizer] if tokenizer else []))
                lanes.append(
                    Lane(
                        part.name,
                        (*self._curation(part), *self._sharding(part, policy)),
                        part.origin,
                        (part.file, *self.index, *extra),
                    )
                )
        for _ in self.walk("shard", lanes):
            pass

    # -- what a lane is made of ------------------------------------------------------------------------------------

    def _curation(self, part: Part, *, retry: bool = False) -> tuple[Link, ...]:
        name, settings = part.origin.source, self.recipe.sources[part.origin.source]
        source, folder = self.recipe.source(name), f"steps/{name}"
        links = [
            Link(
                f"{folder}/read",
                Read(
                    source=source,
                    name_of_source=name,
                    file=part.origin.name,
                    start=part.start,
                    stop=part.stop,
                    licence=settings.licence,
                    images=self.place(settings.images or settings.root),
                ),
            )
        ]
        if source.fetches:
            fetch = self._fetch(name)
            links.append(Link(f"{folder}/fetch", fetch))
            links.append(Rounds(f"{folder}/retry", Retry(fetch=fetch), again=retry))
        links.append(Link(f"{folder}/inspect", self.recipe.inspecting()))
        links += [Link(f"{folder}/{judge.name}", Judging(judge)) for judge in self.recipe.judging()]
        if dedupe := self.recipe.deduping():
            links.append(Link(f"{folder}/sketch", dedupe.sketch()))
        if against := self.recipe.decontaminating():
            links.append(Link(f"{folder}/contamination", against.contamination()))
            links += [Link(f"{folder}/decontaminate", Decontaminate())] if against.action == "drop" else []
        return tuple(links)

    def _sharding(self, part: Part, policy: str) -> tuple[Link, ...]:
        folder, bounds = f"shards/{part.origin.source}/{policy}", self.recipe.shards
        judges = self.recipe.deciding() + (("dedupe",) if self.recipe.dedupe is not None else ())
        render = Render(
            policy=self.recipe.policy(policy),
            judges=judges,
            samples=bounds.samples,
            bytes=bounds.bytes,
            file_number=part.origin.number,
            chunk=part.chunk,
        )
        links = [Link(folder, render)]
        if self.recipe.tokenizer:
            links.append(Link(f"{folder}/lengths", Measure(self.recipe.chat)))
        return tuple(links)

    def _fetch(self, source: str) -> Fetch:
        fetch = self.recipe.fetching(source)
        return replace(fetch, mirrors={**fetch.mirrors, **self.serving.get(source, {})})

    def _resolution(self, settings: Dedupe) -> Step:
        parts = tuple(f"{source}/{part.name}" for source in sorted(self.parts) for part in self.parts[source])
        priority = {name: source.priority for name, source in self.recipe.sources.items()}
        return settings.resolve(parts=parts, priority=priority, judges=self.recipe.deciding())

    def _dedupe_verdicts(self) -> dict[str, tuple[File]]:
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
            for part in self._all_parts()
        }

    def _lists(self) -> tuple[File, ...]:
        """The lists that judges read, in the run's folder."""
        wanted = [judge.lists for judge in self.recipe.judging() if isinstance(judge, ReadsLists)]
        return tuple(take_in(self.root, self.base, path, name) for lists in wanted for name, path in lists.items())

    def _tokenizer(self) -> File | None:
        """The recipe's tokenizer, copied into the run's folder, where the trainer finds it."""
        if self.recipe.tokenizer is None:
            return None
        origin, here = self.base / self.recipe.tokenizer, self.root / "tokenizer.json"
        if not origin.is_file():
            raise RecipeError(
                f"tokenizer: there is no file {origin}; give the path of a tokenizer.json, relative to the recipe"
            )
        if not here.exists() or file_sha256(here) != file_sha256(origin):
            write_atomically(here, origin.read_text(encoding="utf-8"))
        return File("tokenizer.json", "tokenizer.json", file_sha256(here), here.stat().st_size)

    # -- walking ---------------------------------------------------------------------------------------------------

    def walk(self, phase: str, lanes: Sequence[Lane]) -> Iterator[tuple[Lane, tuple[tuple[str, Receipt], ...]]]:
        """Walk lanes through the executor; when all are walked, write the manifest of every folder they filled."""
        self.watcher.phase(phase, len(lanes))
        books: dict[str, dict[tuple[str, str], Receipt]] = {}
        for index, receipts in self.executor.each(Walk(self.root), lanes, Lane.careful):
            for folder, receipt in receipts:
                books.setdefault(folder, {})[receipt.part, receipt.key] = (
                    receipt  # a lane per policy has its first steps in common
                )
            self.watcher.done()
            yield lanes[index], receipts
        for folder, receipts_of_step in books.items():
            write_manifest(self.root, folder, [receipts_of_step[key] for key in sorted(receipts_of_step)])

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

    def _all_parts(self) -> Iterable[Part]:
        return (part for source in sorted(self.parts) for part in self.parts[source])

    def place(self, root: str) -> str:
        """A root as fsspec takes it; relative ones start from the recipe's folder."""
        return root if "://" in root else str((self.base / root).resolve())


def _first(parts: list[Part], limit: int | None) -> list[Part]:
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


def phases(run: Run, until: str | None) -> Iterator[Callable[[], None]]:
    """The phases of a build in order, up to and with `until`."""
    for name in PHASES[: PHASES.index(until) + 1 if until else None]:
        if name != "mixture":
            yield getattr(run, name)
