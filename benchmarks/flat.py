"""Whether the tasks of dedupe stay as large as they are while a run grows: `python -m benchmarks.flat`.

Writes what `signature`, the filters and `pairs` leave of so many samples, from numbers alone: partitions of 10,000,
half web documents and half pairs, each with a text and an image, a tenth of them copies and a twentieth similar to
another; a third of the texts may stand in a longer one, a third of the images have a vector close to another's
(`--pairs`). Then, each in a process of its own: `resolve` as a build runs it, one task after the other; the same with
`containment` and `semantic` (`ranked`); the places of a block of partitions; and `candidates` of the first bucket.
Prints seconds and the most memory of a process, which is that of its largest task, and the slopes on logarithmic axes.
`--commands` prints the most memory of every command that reads a run (flat_commands.py).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.flat_commands import print_commands, read_peak
from vlmill.pipeline.core.sample import write_verdicts
from vlmill.pipeline.core.step import match_names
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS, split_range
from vlmill.pipeline.dedupe.pairs import PAIRS
from vlmill.pipeline.dedupe.pieces import cut_blocks, perform_here, resolve_blocks
from vlmill.pipeline.dedupe.semantic import Semantic
from vlmill.pipeline.dedupe.signature import OUTLINE, PLACES, PLACES_PER_GROUP

ROWS = 10_000
SIZES = (10_000, 100_000, 1_000_000)
PLACES_OF = {"text": 20, "image": 60}
"""Places of a text and, about, of a picture."""
PAIRS_OF = {"text": "text", "image": "image", "contained": "text", "semantic": "image"}
"""Kind of pairs -> what it compares."""
PLAIN, RANKED = Dedupe(), Dedupe(containment=0.8, semantic=Semantic(of="looks", min=0.95))


def write_outline(path: Path, number: int, size: int) -> None:
    """The outline of a partition of a run of `size` samples."""
    rng = np.random.default_rng(number)
    rows = np.arange(ROWS)
    keys = {kind: make_keys(rng, kind, number, size) for kind in PLACES_OF}
    kinds = np.tile(["image", "text"], ROWS)
    pages = rows % 2 == 0
    both = np.stack([keys["image"], keys["text"]], axis=1).ravel()
    empty = pa.nulls(2 * ROWS, pa.list_(pa.uint64()))
    nodes = pa.StructArray.from_arrays(
        [
            pa.array(kinds),
            pa.array(["none"] * (2 * ROWS)),
            pa.array(np.zeros(2 * ROWS, np.int32)),
            pa.array(np.repeat(pages, 2) & (kinds == "image")),
            pa.nulls(2 * ROWS, pa.int32()),
            pa.array(both),
            empty,
            pa.nulls(2 * ROWS, pa.uint64()),
            pa.nulls(2 * ROWS, pa.string()),
        ],
        fields=list(OUTLINE.field("nodes").type.value_type),
    )
    columns = {
        "source": ["web"] * ROWS,
        "file": [f"{number:05d}.parquet"] * ROWS,
        "row": rows,
        "page": np.full(ROWS, -1, np.int32),
        "unit": np.where(pages, "page", "document"),
        "host": pa.nulls(ROWS, pa.uint64()),
        "text": keys["text"],
        "long": np.ones(ROWS, bool),
        "shingles": (100 + keys["text"] // np.uint64(1 << 20) % np.uint64(900)).astype(np.int32),
        "words": np.full(ROWS, 20, np.int32),
        "nodes": pa.ListArray.from_arrays(np.arange(0, 2 * ROWS + 1, 2, dtype=np.int32), nodes),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in OUTLINE]
    pq.write_table(pa.Table.from_arrays(arrays, schema=OUTLINE), path, compression="zstd", row_group_size=4096)


def make_keys(rng: np.random.Generator, kind: str, number: int, size: int) -> np.ndarray:
    """Keys of the contents of a partition: of ten one is that of any other content of the run."""
    own = np.arange(ROWS, dtype=np.uint64) + np.uint64(number * ROWS)
    copied = rng.random(ROWS) < 0.1
    own[copied] = rng.integers(0, size, int(copied.sum()), dtype=np.uint64)
    salt = np.uint64(1 if kind == "text" else 2)
    return (own * np.uint64(4) + salt) * np.uint64(0x9E3779B97F4A7C15)


def write_pairs(folder: Path, size: int, shares: int, ranked: float) -> dict[str, Path]:
    """Pairs of any contents of the run, by kind; `ranked` for each content where these are ranked."""
    made = {}
    for kind, of in PAIRS_OF.items():
        rng, salt = np.random.default_rng(len(kind)), np.uint64(1 if of == "text" else 2)
        ends = rng.integers(0, size, (int(size * (0.05 if kind == of else ranked)), 2), dtype=np.uint64)
        ends = np.sort((ends * np.uint64(4) + salt) * np.uint64(0x9E3779B97F4A7C15), axis=1)
        ends = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0)
        for number in range(shares):
            first, last = split_range(number, shares, BUCKET_BITS)
            mine = ends[(ends[:, 0] >= first) & (ends[:, 0] <= last)]
            table = pa.table([mine[:, 0], mine[:, 1], np.full(len(mine), 0.99)], schema=PAIRS)
            made[f"{number:05d}/{kind}.pairs.parquet"] = folder / f"{number:05d}.{kind}.pairs.parquet"
            pq.write_table(table, made[f"{number:05d}/{kind}.pairs.parquet"], compression="zstd")
    return made


def write_places(path: Path, number: int, kind: str, size: int) -> None:
    """Where the contents of a partition are filed."""
    keys = make_keys(np.random.default_rng(number), kind, number, size)
    owners = np.repeat(np.arange(ROWS), PLACES_OF[kind])
    places = np.random.default_rng(number + 7).integers(0, 2**64, owners.size, dtype=np.uint64)
    order = np.argsort(places)
    starts = owners[order] * 100
    table = pa.table([places[order], keys[owners[order]], starts, starts + 100], schema=PLACES)
    pq.write_table(table, path, row_group_size=PLACES_PER_GROUP, compression="zstd")


def write_run(folder: Path, size: int, shares: int, ranked: float, *, places: bool) -> dict[str, Path]:
    """The files of a run of `size` samples by the names that steps know."""
    made = write_pairs(folder, size, shares, ranked)
    write_verdicts(folder / "none", [])
    for number in range(size // ROWS):
        name = f"web/{number:05d}-0000"
        made[f"{name}/outline.parquet"] = folder / f"{number:05d}.outline"
        write_outline(made[f"{name}/outline.parquet"], number, size)
        made[f"{name}/taste.verdicts.parquet"] = folder / "none"
        for kind in PLACES_OF if places else ():
            made[f"{name}/{kind}.places.parquet"] = folder / f"{number:05d}.{kind}.places"
            write_places(made[f"{name}/{kind}.places.parquet"], number, kind, size)
        made[f"{name}/line.places.parquet"] = folder / "lines"
    lines = pl.DataFrame(schema={"place": pl.UInt64, "documents": pl.Int64})
    lines.write_parquet(folder / "lines")
    return made


def resolve_run(files: Mapping[str, Path], folder: Path, size: int, shares: int, settings: Dedupe = PLAIN) -> int:
    """`resolve` as a build runs it; returns how many tasks it took."""
    partitions = {f"web/{number:05d}-0000": 2 * ROWS for number in range(size // ROWS)}
    step = settings.resolve(tuple(partitions), {}, ("taste",), ())
    blocks = cut_blocks(partitions, {})
    perform = perform_here(folder)
    if len(blocks) == 1:
        perform("resolve", {"all": step}, files)
    else:
        resolve_blocks(step, blocks, shares, files, perform)
    return sum(1 for _ in folder.glob("*/*"))


def resolve_ranked(files: Mapping[str, Path], folder: Path, size: int, shares: int) -> int:
    """The same with the two rules that rank what they compare."""
    return resolve_run(files, folder, size, shares, RANKED)


def find_candidates(files: Mapping[str, Path], folder: Path, size: int, shares: int) -> int:
    """Places of all blocks, where there are blocks, and the first bucket's candidates; returns the buckets."""
    del shares
    partitions = sorted({name.rpartition("/")[0] for name in files if name.startswith("web/")})
    buckets, perform = Dedupe().count_buckets(size, size), perform_here(folder)
    placed: Mapping[str, Path] = files
    if gathering := Dedupe().places(partitions):
        placed, _ = perform("places", {f"{number:05d}": step for number, step in enumerate(gathering)}, files)
    step = Dedupe().candidates(buckets)[0]
    wanted = match_names(placed, step.reads)
    perform("candidates", {"00000": step}, {name: placed[name] for name in wanted})
    return buckets


