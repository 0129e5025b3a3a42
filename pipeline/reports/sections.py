"""The report on a run's curation, in sections: the funnel, what sources have in common, benchmarks, signals.

`vlmill report` prints it, `page/report.py` makes a page of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import NotBuiltError, RecipeError
from vlmill.pipeline.recipe.lock import explain_unbuilt, read_locked_recipe
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.reports.asked import AskedCounts, read_asked
from vlmill.pipeline.reports.consequences import Causes, describe_causes, read_causes
from vlmill.pipeline.reports.contamination import Contamination, list_warnings, read_contamination
from vlmill.pipeline.reports.funnel import (
    LevelCounts,
    check_source,
    count_lost_pages,
    find_steps_by_reason,
    select_funnel,
)
from vlmill.pipeline.reports.overlap import SourceOverlap, list_uncompared, read_overlap
from vlmill.pipeline.reports.signals import SignalCounts, list_silent_signals, read_signals
from vlmill.pipeline.reports.unread import UnreadKeys, UnreadPages, list_unread_keys, list_unread_pages

SECTIONS = ("funnel", "overlap", "contamination", "signals")


@dataclass(frozen=True, slots=True)
class FunnelSection:
    """The counts, with what no table of reasons shows."""

    counts: Mapping[str, LevelCounts]  # by source
    steps: Mapping[str, Mapping[str, Sequence[str]]]  # source -> reason -> the steps that lost something for it
    causes: Mapping[str, Causes]  # source -> what is behind losses that follow from others
    lost_pages: Mapping[str, Mapping[str, int]]  # source -> reason -> pages that left no sample
    unread: tuple[UnreadKeys, ...]
    unread_pages: tuple[UnreadPages, ...]  # of sources whose images do not come from the web


@dataclass(frozen=True, slots=True)
class ContaminationSection:
    """The findings, with a line for each benchmark that could not be read whole."""

    found: Contamination
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CurationReport:
    """The sections that were asked for and that the run has."""

    funnel: FunnelSection | None = None
    overlap: tuple[SourceOverlap, ...] | None = None
    uncompared: tuple[str, ...] | None = None  # what dedupe left out; a part of the section `overlap`
    contamination: ContaminationSection | None = None
    signals: tuple[SignalCounts, ...] | None = None
    silent: tuple[str, ...] | None = None  # warnings of signals without a value; a part of the section `signals`
    asked: tuple[AskedCounts, ...] | None = None  # of servers; a part of the section `signals`
    missing: Mapping[str, str] | None = None  # section that was asked for -> why the run does not have it
    unbuilt: str | None = None  # a warning where the recipe was changed and is not built to its end

    def to_json(self) -> dict[str, Any]:
        """The sections for machines, without those that are not there."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_report(root: Path, section: str | None = None, source: str | None = None, examples: int = 0) -> CurationReport:
    """Read one section, or all that a run has.

    Args:
        root: The run's folder.
        section: One of SECTIONS; None is all.
        source: One source only.
        examples: Pairs of a sample and a benchmark item, for each benchmark and source.

    Raises:
        RecipeError: there is no such section.
        StoreError: nothing is read yet, there is no such source, the run does not have the one section, or is damaged.
    """
    if section is not None and section not in SECTIONS:
        raise RecipeError(
            f"--section {section}: there is no such section; {offer_names(read_locked_recipe(root), section, SECTIONS)}"
        )
    check_source(root, source)
    readers: dict[str, Callable[[], Any]] = {
        "funnel": lambda: _read_funnel_section(root, select_funnel(root, source, None)),
        "overlap": lambda: tuple(pair for pair in read_overlap(root) if source in {None, pair.source}),
        "contamination": lambda: _read_contamination_section(root, source, examples),
        "signals": lambda: tuple(one for one in read_signals(root) if source in {None, one.source}),
    }
    unbuilt = explain_unbuilt(root)
    if section is not None:
        found: dict[str, Any] = {section: readers[section]()}
        return CurationReport(**found, **_read_beside(root, source, found), unbuilt=unbuilt)
    if not read_locked_recipe(root).signals:
        del readers["signals"]  # most recipes ask no model
    found, missing = {}, dict[str, str]()
    for name, read in readers.items():
        try:
            found[name] = read()
        except NotBuiltError as error:
            missing[name] = str(error)
    return CurationReport(**found, **_read_beside(root, source, found), missing=missing or None, unbuilt=unbuilt)


def _read_beside(root: Path, source: str | None, found: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of the sections found: what dedupe left out; signals without a value, and what servers were asked."""
    beside = {"uncompared": tuple(list_uncompared(root)) or None} if "overlap" in found else {}
    if "signals" not in found:
        return beside
    silent = tuple(list_silent_signals(root, read_locked_recipe(root), source))
    return {**beside, "silent": silent or None, "asked": read_asked(root, source) or None}


def _read_funnel_section(root: Path, funnel: Mapping[str, LevelCounts]) -> FunnelSection:
    pages = {name: lost for name in funnel if (lost := count_lost_pages(root, name))}
    unread = tuple(line for line in list_unread_keys(root) if line.source in funnel)
    recipe, steps = read_locked_recipe(root), {name: find_steps_by_reason(root, name) for name in funnel}
    causes = {name: found for name in funnel if (found := read_causes(root, recipe, name))}
    held = (name for name in funnel if not recipe.source(name).fetches)
    return FunnelSection(funnel, steps, causes, pages, unread, tuple(list_unread_pages(root, held)))


def _read_contamination_section(root: Path, source: str | None, examples: int) -> ContaminationSection:
    found = read_contamination(root, examples)
    benchmarks = {
        name: replace(of, sources={key: line for key, line in of.sources.items() if source in {None, key}})
        for name, of in found.benchmarks.items()
    }
    warnings = tuple(list_warnings(root, read_locked_recipe(root)))
    return ContaminationSection(replace(found, benchmarks=benchmarks), warnings)


def format_funnel_notes(funnel: FunnelSection) -> Iterator[str]:
    """What is behind consequences; keys that were not read and pages that left no sample, a line for each source."""
    yield from describe_causes(funnel.causes.values())
    yield from map(str, (*funnel.unread, *funnel.unread_pages))
    for source, lost in funnel.lost_pages.items():
        why = ", ".join(f"{reason} {number:,}" for reason, number in lost.items())
        yield f"{source}: pages without a sample: {why}"
