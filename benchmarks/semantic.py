"""Clusters, semantic duplicates and balance: `python -m benchmarks.semantic [--vectors 100000] [--length 512]`.

Makes vectors around topics, a fifth of them near copies of others and a fiftieth in one dense blob, as the tables that
an embedding leaves, in partitions of 10,000. Then runs every step of clusters and of semantic dedupe over them, one at
a time in a process of its own, on one core, and prints CPU seconds and the most memory. Beside brute force on a sample:
how many pairs over the threshold are in one cluster, whether those are found, and what the cap on pairs leaves in the
data. Last, balance over as many samples beside MetaCLIP's formula.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from vlmill.mixtures.config import Balance
from vlmill.mixtures.steps.balance import GroupCaps, find_capped
from vlmill.pipeline.core.sample import write_rows
from vlmill.pipeline.core.scores import Scores, read_embeddings, write_embeddings
from vlmill.pipeline.core.step import Step
from vlmill.pipeline.dedupe import semantic
from vlmill.pipeline.dedupe.ranked import hold_groups
from vlmill.pipeline.dedupe.semantic import CompareVectors, FileVectors, SemanticRule
from vlmill.pipeline.dedupe.semantic_drops import drop_copies, find_copies, rank_things, select_things
from vlmill.pipeline.dedupe.signature import OUTLINE
from vlmill.pipeline.signals.clusters import Clusters
from vlmill.pipeline.steps.clusters import AssignClusters, CountClusters, SampleVectors, TrainCentroids, ValueClusters

ROWS, MIN, FLOOR, BUCKETS, ASKED = 10_000, 0.95, 0.9, 16, 300
Files = dict[str, Path]


def measure(name: str, work: Callable[[], object]) -> None:
    """Run in a process of its own; print CPU seconds and the most memory."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - said, and the parent ends
            print(repr(error))
            os._exit(1)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{name} failed")
    print(f"{name:<34} {used.ru_utime + used.ru_stime:8.1f} s {used.ru_maxrss / 1024:8.0f} MiB", flush=True)


