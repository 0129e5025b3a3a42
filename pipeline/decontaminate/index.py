"""Step `index`: all benchmarks in the form that training data is compared with.

Small enough for memory, and mapped where it is large.

An item is a question of a benchmark: a turn of one of its samples, or the whole text of a sample without turns. It is
named by its sample's id. The user's text is the question; a text right behind it is its choices, one a line; texts of
the assistant are answers.

A question is found by the runs of words within it, so what copies have behind it does not matter. Only where none of
them is telling (the question is short, or its benchmark's template) is it taken together with its choices, in their
order.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.compared_text import split_words
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import (
    ImageStats,
    Sample,
    read_image_stats,
    read_rows,
    read_samples,
    write_rows,
)
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.decontaminate.pictures import Gallery, make_gallery
from vlmill.pipeline.decontaminate.slots import find_slots
from vlmill.pipeline.decontaminate.words import RUN, SHORT_RUN, Words, list_runs, number_words
from vlmill.pipeline.dedupe.picture import ComparedPictures, collect_pictures

COMMON = 3
"""Pictures of a benchmark that a run of words may be asked of, and other ones that a picture may look like, to be
telling."""

FOLDER = "benchmarks"
"""What the index's files are called by those who read it: benchmarks/items.parquet."""

WORDS = pa.schema([pa.field("word", pa.string(), nullable=False)])
ITEMS = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),  # with its split: mmmu.validation
        pa.field("id", pa.string(), nullable=False),  # of the sample
        pa.field("question", pa.list_(pa.uint32()), nullable=False),
        pa.field("telling", pa.list_(pa.bool_()), nullable=False),  # words of the question that stand in telling runs
        pa.field("slots", pa.list_(pa.bool_()), nullable=False),  # words of it that vary, and gaps before and behind
        pa.field("short_runs", pa.uint32(), nullable=False),  # telling ones of SHORT_RUN words
        pa.field("choices", pa.list_(pa.list_(pa.uint32())), nullable=False),
        pa.field("answers", pa.list_(pa.list_(pa.uint32())), nullable=False),
        pa.field("pictures", pa.list_(pa.uint32()), nullable=False),  # rows of PICTURES
    ]
)
"""Sorted by benchmark and id."""
PICTURES = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("common", pa.bool_(), nullable=False),  # looks like many of its benchmark: only the same file counts
        pa.field("items", pa.list_(pa.uint32()), nullable=False),  # rows of ITEMS
    ]
)
PARTS = ("user", "choices", "assistant", "none")
"""What a text of an item is, by its role and place."""
GALLERY = ("places", "owners", "evidence", "stops")
RUNS = ("hashes", "holders", "starts")
ARRAYS = (*GALLERY, *RUNS, *(f"short_{name}" for name in RUNS))


@dataclass(frozen=True)
class Item:
    """A question of a benchmark, in words by number."""

    benchmark: str
    id: str
    question: Words
    telling: NDArray[np.bool_]
    slots: NDArray[np.bool_]  # (2 n + 1,): see slots.py
    choices: tuple[Words, ...]
    answers: tuple[Words, ...]
    pictures: frozenset[int]

    @property
    def asked(self) -> Words:
        """The question, and its choices behind it."""
        return np.concatenate([self.question, *self.choices])


@dataclass(frozen=True)
class Items:
    """The items by row. They stay a table, in some 200 bytes each, and one is made when it is asked for: few are."""

    table: pa.Table

    def __getitem__(self, row: int) -> Item:
        return _parse_item(self.table.slice(row, 1).to_pylist()[0])


@dataclass(frozen=True)
class Runs:
    """Telling runs of words, sorted by hash."""

    length: int
    hashes: NDArray[np.uint64]
    holders: NDArray[np.uint32]  # the item of each
    starts: NDArray[np.uint32]  # where it begins in what the item asks


@dataclass(frozen=True)
class Benchmarks:
    """The index as it is read."""

    vocabulary: Mapping[str, int]
    words: Sequence[str]  # word of each number
    items: Items
    items_of: Sequence[Sequence[int]]  # of each picture
    common: Sequence[bool]  # of each picture
    by_sha256: Mapping[str, Sequence[int]]
    gallery: Gallery
    runs: Runs
    short_runs: Runs
    short_counts: NDArray[np.int64]  # of short runs by item
    sizes: NDArray[np.int64]  # words of each item's question


