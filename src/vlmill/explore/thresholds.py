"""Sliders: how many samples, nodes and images a bound keeps at any value, and the samples on both sides of it.

The keys of a bound (`critical.py`) are found once, in the background, and kept sorted in the index. An answer is exact
for the filters, and for the verdicts of dedupe as they stand; where a run has dedupe, another bound may let another of
several duplicates be kept, which `what-if` resolves anew in seconds to minutes.
"""

from __future__ import annotations

import hashlib
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

from vlmill.explore.bounds import (
    Side,
    SliderBound,
    apply_settings,
    diff_recipes,
    drop_bound,
    find_bound,
    list_slider_bounds,
    write_setting,
)
from vlmill.explore.columns import ColumnWriter, has_column, open_column
from vlmill.explore.critical import find_partition_keys
from vlmill.explore.facts import KEPT
from vlmill.explore.index import Index
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.recipe.lock import read_lock
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.what_if_verdicts import (
    enter_decontamination,
    enter_filters,
    enter_render,
    enter_resolved,
    list_partitions,
)

BESIDE = 12
"""Samples shown on each side of a bound."""


@dataclass
class Preparation:
    """How far the keys of a bound are."""

    done: int = 0
    of: int = 0
    ready: bool = False
    error: str = ""


class Sliders:
    """The bounds of an indexed run."""

    def __init__(self, root: Path, recipe: Recipe, index: Index) -> None:
        self.root, self.recipe, self.index = root, recipe, index
        kinds = {name: one.of for name, one in index.dimensions.items()}
        self.bounds = list_slider_bounds(root, recipe, kinds)
        self._prepared = dict[str, Preparation]()
        self._sorted, self._values = dict[str, SortedKeys](), dict[str, SortedValues]()
        self._funnel = read_funnel(root)
        self._lock, self._working = Lock(), Lock()

    # -- what there is to move

    def describe_bounds(self) -> list[dict[str, Any]]:
        """Every bound with where it stands, and a histogram of its value: of samples that are kept, and of others."""
        return [
            {
                "key": bound.key,
                "filter": bound.filter,
                "dimension": bound.dimension,
                "side": bound.side,
                "drops": "samples" if bound.whole else "images or texts",
                "whole_numbers": bound.whole_numbers,
                "now": dict(bound.now),
                "sources": [source for source in self.index.sources if bound.asks(source)],
            }
            for bound in self.bounds
        ]

    def count_values(self, dimension: str, sources: Sequence[str] = ()) -> dict[str, Any]:
        """The histogram of a dimension in samples that are kept, and in those that are lost; of some sources."""
        about = self.index.dimensions[dimension]
        bins, owners = self.index.column(f"{dimension}.bin"), self.index.column(f"{dimension}.owner")
        kept = (self.index.column("outcome") == self.index.outcomes.index(KEPT))[owners]
        if sources:
            chosen = np.isin(np.arange(len(self.index.sources)), [self.index.sources.index(name) for name in sources])
            mine = chosen[self.index.column("source")[owners]]
            bins, kept = bins[mine], kept[mine]
        number = len(about.edges) - 1
        counts = [np.bincount(bins[side], minlength=number)[:number].tolist() for side in (kept, ~kept)]
        return {
            "edges": about.edges,
            "log": about.log,
            "least": about.least,
            "most": about.most,
            "kept": counts[0],
            "lost": counts[1],
        }

    # -- keys

    def prepare(self, key: str) -> Preparation:
        """How far the keys of a bound are; begins to find them in the background where nobody has.

        Raises:
            StoreError: no slider moves it.
        """
        bound = find_bound(self.bounds, key)
        with self._lock:
            if key not in self._prepared:
                self._prepared[key] = Preparation()
                Thread(target=self._make_ready, args=(bound,), daemon=True).start()
            return self._prepared[key]

    def _name(self, bound: SliderBound) -> str:
        return f"keys.{hashlib.sha256(bound.key.encode()).hexdigest()[:16]}"

    def _make_ready(self, bound: SliderBound) -> None:
        """Find the keys of a bound where they are not in the index, and sort them."""
        told = self._prepared[bound.key]

        def tell(done: int, of: int) -> None:
            told.done, told.of = done, of

        try:
            with self._working:
                if not has_column(self.index.folder, f"{self._name(bound)}.images"):
                    self.find_keys(bound, tell)
                self._open_keys(bound)
                self._open_values(bound)
            told.ready = True
        except Exception as error:  # noqa: BLE001 - whoever asks next is told
            told.error = str(error)

    def find_keys(self, bound: SliderBound, tell: Callable[[int, int], None] = lambda *_: None) -> None:
        """Find the keys of all samples and nodes, and write them into the index.

        Raises:
            StoreError: filters or dedupe of the run have not come to their end.
        """
        base, name = drop_bound(self.recipe, bound), self._name(bound)
        partitions = list_partitions(self.root, self.recipe)
        writer = ColumnWriter(self.index.folder)
        owners = self.index.column(f"{bound.dimension}.owner")
        nodes, values = (self.index.column(f"{bound.dimension}{part}") for part in (".node", ""))
        with tempfile.TemporaryDirectory(prefix="vlmill-explore-") as folder:
            enter_filters(self.root, self.recipe, base, None, partitions, Path(folder))
            enter_decontamination(self.root, self.recipe, base, partitions, Path(folder))
            enter_resolved(self.root, self.recipe, partitions)
            enter_render(self.root, self.recipe, partitions)
            by_name = {(one.source, one.name): one for one in partitions}
            starts = [*self.index.starts.tolist(), self.index.size]
            for place, (source, partition, start) in enumerate(self.index.partitions):
                tell(place, len(self.index.partitions))
                one = by_name[source, partition]
                first, last = np.searchsorted(owners, [start, starts[place + 1]])
                mine = slice(int(first), int(last) if bound.asks(source) else int(first))
                found = find_partition_keys(
                    one.tables,
                    _order_verdicts(base, {**one.then, **_take_others(one.now)}),
                    bound,
                    (owners[mine].astype(np.int64) - start, nodes[mine], values[mine]),
                    starts[place + 1] - start,
                )
                number = self.index.sources.index(source)
                writer.append(f"{name}.samples", found.samples)
                for level in ("nodes", "images"):
                    keys = np.concatenate([np.empty(0), *getattr(found, level)])
                    writer.append(f"{name}.{level}", keys)
                    writer.append(f"{name}.{level}.source", np.full(len(keys), number, np.uint16))
        writer.close()

    # -- answers

    def answer(self, key: str, value: float, source: str | None) -> dict[str, Any]:
        """What a bound keeps at a value, beside what is kept now; in all sources, or in one.

        Raises:
            StoreError: no slider moves it, or its keys are not found yet.
        """
        bound = find_bound(self.bounds, key)
        told = self.prepare(key)
        if not told.ready:
            raise StoreError(told.error or f"{key} is being prepared; ask again")
        keys = self._open_keys(bound)
        at = bound.sign * value
        setting = write_setting(self.recipe, bound, value)
        data = read_lock(self.root)
        levels = keys.count_levels(at, source)
        for level in ("nodes", "images"):
            levels[level]["now"] = self._count_now(level, source)
        return {
            "levels": levels,
            "sources": {name: keys.count_levels(at, name)["samples"] for name in self.index.sources},
            **self._open_values(bound).list_beside(value, bound.side, source),
            "setting": setting,
            "diff": diff_recipes(data, apply_settings(data, dict([setting])), "filters"),
            "resolved": self.recipe.dedupe is not None,
        }

    def _count_now(self, level: str, source: str | None) -> int:
        """What the run keeps of a level."""
        chosen = self._funnel if source is None else [source]
        return sum(self._funnel[name].get(level, {}).get("kept", 0) for name in chosen)

    def _open_values(self, bound: SliderBound) -> SortedValues:
        with self._lock:
            if bound.key not in self._values:
                asked = [source for source in self.index.sources if bound.asks(source)]
                self._values[bound.key] = SortedValues(self.index, bound.dimension, asked)
            return self._values[bound.key]

    def _open_keys(self, bound: SliderBound) -> SortedKeys:
        with self._lock:
            if bound.key not in self._sorted:
                self._sorted[bound.key] = SortedKeys(self.index, self._name(bound))
            return self._sorted[bound.key]


