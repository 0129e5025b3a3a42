"""The funnel: in = kept + dropped + failed, by source, level and reason, with the step of each loss.

The counts are those of manifests alone; examples are read from the tables of partitions (`losses.py`). `page/report.py`
puts both on one page.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.reasons import FAMILIES, Reason
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.engine.chain import read_counts, read_manifest
from vlmill.pipeline.filters import Shape
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.causes import Cause, group_causes
from vlmill.pipeline.reports.losses import (
    Loss,
    choose_losses,
    list_bad_files,
    list_losses,
    list_refused_losses,
)
from vlmill.pipeline.verdicts.audit import CONSEQUENCES

LEVELS = ("files", "rows", "samples", "nodes", "images", "boxes")
DRAWING = frozenset(
    {
        Reason.UNRENDERABLE,
        Reason.UNDECODABLE,
        Reason.TOO_MANY_PIXELS,
        Reason.BOX_CUT_AWAY,
        Reason.BOX_WITHOUT_IMAGE,
    }
)
"""Why a policy cannot draw an image, or does not show what a text says of it."""
WIDE = 100
"""Columns from which a table has room for the steps."""

LevelCounts = dict[str, dict[str, Any]]
"""Level -> in, kept, dropped by reason, failed by reason."""


def read_funnel(root: Path) -> dict[str, LevelCounts]:
    """Source -> its funnel.

    `files` are counted by the survey, and shown where one was skipped; `rows` where the input file is read; samples,
    nodes and images where shards are made, under the first policy that the source is rendered under (others differ
    only in images that they cannot render, and in coordinates that they cut away), or where there are none, where
    verdicts were applied to samples. `boxes` are regions of texts, those among them that are bad where they are found.
    """
    recipe = read_locked_recipe(root)
    funnel: dict[str, LevelCounts] = {}
    for source in sorted(recipe.sources):
        lines = {
            **_read_counts(root, f"steps/{source}/survey"),
            **_read_counts(root, f"steps/{source}/read"),
            **_read_outcome(root, recipe, source),
        }
        funnel[source] = {level: lines[level] for level in LEVELS if level in lines}
    if not any(lines["files"]["failed"] for lines in funnel.values() if "files" in lines):
        for lines in funnel.values():
            lines.pop("files", None)
    return funnel


def _read_outcome(root: Path, recipe: Recipe, source: str) -> LevelCounts:
    """The counts of what was kept of a source's samples."""
    shards = (_read_counts(root, f"shards/{source}/{policy}") for policy in recipe.list_policies(source)[:1])
    found = _read_counts(root, f"steps/{source}/boxes")
    outcome = next(shards, {}) or _read_counts(root, f"steps/{source}/outcomes")
    if "boxes" not in outcome:
        return {**found, **outcome}
    boxes, came = Count.from_json(outcome["boxes"]), Count.from_json(found["boxes"])
    return {**outcome, "boxes": Count(came.came, boxes.kept, came.lost + boxes.lost).to_json()}


def _read_counts(root: Path, folder: str) -> LevelCounts:
    path = root / folder / "manifest.json"
    return read_counts(path) if path.exists() else {}


def total_funnel(funnel: Mapping[str, LevelCounts]) -> dict[str, Count]:
    """The funnel of all sources in one."""
    whole: dict[str, Count] = {}
    for lines in funnel.values():
        for level, line in lines.items():
            whole.setdefault(level, Count()).add(Count.from_json(line))
    return whole


