"""The phase `dedupe`: one barrier over all sources, between curation and shards.

It runs chains of one step each:

places       one task per block    of a run of many partitions: their places in one file
candidates   one task per bucket   what is worth comparing
pairs        one task per share    how similar it is
semantic     one task per bucket   how similar vectors of one cluster are, where the recipe asks for it
resolve      one task              which of the similar things go; of a large run, steps over blocks and buckets

How many buckets and blocks there are depends on how many samples, texts and images the run holds, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlmill.pipeline.core.names import name_resolved_verdicts, name_verdicts
from vlmill.pipeline.core.step import Counts, Step
from vlmill.pipeline.dedupe import IMAGE_BYTES, TEXT_BYTES, Dedupe
from vlmill.pipeline.dedupe.measured import MEASURED_FILE, EarlierFile
from vlmill.pipeline.dedupe.pieces import cut_blocks, resolve_blocks
from vlmill.pipeline.engine.chain import Chain, ChainStep, read_manifest
from vlmill.pipeline.engine.store import File, select_files, total_counts

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build

BASE = 256 << 20
"""Bytes that a task takes besides what it works on."""
BLOCK_BYTES = 512 << 20
"""Bytes that a task over a block takes, or the one task of a small run."""


def resolve_duplicates(run: Build) -> None:
    """Find pairs over all sources, then say which of them go."""
    settings = run.recipe.dedupe
    if settings is None:
        return
    partitions = _list_partitions(run)
    buckets, memory = count_buckets(run, settings)
    signatures = {file.name: file for file in run.gather_files("signature")}
    placed = _gather_places(run, settings.places(partitions), signatures)
    candidates = _run_each(run, "candidates", settings.candidates(buckets), placed, memory)
    steps = settings.pair_steps(buckets, list_measured(run))
    pairs = _run_each(run, "pairs", steps, {**candidates, **signatures}, memory)
    if comparing := run.recipe.list_semantic_steps(buckets):
        vectors = {file.name: file for file in run.gather_files("semantic")}
        pairs |= _run_each(run, "semantic", comparing, vectors, BASE)
    filtered = {file.name: file for filter_ in run.recipe.verdict_steps() for file in run.gather_files(filter_)}
    files = {**pairs, **candidates, **signatures, **filtered}
    step, sizes = run.recipe.resolve_step(settings, partitions), weigh_partitions(run.root, partitions)
    blocks = cut_blocks(sizes, step.priority)
    if len(blocks) > 1:
        resolve_blocks(step, blocks, buckets, files, lambda *work: _perform_steps(run, *work))
    else:
        _perform_steps(run, "resolve", {"all": step}, files)


def count_buckets(run: Build, settings: Dedupe) -> tuple[int, int]:
    """How many buckets a run has, and the bytes that a task over one of them takes."""
    signed = [
        receipt.counts for source in sorted(run.partitions) for receipt in run.manifest(f"steps/{source}/signature")
    ]
    texts, images = (sum(counts[level]["in"] for counts in signed) for level in ("texts_signed", "images_signed"))
    buckets = settings.count_buckets(texts, images)
    return buckets, BASE + (texts * TEXT_BYTES + images * IMAGE_BYTES) // buckets


def list_measured(run: Build) -> list[EarlierFile]:
    """What the last build that came through measured of pictures, in the order of shares."""
    receipts = sorted(run.finder.read_folder("steps/dedupe/pairs").values(), key=lambda receipt: receipt.partition)
    return [
        EarlierFile(run.root / file.path, file.sha256)
        for receipt in receipts
        for file in receipt.files
        if file.name == MEASURED_FILE
    ]


def _list_partitions(run: Build) -> tuple[str, ...]:
    return tuple(
        f"{source}/{partition.name}" for source in sorted(run.partitions) for partition in run.partitions[source]
    )


def weigh_partitions(root: Path, partitions: Collection[str]) -> dict[str, int]:
    """`<source>/<partition>` -> its samples and images, by the receipts of a run."""
    sizes = dict.fromkeys(partitions, 0)
    for source in sorted({partition.partition("/")[0] for partition in partitions}):
        for step, level, side in (("read", "pages", "kept"), ("image_stats", "images_measured", "in")):
            receipts = read_manifest(root, f"steps/{source}/{step}")
            found = {f"{source}/{each.partition}": each.counts[level][side] for each in receipts}
            sizes |= {partition: sizes[partition] + size for partition, size in found.items() if partition in sizes}
    return sizes


def _gather_places(run: Build, steps: Sequence[Step], signatures: Mapping[str, File]) -> Mapping[str, File]:
    """What the buckets read places from: the partitions' own files, or one for each block of partitions."""
    if not steps:
        return signatures
    found = _run_each(run, "places", steps, signatures, BASE)
    return _rename_files("places", found)  # of three parts, as those of partitions


def _run_each(run: Build, name: str, steps: Sequence[Step], files: Mapping[str, File], memory: int) -> dict[str, File]:
    """One chain per step, each over the files that it reads; what they leave, named `<number>/<name>`."""
    found, _ = _run_steps(run, name, {f"{number:05d}": step for number, step in enumerate(steps)}, files, memory)
    return found


def _perform_steps(
    run: Build, name: str, steps: Mapping[str, Step], files: Mapping[str, File]
) -> tuple[dict[str, File], Counts]:
    """Steps of `resolve`, see `Perform` in pieces.py."""
    found, counts = _run_steps(run, name, steps, files, BLOCK_BYTES)
    return _rename_files(name, found), counts


def _rename_files(folder: str, files: Mapping[str, File]) -> dict[str, File]:
    return {f"{folder}/{name}": replace(file, name=f"{folder}/{name}") for name, file in files.items()}


def _run_steps(
    run: Build, name: str, steps: Mapping[str, Step], files: Mapping[str, File], memory: int
) -> tuple[dict[str, File], Counts]:
    """What steps leave, as `<part>/<name>` in the order of parts, and their counts added up.

    Args:
        run: The build.
        name: Of their folder.
        steps: By what their partitions are called.
        files: Of which each reads what it names.
        memory: Bytes that each takes.
    """
    chains = [
        Chain(part, (ChainStep(f"steps/dedupe/{name}", step),), files=tuple(select_files(files, step.reads).values()))
        for part, step in steps.items()
    ]
    found = [receipts[-1][1] for _, receipts in run.run_chains(f"dedupe: {name}", chains, memory)]
    receipts = sorted(found, key=lambda receipt: receipt.partition)
    named = {
        f"{receipt.partition}/{file.name}": replace(file, name=f"{receipt.partition}/{file.name}")
        for receipt in receipts
        for file in receipt.files
    }
    return named, total_counts(receipts)


def list_verdicts(run: Build) -> dict[str, tuple[File]]:
    """What dedupe says of each partition, by `<source>/<partition>`."""
    if run.recipe.dedupe is None:
        return {}
    files = {file.name: file for receipt in run.manifest("steps/dedupe/resolve") for file in receipt.files}
    return {
        f"{partition.source}/{partition.name}": (
            replace(
                files[name_resolved_verdicts(f"{partition.source}/{partition.name}")],
                name=name_verdicts("dedupe"),
            ),
        )
        for partition in run.all_partitions()
    }