WORKS = {"resolve": resolve_run, "ranked": resolve_ranked, "candidates": find_candidates}
"""What is measured, by the names that are printed."""


def measure(work: Callable[..., int], *arguments: object) -> dict[str, float]:
    """Seconds and the most memory of a process that does this alone."""
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(sender, work, arguments))
    process.start()
    found: dict[str, float] = receiver.recv()
    process.join()
    return found


def _work(sender: Connection, work: Callable[..., int], arguments: Sequence[object]) -> None:
    before, began, wall = read_peak(), time.process_time(), time.perf_counter()
    number = work(*arguments)
    spent = {"cpu": time.process_time() - began, "wall": time.perf_counter() - wall}
    sender.send({**spent, "mib": read_peak(), "before": before, "number": number})


def print_slopes(name: str, sizes: Sequence[int], found: Mapping[int, Mapping[str, float]]) -> None:
    """Between each two sizes, on logarithmic axes."""
    for small, large in pairwise(sizes):
        slopes = {
            unit: math.log(found[large][unit] / found[small][unit]) / math.log(large / small) for unit in ("mib", "cpu")
        }
        print(f"  {name} {small:,} -> {large:,}: memory {slopes['mib']:+.3f}, time {slopes['cpu']:+.3f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--works", nargs="*", choices=[*WORKS], default=[*WORKS])
    parser.add_argument("--pairs", type=float, default=0.33, help="for each content, where `ranked` compares it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    kinds = ("tables", "stage")
    parser.add_argument("--commands", nargs="*", choices=kinds, help="commands that read runs, by kind of run")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.commands is not None:
        print_commands(arguments.sizes, arguments.folder, arguments.commands or kinds)
        return
    works = {name: WORKS[name] for name in arguments.works}
    results: dict[str, dict[int, dict[str, float]]] = {name: {} for name in works}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(prefix="vlmill-flat-", dir=arguments.folder) as name:
            folder = Path(name)
            shares = Dedupe().count_buckets(size, size)
            files = write_run(folder, size, shares, arguments.pairs, places="candidates" in works)
            for work, function in works.items():
                runs = [
                    measure(function, files, folder / f"{work}{number}", size, shares)
                    for number in range(arguments.repeats)
                ]
                found = {unit: median(run[unit] for run in runs) for unit in runs[0]}
                results[work][size] = found
                number = f"{found['number']:.0f} {'buckets' if work == 'candidates' else 'tasks'}"
                spent = f"{found['cpu']:7.1f} s of CPU, {found['mib']:5.0f} MiB at most, {found['before']:.0f} before"
                print(f"{work:<10} {size:>9,} samples: {spent}, {number}", flush=True)
    for work, by_size in results.items():
        print_slopes(work, arguments.sizes, by_size)
    if arguments.json:
        arguments.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