def find_steps_by_reason(root: Path, source: str) -> dict[str, list[str]]:
    """Reason -> the steps that lost something of a source for it, in the order of their work; nothing for consequences.

    A reason that no step's counts name is the policy's, which could not draw an image, or that of an image file which
    `read` did not get; a sample that other steps left too few images is dropped by `shape`.
    """
    recipe = read_locked_recipe(root)
    steps = ["survey", "read", "fetch", "retry", "takedown", "image_stats", *recipe.all_verdict_steps()]
    found = defaultdict[str, list[str]](list)
    for step in steps:
        folder = "steps/dedupe/resolve" if step == "dedupe" else f"steps/{source}/{step}"
        for reason in sorted(_list_reasons(_read_counts(root, folder))):
            found[reason].append(step)
    for folder in (
        *(f"shards/{source}/{policy}" for policy in recipe.list_policies(source)),
        f"steps/{source}/outcomes",
    ):
        for reason in sorted(_list_reasons(_read_counts(root, folder)) - CONSEQUENCES - found.keys()):
            found[reason] = [_name_other_step(reason)]
    return dict(found)


def _name_other_step(reason: str) -> str:
    """The step that a reason is due to which no step's counts name."""
    if reason == Reason.TOO_FEW_IMAGES:
        return Shape.name
    return "render" if reason in DRAWING else "read"


def _list_reasons(counts: LevelCounts) -> set[str]:
    return {reason for line in counts.values() for partition in ("dropped", "failed") for reason in line[partition]}


def _list_page_reasons(root: Path, source: str) -> set[str]:
    """Why pages of a source left no sample; the rows that they stood in may be kept."""
    counts = _read_counts(root, f"steps/{source}/read")
    return _list_reasons({"pages": counts["pages"]}) if counts else set()


def count_lost_pages(root: Path, source: str) -> dict[str, int]:
    """Reason -> pages that left no sample, of a source whose rows fan out to pages; empty for others."""
    counts = _read_counts(root, f"steps/{source}/read")
    if not counts or counts["rows"]["in"] == counts["pages"]["in"]:
        return {}
    return {**counts["pages"]["dropped"], **counts["pages"]["failed"]}


def check_source(root: Path, source: str | None) -> None:
    """Check that a run has a source; None is all.

    Raises:
        StoreError: it has none of that name; names the nearest.
    """
    recipe = read_locked_recipe(root)
    if source is not None and source not in recipe.sources:
        raise StoreError(f"{root}: there is no source {source!r}; {offer_names(recipe, source, recipe.sources)}")


def select_funnel(root: Path, source: str | None, reason: str | None) -> dict[str, LevelCounts]:
    """The funnel of one source or of all; the reason has to occur in it.

    Raises:
        StoreError: there is no such source, or nothing was lost for that reason; names the nearest and those that
            occur.
    """
    check_source(root, source)
    funnel = read_funnel(root)
    funnel = {name: lines for name, lines in funnel.items() if source in {None, name}}
    if not any("rows" in lines for lines in funnel.values()):
        raise StoreError(f"{root}: nothing is read yet; run the build to its end: vlmill build RECIPE --out {root}")
    occurring = sorted(
        {found for name, lines in funnel.items() for found in {*_list_reasons(lines), *_list_page_reasons(root, name)}}
    )
    if reason is not None and reason not in occurring:
        raise StoreError(
            f"--reason {reason}: nothing was lost for it here; {_offer_reasons(root, funnel, reason, occurring)}"
        )
    return funnel


def _offer_reasons(root: Path, funnel: Mapping[str, LevelCounts], name: str, occurring: Sequence[str]) -> str:
    """All reasons that occur; of a filter, another step or a signal, if that is its name, its own as those meant."""
    if name in {str(reason) for reason in Reason}:
        return f"{suggest_names(name, occurring)}. What a stage loses of what is kept stands in: vlmill stats {root}"
    recipe = read_locked_recipe(root)
    by_source = (find_steps_by_reason(root, source) for source in funnel)
    own = {reason for steps in by_source for reason, found in steps.items() if name in found}
    own |= {f"{family}:{name}" for family in FAMILIES}
    own |= {f"signal:{value}" for value in recipe.signals[name].columns(name)} if name in recipe.signals else set()
    return offer_names(recipe, name, occurring, sorted(own & {*occurring}))


