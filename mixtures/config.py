"""What a stage is trained on: the settings of a mixture.

    mixture:
      shares: {web: 0.4, quiz: 0.4, scans: 0.2}
      unit: tokens
      epochs: 2
      sequence_length: 1024
      tiles_per_sequence: 24

The long form says more about each source: `entries: {web: 0.4, quiz: {share: 0.6, take: "random:10%", max_repetition:
8}}`. `repeat: {web: 1, quiz: 4}` declares epochs instead of shares. A share may move within the stage: `web: [[0, 0.5],
[1, 0.1]]` (algorithms/schedule.py).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import field, replace
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT

Unit = Literal["samples", "images", "text", "visual", "supervised", "tokens"]
"""What shares count. `tokens` is what packed sequences are made of: text, visual and the chat format's overhead."""

UNITS: tuple[Unit, ...] = get_args(Unit)

Totals = Mapping[str, float]
"""Amounts by unit; also `tiles`, `segments` where they are known."""

Point = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0)]]
"""A fraction of the stage's budget, and the share of a source there."""

Share = float | tuple[Point, ...]
"""Of a source: one for the whole stage, or one that moves along points, linear between them."""

POSITIVE = (
    "sequence_length",
    "tiles_per_sequence",
    "patches_per_sequence",
    "max_repetition",
    "shard_window",
    "pack_window",
    "windows_per_block",
)
MAX_REPETITION = 16
"""Epochs of a source at most where its share alone says how often it is passed. Of repeated tokens Muennighoff et al.
2023 (Scaling Data-Constrained Language Models) find four epochs nearly as good as fresh data, and what one more epoch
is worth fallen to 1/e after about 15 repetitions, the constant of their fit; so more is never planned unasked."""

MAX_EPOCHS = (1 << 15) - 1
"""Passes over an entry that a plan has room to number."""

TAKE = re.compile(r"all|(first|end|random):(\d+|\d+(?:\.\d+)?%)")


@dataclass(frozen=True, config=STRICT)
class Balance:
    """How many samples of one group an entry has at most, as MetaCLIP curates (Xu et al. 2023, arXiv:2309.16671).

    Of a group of n samples, min(n, cap) are kept, chosen by a hash of their ids.
    """

    by: str  # a column that names groups: a signal of kind clusters, `group`, `licence` or another of `where`
    cap: int  # samples of one group at most

    def __post_init__(self) -> None:
        """Refuse a cap that leaves nothing."""
        if self.cap < 1:
            raise ValueError(f"balance by {self.by!r} has the cap {self.cap}; it is 1 or more")


@dataclass(frozen=True, config=STRICT)
class MixtureEntry:
    """One source's entry in a mixture, or that of a group of sources. A source may stand in several entries."""

    source: str  # a source, a `group`, or a pattern such as `cauldron-*`; sources with an entry of their own excepted
    share: Share | None = None  # of the unit; read as proportions; [[0, 0.5], [1, 0.1]] falls from start to end
    repeat: float | None = None  # epochs of the source, times the mixture's epochs
    take: str = "all"  # first:N, end:N, random:N, or a percentage such as random:10%, of what `where` leaves
    where: str | None = None  # SQL condition on the columns of index and lengths: licence = 'CC0-1.0' and images <= 4
    balance: Balance | None = None  # samples at most of each group, of what `where` leaves; `take` comes after
    max_repetition: float | None = None  # epochs at most; of a share 16 where neither entry nor mixture declares any
    sequence_length: int | None = None  # of this source's segments, where shorter than the mixture's

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not TAKE.fullmatch(self.take):
            raise ValueError(
                f"take of {self.source!r} is {self.take!r}; allowed: all, first:N, end:N, random:N, each N a "
                "number or a percentage"
            )
        amount = self.take.partition(":")[2]
        if amount and not (float(amount.rstrip("%")) > 0 and (not amount.endswith("%") or float(amount[:-1]) <= 100)):
            raise ValueError(f"take of {self.source!r} is {self.take!r}; N is above 0, and a percentage at most 100%")
        if self.moves:
            self._check_points()
        for name in (*(() if self.moves else ("share",)), "repeat", "max_repetition", "sequence_length"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf or (value == 0 and name in ("share", "repeat"))):
                raise ValueError(f"{name} of {self.source!r} is {value}; it must be a finite number above 0")

    def _check_points(self) -> None:
        """Refuse points that do not go on, or never rise above 0."""
        places = [place for place, _ in self.points]
        if len(places) < 2 or any(one >= other for one, other in pairwise(places)):
            raise ValueError(
                f"share of {self.source!r} moves along {places}; two or more points, each a larger fraction of the "
                "budget than the one before, such as [[0, 0.5], [1, 0.1]]"
            )
        if not any(share for _, share in self.points):
            raise ValueError(f"share of {self.source!r} is 0 at every point; it must be above 0 at one")

    @property
    def moves(self) -> bool:
        """Whether its share is not the same throughout the stage."""
        return isinstance(self.share, tuple)

    @property
    def points(self) -> tuple[Point, ...]:
        """Its share along the stage."""
        return self.share if isinstance(self.share, tuple) else ((0.0, self.share or 0.0),)

    @property
    def bound(self) -> float:
        """Epochs at most: as declared; else a share is bounded, and a repeat says itself how often."""
        default = MAX_EPOCHS if self.share is None else MAX_REPETITION
        return min(self.max_repetition or default, MAX_EPOCHS)

    def taken(self, number: int) -> int:
        """How many of `number` eligible samples `take` leaves; a percentage is rounded up, so it leaves one of any."""
        if self.take == "all":
            return number
        amount = self.take.partition(":")[2]
        wanted = math.ceil(number * float(amount[:-1]) / 100) if amount.endswith("%") else int(amount)
        return min(wanted, number)

    def scaled(self, fraction: float) -> MixtureEntry:
        """The same for a run that read this fraction of the source's rows: numbers of samples are as much less."""
        how, _, amount = self.take.partition(":")
        numbered = amount and not amount.endswith("%")
        take = f"{how}:{max(1, round(int(amount) * fraction))}" if numbered else self.take
        balance = self.balance and replace(self.balance, cap=max(1, round(self.balance.cap * fraction)))
        return replace(self, take=take, balance=balance)


