"""What a list of takedowns would change in a finished run, and what it would leave: read from tables, nothing written.

The command shows this before it begins, and instead of it with `--dry-run`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, RAW_SAMPLES_FILE, REFUSED_FILE, SAMPLES_FILE, name_verdicts
from vlmill.pipeline.core.progress import Watcher
from vlmill.pipeline.core.sample import SampleId, Verdict, read_rows, read_verdicts
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.executor import Executor
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_filtered_tables
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.ordered import map_in_order
from vlmill.pipeline.takedown.marks import mark_content, mark_excerpt, mark_id
from vlmill.pipeline.takedown.rules import TakedownList
from vlmill.pipeline.takedown.steps import hash_text, match_partition


@dataclass(frozen=True, slots=True)
class Effect:
    """What would go of one partition."""

    place: str  # "<source>/<partition>"
    samples: dict[str, str] = field(default_factory=dict)  # id -> the rule it falls under
    images: dict[str, str] = field(default_factory=dict)  # sha256 -> the rule it falls under
    losing: dict[str, bool] = field(default_factory=dict)  # other samples that lose images -> whether a required one
    never_had: list[str] = field(default_factory=list)  # rules of images that could not be had, whose addresses go
    refused: dict[str, str] = field(
        default_factory=dict
    )  # id of a refused row -> the rule that its message and excerpt fall under

    def __bool__(self) -> bool:
        return bool(self.rebuilt or self.refused)

    @property
    def rebuilt(self) -> bool:
        """Whether what was made of the partition is rebuilt; nothing is made of refused rows."""
        return bool(self.samples or self.images or self.never_had)

    @property
    def gone(self) -> set[str]:
        """The samples that nothing is left of."""
        return {*self.samples, *(name for name, required in self.losing.items() if required)}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a list would change in a run."""

    rules: TakedownList  # the list as it would be, with the images and texts of samples that were asked for by id
    effects: list[Effect]  # of the partitions that hold something
    shards: list[str]  # that would be written anew or vanish
    near: list[tuple[str, Verdict]]  # samples that fell as duplicates of what goes, and may come back
    copies: list[str]  # sha256 of images that go by address and lie at other addresses too

    @property
    def samples(self) -> dict[str, str]:
        """All samples that go as a whole, with their rules."""
        return {name: rule for effect in self.effects for name, rule in effect.samples.items()}

    @property
    def images(self) -> dict[str, str]:
        """The sha256 of all images that go, with their rules."""
        return {digest: rule for effect in self.effects for digest, rule in effect.images.items()}

    @property
    def never_had(self) -> list[str]:
        """The rules of all images that could not be had, and whose addresses go."""
        return [rule for effect in self.effects for rule in effect.never_had]

    @property
    def refused(self) -> dict[str, str]:
        """The refused rows whose message and excerpt go, with their rules."""
        return {name: rule for effect in self.effects for name, rule in effect.refused.items()}

    @property
    def losing(self) -> dict[str, bool]:
        """All other samples that lose images, and whether a required one."""
        return {name: required for effect in self.effects for name, required in effect.losing.items()}


@dataclass(frozen=True, slots=True)
class FoundRow:
    """What is known of a row that is named by its id here."""

    upstream_id: str  # that it has in its input file; empty where it has none
    content: str = ""  # its mark by texts and images


@dataclass(frozen=True, slots=True)
class FindIds:
    """Finds samples by id, in workers."""

    root: Path
    ids: frozenset[str]

    def __call__(self, at: PartitionTables) -> tuple[dict[str, FoundRow], TakedownList]:
        """The ids that a partition has, with what is known of their rows, and what goes with them anywhere."""
        paths = at.paths(self.root)
        found, images, texts = dict[str, FoundRow](), set[int](), set[str]()
        held = dict(enumerate(_read_digests(paths)))
        for name, sample in _read_samples(paths, "role", "text"):
            if name in self.ids:
                found[name] = FoundRow(sample["upstream_id"], mark_content(sample["nodes"], held))
                images |= {node["image"] for node in sample["nodes"] if node["image"] is not None}
                texts.add(hash_text(sample["nodes"]))
        found |= {
            name: FoundRow(row["upstream_id"], mark_excerpt(row["excerpt"]))
            for name, row in _read_refused(paths)
            if name in self.ids
        }
        digests = {held[image] for image in images}
        return found, TakedownList(sha256=tuple(digests - {""}), texts=tuple(texts - {""}))


