"""A few samples of each source as filters, image policy and trainer would have them: `vlmill preview`, before a build.

The steps of a build run over some rows of the first file of a source, in a temporary folder: read, fetch, image stats,
filters, render, token lengths. No input file is hashed, nothing is compared with other rows, and no model is asked, so
duplicates and bounds of signals are not among the verdicts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.names import (
    HOSTS_FILE,
    IMAGE_STATS_FILE,
    IMAGES_FILE,
    INDEX_SUFFIX,
    LENGTHS_SUFFIX,
    REFUSED_FILE,
    SAMPLES_FILE,
)
from vlmill.pipeline.core.sample import (
    IMAGES,
    ImageStats,
    Sample,
    read_image_stats,
    read_rows,
    read_samples,
    write_rows,
)
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.hosts import AskHosts, ListHosts, choose_bucket
from vlmill.pipeline.filters import FilterStep
from vlmill.pipeline.inputs.files import COPIED, InputFile, list_input_files, open_input
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.check import resolve_root
from vlmill.pipeline.reports.estimate import make_work
from vlmill.pipeline.reports.sample_costs import SourceWork, StepPass, read_served
from vlmill.pipeline.reports.trace import Traced
from vlmill.pipeline.shards.writer import parse_members
from vlmill.pipeline.sources import Source
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.render import Render
from vlmill.pipeline.steps.row_sample import hash_rows
from vlmill.pipeline.verdicts.apply import apply_verdicts, read_verdicts_by_sample


@dataclass(frozen=True)
class PreviewedSample:
    """A sample with what the filters say of it, and what its shards would hold."""

    traced: Traced
    pictures: Mapping[int, bytes]  # node -> its picture as the first policy draws it, whatever the filters say
    tokens: Mapping[str, tuple[int, int]]  # policy -> tokens of text and images, and those supervised; where it is kept


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
    root = resolve_root(settings.root, base)
    found = list_input_files(
        name, root, settings.files, subset=settings.subset, split=settings.split, ranged=source.ranged
    )
    file = found[0]
    if file.on_hub and not file.ranged and file.size > COPIED:
        raise SourceError(
            f"source {name!r}: {file.name} has {file.size:,} bytes and cannot be read in parts; download it, and name "
            f"its folder with --source {name}=FOLDER"
        )
    work = make_work(recipe, base, name, file)
    with open_input(file) as path, tempfile.TemporaryDirectory(prefix="vlmill-preview-") as folder:
        run = StepPass(Path(folder), {**work.files, "input": path})
        run.perform(_choose_rows(work, file, path, wanted, spread=spread))
        if source.fetches:
            _bring_images(run, work, recipe.fetch_step(name))
        run.perform(work.image_stats)
        for filter_ in work.filters:
            run.perform(FilterStep(filter_))
        return _describe_pass(run, recipe, work, wanted)


def _choose_rows(work: SourceWork, file: InputFile, path: Path, wanted: int, *, spread: bool) -> Read:
    """The step that reads the rows to show."""
    step = Read(work.source, work.name, file.name, 0, 0, max_characters=work.max_characters, images=work.images)
    if not spread:
        return replace(step, stop=_count_rows(work.source, path, wanted))
    rows = len(work.source.survey(path))
    lowest = np.sort(hash_rows(work.name, file.name, 0, rows))[:wanted]
    return replace(step, stop=rows, bound=int(lowest[-1]) + 1 if lowest.size else 0)


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


def _describe_pass(run: StepPass, recipe: Recipe, work: SourceWork, wanted: int) -> SourcePreview:
    """What the steps left of the first samples."""
    names = [filter_.name for filter_ in work.filters]
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
        shown.append(PreviewedSample(traced, _name_nodes(sample, stats, drawn.get(str(sample.id), {})), counted))
    refused = (f"row {row['row']}: {row['reason']}: {row['detail']}" for row in read_rows(run.files[REFUSED_FILE]))
    left = sorted({filter_.name for filter_ in recipe.filters} - {*names})
    notes = [f"{', '.join(left)} is not asked: it needs models, or code that was not named"] if left else []
    notes += [] if "tokenizer.json" in run.files else ["tokens are not counted: the recipe names no tokenizer"]
    return SourcePreview(work.name, work.file, tuple(shown), tuple(refused), tuple(notes))


def _count_tokens(run: StepPass, work: SourceWork, policy: str, filters: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Sample -> tokens of text and images, and the supervised ones, of those that a policy's shards would hold."""
    if "tokenizer.json" not in run.files:
        return {}
    before = dict(run.files)
    run.perform(Render(work.policies[policy], tuple(filters), 0, 0), f"render.{policy}")
    run.perform(work.lengths[policy], f"token_lengths.{policy}")
    found = dict[str, tuple[int, int]]()
    for name in sorted(name for name in run.files if name.endswith(INDEX_SUFFIX)):
        ids = (row["id"] for row in read_rows(run.files[name], ["id"]))
        lengths = run.files[name.removesuffix(INDEX_SUFFIX) + LENGTHS_SUFFIX]
        for one, row in zip(ids, read_rows(lengths, ["text", "visual", "supervised"]), strict=True):
            found[one] = row["text"] + row["visual"], row["supervised"]
    run.files = before
    return found


def _draw_pictures(run: StepPass, work: SourceWork) -> dict[str, dict[int, bytes]]:
    """Sample -> place among its nodes -> the first part of a picture as the first policy draws it, with no filter."""
    policy = next(iter(work.policies.values()), None)
    if policy is None:
        return {}
    before, found = dict(run.files), dict[str, dict[int, bytes]]()
    run.perform(Render(policy, (), 0, 0), "render")
    for name in sorted(name for name in run.files if name.endswith(INDEX_SUFFIX)):
        data = run.files[f"{name.removesuffix(INDEX_SUFFIX)}.tar"].read_bytes()
        for row in read_rows(run.files[name], ["id", "offset", "size"]):
            parts = dict[int, bytes]()
            for member, content in parse_members(data[row["offset"] : row["offset"] + row["size"]]):
                place = member.partition(".")[0]
                if place.isdecimal():
                    parts.setdefault(int(place), content)
            found[row["id"]] = parts
    run.files = before
    return found


def _name_nodes(sample: Sample, stats: Sequence[ImageStats], parts: Mapping[int, bytes]) -> dict[int, bytes]:
    """Node -> picture, of parts by their place among the nodes that stay where no filter is asked.

    Nothing where that cannot be told, since the policy could not draw one of them.
    """
    kept = apply_verdicts(sample, [], stats).kept
    named = {kept[place]: part for place, part in parts.items() if place < len(kept)}
    return named if all(sample.nodes[node].kind == "image" for node in named) else {}
