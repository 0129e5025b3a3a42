"""What a build found of its benchmarks in its training data: per benchmark and source, with examples.

Reads findings alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from vlmill.pipeline.core.errors import NotBuiltError
from vlmill.pipeline.core.sample import read_image_stats, read_rows
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.decontaminate import Decontamination
from vlmill.pipeline.decontaminate.contamination import ContaminationFinding, read_findings
from vlmill.pipeline.decontaminate.index import FOLDER
from vlmill.pipeline.engine.chain import read_manifest, read_totals
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class FoundBy:
    """How many items or samples were found, by image, by text, by both, and by any of the two."""

    any: int  # number found by one way at least
    image: int  # number found by an image
    text: int  # number found by their text
    both: int  # number found by both


@dataclass(frozen=True, slots=True)
class ContaminatedPair:
    """A training sample and the benchmark item that it shows or asks."""

    sample: str  # id of the training sample
    item: str  # id of the benchmark item
    by: tuple[str, ...]  # image, text or both


@dataclass(frozen=True, slots=True)
class SourceContamination:
    """What one source holds of one benchmark."""

    items: FoundBy  # of the benchmark
    samples: FoundBy  # of the source
    examples: tuple[ContaminatedPair, ...]  # the first by sample and item


@dataclass(frozen=True, slots=True)
class UnreadOfBenchmark:
    """How many rows or images of a benchmark came, and how many could not be read: these were compared with nothing."""

    came: int  # how many there are
    lost: Mapping[str, int]  # reason -> number


@dataclass(frozen=True, slots=True)
class BenchmarkContamination:
    """What the sources of a run hold of one benchmark."""

    items: int  # how many it has
    unread: Mapping[str, UnreadOfBenchmark]  # `rows` and `images`
    sources: Mapping[str, SourceContamination]  # those with a finding


@dataclass(frozen=True, slots=True)
class Contamination:
    """The findings of a run, counted."""

    action: str  # of the recipe's decontaminate block: report keeps what is found, drop drops it
    benchmarks: Mapping[str, BenchmarkContamination]  # by name with its split, such as `mmstar.val`


def read_contamination(root: Path, examples: int) -> Contamination:
    """Count the findings of a run by benchmark and source, with `examples` pairs of each at most.

    Raises:
        NotBuiltError: the run's recipe has no decontaminate block, or the build has not come so far.
    """
    recipe = read_locked_recipe(root)
    action = check_decontaminated(root, recipe).action
    pairs = dict[tuple[str, str], dict[str, set[tuple[str, str]]]]()
    for source in sorted(recipe.sources):
        for finding in _read_findings(root, source):
            found = pairs.setdefault((finding.benchmark, source), {"image": set(), "text": set()})
            found[finding.kind].add((finding.id, finding.item))
    items = _count_items(root)
    benchmarks = {
        name: BenchmarkContamination(
            items.get(name, 0),
            count_unread(root, name),
            {source: _count_pairs(found, examples) for (of, source), found in pairs.items() if of == name},
        )
        for name in list_splits(recipe)
    }
    return Contamination(action, benchmarks)


def check_decontaminated(root: Path, recipe: Recipe) -> Decontamination:
    """The benchmarks that a run was compared with.

    Raises:
        NotBuiltError: its recipe names none.
    """
    if recipe.decontaminate is None:
        raise NotBuiltError(
            f"{root} was compared with no benchmark: add a decontaminate block to its recipe, such as include: "
            "[{recipe: fragments/benchmarks}]"
        )
    return recipe.decontaminate


def _count_pairs(found: Mapping[str, set[tuple[str, str]]], examples: int) -> SourceContamination:
    image, text = found["image"], found["text"]
    items, samples = (
        FoundBy(*(len({pair[place] for pair in pairs}) for pairs in (image | text, image, text, image & text)))
        for place in (1, 0)
    )
    shown = (
        ContaminatedPair(*pair, tuple(how for how, pairs in found.items() if pair in pairs))
        for pair in sorted(image | text)[:examples]
    )
    return SourceContamination(items, samples, tuple(shown))


def list_splits(recipe: Recipe) -> list[str]:
    """The benchmarks of a recipe with their splits, as findings name them."""
    settings = recipe.decontaminate
    return sorted(split for name, of in settings.against.items() for split in of.splits(name)) if settings else []


def count_unread(root: Path, name: str) -> dict[str, UnreadOfBenchmark]:
    """What of a benchmark could not be read: of its `rows` and its `images`.

    Raises:
        StoreError: it was not read to its end.
    """
    folder = f"steps/{FOLDER}/{name}"
    rows, images = read_totals(root, f"{folder}/read")["rows"], Count()
    for receipt in read_manifest(root, f"{folder}/image_stats"):
        for file in receipt.files:
            for stats in read_image_stats(root / file.path, ()):
                images.keep() if stats.reason is None else images.lose(stats.reason)
    return {
        level: UnreadOfBenchmark(count.came, {str(reason): number for reason, number in sorted(count.lost.items())})
        for level, count in (("rows", rows), ("images", images))
    }


def list_warnings(root: Path, recipe: Recipe) -> Iterator[str]:
    """A line for each benchmark of which something could not be had: what was not looked for cannot be found.

    Raises:
        StoreError: one was not read to its end.
    """
    for name in list_splits(recipe):
        for level, unread in count_unread(root, name).items():
            if unread.lost:
                lost = sum(unread.lost.values())
                why = ", ".join(f"{reason} {number:,}" for reason, number in unread.lost.items())
                yield (
                    f"{name}: {lost:,} of {unread.came:,} {level} could not be read ({why}), and nothing was compared "
                    "with them"
                )


def _read_findings(root: Path, source: str) -> Iterator[ContaminationFinding]:
    for receipt in read_manifest(root, f"steps/{source}/contamination"):
        for file in receipt.files:
            yield from read_findings(root / file.path)


def _count_items(root: Path) -> dict[str, int]:
    """How many samples each benchmark has."""
    found = dict[str, set[str]]()
    for receipt in read_manifest(root, f"steps/{FOLDER}/index"):
        for file in receipt.files:
            if file.name == "items.parquet":
                for row in read_rows(root / file.path, ["benchmark", "id"]):
                    found.setdefault(row["benchmark"], set()).add(row["id"])
    return {name: len(ids) for name, ids in sorted(found.items())}


def make_contamination_table(found: Contamination) -> Table:
    """A line for each benchmark and source: items and samples found, and how."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("benchmark", "of", "source", "items", "image", "text", "both", "samples", "image", "text", "both"):
        table.add_column(name, justify="left" if name in {"benchmark", "source"} else "right", no_wrap=name != "source")
    for name, benchmark in found.benchmarks.items():
        for source, line in benchmark.sources.items():
            numbers = (
                f"{number:,}" for of in (line.items, line.samples) for number in (of.any, of.image, of.text, of.both)
            )
            table.add_row(name, f"{benchmark.items:,}", source, *numbers)
        if not benchmark.sources:
            table.add_row(name, f"{benchmark.items:,}", "none", *("-" for _ in range(8)))
    return table


def format_examples(found: Contamination) -> Iterator[str]:
    """The examples for people, a line each."""
    for name, benchmark in found.benchmarks.items():
        for line in benchmark.sources.values():
            for example in line.examples:
                yield f"{name}: {example.sample} has {example.item} (by {' and '.join(example.by)})"