@dataclass(frozen=True, slots=True)
class CountUpstreamIds:
    """Counts rows by the id that they have in their input file, in workers."""

    root: Path
    wanted: frozenset[tuple[str, int]]  # ids, and pages of them

    def __call__(self, at: PartitionTables) -> Counter[tuple[str, int]]:
        """How many samples and refused rows of a partition have each."""
        paths = at.paths(self.root)
        rows = chain(_read_samples(paths), _read_refused(paths))
        return Counter(key for _, row in rows if (key := (row["upstream_id"], row["page"])) in self.wanted)


@dataclass(frozen=True, slots=True)
class MatchPartitions:
    """Looks at partitions, in workers."""

    root: Path
    rules: TakedownList

    def __call__(self, at: PartitionTables) -> Effect:
        """What would go of one partition."""
        paths = at.paths(self.root)
        found = match_partition(self.rules, paths)
        if not found:
            return Effect(str(at))
        digests = _read_digests(paths)
        held = {image: rule for image, rule in found.images.items() if digests[image]}
        effect = Effect(
            str(at),
            images={digests[image]: rule for image, rule in held.items()},
            never_had=[rule for image, rule in sorted(found.images.items()) if image not in held],
            refused={
                name: found.refused[row] for row, (name, _) in enumerate(_read_refused(paths)) if row in found.refused
            },
        )
        for row, (name, sample) in enumerate(_read_samples(paths)):
            lost = [node["required"] for node in sample["nodes"] if node["image"] in held]
            if row in found.samples:
                effect.samples[name] = found.samples[row]
            elif lost:
                effect.losing[name] = any(lost)
        return effect


@dataclass(frozen=True, slots=True)
class FindKeptImages:
    """Looks for images that stay, in workers."""

    root: Path
    rules: TakedownList
    digests: frozenset[str]

    def __call__(self, at: PartitionTables) -> set[str]:
        """Which of `digests` a partition shows under an address that does not go."""
        paths = at.paths(self.root)
        going = match_partition(self.rules, paths).images
        return {digest for image, digest in enumerate(_read_digests(paths)) if image not in going} & self.digests


def forecast_takedown(
    root: Path, recipe: Recipe, asked: TakedownList, before: TakedownList, executor: Executor, watcher: Watcher
) -> Forecast:
    """What `asked` would change in a run where `before` was taken down already; `watcher` is told how far it is.

    Raises:
        StoreError: the run is not complete, or holds no sample of an id.
    """
    everywhere = [at for source in sorted(recipe.sources) for at in list_filtered_tables(root, recipe, source)]
    new = replace(asked - before, ids=asked.ids)  # another row may stand in a place that is on the list
    rules = before | _add_exact_copies(root, new, everywhere, executor, watcher)
    watcher.phase("takedown: match", len(everywhere))
    matched = map_in_order(executor, MatchPartitions(root, rules), everywhere, watcher)
    effects = [effect for effect in matched if effect]
    by_address = frozenset(
        digest
        for effect in effects
        for digest, rule in effect.images.items()
        if rule.startswith(("url ", "domain ")) and digest not in rules.sha256
    )
    staying = list[set[str]]()
    if by_address:
        watcher.phase("takedown: copies", len(everywhere))
        staying += map_in_order(executor, FindKeptImages(root, rules, by_address), everywhere, watcher)
    gone = {name for effect in effects for name in effect.gone}
    return Forecast(
        rules=rules,
        effects=effects,
        shards=list(_list_shards(root, recipe, {effect.place for effect in effects if effect.rebuilt})),
        near=[pair for at in everywhere for pair in _find_duplicates(at.paths(root), gone)]
        if gone and recipe.dedupe is not None
        else [],
        copies=sorted(set[str]().union(*staying)),
    )