def _take_others(verdicts: Mapping[str, Path]) -> dict[str, Path]:
    """Verdicts of dedupe and render as they stand."""
    return {name: path for name, path in verdicts.items() if name in {"dedupe", "render"}}


def _order_verdicts(base: Recipe, verdicts: Mapping[str, Path]) -> dict[str, Path]:
    """Verdicts in the order in which they count."""
    order = [*base.verdict_steps(), "dedupe", "render"]
    return {name: verdicts[name] for name in sorted(verdicts, key=order.index)}


class SortedKeys:
    """The keys of a bound, sorted by source, those that are kept now apart from the others."""

    def __init__(self, index: Index, name: str) -> None:
        self.index = index
        folder = index.folder
        keys, sources = open_column(folder, f"{name}.samples"), index.column("source")
        kept = index.column("outcome") == index.outcomes.index(KEPT)
        self.now = dict[tuple[str, bool], np.ndarray]()
        self.levels = dict[tuple[str, str], np.ndarray]()
        for place, source in enumerate(index.sources):
            mine = sources == place
            for now in (True, False):
                self.now[source, now] = np.sort(keys[mine & (kept == now)])
            for level in ("nodes", "images"):
                of = open_column(folder, f"{name}.{level}.source") == place
                self.levels[level, source] = np.sort(open_column(folder, f"{name}.{level}")[of])

    def count_levels(self, at: float, source: str | None) -> dict[str, dict[str, int]]:
        """By level what came and what is kept at a bound; of samples also what changes."""
        chosen = self.index.sources if source is None else [source]
        found = dict[str, dict[str, int]]()
        counts = {now: [self.now[name, now] for name in chosen] for now in (True, False)}
        kept = {now: sum(_count_kept(keys, at) for keys in counts[now]) for now in counts}
        came = {now: sum(len(keys) for keys in counts[now]) for now in counts}
        found["samples"] = {
            "came": came[True] + came[False],
            "now": came[True],
            "then": kept[True] + kept[False],
            "newly_dropped": came[True] - kept[True],
            "newly_kept": kept[False],
        }
        for level in ("nodes", "images"):
            keys = [self.levels[level, name] for name in chosen]
            found[level] = {"came": sum(map(len, keys)), "then": sum(_count_kept(one, at) for one in keys)}
        return found


