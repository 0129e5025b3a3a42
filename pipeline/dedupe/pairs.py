"""Step `pairs`: the measured similarity of candidates, for one share of them, over all sources.

A picture that has more candidates than `nearest` is measured with those that look most like it: pictures made from
templates are candidates of each other in hundreds. The others are counted.

What an earlier build measured is not measured again (measured.py).

Knows no threshold and no filter, so a new threshold or another filter leaves it as it is. It needs in memory its share
of the candidates, and CHUNK of evidence at a time. One file of evidence is open at a time, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs
from vlmill.pipeline.dedupe import picture, picture_looks, text
from vlmill.pipeline.dedupe.candidates import (
    BUCKET_BITS,
    CANDIDATES,
    IMAGE,
    Kind,
    list_kinds,
    read_span,
    split_range,
)
from vlmill.pipeline.dedupe.measured import MEASURED, MEASURED_FILE, EarlierFile, find_measured, write_measured

BATCH = 32
"""Pairs measured at a time: two thumbnails and what is sampled of them take 0.5 MB a pair, and 128 pairs take a third
longer each."""

CHUNK = 1 << 24
"""Numbers of evidence, of one byte or four, that are read at once: for the candidates that these are of, each file is
opened once."""

LOOKED_AT = 1 << 13
"""Candidates of which it is looked at at once how alike they are: 15 KB for each of their pictures."""

PAIRS = MEASURED
"""Those from the floor on, sorted by keys, one < other."""

Measure = Callable[[Sequence[NDArray[Any]], Sequence[NDArray[Any]]], NDArray[np.float64]]


def _measure_texts(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return np.array([text.compute_jaccard(a, b) for a, b in zip(one, other, strict=True)])


def _measure_images(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return picture.measure_similarity(picture.read_evidence(one), picture.read_evidence(other))


def _measure_turned_images(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return picture.measure_similarity(picture.read_evidence(one), picture.read_evidence(other), mirror=True)


def _measure_containment(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return np.array([text.compute_containment(a, b) for a, b in zip(one, other, strict=True)])


def _list_measures(*, mirror: bool) -> Mapping[str, Measure]:
    images = _measure_turned_images if mirror else _measure_images
    return {"text": _measure_texts, "image": images, "contained": _measure_containment}


FLOORS: Mapping[str, float] = {"text": 0.5, "image": picture.FLOOR, "contained": 0.5}
"""Least similarity that is written. Below it candidates are found too rarely for a threshold to mean anything."""


@dataclass(frozen=True)
class MeasurePairs:
    """Step: measures the candidates whose smaller key lies in one share of all keys. Pure.

    Counts `text_pairs`, `image_pairs` and perhaps `contained_pairs`: kept are those measured, dropped for PAIR_CAP the
    candidates of a picture beyond the nearest.
    """

    name: ClassVar[str] = "pairs"
    version: ClassVar[int] = 7
    pure: ClassVar[bool] = True

    share: int
    shares: int
    containment: bool  # whether texts that stand in others are measured
    nearest: int  # candidates of a picture that are measured, of those whose key is higher
    mirror: bool = False  # whether images are also compared with mirrored ones
    earlier: tuple[EarlierFile, ...] = field(default=(), metadata=RUNTIME)  # what was measured of these keys before

    @property
    def reads(self) -> tuple[str, ...]:
        """All candidates, and the evidence of all partitions, of which is read what is compared."""
        kinds = list_kinds(containment=self.containment)
        evidence = dict.fromkeys(f"*/{kind.evidence}.evidence.npy" for kind in kinds)
        return (*(f"*/{kind.name}.candidates.parquet" for kind in kinds), *evidence)

    def made_by(self) -> Mapping[str, str]:
        """The libraries that calculate and write."""
        return {library: version(library) for library in ("numpy", "pillow", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<kind>.pairs.parquet` for each kind, and what of images was measured.

        The order of `inputs` does not matter.
        """
        counts, measures = {}, _list_measures(mirror=self.mirror)
        for kind in list_kinds(containment=self.containment):
            found = _read_candidates(kind, inputs, *split_range(self.share, self.shares, BUCKET_BITS))
            evidence, candidates = _list_evidence(kind, inputs), found["one"].size
            known = np.full(candidates, np.nan)
            if kind is IMAGE:
                found = _choose_nearest(found, evidence, self.nearest, mirror=self.mirror)
                known = find_measured(self.earlier, found["one"], found["other"], self._rule)
            similarity = _measure_pairs(kind, found, known, evidence, measures[kind.name])
            if kind is IMAGE:
                write_measured(folder / MEASURED_FILE, (found["one"], found["other"], similarity), self._rule)
            kept = similarity > 0
            columns = found["one"][kept], found["other"][kept], similarity[kept]
            table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=PAIRS)
            pq.write_table(table, folder / f"{kind.name}.pairs.parquet", compression="zstd")
            counts[f"{kind.name}_pairs"] = count = Count()
            count.keep(found["one"].size)
            count.lose(Reason.PAIR_CAP, candidates - found["one"].size)
        return counts

    @property
    def _rule(self) -> dict[str, Any]:
        """What decides how similar two pictures are besides these."""
        return {"version": self.version, "mirror": self.mirror, "made_by": dict(self.made_by())}


