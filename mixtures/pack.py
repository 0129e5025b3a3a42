"""Packing: segments into rows that exceed neither a number of tokens nor one of tiles.

Best fit decreasing over a window of segments. The longest go first, a segment's length being the larger of its two shares of a
row; each goes where the fewest tokens remain free afterwards. Rows are indexed by their free tiles, so that the search looks at
rows with room for both budgets only.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np


def pack(tokens: np.ndarray, tiles: np.ndarray, row_tokens: int, row_tiles: int) -> np.ndarray:
    """The row (int64, from 0 without gaps) of every segment; pure.

    Args:
        tokens: of each segment.
        tiles: of each segment, 0 for text alone.
        row_tokens: that a row may hold.
        row_tiles: that a row may hold.

    Raises:
        ValueError: a segment does not fit an empty row.
    """
    if np.any(tokens > row_tokens) or np.any(tiles > row_tiles):
        raise ValueError(
            f"a segment of {tokens.max()} tokens or {tiles.max()} tiles does not fit a row of {row_tokens} and {row_tiles}"
        )
    order = np.argsort(-np.maximum(tokens / row_tokens, tiles / row_tiles), kind="stable")
    shortest = int(tokens.min(initial=row_tokens))
    shelves: dict[int, list[tuple[int, int]]] = {}  # free tiles -> (free tokens, row), ascending
    rows, opened = np.empty(tokens.size, np.int64), 0
    for segment, length, inputs in zip(
        order.tolist(), tokens[order].tolist(), tiles[order].tolist(), strict=True
    ):
        found = _best(shelves, length, inputs)
        if found is None:
            free_tiles, free_tokens, row = row_tiles, row_tokens, opened
            opened += 1
        else:
            free_tiles, place = found
            free_tokens, row = shelves[free_tiles].pop(place)
            if not shelves[free_tiles]:
                del shelves[free_tiles]
        rows[segment] = row
        if free_tokens - length >= shortest:
            insort(shelves.setdefault(free_tiles - inputs, []), (free_tokens - length, row))
    return rows


def _best(shelves: dict[int, list[tuple[int, int]]], tokens: int, tiles: int) -> tuple[int, int] | None:
    """Shelf and place of the row with the fewest sufficient free tokens; of equals the one with the fewest free tiles."""
    best: tuple[int, int, int] | None = None
    for free_tiles, shelf in shelves.items():
        if free_tiles < tiles:
            continue
        place = bisect_left(shelf, (tokens, -1))
        if place < len(shelf):
            found = (shelf[place][0], free_tiles, place)
            if best is None or found < best:
                best = found
                if found[0] == tokens and free_tiles == tiles:
                    break
    return None if best is None else best[1:]
