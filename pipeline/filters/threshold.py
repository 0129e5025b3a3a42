"""Threshold: drops images, texts and samples by the values of signals.

The values were computed once and stand beside the data (pipeline/core/scores.py), so another threshold asks no model.
A bound that is a quantile is turned into a value by the step `quantiles`, over all that was scored in the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import polars as pl
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.names import QUANTILES_FILE, SCORES_SUFFIX, name_scores
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, ImageStats, Sample, Verdict
from vlmill.pipeline.core.scores import list_value_columns, read_scores
from vlmill.pipeline.filters.base import Finding, Undecided

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class Bound:
    """The bounds of one value. A value on a bound is kept.

    Attributes:
        min: the least value that is kept.
        max: the largest value that is kept.
        min_quantile: 0.1 keeps the upper 90 % of what was scored in the run.
        max_quantile: 0.9 keeps the lower 90 %.
        by_source: whether a quantile is of the values of each source by itself.
        sources: those that it is asked of, by name or by a pattern such as `cauldron-*`; none: all.
    """

    min: float | None = None
    max: float | None = None
    min_quantile: Share | None = None
    max_quantile: Share | None = None
    by_source: bool = False
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = [name for name in ("min", "max", "min_quantile", "max_quantile") if getattr(self, name) is not None]
        if not given:
            raise ValueError("a bound needs one of min, max, min_quantile and max_quantile")
        for low, high in (("min", "max"), ("min_quantile", "max_quantile")):
            if low in given and high in given and getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}: nothing could pass"
                )

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The quantiles whose values it needs."""
        return tuple(share for share in (self.min_quantile, self.max_quantile) if share is not None)

    def find_range(self, column: str, source: str, cuts: Mapping[str, float]) -> tuple[float, float]:
        """The least and the largest value that pass, in a source."""
        least, most = [self.min], [self.max]
        place = source if self.by_source else ""
        if self.min_quantile is not None:
            least.append(cuts.get(name_cut(column, self.min_quantile, place)))
        if self.max_quantile is not None:
            most.append(cuts.get(name_cut(column, self.max_quantile, place)))
        return (
            max((value for value in least if value is not None), default=float("-inf")),
            min((value for value in most if value is not None), default=float("inf")),
        )

    def asks(self, source: str) -> bool:
        """Whether it is asked of a source."""
        return not self.sources or any(fnmatchcase(source, name) for name in self.sources)


def name_cut(column: str, share: float, source: str) -> str:
    """What quantiles.json calls the value at a quantile; `source` is empty for the whole run."""
    return f"{column} {share!r} {source}".rstrip()


Bounds = Mapping[str, Bound]
"""Value of a signal -> its bounds."""

Ranges = Mapping[str, tuple[float, float]]
"""Value of a signal -> the least and the largest that pass; infinite where a side is open."""


