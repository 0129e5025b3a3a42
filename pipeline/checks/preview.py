"""A few samples of each source as filters, image policy and trainer would have them: `vlmill preview`, before a build.

The steps of a build run over some rows of the first file of a source, in a temporary folder: read, fetch, image stats,
filters, render, token lengths. No input file is hashed, nothing is compared with other rows, and no model is asked, so
duplicates are not among the verdicts, nor bounds of signals but those of numbers that rows bring.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlmill.pipeline.boxes.marks import mark_picture
from vlmill.pipeline.checks.check import find_sound_file
from vlmill.pipeline.checks.estimate import make_work
from vlmill.pipeline.checks.lost_files import find_lost_files
from vlmill.pipeline.checks.preview_filters import choose_filters
from vlmill.pipeline.checks.sample_costs import SourceWork, StepPass, read_served, warn_of_private_hosts
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.names import (
    HOSTS_FILE,
    IMAGE_STATS_FILE,
    IMAGES_FILE,
    INDEX_SUFFIX,
    LENGTHS_SUFFIX,
    LINEAGE_SUFFIX,
    REFUSED_FILE,
    SAMPLES_FILE,
    name_input,
)
from vlmill.pipeline.core.places import resolve_place
from vlmill.pipeline.core.sample import (
    IMAGES,
    read_image_stats,
    read_rows,
    read_samples,
    write_rows,
)
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.hosts import AskHosts, ListHosts, choose_bucket
from vlmill.pipeline.filters import FilterStep
from vlmill.pipeline.images import Policy
from vlmill.pipeline.inputs.files import COPIED, InputFile, list_input_files, open_input
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.trace import Traced
from vlmill.pipeline.shards.writer import parse_members
from vlmill.pipeline.sources import Source
from vlmill.pipeline.steps.find_boxes import FindBoxes
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import RowRange, hash_rows
from vlmill.pipeline.verdicts.apply import apply_verdicts, read_verdicts_by_sample


@dataclass(frozen=True)
class PreviewedSample:
    """A sample with what the filters say of it, and what its shards would hold."""

    traced: Traced
    pictures: Mapping[int, bytes]  # node -> its picture as the first policy draws it, whatever the filters say
    tokens: Mapping[str, tuple[int, int]]  # policy -> tokens of text and images, and those supervised; where it is kept
    texts: Mapping[int, str] = field(default_factory=dict)  # node -> as the first policy has it


@dataclass(frozen=True)
class SourcePreview:
    """Some samples of a source."""

    source: str
    file: str
    samples: tuple[PreviewedSample, ...]
    refused: tuple[str, ...]  # rows and pages of which no sample was made, and why
    notes: tuple[str, ...] = ()  # what a person should know


def preview_source(recipe: Recipe, base: Path, name: str, wanted: int, *, spread: bool = False) -> SourcePreview:
    """The first samples of a source; with `spread` those of rows from all over its first file, chosen by hash.

    Args:
        recipe: The recipe.
        base: The folder that its relative paths start from.
        name: The source.
        wanted: Rows that are read, and samples that are shown at most.
        spread: Whether rows are chosen by the hash of their ids, as a scaled run does.

    Raises:
        SourceError: it has no file that can be read, or its first one would have to be copied whole from the Hub.
        BadFileError: the file has another form.
    """
    settings, source = recipe.sources[name], recipe.source(name)
    root = resolve_place(settings.root, base)
    found = list_input_files(
        name, root, settings.files, subset=settings.subset, split=settings.split, ranged=source.ranged
    )
    file = find_sound_file(settings, found) if settings.on_bad_file == "skip" else found[0]
    if file.on_hub and not file.ranged and file.size > COPIED:
        raise SourceError(
            f"source {name!r}: {file.name} has {file.size:,} bytes and cannot be read in parts; download it, and name "
            f"its folder with --source {name}=FOLDER"
        )
    work = make_work(recipe, base, name, file)
    asked = choose_filters(recipe, work)
    work = replace(work, filters=asked.filters)
    with open_input(file) as path, tempfile.TemporaryDirectory(prefix="vlmill-preview-") as folder:
        run = StepPass(Path(folder), {**work.files, name_input(0): path})
        run.perform(_choose_rows(work, file, path, wanted, spread=spread))
        notes = [*asked.notes, *_list_lost(run, work)]
        if source.fetches:
            _bring_images(run, work, recipe.fetch_step(name))
        run.perform(work.image_stats)
        if work.boxes:
            run.perform(FindBoxes(work.boxes))
        for score in asked.scores:
            run.perform(score)
        for filter_ in work.filters:
            run.perform(FilterStep(filter_))
        return _describe_pass(run, work, wanted, notes)


def _list_lost(run: StepPass, work: SourceWork) -> Iterator[str]:
    """What check says of images that are not there, or that fetch does not ask for."""
    if work.source.fetches:
        yield from warn_of_private_hosts(run, work)
    if work.source.opens:
        found = find_lost_files(run.files[IMAGES_FILE], work.name, work.images)
        yield from (*found.faults, *found.warnings)


def _choose_rows(work: SourceWork, file: InputFile, path: Path, wanted: int, *, spread: bool) -> Read:
    """The step that reads the rows to show."""
    rows = len(work.source.survey(path)) if spread else _count_rows(work.source, path, wanted)
    step = work.make_read(RowRange(file.name, 0, rows))
    if not spread:
        return step
    lowest = np.sort(hash_rows(work.name, *step.ranges[0]))[:wanted]
    return replace(step, bound=int(lowest[-1]) + 1 if lowest.size else 0)


def _count_rows(source: Source, path: Path, most: int) -> int:
    """How many rows a file has, counted to `most`: a survey would look at all of it."""
    return sum(1 for _ in source.rows(path, range(most)))


def _bring_images(run: StepPass, work: SourceWork, fetch: Fetch) -> None:
    """Give images that are addresses their bytes: from folders that serve them, else as the recipe fetches them."""

    def fill_rows() -> Iterator[dict[str, object]]:
        for row in read_rows(run.files[IMAGES_FILE], batch=32):
            prefix = next((one for one in work.served if (row["url"] or "").startswith(one)), None)
            if prefix is None or row["reason"] is not None or row["bytes"] is not None:
                yield row
            else:
                yield row | read_served(row["url"].removeprefix(prefix), work.served[prefix])

    path = run.folder / "filled.parquet"
    write_rows(path, IMAGES, fill_rows())
    run.files[IMAGES_FILE] = path
    if fetch.honour_hosts:
        run.perform(ListHosts(tuple(sorted(fetch.mirrors))))
        run.files[f"{work.name}/{HOSTS_FILE}"] = run.files[HOSTS_FILE]
        origins = (row["origin"] for row in read_rows(run.files[HOSTS_FILE]))
        for bucket in sorted({choose_bucket(origin) for origin in origins}):
            run.perform(AskHosts(bucket, fetch), f"ask_hosts.{bucket}")
    run.perform(fetch, side_inputs=fetch.side_inputs)


def _describe_pass(run: StepPass, work: SourceWork, wanted: int, notes: Sequence[str]) -> SourcePreview:
    """What the steps left of the first samples."""
    names = work.list_verdict_steps()
    samples = [sample for _, sample in zip(range(wanted), read_samples(run.files[SAMPLES_FILE]), strict=False)]
    stats = list(read_image_stats(run.files[IMAGE_STATS_FILE]))
    verdicts = read_verdicts_by_sample(run.files, names)
    tokens = {policy: _count_tokens(run, work, policy, names) for policy in work.policies}
    drawn = _draw_pictures(run, work)
    shown = []
    for row, sample in enumerate(samples):
        said = verdicts.get(row, [])
        traced = Traced(sample, "preview", stats, said, apply_verdicts(sample, said, stats), [], [])
        counted = {policy: found[str(sample.id)] for policy, found in tokens.items() if str(sample.id) in found}
        found = drawn.get(str(sample.id), _Drawn())
        shown.append(PreviewedSample(traced, found.pictures, counted, found.texts))
    refused = (f"row {row['row']}: {row['reason']}: {row['detail']}" for row in read_rows(run.files[REFUSED_FILE]))
    uncounted = [] if "tokenizer.json" in run.files else ["tokens are not counted: the recipe names no tokenizer"]
    return SourcePreview(work.name, work.file, tuple(shown), tuple(refused), (*notes, *uncounted))


def _count_tokens(run: StepPass, work: SourceWork, policy: str, filters: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Sample -> tokens of text and images, and the supervised ones, of those that a policy's shards would hold."""
    if "tokenizer.json" not in run.files:
        return {}
    before = dict(run.files)
    run.perform(work.make_render(work.policies[policy], tuple(filters)), f"render.{policy}")
    run.perform(work.lengths[policy], f"token_lengths.{policy}")
    found = dict[str, tuple[int, int]]()
    for name in sorted(name for name in run.files if name.endswith(INDEX_SUFFIX)):
        ids = (row["id"] for row in read_rows(run.files[name], ["id"]))
        lengths = run.files[name.removesuffix(INDEX_SUFFIX) + LENGTHS_SUFFIX]
        for one, row in zip(ids, read_rows(lengths, ["text", "visual", "supervised"]), strict=True):
            found[one] = row["text"] + row["visual"], row["supervised"]
    run.files = before
    return found


