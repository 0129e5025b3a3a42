"""The select step, one task per entry of a mixture: which samples may be planned, and how long they are.

    held-out split -> `where` -> `balance` -> `take` -> cutting of what does not fit a sequence

It reads the tables beside the shards and leaves arrays with one entry per sample, in the order of shards and rows, that
later tasks map into memory: `sizes.npy` is all that ordering and packing look at, 8 bytes per sample. A sample that was
cut, or whose numbers are above 65,535, stands in `cuts.npy` instead, one entry per segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from vlmill.mixtures import Shard
from vlmill.mixtures.algorithms.budget import FINE, ImageBudget
from vlmill.mixtures.algorithms.order import make_order_key, permute_index
from vlmill.mixtures.config import MixtureEntry, MixtureSettings, Unit
from vlmill.mixtures.steps.balance import GroupCaps, find_capped
from vlmill.mixtures.steps.conditions import apply_condition, join_tables, read_conditioned, read_table
from vlmill.mixtures.steps.cut import Bounds, Nodes, cut_sample
from vlmill.mixtures.steps.entry_report import (
    CAPPED,
    CHANGED,
    ELIGIBLE,
    KEPT_OUT,
    LOST,
    PASSED_OVER,
    REFUSED,
    EntryReport,
)
from vlmill.mixtures.steps.hold_out import choose_held_out, list_places, read_rows_with_pictures
from vlmill.pipeline.chat.encode import WHOLE
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import Counts, Inputs
from vlmill.pipeline.dedupe.near_pairs import IMAGE_PAIRS_FILE, read_near_pairs

WIDE = 1 << 16
"""What does not fit the 16 bits of `sizes.npy` stands in `cuts.npy`."""

SIZES = np.dtype([("tokens", "<u2"), ("tiles", "<u2"), ("nodes", "<u2"), ("weight", "<u2")])
"""Tokens with overhead, encoder inputs, nodes, amount of the mixture's unit. tokens 0: not selected; nodes 0: see
CUTS."""

UNITS = np.dtype([("images", "<u2"), ("text", "<u2"), ("supervised", "<u2")])
"""Of a whole sample, for the statistics of an entry of an epoch; visual is what remains of its tokens."""

AMOUNTS = ("segments", "images", "text", "visual", "supervised", "tokens", "tiles")
BOUNDS = ("first", "last", "begin", "end")
CUTS = np.dtype([("sample", "<i8"), *((name, "<i4") for name in (*BOUNDS, *AMOUNTS[1:]))])
"""Segments of the samples that SIZES leaves out, in order: nodes [first, last), from token `begin` of the first to
token `end` of the last (WHOLE: all)."""

SHARDS = np.dtype([("rows", "<i8"), ("samples", "<i8"), *((name, "<i8") for name in AMOUNTS)])
"""Per shard: rows of its tables, and what its selected samples add up to."""

NODE_COLUMNS = ("text", "visual", "supervised", "tiles", "image", "turn", "role", "lead", "ends", "words")


@dataclass(frozen=True, slots=True)
class Select:
    """Selects and measures the samples of one entry. Paths in `shards` name its inputs."""

    entry: MixtureEntry
    shards: tuple[Shard, ...]
    seed: int
    unit: Unit
    sequence_length: int
    budget: ImageBudget  # of a sequence
    overhead: int  # tokens of a segment beside its nodes: the chat format's BOS and EOS
    held_out: float = 0.0  # fraction of documents, with all that show a picture of theirs
    near: float | None = None  # similarity from which pictures are the same there, where dedupe measured it
    truncate: bool = False  # cut an answer that does not fit, in place of losing it

    name: ClassVar[str] = "select"
    version: ClassVar[int] = 7
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """Index and lengths of every shard; to hold out, lineage, which knows pictures, and pairs of similar ones.

        Where there is a condition or a balance, the signals.
        """
        pictures = tuple(shard.lineage for shard in self.shards if self.held_out)
        pairs = (f"*/{IMAGE_PAIRS_FILE}",) if self.held_out and self.near is not None else ()
        asked = self.entry.where is not None or self.entry.balance is not None
        signals = tuple(shard.signals for shard in self.shards if asked and shard.signals)
        return (*(path for shard in self.shards for path in (shard.index, shard.lengths)), *pictures, *pairs, *signals)

    def made_by(self) -> Mapping[str, str]:
        """The readers of the tables, one of which evaluates `where`."""
        return {"numpy": version("numpy"), "polars": version("polars")}

    @property
    def limit(self) -> int:
        """Tokens of a segment at most."""
        return min(self.sequence_length, self.entry.sequence_length or self.sequence_length)

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the arrays and `selection.json`; counts samples and nodes, what is lost by reason."""
        states, balance = self._divide_rows(inputs, folder)
        report = EntryReport(balance=balance)
        rows = sum(shard.samples for shard in self.shards)
        sizes = _map_array(folder / "sizes.npy", SIZES, rows)
        units = _map_array(folder / "units.npy", UNITS, rows)
        totals = np.zeros(len(self.shards), SHARDS)
        cuts, start = [], 0
        for number, (shard, state) in enumerate(zip(self.shards, states, strict=True)):
            measured = self._measure(inputs, shard, state, report)
            span = slice(start, start + shard.samples)
            sizes[span], units[span], totals[number] = measured.sizes, measured.units, measured.totals
            measured.cuts["sample"] += start
            cuts.append(measured.cuts)
            start += shard.samples
        held = [np.flatnonzero(state == KEPT_OUT) for state in states]
        np.save(folder / "cuts.npy", np.concatenate([np.empty(0, CUTS), *cuts]))
        np.save(folder / "shards.npy", totals)
        np.save(folder / "held_out.npy", list_places(held))
        available = {name: int(totals[name].sum()) for name in ("samples", *AMOUNTS)}
        about = {name: getattr(self, name) for name in ("held_out", "near", "limit")}
        about |= {"entry": asdict(self.entry), "available": available}
        (folder / "selection.json").write_text(report.to_json(about), encoding="utf-8")
        return {"samples": report.samples, "nodes": report.nodes}

    def find_reason(self, inputs: Inputs, folder: Path, number: int, row: int) -> Reason | None:
        """Why a row is not selected; None where it is.

        Args:
            inputs: as `run` has them.
            folder: where files may lie meanwhile.
            number: of the shard.
            row: of the shard.
        """
        states, _ = self._divide_rows(inputs, folder)
        state = states[number]
        if state[row] != ELIGIBLE:
            return LOST[int(state[row])]
        state[np.arange(state.size) != row] = PASSED_OVER  # so that this row alone is measured
        report = EntryReport()
        measured = self._measure(inputs, self.shards[number], state, report)
        found = (reason for reason, count in report.samples.lost.items() if count and reason != LOST[PASSED_OVER])
        return None if measured.sizes["tokens"][row] else next(found)

    def _divide_rows(self, inputs: Inputs, folder: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Per shard, ELIGIBLE or one of LOST for each row (uint8); and what balancing came to."""
        kept_out = self._kept_out(inputs, folder)
        states = [self._classify(inputs, shard, held) for shard, held in zip(self.shards, kept_out, strict=True)]
        balance = self._balance(inputs, states)
        self._take(states)
        return states, balance

    def _classify(self, inputs: Inputs, shard: Shard, kept_out: np.ndarray) -> np.ndarray:
        """Per row of a shard: ELIGIBLE, or one of LOST (uint8). What the chat template refuses is not held out."""
        states = np.full(shard.samples, ELIGIBLE, np.uint8)
        if self.entry.where is not None:
            states[~apply_condition(self.entry, read_conditioned(inputs, shard))] = PASSED_OVER
        if kept_out.any():  # of images alone nothing is asked
            table = join_tables(inputs, shard, ("nodes",))
            states[kept_out & (table["images"] < table["nodes"]).to_numpy()] = KEPT_OUT
        reasons = read_table(inputs[shard.lengths], shard, ("reason",))["reason"]
        for state in (REFUSED, CHANGED):
            states[(reasons == LOST[state].value).fill_null(value=False).to_numpy()] = state
        return states

    def _kept_out(self, inputs: Inputs, folder: Path) -> list[np.ndarray]:
        """Which rows of each shard are held out, each source by itself: alike in every stage and entry."""
        if not self.held_out:
            return [np.zeros(shard.samples, bool) for shard in self.shards]
        paths = [inputs[name] for name in sorted(inputs) if name.endswith(f"/{IMAGE_PAIRS_FILE}")]
        found: dict[str, np.ndarray] = {}
        for source in dict.fromkeys(shard.source for shard in self.shards):
            here = [shard for shard in self.shards if shard.source == source]
            rows = (
                read_rows_with_pictures(read_table(inputs[shard.index], shard, ("id", "group")), inputs[shard.lineage])
                for shard in here
            )
            near = () if self.near is None else read_near_pairs(paths, self.near)
            held = choose_held_out(rows, source, self.seed, self.held_out, near, folder)
            found |= {shard.path: rows_out for shard, rows_out in zip(here, held, strict=True)}
        return [found[shard.path] for shard in self.shards]

    def _balance(self, inputs: Inputs, states: Sequence[np.ndarray]) -> dict[str, Any]:
        """Pass over the eligible rows beyond the caps of their groups, in place; what that came to."""
        if self.entry.balance is None:
            return {}
        caps, by = GroupCaps(self.entry.balance, self.seed), self.entry.balance.by
        for shard, state in zip(self.shards, states, strict=True):
            table = read_conditioned(inputs, shard).select("id", by).filter(pl.Series(state == ELIGIBLE))
            caps.add(table["id"].to_list(), table[by])
        bounds = caps.find_bounds()
        for shard, state in zip(self.shards, states, strict=True):
            rows = np.flatnonzero(state == ELIGIBLE)
            table = read_conditioned(inputs, shard).select("id", by)[rows]
            state[rows[find_capped(table["id"].to_list(), table[by], bounds, caps.key)]] = CAPPED
        return caps.report()

    def _take(self, states: Sequence[np.ndarray]) -> None:
        """Pass over the eligible rows that `take` does not want, in place."""
        number = sum(int((state == ELIGIBLE).sum()) for state in states)
        wanted = self.entry.taken(number)
        how, key, start = self.entry.take.partition(":")[0], make_order_key(self.seed, "take", self.entry.source), 0
        for state in states:
            rows = np.flatnonzero(state == ELIGIBLE)
            places = np.arange(start, start + rows.size)
            if how == "random":
                places = permute_index(places, number, key)
            leaves = places >= wanted if how != "end" else places < number - wanted
            state[rows[leaves]] = PASSED_OVER
            start += rows.size

    def _measure(self, inputs: Inputs, shard: Shard, states: np.ndarray, report: EntryReport) -> Measured:
        """The arrays of one shard; `sample` of its cuts counts from 0."""
        table = join_tables(inputs, shard, ("id", "licence", "nodes", "written"))
        table = table.with_columns(tokens=pl.col("text") + pl.col("visual") + self.overhead)
        columns = {name: table[name].to_numpy() for name in ("nodes", *AMOUNTS[1:])}
        eligible = states == ELIGIBLE
        blank = columns["images"] >= columns["nodes"]
        taken, whole_budget = self.budget.measure(columns["tiles"], columns["visual"], FINE)
        fits = (columns["tokens"] <= self.limit) & (taken <= whole_budget)
        narrow = np.all([column < WIDE for column in columns.values()], axis=0)
        whole = eligible & fits & ~blank
        wide = _make_whole_cuts(columns, np.flatnonzero(whole & ~narrow))
        cuts, lost = self._cut(inputs, shard, np.flatnonzero(eligible & ~fits), report)
        cuts = np.concatenate([wide, cuts])
        cuts = cuts[np.argsort(cuts["sample"], kind="stable")]
        measured = Measured.of(columns, np.flatnonzero(whole & narrow), cuts, self.unit)
        report.add(table, states, measured.sizes["tokens"] > 0, lost)
        return measured

    def _cut(
        self, inputs: Inputs, shard: Shard, rows: np.ndarray, report: EntryReport
    ) -> tuple[np.ndarray, dict[int, Counter[Reason]]]:
        """Segments of the rows that do not fit, and the lost nodes of each by reason."""
        segments: list[tuple[int, ...]] = []
        lost: dict[int, Counter[Reason]] = {}
        for row, columns in zip(rows.tolist(), _read_nodes(inputs[shard.lengths], rows), strict=True):
            tokens = [text + visual for text, visual in zip(columns["text"], columns["visual"], strict=True)]
            nodes = Nodes(tokens, **{name: columns[name] for name in NODE_COLUMNS[2:]})
            taken, most = self.budget.measure(np.array(nodes.tiles), np.array(columns["visual"]), FINE)
            measured = replace(nodes, tiles=taken.tolist())
            cut = cut_sample(measured, self.limit - self.overhead, most, truncate=self.truncate)
            lost[row] = Counter(cut.lost.values())
            report.add_cut(nodes, cut)
            segments += [(row, *part, *self._measure_part(nodes, columns["visual"], part)) for part in cut.segments]
        return np.array(segments, CUTS), lost

    def _measure_part(self, nodes: Nodes, visual: Sequence[int], part: Bounds) -> tuple[int, ...]:
        """AMOUNTS of a segment, from its images on."""
        spans = list(nodes.list_spans(part))
        shown = sum(visual[part.first : part.last])
        length = sum(end - begin for _, begin, end in spans)
        supervised = sum(nodes.count_supervised(*span) for span in spans)
        images, tiles = (sum(values[part.first : part.last]) for values in (nodes.image, nodes.tiles))
        return images, length - shown, shown, supervised, length + self.overhead, tiles


@dataclass(slots=True)
class Measured:
    """The arrays of one shard."""

    sizes: np.ndarray
    units: np.ndarray
    cuts: np.ndarray
    totals: np.ndarray  # one SHARDS record

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray], whole: np.ndarray, cuts: np.ndarray, unit: Unit) -> Measured:
        """From whole samples and cuts."""
        rows = columns["nodes"].size
        sizes, units, totals = np.zeros(rows, SIZES), np.zeros(rows, UNITS), np.zeros((), SHARDS)
        for name in ("tokens", "tiles", "nodes"):
            sizes[name][whole] = columns[name][whole]
        sizes["weight"][whole] = 1 if unit == "samples" else columns[unit][whole]
        sizes["tokens"][cuts["sample"]] = 1
        for name in units.dtype.names or ():
            units[name][whole] = columns[name][whole]
        totals["rows"] = rows
        totals["samples"] = whole.size + np.unique(cuts["sample"]).size
        totals["segments"] = whole.size + cuts.size
        for name in AMOUNTS[1:]:
            totals[name] = columns[name][whole].sum(dtype=np.int64) + cuts[name].sum(dtype=np.int64)
        return cls(sizes, units, cuts, totals)


def list_selects(
    mixture: MixtureSettings,
    shards: Mapping[str, Sequence[Shard]],
    seed: int,
    overhead: int,
    near: float | None = None,
    visual: int | None = None,
) -> dict[str, Select]:
    """The select step of every entry, by the entry's label.

    `near` is the similarity from which dedupe takes images for the same; None where it measured none. `visual` bounds
    the visual tokens of a sequence.

    Raises:
        RecipeError: an entry names a source that has no shards here.
    """
    steps = {}
    for label, entry in zip(mixture.labels(), mixture.resolved(), strict=True):
        if entry.source not in shards:
            raise RecipeError(
                f"mixture: there is no source {entry.source!r} with shards of this stage's policy; allowed: "
                f"{', '.join(sorted(shards))}"
            )
        steps[label] = Select(
            entry=entry,
            shards=tuple(shards[entry.source]),
            seed=seed,
            unit=mixture.unit,
            sequence_length=mixture.sequence_length,
            budget=ImageBudget(mixture.tiles_per_sequence, visual),
            overhead=overhead,
            held_out=mixture.held_out.get(entry.source, 0.0),
            near=near if mixture.held_out.get(entry.source) else None,
            truncate=mixture.truncate,
        )
    return steps


def _map_array(path: Path, kind: np.dtype[Any], rows: int) -> np.ndarray:
    """A zeroed array on disk, mapped for writing; a plain file where there is nothing to map."""
    if not rows:
        np.save(path, np.empty(0, kind))
        return np.empty(0, kind)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(rows,))


def _make_whole_cuts(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Entries of CUTS for samples that fit a sequence but not 16 bits."""
    cuts = np.zeros(rows.size, CUTS)
    cuts["sample"], cuts["last"], cuts["end"] = rows, columns["nodes"][rows], WHOLE
    for name in AMOUNTS[1:]:
        cuts[name] = columns[name][rows]
    return cuts


def _read_nodes(path: Path, rows: np.ndarray) -> Iterator[dict[str, list[Any]]]:
    """The node lengths of some rows, a list per column."""
    if not rows.size:
        return
    column = pl.read_parquet(path, columns=["nodes"], glob=False)["nodes"].gather(rows)
    counts = column.list.len().to_list()
    flat = column.explode().struct.unnest()
    columns = {name: flat[name].to_list() for name in NODE_COLUMNS}
    start = 0
    for count in counts:
        yield {name: values[start : start + count] for name, values in columns.items()}
        start += count