def _allow_mapping(schema: dict[str, Any]) -> None:
    """Say in a JSON Schema of entries that they may stand under their sources' names."""
    listed = {name: schema.pop(name) for name in ("items", "type")}
    value = {"anyOf": [{"type": "number"}, {"type": "object"}]}
    schema["anyOf"] = [listed, {"type": "object", "additionalProperties": value}]


@dataclass(frozen=True, config=STRICT)
class MixtureSettings:
    """A stage's mixture.

    Exactly one of `shares`, `repeat` and `entries`; at most one of `epochs`, `tokens` and `sequences`.
    """

    sequence_length: int  # tokens of a packed sequence at most
    shares: Mapping[str, Share] = field(default_factory=dict)  # source -> its share of the unit
    repeat: Mapping[str, float] = field(default_factory=dict)  # source -> epochs, times `epochs`
    entries: tuple[MixtureEntry, ...] = Field(
        default=(), json_schema_extra=_allow_mapping
    )  # the same, with more keys for each
    unit: Unit = "samples"  # of shares; the order of sources keeps to it as well
    epochs: float | None = None  # budget: tokens of so many epochs of all sources; repeats, so many times
    tokens: float | None = None  # budget: tokens in sequences, padding aside
    sequences: float | None = None  # budget: packed sequences; about, since how full they get is estimated
    tiles_per_sequence: int = 64  # encoder inputs of a sequence at most
    patches_per_sequence: int | None = None  # of images at native resolution, which are one input each; None: any
    truncate: bool = False  # cut an answer that does not fit at the sequence's end; else its turn is lost, and counted
    max_repetition: float | None = None  # epochs of any source that declares no other; of shares 16 by default
    held_out: Mapping[str, float] = field(
        default_factory=dict
    )  # source -> fraction kept for evaluation; 1: a benchmark
    shard_window: int = 8  # shards of a source whose samples are shuffled together
    pack_window: int = 4096  # samples that the packer looks at together; it packs every window on its own
    windows_per_block: int = 16  # of the packer, in one task and file
    strict: bool = False  # refuse what cannot be met, instead of coming as near as the data allow

    @field_validator("entries", mode="before")
    @classmethod
    def _listed(cls, entries: Any) -> Any:
        """Accept `{web: 0.4, quiz: {share: 0.6}}` for the list of entries."""
        if not isinstance(entries, Mapping):
            return entries
        return [
            {"source": name, **(value if isinstance(value, Mapping) else {"share": value})}
            for name, value in entries.items()
        ]

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        given = [name for name in ("shares", "repeat", "entries") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"a mixture has one of shares, repeat and entries; this one has {' and '.join(given) or 'none'}"
            )
        budgets = [name for name in ("epochs", "tokens", "sequences") if getattr(self, name) is not None]
        if len(budgets) > 1:
            raise ValueError(f"a mixture has one budget at most; this one has {' and '.join(budgets)}")
        for name in (*POSITIVE, *budgets):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number above 0")
        for name, fraction in self.held_out.items():
            if not 0 <= fraction <= 1:
                raise ValueError(f"held_out of {name!r} is {fraction}; it is a fraction from 0 to 1")
        self._check_entries(self.resolved())

    def _check_entries(self, entries: tuple[MixtureEntry, ...]) -> None:
        """Refuse entries that do not go together, or into a sequence."""
        for entry in entries:
            self._check_whole(entry)
        if entries and all(self.keeps_whole(entry.source) for entry in entries):
            raise ValueError("held_out keeps all of every source, so there is nothing to train on")
        if len({entry.share is None for entry in entries}) > 1:
            one, other = (next(e.source for e in entries if (e.share is None) is none) for none in (False, True))
            raise ValueError(f"either all entries have a share or none has; {one!r} has one, and {other!r} has none")
        for entry in entries:
            if entry.sequence_length is not None and entry.sequence_length > self.sequence_length:
                raise ValueError(
                    f"sequence_length of {entry.source!r} is {entry.sequence_length}; a sequence holds "
                    f"{self.sequence_length} at most"
                )
        if any(entry.share is not None and entry.repeat is not None for entry in entries):
            raise ValueError("an entry has a share or a repeat, not both")

    def _check_whole(self, entry: MixtureEntry) -> None:
        """A share or repeat of 0 is for sources that are held out whole, and only for them."""
        for name in ("share", "repeat"):
            value = getattr(entry, name)
            if value == 0 and not self.keeps_whole(entry.source):
                raise ValueError(
                    f"{name} of {entry.source!r} is {value}; it must be a finite number above 0, or the source held "
                    f"out whole: held_out: {{{entry.source}: 1}}"
                )
            if value and self.keeps_whole(entry.source):
                raise ValueError(
                    f"held_out of {entry.source!r} is 1, so nothing of it is trained on; its {name} is 0 then, not "
                    f"{value}"
                )

    def keeps_whole(self, source: str) -> bool:
        """Whether all of a source is kept for evaluation, as a benchmark of one's own."""
        return self.held_out.get(source) == 1

    def resolved(self) -> tuple[MixtureEntry, ...]:
        """The entries, however they were declared, with the mixture's own cap where they have none.

        Sources that are held out whole and are no entries come last, with nothing to train on.
        """
        entries = self.entries
        entries += tuple(MixtureEntry(name, share=share) for name, share in self.shares.items())
        entries += tuple(MixtureEntry(name, repeat=repeat) for name, repeat in self.repeat.items())
        named = {entry.source for entry in entries}
        share = 0.0 if any(entry.share is not None for entry in entries) else None
        whole = (name for name in sorted(self.held_out) if self.keeps_whole(name) and name not in named)
        entries += tuple(MixtureEntry(name, share=share) for name in whole)
        return tuple(replace(entry, max_repetition=entry.max_repetition or self.max_repetition) for entry in entries)

    def scaled(self, scale: float, read: Mapping[str, float]) -> MixtureSettings:
        """The same for a scaled run: budgets in tokens and sequences, and what entries take, are as much less.

        Epochs, caps in epochs and percentages stay, since what they count is less already.

        Args:
            scale: the run's scale.
            read: source -> the fraction of its rows that was read, where known; else it is taken to be the scale.
        """
        if scale == 1:
            return self
        return replace(
            self,
            tokens=None if self.tokens is None else self.tokens * scale,
            sequences=None if self.sequences is None else self.sequences * scale,
            entries=tuple(entry.scaled(read.get(entry.source, scale)) for entry in self.entries),
        )

    @property
    def moves(self) -> bool:
        """Whether a share is not the same throughout the stage."""
        return any(entry.moves for entry in self.resolved())

    @property
    def by_share(self) -> bool:
        """Whether shares are declared, not repeats."""
        return self.resolved()[0].share is not None

    def labels(self) -> tuple[str, ...]:
        """A name for each entry: its source, with `@2` and so on from its second entry.

        It names files, so the `*` of a pattern is written as `_`.
        """
        seen: Counter[str] = Counter()
        labels = []
        for entry in self.resolved():
            name = entry.source.replace("*", "_")
            seen[name] += 1
            labels.append(name if seen[name] == 1 else f"{name}@{seen[name]}")
        return tuple(labels)
