"""How full rows get and how long packing takes, beside other packers on the same segments: `python -m benchmarks.pack`.

Segments have the lengths of OBELICS-like documents (815 text tokens in the mean, log-normal, 2.5 images in the mean), documents longer than a row
cut between nodes. `full` is tokens over rows times the length of a row; `bound` is how full the fewest thinkable rows would be,
which is less than 1 where tiles run out before tokens. Seconds are of the processor.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable

import numpy as np

from mixtures.cut import Nodes, cut
from mixtures.mixture import Mixture
from mixtures.pack import pack

IMAGE = 64
WINDOW = Mixture.pack_window
OVERHEAD = 2

Packer = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def segments(
    documents: int, row_tokens: int, row_tiles: int, tiles_per_image: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and tiles of the segments of made-up documents, in order."""
    random = np.random.default_rng(seed)
    tokens, tiles = [], []
    for text, images in zip(
        random.lognormal(6.2, 1.0, documents).astype(int) + 8, random.geometric(0.4, documents), strict=True
    ):
        nodes = int(images) * 2
        lengths = [IMAGE * tiles_per_image, int(min(text // images, row_tokens - OVERHEAD))] * int(images)
        inputs = [tiles_per_image, 0] * int(images)
        parted = cut(
            Nodes(lengths, inputs, [True, False] * int(images), [0] * nodes, ["none"] * nodes),
            row_tokens - OVERHEAD,
            row_tiles,
        )
        tokens += [sum(lengths[first:last]) + OVERHEAD for first, last in parted.segments]
        tiles += [sum(inputs[first:last]) for first, last in parted.segments]
    return np.array(tokens), np.array(tiles)


def windowed(packer: Packer) -> Packer:
    """A packer that sees so many segments at a time as a window of the plan holds."""

    def packed(tokens: np.ndarray, tiles: np.ndarray, row_tokens: int, row_tiles: int) -> np.ndarray:
        rows, opened = [], 0
        for start in range(0, tokens.size, WINDOW):
            window = slice(start, start + WINDOW)
            rows.append(packer(tokens[window], tiles[window], row_tokens, row_tiles) + opened)
            opened = int(rows[-1].max()) + 1
        return np.concatenate(rows)

    return packed


def first_fit(tokens: np.ndarray, tiles: np.ndarray, row_tokens: int, row_tiles: int) -> np.ndarray:
    """The first row with room, segments as they come."""
    free_tokens, free_tiles = np.full(tokens.size, row_tokens), np.full(tokens.size, row_tiles)
    rows, opened = np.empty(tokens.size, np.int64), 0
    for segment, (length, inputs) in enumerate(zip(tokens.tolist(), tiles.tolist(), strict=True)):
        row = int(np.argmax((free_tokens[: opened + 1] >= length) & (free_tiles[: opened + 1] >= inputs)))
        opened = max(opened, row + 1)
        free_tokens[row] -= length
        free_tiles[row] -= inputs
        rows[segment] = row
    return rows


def best_fit_decreasing(tokens: np.ndarray, tiles: np.ndarray, row_tokens: int, row_tiles: int) -> np.ndarray:
    """The longest segments first, each where the fewest tokens remain free; rows are kept by their free tiles."""
    order = np.argsort(-np.maximum(tokens / row_tokens, tiles / row_tiles), kind="stable")
    shelves: dict[int, list[tuple[int, int]]] = {}
    rows, opened = np.empty(tokens.size, np.int64), 0
    for segment, length, inputs in zip(order.tolist(), tokens[order].tolist(), tiles[order].tolist(), strict=True):
        fits = [
            (shelf[place][0], free, place)
            for free, shelf in shelves.items()
            if free >= inputs and (place := bisect_left(shelf, (length, -1))) < len(shelf)
        ]
        if fits:
            _, free, place = min(fits)
            free_tokens, row = shelves[free].pop(place)
        else:
            free, free_tokens, row = row_tiles, row_tokens, opened
            opened += 1
        rows[segment] = row
        insort(shelves.setdefault(free - inputs, []), (free_tokens - length, row))
    return rows


def next_fit(tokens: np.ndarray, tiles: np.ndarray, row_tokens: int, row_tiles: int) -> np.ndarray:
    """The row at hand, else a new one."""
    rows, row, used, shown = np.empty(tokens.size, np.int64), 0, 0, 0
    for segment, (length, inputs) in enumerate(zip(tokens.tolist(), tiles.tolist(), strict=True)):
        if used + length > row_tokens or shown + inputs > row_tiles:
            row, used, shown = row + 1, 0, 0
        used, shown, rows[segment] = used + length, shown + inputs, row
    return rows


PACKERS: dict[str, Packer] = {
    "vlmill, windows": windowed(pack),
    "vlmill, offline": pack,
    "best fit decreasing, offline": best_fit_decreasing,
    "first fit, windows": windowed(first_fit),
    "next fit": next_fit,
}


def main() -> None:
    """Print a line per row size and packer."""
    for row_tokens, row_tiles, tiles_per_image in (
        (1024, 16, 1),
        (2048, 32, 1),
        (2048, 8, 1),
        (2048, 64, 5),
        (8192, 128, 1),
        (8192, 24, 1),
        (8192, 128, 5),
    ):
        tokens, tiles = segments(60_000, row_tokens, row_tiles, tiles_per_image)
        fewest = max(tokens.sum() / row_tokens, tiles.sum() / row_tiles)
        print(
            f"{tokens.size:,} segments, rows of {row_tokens:,} tokens and {row_tiles} tiles, {tiles_per_image} tiles an image; bound {tokens.sum() / row_tokens / fewest:.2%}"
        )
        for name, packer in PACKERS.items():
            started = time.process_time()
            rows = packer(tokens, tiles, row_tokens, row_tiles)
            seconds = time.process_time() - started
            full = tokens.sum() / row_tokens / (int(rows.max()) + 1)
            print(f"  {name:<38} {full:.2%} full, {seconds:.2f} s, {tokens.size / seconds:,.0f} segments/s")


if __name__ == "__main__":
    main()
