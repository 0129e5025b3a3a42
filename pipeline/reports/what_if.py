"""What another setting of the filters or of dedupe would keep, from the tables of a run that is there.

Writes nothing into its folder.

Filters whose settings changed look at the samples again, what was found of benchmarks becomes verdicts or not, dedupe
resolves the pairs that were measured, and both outcomes are applied. No image is touched. The answer is what a build
would come to: pairs are measured down to the least threshold that a recipe may name. Only what the image policy cannot
draw is unknown for images that were not drawn before.
"""

from __future__ import annotations

import copy
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import RenderableType

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    Sample,
    SampleId,
)
from vlmill.pipeline.core.shown import Shown, count_things
from vlmill.pipeline.filters import FILTERS, CustomFilter, OptOut
from vlmill.pipeline.filters.custom import CustomCode, explain_refusal, hash_code
from vlmill.pipeline.recipe.given import GivenRecipe, RecipeName
from vlmill.pipeline.recipe.load import compose_recipe
from vlmill.pipeline.recipe.lock import read_lock, read_locked_recipe, select_shaping
from vlmill.pipeline.recipe.mapping import LOCK, find_run, list_differences
from vlmill.pipeline.recipe.overrides import DEFAULT_FILTERS, add_custom_filters, set_value
from vlmill.pipeline.recipe.parsed import parse_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.recipe.validate import validate_recipe
from vlmill.pipeline.reports.alike import group_alike
from vlmill.pipeline.reports.what_if_table import NOTHING, make_tables
from vlmill.pipeline.reports.what_if_verdicts import (
    BUILD,
    WhatIfPartition,
    enter_decontamination,
    enter_dedupe,
    enter_filters,
    enter_render,
    list_partitions,
)
from vlmill.pipeline.verdicts.apply import Outcome, apply_verdicts

LEVELS = ("samples", "nodes", "images")
EXAMPLES = 3
ANSWERED = ("filters", "custom_filters", "dedupe")
"""Blocks of a recipe whose change is answered; with them the sources' priorities, and the action on findings of
contamination."""
UPSTREAM = ("sources", "limit", "partition", "fetch", "image_stats", "signals")
"""Blocks that decide what filters see."""


@dataclass
class Change:
    """Things of one reason that would be lost, or kept, though they are not now."""

    newly_dropped: int = 0  # kept now, and not then
    newly_kept: int = 0  # kept then, and not now
    examples: list[str] = field(default_factory=list)  # ids, three at most


@dataclass
class Kept:
    """Things of one level: how many came, are kept now, and would be kept then."""

    came: int = 0  # to the filters
    now: int = 0  # kept under the run's settings
    then: int = 0  # kept under the other ones
    newly_dropped: int = 0  # kept now, and not then
    newly_kept: int = 0  # kept then, and not now
    why: dict[Reason, Change] = field(default_factory=dict)
    """By reason: of what is newly dropped its reason then, of what is newly kept its reason now."""


@dataclass(repr=False)
class WhatIfAnswer(Shown):
    """What would change, by source and level. Notes say what the answer leaves open."""

    sources: dict[str, dict[str, Kept]] = field(default_factory=dict)  # by source and level: samples, nodes, images
    asked: tuple[str, ...] = ()  # filters that looked again
    notes: list[str] = field(default_factory=list)  # what the answer leaves open
    unasked: int = 0  # images that were on a list of opt-outs when the others were fetched
    not_fetched: int = 0  # images of samples that would be kept, and that were dropped before the others were fetched

    def say_short(self) -> str:
        """How many samples would be dropped and kept."""
        found = [levels["samples"] for levels in self.sources.values()]
        dropped, kept = (sum(getattr(one, name) for one in found) for name in ("newly_dropped", "newly_kept"))
        return f"{count_things(dropped, 'sample')} newly dropped, {kept:,} newly kept" if self.changes else NOTHING

    def list_parts(self) -> Iterator[RenderableType]:
        """What would be kept of each source, why, and notes."""
        yield from make_tables(self)
        yield from () if self.changes else (NOTHING,)
        yield from (f"note: {note}" for note in self.notes)

    @property
    def changes(self) -> bool:
        """Whether anything would be kept or dropped that is not now."""
        return any(kept.why for levels in self.sources.values() for kept in levels.values())


