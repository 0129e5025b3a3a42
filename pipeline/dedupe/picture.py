"""Pictures for dedupe: the evidence on each, and the similarity of two.

A picture is looked at within its uniform margins and, where it has some, also as it lies in them: a copy may have got
another border, and a caption or a watermark may stand in the margin. Similarity is found from coarse to fine. Most
pairs are given up at 12 to 32 pixels; what distinguishes a copy from a picture made from the same template shows at
128.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmill.pipeline.core.sample import ImageStats
from vlmill.pipeline.dedupe.picture_agreement import POINTS, compare_luminance, find_plain, find_tinted
from vlmill.pipeline.dedupe.picture_alignment import align_windows, widen_windows
from vlmill.pipeline.dedupe.picture_looks import LOOK, TINTS, make_looks
from vlmill.pipeline.dedupe.picture_places import hash_places
from vlmill.pipeline.dedupe.picture_windows import (
    UNCUT,
    Floats,
    choose_windows,
    reduce_pictures,
    sample_windows,
)
from vlmill.pipeline.images.thumbnail import SIDE, SMALL, read_edges, read_thumbnail

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
REFRAMED = 0.04
"""Share of height or width by which the margins of a copy in another frame differ."""
AT_ONCE = 16
"""Pairs compared at SIDE pixels at a time: each takes 2 MB."""
RESOLVED = 0.6
"""Standard deviation of the kernel at which pictures are compared, in pixels of the smaller one: finer things only the
other shows."""
SEEN = 0.95
"""Standard deviation of the blur, in pixels of the coarser thumbnail, at which pictures are compared."""
SHARP = 0.35
"""Standard deviation, in pixels, of the blur that a thumbnail has already."""
EDGE, HIDDEN = 0.13, 0.5
"""Share of height and width at each side without which pictures have to agree too, where less than that share of their
contrast is in the middle: a frame or caption that both have must not hide a pale picture."""
COLOURS = 16
"""Pixels of the side at which colours are compared."""

HEAD = np.dtype([("size", "<i4", (2,)), ("edges", "<i4", (4,)), ("lengths", "<i4", (2,)), ("look", LOOK)])
"""Height and width; margins above, below, left and right; bytes of both thumbnails, the second 0 without margins; and
how the picture looks at first sight."""

INNER, WHOLE = 0, 1
"""The views of a picture: what lies within its margins, and all of it."""


@dataclass(frozen=True)
class ComparedPictures:
    """n pictures by row, as similarity needs them."""

    sizes: NDArray[np.int32]  # (n, 2): height and width
    edges: NDArray[np.int32]  # (n, 4): margins above, below, left and right
    small: NDArray[np.uint8]  # (n, 2, SMALL, SMALL): luminance of both views
    tints: NDArray[np.uint8]  # (n, TINTS, TINTS, 2): chroma of the inner view, 128 for grey
    thumbnails: Sequence[tuple[bytes, bytes]]  # JPEGs of both views; one and the same where there are no margins
    mirrored: bool = False

    def __len__(self) -> int:
        return len(self.thumbnails)

    def __getitem__(self, rows: NDArray[np.int64]) -> ComparedPictures:
        thumbnails = [self.thumbnails[row] for row in rows.tolist()]
        own = (self.sizes[rows], self.edges[rows], self.small[rows], self.tints[rows])
        return ComparedPictures(*own, thumbnails, self.mirrored)

    @property
    def framed(self) -> NDArray[np.bool_]:
        """Which have margins."""
        framed: NDArray[np.bool_] = self.edges.max(axis=1) > 0
        return framed

    @property
    def shares(self) -> Floats:
        """(n, 4): margins as shares of height and width."""
        shares: Floats = self.edges / self.sizes.repeat(2, axis=1)
        return shares

    @property
    def flat(self) -> NDArray[np.bool_]:
        """Which show nothing to compare."""
        spread: Floats = self.small[:, INNER].std(axis=(1, 2))
        return spread < FLAT

    def mirror(self) -> ComparedPictures:
        """The same pictures, left and right exchanged."""
        turned = (self.edges[:, [0, 1, 3, 2]], self.small[..., ::-1], self.tints[:, :, ::-1])
        return ComparedPictures(self.sizes, *turned, self.thumbnails, not self.mirrored)

    def measure(self, view: int) -> Floats:
        """(n, 2): height and width of a view in pixels."""
        edges = self.edges.reshape(-1, 2, 2).sum(axis=2)
        sizes: Floats = (self.sizes if view == WHOLE else self.sizes - edges).astype(np.float32)
        return sizes

    def reduce(self, view: int) -> Floats:
        """(n, SMALL, SMALL): luminance of a view."""
        return self.small[:, view].astype(np.float32)

    def decode(self, view: int) -> tuple[Floats, Floats]:
        """(n, SIDE, SIDE) of luminance, and (n, COLOURS, COLOURS, 2) of chroma with 0 for grey, of a view."""
        pixels = np.empty((len(self), 3, SIDE, SIDE), np.float32)
        decoded = dict[bytes, int]()  # pairs that are measured at once have their first picture in common
        for row, thumbnails in enumerate(self.thumbnails):
            before = decoded.setdefault(thumbnails[view], row)
            pixels[row] = pixels[before] if before < row else read_thumbnail(thumbnails[view]).transpose(2, 0, 1)
        if self.mirrored:
            pixels = pixels[..., ::-1]
        chroma = [reduce_pictures(pixels[:, plane], COLOURS) for plane in (1, 2)]
        return pixels[:, 0], np.stack(chroma, axis=3) - 128


def collect_pictures(stats: Sequence[ImageStats]) -> ComparedPictures:
    """Pictures of images that were decoded."""
    sizes = np.array([(each.height, each.width) for each in stats], np.int32).reshape(-1, 2)
    edges = np.array([read_edges(each.margins) for each in stats], np.int32).reshape(-1, 4)
    thumbnails = [(each.content or each.thumbnail, each.thumbnail) for each in stats]
    small = np.empty((len(stats), 2, SMALL, SMALL), np.uint8)
    tints = np.empty((len(stats), TINTS, TINTS, 2), np.uint8)
    for row, views in enumerate(thumbnails):
        for view in (WHOLE, INNER):
            planes = read_thumbnail(views[view]).transpose(2, 0, 1).astype(np.float32)
            small[row, view] = reduce_pictures(planes[:1], SMALL)[0].round()
            if view == INNER:
                tints[row] = reduce_pictures(planes[1:], TINTS).round().transpose(1, 2, 0)
    return ComparedPictures(sizes, edges, small, tints, thumbnails)


def make_evidence(pictures: ComparedPictures) -> list[NDArray[np.uint8]]:
    """What similarity is measured on, in bytes: a record of HEAD, then pixels and thumbnail of each view."""
    made, looks = [], make_looks(pictures.small, pictures.tints)
    for row, views in enumerate(pictures.thumbnails):
        kept = (INNER, WHOLE) if pictures.edges[row].any() else (INNER,)
        lengths = [len(views[view]) if view in kept else 0 for view in (INNER, WHOLE)]
        head = np.array((pictures.sizes[row], pictures.edges[row], lengths, looks[row]), HEAD)
        bodies = [pictures.small[row, view].tobytes() + views[view] for view in kept]
        made.append(np.frombuffer(head.tobytes() + b"".join(bodies), np.uint8))
    return made


def read_evidence(evidence: Sequence[NDArray[np.uint8]]) -> ComparedPictures:
    """The pictures on which `make_evidence` made this."""
    whole = [each.tobytes() for each in evidence]
    heads = np.frombuffer(b"".join(each[: HEAD.itemsize] for each in whole), HEAD)
    small, thumbnails = np.empty((len(whole), 2, SMALL, SMALL), np.uint8), []
    for row, (each, (first, second)) in enumerate(zip(whole, heads["lengths"].tolist(), strict=True)):
        stop = HEAD.itemsize + SMALL * SMALL + first
        small[row] = np.frombuffer(each, np.uint8, SMALL * SMALL, HEAD.itemsize).reshape(SMALL, SMALL)
        thumbnail = each[stop - first : stop]
        if second:
            small[row, WHOLE] = np.frombuffer(each, np.uint8, SMALL * SMALL, stop).reshape(SMALL, SMALL)
        thumbnails.append((thumbnail, each[stop + SMALL * SMALL :] if second else thumbnail))
    return ComparedPictures(heads["size"], heads["edges"], small, heads["look"]["chroma"], thumbnails)


def file_pictures(pictures: ComparedPictures) -> list[NDArray[np.uint64]]:
    """Places of each picture: of all windows of what lies within its margins, and of UNCUT windows of the whole."""
    filed = list(hash_places(pictures.reduce(INNER)))
    rows = np.flatnonzero(pictures.framed)
    for row, more in zip(rows.tolist(), hash_places(pictures[rows].reduce(WHOLE), UNCUT), strict=True):
        filed[row] = np.concatenate([filed[row], more])
    return filed


def measure_similarity(one: ComparedPictures, other: ComparedPictures, *, mirror: bool = False) -> NDArray[np.float64]:
    """How alike n pairs of pictures are: (n,) to 4 decimals from FLOOR on, else 0.

    Pure, and each pair for itself.

    Args:
        one: The first picture of each pair.
        other: The second ones.
        mirror: Whether the second one may be mirrored.
    """
    turns = (other, other.mirror()) if mirror else (other,)
    looks = [(turned, view) for turned in turns for view in (INNER, WHOLE)]
    best, found, starts = np.full(len(one), HOPEFUL), np.zeros(len(one)), list[_Start]()
    for turned, view in looks:
        rows = np.flatnonzero(one.framed | turned.framed) if view == WHOLE else np.arange(len(one))
        starts.append(_find_start(one[rows], turned[rows], rows, view))
        best[starts[-1].rows] = np.maximum(best[starts[-1].rows], starts[-1].agreement)
    for (turned, view), start in zip(looks, starts, strict=True):
        chosen = start.choose(np.flatnonzero((start.agreement >= best[start.rows]) & (found[start.rows] == 0)))
        for begin in range(0, chosen.rows.size, AT_ONCE):
            some = chosen.choose(np.arange(begin, min(begin + AT_ONCE, chosen.rows.size)))
            found[some.rows] = _compare_closely(one[some.rows], turned[some.rows], some, view)
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
        """Some of the pairs, by row."""
        return _Start(*(getattr(self, each)[those] for each in ("rows", "first", "second", "agreement", "moved")))


def _find_start(one: ComparedPictures, other: ComparedPictures, pairs: NDArray[np.int64], view: int) -> _Start:
    """Where pairs agree at SMALL pixels, by windows or by alignment; without those that are given up."""
    small, small_other = one.reduce(view), other.reduce(view)
    near = _measure_distortion(one.measure(view), other.measure(view)) <= DISTORTED
    first, second, best = choose_windows(small, small_other)
    rows = np.flatnonzero(near & (best >= HOPELESS))
    coarse, coarse_other = (reduce_pictures(each[rows], SMALL // 2) for each in (small, small_other))
    moved, target, agreement = align_windows(coarse, coarse_other, first[rows], second[rows], blur=2 / SMALL, steps=2)
    kept = agreement >= PROMISING
    rows, moved, target = rows[kept], moved[kept], target[kept]
    small, small_other, first, second = (each[rows] for each in (small, small_other, first, second))
    moved, target, _ = align_windows(small, small_other, moved, target, blur=1 / SMALL, steps=2)
    reframed = np.flatnonzero(_find_reframed(one, other)[rows] & (view == INNER))
    blurs, found = np.full((rows.size, 2), RESOLVED / SMALL), []
    for windows in ((first, second), (moved, target)):
        start, stop = widen_windows(*windows)
        shown, wanted = sample_windows(small, start, blurs, SMALL), sample_windows(small_other, stop, blurs, SMALL)
        found.append(compare_luminance(shown, wanted))
        found[-1][reframed[find_plain(shown[reframed], wanted[reframed])]] = 0.0
    better = found[1] > found[0]
    first, second = np.where(better[:, None], moved, first), np.where(better[:, None], target, second)
    return _Start(pairs[rows], first, second, np.maximum(found[0], found[1]), better)


def _find_reframed(one: ComparedPictures, other: ComparedPictures) -> NDArray[np.bool_]:
    """(n,): which pairs have other margins."""
    reframed: NDArray[np.bool_] = np.abs(one.shares - other.shares).max(axis=1) > REFRAMED
    return reframed


def _compare_closely(one: ComparedPictures, other: ComparedPictures, start: _Start, view: int) -> Floats:
    """(n,): similarity at SIDE pixels, as the pairs lie and once they are aligned."""
    views = one.decode(view), other.decode(view)
    sizes = one.measure(view), other.measure(view)
    found, rows = np.zeros(len(one)), np.flatnonzero(~start.moved)
    found[rows] = _compare_windows(*_choose_rows(rows, *views, start.first, start.second, *sizes))
    rows = np.flatnonzero(found < CERTAIN)
    a, b, first, second, *pixels = _choose_rows(rows, *views, start.first, start.second, *sizes)
    for side, steps in ((SIDE // 2, 2), (SIDE, 1)):
        shown, wanted = reduce_pictures(a[0], side), reduce_pictures(b[0], side)
        first, second, _ = align_windows(shown, wanted, first, second, blur=1 / side, steps=steps)
    found[rows] = np.maximum(found[rows], _compare_windows(a, b, first, second, *pixels))
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
    size: Floats,
    size_other: Floats,
) -> Floats:
    """(n,): how far two windows agree, as wide as both pictures allow; 0 where their colours differ."""
    first, second = widen_windows(first, second)
    tints = [_sample_colours(each[1], windows) for each, windows in ((one, first), (other, second))]
    same = np.flatnonzero(~find_tinted(*tints))  # colours are cheap, and what differs in them is not looked at any more
    shown, wanted = _sample_pairs(*_choose_rows(same, one[0], other[0], first, second, size, size_other))
    found, contrast = np.zeros(len(first)), np.zeros(len(first))
    found[same] = compare_luminance(shown, wanted)
    contrast[same] = np.minimum(shown.std(axis=(1, 2)), wanted.std(axis=(1, 2)))
    rows = np.flatnonzero(found >= FLOOR)
    first, second = _shrink_windows(first[rows]), _shrink_windows(second[rows])
    shown, wanted = _sample_pairs(one[0][rows], other[0][rows], first, second, size[rows], size_other[rows])
    inside = np.minimum(shown.std(axis=(1, 2)), wanted.std(axis=(1, 2)))
    telling = (inside >= FLAT) & (inside < HIDDEN * contrast[rows])
    found[rows] = np.minimum(found[rows], np.where(telling, compare_luminance(shown, wanted), 1.0))
    return found


def _sample_pairs(
    one: Floats, other: Floats, first: Floats, second: Floats, size: Floats, size_other: Floats
) -> tuple[Floats, Floats]:
    """(n, POINTS, POINTS) each: windows of pictures, equally sharp, as what fills less of a thumbnail shows less."""
    shares = [windows[:, 1::2] - windows[:, ::2] for windows in (first, second)]
    limits = RESOLVED / (size * shares[0]), RESOLVED / (size_other * shares[1])
    wanted = np.maximum(SEEN / (SIDE * np.minimum(*shares)), np.maximum(*limits))
    blurs = [np.sqrt(np.maximum((wanted * share) ** 2 - (SHARP / SIDE) ** 2, (0.3 / SIDE) ** 2)) for share in shares]
    return sample_windows(one, first, blurs[0], POINTS), sample_windows(other, second, blurs[1], POINTS)


def _shrink_windows(windows: Floats) -> Floats:
    """(n, 4): the middle of windows."""
    ends = windows.reshape(-1, 2, 2)
    cut = np.diff(ends, axis=2) * EDGE * np.array([1.0, -1.0])
    shrunk: Floats = (ends + cut).reshape(-1, 4)
    return shrunk


def _sample_colours(chroma: Floats, windows: Floats) -> Floats:
    """(n, 8, 8, 2): the colours of windows."""
    blurs = np.full((len(chroma), 2), 1 / COLOURS)
    return np.stack([sample_windows(chroma[..., plane], windows, blurs, 8) for plane in (0, 1)], axis=3)
