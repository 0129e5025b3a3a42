"""Which samples fit what was asked, and histograms that filter each other.

Every condition is a mask over all samples. A histogram counts the values of samples that all other conditions leave, so
that it shows what its own range could be moved to. A value of an image or text counts once for each; a range asks for
samples that have at least one value in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmill.explore.facts import KEPT, UNDECIDED
from vlmill.explore.index import Index

LOST = "lost"
MIXED, AS_READ = "mixed", "as read"
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: multiplied by it, numbers in a row fall far apart."""


@dataclass(frozen=True)
class Wanted:
    """What samples have to be like. Empty is all."""

    sources: tuple[str, ...] = ()
    outcome: str = ""  # kept, lost, undecided, or a reason: of the sample or of one of its nodes
    licence: str | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # dimension -> [least, beyond)
    found: np.ndarray | None = None  # what a search of texts left, as a mask


class Crossfilter:
    """An index that is asked what fits."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def list_masks(self, wanted: Wanted) -> dict[str, np.ndarray]:
        """A mask for each condition."""
        index, masks = self.index, dict[str, np.ndarray]()
        if wanted.sources:
            chosen: np.ndarray = np.isin(
                np.arange(len(index.sources)), [index.sources.index(name) for name in wanted.sources]
            )
            masks["source"] = chosen[index.column("source")]
        if wanted.outcome:
            masks["outcome"] = self._mask_outcome(wanted.outcome)
        if wanted.licence is not None:
            masks["licence"] = index.column("licence") == index.licences.index(wanted.licence)
        if wanted.found is not None:
            masks["text"] = wanted.found
        for name, (least, most) in wanted.ranges.items():
            masks[f"range.{name}"] = self._mask_range(name, least, most)
        return masks

    def _mask_outcome(self, outcome: str) -> np.ndarray:
        index = self.index
        codes = index.column("outcome")
        numbers = {name: place for place, name in enumerate(index.outcomes)}
        if outcome == LOST:
            lost: np.ndarray = (codes != numbers[KEPT]) & (codes != numbers[UNDECIDED])
            return lost
        wanted = numbers.get(outcome, len(numbers))
        mask: np.ndarray = codes == wanted
        if outcome not in {KEPT, UNDECIDED}:
            mask[index.column("lost.owner")[index.column("lost.reason") == wanted]] = True
        return mask

    def _mask_range(self, name: str, least: float, most: float) -> np.ndarray:
        values = self.index.column(name)
        inside = (values >= least) & (values < most)
        owners = self.index.list_owners(name)
        if owners is None:
            return inside
        mask = np.zeros(self.index.size, bool)
        mask[owners[inside]] = True
        return mask

    def count(self, wanted: Wanted, names: tuple[str, ...]) -> dict[str, Any]:
        """How many samples fit, by source, outcome and licence, and the histograms of some dimensions.

        Each is counted under all conditions but its own.
        """
        masks, index = self.list_masks(wanted), self.index
        all_ = self.join(masks)
        others = {name: self.join({key: mask for key, mask in masks.items() if key != name}) for name in masks}
        histograms = {}
        for name in names:
            shown = others.get(f"range.{name}", all_)
            bins = index.column(f"{name}.bin")
            if shown is not None:
                owners = index.list_owners(name)
                bins = bins[shown if owners is None else shown[owners]]
            number = len(index.dimensions[name].edges) - 1
            histograms[name] = np.bincount(bins, minlength=number)[:number].tolist()
        return {
            "size": index.size,
            "fits": index.size if all_ is None else int(all_.sum()),
            "source": self._count_codes("source", index.sources, others.get("source", all_)),
            "outcome": self._count_outcomes(others.get("outcome", all_)),
            "licence": self._count_codes("licence", index.licences, others.get("licence", all_)),
            "histograms": histograms,
        }

    @staticmethod
    def join(masks: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """What all masks leave; None where there is none."""
        joined: np.ndarray | None = None
        for mask in masks.values():
            joined = mask if joined is None else joined & mask
        return joined

    def _count_codes(self, column: str, names: list[str], mask: np.ndarray | None) -> dict[str, int]:
        codes = self.index.column(column)
        counts = np.bincount(codes if mask is None else codes[mask], minlength=len(names))
        return {name: int(count) for name, count in zip(names, counts, strict=True) if count}

    def _count_outcomes(self, mask: np.ndarray | None) -> dict[str, int]:
        """Samples by outcome, and by the reasons for which nodes of theirs were lost."""
        index = self.index
        counts = self._count_codes("outcome", index.outcomes, mask)
        owners, reasons = index.column("lost.owner"), index.column("lost.reason")
        if mask is not None:
            kept = mask[owners]
            owners, reasons = owners[kept], reasons[kept]
        for place, number in enumerate(np.bincount(reasons, minlength=len(index.outcomes)).tolist()):
            if number:
                name = index.outcomes[place]
                counts[name] = counts.get(name, 0) + number
        lost = sum(self._count_codes("outcome", index.outcomes, mask).values())
        counts[LOST] = lost - counts.get(KEPT, 0) - counts.get(UNDECIDED, 0)
        return counts

    def list_fitting(self, wanted: Wanted, order: str, first: int, number: int) -> list[int]:
        """The numbers of some samples that fit.

        Args:
            wanted: what they have to be like.
            order: `mixed` (the same ones every time), `as read`, or a dimension; with `-` before it the largest first.
            first: how many to pass over.
            number: how many at most.
        """
        mask = self.join(self.list_masks(wanted))
        places = np.arange(self.index.size) if mask is None else np.flatnonzero(mask)
        if order == AS_READ:
            return [int(place) for place in places[first : first + number]]
        if order == MIXED:
            return _choose_least(places, (places.astype(np.uint64) + np.uint64(1)) * SPREAD, first, number)
        name, falling = order.removeprefix("-"), order.startswith("-")
        values = self.index.column(name).astype(np.float64)
        if (owners := self.index.list_owners(name)) is not None:
            by_sample = np.full(self.index.size, np.inf)
            np.minimum.at(by_sample, owners, -values if falling else values)
            places = places[np.isfinite(by_sample[places])]
            return _choose_least(places, by_sample[places], first, number)
        if name == "tokens":  # what is in no shard has none
            places = places[values[places] >= 0]
        keys = values[places]
        return _choose_least(places, -keys if falling else keys, first, number)


def _choose_least(places: np.ndarray, keys: np.ndarray, first: int, number: int) -> list[int]:
    """The places with the least keys from `first` on, in order; ties by place."""
    end = min(first + number, len(keys))
    if end <= first:
        return []
    bound = np.partition(keys, end - 1)[end - 1]
    some = np.flatnonzero(keys <= bound)
    chosen = some[np.lexsort((places[some], keys[some]))][first:end]
    return [int(place) for place in places[chosen]]