@dataclass(frozen=True, config=STRICT)
class Threshold:
    """Drops what lies beyond a bound of a signal's value. What has no value is undecided, and stays.

    Attributes:
        any: value of a signal -> bounds; what lies beyond one of them is dropped.
        all: groups of such bounds; what lies beyond every bound of a group is dropped. They are compared on one image
            or text; a value of the whole sample counts for each of its nodes.
        drops: `nodes` drops the image or text that a value is of; `samples` the sample that it is in.
    """

    name: ClassVar[str] = "threshold"
    version: ClassVar[int] = 1
    image_stats: ClassVar[tuple[str, ...]] = ()

    any: Bounds = field(default_factory=dict)
    all: tuple[Bounds, ...] = ()
    drops: Literal["nodes", "samples"] = "nodes"

    @property
    def groups(self) -> tuple[Bounds, ...]:
        """All bounds as groups, in the order of names, as locks have them: those of `any` each alone."""
        ordered = (dict(sorted(group.items())) for group in (self.any, *self.all))
        alone = ({column: bound} for column, bound in next(ordered).items())
        return (*alone, *ordered)

    @property
    def columns(self) -> tuple[str, ...]:
        """The values that it looks at."""
        return tuple(dict.fromkeys(column for group in self.groups for column in group))

    @property
    def quantiles(self) -> tuple[tuple[str, float], ...]:
        """Column and share of each quantile whose value it needs, sorted."""
        found = {
            (column, share) for group in self.groups for column, bound in group.items() for share in bound.quantiles
        }
        return tuple(sorted(found))

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of its values: a signal's name is a value's, or what stands before one of its `_`."""
        parts = (column.split("_") for column in self.columns)
        names = {"_".join(part[: end + 1]) for part in parts for end in range(len(part))}
        return (*(name_scores(name) for name in sorted(names)), *((QUANTILES_FILE,) if self.quantiles else ()))

    def made_by(self) -> Mapping[str, str]:
        """Nothing but this file."""
        return {}

    def opened(self, paths: Mapping[str, Path]) -> OpenThreshold:
        """The filter over the tables of a partition."""
        return OpenThreshold(self, paths)

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Finding]:
        """Refused: it looks at tables, so it has to be opened."""
        del samples, image_stats
        raise StoreError("threshold looks at the tables of signals: open it first")


class OpenThreshold:
    """A threshold with the values of a partition."""

    name, image_stats = Threshold.name, Threshold.image_stats

    def __init__(self, settings: Threshold, paths: Mapping[str, Path]) -> None:
        self.settings, self.version = settings, settings.version
        self.cuts: Mapping[str, float] = read_json(paths[QUANTILES_FILE]) if QUANTILES_FILE in paths else {}
        self.values = {column: _read_values(paths, column) for column in settings.columns}
        self.asked = dict[str, _Suspects]()  # by source

    def made_by(self) -> Mapping[str, str]:
        """Nothing but this file."""
        return {}

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Finding]:
        """Verdicts with the value as their score; of a group the first value that is beyond its bound."""
        del image_stats
        for row, sample in samples:
            suspects = self._find_suspects(sample.id.source)
            if row not in suspects.rows:
                continue
            verdicts, undecided = dict[int, Verdict](), list[int]()
            for ranges in suspects.ranges:
                here = [suspects.values[column].get(row, {}) for column in ranges]
                for node, beyond in self._compare_group(here, ranges):
                    if beyond is None:
                        undecided.append(node)
                    elif beyond:
                        column, value = beyond
                        verdicts.setdefault(node, Verdict(row, node, self.name, Reason(f"signal:{column}"), value))
            yield from self._choose_verdicts(list(verdicts.values()))
            yield from (Undecided(row, node) for node in dict.fromkeys(undecided) if node not in verdicts)

    def _find_suspects(self, source: str) -> _Suspects:
        """What passes in each group of bounds that is asked of a source, and the rows that may not pass all."""
        if source not in self.asked:
            ranges: list[Ranges] = [
                {column: bound.find_range(column, source, self.cuts) for column, bound in group.items()}
                for group in self.settings.groups
                if all(bound.asks(source) for bound in group.values())
            ]
            rows = {row for group in ranges for row in self._list_suspects(group)}
            self.asked[source] = _Suspects(
                ranges, rows, {name: _index_values(found, rows) for name, found in self.values.items()}
            )
        return self.asked[source]

    def _list_suspects(self, ranges: Ranges) -> set[int]:
        """The rows that have a value beyond each bound of a group, or none in the place of one."""
        beyond, unknown = list[set[int]](), set[int]()
        for column, (least, most) in ranges.items():
            value, table = pl.col("value").cast(pl.Float64), self.values[column]
            beyond.append({*table.filter(value.is_null() | (value < least) | (value > most))["sample"].to_list()})
            unknown |= {*table.filter(value.is_null())["sample"].to_list()}
        return set.intersection(*beyond) | unknown

    def _compare_group(
        self, here: Sequence[Mapping[int, float | None]], ranges: Ranges
    ) -> Iterator[tuple[int, tuple[str, float] | tuple[()] | None]]:
        """Each node that has all values of a group: the first value where all are beyond their bounds, else nothing.

        None where one of the values is not known.
        """
        own = sorted({node for values in here for node in values})
        for node in [node for node in own if node != WHOLE_SAMPLE] or own:
            if not all(node in values or WHOLE_SAMPLE in values for values in here):
                continue  # the group is about other nodes
            found = [values[node] if node in values else values[WHOLE_SAMPLE] for values in here]
            known = [value for value in found if value is not None]
            if len(known) < len(found):
                yield node, None
                continue
            bounds = zip(ranges.values(), known, strict=True)
            passed = any(least <= value <= most for (least, most), value in bounds)
            yield node, () if passed else (next(iter(ranges)), known[0])

    def _choose_verdicts(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        """One a node, or one on the sample where the whole of it goes."""
        whole = [verdict for verdict in verdicts if verdict.node == WHOLE_SAMPLE or self.settings.drops == "samples"]
        return [replace(whole[0], node=WHOLE_SAMPLE)] if whole else verdicts


Values = Mapping[int, Mapping[int, float | None]]
"""A value by sample and node; None where there is a reason in its place."""


class _Suspects(NamedTuple):
    """The samples of a source that are compared one by one; all others pass, which a table says at once."""

    ranges: Sequence[Ranges]
    rows: set[int]
    values: Mapping[str, Values]  # of these rows, by column


def _index_values(table: pl.DataFrame, rows: set[int]) -> Values:
    """The values of some rows."""
    found = dict[int, dict[int, float | None]]()
    wanted = pl.Series(sorted(rows), dtype=pl.Int32).to_frame("sample")
    for sample, node, value in table.join(wanted, on="sample", how="semi", maintain_order="left").iter_rows():
        found.setdefault(sample, {})[node] = value
    return found


def _read_values(paths: Mapping[str, Path], column: str) -> pl.DataFrame:
    """`sample`, `node` and `value`, which is null where there is a reason in its place.

    Raises:
        StoreError: no signal of the run gives it.
    """
    for name, path in paths.items():
        if name.endswith(SCORES_SUFFIX) and column in list_value_columns(path):
            return read_scores(path, ["sample", "node", column]).rename({column: "value"})
    raise StoreError(f"threshold: no signal of this run gives {column!r}; build it with: vlmill build RECIPE")
