"""Pictures for dedupe: the evidence on each, and the similarity of two.

A picture is looked at within its uniform margins and, where it has some, also as it lies in them: a copy may have got
another border, and a caption or a watermark may stand in the margin. Similarity is found from coarse to fine. Most
pairs are given up at 12 to 32 pixels; what distinguishes a copy from a picture made from the same template shows at
128.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.core.sample import ImageStats
from vlmill.pipeline.dedupe.picture_agreement import POINTS, compare_luminance, find_poor, find_tinted
from vlmill.pipeline.dedupe.picture_alignment import align_windows, widen_windows
from vlmill.pipeline.dedupe.picture_places import hash_places
from vlmill.pipeline.dedupe.picture_windows import (
    UNCUT,
    Floats,
    choose_windows,
    place_in_frames,
    reduce_pictures,
    sample_windows,
)
from vlmill.pipeline.images.thumbnail import MARGINS, SIDE, SMALL, read_margins, read_thumbnail

FLAT = 3.0
"""Standard deviation of luminance under which a picture shows nothing to compare."""
FLOOR = 0.9
"""Least similarity that is returned. Pairs that cannot reach it are given up on the way, and returned as 0."""
DISTORTED = 2.0
"""How much longer one picture may be in proportion than its copy. Sites squeeze wide pictures into squares; a scroll
bar is no dialogue."""
HOPELESS = 0.8
"""Correlation at 12 pixels under which a pair is given up: of altered copies one in a hundred has less."""
PROMISING = 0.5
"""Correlation at 16 pixels in alignment under which a pair is given up: a mark in a corner costs much of it."""
HOPEFUL = 0.85
"""Agreement at SMALL pixels under which a pair is given up: one in 300 of altered copies has less."""
CERTAIN = 0.985
"""Similarity from which nothing better is looked for."""
REFRAMED = 0.05
"""Share of height or width by which the margins of a copy in another frame differ."""
AT_ONCE = 16
"""Pairs compared at SIDE pixels at a time: each takes 2 MB."""
RESOLVED = 0.6
"""Standard deviation of the kernel at which pictures are compared, in pixels of the smaller one: finer things only the
other shows."""
SEEN = 0.7
"""Standard deviation of the blur, in pixels of the coarser thumbnail, at which pictures are compared."""
SHARP = 0.35
"""Standard deviation, in pixels, of the blur that a thumbnail has already."""
COLOURS = 16
"""Pixels of the side at which colours are compared."""

HEAD = np.dtype([("margins", MARGINS), ("small", "u1", (SMALL, SMALL))])


@dataclass(frozen=True)
class Pictures:
    """n pictures by row, as similarity needs them."""

    margins: NDArray[np.void]  # (n,) of MARGINS
    small: NDArray[np.uint8]  # (n, SMALL, SMALL): luminance within the margins
    thumbnails: Sequence[bytes]  # JPEGs; see images/thumbnail.py
    mirrored: bool = False

    def __len__(self) -> int:
        return len(self.thumbnails)

    def __getitem__(self, rows: NDArray[np.int64]) -> Pictures:
        return replace(
            self,
            margins=self.margins[rows],
            small=self.small[rows],
            thumbnails=[self.thumbnails[row] for row in rows.tolist()],
        )

    @property
    def framed(self) -> NDArray[np.bool_]:
        """Which have margins."""
        whole: NDArray[np.bool_] = (self.boxes == (0, 1, 0, 1)).all(axis=1)
        return ~whole

    @property
    def boxes(self) -> Floats:
        """(n, 4): top, bottom, left and right of what lies within the margins, as shares of the whole."""
        shares: Floats = self.margins["box"] / self.margins["size"].repeat(2, axis=1)
        return shares

    @property
    def flat(self) -> NDArray[np.bool_]:
        """Which show nothing to compare."""
        spread: Floats = self.small.std(axis=(1, 2))
        return spread < FLAT

    def mirror(self) -> Pictures:
        """The same pictures, left and right exchanged."""
        margins = self.margins.copy()
        margins["box"][:, 2:] = self.margins["size"][:, 1:] - self.margins["box"][:, :1:-1]
        margins["tones"][:, 2:] = self.margins["tones"][:, :1:-1]
        return replace(self, margins=margins, small=self.small[:, :, ::-1], mirrored=not self.mirrored)

    def measure(self, *, framed: bool) -> Floats:
        """(n, 2): height and width in pixels, of the whole or of what lies within the margins."""
        box = self.margins["box"].astype(np.float32)
        sizes: Floats = self.margins["size"].astype(np.float32) if framed else box[:, 1::2] - box[:, ::2]
        return sizes

    def view(self, *, framed: bool) -> Floats:
        """(n, SMALL, SMALL): luminance, of the whole or of what lies within the margins."""
        small = self.small.astype(np.float32)
        return place_in_frames(small, self.boxes, self.margins["tones"][:, :, 0].astype(np.float32)) if framed else small

    def decode(self, *, framed: bool) -> tuple[Floats, Floats]:
        """(n, SIDE, SIDE) of luminance, and (n, COLOURS, COLOURS, 2) of chroma with 0 for grey."""
        pixels = [read_thumbnail(thumbnail) for thumbnail in self.thumbnails]
        found = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32)
        if self.mirrored:
            found = found[:, :, :, ::-1]
        tones = self.margins["tones"].astype(np.float32)
        planes = [found[:, 0], *(reduce_pictures(found[:, plane], COLOURS) for plane in (1, 2))]
        if framed:
            planes = [place_in_frames(plane, self.boxes, tones[:, :, number]) for number, plane in enumerate(planes)]
        return planes[0], np.stack(planes[1:], axis=3) - 128.0


def collect_pictures(stats: Sequence[ImageStats]) -> Pictures:
    """Pictures of images that were decoded."""
    small, margins = np.empty((len(stats), SMALL, SMALL), np.uint8), np.empty(len(stats), MARGINS)
    for row, each in enumerate(stats):
        luminance = read_thumbnail(each.thumbnail)[None, :, :, 0].astype(np.float32)
        small[row], margins[row] = reduce_pictures(luminance, SMALL)[0].round(), read_margins(each.margins)
    return Pictures(margins, small, [each.thumbnail for each in stats])


def make_evidence(pictures: Pictures) -> list[NDArray[np.uint8]]:
    """What similarity is measured on, in bytes: a record of HEAD, then the JPEG of the thumbnail."""
    heads = np.empty(len(pictures), HEAD)
    heads["margins"], heads["small"] = pictures.margins, pictures.small
    made = zip(heads, pictures.thumbnails, strict=True)
    return [np.frombuffer(head.tobytes() + thumbnail, np.uint8) for head, thumbnail in made]


def read_evidence(evidence: Sequence[NDArray[np.uint8]]) -> Pictures:
    """The pictures on which `make_evidence` made this."""
    whole = [each.tobytes() for each in evidence]
    heads = np.frombuffer(b"".join(each[: HEAD.itemsize] for each in whole), HEAD)
    return Pictures(heads["margins"], heads["small"], [each[HEAD.itemsize :] for each in whole])


def file_pictures(pictures: Pictures) -> list[NDArray[np.uint64]]:
    """Places of each picture: of all windows of what lies within its margins, and of UNCUT windows of the whole."""
    filed = list(hash_places(pictures.view(framed=False)))
    rows = np.flatnonzero(pictures.framed)
    for row, more in zip(rows.tolist(), hash_places(pictures[rows].view(framed=True), UNCUT), strict=True):
        filed[row] = np.concatenate([filed[row], more])
    return filed


def measure_similarity(one: Pictures, other: Pictures, *, mirror: bool = False) -> Floats:
    """How alike n pairs of pictures are: (n,) to 4 decimals from FLOOR on, else 0.

    Pure, and each pair for itself.

    Args:
        one: The first picture of each pair.
        other: The second ones.
        mirror: Whether the second one may be mirrored.
    """
    looks = [(turned, framed) for turned in ((other, other.mirror()) if mirror else (other,)) for framed in (False, True)]
    best, found, starts = np.full(len(one), HOPEFUL), np.zeros(len(one)), list[_Start]()
    for turned, framed in looks:
        rows = np.flatnonzero(one.framed | turned.framed) if framed else np.arange(len(one))
        starts.append(_find_start(one[rows], turned[rows], rows, framed=framed))
        best[starts[-1].rows] = np.maximum(best[starts[-1].rows], starts[-1].agreement)
    for (turned, framed), start in zip(looks, starts, strict=True):
        chosen = start.choose(np.flatnonzero((start.agreement >= best[start.rows]) & (found[start.rows] == 0)))
        for begin in range(0, chosen.rows.size, AT_ONCE):
            some = chosen.choose(np.arange(begin, min(begin + AT_ONCE, chosen.rows.size)))
            found[some.rows] = _compare_closely(one[some.rows], turned[some.rows], some, framed=framed)
    return np.where(found >= FLOOR, found, 0.0).round(4)


@dataclass(frozen=True)
class _Start:
    """Where m pairs seem to show the same."""

    rows: NDArray[np.int64]  # the pairs, by number
    first: Floats  # (m, 4), window of the first picture
    second: Floats
    agreement: Floats  # (m,), at SMALL pixels
    moved: NDArray[np.bool_]  # (m,), whether alignment made these windows, or else they are of WINDOWS

    def choose(self, those: NDArray[np.int64]) -> _Start:
        return _Start(*(getattr(self, each)[those] for each in ("rows", "first", "second", "agreement", "moved")))


def _find_start(one: Pictures, other: Pictures, pairs: NDArray[np.int64], *, framed: bool) -> _Start:
    """Where pairs agree at SMALL pixels, by windows or by alignment; without those that are given up."""
    small, small_other = one.view(framed=framed), other.view(framed=framed)
    near = _measure_distortion(one.measure(framed=framed), other.measure(framed=framed)) <= DISTORTED
    first, second, best = choose_windows(small, small_other)
    rows = np.flatnonzero(near & (best >= HOPELESS))
    views = (reduce_pictures(each[rows], SMALL // 2) for each in (small, small_other))
    moved, target, agreement = align_windows(*views, first[rows], second[rows], blur=2 / SMALL, steps=2)
    kept = agreement >= PROMISING
    rows, moved, target = rows[kept], moved[kept], target[kept]
    small, small_other, first, second = (each[rows] for each in (small, small_other, first, second))
    moved, target, _ = align_windows(small, small_other, moved, target, blur=1 / SMALL, steps=2)
    reframed = (np.abs(one.boxes - other.boxes).max(axis=1) > REFRAMED)[rows] & (not framed)
    blurs, found = np.full((rows.size, 2), RESOLVED / SMALL), []
    for windows in ((first, second), (moved, target)):
        ends = widen_windows(*windows)
        views = [sample_windows(each, end, blurs, SMALL) for each, end in zip((small, small_other), ends, strict=True)]
        found.append(np.where(reframed & find_poor(*views), 0.0, compare_luminance(*views)))
    better = found[1] > found[0]
    ends = [np.where(better[:, None], *pair) for pair in ((moved, first), (target, second))]
    return _Start(pairs[rows], *ends, np.maximum(*found), better)


def _compare_closely(one: Pictures, other: Pictures, start: _Start, *, framed: bool) -> Floats:
    """(n,): similarity at SIDE pixels."""
    a, b = one.decode(framed=framed), other.decode(framed=framed)
    sizes = one.measure(framed=framed), other.measure(framed=framed)
    found = np.zeros(len(one))
    rows = np.flatnonzero(~start.moved)
    found[rows] = _compare_windows(*_choose_rows(rows, a, b, start.first, start.second, sizes))
    rows = np.flatnonzero(found < CERTAIN)
    a, b, first, second, sizes = _choose_rows(rows, a, b, start.first, start.second, sizes)
    for side, steps in ((SIDE // 2, 2), (SIDE, 1)):
        views = (reduce_pictures(each[0], side) for each in (a, b))
        first, second, _ = align_windows(*views, first, second, blur=1 / side, steps=steps)
    found[rows] = np.maximum(found[rows], _compare_windows(a, b, first, second, sizes))
    return found


def _measure_distortion(one: Floats, other: Floats) -> Floats:
    """(n,): by how much the ratio of height to width is another, at least 1."""
    change: Floats = (one[:, 0] * other[:, 1]) / (one[:, 1] * other[:, 0])
    return np.maximum(change, 1 / change)


def _choose_rows(rows: NDArray[np.int64], *those: Any) -> list[Any]:
    """Some rows of arrays, and of pairs of arrays."""
    return [tuple(each[rows] for each in some) if isinstance(some, tuple) else some[rows] for some in those]


def _compare_windows(
    one: tuple[Floats, Floats],
    other: tuple[Floats, Floats],
    first: Floats,
    second: Floats,
    pixels: tuple[Floats, Floats],
) -> Floats:
    """(n,): how far two windows agree, as wide as both pictures allow; 0 where their colours differ.

    Both are sampled so that they are equally sharp: what fills a smaller share of its thumbnail shows less.
    """
    first, second = widen_windows(first, second)
    shares = [windows[:, 1::2] - windows[:, ::2] for windows in (first, second)]
    limits = [RESOLVED / (size * share) for size, share in zip(pixels, shares, strict=True)]
    coarsest = SEEN / (SIDE * np.minimum(*shares))
    wanted = np.maximum(coarsest, np.maximum(*limits))
    blurs = [np.sqrt(np.maximum((wanted * share) ** 2 - (SHARP / SIDE) ** 2, (0.3 / SIDE) ** 2)) for share in shares]
    shown, target = (
        sample_windows(each[0], windows, blur, POINTS)
        for each, windows, blur in zip((one, other), (first, second), blurs, strict=True)
    )
    found = compare_luminance(shown, target)
    rows = np.flatnonzero(found >= FLOOR)
    tints = [_sample_colours(each[1][rows], windows[rows]) for each, windows in ((one, first), (other, second))]
    found[rows[find_tinted(*tints)]] = 0.0
    return found


def _sample_colours(chroma: Floats, windows: Floats) -> Floats:
    """(n, 8, 8, 2): the colours of windows."""
    blurs = np.full((len(chroma), 2), 1 / COLOURS)
    return np.stack([sample_windows(chroma[..., plane], windows, blurs, 8) for plane in (0, 1)], axis=3)