class SortedValues:
    """The values of a dimension, sorted by source."""

    def __init__(self, index: Index, dimension: str, sources: list[str]) -> None:
        self.values, self.owners = index.column(dimension), index.column(f"{dimension}.owner")
        self.nodes = index.column(f"{dimension}.node")
        of = index.column("source")[self.owners]
        self.order = dict[str, np.ndarray]()
        for source in sources:
            mine = np.flatnonzero(of == index.sources.index(source))
            self.order[source] = mine[np.argsort(self.values[mine], kind="stable")]

    def list_beside(self, value: float, side: Side, source: str | None) -> dict[str, list[tuple[int, int, float]]]:
        """What lies nearest to a bound on both sides: sample, node and value; the nearest first."""
        below, above = list[int](), list[int]()
        for name in self.order if source is None else [source]:
            order = self.order.get(name, np.empty(0, np.int64))
            place = (
                bisect_left(_Sorted(self.values, order), value)
                if side == "min"
                else bisect_right(_Sorted(self.values, order), value)
            )
            below += order[max(0, place - BESIDE) : place].tolist()
            above += order[place : place + BESIDE].tolist()
        found = {"below": below, "above": above}
        for name, places in found.items():
            places.sort(key=lambda place: (abs(float(self.values[place]) - value), place))
            found[name] = places[:BESIDE]
        lost, kept = ("below", "above") if side == "min" else ("above", "below")
        return {"lost": self._describe(found[lost]), "kept": self._describe(found[kept])}

    def _describe(self, places: list[int]) -> list[tuple[int, int, float]]:
        return [(int(self.owners[one]), int(self.nodes[one]), float(self.values[one])) for one in places]


class _Sorted(Sequence[float]):
    """Values in an order, as a sequence that is searched without copying them."""

    def __init__(self, values: np.ndarray, order: np.ndarray) -> None:
        self.values, self.order = values, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: Any) -> Any:
        return float(self.values[self.order[place]])


def _count_kept(keys: np.ndarray, at: float) -> int:
    """How many of sorted keys are at least a bound's."""
    return len(keys) - int(np.searchsorted(keys, at, "left"))