Found = dict[str, NDArray[Any]]
"""Columns of CANDIDATES."""


def _read_candidates(kind: Kind, inputs: Inputs, first: int, last: int) -> Found:
    """The candidates of all buckets with their smaller key in [first, last], each once, sorted."""
    names = sorted(name for name in inputs if name.endswith(f"/{kind.name}.candidates.parquet"))
    partitions = [read_span(inputs[name], tuple(CANDIDATES.names), first, last) for name in names]
    columns = dict(
        zip(CANDIDATES.names, (np.concatenate(column) for column in zip(*partitions, strict=True)), strict=True)
    )
    order = np.lexsort((columns["other"], columns["one"]))
    one, other = columns["one"][order], columns["other"][order]
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(one) != 0) | (np.diff(other) != 0)
    return {name: column[order[new]] for name, column in columns.items()}


def _list_evidence(kind: Kind, inputs: Inputs) -> list[Path]:
    """The evidence of all partitions, in the order of their names."""
    return [inputs[name] for name in sorted(inputs) if name.endswith(f"/{kind.evidence}.evidence.npy")]


def _choose_nearest(found: Found, evidence: Sequence[Path], nearest: int, *, mirror: bool) -> Found:
    """The candidates without those that a picture has beyond its nearest ones."""
    _, group, sizes = np.unique(found["one"], return_inverse=True, return_counts=True)
    rows = np.flatnonzero(sizes[group] > nearest)
    if not rows.size:
        return found
    crowded = {name: column[rows] for name, column in found.items()}
    distances = np.empty((rows.size, 2))
    for start in range(0, rows.size, LOOKED_AT):
        some = {name: column[start : start + LOOKED_AT] for name, column in crowded.items()}
        ends = np.concatenate([some["one"], some["other"]])
        _, first, pictures = np.unique(ends, return_index=True, return_inverse=True)
        looks = _read_looks(some, first, evidence)
        one, other = np.split(pictures, 2)
        distances[start : start + LOOKED_AT] = picture_looks.measure_distances(looks, one, other, mirror=mirror)
    chosen = picture_looks.choose_nearest(crowded["one"], crowded["other"], distances, nearest)
    kept = np.sort(np.concatenate([np.flatnonzero(sizes[group] <= nearest), rows[chosen]]))
    return {name: column[kept] for name, column in found.items()}


def _read_looks(found: Found, ends: NDArray[np.int64], evidence: Sequence[Path]) -> NDArray[np.void]:
    """(n,) of LOOK: how the pictures at some ends look, numbered through the first and then the other ends."""
    heads = {
        f"one_{name}": np.concatenate([found[f"one_{name}"], found[f"other_{name}"]])[ends]
        for name in ("file", "start")
    }
    heads["one_stop"] = heads["one_start"] + picture.HEAD.itemsize
    read = np.concatenate(_read_evidence(heads, "one", 0, ends.size, evidence))
    looks: NDArray[np.void] = read.view(picture.HEAD)["look"]
    return looks


def _measure_pairs(
    kind: Kind, found: Found, known: NDArray[np.float64], evidence: Sequence[Path], measure: Measure
) -> NDArray[np.float64]:
    """(n,): similarity of pairs, 0 below the floor; `known` where it is, the others are measured."""
    similarity = known.copy()
    rows = np.flatnonzero(np.isnan(known))
    new = {name: column[rows] for name, column in found.items()}
    for first, last in _cut_chunks(new):
        one, other = (_read_evidence(new, end, first, last, evidence) for end in ("one", "other"))
        for start in range(0, last - first, BATCH):
            batch = slice(start, min(start + BATCH, last - first))
            similarity[rows[first + batch.start : first + batch.stop]] = measure(one[batch], other[batch])
            note_work(pairs=batch.stop - batch.start)
    similarity[similarity < FLOORS[kind.name]] = 0.0
    return similarity


def _cut_chunks(found: Found) -> Iterator[tuple[int, int]]:
    """First and stop of the candidates whose evidence is read at once: CHUNK numbers of it, one candidate at least."""
    lengths = sum(found[f"{end}_stop"] - found[f"{end}_start"] for end in ("one", "other"))
    ends, start = np.cumsum(lengths), 0
    while start < ends.size:
        held = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, held + CHUNK, side="right")))
        yield start, stop
        start = stop


def _read_evidence(found: Found, end: str, first: int, last: int, evidence: Sequence[Path]) -> list[NDArray[Any]]:
    """What the candidates [first, last) are measured on at one end. File by file, each opened once."""
    files, starts, stops = (found[f"{end}_{name}"][first:last] for name in ("file", "start", "stop"))
    taken, opened, number = list[NDArray[Any]]([_NOTHING] * files.size), _NOTHING, -1
    for row in np.argsort(files, kind="stable").tolist():
        if files[row] != number:
            number = int(files[row])
            opened = read_array(evidence[number])
        taken[row] = np.array(opened[starts[row] : stops[row]])
    return taken


_NOTHING = np.empty(0, np.uint8)