def answer_what_if(
    name: RecipeName,
    out: Path | None,
    sets: Mapping[str, str],
    filters: Sequence[tuple[str, str]],
    command: Sequence[str] = (),
) -> tuple[Path, WhatIfAnswer]:
    """The folder of the run, and what would change in it.

    Args:
        name: A recipe (file or shipped) whose filters and dedupe count, or the folder of a run, whose own count.
        out: The run's folder; by default `build/` and the recipe's name.
        sets: Dotted key -> YAML text.
        filters: Files with custom filters that the command line named: name, code.
        command: What was typed, for what is said where that does not name code which has to run.

    Raises:
        RecipeError: a change that only a build can answer, or a filter to be asked whose code was not named.
        StoreError: there is no run, or it has not come to the filters.
    """
    root = find_run(name, out)
    locked = read_lock(root)
    if not isinstance(name, GivenRecipe) and root == Path(name):
        data, base, notes = copy.deepcopy(locked), None, list[str]()
        for file, code in filters:
            data.setdefault("custom_filters", {}).pop(file, None)
            add_custom_filters(data, file, code)
    else:
        data, base, notes = _replace_blocks(locked, name, filters)
    for key, text in sets.items():
        set_value(data, key, text)
    if fetching := [key for key in sets if "fetch" in key.split(".")]:
        notes.append(
            f"{', '.join(fetching)}: fetching is not simulated. What was fetched is never fetched again; a build with "
            "--retry-failed asks anew for what failed"
        )
    now = read_locked_recipe(root)
    _check_held(now, data)
    then = parse_recipe(data, str(name)).trusting([hash_code(code) for _, code in filters])
    _check_answered(select_shaping(read_lock(root)), select_shaping(data))
    validate_recipe(replace(then, tokenizer=now.tokenizer))
    asked = [filter_ for filter_ in then.filters if filter_ not in now.filters]
    if files_asked := {filter_.file for filter_ in asked if isinstance(filter_, CustomFilter) and filter_.code is None}:
        raise RecipeError(
            explain_refusal(
                str(root / LOCK), {file: then.custom_filters[file] for file in sorted(files_asked)}, command
            )
        )
    answer = compare_recipes(root, now, then, base)
    return root, replace(answer, notes=[*notes, *answer.notes])


def compare_recipes(root: Path, now: Recipe, then: Recipe, base: Path | None) -> WhatIfAnswer:
    """What would change in a run if its recipe were another in filters, dedupe or priorities.

    `base` is the folder that the paths of lists start from; without one, lists that the recipe names already are not
    read again.
    """
    answer, partitions = WhatIfAnswer(), list_partitions(root, now)
    with tempfile.TemporaryDirectory(prefix="vlmill-what-if-") as folder:
        answer.asked = enter_filters(root, now, then, base, partitions, Path(folder))
        enter_decontamination(root, now, then, partitions, Path(folder))
        answer.notes += enter_dedupe(root, now, then, partitions, Path(folder))
        enter_render(root, now, partitions)
        for partition in partitions:
            compare_partition(partition, answer)
    if answer.unasked and (OptOut.name in answer.asked or OptOut.name not in then.verdict_steps()):
        answer.notes.append(
            f"{answer.unasked} images were on a list of opt-outs and never asked for; "
            "a build with --retry-failed asks for those that no list names any more"
        )
    if answer.not_fetched:
        answer.notes.append(
            f"{answer.not_fetched} images of what would be kept were not fetched, since filters dropped it before "
            "(fetch.after); a build with --retry-failed fetches them"
        )
    if any(kept["images"].newly_kept for kept in answer.sources.values()):
        answer.notes.append("images that are newly kept were never drawn: the image policy may find fault with some")
    if now.has_boxes() and any(kept["nodes"].newly_kept for kept in answer.sources.values()):
        answer.notes.append("coordinates in texts that are newly kept were never placed: a crop may cut some away")
    return answer


def _replace_blocks(
    locked: dict[str, Any], name: RecipeName, filters: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], Path, list[str]]:
    """A locked mapping with the answered blocks of a recipe, where that stands, and in what else the two differ."""
    found = compose_recipe(name, filters=filters, locked=locked)
    data, base = found.data, found.base
    entries = data.setdefault("filters", [dict(entry) for entry in DEFAULT_FILTERS])
    known = {filter_ for entry in entries for filter_ in entry}
    of_files = [filter_ for entry in locked.get("filters", ()) for filter_ in entry if filter_ not in FILTERS]
    entries += [{filter_: None} for filter_ in of_files if filter_ not in known]
    shaped = select_shaping(data)
    differing = [block for block in UPSTREAM if shaped.get(block) != locked.get(block)]
    if shaped.get("decontaminate") and _select_benchmarks(shaped) != _select_benchmarks(locked):
        differing.append("benchmarks")
    notes = [f"{', '.join(differing)} of {name} differ from the run's; the answer is for the run as it is"] * bool(
        differing
    )
    kept = {block: value for block, value in copy.deepcopy(locked).items() if block not in ANSWERED}
    if "decontaminate" in shaped and kept.get("decontaminate"):
        block = shaped["decontaminate"]
        kept["decontaminate"] = block and {**_select_benchmarks(kept), "action": block.get("action", "report")}
    return kept | {block: data[block] for block in ANSWERED if block in data}, base, notes


def _select_benchmarks(data: Mapping[str, Any]) -> dict[str, Any]:
    """The benchmarks of a recipe's mapping and the thresholds, without the action on findings."""
    return {key: value for key, value in (data.get("decontaminate") or {}).items() if key != "action"}