def read_index(inputs: Inputs) -> Benchmarks:
    """The index that the step left, from inputs named `benchmarks/<file>`."""
    words = ["", *(row["word"] for row in read_rows(inputs[f"{FOLDER}/words.parquet"]))]
    arrays = {name: read_array(inputs[f"{FOLDER}/{name}.npy"]) for name in ARRAYS}
    pictures = list(read_rows(inputs[f"{FOLDER}/pictures.parquet"]))
    table = pq.read_table(inputs[f"{FOLDER}/items.parquet"])
    by_sha256 = defaultdict[str, list[int]](list)
    for row, shown in enumerate(pictures):
        by_sha256[shown["sha256"]].append(row)
    return Benchmarks(
        vocabulary={word: number for number, word in enumerate(words) if number},
        words=words,
        items=Items(table),
        items_of=[shown["items"] for shown in pictures],
        common=[shown["common"] for shown in pictures],
        by_sha256=by_sha256,
        gallery=Gallery(*(arrays[name] for name in GALLERY)),
        runs=Runs(RUN, *(arrays[name] for name in RUNS)),
        short_runs=Runs(SHORT_RUN, *(arrays[f"short_{name}"] for name in RUNS)),
        short_counts=table.column("short_runs").to_numpy().astype(np.int64),
        sizes=pc.list_value_length(table.column("question")).to_numpy().astype(np.int64),
    )


def _parse_item(row: Mapping[str, Any]) -> Item:
    return Item(
        row["benchmark"],
        row["id"],
        np.array(row["question"], np.uint32),
        np.array(row["telling"], bool),
        np.array(row["slots"], bool),
        tuple(np.array(choice, np.uint32) for choice in row["choices"]),
        tuple(np.array(answer, np.uint32) for answer in row["answers"]),
        frozenset(row["pictures"]),
    )


@dataclass(frozen=True)
class BuildIndex:
    """Step: the index of all benchmarks. Pure.

    Counts `benchmark_items` and `benchmark_pictures`.
    """

    name: ClassVar[str] = "index"
    version: ClassVar[int] = 5
    pure: ClassVar[bool] = True

    image: float  # similarity from which pictures of one benchmark look alike

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples and image stats of all benchmarks, named `<benchmark>/<partition>/<file>`."""
        return (f"*/*/{SAMPLES_FILE}", f"*/*/{IMAGE_STATS_FILE}")

    def made_by(self) -> Mapping[str, str]:
        """The libraries that calculate and write, and what says which characters are letters."""
        libraries = {library: version(library) for library in ("numpy", "pillow", "pyarrow")}
        return {**libraries, "unicode": unicodedata.unidata_version}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the index. Neither the order of `inputs` nor how they are cut matters."""
        raw = sorted(_read_items(inputs), key=lambda item: (item.benchmark, item.id))
        words = sorted({word for item in raw for text in item.texts() for word in split_words(text)})
        write_rows(folder / "words.parquet", WORDS, ({"word": word} for word in words))
        vocabulary = {word: number for number, word in enumerate(words, 1)}
        shown = sorted({(item.benchmark, stats.sha256): stats for item in raw for stats in item.pictures}.items())
        rows = {key: row for row, (key, _) in enumerate(shown)}
        items = [_number_item(item, vocabulary, rows) for item in raw]
        self._write_pictures(folder, items, shown)
        _write_items(folder, items)
        return {"benchmark_items": Count(len(items), len(items)), "benchmark_pictures": Count(len(shown), len(shown))}

    def _write_pictures(
        self, folder: Path, items: Sequence[Item], shown: Sequence[tuple[tuple[str, str], ImageStats]]
    ) -> None:
        holders = defaultdict[int, list[int]](list)
        for number, item in enumerate(items):
            for row in item.pictures:
                holders[row].append(number)
        pictures = collect_pictures([stats for _, stats in shown])
        made = make_gallery(pictures)
        common = self._common(made, pictures, [benchmark for (benchmark, _), _ in shown])
        write_rows(
            folder / "pictures.parquet",
            PICTURES,
            (
                {"benchmark": benchmark, "sha256": sha256, "common": row in common, "items": holders[row]}
                for row, ((benchmark, sha256), _) in enumerate(shown)
            ),
        )
        for name in GALLERY:
            np.save(folder / f"{name}.npy", getattr(made, name))

    def _common(self, made: Gallery, pictures: ComparedPictures, benchmarks: Sequence[str]) -> set[int]:
        """Rows of pictures that are like more than COMMON others of their benchmark."""
        others = defaultdict[int, int](int)
        for one, other, _ in made.alike(pictures, self.image):
            others[one] += one != other and benchmarks[one] == benchmarks[other]
        return {row for row, number in others.items() if number > COMMON}


@dataclass(frozen=True)
class _Raw:
    """An item as it was read."""

    benchmark: str
    id: str
    question: str
    choices: tuple[str, ...]
    answers: tuple[str, ...]
    pictures: tuple[ImageStats, ...]

    def texts(self) -> tuple[str, ...]:
        return (self.question, *self.choices, *self.answers)


def _read_items(inputs: Inputs) -> Iterator[_Raw]:
    for name in sorted(inputs):
        if name.endswith(f"/{SAMPLES_FILE}"):
            image_stats = read_image_stats(inputs[name.removesuffix(SAMPLES_FILE) + IMAGE_STATS_FILE])
            for sample in read_samples(inputs[name]):
                yield from _make_items(sample, image_stats)


