"""From a sample or a shard member back to its input file, with every verdict on it and every shard that holds it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.excerpt import escape_text
from vlmill.pipeline.core.keys import DIGITS
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, INDEX_SUFFIX, SAMPLES_FILE, name_verdicts
from vlmill.pipeline.core.sample import (
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    read_image_stats,
    read_rows,
    read_samples,
    read_verdicts,
)
from vlmill.pipeline.core.shown import Shown, count_things
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.partition_tables import list_filtered_tables, list_raw_tables
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.holding import find_holders, list_files
from vlmill.pipeline.reports.refused import Refused, find_refused
from vlmill.pipeline.reports.upstream_ids import find_named_sample
from vlmill.pipeline.sources.known_keys import ID_KEYS
from vlmill.pipeline.takedown.marks import find_marked
from vlmill.pipeline.takedown.rules import LIST, TakedownList
from vlmill.pipeline.takedown.steps import read_record
from vlmill.pipeline.verdicts.apply import Outcome, apply_verdicts


@dataclass(frozen=True, repr=False)
class Traced(Shown):
    """All that a run knows of one sample."""

    sample: Sample  # with all its nodes
    partition: str  # that holds it
    image_stats: list[ImageStats]  # of the whole partition; nodes say which
    verdicts: list[Verdict]  # on this sample, in the order in which filters were asked
    outcome: Outcome  # what became of it, with reasons
    rendered: list[tuple[str, Verdict]]  # policy, and what it could not draw
    shards: list[str]  # "path:key", one per policy that kept it
    taken_down: str = ""  # the rule under which the sample was taken down
    images_taken_down: Mapping[int, str] = field(default_factory=dict)  # of the whole partition: image -> rule

    def say_short(self) -> str:
        """The id, and what became of it."""
        became = "taken down" if self.taken_down else f"lost: {self.outcome.sample}" if self.outcome.sample else "kept"
        return f"{self.sample.id}, {became}, in {count_things(len(self.shards), 'shard')}"

    def list_parts(self) -> Iterator[str]:
        """What `vlmill trace` prints of it, but for the steps that see it."""
        yield from format_trace(self)


def find_id(root: Path, name: str) -> SampleId:
    """The id that `name` gives.

    That is an id itself; a shard's path and a key in it, joined with a colon; or what the input file has: the id of a
    row, the address of a document, or the address or path of an image.

    Raises:
        StoreError: it is none of them, the shard does not hold that key, or several samples have that name upstream.
    """
    try:
        return SampleId.parse(name)
    except ValueError as error:
        path, colon, key = name.rpartition(":")
        index = _find_index(root, path) if colon else None
        if index is None and (found := find_named_sample(root, name)) is not None:
            return found
        if index is None and (gone := find_marked(TakedownList.read(root).rows, name)) is not None:
            raise StoreError(f"{name} was taken down: it stands as {gone} on {root / LIST}") from None
        if index is None and path.endswith(".tar"):
            raise StoreError(
                f"{path}: the run has no such shard; a changed recipe makes others in its place. Those of a sample: "
                f"vlmill trace {root} SOURCE/FILE#ROW"
            ) from None
        if index is None and "://" in name:
            raise StoreError(f"no sample of the run has the address {name}, nor an image from there") from None
        if index is None:
            raise StoreError(
                f"{error}; or give a shard and a key: shards/SOURCE/POLICY/NAME.tar:KEY. No row has this id in its "
                f"input file, under {', '.join(ID_KEYS)}, and none has an image of this path"
            ) from None
        for row in read_rows(index, ["key", "id"]):
            if row["key"] == key.split(".")[0]:
                return SampleId.parse(row["id"])
        raise StoreError(f"{path} holds no sample with key {key!r}") from None


def _find_index(root: Path, shard: str) -> Path | None:
    """The index of the shard at a path of the run, hashed; None where the run has no such shard."""
    folder, path = shard.rpartition("/")[0], shard.removesuffix(".tar") + INDEX_SUFFIX
    if not (root / folder / "manifest.json").is_file():
        return None
    files = (file for receipt in read_manifest(root, folder) for file in receipt.files)
    return next((check_hash(root / file.path, file.sha256) for file in files if file.path == path), None)


def trace_sample(root: Path, name: str) -> Traced:
    """Everything about one sample.

    Raises:
        StoreError: the run has no such sample.
    """
    wanted = find_id(root, name)
    recipe = _read_recipe(root, wanted)
    for tables in find_holders(root, list_filtered_tables(root, recipe, wanted.source), wanted):
        samples = tables.files[SAMPLES_FILE]
        path = check_hash(root / samples.path, samples.sha256)
        ids = (SampleId(**found) for found in read_rows(path, SampleId._fields))
        row = next((row for row, found in enumerate(ids) if found == wanted), -1)
        if row >= 0:
            (sample,) = islice(read_samples(path), row, row + 1)
            return _trace_sample(root, recipe, tables.partition, tables.check(root), row, sample)
    raise StoreError(
        f"{name}: {_explain_absence(root, recipe, wanted)} Ids of what was lost: vlmill report {root} --reason REASON"
    )


def _explain_absence(root: Path, recipe: Recipe, wanted: SampleId) -> str:
    """Why there is no sample of an id: its file is none of the source's, or there is no such row or page of it."""
    files = list_files(root, list_raw_tables(root, recipe, wanted.source))
    near = difflib.get_close_matches(wanted.file, files, n=1)
    if wanted.file in files or not near:
        return "no such sample, and no row or page of that name was refused."
    return f"source {wanted.source!r} has no rows of {wanted.file!r}; did you mean {near[0]!r}?"