def _check_held(now: Recipe, data: Mapping[str, Any]) -> None:
    if data.get("decontaminate") is not None and now.decontaminate is None:
        raise RecipeError(
            f"decontaminate: this run was compared with no benchmark, so nothing was found; build it with: {BUILD}"
        )


def _check_answered(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse what the tables cannot answer."""

    def others(data: Mapping[str, Any]) -> dict[str, Any]:
        sources = {
            name: {key: value for key, value in block.items() if key != "priority"}
            for name, block in data["sources"].items()
        }
        held = {"decontaminate": _select_benchmarks(data)} if after.get("decontaminate") else {}
        kept = {block: value for block, value in data.items() if block not in (*ANSWERED, "decontaminate")}
        return {**kept, **held, "sources": sources}

    if others(before) != others(after):
        raise RecipeError(
            "what-if answers for filters, dedupe and the priorities of sources, and for decontaminate.action; this "
            f"has to be built, with {BUILD}:\n" + list_differences(others(before), others(after))
        )


def compare_partition(partition: WhatIfPartition, answer: WhatIfAnswer) -> None:
    """Apply both sets of verdicts to every sample of a partition, and enter the difference."""
    kept = answer.sources.setdefault(partition.source, {level: Kept() for level in LEVELS})
    reasons = pl.read_parquet(partition.tables[IMAGE_STATS_FILE], columns=["reason"], glob=False)["reason"]
    answer.unasked += int((reasons == Reason.OPT_OUT_LIST.value).sum())
    examples = list[tuple[int, int, str, Reason, str]]()
    for alike in group_alike(partition.tables, partition.now, partition.then):
        before, after = (apply_verdicts(alike.sample, said, alike.image_stats) for said in (alike.now, alike.then))
        number = len(alike.rows)
        answer.not_fetched += number * after.nodes.count(Reason.NOT_FETCHED)
        for place, (level, node, was, will) in enumerate(_list_differences(alike.sample, before, after)):
            line = kept[level]
            line.came += number
            line.now += number * (was is None)
            line.then += number * (will is None)
            if (was is None) != (will is None):
                reason = was or will or Reason.NOTHING_LEFT
                for found in (line, line.why.setdefault(reason, Change())):
                    found.newly_dropped += number * (was is None)
                    found.newly_kept += number * (will is None)
                examples += [(row, place, level, reason, node) for row in alike.rows[:EXAMPLES]]
    _enter_examples(partition, kept, examples)


def _enter_examples(
    partition: WhatIfPartition, kept: Mapping[str, Kept], examples: Sequence[tuple[int, int, str, Reason, str]]
) -> None:
    """Name the first samples and nodes of each change, in the order of rows."""
    if all(len(change.examples) >= EXAMPLES for line in kept.values() for change in line.why.values()):
        return
    names = pl.read_parquet(partition.tables[SAMPLES_FILE], columns=list(SampleId._fields), glob=False)
    for row, _, level, reason, node in sorted(examples):
        found = kept[level].why[reason].examples
        if len(found) < EXAMPLES:
            found.append(f"{SampleId(*names.row(row))}{node}")


def _list_differences(
    sample: Sample, before: Outcome, after: Outcome
) -> Iterator[tuple[str, str, Reason | None, Reason | None]]:
    """Level, place in the sample, why it is lost now, why it would be."""
    yield "samples", "", before.sample, after.sample
    for index, (node, was, will) in enumerate(zip(sample.nodes, before.nodes, after.nodes, strict=True)):
        yield "nodes", f" node {index}", was, will
        if node.kind == "image":
            yield "images", f" node {index}", was, will


def make_build_command(
    recipe: str,
    root: Path,
    held: Mapping[str, CustomCode],
    files: Sequence[str],
    trusted: Sequence[str],
    sets: Sequence[str],
) -> str:
    """The build that applies a change; a folder holds no recipe, so that one is left to be named.

    Args:
        recipe: as it was named, or the run's folder.
        root: the run's folder.
        held: the files of code that the run's lock holds, which have to be named again.
        files: the files of code that the command named.
        trusted: the digests of code that it named.
        sets: the settings that it named, KEY=VALUE.
    """
    named = {Path(file).name for file in files}
    unnamed = [file for file, code in held.items() if file not in named and code.sha256 not in trusted]
    there = [file for file in unnamed if Path(file).is_file()]  # the lock holds the others
    options = [
        *(f"--filter={file}" for file in [*there, *files]),
        *(f"--trust-code={held[file].sha256}" for file in unnamed if file not in there),
        *(f"--trust-code={digest}" for digest in trusted),
        *(f"--set={pair}" for pair in sets),
    ]
    place = "RECIPE" if root == Path(recipe) else shlex.quote(recipe)
    return f"vlmill build {place} {shlex.join(['--out', str(root), '--accept-changes', *options])}"