@dataclass
class _Drawn:
    """What shards would hold of a sample, by node as it was read."""

    pictures: dict[int, bytes] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)  # of those with coordinates


def _draw_pictures(run: StepPass, work: SourceWork) -> dict[str, _Drawn]:
    """Sample -> pictures and texts as the first policy has them, with no filter."""
    policy = next(iter(work.policies.values()), None)
    if policy is None:
        return {}
    before, found = dict(run.files), dict[str, _Drawn]()
    run.perform(work.make_render(policy, ()), "render")
    for name in sorted(name for name in run.files if name.endswith(INDEX_SUFFIX)):
        shard = name.removesuffix(INDEX_SUFFIX)
        data, lineage = run.files[f"{shard}.tar"].read_bytes(), read_rows(run.files[f"{shard}{LINEAGE_SUFFIX}"])
        for row, about in zip(read_rows(run.files[name], ["id", "offset", "size", "images"]), lineage, strict=True):
            members = dict(parse_members(data[row["offset"] : row["offset"] + row["size"]]))
            found[row["id"]] = _describe_drawn(members, [node["node"] for node in about["nodes"]], row, policy)
    run.files = before
    return found


def _describe_drawn(
    members: Mapping[str, bytes], nodes: Sequence[int], row: Mapping[str, Any], policy: Policy
) -> _Drawn:
    """A sample of a shard; `nodes` are those that stay, as they were read.

    A picture is its first part. With regions marked it is the input in which the model sees it whole.
    """
    record, drawn = json.loads(members["json"]), _Drawn()
    regions = [region for node in record["nodes"] for region in node.get("boxes", ())]
    layouts = policy.layout([(image["width"], image["height"]) for image in row["images"]]) if regions else ()
    for number, image in enumerate(row["images"]):
        place = image["node"]
        parts = {part.split(".")[1]: members[part] for part in record["nodes"][place]["parts"]}
        mine = [region for region in regions if region["image"] == place]
        picture = next(iter(parts.values()))
        drawn.pictures[nodes[place]] = mark_picture(policy, layouts[number], parts, mine) if mine else picture
    marked = (place for place, node in enumerate(record["nodes"]) if node.get("boxes"))
    drawn.texts |= {nodes[place]: record["nodes"][place]["text"] for place in marked}
    return drawn
