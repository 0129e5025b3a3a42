"""How full rows get and how long packing takes, beside other packers on the same segments: `python -m benchmarks.pack`.

Segments have the lengths of OBELICS-like documents (815 text tokens in the mean, log-normal, 2.5 images in the mean, about 540 px a side) under
three image policies, documents longer than a row cut between nodes. `full` is tokens over rows times the length of a row; `bound` is how full the
fewest thinkable rows would be, which is less than 1 where tiles run out before tokens. Seconds are of the processor.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlmill.mixtures.algorithms.pack import pack_segments
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.steps.cut import Nodes, cut_sample
from vlmill.pipeline.images import Policy
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.letterbox import Letterbox

DOCUMENTS = 20_000
ROWS = ((2048, 64), (8192, 64), (8192, 24))
"""Tokens and tiles of a row: 64 tiles is what a mixture has by default; with 24, both bind."""

WINDOW = MixtureSettings.pack_window
OVERHEAD = 2

Shows = Callable[[list[tuple[int, int]]], list[tuple[int, int]]]
"""Sizes of a document's images -> tokens and tiles of each."""

Packer = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def sixty_four(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """64 tokens of one tile each, whatever the size: a perceiver, as in Idefics2."""
    return [(64, 1)] * len(sizes)


def of_policy(policy: Policy) -> Shows:
    """Tokens and tiles of images under a policy."""
    return lambda sizes: [(layout.tokens, layout.tiles) for layout in policy.layout(sizes)]


POLICIES: dict[str, Shows] = {
    "AnyRes (336 px, LLaVA-NeXT)": of_policy(AnyRes()),
    "letterbox (384 px, patch 14)": of_policy(Letterbox(side=384, patch=14)),
    "64 tokens": sixty_four,
}


@dataclass(frozen=True)
class Documents:
    """Segments of made-up documents, in order, and what no row has room for."""

    tokens: np.ndarray
    tiles: np.ndarray
    nodes: int
    lost: Counter[str]


def segments(documents: int, row_tokens: int, row_tiles: int, shows: Shows, seed: int = 0) -> Documents:
    """Documents cut as the select step cuts them."""
    random = np.random.default_rng(seed)
    tokens, tiles, nodes, lost = [], [], 0, Counter[str]()
    for text, images in zip(
        random.lognormal(6.2, 1.0, documents).astype(int) + 8, random.geometric(0.4, documents).tolist(), strict=True
    ):
        sides = random.lognormal(6.3, 0.5, (images, 2)).astype(int).clip(32, 4096)
        shown = shows([(width, height) for width, height in sides.tolist()])
        lengths = [cost for (visual, _) in shown for cost in (visual, int(text // images))]
        inputs = [cost for (_, inside) in shown for cost in (inside, 0)]
        count = len(lengths)
        parted = cut_sample(
            Nodes(lengths, inputs, [True, False] * images, [0] * count, ["none"] * count),
            row_tokens - OVERHEAD,
            row_tiles,
        )
        nodes += count
        lost.update(str(reason) for reason in parted.lost.values())
        tokens += [sum(lengths[first:last]) + OVERHEAD for first, last in parted.segments]
        tiles += [sum(inputs[first:last]) for first, last in parted.segments]
    return Documents(np.array(tokens), np.array(tiles), nodes, lost)


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
    "vlmill, windows": windowed(pack_segments),
    "vlmill, offline": pack_segments,
    "best fit decreasing, offline": best_fit_decreasing,
    "first fit, windows": windowed(first_fit),
    "next fit": next_fit,
}


def main() -> None:
    """Print a line per policy, row and packer."""
    for policy, shows in POLICIES.items():
        for row_tokens, row_tiles in ROWS:
            made = segments(DOCUMENTS, row_tokens, row_tiles, shows)
            whole = made.tokens.sum() / row_tokens
            fewest = max(whole, made.tiles.sum() / row_tiles)
            lost = ", ".join(f"{reason} {number:,}" for reason, number in sorted(made.lost.items())) or "none"
            print(
                f"{policy}: {made.tokens.size:,} segments of {DOCUMENTS:,} documents, rows of {row_tokens:,} tokens and {row_tiles} tiles; "
                f"bound {whole / fewest:.2%}; nodes lost of {made.nodes:,}: {lost}"
            )
            for name, packer in PACKERS.items():
                started = time.process_time()
                rows = packer(made.tokens, made.tiles, row_tokens, row_tiles)
                seconds = time.process_time() - started
                full = whole / (int(rows.max()) + 1)
                print(f"  {name:<30} {full:.2%} full, {seconds:6.2f} s, {made.tokens.size / seconds:>9,.0f} segments/s")


if __name__ == "__main__":
    main()