def _add_exact_copies(
    root: Path, asked: TakedownList, everywhere: Sequence[PartitionTables], executor: Executor, watcher: Watcher
) -> TakedownList:
    """The rules with the images and the text of the samples that are named by id.

    Exact copies of these go, wherever they stand.
    """
    if not asked.ids:
        return asked
    sources = {SampleId.parse(name).source for name in asked.ids}
    asking = FindIds(root, frozenset(asked.ids))
    rules, seen = asked, dict[str, FoundRow]()
    held = [at for at in everywhere if at.source in sources]
    watcher.phase("takedown: ids", len(held))
    for found, more in map_in_order(executor, asking, held, watcher):
        seen |= found
        rules |= more
    if unknown := sorted(set(asked.ids) - seen.keys()):
        raise StoreError(
            f"--id {unknown[0]}: this run has no such sample or refused row; `vlmill report {root} --reason REASON` "
            "shows ids of what was lost, the index beside a shard those of what was kept"
        )
    return rules | TakedownList(rows=tuple(_mark_rows(root, seen, held, executor, watcher)))


def _mark_rows(
    root: Path,
    found: Mapping[str, FoundRow],
    held: Sequence[PartitionTables],
    executor: Executor,
    watcher: Watcher,
) -> Iterator[str]:
    """The entries of the list that say by what rows are known; an id that other rows of a source have names none."""
    keys = {name: (row.upstream_id, SampleId.parse(name).page) for name, row in found.items() if row.upstream_id}
    counts = dict[str, Counter[tuple[str, int]]]()
    if keys:
        watcher.phase("takedown: rows", len(held))
        counting = CountUpstreamIds(root, frozenset(keys.values()))
        for at, counted in zip(held, map_in_order(executor, counting, held, watcher), strict=True):
            counts.setdefault(at.source, Counter()).update(counted)
    for name, row in found.items():
        if name in keys and counts[SampleId.parse(name).source][keys[name]] == 1:
            yield f"{name} {mark_id(*keys[name])}"
        elif row.content:
            yield f"{name} {row.content}"


def _read_samples(paths: Mapping[str, Path], *more: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ids and rows of samples.parquet, with what this module looks at."""
    columns = (f"nodes.list.element.{name}" for name in ("kind", "image", "required", *more))
    names = [*SampleId._fields, "upstream_id", *columns]
    for row in read_rows(paths.get(RAW_SAMPLES_FILE, paths[SAMPLES_FILE]), names):
        yield str(SampleId(row["source"], row["file"], row["row"], row["page"])), {"upstream_id": "", **row}


def _read_refused(paths: Mapping[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ids and rows of refused.parquet, in order."""
    if REFUSED_FILE in paths:
        for row in read_rows(paths[REFUSED_FILE], [*SampleId._fields, "upstream_id", "excerpt"]):
            name = SampleId(row["source"], row["file"], row["row"], row["page"])
            yield str(name), {"upstream_id": "", **row}


def _read_digests(paths: Mapping[str, Path]) -> list[str]:
    """The sha256 of each image; empty where there are no bytes."""
    return [row["sha256"] for row in read_rows(paths[IMAGE_STATS_FILE], ["sha256"])]


def _list_shards(root: Path, recipe: Recipe, touched: set[str]) -> Iterator[str]:
    """Shards of the touched partitions."""
    for source in sorted({place.partition("/")[0] for place in touched}):
        for policy in recipe.list_policies(source):
            for receipt in read_manifest(root, f"shards/{source}/{policy}"):
                if f"{source}/{receipt.partition}" in touched:
                    yield from (file.path for file in receipt.files if file.name.endswith(".tar"))


def _find_duplicates(paths: Mapping[str, Path], gone: set[str]) -> Iterator[tuple[str, Verdict]]:
    """Samples of a partition that dedupe dropped for one that goes now, and that do not go themselves."""
    verdicts = {
        verdict.sample: verdict for verdict in read_verdicts(paths[name_verdicts("dedupe")]) if verdict.other in gone
    }
    if verdicts:
        for row, (name, _) in enumerate(_read_samples(paths)):
            if row in verdicts and name not in gone:
                yield name, verdicts[row]
