"""Shards: tars that others read, byte for byte what their samples decide."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time

import pytest
import webdataset

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.sample import Node, Sample, SampleId, read_rows
from vlmill.pipeline.images import Layout
from vlmill.pipeline.shards.byte_ranges import ByteRange, ShardStorage
from vlmill.pipeline.shards.writer import (
    Rendered,
    ShardSample,
    ShardWriter,
    parse_members,
    read_members,
    read_nodes,
)

GOLDEN = "e54193db353959b0ce8683011b29b85e5e078e3f9b2049a0a56f7949a026c7ea"


def entry(row=0, kept=(0, 1, 2, 3), data=b"picture"):
    nodes = (
        Node("text", "system", text="Antworte knapp: 答え。"),
        Node("image", "user", image=7, required=True, url="http://img.example/a.png"),
        Node("text", "user", text="What is it?"),
        Node("text", "assistant", supervised=True, text="A line\nand 'quotes'."),
    )
    sample = Sample(SampleId("quiz", "a/b.parquet", row, 2), nodes, "book", "CC0-1.0", "http://page.example")
    shown = Rendered(
        Layout((40, 30), (40, 30), (1, 1), 2, 9),
        {"canvas": ("webp", data), "overview": ("webp", b"o" * 600)},
        "f" * 64,
    )
    return ShardSample(f"00003{row:010d}", sample, tuple(kept), (shown,) if 1 in kept else ())


def test_shards_are_written_without_torch_and_webdataset_is_whole_for_who_reads_them(tmp_path):
    code = f"""
import sys, tarfile
from pathlib import Path
from vlmill.pipeline.shards.tar_file import TarFile
path = Path({str(tmp_path / "a.tar")!r})
with TarFile(path) as tar:
    tar.add("0", "json", b"{{}}")
    assert tar.offset == 1024
assert not {{"torch", "webdataset"}} & sys.modules.keys()
(member,) = tarfile.open(path).getmembers()
assert (member.name, member.mtime, member.mode, member.uid, member.uname) == ("0.json", 0, 0o644, 0, "")
import torch, webdataset
assert issubclass(webdataset.WebDataset, torch.utils.data.IterableDataset)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write(folder, entries, samples=100, size=1 << 30):
    with ShardWriter(folder, samples, size) as shards:
        for item in entries:
            shards.add(item)
    return folder


@pytest.mark.parametrize(("seconds", "user"), [(0.5, 0), (2e9, 1000)])
def test_the_bytes_of_a_shard_are_these_at_any_time_and_for_any_user(tmp_path, monkeypatch, seconds, user):
    monkeypatch.setattr(time, "time", lambda: seconds)
    monkeypatch.setattr(os, "getuid", lambda: user)
    write(tmp_path, [entry(0), entry(12)])
    assert hashlib.sha256((tmp_path / "00.tar").read_bytes()).hexdigest() == GOLDEN


def test_a_member_has_no_owner_no_time_and_a_plain_mode(tmp_path):
    write(tmp_path, [entry()])
    with tarfile.open(tmp_path / "00.tar") as tar:
        members = tar.getmembers()
    assert [member.name.partition(".")[2] for member in members] == [
        "json",
        "1.canvas.webp",
        "1.overview.webp",
    ]
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert (member.mode, member.type) == (0o644, tarfile.REGTYPE)