# -- tables ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a source's table: a number and its share of what came in, at each level."""

    name: str
    step: str  # that lost something for this reason, or several; empty for sums
    cells: list[tuple[int, int]]  # the number, and what came in at its level


@dataclass(frozen=True, slots=True)
class Lines:
    """A source's table."""

    levels: list[str]
    lines: list[Line]


def make_lines(counts: LevelCounts, steps: Mapping[str, Sequence[str]]) -> Lines:
    """The table of one source: in, kept, dropped, failed, then every reason, those that lost most first; pure."""
    levels = [level for level in LEVELS if level in counts]

    def line(name: str, step: str, numbers: Mapping[str, int]) -> Line:
        return Line(name, step, [(numbers[level], counts[level]["in"]) for level in levels])

    totals = [
        line("in", "", {level: counts[level]["in"] for level in levels}),
        line("kept", "", {level: counts[level]["kept"] for level in levels}),
    ]
    for partition in ("dropped", "failed"):
        totals.append(line(partition, "", {level: sum(counts[level][partition].values()) for level in levels}))
        numbers = {level: counts[level][partition] for level in levels}
        lost = sum((Counter(numbers[level]) for level in levels), Counter[str]())
        totals += [
            line(
                f"  {reason}",
                format_steps(reason, steps),
                {level: numbers[level].get(reason, 0) for level in levels},
            )
            for reason, _ in sorted(lost.items(), key=lambda item: (-item[1], item[0]))
        ]
    return Lines(levels, totals)


def format_steps(reason: str, steps: Mapping[str, Sequence[str]]) -> str:
    """The steps that lost something for a reason, in words."""
    return ", ".join(steps.get(reason, ())) or ("consequence" if reason in CONSEQUENCES else "")


def format_share(number: int, whole: int, decimals: int = 1) -> str:
    """A percentage; one that is something and rounds to nothing is said to be less than the least.

    Of nothing, nothing.
    """
    if not whole:
        return ""
    least = 10 ** -(decimals + 2)
    return f"<{least:.{decimals}%}" if 0 < number / whole < least / 2 else f"{number / whole:.{decimals}%}"


def make_funnel_tables(root: Path, funnel: Mapping[str, LevelCounts], width: int) -> Iterator[Table]:
    """The funnel for a terminal: in, kept and every reason of one source; of several together, and what each kept.

    In less than WIDE columns the steps stand below, and shares are whole percents: up to a million of anything fits 80
    columns, and beyond that names are folded, numbers never.
    """
    name, found = next(make_lines_by_source(root, funnel))
    yield _make_reason_table(name, found, wide=width >= WIDE)
    if len(funnel) > 1:
        yield _make_source_table(funnel, found.levels, wide=width >= WIDE)


def _make_reason_table(name: str, found: Lines, *, wide: bool) -> Table:
    table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", overflow="fold")
    if wide:
        table.add_column("step", style="dim")
    else:
        table.caption, table.caption_justify = _list_reasons_by_step(found), "left"
    for level in found.levels:
        table.add_column(level, justify="right", no_wrap=True)
    for line in found.lines:
        numbers = (_format_cell(number, came, wide=wide) for number, came in line.cells)
        style = "" if line.name.startswith(" ") else "bold"
        table.add_row(line.name, *((line.step,) if wide else ()), *numbers, style=style)
    return table