def make_part(folder: Path, number: int, length: int, centres: np.ndarray) -> None:
    """The tables of a partition of pairs: a vector and a key each."""
    random = np.random.default_rng(number)
    vectors = centres[random.zipf(1.3, ROWS) % len(centres)] + random.normal(0, 0.75, (ROWS, length)) / length**0.5
    copies = random.integers(0, ROWS, ROWS // 5)
    noise = random.uniform(0.0, 0.5, (copies.size, 1)) * random.normal(size=(copies.size, length)) / length**0.5
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    unit[random.permutation(ROWS)[: copies.size]] = unit[copies] + noise
    blob = random.permutation(ROWS)[: ROWS // 50]
    spread = random.uniform(0.1, 0.35, (blob.size, 1)) / length**0.5
    unit[blob] = centres[0] + spread * random.normal(size=(blob.size, length))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rows = np.arange(ROWS, dtype=np.int32)
    folder.mkdir(parents=True)
    write_embeddings(
        folder / "looks.embeddings.parquet", Scores(rows, np.zeros_like(rows), (None,) * ROWS, unit), "looks"
    )
    node = {"kind": "image", "role": "none", "turn": 0, "required": True, "lines": None, "url": None, "reason": None}
    about = {"source": "made", "file": "a", "page": -1, "unit": "page", "host": None, "text": 0, "long": False}
    about |= {"shingles": 0, "words": 0}
    first = number * ROWS
    outlines = ({**about, "row": first + row, "nodes": [{**node, "key": first + row + 1}]} for row in range(ROWS))
    write_rows(folder / "outline.parquet", OUTLINE, outlines)


def run_each(step: Step, parts: Sequence[Path], out: Path, more: Mapping[str, Path]) -> None:
    """A step over every partition."""
    for part in parts:
        files = {path.name: path for place in (part, *part.glob("*/")) for path in place.iterdir() if path.is_file()}
        (folder := part / out).mkdir()
        step.run({**files, **more}, folder)


def gather(parts: Sequence[Path], pattern: str) -> Files:
    """Files of all partitions as steps over the run know them."""
    return {f"made/{part.name}/{path.name}": path for part in parts for path in sorted(part.glob(pattern))}


def run_once(step: Step, files: Mapping[str, Path], folder: Path) -> None:
    """A step over the run."""
    folder.mkdir(parents=True)
    step.run(files, folder)


def compare_all(parts: Sequence[Path], out: Path, clusters: int) -> None:
    """Every bucket in turn."""
    files = gather(parts, "vectors/semantic.*")
    for bucket in range(BUCKETS):
        run_once(CompareVectors(bucket, BUCKETS, clusters, FLOOR, {}), files, out / f"{bucket:05d}")


def drop(out: Path, number: int) -> pl.DataFrame:
    """What goes of pages with a picture each."""
    orders = pl.DataFrame({"order": pl.int_range(number, dtype=pl.UInt32, eager=True)})
    nodes = orders.with_columns(
        node=pl.lit(0, pl.Int32),
        kind=pl.lit("image"),
        role=pl.lit("none"),
        unit=pl.lit("page"),
        key=pl.col("order").cast(pl.UInt64) + 1,
    )
    pairs = pl.read_parquet(sorted(out.glob("*/semantic.pairs.parquet")))
    rule = SemanticRule("image", MIN, ())
    things = select_things(nodes, orders.with_columns(source=pl.lit("made")), rule)
    groups = things.rename({"key": "group"})
    held = hold_groups(rank_things(groups), pairs.filter(pl.col("similarity") >= rule.min))
    return drop_copies(things, find_copies(groups, held), rule)


def check_sample(parts: Sequence[Path], out: Path) -> Iterator[str]:
    """Pairs over the threshold of some vectors with all others, by brute force, beside those that were written."""
    number = len(parts) * ROWS
    asked = np.sort(np.random.default_rng(1).choice(number, ASKED, replace=False))
    topics = np.concatenate([pl.read_parquet(part / "values/topic.scores.parquet")["topic"] for part in parts])
    pairs = pl.read_parquet(sorted(out.glob("*/semantic.pairs.parquet"))).filter(pl.col("similarity") >= MIN)
    written = {(one - 1, other - 1) for one, other, _ in pairs.iter_rows()}
    mine = np.concatenate(
        [
            read_embeddings(part / "looks.embeddings.parquet", "looks").vectors[asked[asked // ROWS == place] % ROWS]
            for place, part in enumerate(parts)
        ]
    ).astype(np.float32)
    mine /= np.linalg.norm(mine, axis=1, keepdims=True)
    every, inside, found = 0, 0, 0
    for place, part in enumerate(parts):
        others = read_embeddings(part / "looks.embeddings.parquet", "looks").vectors.astype(np.float32)
        others /= np.linalg.norm(others, axis=1, keepdims=True)
        for row, other in np.argwhere(mine @ others.T >= MIN):
            one, two = int(asked[row]), place * ROWS + int(other)
            if one != two:
                same = topics[one] == topics[two]
                every, inside = every + 1, inside + bool(same)
                found += bool(same) and ((min(one, two), max(one, two)) in written)
    yield f"pairs over {MIN} of {ASKED} vectors: {every}, of one cluster {inside}, written {found}"


def time_balance(number: int) -> Iterator[str]:
    """Caps over topics of Zipf's sizes, beside the formula and the draws of MetaCLIP."""
    random, cap = np.random.default_rng(2), 200
    topics = pl.Series(random.zipf(1.2, number) % 50_000, dtype=pl.Float32)
    ids = [f"made/a.parquet#{row}" for row in range(number)]
    began = time.process_time()
    caps, shards = GroupCaps(Balance("topic", cap), 17), range(0, number, 10_000)
    for start in shards:
        caps.add(ids[start : start + 10_000], topics[start : start + 10_000])
    bounds = caps.find_bounds()
    capped = [find_capped(ids[at : at + 10_000], topics[at : at + 10_000], bounds, caps.key) for at in shards]
    kept = topics.filter(~pl.Series(np.concatenate(capped)))
    spent = time.process_time() - began
    sizes = np.unique(topics.to_numpy(), return_counts=True)[1]
    left = np.unique(kept.to_numpy(), return_counts=True)[1]
    drawn = random.binomial(sizes, np.minimum(1, cap / sizes))
    yield f"balance of {number:,} samples in {len(sizes):,} topics, cap {cap}: {spent:.1f} s of CPU"
    yield f"  formula: {int(np.minimum(sizes, cap).sum()):,}; kept: {len(kept):,}; most of a topic: {left.max()}"
    yield f"  as MetaCLIP draws: {int(drawn.sum()):,}; most of a topic: {drawn.max()}"


def main() -> None:
    """Print a line for each step, then what was compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None, help="for the tables, about 4 KB a vector of 512")
    arguments = parser.parse_args()
    settings = Clusters("looks", clusters=arguments.clusters, seed=17)
    number = arguments.vectors // ROWS
    with tempfile.TemporaryDirectory(prefix="vlmill-semantic-", dir=arguments.folder) as name:
        root, parts = Path(name), [Path(name) / f"{part:05d}-0000" for part in range(number)]
        centres = np.random.default_rng(0).normal(size=(2 * arguments.clusters, arguments.length))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        for place, part in enumerate(parts):
            make_part(part, place, arguments.length, centres)
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{number * ROWS:,} vectors of {arguments.length}; before any step {base:.0f} MiB", flush=True)
        bound = min((1 << 64) - 1, (settings.clusters * settings.per_cluster << 64) // (number * ROWS))
        sample, train = SampleVectors("topic", "looks", 17, bound), TrainCentroids("topic", settings)
        measure("sample, all partitions", lambda: run_each(sample, parts, Path("sample"), {}))
        sampled = gather(parts, "sample/*.npy")
        measure("centroids", lambda: run_once(train, sampled, root / "centroids"))
        centroids = {"topic.centroids.npy": root / "centroids/topic.centroids.npy"}
        assign = AssignClusters("topic", "looks")
        measure("assigned, all partitions", lambda: run_each(assign, parts, Path("assigned"), centroids))
        assigned = {**centroids, **gather(parts, "assigned/*.parquet")}
        measure("sizes", lambda: run_once(CountClusters("topic"), assigned, root / "sizes"))
        sizes = {"topic.sizes.npy": root / "sizes/topic.sizes.npy"}
        measure(
            "values, all partitions", lambda: run_each(ValueClusters("topic", settings), parts, Path("values"), sizes)
        )
        file = FileVectors("looks", "topic")
        measure("vectors filed, all partitions", lambda: run_each(file, parts, Path("vectors"), {}))
        clusters, pairs = arguments.clusters, root / "pairs"
        measure(f"pairs, {BUCKETS} buckets in turn", lambda: compare_all(parts, pairs, clusters))
        measure("which go (in resolve)", lambda: drop(pairs, number * ROWS))
        semantic.PER_BAND = 1 << 30  # in this process and those that it forks from here on
        measure("the same pairs without the cap", lambda: compare_all(parts, root / "every", clusters))
        print(*check_sample(parts, pairs), sep="\n")
        gone = drop(pairs, number * ROWS)
        exact = drop(root / "every", number * ROWS)
        both = exact.join(gone, on="order", how="semi").height
        print(f"duplicates: {gone.height:,}; without the cap on pairs {exact.height:,}, {both:,} of them the same")
    print(*time_balance(arguments.vectors), sep="\n")


if __name__ == "__main__":
    main()