def trace_refused(root: Path, name: str) -> list[Refused]:
    """The row or page of this name of which no sample was made, or such pages of a row; nothing for a sample.

    Raises:
        StoreError: `name` is no id and no shard's key, or the run has no such source, or has not read it.
    """
    wanted = find_id(root, name)
    return find_refused(root, _read_recipe(root, wanted), wanted)


def _read_recipe(root: Path, wanted: SampleId) -> Recipe:
    recipe = read_locked_recipe(root)
    if wanted.source not in recipe.sources:
        raise StoreError(
            f"{wanted}: this run has no source {wanted.source!r}; {offer_names(recipe, wanted.source, recipe.sources)}"
        )
    return recipe


def _trace_sample(
    root: Path, recipe: Recipe, partition: str, paths: Mapping[str, Path], row: int, sample: Sample
) -> Traced:
    source = sample.id.source
    image_stats = read_image_stats(paths[IMAGE_STATS_FILE])
    verdicts = [
        verdict for name in recipe.all_verdict_steps() for verdict in _read_verdicts(paths[name_verdicts(name)], row)
    ]
    folders = {policy: f"shards/{source}/{policy}" for policy in recipe.list_policies(source)}
    made = {policy: folder for policy, folder in folders.items() if (root / folder / "manifest.json").exists()}
    rendered = [
        (policy, verdict)
        for policy, folder in made.items()
        for verdict in _read_verdicts(_find_file(root, folder, partition, name_verdicts("render")), row)
    ]
    return Traced(
        sample=sample,
        partition=partition,
        image_stats=image_stats,
        verdicts=verdicts,
        outcome=apply_verdicts(sample, verdicts, image_stats),
        rendered=rendered,
        shards=[place for folder in made.values() for place in _find_members(root, folder, partition, sample.id)],
        taken_down=read_record(paths, "samples").get(row, ""),
        images_taken_down=read_record(paths, "images"),
    )


def _find_file(root: Path, folder: str, partition: str, name: str) -> Path:
    for receipt in read_manifest(root, folder):
        for file in receipt.files:
            if receipt.partition == partition and file.name == name:
                return check_hash(root / file.path, file.sha256)
    raise StoreError(f"{folder}: no {name} for {partition}; check the run with: vlmill verify {root}")


def _read_verdicts(path: Path, row: int) -> list[Verdict]:
    return [verdict for verdict in read_verdicts(path) if verdict.sample == row]


def _find_members(root: Path, folder: str, partition: str, wanted: SampleId) -> Iterator[str]:
    for receipt in read_manifest(root, folder):
        for file in receipt.files:
            if receipt.partition == partition and file.name.endswith(INDEX_SUFFIX):
                for row in read_rows(check_hash(root / file.path, file.sha256), ["id", "row", "key"]):
                    if row["id"] == str(wanted):
                        yield f"{file.path.removesuffix(INDEX_SUFFIX)}.tar:{row['key']}"


