"""Step `signature`: what finding duplicates needs to know of a partition.

So its texts and images are not read again.

Leaves, for texts and for images, a table of places (`*.places.parquet`: where a thing is filed, so that similar things
meet) and an array of evidence (`*.evidence.npy`: what similarity is measured on), `outline.parquet`: the samples
without their contents, and `line.places.parquet`: the lines of each domain. Texts and images go by 64-bit
keys of their contents; a content that a partition holds several times is given signatures once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlmill.pipeline.core.compared_text import split_words
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, OUTLINE_FILE, SAMPLES_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    ImageStats,
    Node,
    Sample,
    read_image_stats,
    read_samples,
    write_rows,
)
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.dedupe import picture, text
from vlmill.pipeline.dedupe.domain import LINES, hash_host, hash_lines, hash_places

SHORT = 10
"""Shingles under which a text is too short to be called similar to another: it is only an exact duplicate."""

PLACES = pa.schema([("place", pa.uint64()), ("key", pa.uint64()), ("start", pa.int64()), ("stop", pa.int64())])
"""Sorted by place, then key. The evidence on `key` is evidence[start:stop]."""
PLACES_PER_GROUP = 4096
"""Rows per row group: small, so that a bucket reads little besides its own."""

OUTLINE_NODE = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("required", pa.bool_(), nullable=False),
        pa.field("after", pa.int32()),  # as in Node
        pa.field("key", pa.uint64()),  # of its text or image; None where there is none
        pa.field("lines", pa.list_(pa.uint64())),  # keys of the lines of a text of a host; None elsewhere
        pa.field("url", pa.uint64()),  # key of an image's address; None where it has none
        pa.field("reason", pa.string()),  # why there is none
    ]
)
OUTLINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("page", pa.int32(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),  # what `choose_unit` says
        pa.field("host", pa.uint64()),  # key of the host that a document came from; None for anything else
        pa.field("text", pa.uint64(), nullable=False),  # key of all its text
        pa.field("long", pa.bool_(), nullable=False),  # whether that is long enough to be similar to another
        pa.field("shingles", pa.int32(), nullable=False),  # of it; 0 where turns are compared
        pa.field("words", pa.int32(), nullable=False),  # different ones of it, where an image is required; else 0
        pa.field("nodes", pa.list_(OUTLINE_NODE), nullable=False),
    ]
)

DOCUMENT, PAGE, TURNS = "document", "page", "turns"


@dataclass(frozen=True)
class ComputeSignatures:
    """Step: signature a partition.

    Pure. Counts `texts_signed` and `images_signed`: different contents that can be similar.
    """

    name: ClassVar[str] = "signature"
    version: ClassVar[int] = 6
    pure: ClassVar[bool] = True

    containment: bool  # whether texts are filed so that those that stand in others are found
    mirror: bool = False  # whether images are filed so that mirrored ones are found

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples and image stats."""
        return (SAMPLES_FILE, IMAGE_STATS_FILE)

    def made_by(self) -> Mapping[str, str]:
        """The library that writes the tables, and what says which characters are letters."""
        return {
            "numpy": version("numpy"),
            "pillow": version("pillow"),
            "pyarrow": version("pyarrow"),
            "unicode": unicodedata.unidata_version,
        }

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Signature texts sample by sample, then images."""
        image_stats = read_image_stats(inputs[IMAGE_STATS_FILE])
        texts = dict[int, _SignedText]()
        lines: list[NDArray[np.uint64]] = []
        samples = read_samples(inputs[SAMPLES_FILE])
        rows = _make_outlines(samples, image_stats, texts, lines, containment=self.containment)
        write_rows(folder / OUTLINE_FILE, OUTLINE, rows)
        long = {key: signed for key, signed in texts.items() if signed.long}
        _write_texts(folder, long, containment=self.containment)
        _write_lines(folder / "line.places.parquet", lines)
        return {
            "texts_signed": _count_kept(len(long)),
            "images_signed": _count_kept(_write_images(folder, image_stats, mirror=self.mirror)),
        }


def choose_unit(sample: Sample) -> str:
    """What of a sample is compared with others.

    TURNS: an image that is required, and turns about it: each turn with the images. PAGE: a required image with its
    text. DOCUMENT: anything else: the text, and each image for itself.
    """
    if not any(node.required for node in sample.nodes):
        return DOCUMENT
    return TURNS if any(node.role in {"user", "assistant"} for node in sample.nodes) else PAGE


def join_text(sample: Sample) -> str:
    """The text by which a sample is compared: all of its text nodes, a line each."""
    return "\n".join(node.text or "" for node in sample.nodes if node.kind == "text")


def make_image_key(image_stats: ImageStats) -> int:
    """64 bits that name an image: the head of its sha256.

    Among 353 million two others share a key with probability 0.003.
    """
    return int(image_stats.sha256[:16], 16)


def _make_outlines(
    samples: Iterator[Sample],
    image_stats: Sequence[ImageStats],
    texts: dict[int, _SignedText],
    lines: list[NDArray[np.uint64]],
    *,
    containment: bool,
) -> Iterator[dict[str, Any]]:
    """Rows of OUTLINE.

    Enters what is signed of each new text under its key, and the places of each document's lines.
    """
    for sample in samples:
        compared, whole = choose_unit(sample), join_text(sample)
        key, domain = text.make_text_key(whole), hash_host(sample.url) if compared == DOCUMENT else None
        nodes = [_outline_node(node, image_stats, hosted=domain is not None) for node in sample.nodes]
        if compared != TURNS and key not in texts:
            texts[key] = _sign_text(whole, containment=containment)
        if domain is not None:
            said = np.array([line for node in nodes for line in node["lines"] or ()], np.uint64)
            lines.append(np.unique(hash_places(np.uint64(domain), said)))
        yield {
            **sample.id._asdict(),
            "unit": compared,
            "host": domain,
            "text": key,
            "long": compared != TURNS and texts[key].long,
            "shingles": 0 if compared == TURNS else texts[key].shingles.size,
            "words": len(set(split_words(whole))) if compared == PAGE else 0,
            "nodes": nodes,
        }


def _outline_node(node: Node, image_stats: Sequence[ImageStats], *, hosted: bool) -> dict[str, Any]:
    """A row of OUTLINE_NODE."""
    lines = hash_lines(node.text) if hosted and node.text is not None else None
    row = {**{name: getattr(node, name) for name in ("kind", "role", "turn", "required", "after")}, "lines": lines}
    if node.image is None:
        gone = node.text is None
        return {
            **row,
            "key": None if gone else text.make_text_key(node.text or ""),
            "url": None,
            "reason": Reason.TAKEN_DOWN if gone else None,
        }
    shown = image_stats[node.image]
    address = text.make_text_key(node.url) if node.url else None
    return {**row, "key": None if shown.reason else make_image_key(shown), "url": address, "reason": shown.reason}


@dataclass(frozen=True)
class _SignedText:
    """The set of shingles of a text, and the places of its fingerprints where they are wanted."""

    shingles: NDArray[np.uint32]
    fingerprints: NDArray[np.uint64]

    @property
    def long(self) -> bool:
        """Whether it is long enough to be similar to another."""
        return self.shingles.size >= SHORT


def _sign_text(whole: str, *, containment: bool) -> _SignedText:
    hashes = text.hash_in_order(whole)
    wanted = containment and hashes.size
    return _SignedText(
        text.shorten_hashes(hashes), text.choose_fingerprints(hashes) if wanted else np.empty(0, np.uint64)
    )


def _write_texts(folder: Path, texts: Mapping[int, _SignedText], *, containment: bool) -> None:
    """Write places and shingles of texts; on request also the places by which contained texts are found."""
    keys, signed = list(texts), list(texts.values())
    stops = np.cumsum([one.shingles.size for one in signed], dtype=np.int64)
    starts = np.concatenate([[0], stops[:-1]]) if keys else stops
    bands = [text.hash_bands(one.shingles) for one in signed]
    _write_places(folder / "text.places.parquet", bands, keys, starts, stops)
    if containment:
        filed = [one.fingerprints for one in signed]
        _write_places(folder / "contained.places.parquet", filed, keys, starts, stops)
    evidence = np.concatenate([np.empty(0, np.uint32), *(one.shingles for one in signed)])
    np.save(folder / "text.evidence.npy", evidence)


def _write_images(folder: Path, image_stats: Sequence[ImageStats], *, mirror: bool) -> int:
    """Write places and evidence of all images that show something; return how many."""
    shown = {make_image_key(stats): stats for stats in image_stats if stats.thumbnail}
    pictures = picture.collect_pictures(list(shown.values()))
    telling = np.flatnonzero(~pictures.flat)
    pictures, keys = pictures[telling], np.array(list(shown), np.uint64)[telling].tolist()
    evidence = picture.make_evidence(pictures)
    stops = np.cumsum([each.size for each in evidence], dtype=np.int64)
    starts = np.concatenate([[0], stops[:-1]]) if keys else stops
    filed = picture.file_pictures(pictures)
    if mirror:
        turned = picture.file_pictures(pictures.mirror())
        filed = [np.concatenate(both) for both in zip(filed, turned, strict=True)]
    _write_places(folder / "image.places.parquet", filed, keys, starts, stops)
    np.save(folder / "image.evidence.npy", np.concatenate([np.empty(0, np.uint8), *evidence]))
    return len(keys)


def _write_places(
    path: Path,
    filed: Sequence[NDArray[np.uint64]],
    keys: Sequence[int],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> None:
    """Write PLACES.

    The i-th thing has the key keys[i], is filed at each of filed[i], and has the evidence [starts[i], stops[i]).
    """
    per_thing = [len(places) for places in filed]
    places = np.concatenate(filed) if filed else np.empty(0, np.uint64)
    owners = np.repeat(np.arange(len(keys)), per_thing)
    owned = np.array(keys, np.uint64)[owners]
    order = np.lexsort((owned, places))
    order = order[_find_changes(places[order]) | _find_changes(owned[order])]
    columns = [places[order], owned[order], starts[owners[order]], stops[owners[order]]]
    table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=PLACES)
    pq.write_table(table, path, row_group_size=PLACES_PER_GROUP, compression="zstd")


def _write_lines(path: Path, lines: Sequence[NDArray[np.uint64]]) -> None:
    """Write LINES: in how many documents of the partition each line of a domain stands."""
    places = np.concatenate([*lines, np.empty(0, np.uint64)])
    columns = np.unique(places, return_counts=True)
    table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=LINES)
    pq.write_table(table, path, row_group_size=PLACES_PER_GROUP, compression="zstd")


def _find_changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each value differs from the one before it."""
    return np.concatenate([np.ones(min(1, values.size), bool), values[1:] != values[:-1]])


def _count_kept(number: int) -> Count:
    return Count(number, number)
