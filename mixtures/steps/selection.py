"""An entry as planning sees it: the arrays of its select step mapped into memory, and its endless order over them.

Whatever is asked about the first k items of the order is answered from the sums of whole shards and one window, so it
costs the same for an item near the start and for the last of many epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vlmill.mixtures.algorithms.order import SourceOrder, make_order_key
from vlmill.mixtures.config import Unit
from vlmill.mixtures.steps.select import AMOUNTS
from vlmill.pipeline.chat.encode import WHOLE
from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.step import Inputs

FILES = ("sizes.npy", "units.npy", "cuts.npy", "shards.npy", "selection.json")
"""What the select step leaves for later ones; as their inputs, each stands behind the entry's label:
`quiz/sizes.npy`."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Segments of samples, an entry per segment in each array.

    `item` says which of the requested samples it belongs to.
    """

    item: np.ndarray
    first: np.ndarray
    last: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    tokens: np.ndarray
    tiles: np.ndarray
    visual: np.ndarray


@dataclass(frozen=True)
class Selection:
    """One entry. Samples are numbered through its shards from 0."""

    sizes: np.ndarray  # SIZES, per sample
    cuts: np.ndarray  # CUTS, per segment
    shards: np.ndarray  # SHARDS
    unit: Unit
    walk: SourceOrder
    units: np.ndarray | None = None  # UNITS, per sample; for `prefix` and `segments` alone

    @classmethod
    def open(cls, inputs: Inputs, label: str, unit: Unit, seed: int, window: int) -> Selection:
        """Map the arrays of the entry `label`."""
        shards = read_array(inputs[f"{label}/shards.npy"], mapped=False)
        units = inputs.get(f"{label}/units.npy")
        return cls(
            sizes=_map_array(inputs[f"{label}/sizes.npy"]),
            cuts=_map_array(inputs[f"{label}/cuts.npy"]),
            shards=shards,
            unit=unit,
            walk=SourceOrder(shards["samples"], make_order_key(seed, "order", label), window),
            units=None if units is None else _map_array(units),
        )

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of the first row of each shard, and of all rows."""
        return np.concatenate([[0], np.cumsum(self.shards["rows"])])

    def items(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Items [start, stop) of the order.

        Halves of epochs before, and samples of one half; one pair per window and half.
        """
        for span in self.walk.spans(start, stop):
            places = [np.arange(self.starts[shard], self.starts[shard + 1]) for shard in span.shards]
            samples = np.concatenate([rows[self.sizes["tokens"][rows[0] : rows[-1] + 1] > 0] for rows in places])
            yield span.half, samples[span.places]

    def weights(self, samples: np.ndarray) -> np.ndarray:
        """What each sample holds of the mixture's unit (int64)."""
        if self.unit == "samples":
            return np.ones(samples.size, np.int64)
        weights: np.ndarray = self.sizes["weight"][samples].astype(np.int64)
        cut = np.flatnonzero(self.sizes["nodes"][samples] == 0)
        segments, counts = self._cuts(samples[cut])
        np.add.at(weights, np.repeat(cut, counts), segments[self.unit])
        return weights

    def segments(self, samples: np.ndarray) -> Segments:
        """The segments of samples, in their order."""
        sizes = self.sizes[samples]
        whole, cut = np.flatnonzero(sizes["nodes"]), np.flatnonzero(sizes["nodes"] == 0)
        parted, counts = self._cuts(samples[cut])
        item = np.concatenate([whole, np.repeat(cut, counts)])
        order = np.argsort(item, kind="stable")
        columns = {
            "first": np.concatenate([np.zeros(whole.size, np.int32), parted["first"]]),
            "last": np.concatenate([sizes["nodes"][whole], parted["last"]]).astype(np.int32),
            "begin": np.concatenate([np.zeros(whole.size, np.int32), parted["begin"]]),
            "end": np.concatenate([np.full(whole.size, WHOLE, np.int32), parted["end"]]),
            "tokens": np.concatenate([sizes["tokens"][whole], parted["tokens"]]).astype(np.int32),
            "tiles": np.concatenate([sizes["tiles"][whole], parted["tiles"]]).astype(np.int32),
            "visual": np.concatenate([self._count_visual(samples[whole]), parted["visual"]]).astype(np.int32),
        }
        return Segments(item[order], **{name: column[order] for name, column in columns.items()})

    def prefix(self, count: int) -> dict[str, int]:
        """What the first `count` items of the order add up to, by unit. Needs `units`."""
        totals, samples = self._passed(count)
        for name, amount in self._amounts(samples).items():
            totals[name] += amount
        return totals

    def spent(self, count: int) -> int:
        """What the first `count` items hold of the mixture's unit."""
        if self.unit == "samples":
            return count
        totals, samples = self._passed(count)
        return totals[self.unit] + int(self.weights(samples).sum())

    def _passed(self, count: int) -> tuple[dict[str, int], np.ndarray]:
        """The first `count` items: what whole epochs and windows of them add up to, and the samples beyond those."""
        epochs, rest = divmod(count, max(self.walk.size, 1))
        windows, bounds = self.walk.windows(epochs)
        full = int(np.searchsorted(bounds, rest, "right")) - 1
        passed = self.shards[np.concatenate([np.empty(0, np.int64), *windows[:full]])]
        names = ("samples", *AMOUNTS)
        totals = {name: epochs * int(self.shards[name].sum()) + int(passed[name].sum()) for name in names}
        beyond = self.items(epochs * self.walk.size + int(bounds[full]), count)
        return totals, np.concatenate([np.empty(0, np.int64), *(samples for _, samples in beyond)])

    def count_for(self, weight: float) -> int:
        """How many items come nearest to holding `weight` of the mixture's unit."""
        epoch_weight = int(self.shards[self.unit].sum())
        epochs, rest = int(weight // epoch_weight), weight % epoch_weight
        windows, bounds = self.walk.windows(epochs)
        held = np.cumsum([0, *(int(self.shards[self.unit][window].sum()) for window in windows)])
        number = min(int(np.searchsorted(held, rest, "right")) - 1, len(windows) - 1)
        start = epochs * self.walk.size + int(bounds[number])
        stop = epochs * self.walk.size + int(bounds[number + 1])
        inside = np.concatenate([self.weights(samples) for _, samples in self.items(start, stop)])
        return start + int(np.argmin(np.abs(np.cumsum([0, *inside]) + held[number] - rest)))

    def place(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard and row of samples."""
        shard = np.searchsorted(self.starts, samples, "right") - 1
        return shard, samples - self.starts[shard]

    def _amounts(self, samples: np.ndarray) -> dict[str, int]:
        """What samples add up to, by unit. Needs `units`."""
        if self.units is None:
            raise ValueError("this selection was opened without units.npy")
        whole = samples[self.sizes["nodes"][samples] > 0]
        parted, _ = self._cuts(samples[self.sizes["nodes"][samples] == 0])
        sums = {name: int(self.units[name][whole].sum(dtype=np.int64)) for name in ("images", "text", "supervised")}
        sums |= {name: int(self.sizes[name][whole].sum(dtype=np.int64)) for name in ("tokens", "tiles")}
        sums = {name: amount + int(parted[name].sum(dtype=np.int64)) for name, amount in sums.items()}
        segments = whole.size + parted.size
        return {
            "samples": samples.size,
            "segments": segments,
            **sums,
            "visual": sums["tokens"] - sums["text"] - segments * self._overhead,
        }

    def _count_visual(self, samples: np.ndarray) -> np.ndarray:
        """Visual tokens of whole samples: what remains of their tokens. Needs `units`."""
        if self.units is None:
            raise ValueError("this selection was opened without units.npy")
        visual: np.ndarray = self.sizes["tokens"][samples].astype(np.int64) - self.units["text"][samples]
        visual -= self._overhead
        return visual

    @cached_property
    def _overhead(self) -> int:
        """Tokens of a segment beside its nodes, from what all segments add up to."""
        totals = {name: int(self.shards[name].sum()) for name in AMOUNTS}
        return (totals["tokens"] - totals["text"] - totals["visual"]) // max(totals["segments"], 1)

    def _cuts(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The entries of `cuts` of some samples, in their order, and how many each has."""
        low = np.searchsorted(self.cuts["sample"], samples, "left")
        counts = np.searchsorted(self.cuts["sample"], samples, "right") - low
        ends = np.cumsum(counts)
        return self.cuts[np.repeat(low - ends + counts, counts) + np.arange(counts.sum())], counts


def _map_array(path: Path) -> np.ndarray:
    """An array of a file, mapped where it holds anything."""
    return read_array(path, mapped=path.stat().st_size > 1 << 12)
