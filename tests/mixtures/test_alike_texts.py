"""Pairs of alike texts in shards: counted by source, the same in blocks of any size."""

import hashlib
from collections import Counter

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlmill.mixtures.report import alike_texts
from vlmill.mixtures.report.alike_texts import count_alike
from vlmill.pipeline.core.names import INDEX_SUFFIX, OUTLINE_FILE
from vlmill.pipeline.dedupe.pairs import PAIRS
from vlmill.pipeline.engine.chain import write_manifest
from vlmill.pipeline.engine.store import File, Receipt

SOURCES = ("blog", "news", "quiz")


def commit(root, folder, partition, tables):
    """The receipt of a step that left these tables."""
    files = []
    for name, table in tables.items():
        path = f"{folder}/{partition}.{name}"
        (root / folder).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / path)
        data = (root / path).read_bytes()
        files.append(File(name, path, hashlib.sha256(data).hexdigest(), len(data)))
    return Receipt("k", partition, tuple(files), {}, {})


def make_run(root, seed):
    """Three sources of four partitions each, of whose samples two in three are in shards: (source, text) of these."""
    random, kept = np.random.default_rng(seed), Counter()
    for source in SOURCES:
        signed, sharded = [], []
        for number in range(4):
            rows = np.arange(30)
            texts, long = random.integers(0, 60, 30), random.random(30) < 0.8
            there = random.random(30) < (0 if number == 3 else 0.7)
            outline = pl.DataFrame(
                {"file": [f"{number}"] * 30, "row": rows, "page": [-1] * 30, "text": texts, "long": long}
            )
            outline = outline.cast({"text": pl.UInt64, "page": pl.Int32}).with_columns(source=pl.lit(source))
            index = pl.DataFrame({"file": [f"{number}"] * 30, "input_row": rows, "page": [-1] * 30}).cast(
                {"page": pl.Int32}
            )
            index = index.filter(pl.Series(there))
            shards = {f"{place:02d}{INDEX_SUFFIX}": index[place * 12 : place * 12 + 12] for place in range(3)}
            partition = f"{number:05d}-0000"
            signed.append(commit(root, f"steps/{source}/signature", partition, {OUTLINE_FILE: outline.to_arrow()}))
            left = {name: part.to_arrow() for name, part in shards.items() if part.height}
            sharded.append(commit(root, f"shards/{source}/small", partition, left))
            kept.update((source, int(text)) for text in texts[long & there])
        write_manifest(root, f"steps/{source}/signature", signed)
        write_manifest(root, f"shards/{source}/small", sharded)
    ends = sorted({tuple(sorted(random.choice(60, 2, replace=False).tolist())) for _ in range(80)})
    shares = [ends[:50], [], ends[50:]]
    receipts = []
    for number, mine in enumerate(shares):
        columns = {
            "one": [one for one, _ in mine],
            "other": [other for _, other in mine],
            "similarity": [0.6] * len(mine),
        }
        table = pa.table(columns, schema=PAIRS)
        receipts.append(commit(root, "steps/dedupe/pairs", f"{number:05d}", {"text.pairs.parquet": table}))
    write_manifest(root, "steps/dedupe/pairs", receipts)
    return kept, ends


@pytest.mark.parametrize("seed", range(3))
def test_alike_texts_are_the_same_in_blocks_of_any_size(tmp_path, monkeypatch, seed):
    kept, ends = make_run(tmp_path, seed)
    wanted = Counter()
    for one, other in ends:
        for (source, text), number in kept.items():
            for (another, like), times in kept.items():
                if (text, like) == (one, other):
                    wanted[min(source, another), max(source, another)] += number * times
    policies = dict.fromkeys(SOURCES, "small")
    for partitions, block in ((1, 1), (2, 7), (16, 1 << 20)):
        monkeypatch.setattr(alike_texts, "PARTITIONS", partitions)
        assert count_alike(tmp_path, policies, block) == wanted
    of_two = {pair: number for pair, number in wanted.items() if "quiz" not in pair}
    assert count_alike(tmp_path, dict.fromkeys(SOURCES[:2], "small")) == of_two
    assert len(wanted) > 3