def _make_items(sample: Sample, image_stats: Sequence[ImageStats]) -> Iterator[_Raw]:
    """The items of a sample: one per turn, and one where there are no turns."""
    shown = [image_stats[node.image] for node in sample.nodes if node.image is not None]
    pictures = tuple(stats for stats in shown if stats.reason is None)
    said = defaultdict[int, list[tuple[str, str]]](list)
    for before, node in zip((None, *sample.nodes), sample.nodes, strict=False):
        if node.kind == "text" and node.role != "system":
            again = before is not None and (before.kind, before.role, before.turn) == ("text", "user", node.turn)
            partition = "choices" if again and node.role == "user" else node.role
            said[node.turn if node.role != "none" else 0].append((partition, node.text or ""))
    for turn in sorted(said) or [0]:
        texts = {partition: tuple(text for each, text in said[turn] if each == partition) for partition in PARTS}
        question = "\n".join(texts["user"] or texts["none"])
        choices = tuple(line for text in texts["choices"] for line in text.splitlines())
        yield _Raw(sample.id.source, str(sample.id), question, choices, texts["assistant"], pictures)


def _number_item(raw: _Raw, vocabulary: Mapping[str, int], rows: Mapping[tuple[str, str], int]) -> Item:
    return Item(
        raw.benchmark,
        raw.id,
        question := number_words([raw.question], vocabulary),
        np.zeros(question.size, bool),
        np.zeros(2 * question.size + 1, bool),
        tuple(number_words([choice], vocabulary) for choice in raw.choices),
        tuple(number_words([answer], vocabulary) for answer in raw.answers),
        frozenset(rows[raw.benchmark, stats.sha256] for stats in raw.pictures),
    )


def _write_items(folder: Path, items: Sequence[Item]) -> None:
    """Write items with their telling words and slots, and the telling runs sorted by hash."""
    holders, starts, hashes = list_runs([item.asked for item in items], RUN)
    telling = _select_telling(items, holders, hashes)
    own = starts + RUN <= np.array([item.question.size for item in items], np.int64)[holders]
    found_alone = np.unique(holders[telling & own])
    telling &= own | ~np.isin(holders, found_alone)
    holders, starts, hashes = holders[telling], starts[telling], hashes[telling]
    for number, start in zip(holders.tolist(), starts.tolist(), strict=True):
        items[number].telling[start : start + RUN] = True
    _write_runs(folder, "", holders, starts, hashes)
    holders, starts, hashes = list_runs([item.question for item in items], SHORT_RUN)
    telling = _select_telling(items, holders, hashes)
    short_counts = np.bincount(holders[telling], minlength=len(items))
    _write_runs(folder, "short_", holders[telling], starts[telling], hashes[telling])
    write_rows(
        folder / "items.parquet",
        ITEMS,
        (
            {
                **{
                    name: getattr(item, name) for name in ITEMS.names if name not in {"pictures", "short_runs", "slots"}
                },
                "slots": varied,
                "short_runs": short,
                "pictures": sorted(item.pictures),
            }
            for item, varied, short in zip(items, _find_slots(items), short_counts.tolist(), strict=True)
        ),
    )


def _write_runs(
    folder: Path, kind: str, holders: NDArray[np.uint32], starts: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> None:
    order = np.lexsort((starts, holders, hashes))
    np.save(folder / f"{kind}hashes.npy", hashes[order])
    np.save(folder / f"{kind}holders.npy", holders[order])
    np.save(folder / f"{kind}starts.npy", starts[order].astype(np.uint32))


def _find_slots(items: Sequence[Item]) -> list[NDArray[np.bool_]]:
    """The slots of each item's question, by what its benchmark asks."""
    rows = defaultdict[str, list[int]](list)
    for row, item in enumerate(items):
        rows[item.benchmark].append(row)
    slots = [item.slots for item in items]
    for of_benchmark in rows.values():
        for row, found in zip(of_benchmark, find_slots([items[row].question for row in of_benchmark]), strict=True):
            slots[row] = found
    return slots


def _select_telling(
    items: Sequence[Item], holders: NDArray[np.uint32], hashes: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Which runs are asked of at most COMMON sets of pictures of their benchmark.

    Items without a picture count by their question.
    """
    albums = dict[Any, int]()
    benchmarks = {name: number for number, name in enumerate(sorted({item.benchmark for item in items}))}
    album = np.array(
        [albums.setdefault((item.benchmark, item.pictures or item.question.tobytes()), len(albums)) for item in items],
        np.int64,
    )
    benchmark = np.array([benchmarks[item.benchmark] for item in items], np.int64)
    asked = np.unique(
        np.stack([hashes.astype(np.uint64), benchmark[holders].astype(np.uint64), album[holders].astype(np.uint64)]),
        axis=1,
    )
    kinds, counts = np.unique(asked[:2], axis=1, return_counts=True)
    common = {tuple(kind) for kind in kinds[:, counts > COMMON].T.tolist()}
    pairs = zip(hashes.tolist(), benchmark[holders].tolist(), strict=True)
    return np.fromiter((pair not in common for pair in pairs), bool, hashes.size)
