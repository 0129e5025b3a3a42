"""The order of a mixture before packing: which source comes next, and which of its samples.

Both are functions of an index, so any block can be made without the ones before it and no rank needs another's state:

- `permute_index` is a keyed permutation of [0, size) that is evaluated at single indices.
- `SourceOrder` is the endless order of one source: epoch after epoch, shards shuffled, samples shuffled within a window
  of shards.
- `merge_sources` interleaves sources by share, from any start.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlmill.mixtures.algorithms.schedule import Schedule

ROUNDS = 4  # enough for a balanced Feistel network to be a strong permutation (Luby and Rackoff 1988)
SMALL = 4096  # below, sorting a whole domain is quicker than walking through it
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the step between round keys, as in SplitMix64
WORD = (1 << 64) - 1


def make_order_key(*parts: str | int) -> int:
    """64 bits that depend on every part and on nothing else."""
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def make_order_keys(*parts: str | int, last: Iterable[str]) -> np.ndarray:
    """`make_order_key(*parts, each)` of each of `last` (uint64)."""
    head = json.dumps(parts, separators=(",", ":"))[:-1] + ","
    texts = (f"{head}{json.dumps(each)}]".encode() for each in last)
    return np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts), "<u8")


def permute_index(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """Where a keyed shuffle of [0, size) puts each of `index` (int64): a bijection for every key, without state.

    A small domain is sorted by the keyed hash of its members. A large one goes through a Feistel network over the next
    power of two, again from where it leaves [0, size) (cycle walking, Black and Rogaway 2002; under two walks on
    average).
    """
    if size < SMALL:
        shuffled: np.ndarray = np.argsort(_scramble_bits(np.arange(size, dtype=np.uint64), key, 0), kind="stable")[
            index
        ]
        return shuffled
    bits = (size - 1).bit_length()
    values, outside = index.astype(np.uint64), np.arange(index.size)
    while outside.size:
        values[outside] = walked = _permute_bits(values[outside], bits, key)
        outside = outside[walked >= size]
    return values.astype(np.int64)


def _permute_bits(values: np.ndarray, bits: int, key: int) -> np.ndarray:
    """A permutation of [0, 2^bits): halves of unlike width take turns in masking each other."""
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    low, high = values & low_mask, values >> low_bits
    for number in range(0, ROUNDS, 2):
        high ^= _scramble_bits(low, key, number) & high_mask
        low ^= _scramble_bits(high, key, number + 1) & low_mask
    return (high << low_bits) | low


def _scramble_bits(values: np.ndarray, key: int, number: int) -> np.ndarray:
    """The upper half of MurmurHash3's 64-bit finaliser, over value and round key."""
    mixed = values + np.uint64((key + (number + 1) * GOLDEN) & WORD)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed ^= mixed >> np.uint64(33)
        mixed *= np.uint64(factor)
    return mixed >> np.uint64(32)


@dataclass(frozen=True, slots=True)
class OrderSpan:
    """A stretch of a walk inside one window: `places` index the samples of `shards`, counted through in that order."""

    half: int  # halves of epochs before the one it lies in
    shards: np.ndarray
    places: np.ndarray


