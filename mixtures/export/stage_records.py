"""The records of a stage: its plan in the order of training, or each of its samples once, with how often it is shown.

And what it holds out. Reads the lock, plan, shards and, for originals, the tables of images.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from vlmill.mixtures.export.base import ExportPart, Split
from vlmill.mixtures.export.cut_texts import cut_texts
from vlmill.mixtures.export.pictures import OriginalPictures, make_picture
from vlmill.mixtures.export.record import ExportPicture, Record, compose_messages
from vlmill.mixtures.lineage import LineageTables
from vlmill.mixtures.reader import Found, PlannedMixture, Segment, Stored
from vlmill.pipeline.chat.encode import WHOLE, load_tokenizer
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.recipe.lock import read_locked_recipe

Order = Literal["plan", "samples"]
Images = Literal["original", "policy"]

CHUNK = 16384
"""Segments whose originals are gathered at once."""

USES = 1 << 22
"""Samples of which it is counted at once how often a plan shows them."""

MAIN = ("canvas", "picture")
"""The picture of an image policy that stands for the image: what tiles are cut from, or the image itself."""


class WantedRecord(NamedTuple):
    """A record that is to be made."""

    segment: Segment
    sequence: int | None = None
    weight: int | None = None


def name_folder(label: str) -> str:
    """The folder and config of an entry or source."""
    return re.sub(r"[^\w.-]+", "-", label)


class StageRecords:
    """What a stage exports.

    Args:
        root: The run's folder.
        stage: Its name.
        order: The plan, or samples once.
        images: Originals, or what the image policy drew.
    """

    def __init__(self, root: Path, stage: str, order: Order, images: Images) -> None:
        self.mixture, self.order, self.images = PlannedMixture(root, stage, in_order=True), order, images
        self.recipe = read_locked_recipe(root)
        self.inputs = self.mixture.sha256
        self.name = f"{self.recipe.name}-{stage}"
        self._lineages = LineageTables(self.mixture, self.mixture.held_shards)
        self._originals = OriginalPictures(self.recipe, self.mixture, self._lineages)

    @property
    def parts(self) -> tuple[ExportPart, ...]:
        """What is exported, in order; those that hold something out may turn out to be empty."""
        splits: tuple[Split, ...] = ("train", "validation")
        if self.order == "plan":
            return tuple(ExportPart("data", split) for split in splits)
        labels = self.mixture.sources
        if len({name_folder(label) for label in labels}) < len(labels):
            raise StoreError(f"entries {', '.join(labels)} cannot be told apart as folders; rename one of the sources")
        weights = [source["planned"]["samples"] for source in self.mixture.lock["sources"]]
        return tuple(
            ExportPart(name_folder(label), split, label, weight if split == "train" else None)
            for label, weight in zip(labels, weights, strict=True)
            for split in splits
        )

    def read(self, part: ExportPart, start: int, scratch: Path) -> Iterator[Record]:
        """The records of a part from number `start` on, in order.

        Args:
            part: One of `parts`.
            start: The first that is wanted.
            scratch: A folder for what is gathered.

        Raises:
            StoreError: a shard or table is damaged or missing.
        """
        try:
            items = islice(self._list_items(part), start, None)
            while chunk := list(islice(items, CHUNK)):
                segments = [item.segment for item in chunk]
                if self.images == "original":
                    self._originals.gather(segments, scratch)
                yield from map(self._make_record, chunk, self._read_stored(segments))
        finally:
            self._originals.close()

    def _list_items(self, part: ExportPart) -> Iterator[WantedRecord]:
        entry = self.mixture.sources.index(part.source) if part.source else None
        if part.split == "validation":
            held = self.mixture.iterate_held_out()
            return (WantedRecord(segment) for segment in held if entry is None or segment.source == entry)
        if entry is None:
            return (
                WantedRecord(segment, sequence)
                for sequence in range(self.mixture.sequences)
                for segment in self.mixture.sequence(sequence)
            )
        return self._list_weighted(entry)

    def _list_weighted(self, entry: int) -> Iterator[WantedRecord]:
        """The samples of an entry that the plan shows, in the order of the shards."""
        for shard in range(len(self.mixture.lock["sources"][entry]["shards"])):
            counts = self._uses.find(entry, shard)
            for row in np.flatnonzero(counts).tolist():
                yield WantedRecord(Segment(entry, shard, row), weight=int(counts[row]))

    @cached_property
    def _uses(self) -> SampleUses:
        return SampleUses(self.mixture)

    def _read_stored(self, segments: Sequence[Segment]) -> Iterable[Stored]:
        """The samples that segments are of; for originals with coordinates as they came, without what was drawn."""
        if self.images == "policy":
            return (stored for segment in segments for stored in self.mixture.read([segment]))
        return (Stored(nodes, (), (), ()) for nodes in self.mixture.nodes(segments, restored=True))

    def _make_record(self, item: WantedRecord, stored: Stored) -> Record:
        segment = item.segment
        about, lineage = self.mixture.about(segment), self._lineages.find(segment)
        found = stored.find(segment)
        nodes = self._cut_nodes(segment, found)
        messages, remarks = compose_messages(nodes)
        pictures, more = self._take_pictures(segment, stored, found)
        cut = [] if found.cut.end == WHOLE and not found.cut.continued else [self._name_cut(found)]
        return Record(
            about["id"],
            self.mixture.sources[segment.source],
            about["licence"],
            lineage["url"],
            lineage["upstream_id"],
            all(node.role == "none" for node in nodes),
            messages,
            tuple(pictures),
            item.sequence,
            item.weight,
            (*remarks, *more, *cut),
        )

    def _name_cut(self, found: Found) -> str:
        return "continued" if found.nodes[-1].role == "none" else "truncated"

    def _cut_nodes(self, segment: Segment, found: Found) -> tuple[Node, ...]:
        if not found.cut.begin and found.cut.end == WHOLE:
            return found.nodes
        layouts = self.mixture.policy.layout(self.mixture.sizes(segment))[found.images]
        return cut_texts(found, layouts, self._tokenizer, self.mixture.chat)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.mixture.tokenizer, self.mixture.chat)

    def _take_pictures(self, segment: Segment, stored: Stored, found: Found) -> tuple[list[ExportPicture], list[str]]:
        if self.images == "original":
            return list(self._originals.take(segment)), []
        shown = stored.parts[found.images]
        pictures = [make_picture(next(parts[name] for name in MAIN if name in parts)) for parts in shown]
        return pictures, ["other_pictures" for parts in shown if len(parts) > 1]


class SampleUses:
    """How often a plan shows each sample: one that is cut into segments counts by its first one.

    Whole shards of about `USES` samples are counted at once, in two passes over the plan: 12 bytes of each meanwhile,
    4 afterwards.
    """

    def __init__(self, mixture: PlannedMixture, most: int = USES) -> None:
        self._mixture, self._most = mixture, most
        sizes = [shard["samples"] for source in mixture.lock["sources"] for shard in source["shards"]]
        self._bounds = np.cumsum([0, *sizes])  # where the samples of each shard begin, of all entries in their order
        numbers = [len(source["shards"]) for source in mixture.lock["sources"]]
        self._first = np.cumsum([0, *numbers])[:-1]  # shard of each entry
        self._low, self._counts = 0, np.zeros(0, np.int32)

    def find(self, entry: int, shard: int) -> np.ndarray:
        """How often each sample of a shard is shown (int32). Quick where shards are asked for in their order."""
        number = int(self._first[entry]) + shard
        start, stop = int(self._bounds[number]), int(self._bounds[number + 1])
        if not self._low <= start <= stop <= self._low + self._counts.size:
            last = int(np.searchsorted(self._bounds, start + self._most, "right")) - 1
            self._count(start, max(stop, int(self._bounds[last])))
        return self._counts[start - self._low : stop - self._low]

    def _count(self, low: int, high: int) -> None:
        first = np.full(high - low, np.iinfo(np.int64).max)
        for places, keys in self._list_places(low, high):
            np.minimum.at(first, places, keys)
        counts = np.zeros(high - low, np.int32)
        for places, keys in self._list_places(low, high):
            np.add.at(counts, places[keys == first[places]], 1)
        self._low, self._counts = low, counts

    def _list_places(self, low: int, high: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """By block of the plan: the number behind `low` of each segment's sample, and where that begins in it."""
        for block in range(len(self._mixture.lock["plan"]["blocks"])):
            columns = self._mixture.columns(block)
            places = self._bounds[self._first[columns["source"]] + columns["shard"]] + columns["row"] - low
            keys = (columns["first"].astype(np.int64) << 32) | columns["begin"].astype(np.int64)
            inside = (places >= 0) & (places < high - low)
            yield places[inside], keys[inside]
