"""The run: from a recipe to committed shards and lengths, by chains of tasks.

survey      one chain per input file, or few  cut them into partitions
benchmarks  one chain per partition, then one  read, image stats, the index that training data is compared with
write       one chain per partition, one flow  read, fetch; image stats, match, and servers write texts as nodes
curate      one chain per partition            read, fetch, image stats, match, filters, signature, contamination
signals     one flow over all, then a chain each  models score images and texts; clusters, quantiles; filters on signals
dedupe      one task per bucket, then one     pairs, resolve; of a large run over blocks and buckets
shard       one chain per partition, policy    render, token lengths
outcomes    one chain per partition            counts of what is kept, where no shards are made
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.pipeline.chat.settings import find_format
from vlmill.pipeline.core.errors import BadFileError, RecipeError
from vlmill.pipeline.core.places import resolve_place
from vlmill.pipeline.core.progress import Watcher
from vlmill.pipeline.decontaminate import Decontaminate
from vlmill.pipeline.engine import benchmarks, deduping, fetching
from vlmill.pipeline.engine import survey as surveys
from vlmill.pipeline.engine.asking_hosts import adopt_hosts, ask_hosts
from vlmill.pipeline.engine.chain import Chain, ChainStep, SharedSteps, read_manifest
from vlmill.pipeline.engine.clustering import find_clusters, list_cluster_steps
from vlmill.pipeline.engine.executor import Executor, IoBound
from vlmill.pipeline.engine.finding import Prepare, ReceiptFinder, run_unfinished
from vlmill.pipeline.engine.partition_tables import choose_retry_step, list_image_histories, list_text_histories
from vlmill.pipeline.engine.scaling import scale_rows
from vlmill.pipeline.engine.scoring import compute_quantiles, find_signal_weights, score_partitions
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.engine.table_history import MatchTakedowns
from vlmill.pipeline.engine.timings import TimingLog
from vlmill.pipeline.engine.workdir import copy_lists, copy_tokenizer
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.opt_outs import OptOuts
from vlmill.pipeline.filters import FilterStep, reads_tables
from vlmill.pipeline.recipe.bad_files import raise_bad_files
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.find_boxes import FindBoxes
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.render import Render
from vlmill.pipeline.steps.render_boxes import add_boxes
from vlmill.pipeline.steps.score import ScoreSignal
from vlmill.pipeline.steps.signal_columns import AddSignalColumns
from vlmill.pipeline.steps.token_lengths import make_length_step
from vlmill.pipeline.takedown import Match, TakedownList

PHASES = ("survey", "benchmarks", "write", "curate", "signals", "dedupe", "shard", "mixture")
"""What `--until` may name, in order. The mixture phase is in the package `mixtures`."""

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
        self.partitions: dict[str, list[surveys.PlannedPartition]] = {}
        self.index: tuple[File, ...] = ()
        self.hosts: tuple[File, ...] | None = None  # what hosts say of the use of their files, once they are asked
        self.over_all: tuple[File, ...] = ()  # what barriers of the phase `signals` left
        self.curated: list[tuple[Chain, tuple[tuple[str, Receipt], ...]]] = []  # what the curate phase left
        self.rules, self.finder = TakedownList.read(root), ReceiptFinder(root)
        self.folders: set[str] = set()  # of the steps that this build has to do with
        self.shared, self._places = SharedSteps(), dict[str, str]()

    # -- phases ----------------------------------------------------------------------------------------------------

    def survey(self) -> None:
        """Find the input files and cut them into partitions.

        What is wrong with a list or a tokenizer is said first, not after hours of reading.
        """
        tokenizer = (self.base or self.root) / (self.recipe.tokenizer or "")
        if tokenizer.is_file():
            load_tokenizer(tokenizer, find_format(self.recipe.chat))
        OptOuts.given({file.name: self.root / file.path for file in self._lists})
        for source, partitions in surveys.survey_inputs(self, "survey", surveys.list_input_sets(self)).items():
            limited = surveys.limit_rows(partitions, self.recipe.limit)
            if not limited:
                raise RecipeError(
                    f"source {source!r}: its files hold no rows; take it out of the recipe, or point it "
                    f"elsewhere with --source {source}=PATH"
                )
            self.partitions[source] = scale_rows(limited, self.recipe.scale)
        self.executor.expect(sum(partition.rows for partition in self.all_partitions()))

    def adopt(self) -> None:
        """In place of `survey` and `benchmarks`: take partitions and index as the manifests have them.

        What was read and fetched stays as it is.

        Raises:
            StoreError: a source was not read to its end, or there is no index.
        """
        for name in self.recipe.sources:
            steps = ("survey", "read", "fetch") if self.recipe.source(name).fetches else ("survey", "read")
            again = ("retry",) if choose_retry_step(self.recipe, name) else ()
            self.folders |= {f"steps/{name}/{step}" for step in (*steps, *again)}
            raw: dict[str, tuple[File, ...]] = {}
            for step in steps[1:]:
                for receipt in self.manifest(f"steps/{name}/{step}"):
                    raw[receipt.partition] = (*raw.get(receipt.partition, ()), *receipt.files)
            self.partitions[name] = [
                surveys.adopt_partition(name, partition, files) for partition, files in sorted(raw.items())
            ]
        self.index = benchmarks.adopt_index(self)
        self.hosts = adopt_hosts(self)

    def benchmarks(self) -> None:
        """Build the index of benchmarks."""
        self.index = benchmarks.build_index(self)

    def write(self) -> None:
        """Have servers write what becomes nodes of samples: before all filters, which see it like any other text."""
        self.hosts = ask_hosts(self) if self.hosts is None else self.hosts
        fetching.fetch_images(self)
        if self.recipe.list_writers():
            self.curated = list(self.run_chains("write: read", list(self._list_unfiltered_chains())))
            self.retry = False  # it was done
            score_partitions(self, "write", self.recipe.list_writers())

    def curate(self) -> None:
        """Read, fetch, image stats, filter and signature every partition."""
        chains = [
            self.chain(partition, retry=fetching.is_retried(self, partition), scored=False)
            for partition in self.all_partitions()
        ]
        self.curated = list(self.run_chains("curate", chains))

    def signals(self) -> None:
        """Ask the models of signals, and the filters that read what they say."""
        if self.recipe.signals:
            self.recipe = find_signal_weights(self.recipe, self.root, self.base)
            score_partitions(self, "signals", self.recipe.list_readers())
            self.over_all = find_clusters(self)
            self.over_all += compute_quantiles(self)
            for _ in self.run_chains("signals: filters", [self.chain(found) for found in self.all_partitions()]):
                pass

    def dedupe(self) -> None:
        """Find pairs over all sources, then say which of them go."""
        deduping.resolve_duplicates(self)

    def shard(self) -> None:
        """Render every partition under the policies that stages use of its source, and count its token lengths."""
        tokenizer = copy_tokenizer(self.root, self.base, self.recipe.tokenizer)
        verdicts = deduping.list_verdicts(self)
        chains = []
        used = {source: self.recipe.list_policies(source) for source in self.recipe.sources}
        for policy in self.recipe.policies:
            for partition in self.all_partitions():
                if policy not in used[partition.source]:
                    continue
                chain = self.chain(partition)
                dropped = verdicts.get(f"{partition.source}/{partition.name}", ())
                extra = (*dropped, *([tokenizer] if tokenizer else []))
                steps = (*chain.steps, *self._sharding(partition, policy))
                chains.append(replace(chain, steps=steps, files=(*chain.files, *extra)))
        for _ in self.run_chains("shard", chains):
            pass

    # -- what a chain is made of ------------------------------------------------------------------------------------

    def chain(self, partition: surveys.PlannedPartition, *, retry: bool = False, scored: bool = True) -> Chain:
        """A partition up to its signature, from its input files or from what was read and fetched of it.

        `scored` adds its signals and the filters on them.
        """
        source = partition.source
        curation = self.shared.keep((id(self.recipe), source, scored), lambda: self._curation(source, scored=scored))
        steps = fetching.join_steps(self.list_raw_steps(partition, retry=retry), curation)
        files = (*partition.files, *self._lists, *(self.hosts or ()), *self.index, *self.over_all)
        return Chain(partition.name, steps, partition.input_files, files)

    def _list_unfiltered_chains(self) -> Iterator[Chain]:
        """Partitions up to what is known of their images."""
        for partition in self.all_partitions():
            again = fetching.is_retried(self, partition)
            steps = (*self.list_raw_steps(partition, retry=again), *self._facts(partition.source))
            yield replace(self.chain(partition), steps=steps)

    def list_steps(self, source: str) -> tuple[ChainStep, ...]:
        """The steps of any partition of a source up to its signature, for who asks what a recipe comes to."""
        raw = self.list_raw_steps(surveys.make_placeholder(source), retry=False)
        return fetching.join_steps(raw, self._curation(source))

    def list_shard_steps(self, source: str, policy: str) -> tuple[ChainStep, ...]:
        """The same of the steps that follow for a policy: render, and token lengths where there is a tokenizer."""
        return self._sharding(surveys.make_placeholder(source), policy)

    def find_images(self, source: str) -> str:
        """Where the paths of a source's image files start."""
        return self.place(self.recipe.sources[source].images or self.recipe.sources[source].root)

    def list_raw_steps(self, partition: surveys.PlannedPartition, *, retry: bool) -> Iterator[ChainStep]:
        """The steps that leave a partition's raw tables, and what was done to these since."""
        name = partition.source
        if not partition.raw:
            yield self._read(partition)
        yield from self.shared.keep((name, "texts"), partial(list_text_histories, name))
        if not partition.raw and self.recipe.source(name).fetches:
            yield from self.shared.keep((name, "fetch"), partial(fetching.list_fetch_steps, self, name))
        yield from self.shared.keep((name, retry), partial(self._list_retries, name, again=retry))

    def _list_retries(self, source: str, *, again: bool) -> Iterator[ChainStep]:
        """What was tried again of images that failed, and what is, where `again` is true."""
        return list_image_histories(source, fetching.prepare_retry(self, source), again=again)

    def _read(self, partition: surveys.PlannedPartition) -> ChainStep:
        """The step that reads a partition from its input files."""
        name, settings = partition.source, self.recipe.sources[partition.source]
        read = Read(
            source=self.recipe.source(name),
            name_of_source=name,
            ranges=partition.ranges,
            licence=settings.licence,
            on_bad_file=settings.on_bad_file,
            bound=partition.bound,
            max_characters=settings.max_characters,
            unescape=settings.unescape,
            images=self.find_images(name),
        )
        return ChainStep(f"steps/{name}/read", read)

    def reading_chain(self, partition: surveys.PlannedPartition, *more: ChainStep) -> Chain:
        """A partition from its input files to its raw tables, and steps behind that; nothing is fetched."""
        return Chain(partition.name, (self._read(partition), *more), partition.input_files, partition.files)

    def _facts(self, name: str) -> Iterator[ChainStep]:
        """Image stats of a partition, and what of it was taken down."""
        folder = f"steps/{name}"
        yield ChainStep(f"{folder}/image_stats", self.recipe.image_stats)
        if self.rules:
            yield MatchTakedowns(f"{folder}/match", Match(self.rules), f"{folder}/takedown")

    def _curation(self, name: str, *, scored: bool = True) -> Iterator[ChainStep]:
        """What is found out about a partition of a source."""
        folder = f"steps/{name}"
        yield from (*self._facts(name), *self._texts(name))
        on_signals = [filter_ for filter_ in self.recipe.filters if reads_tables(filter_)]
        for filter_ in self.recipe.filters:
            if filter_ not in on_signals:
                yield ChainStep(f"{folder}/{filter_.name}", FilterStep(filter_))
        if dedupe := self.recipe.dedupe:
            yield ChainStep(f"{folder}/signature", dedupe.signature())
        if against := self.recipe.decontaminate:
            yield ChainStep(f"{folder}/contamination", against.contamination())
            if against.action == "drop":
                yield ChainStep(f"{folder}/decontaminate", Decontaminate())
        if scored:
            yield from self._scores(name, self.recipe.list_readers())
            yield from list_cluster_steps(self.recipe, name)
            if vectors := self.recipe.vector_step():
                yield ChainStep(f"{folder}/semantic", vectors)
            for filter_ in on_signals:
                yield ChainStep(f"{folder}/{filter_.name}", FilterStep(filter_))

    def _texts(self, name: str) -> Iterator[ChainStep]:
        """Texts that servers write, and coordinates that stand in texts."""
        if step := self.recipe.write_step():
            yield from self._scores(name, self.recipe.list_writers())
            yield ChainStep(f"steps/{name}/{step.name}", step)
        if self.recipe.has_boxes():
            yield ChainStep(f"steps/{name}/boxes", FindBoxes(self.recipe.sources[name].boxes))

    def _scores(self, name: str, signals: Iterable[str]) -> Iterator[ChainStep]:
        """What models say of a partition of a source."""
        for called in signals:
            yield ChainStep(f"steps/{name}/{called}", ScoreSignal(called, self.recipe.models[called]))

    def _sharding(self, partition: surveys.PlannedPartition, policy: str) -> tuple[ChainStep, ...]:
        folder, bounds = f"shards/{partition.source}/{policy}", self.recipe.shards
        render = Render(
            policy=self.recipe.policies[policy],
            filters=self.recipe.all_verdict_steps(),
            samples=bounds.samples,
            bytes=bounds.bytes,
            file_number=partition.number,
            chunk=partition.chunk,
        )
        boxes = self.recipe.sources[partition.source].boxes
        steps = [ChainStep(folder, add_boxes(render, boxes, self.recipe.boxes))]
        if values := self.recipe.list_values():
            steps.append(ChainStep(f"{folder}/signals", AddSignalColumns(values, self.recipe.list_labels())))
        if self.recipe.tokenizer:
            count = partial(make_length_step, self.recipe.chat, render.policy, self.recipe.model)
            steps += self.shared.keep(folder, lambda: [ChainStep(f"{folder}/lengths", count())])
        return tuple(steps)

    def fetch_step(self, source: str) -> Fetch:
        """How the images of a source are fetched."""
        return fetching.prepare_fetch(self, source)

    @cached_property
    def _lists(self) -> tuple[File, ...]:
        """The lists that filters and fetch read, in the run's folder."""
        return copy_lists(self.root, self.base, self.recipe.filters, self.rules)

    # -- running ---------------------------------------------------------------------------------------------------

    def run_chains(
        self,
        phase: str,
        chains: Sequence[Chain],
        memory: int = 0,
        io_bound: IoBound | None = None,
        prepare: Prepare | None = None,
    ) -> Iterator[tuple[Chain, tuple[tuple[str, Receipt], ...]]]:
        """Run chains through the executor; when all are run, write the manifest of every folder they filled.

        Each takes so many bytes of memory, where that is known.

        Raises:
            BadFileError: input files are bad, with a line for each; the other chains are run before it is said.
        """
        self.watcher.phase(phase, len(chains))
        by_folder: dict[str, dict[tuple[str, str], Receipt]] = {}
        bad: dict[int, BadFileError] = {}
        log = TimingLog(self.root)
        for index, done in run_unfinished(self.finder, self.executor, chains, memory, io_bound, prepare):
            if isinstance(done, BadFileError):
                bad[index] = done
                self.watcher.done()
                continue
            receipts, timings = done
            log.append(timings)
            for folder, receipt in receipts:
                by_folder.setdefault(folder, {})[receipt.partition, receipt.key] = (
                    receipt  # a chain per policy has its first steps in common
                )
            self.watcher.done()
            yield chains[index], receipts
        raise_bad_files(self.recipe, [(chains[index].input_files, bad[index]) for index in sorted(bad)])
        self.folders |= by_folder.keys()
        for folder, found in by_folder.items():  # several of one part stay in their order
            self.finder.write_manifest(folder, found)

    def manifest(self, folder: str) -> list[Receipt]:
        """The receipts of a complete step."""
        return read_manifest(self.root, folder)

    def gather_files(self, step: str) -> tuple[File, ...]:
        """All partitions' files of one step over all sources, named `<source>/<partition>/<name>`."""
        return tuple(
            replace(file, name=f"{source}/{receipt.partition}/{file.name}")
            for source in sorted(self.partitions)
            for receipt in self.manifest(f"steps/{source}/{step}")
            for file in receipt.files
        )

    def all_partitions(self) -> Iterable[surveys.PlannedPartition]:
        """The partitions of all sources, in their order."""
        return (partition for source in sorted(self.partitions) for partition in self.partitions[source])

    def place(self, root: str) -> str:
        """A root as fsspec takes it; relative ones start from the recipe's folder. The disk is asked once for each."""
        return self._places.get(root) or self._places.setdefault(root, resolve_place(root, self.base or self.root))


def list_phases(run: Build, until: str | None) -> Iterator[Callable[[], None]]:
    """The phases of a build in order, up to and with `until`."""
    for name in PHASES[: PHASES.index(until) + 1 if until else None]:
        if name != "mixture":
            yield getattr(run, name)