@dataclass(frozen=True, slots=True)
class SourceOrder:
    """The endless order of one source. Shards without samples are not visited.

    A source is halved for good, into samples or, where it has more shards than a window, into shards; an epoch is one
    half and then the other, each shuffled anew. So between two uses of a sample lies the whole half that it is not of.
    """

    samples: np.ndarray  # per shard
    key: int
    window: int  # shards whose samples are shuffled together: what a reader has open at a time

    @property
    def size(self) -> int:
        """Samples of one epoch."""
        return int(self.samples.sum())

    def windows(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The shards of each window of an epoch, and where each window starts among the epoch's samples.

        There is one start more than windows.
        """
        halves = self._halves()
        if len(halves) > 1:
            keys = (make_order_key(self.key, "shards", epoch, half) for half in range(2))
            halves = [
                half[permute_index(np.arange(half.size), half.size, key)]
                for half, key in zip(halves, keys, strict=True)
            ]
        windows = [half[at : at + self.window] for half in halves for at in range(0, half.size, self.window)]
        return windows, np.cumsum([0, *(int(self.samples[window].sum()) for window in windows)])

    def spans(self, start: int, stop: int) -> Iterator[OrderSpan]:
        """Items [start, stop) of the walk, in order."""
        while start < stop:
            epoch, inside = divmod(start, self.size)
            windows, bounds = self.windows(epoch)
            end = min(stop - epoch * self.size, self.size)
            for number in range(int(np.searchsorted(bounds, inside, "right")) - 1, len(windows)):
                for half, low, high in self._parts(number, bounds):
                    first, last = max(inside, low), min(end, high)
                    if first < last:
                        places = self._places(np.arange(first - low, last - low), epoch, number, half, bounds)
                        yield OrderSpan(2 * epoch + half, windows[number], places)
            start = epoch * self.size + end

    def _parts(self, number: int, bounds: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """The halves (0 or 1) that a window holds of, and where among the epoch's samples they begin and end."""
        if bounds.size == 2:
            middle = (self.size + 1) // 2
            yield from ((0, 0, middle), (1, middle, self.size))
        else:
            first = -(-self._halves()[0].size // self.window)  # windows of the first half
            yield int(number >= first), int(bounds[number]), int(bounds[number + 1])

    def _places(self, index: np.ndarray, epoch: int, number: int, half: int, bounds: np.ndarray) -> np.ndarray:
        """Where in its window each of `index` of a half lies."""
        key = make_order_key(self.key, "samples", epoch, number, half)
        if bounds.size > 2:
            return permute_index(index, int(bounds[number + 1] - bounds[number]), key)
        middle = (self.size + 1) // 2
        shuffled = permute_index(index, self.size - middle if half else middle, key)
        return permute_index(shuffled + half * middle, self.size, make_order_key(self.key, "halves"))

    def _halves(self) -> list[np.ndarray]:
        """The shards of each half; those of both where they are one window, whose samples are halved."""
        filled = np.flatnonzero(self.samples)
        if filled.size <= self.window:
            return [filled]
        shuffled = filled[permute_index(np.arange(filled.size), filled.size, make_order_key(self.key, "halves"))]
        held = np.cumsum(self.samples[shuffled])
        return np.split(shuffled, [int(np.argmin(np.abs(2 * held - held[-1]))) + 1])


class _EvenPace:
    """When items are due where shares stay the same: in time that is counted in what all sources add up to."""

    def __init__(self, totals: Sequence[int]) -> None:
        whole = sum(totals)
        self.pace = [whole / total if total else 0.0 for total in totals]
        self.slack = whole * 1e-15  # what a product of two floats may be off by

    def start(self, source: int, amount: int) -> float:
        """The time before which a source that has had `amount` gets no more."""
        return amount * self.pace[source]

    def end(self, source: int, amount: int) -> float:
        """The time by which a source is due to have had `amount`."""
        return amount * self.pace[source]

    def now(self, amount: int) -> float:
        """The time at which all sources together have had `amount`."""
        return amount


class _MovingPace:
    """The same where shares move: in the time of their schedule."""

    slack = 1e-12

    def __init__(self, totals: Sequence[int], schedule: Schedule) -> None:
        self.curves, self.whole = schedule.draw(totals)

    def start(self, source: int, amount: int) -> float:
        """As above."""
        return self.curves[source].find_time(amount, last=True)

    def end(self, source: int, amount: int) -> float:
        """As above."""
        return self.curves[source].find_time(amount)

    def now(self, amount: int) -> float:
        """As above."""
        return self.whole.find_time(amount)


def merge_sources(
    totals: Sequence[int], spent: Sequence[int], lengths: Sequence[Iterator[int]], schedule: Schedule | None = None
) -> Iterator[int]:
    """Interleave sources so that every prefix has their shares: yields the index of the source that comes next.

    This is the chairman assignment problem (Tijdeman 1980) for items of unlike length, decided by deadlines: of the
    sources that are not ahead of their share, the one whose next item must be finished first. The rule is WF2Q (Bennett
    and Zhang 1996, theorem 1): after every item a source is at most the longest item of any source behind its share and
    less than its own longest item ahead of it. With all lengths 1, every prefix is within one sample of its share.

    Args:
        totals: what each source adds up to in the end; the shares are these over their sum.
        spent: what each has added up to before the first item.
        lengths: the lengths of each source's remaining items. The merge ends when all have ended.
        schedule: of shares that move; then "its share" is what the source should have had by then.
    """
    done, clock = list(spent), sum(spent)
    pace = _EvenPace(totals) if schedule is None else _MovingPace(totals, schedule)
    waiting = [(pace.start(source, amount), source) for source, amount in enumerate(done)]
    heapq.heapify(waiting)
    ready: list[tuple[float, int, int]] = []
    while waiting or ready:
        now = pace.now(clock) + pace.slack
        while waiting and (waiting[0][0] <= now or not ready):
            source = heapq.heappop(waiting)[1]
            length = next(lengths[source], None)
            if length is not None:
                heapq.heappush(ready, (pace.end(source, done[source] + length), source, length))
        if not ready:
            return
        _, source, length = heapq.heappop(ready)
        yield source
        done[source] += length
        clock += length
        heapq.heappush(waiting, (pace.start(source, done[source]), source))
