"""How the sequences of a step are dealt over ranks and micro-batches, so that no rank waits for another.

Under FSDP2 ranks meet at every layer: none begins the language model before the slowest has left its vision tower. A
micro-batch therefore takes as long as the most vision that a rank has in it, and the most text. What a step holds does
not change: losses are sums over its tokens, wherever they are computed. Arithmetic alone, the same on every rank.
"""

from __future__ import annotations

import numpy as np

SWEEPS = 96
"""Rounds of exchanges. Each takes 0.3 ms for 1,024 ranks with four sequences each; more change the third decimal."""

SMOOTH = 0.25
"""Weight of how far two ranks are from the mean beside how far the worse of them is above it."""

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64)
"""Numbers of steps that `choose_bucket` tries."""

ENOUGH = 1.03
"""The imbalance at which no more steps are put into a bucket."""

LOOKED_AT = 64
"""Steps from the plan's start that `choose_bucket` looks at."""

PAIRS = 4096
"""Pairs of tokens in attention that cost as much as a token in the linear layers: six times the width of the language
model. Only `estimate_costs` takes it, which knows no model. Ranks wait longest where the model is small, so it is that
of a small one, with a width of 680."""

VISION = 0.5
"""The FLOPs of vision over those of text that `estimate_costs` takes: those of a small language model behind SigLIP."""


def deal_sequences(costs: np.ndarray, ranks: int, accumulation: int = 1) -> np.ndarray:
    """Which sequences of a step each rank has in each micro-batch: (ranks, accumulation, rest) numbers, ascending.

    Each has as many. Pairs of cells exchange sequences while that brings them nearer to the mean; then cells that are
    alike become a micro-batch. One rank keeps the order that there is.

    Args:
        costs: (sequences, 2) of vision and text, in one unit.
        ranks: that deal.
        accumulation: micro-batches of a rank.

    Raises:
        ValueError: the sequences cannot be dealt out evenly.
    """
    cells = ranks * accumulation
    if len(costs) % cells:
        raise ValueError(f"{len(costs)} sequences cannot be dealt over {ranks} ranks and {accumulation} micro-batches")
    if ranks == 1:
        return np.arange(len(costs)).reshape(1, accumulation, -1)
    costs = np.asarray(costs, np.float64)
    dealt = np.sort(_exchange_sequences(costs, _fill_cells(costs, cells)), axis=1)
    alike = group_alike(costs[dealt].sum(axis=1), accumulation)
    found = dealt[alike]  # (accumulation, ranks, rest)
    first = np.argsort(found[:, :, 0], axis=1)  # a rank reads about the same stretch of the plan in every micro-batch
    return np.take_along_axis(found, first[:, :, None], axis=1).swapaxes(0, 1)


def group_alike(costs: np.ndarray, groups: int) -> np.ndarray:
    """Groups of equally many that cost alike: (groups, rest) numbers.

    Sorted by vision and cut into strata, these sorted by text and cut again; of all ways to cut, the one whose groups
    take the least time.

    Args:
        costs: (things, 2) of vision and text.
        groups: that divide their number.
    """
    by_vision = np.lexsort((costs[:, 1], costs[:, 0]))
    found: list[tuple[float, np.ndarray]] = []
    for strata in (number for number in range(1, groups + 1) if groups % number == 0):
        cut = by_vision.reshape(strata, -1)
        by_text = np.take_along_axis(cut, np.argsort(costs[cut, 1], axis=1, kind="stable"), axis=1)
        grouped = by_text.reshape(groups, -1)
        found.append((float(costs[grouped].max(axis=1).sum()), grouped))
    return min(found, key=lambda one: one[0])[1]


def measure_imbalance(costs: np.ndarray, dealt: np.ndarray) -> float:
    """How long a step takes over how long it would take if all ranks had the same: 1 at best.

    The sum over micro-batches of the most vision and the most text that a rank has, over the mean.

    Args:
        costs: (sequences, 2) of vision and text.
        dealt: as `deal_sequences` returns it.
    """
    slowest, mean = measure_time(costs, dealt)
    return slowest / mean if mean else 1.0


def measure_time(costs: np.ndarray, dealt: np.ndarray) -> tuple[float, float]:
    """What the slowest rank of each micro-batch and layer has, and what a rank has in the mean."""
    cells = costs[dealt].sum(axis=2)
    return float(cells.max(axis=0).sum()), float(cells.sum(axis=(1, 2)).mean())


