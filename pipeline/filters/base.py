"""The step around any judge: reads a partition, writes what the judge wants dropped.

A judge looks at samples (and, if it asks, at what is known about their images) and yields verdicts; it changes nothing. What
follows from a verdict, for turns, required images and empty samples, is `pipeline/verdicts/apply.py`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    IMAGE_STATS,
    WHOLE_SAMPLE,
    ImageStats,
    Sample,
    Verdict,
    read_rows,
    read_samples,
    write_verdicts,
)
from vlmill.pipeline.core.step import Count, Counts, Inputs


@dataclass(frozen=True, slots=True)
class Undecided:
    """What a judge could not decide about a sample or one node of it: counted, and dropped only if a verdict says so too."""

    sample: int  # row in samples.parquet
    node: int  # index into Sample.nodes, or WHOLE_SAMPLE


Finding = Verdict | Undecided


class Filter(Protocol):
    """A frozen dataclass whose fields are its parameters."""

    @property
    def name(self) -> str:
        """What recipes, verdicts and folders call it; a ClassVar for all but judges of one's own."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the same samples and parameters give other verdicts."""
        ...

    @property
    def facts(self) -> tuple[str, ...]:
        """Columns of facts.parquet it looks at; with none it need not wait for images."""
        ...

    def made_by(self) -> Mapping[str, str]:
        """What else decides its verdicts: library versions, the sha256 of a model."""
        ...

    def judge(self, samples: Iterable[tuple[int, Sample]], facts: Sequence[ImageStats]) -> Iterator[Finding]:
        """Verdicts on `samples`, which come with their rows, in any order; at most one per sample and node.

        Pure. What it says about a sample depends on that sample alone, so partitions can be cut anywhere, and it holds
        no more than a batch of samples. `facts` is indexed by `Node.image` and has the columns asked for.
        """
        ...


@runtime_checkable
class ReadsLists(Filter, Protocol):
    """A judge that needs files which the recipe names. What is in them is in the key; where they lie is not."""

    @property
    def lists(self) -> Mapping[str, str]:
        """Name of the input -> path, as the recipe has it."""
        ...

    def opened(self, paths: Mapping[str, Path]) -> Filter:
        """The judge, with its lists to be read from these places."""
        ...


@dataclass(frozen=True)
class FilterStep:
    """samples.parquet, and facts.parquet if the judge looks at images -> `<name>.verdicts.parquet`.

    Counts nodes under `judged` (a verdict on a sample loses all of its nodes) and doubtful ones under `undecided`.
    """

    judge: Filter
    pure: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The judge's own."""
        return self.judge.name

    @property
    def version(self) -> int:
        """The judge's own."""
        return self.judge.version

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, facts if the judge asks for any, and the lists it needs."""
        lists = tuple(self.judge.lists) if isinstance(self.judge, ReadsLists) else ()
        return ("samples.parquet", *(("facts.parquet",) if self.judge.facts else ()), *lists)

    def made_by(self) -> Mapping[str, str]:
        """The judge's own."""
        return self.judge.made_by()

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Judge a partition, in memory that does not grow with it but for the verdicts and the asked-for facts."""
        sizes: list[int] = []

        def noted() -> Iterator[tuple[int, Sample]]:
            for row, sample in enumerate(read_samples(inputs["samples.parquet"])):
                sizes.append(0 if sample.taken_down else len(sample.nodes))
                if not sample.taken_down:
                    yield row, sample

        facts = _facts(inputs["facts.parquet"], self.judge.facts) if self.judge.facts else []
        judge = self.judge
        if isinstance(judge, ReadsLists):
            judge = judge.opened({name: inputs[name] for name in judge.lists})
        findings = list(judge.judge(noted(), facts))
        verdicts = [finding for finding in findings if isinstance(finding, Verdict)]
        write_verdicts(folder / f"{self.name}.verdicts.parquet", verdicts)
        return _counts(sizes, verdicts, [finding for finding in findings if isinstance(finding, Undecided)])


def _facts(path: Path, columns: Sequence[str]) -> list[ImageStats]:
    """Facts with the wanted columns and defaults elsewhere."""
    wanted = [name for name in IMAGE_STATS.names if name in {"image", "reason", *columns}]
    rows = read_rows(path, wanted)
    return [ImageStats(**{**row, "reason": Reason(row["reason"]) if row["reason"] else None}) for row in rows]


def _counts(sizes: Sequence[int], verdicts: Sequence[Verdict], doubts: Sequence[Undecided]) -> Counts:
    judged, undecided = Count(), Count()
    lost: dict[tuple[int, int], Reason] = {}
    for verdict in verdicts:
        nodes = range(sizes[verdict.sample]) if verdict.node == WHOLE_SAMPLE else (verdict.node,)
        lost.update({(verdict.sample, node): verdict.reason for node in nodes if (verdict.sample, node) not in lost})
    for reason in lost.values():
        judged.lose(reason)
    judged.keep(sum(sizes) - len(lost))
    for doubt in doubts:
        reason_or_none = lost.get((doubt.sample, doubt.node))
        undecided.lose(reason_or_none) if reason_or_none else undecided.keep()
    return {"judged": judged, "undecided": undecided}
