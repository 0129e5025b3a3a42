"""How often a stage shows each image, against counting node by node."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.mixtures import get_lineage_path
from vlmill.mixtures.steps import repetition
from vlmill.mixtures.steps.plan import SEQUENCES
from vlmill.mixtures.steps.repetition import Repetition, measure_repetition, summarise_repetition
from vlmill.pipeline.shards.writer import LINEAGE

FIELDS = ("source", "shard", "row", "first", "last")


def sha256(image):
    return f"{image:02x}" * 32


def node(place, image):
    return {"node": place, "url": f"http://{image}", "sha256": None if image is None else sha256(image)}


def write(folder, shards, segments):
    """Lineage and a plan of two blocks. A shard is a list of samples, a sample a list of images or None for a text."""
    paths = [f"shards/web/small/{number}.tar" for number in range(len(shards))]
    files = {}
    for path, samples in zip(paths, shards, strict=True):
        rows = [
            {
                "row": row,
                "id": f"{path}#{row}",
                **dict.fromkeys(("url", "upstream_id", "licence"), ""),
                "nodes": list(map(node, count(), images)),
            }
            for row, images in enumerate(samples)
        ]
        files[get_lineage_path(path)] = folder / f"{len(files)}.lineage.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=LINEAGE), files[get_lineage_path(path)])
    blocks = []
    for number, entry in enumerate((segments[::2], segments[1::2])):
        planned = [
            {**dict(zip(FIELDS, segment, strict=True)), "epoch": 0, "tokens": 1, "tiles": 0, "begin": 0, "end": -1}
            for segment in entry
        ]
        blocks.append(folder / f"{number}.plan.parquet")
        pq.write_table(
            pa.Table.from_pylist([{"tokens": 1, "tiles": 0, "segments": planned}], schema=SEQUENCES), blocks[-1]
        )
    lock = {
        "sources": [{"shards": [{"path": path} for path in paths]}],
        "plan": {"blocks": [{"path": "plan/0"}, {"path": "plan/1"}]},
    }
    return lock, blocks, files


shards = st.lists(
    st.lists(st.lists(st.none() | st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=3),
    min_size=1,
    max_size=3,
)


@st.composite
def planned(draw):
    made = draw(shards)
    segments = []
    for _ in range(draw(st.integers(0, 12))):
        shard = draw(st.integers(0, len(made) - 1))
        row = draw(st.integers(0, len(made[shard]) - 1))
        first = draw(st.integers(0, len(made[shard][row]) - 1))
        segments.append((0, shard, row, first, draw(st.integers(first + 1, len(made[shard][row])))))
    return made, segments


@settings(max_examples=100, deadline=None)
@given(planned(), st.integers(1, 12))
def test_an_image_is_counted_wherever_the_plan_shows_it(case, held):
    made, segments = case
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(repetition, "HELD", held)
        (Path(folder) / "scratch").mkdir()
        found = measure_repetition(*write(Path(folder), made, segments), Path(folder) / "scratch")
    shown, samples = Counter(), set()
    for _, shard, row, first, last in segments:
        for image in filter(None, made[shard][row][first:last]):
            shown[image] += 1
            samples.add((image, shard, row))
    assert (found["images"], found["shown"], found["most"]) == (
        len(shown),
        shown.total(),
        max(shown.values(), default=0),
    )
    assert {row["sha256"]: (row["shown"], row["samples"]) for row in found["top"]} == {
        sha256(image): (number, sum(image == other for other, *_ in samples)) for image, number in shown.items()
    }
    assert sum(level["images"] for level in found["distribution"]) == len(shown)


def test_the_step_adds_repetition_to_the_statistics(tmp_path):
    lock, blocks, files = write(tmp_path, [[[1, None, 2], [1]]], [(0, 0, 0, 0, 3)] * 3 + [(0, 0, 1, 0, 1)])
    (tmp_path / "lock").write_text(json.dumps(lock))
    (tmp_path / "stats").write_text(json.dumps({"stage": "align"}))
    inputs = {"mixture.lock.json": tmp_path / "lock", "stats.json": tmp_path / "stats", **files}
    (tmp_path / "out").mkdir()
    Repetition().run(inputs | {f"plan/{number}": block for number, block in enumerate(blocks)}, tmp_path / "out")
    found = json.loads((tmp_path / "out/stats.json").read_text())
    assert found["stage"] == "align"
    assert found["repetition"]["top"] == [
        {"sha256": sha256(1), "url": "http://1", "id": "shards/web/small/0.tar#0", "shown": 4, "samples": 2},
        {"sha256": sha256(2), "url": "http://2", "id": "shards/web/small/0.tar#0", "shown": 3, "samples": 1},
    ]
    assert (
        summarise_repetition(found["repetition"])
        == "2 images shown 7 times, 3.50 each and 4 at most: 2 of them 3-4 times"
    )
    assert summarise_repetition({**found["repetition"], "images": 0, "shown": 0}) == "no image is shown"
