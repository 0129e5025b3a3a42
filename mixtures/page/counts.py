"""The counts that the page plots.

Lengths, sizes and tiles of the samples in shards, how full sequences are, what sources have in common.

Tables are read by columns, of a source's shards at most `SHARDS`, chosen by hash; so the page costs the same for any
run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vlmill.mixtures.algorithms.order import make_order_key
from vlmill.mixtures.reader import PlannedMixture
from vlmill.mixtures.report.alike_texts import count_alike
from vlmill.pipeline.core.checked import check_hash, read_checked
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.schema import Recipe

SHARDS = 64
"""Of a source, that are read for histograms."""

BLOCKS = 16
"""Of a plan, that are read for how full sequences are."""

Rows = list[dict[str, Any]]
"""Of a plot's table."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The tables of a stage's plots."""

    lengths: Rows  # source, from, to (tokens of a sample), samples
    sizes: Rows  # width, width_to, height, height_to (pixels of an original), images
    ratios: Rows  # source, from, to (width over height of an original), images
    tiles: Rows  # source, tiles (of an image), images
    fill: Rows  # from, to (fraction of a sequence), of (tokens or tiles), sequences
    shards: str  # how many of the shards was read


def count_stage(root: Path, mixture: PlannedMixture) -> Counted:
    """Count a stage. Sources that stand in several entries are counted once."""
    sources = {source["label"].partition("@")[0]: source["shards"] for source in mixture.lock["sources"]}
    chosen = {name: _choose_shards(shards) for name, shards in sources.items()}
    lengths, images = [], []
    for name, shards in chosen.items():
        if shards:
            lengths.append(_bin_lengths(root, name, shards, mixture.lock["overhead"]))
            images.append(_read_images(root, name, shards))
    shown = (
        pl.concat(images)
        if images
        else pl.DataFrame(schema={"source": pl.String, "width": int, "height": int, "tiles": int})
    )
    read, whole = (sum(len(shards) for shards in each.values()) for each in (chosen, sources))
    return Counted(
        lengths=_list_rows(pl.concat(lengths).group_by("source", "from", "to").len("samples")) if lengths else [],
        sizes=_list_rows(shown.group_by(*_bin_column("width"), *_bin_column("height")).len("images")),
        ratios=_list_rows(
            shown.with_columns(ratio=pl.col("width") / pl.col("height")).group_by("source", *_bin_ratio()).len("images")
        ),
        tiles=_list_rows(shown.group_by("source", "tiles").len("images")),
        fill=_count_fill(mixture),
        shards="all shards" if read == whole else f"{read:,} of {whole:,} shards, chosen by hash",
    )


def _choose_shards(shards: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(shards, key=lambda shard: make_order_key("page", shard["sha256"]))[:SHARDS]


def _bin_lengths(root: Path, source: str, shards: Sequence[Mapping[str, Any]], overhead: int) -> pl.DataFrame:
    wanted = {shard["lengths"] for shard in shards}
    folders = sorted({path.rpartition("/")[0] for path in wanted})
    files = (file for folder in folders for receipt in read_manifest(root, folder) for file in receipt.files)
    digests = {file.path: file.sha256 for file in files if file.path in wanted}
    table = pl.scan_parquet([check_hash(root / path, digests[path]) for path in sorted(wanted)], glob=False)
    tokens = pl.col("text") + pl.col("visual")
    lengths = table.filter(tokens > 0).select((tokens + overhead).alias("tokens")).collect()  # 0: no form in this chat
    return lengths.select(
        pl.lit(source).alias("source"),
        *(bound.alias(name) for bound, name in zip(_bin_column("tokens"), ("from", "to"), strict=True)),
    )


def _bin_column(column: str) -> tuple[pl.Expr, pl.Expr]:
    """The bounds of the bin that a number falls into; bins grow by the square root of 2."""
    power = (pl.col(column).cast(pl.Float64).log(2) * 2 + 1e-9).floor()
    return (2 ** (power / 2)).round(1).alias(column), (2 ** ((power + 1) / 2)).round(1).alias(f"{column}_to")


def _bin_ratio() -> tuple[pl.Expr, pl.Expr]:
    """The bounds of the bin of a ratio; bins grow by the fourth root of 2, and 1 lies in the middle of one."""
    power = (pl.col("ratio").log(2) * 4 + 0.5).floor()
    return (2 ** ((power - 0.5) / 4)).round(3).alias("from"), (2 ** ((power + 0.5) / 4)).round(3).alias("to")


def _read_images(root: Path, source: str, shards: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    paths = [check_hash(root / shard["index"], shard["index_sha256"]) for shard in shards]
    images = pl.scan_parquet(paths, glob=False).select("images").collect()
    shown = images.explode("images").drop_nulls().unnest("images")
    return shown.select(
        pl.lit(source).alias("source"), *(pl.col(name).cast(pl.Int64) for name in ("width", "height", "tiles"))
    )


def _count_fill(mixture: PlannedMixture) -> Rows:
    """How many sequences are how full, in twentieths."""
    blocks = sorted(mixture.lock["plan"]["blocks"], key=lambda block: make_order_key("page", block["sha256"]))[:BLOCKS]
    if not blocks:
        return []
    paths = [check_hash(mixture.folder / block["path"], block["sha256"]) for block in blocks]
    sequences = pl.scan_parquet(paths, glob=False).select("tokens", "tiles").collect()
    found = []
    for name, budget in (("tokens", mixture.lock["sequence_length"]), ("tiles", mixture.lock["tiles_per_sequence"])):
        twentieth = (pl.col(name) * 20 // budget).clip(0, 19)
        counts = (
            sequences.group_by(twentieth.alias("twentieth"))
            .len("sequences")
            .select(
                (pl.col("twentieth") / 20).alias("from"),
                ((pl.col("twentieth") + 1) / 20).alias("to"),
                pl.lit(name).alias("of"),
                "sequences",
            )
        )
        found += _list_rows(counts)
    return found


def _list_rows(table: pl.DataFrame) -> Rows:
    return table.sort(table.columns).to_dicts()


def count_overlap(root: Path, recipe: Recipe) -> dict[str, Rows]:
    """What sources have in common, in pairs of sources.

    What was dropped as a copy of what, and what is alike and stayed in the shards of each source's first policy.

    Empty before dedupe has come to its end.
    """
    if recipe.dedupe is None or not (root / "steps/dedupe/resolve/manifest.json").exists():
        return {}
    dropped = pl.concat(
        [
            pl.DataFrame(schema={"source": pl.String, "keeper": pl.String, "copies": pl.UInt32}),
            *_count_copies(root, recipe),
        ]
    )
    first = {source: policy for source in sorted(recipe.sources) for policy in recipe.list_policies(source)[:1]}
    sharded = {
        source: policy
        for source, policy in first.items()
        if (root / f"shards/{source}/{policy}/manifest.json").exists()
    }
    stayed = count_alike(root, sharded)
    return {
        **_read_overlap(root),
        "dropped": _list_rows(dropped.group_by("source", "keeper").agg(pl.col("copies").sum())),
        "stayed": [{"source": one, "other": other, "pairs": pairs} for (one, other), pairs in stayed.items()],
    }


def _read_overlap(root: Path) -> dict[str, Rows]:
    """What dedupe counted before it dropped anything: contents of a source that stand in another as well."""
    made = (file for receipt in read_manifest(root, "steps/dedupe/resolve") for file in receipt.files)
    files = (file for file in made if file.name == "overlap.json")
    found = [json.loads(read_checked(root / file.path, file.sha256)) for file in files]
    return {kind: count_shared(matrices["near"]) for overlap in found for kind, matrices in overlap.items()}


def count_shared(matrix: Mapping[str, Mapping[str, int]]) -> Rows:
    """Row -> column -> number, as rows of a plot; without the zeros."""
    return [
        {"source": source, "other": other, "number": number}
        for source, line in sorted(matrix.items())
        for other, number in sorted(line.items())
        if number
    ]


def _count_copies(root: Path, recipe: Recipe) -> list[pl.DataFrame]:
    """Per source: how many of its samples and nodes were dropped for one that another, or itself, keeps."""
    found = []
    files = [file for receipt in read_manifest(root, "steps/dedupe/resolve") for file in receipt.files]
    for source in recipe.sources:
        mine = [check_hash(root / file.path, file.sha256) for file in files if file.name.startswith(f"{source}.")]
        if mine:
            keeper = pl.col("other").str.split("/").list.first().alias("keeper")
            verdicts = (
                pl.scan_parquet(mine, glob=False)
                .filter(pl.col("other") != "")
                .select(pl.lit(source).alias("source"), keeper)
            )
            found.append(verdicts.group_by("source", "keeper").len("copies").collect())
    return found