def estimate_costs(shapes: np.ndarray) -> np.ndarray:
    """Costs (sequences, 2) without a model: tiles, and tokens with their attention, each over its mean.

    Tiles count VISION times as much. With one set of weights for all models the order of a training follows from its
    recipe alone, and is found without torch.

    Args:
        shapes: (sequences, 3) of tokens, pairs of tokens and tiles, as `PlannedMixture.measure` has them.
    """
    costs = np.stack([shapes[:, 2], shapes[:, 0] + shapes[:, 1] / PAIRS], axis=1)
    means = costs.mean(axis=0)
    relative: np.ndarray = np.divide(costs, means, out=np.zeros_like(costs), where=means > 0)
    return relative * (VISION, 1)


def choose_bucket(shapes: np.ndarray, sequences: int, ranks: int, accumulation: int) -> int:
    """How many steps are filled together, each with sequences that cost alike.

    One where the sequences of a step can be dealt to ENOUGH, as they can where ranks have several of a micro-batch.

    Args:
        shapes: of the first sequences of the plan, those of LOOKED_AT steps if it has as many.
        sequences: of a step.
        ranks: that the stage is meant for.
        accumulation: micro-batches of a rank.
    """
    if ranks == 1:
        return 1
    found: list[tuple[float, int]] = []
    for bucket in BUCKETS:
        whole = len(shapes) // (bucket * sequences) * bucket * sequences
        if not whole:
            break
        times = [
            measure_time(costs[some], deal_sequences(costs[some], ranks, accumulation))
            for costs in map(estimate_costs, np.split(shapes[:whole], whole // (bucket * sequences)))
            for some in group_alike(costs, bucket)
        ]
        slowest, mean = np.sum(times, axis=0)
        found.append((slowest / mean if mean else 1.0, bucket))
        if found[-1][0] <= ENOUGH:
            break
    return min(found, default=(1.0, 1))[1]


def _fill_cells(costs: np.ndarray, cells: int) -> np.ndarray:
    """(cells, rest) numbers: round after round the costliest that are left, the costliest of them where least is."""
    order = np.argsort(-costs.sum(axis=1), kind="stable").reshape(-1, cells)
    dealt, load = np.empty((cells, len(order)), np.int64), np.zeros(cells)
    for number, some in enumerate(order):
        free = np.argsort(load, kind="stable")
        dealt[free, number] = some
        load[free] += costs[some].sum(axis=1)
    return dealt


def _exchange_sequences(costs: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """The same after exchanges between pairs of cells: the fullest with the emptiest, by one resource or both."""
    cells, rest = dealt.shape
    if rest == 1:
        return dealt
    dealt, half = dealt.copy(), cells // 2
    load = costs[dealt].sum(axis=1)
    mean = load.mean(axis=0)
    least, idle = 1e-9 * mean.sum(), 0
    for sweep in range(SWEEPS):
        off = load - mean
        by = (off[:, 0], off[:, 1], off.sum(axis=1), off[:, 0] - off[:, 1])[sweep % 4]
        order = np.argsort(by, kind="stable")
        one, other = order[:half], (order[::-1][:half] if sweep // 4 % 2 == 0 else order[cells - half :])
        moved = costs[dealt[other]][:, None] - costs[dealt[one]][:, :, None]  # (pairs, of one, of other, 2)
        after = _rate_pairs(off[one][:, None, None] + moved, off[other][:, None, None] - moved).reshape(half, -1)
        best = after.argmin(axis=1)
        better = _rate_pairs(off[one], off[other]) - after[np.arange(half), best] > least
        idle = 0 if better.any() else idle + 1
        if idle == 8:  # every way to pair cells was tried
            break
        one, other, (first, second) = one[better], other[better], np.divmod(best[better], rest)
        dealt[one, first], dealt[other, second] = dealt[other, second], dealt[one, first]
        load = costs[dealt].sum(axis=1)
    return dealt


def _rate_pairs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How bad two cells are (..., 2 resources off the mean): what the worse adds to the time, and how far both are."""
    above = np.maximum(one, other).clip(min=0).sum(axis=-1)
    far = np.sqrt((one**2 + other**2).sum(axis=-1))
    rated: np.ndarray = above + SMOOTH * far
    return rated