def _make_source_table(funnel: Mapping[str, LevelCounts], levels: Sequence[str], *, wide: bool) -> Table:
    """What was kept of each source, a line each."""
    table = Table(title="kept of each source", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.show_edge = False
    table.add_column("source", overflow="fold")
    for level in levels:
        table.add_column(level, justify="right", no_wrap=True)
    for source, counts in funnel.items():
        lines = (counts.get(level, {"kept": 0, "in": 0}) for level in levels)
        cells = (_format_cell(line["kept"], line["in"], wide=wide, zero=line["in"] > 0) for line in lines)
        table.add_row(source, *cells)
    return table


def _format_cell(number: int, came: int, *, wide: bool, zero: bool = False) -> str:
    """A number with its share; nothing as a dash, unless `zero` says that it is a number."""
    return f"{number:,} {format_share(number, came, int(wide)):>{6 if wide else 4}}" if number or zero else "-"


def _list_reasons_by_step(found: Lines) -> str:
    """Which step lost something for which reasons, in a sentence."""
    reasons = defaultdict[str, list[str]](list)
    for line in found.lines:
        if line.step:
            reasons[line.step].append(line.name.strip())
    return "by step: " + "; ".join(f"{step}: {', '.join(of)}" for step, of in reasons.items()) if reasons else ""


def make_lines_by_source(root: Path, funnel: Mapping[str, LevelCounts]) -> Iterator[tuple[str, Lines]]:
    """Each source with its table, and before them one of all where there are several."""
    by_source = {source: find_steps_by_reason(root, source) for source in funnel}
    if len(funnel) > 1:
        everywhere = defaultdict[str, list[str]](list)
        for found in by_source.values():
            for reason, steps in found.items():
                everywhere[reason] += [step for step in steps if step not in everywhere[reason]]
        totals = {level: count.to_json() for level, count in total_funnel(funnel).items()}
        yield "all sources", make_lines(totals, everywhere)
    for source, counts in funnel.items():
        if counts:
            yield source, make_lines(counts, by_source[source])


# -- examples ----------------------------------------------------------------------------------------------------------


def sample_losses(root: Path, funnel: Mapping[str, LevelCounts], reason: str, number: int) -> list[Loss]:
    """`number` losses for a reason, chosen by a hash of their ids, in the order of these."""
    recipe = read_locked_recipe(root)
    found = (loss for source in funnel for loss in _find_losses(root, recipe, source, funnel[source], reason))
    return sorted(choose_losses(found, number), key=lambda loss: (loss.id, loss.node))


def count_causes(root: Path, funnel: Mapping[str, LevelCounts], reason: str) -> list[Cause]:
    """What sources said of the rows and pages that were lost for a reason before there was a sample."""
    recipe = read_locked_recipe(root)
    return group_causes(
        (loss.id, loss.detail)
        for source in funnel
        if reason in _list_page_reasons(root, source)
        for loss in list_refused_losses(root, recipe, source)
        if loss.reason == reason and loss.detail
    )


def _find_losses(root: Path, recipe: Recipe, source: str, counts: LevelCounts, reason: str) -> Iterator[Loss]:
    """What a source lost for a reason; tables that hold nothing of it are not read."""
    if Reason.BAD_FILE.value == reason:
        yield from list_bad_files(root, source)
    if reason in _list_page_reasons(root, source):
        yield from (loss for loss in list_refused_losses(root, recipe, source) if loss.reason == reason)
    if reason in _list_reasons({level: line for level, line in counts.items() if level not in {"files", "rows"}}):
        yield from (loss for loss in list_losses(root, recipe, source) if loss.reason == reason)


def read_row_losses(root: Path, funnel: Mapping[str, LevelCounts], reason: str) -> dict[str, tuple[int, int]]:
    """Partition -> rows that gave no sample, and pages, of those lost for a reason before there was a sample.

    A row that was lost as a whole counts among the pages, once.
    """
    found = dict[str, tuple[int, int]]()
    for source in (name for name in funnel if "rows" in funnel[name]):
        for receipt in read_manifest(root, f"steps/{source}/read"):
            rows, pages = (
                Count.from_json(receipt.counts[level]).lost.get(Reason(reason), 0) for level in ("rows", "pages")
            )
            if rows or pages:
                found[f"{source}/{receipt.partition}"] = rows, pages
    return found


def loss_to_json(loss: Loss) -> dict[str, Any]:
    """A loss for machines."""
    return {**asdict(loss), "reason": str(loss.reason)}
