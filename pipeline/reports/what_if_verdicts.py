"""The verdicts that a run has, and those that another recipe would come to, by partition: what `what_if.py` compares.

Only steps whose settings changed run, over the tables of the run; they leave their files in a folder beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.names import QUANTILES_FILE, SCORES_SUFFIX, name_resolved_verdicts, name_verdicts
from vlmill.pipeline.core.step import match_names
from vlmill.pipeline.decontaminate import Decontaminate
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.dedupe.pieces import cut_blocks, perform_here, resolve_blocks
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.deduping import weigh_partitions
from vlmill.pipeline.engine.partition_tables import list_tables_with_stats
from vlmill.pipeline.engine.workdir import copy_list
from vlmill.pipeline.filters import CustomFilter, FilterStep, ReadsLists, Threshold
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.steps.quantiles import ComputeQuantiles

BUILD = "vlmill build RECIPE --accept-changes"
"""The build that answers what tables cannot, in messages; the command line puts its own in its place."""


@dataclass(frozen=True)
class WhatIfPartition:
    """One partition: its tables, and which verdicts count, in the order of attribution, now and then."""

    source: str
    name: str
    tables: Mapping[str, Path]  # as they stand: samples.parquet, image_stats.parquet, and what was taken down of them
    now: dict[str, Path] = field(default_factory=dict)  # filter -> verdicts
    then: dict[str, Path] = field(default_factory=dict)


def list_partitions(root: Path, recipe: Recipe) -> list[WhatIfPartition]:
    """The partitions of all sources with what signals say of them, without verdicts.

    Raises:
        StoreError: a source was not through image stats, or through the recipe's signals, to its end.
    """
    found = list[WhatIfPartition]()
    for source in sorted(recipe.sources):
        scores = [_list_tables(root, f"steps/{source}/{name}") for name in recipe.signals]
        for tables in list_tables_with_stats(root, recipe, source):
            paths = dict(tables.paths(root))
            for by_partition in scores:
                paths |= by_partition[tables.partition]
            found.append(WhatIfPartition(source, tables.partition, paths))
    return found


def _list_tables(root: Path, folder: str) -> dict[str, dict[str, Path]]:
    """What a complete step left: partition -> name -> file."""
    return {
        receipt.partition: {file.name: root / file.path for file in receipt.files}
        for receipt in read_manifest(root, folder)
    }


def _enter_verdicts(root: Path, folder: str, filter_: str, partitions: Sequence[WhatIfPartition]) -> None:
    """Enter the verdicts that the run has of a filter."""
    for source in {partition.source for partition in partitions}:
        tables = _list_tables(root, folder.format(source=source))
        for partition in partitions:
            if partition.source == source:
                partition.now[filter_] = tables[partition.name][name_verdicts(filter_)]


def enter_filters(
    root: Path, now: Recipe, then: Recipe, base: Path | None, partitions: Sequence[WhatIfPartition], folder: Path
) -> tuple[str, ...]:
    """Enter the verdicts of all filters, asking those again whose settings changed; return their names."""
    before, asked = now.filters, list[str]()
    given = (*(("boxes",) if now.has_boxes() else ()), *now.models)
    for name in (*given, *(filter_.name for filter_ in before)):
        _enter_verdicts(root, f"steps/{{source}}/{name}", name, partitions)
    for name in given:
        for partition in partitions:
            partition.then[name] = partition.now[name]
    for filter_ in then.filters:
        if filter_ in before and (isinstance(filter_, CustomFilter) or not (isinstance(filter_, ReadsLists) and base)):
            for partition in partitions:
                partition.then[filter_.name] = partition.now[filter_.name]
            continue
        asked.append(filter_.name)
        lists = filter_.lists if isinstance(filter_, ReadsLists) else {}
        opened = {name: folder / copy_list(folder, base or Path(), path, name).path for name, path in lists.items()}
        if isinstance(filter_, Threshold) and filter_.quantiles:
            opened |= _compute_quantiles(filter_, partitions, folder)
        for partition in partitions:
            step, place = FilterStep(filter_), folder / partition.source / partition.name / filter_.name
            place.mkdir(parents=True)
            step.run({**partition.tables, **opened}, place)
            partition.then[filter_.name] = place / name_verdicts(filter_.name)
    return tuple(asked)


def _compute_quantiles(threshold: Threshold, partitions: Sequence[WhatIfPartition], folder: Path) -> dict[str, Path]:
    """The values at the quantiles that a threshold asks for, as a file."""
    found = {
        f"{partition.source}/{partition.name}/{name}": path
        for partition in partitions
        for name, path in partition.tables.items()
        if name.endswith(SCORES_SUFFIX)
    }
    ComputeQuantiles(threshold.quantiles).run(found, folder)
    return {QUANTILES_FILE: folder / QUANTILES_FILE}


def enter_decontamination(
    root: Path, now: Recipe, then: Recipe, partitions: Sequence[WhatIfPartition], folder: Path
) -> None:
    """Enter the verdicts on what was found of benchmarks, made of the findings where the run has none."""
    step = Decontaminate()
    dropping = [step.name in recipe.verdict_steps() for recipe in (now, then)]
    if dropping[0]:
        _enter_verdicts(root, f"steps/{{source}}/{step.name}", step.name, partitions)
    if dropping == [True, True]:
        for partition in partitions:
            partition.then[step.name] = partition.now[step.name]
    elif dropping[1]:
        for source in sorted({partition.source for partition in partitions}):
            found = _list_tables(root, f"steps/{source}/contamination")
            for partition in partitions:
                if partition.source == source:
                    place = folder / source / partition.name / step.name
                    place.mkdir(parents=True)
                    step.run({**partition.tables, **found[partition.name]}, place)
                    partition.then[step.name] = place / name_verdicts(step.name)


def enter_dedupe(
    root: Path, now: Recipe, then: Recipe, partitions: Sequence[WhatIfPartition], folder: Path
) -> list[str]:
    """Enter the verdicts of dedupe, resolving anew if anything before or in it changed; return notes."""
    before, after = now.dedupe, then.dedupe
    if before is None and after is not None:
        raise RecipeError(f"dedupe: this run has none, so there are no pairs to resolve; build it with: {BUILD}")
    if before is None:
        return []
    if not enter_resolved(root, now, partitions):
        return ["the run has not come to dedupe: the answer is what the filters alone would keep"]
    if after is None:
        return []
    priorities = [{name: source.priority for name, source in recipe.sources.items()} for recipe in (now, then)]
    if (
        before == after
        and priorities[0] == priorities[1]
        and all(_has_same_filters(partition) for partition in partitions)
    ):
        for partition in partitions:
            partition.then["dedupe"] = partition.now["dedupe"]
        return []
    if (before.buckets, before.cap) != (after.buckets, after.cap):
        raise RecipeError(f"dedupe: other buckets or another cap find other pairs; build them with: {BUILD}")
    _check_semantic(before, after)
    if before.containment is None and after.containment is not None:
        raise RecipeError(
            f"dedupe.containment: this run has not looked for texts that stand in others; build it with: {BUILD}"
        )
    _resolve_duplicates(root, then, after, partitions, folder / "resolve")
    return []


def enter_resolved(root: Path, now: Recipe, partitions: Sequence[WhatIfPartition]) -> bool:
    """Enter the verdicts of dedupe that the run has; False where it has not come to them, or has no dedupe."""
    if now.dedupe is None or not (root / "steps/dedupe/resolve/manifest.json").exists():
        return False
    files = (file for receipt in read_manifest(root, "steps/dedupe/resolve") for file in receipt.files)
    resolved = {file.name: root / file.path for file in files}
    for partition in partitions:
        partition.now["dedupe"] = resolved[name_resolved_verdicts(f"{partition.source}/{partition.name}")]
    return True


def _check_semantic(before: Dedupe, after: Dedupe) -> None:
    """Refuse what no pairs were measured for."""
    if after.semantic is None:
        return
    then, now = before.semantic, after.semantic
    if then is None or (then.of, then.within, then.floor) != (now.of, now.within, now.floor):
        raise RecipeError(
            "dedupe.semantic: what-if answers for other values of `min` and `sources`, and for none; other vectors, "
            f"clusters or a lower floor have to be compared: {BUILD}"
        )


def _resolve_duplicates(
    root: Path, then: Recipe, settings: Dedupe, partitions: Sequence[WhatIfPartition], folder: Path
) -> None:
    names = tuple(f"{partition.source}/{partition.name}" for partition in partitions)
    step = replace(then.resolve_step(settings, names), filters=tuple(partitions[0].then))
    found = {
        f"{receipt.partition}/{file.name}": root / file.path
        for step_before in ("candidates", "pairs", *(("semantic",) if settings.semantic else ()))
        for receipt in read_manifest(root, f"steps/dedupe/{step_before}")
        for file in receipt.files
    }
    for source in sorted({partition.source for partition in partitions}):
        for receipt in read_manifest(root, f"steps/{source}/signature"):
            found |= {f"{source}/{receipt.partition}/{file.name}": root / file.path for file in receipt.files}
    for partition in partitions:
        found |= {
            f"{partition.source}/{partition.name}/{name_verdicts(filter_)}": path
            for filter_, path in partition.then.items()
        }
    folder.mkdir()
    blocks = cut_blocks(weigh_partitions(root, names), step.priority)
    if len(blocks) > 1:
        shares = len(read_manifest(root, "steps/dedupe/pairs"))
        resolved = resolve_blocks(step, blocks, shares, found, perform_here(folder))
    else:
        step.run({name: found[name] for name in match_names(found, step.reads)}, folder)
        resolved = {path.name: path for path in folder.iterdir()}
    for partition in partitions:
        partition.then["dedupe"] = resolved[name_resolved_verdicts(f"{partition.source}/{partition.name}")]


def enter_render(root: Path, now: Recipe, partitions: Sequence[WhatIfPartition]) -> None:
    """Enter what the first policy of each source could not draw, as the funnel does."""
    for source in sorted({partition.source for partition in partitions}):
        policy = next(iter(now.list_policies(source)), "")
        if (root / f"shards/{source}/{policy}/manifest.json").exists():
            mine = [partition for partition in partitions if partition.source == source]
            _enter_verdicts(root, f"shards/{source}/{policy}", "render", mine)
            for partition in mine:
                partition.then["render"] = partition.now["render"]


def _has_same_filters(partition: WhatIfPartition) -> bool:
    """Whether all filters before dedupe say the same, in the same order."""
    before = [item for item in partition.now.items() if item[0] != "dedupe"]
    return before == list(partition.then.items())