def trace_to_json(traced: Traced) -> dict[str, Any]:
    """A sample for machines: each node with its reason, each image with what its decode found, and no pixels."""
    sample = traced.sample
    nodes = [
        {**asdict(node), "reason": reason, "image": _image_to_json(node, traced)}
        for node, reason in zip(sample.nodes, traced.outcome.nodes, strict=True)
    ]
    about = {name: getattr(sample, name) for name in ("upstream_id", "url", "licence", "group")}
    return {
        "id": str(sample.id),
        **about,
        "signals": dict(sample.signals),
        "partition": traced.partition,
        "reason": traced.outcome.sample,
        "nodes": nodes,
        "verdicts": [asdict(verdict) for verdict in traced.verdicts],
        "rendered": [{"policy": policy, **asdict(verdict)} for policy, verdict in traced.rendered],
        "shards": traced.shards,
        "taken_down": traced.taken_down,
    }


def _image_to_json(node: Node, traced: Traced) -> dict[str, Any] | None:
    if node.image is None:
        return None
    stats = traced.image_stats[node.image]
    names = ("reason", "sha256", "format", "width", "height", "frames", "contrast", "sharpness")
    gone = traced.images_taken_down.get(node.image, "")
    return {"number": node.image, "taken_down": gone, **{name: getattr(stats, name) for name in names}}


def format_trace(traced: Traced) -> Iterator[str]:
    """The story of a sample for people."""
    sample = traced.sample
    yield f"{sample.id}"
    yield (
        f"  input file    {sample.id.file}, row {sample.id.row}"
        + (f", page {sample.id.page}" if sample.id.page >= 0 else "")
        + f" (partition {traced.partition})"
    )
    if sample.upstream_id:
        yield f"  upstream id   {escape_text(sample.upstream_id)}"
    for name, value in (("url", sample.url), ("licence", sample.licence), ("group", sample.group)):
        if value:
            yield f"  {name:<13} {value}"
    if sample.signals:
        yield f"  signals       {json.dumps(dict(sample.signals), sort_keys=True)}"
    if traced.taken_down:
        yield (
            f"  taken down by {traced.taken_down}: its text and images are gone from this folder, and no build here "
            "brings them back"
        )
    for index, node in enumerate(sample.nodes):
        yield f"  {index:>3} {_format_fate(traced.outcome.nodes[index])} {_describe_node(node, traced)}"
    yield from (f"  {line}" for verdict in traced.verdicts if (line := describe_verdict(verdict, traced.outcome)))
    for policy, verdict in traced.rendered:
        yield f"  policy {policy} cannot draw node {verdict.node}: {verdict.reason}"
    yield f"  {'lost: ' + str(traced.outcome.sample) if traced.outcome.sample else 'kept'}"
    for shard in traced.shards:
        yield f"  in {shard}"


def describe_verdict(verdict: Verdict, outcome: Outcome) -> str:
    """What a verdict says, in words; nothing where it is a condition that the sample meets."""
    if verdict.node == LEAST_IMAGES:
        few = f"{verdict.filter} drops the sample: {verdict.reason} (fewer than {verdict.score:.0f} are left)"
        return few if outcome.sample is verdict.reason else ""
    on = "the sample" if verdict.node == WHOLE_SAMPLE else f"node {verdict.node}"
    other = f", because of {verdict.other}" if verdict.other else ""
    return f"{verdict.filter} drops {on}: {verdict.reason} (score {verdict.score:.4g}{other})"


def _format_fate(reason: Any) -> str:
    return f"{'- ' + str(reason) if reason else '+':<18}"


def _tell_pages(stats: ImageStats) -> str:
    """Of a TIFF with several pages that the first is shown."""
    return f", the first of {stats.frames:,} pages," if stats.format == "TIFF" and stats.frames > 1 else ""


def _describe_node(node: Node, traced: Traced) -> str:
    if node.image is not None and node.image in traced.images_taken_down:
        return f"image taken down by {traced.images_taken_down[node.image]}"
    if node.image is not None:
        stats = traced.image_stats[node.image]
        seen = (
            f"{stats.format} {stats.width}x{stats.height}{_tell_pages(stats)} sha256 {stats.sha256}"
            if stats.reason is None
            else str(stats.reason)
        )
        return f"image {seen} {node.url or ''}".rstrip()
    if node.text is None:
        return str(node.kind)
    text = escape_text(node.text[:100])
    who = "" if node.role == "none" else f"{node.role}: "
    told = ""
    if node.origin is not None:
        origin = json.loads(node.origin)
        told = f" (written by {origin['model']} for {origin['signal']}, prompt {origin['prompt_sha256'][:DIGITS]})"
    return f"{who}{text}{'...' if len(node.text) > 100 else ''}{told}"
