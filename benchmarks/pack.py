"""How full sequences get and how long packing takes, beside other packers on the same segments.

`python -m benchmarks.pack`.

Segments have the lengths of OBELICS-like documents (815 text tokens in the mean, log-normal, 2.5 images in the mean,
about 540 px a side) under three image policies, documents longer than a sequence cut between nodes. `full` is tokens
over sequences times the length of a sequence; `bound` is how full the fewest thinkable sequences would be, which is
less than 1 where tiles run out before tokens. Seconds are of the processor.
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
"""Tokens and tiles of a sequence: 64 tiles is what a mixture has by default; with 24, both bind."""

WINDOW = MixtureSettings.pack_window
OVERHEAD = 2
SENTENCE = 20
"""Tokens of a sentence, between which a text may be cut."""

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
    """Segments of made-up documents, in order, and what fits no sequence."""

    tokens: np.ndarray
    tiles: np.ndarray
    nodes: int
    lost: Counter[str]


def segments(documents: int, sequence_tokens: int, sequence_tiles: int, shows: Shows, seed: int = 0) -> Documents:
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
        count, read = len(lengths), [0, int(text // images)] * images
        ends = [range(SENTENCE, length, SENTENCE) for length in read]
        whole = Nodes(
            lengths, inputs, [True, False] * images, [0] * count, ["none"] * count, read, [0] * count, ends, ends
        )
        parted = cut_sample(whole, sequence_tokens - OVERHEAD, sequence_tiles)
        nodes += count
        lost.update(str(reason) for reason in parted.lost.values())
        for part in parted.segments:
            spans = list(whole.list_spans(part))
            tokens.append(sum(end - begin for _, begin, end in spans) + OVERHEAD)
            tiles.append(sum(inputs[node] for node, begin, _ in spans if not begin))
    return Documents(np.array(tokens), np.array(tiles), nodes, lost)


def windowed(packer: Packer) -> Packer:
    """A packer that sees so many segments at a time as a window of the plan holds."""

    def packed(tokens: np.ndarray, tiles: np.ndarray, sequence_tokens: int, sequence_tiles: int) -> np.ndarray:
        sequences, opened = [], 0
        for start in range(0, tokens.size, WINDOW):
            window = slice(start, start + WINDOW)
            sequences.append(packer(tokens[window], tiles[window], sequence_tokens, sequence_tiles) + opened)
            opened = int(sequences[-1].max()) + 1
        return np.concatenate(sequences)

    return packed


def first_fit(tokens: np.ndarray, tiles: np.ndarray, sequence_tokens: int, sequence_tiles: int) -> np.ndarray:
    """The first sequence with space, segments as they come."""
    free_tokens, free_tiles = np.full(tokens.size, sequence_tokens), np.full(tokens.size, sequence_tiles)
    sequences, opened = np.empty(tokens.size, np.int64), 0
    for segment, (length, inputs) in enumerate(zip(tokens.tolist(), tiles.tolist(), strict=True)):
        sequence = int(np.argmax((free_tokens[: opened + 1] >= length) & (free_tiles[: opened + 1] >= inputs)))
        opened = max(opened, sequence + 1)
        free_tokens[sequence] -= length
        free_tiles[sequence] -= inputs
        sequences[segment] = sequence
    return sequences


def best_fit_decreasing(tokens: np.ndarray, tiles: np.ndarray, sequence_tokens: int, sequence_tiles: int) -> np.ndarray:
    """The longest segments first, each where the fewest tokens remain free; sequences are kept by their free tiles."""
    order = np.argsort(-np.maximum(tokens / sequence_tokens, tiles / sequence_tiles), kind="stable")
    shelves: dict[int, list[tuple[int, int]]] = {}
    sequences, opened = np.empty(tokens.size, np.int64), 0
    for segment, length, inputs in zip(order.tolist(), tokens[order].tolist(), tiles[order].tolist(), strict=True):
        fits = [
            (shelf[place][0], free, place)
            for free, shelf in shelves.items()
            if free >= inputs and (place := bisect_left(shelf, (length, -1))) < len(shelf)
        ]
        if fits:
            _, free, place = min(fits)
            free_tokens, sequence = shelves[free].pop(place)
        else:
            free, free_tokens, sequence = sequence_tiles, sequence_tokens, opened
            opened += 1
        sequences[segment] = sequence
        insort(shelves.setdefault(free - inputs, []), (free_tokens - length, sequence))
    return sequences


def next_fit(tokens: np.ndarray, tiles: np.ndarray, sequence_tokens: int, sequence_tiles: int) -> np.ndarray:
    """The sequence at hand, else a new one."""
    sequences, sequence, used, shown = np.empty(tokens.size, np.int64), 0, 0, 0
    for segment, (length, inputs) in enumerate(zip(tokens.tolist(), tiles.tolist(), strict=True)):
        if used + length > sequence_tokens or shown + inputs > sequence_tiles:
            sequence, used, shown = sequence + 1, 0, 0
        used, shown, sequences[segment] = used + length, shown + inputs, sequence
    return sequences


PACKERS: dict[str, Packer] = {
    "vlmill, windows": windowed(pack_segments),
    "vlmill, offline": pack_segments,
    "best fit decreasing, offline": best_fit_decreasing,
    "first fit, windows": windowed(first_fit),
    "next fit": next_fit,
}


def main() -> None:
    """Print a line per policy, sequence and packer."""
    for policy, shows in POLICIES.items():
        for sequence_tokens, sequence_tiles in ROWS:
            made = segments(DOCUMENTS, sequence_tokens, sequence_tiles, shows)
            whole = made.tokens.sum() / sequence_tokens
            fewest = max(whole, made.tiles.sum() / sequence_tiles)
            lost = ", ".join(f"{reason} {number:,}" for reason, number in sorted(made.lost.items())) or "none"
            print(
                f"{policy}: {made.tokens.size:,} segments of {DOCUMENTS:,} documents, sequences of "
                f"{sequence_tokens:,} tokens and {sequence_tiles} tiles; bound {whole / fewest:.2%}; nodes lost of "
                f"{made.nodes:,}: {lost}"
            )
            for name, packer in PACKERS.items():
                started = time.process_time()
                sequences = packer(made.tokens, made.tiles, sequence_tokens, sequence_tiles)
                seconds = time.process_time() - started
                full = whole / (int(sequences.max()) + 1)
                print(f"  {name:<30} {full:.2%} full, {seconds:6.2f} s, {made.tokens.size / seconds:>9,.0f} segments/s")


if __name__ == "__main__":
    main()