def test_webdataset_groups_the_members_of_each_sample(tmp_path):
    write(tmp_path, [entry(0), entry(1)])
    samples = list(webdataset.WebDataset(str(tmp_path / "00.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["000030000000000", "000030000000001"]
    assert samples[0]["1.canvas.webp"] == b"picture"
    assert json.loads(samples[1]["json"])["id"] == "quiz/a/b.parquet#1.2"


def test_the_json_holds_the_nodes_that_stay_and_names_their_pictures(tmp_path):
    write(tmp_path, [entry(kept=(1, 3))])
    (row,) = read_rows(tmp_path / "00.index.parquet")
    (members,) = read_members(ShardStorage(str(tmp_path)), [ByteRange("00.tar", row["offset"], row["size"])])
    record = json.loads(members["json"])
    assert {key: value for key, value in record.items() if key != "nodes"} == {
        "id": "quiz/a/b.parquet#0.2",
        "source": "quiz",
        "group": "book",
        "licence": "CC0-1.0",
        "url": "http://page.example",
    }
    image, answer = record["nodes"]
    assert image["parts"] == ["0.canvas.webp", "0.overview.webp"]
    assert (image["width"], image["height"]) == (40, 30)
    assert answer["text"] == "A line\nand 'quotes'."
    assert read_nodes(record) == (
        Node("image", "user", image=0),
        Node("text", "assistant", supervised=True, text=answer["text"]),
    )


def test_one_read_by_the_index_gives_what_reading_the_whole_tar_gives(tmp_path):
    write(tmp_path, [entry(row, data=b"x" * row) for row in range(0, 1500, 300)])
    whole = {
        sample.pop("__key__"): sample for sample in webdataset.WebDataset(str(tmp_path / "00.tar"), shardshuffle=False)
    }
    rows = list(read_rows(tmp_path / "00.index.parquet"))
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    spans = [ByteRange("00.tar", row["offset"], row["size"]) for row in rows]
    for row, members in zip(rows, read_members(ShardStorage(str(tmp_path)), spans), strict=True):
        assert members == {name: data for name, data in whole[row["key"]].items() if not name.startswith("__")}
    names = [name for name, _ in parse_members((tmp_path / "00.tar").read_bytes())]
    assert len(names) == 3 * len(rows)


def test_the_index_says_where_a_sample_comes_from_and_what_its_images_cost(tmp_path):
    write(tmp_path, [entry(5)])
    (row,) = read_rows(tmp_path / "00.index.parquet")
    assert (row["file"], row["input_row"], row["page"], row["group"], row["nodes"]) == (
        "a/b.parquet",
        5,
        2,
        "book",
        4,
    )
    assert row["images"] == [{"node": 1, "width": 40, "height": 30, "rows": 1, "columns": 1, "tiles": 2, "tokens": 9}]


def test_the_lineage_leads_each_node_back_to_its_place_and_bytes(tmp_path):
    write(tmp_path, [entry(kept=(1, 3))])
    (row,) = read_rows(tmp_path / "00.lineage.parquet")
    assert (row["id"], row["url"]) == ("quiz/a/b.parquet#0.2", "http://page.example")
    assert row["nodes"] == [
        {"node": 1, "url": "http://img.example/a.png", "sha256": "f" * 64, "origin": None},
        {"node": 3, "url": None, "sha256": None, "origin": None},
    ]


def test_a_shard_closes_before_it_has_too_many_samples(tmp_path):
    write(tmp_path, [entry(row) for row in range(5)], samples=2)
    counts = [sum(1 for _ in read_rows(path)) for path in sorted(tmp_path.glob("*.index.parquet"))]
    assert counts == [2, 2, 1]


def test_a_shard_closes_before_it_has_too_many_bytes_and_a_larger_sample_stands_alone(tmp_path):
    write(tmp_path, [entry(0), entry(1), entry(2, data=b"x" * 20_000), entry(3)], size=10_240)
    tars = sorted(tmp_path.glob("*.tar"))
    lengths = [[row["input_row"] for row in read_rows(path.with_suffix(".index.parquet"))] for path in tars]
    assert lengths == [[0, 1], [2], [3]]
    assert [tar.stat().st_size <= 10_240 for tar in tars] == [True, False, True]


def test_the_parts_of_a_sample_stand_in_their_order_with_the_json_first(tmp_path):
    images = [Rendered(Layout((4, 3), (4, 3), (1, 1), 1, 1), {"canvas": ("webp", b"x")}) for _ in range(11)]
    nodes = tuple(Node("image", "user", image=number) for number in range(11))
    sample = Sample(SampleId("quiz", "a.parquet", 0), nodes)
    write(tmp_path, [ShardSample("0" * 15, sample, tuple(range(11)), tuple(images))])
    names = [name for name, _ in parse_members((tmp_path / "00.tar").read_bytes())]
    assert names == ["json", *(f"{number}.canvas.webp" for number in range(11))]


def test_an_error_leaves_no_index_and_closes_the_tar(tmp_path):
    def fail():
        yield entry(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(tmp_path, fail())
    assert [path.name for path in tmp_path.iterdir()] == ["00.tar"]
    assert (tmp_path / "00.tar").stat().st_size == 10_240


def test_no_sample_makes_no_file(tmp_path):
    write(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_a_shard_does_not_hang_on_its_bounds(tmp_path):
    folders = [tmp_path / name for name in ("one", "many")]
    for folder, samples in zip(folders, (100, 1), strict=True):
        folder.mkdir()
        write(folder, [entry(row) for row in range(3)], samples=samples)
    members = [
        [member for tar in sorted(folder.glob("*.tar")) for member in parse_members(tar.read_bytes())]
        for folder in folders
    ]
    assert members[0] == members[1]


@pytest.mark.parametrize(("shift", "size"), [(512, 0), (0, 1 << 20), (1 << 20, 0)])
def test_a_span_that_is_not_the_index_says_so(tmp_path, shift, size):
    write(tmp_path, [entry()])
    (row,) = read_rows(tmp_path / "00.index.parquet")
    with pytest.raises(StoreError, match="damaged"):
        list(
            read_members(ShardStorage(str(tmp_path)), [ByteRange("00.tar", row["offset"] + shift, row["size"] + size)])
        )


def test_tarfile_reads_a_shard_to_its_end(tmp_path):
    write(tmp_path, [entry(0), entry(1)])
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "00.tar").read_bytes())) as tar:
        assert len(tar.getnames()) == 6
