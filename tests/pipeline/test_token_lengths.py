"""Measure: lengths equal what encode gives, images are not read, bytes are the same each time."""

from __future__ import annotations

import hashlib

import pyarrow.parquet as pq
import pytest

from tests.helpers.stages import (
    ANYRES,
    article,
    question,
    render,
    write_shards,
    write_tokenizer,
)
from vlmill.pipeline.chat.encode import FORMATS, join_segment, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Node, read_rows
from vlmill.pipeline.shards.writer import BLOCK
from vlmill.pipeline.steps.token_lengths import LENGTHS, CountTokens

CHAT = FORMATS["vlmill"]


@pytest.fixture
def shard(tmp_path):
    """A folder with one shard of six samples, its index and its lengths."""
    write_tokenizer(tmp_path / "tokenizer.json")
    made = [*(question(number) for number in range(4)), article(0), ((Node("text", text="No picture."),), [])]
    write_shards(tmp_path, "quiz", ANYRES, made)
    return tmp_path / "shards" / "quiz" / "anyres", made


def test_lengths_are_those_of_the_encoded_samples(shard):
    folder, made = shard
    tokenizer = load_tokenizer(folder.parents[2] / "tokenizer.json", CHAT)
    rows = list(read_rows(folder / "00.lengths.parquet"))
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4, 5]
    for row, (nodes, pictures) in zip(rows, made, strict=True):
        layouts = [image.layout for image in render(ANYRES, pictures)]
        encoded = join_segment(nodes, layouts, tokenizer, CHAT)
        assert row["text"] + row["visual"] + CHAT.overhead == len(encoded.ids)
        assert row["visual"] == sum(layout.tokens for layout in layouts)
        assert row["tiles"] == sum(layout.tiles for layout in layouts)
        assert row["supervised"] == encoded.supervised
        assert row["images"] == len(pictures)


def test_a_sample_is_the_sum_of_its_nodes(shard):
    folder, made = shard
    for row, (nodes, _) in zip(read_rows(folder / "00.lengths.parquet"), made, strict=True):
        for name in ("text", "visual", "supervised", "tiles"):
            assert row[name] == sum(node[name] for node in row["nodes"])
        assert [(node["image"], node["turn"], node["role"]) for node in row["nodes"]] == [
            (node.kind == "image", node.turn, node.role) for node in nodes
        ]


def test_marks_of_a_turn_count_at_the_nodes_they_stand_at(shard):
    folder, _ = shard
    image, asked, answer = next(read_rows(folder / "00.lengths.parquet"))["nodes"]
    assert image["text"] == 1  # the user's mark
    assert asked["supervised"] == 0
    assert answer["supervised"] == answer["text"] - 1  # all but the assistant's mark


def test_the_table_has_the_documented_schema(shard):
    assert pq.read_schema(shard[0] / "00.lengths.parquet").equals(LENGTHS)


def test_images_are_not_read(shard, tmp_path):
    folder, _ = shard
    inputs = {path.name: path for path in folder.iterdir()} | {"tokenizer.json": tmp_path / "tokenizer.json"}
    damaged = tmp_path / "damaged.tar"
    data = (folder / "00.tar").read_bytes()
    start = data.index(b".0.canvas.") // BLOCK * BLOCK + BLOCK  # behind the header of the first image
    damaged.write_bytes(data[:start] + bytes(BLOCK) + data[start + BLOCK :])
    (tmp_path / "out").mkdir()
    CountTokens().run({**inputs, "00.tar": damaged}, tmp_path / "out")
    assert (tmp_path / "out" / "00.lengths.parquet").read_bytes() == (folder / "00.lengths.parquet").read_bytes()


def test_every_shard_of_a_partition_has_its_own_table_and_the_books_count_all(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json")
    write_shards(tmp_path, "quiz", ANYRES, [question(number) for number in range(5)], per_shard=2)
    folder = tmp_path / "shards" / "quiz" / "anyres"
    inputs = {path.name: path for path in folder.iterdir()} | {"tokenizer.json": tmp_path / "tokenizer.json"}
    (tmp_path / "out").mkdir()
    counts = CountTokens().run(inputs, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{number:02d}.lengths.parquet" for number in range(3)
    ]
    assert (counts["samples"].kept, counts["nodes"].kept) == (5, 15)
    assert all(count.balanced() for count in counts.values())


def test_a_partition_without_shards_gives_no_tables(tmp_path):
    (tmp_path / "out").mkdir()
    counts = CountTokens().run({"tokenizer.json": write_tokenizer(tmp_path / "tokenizer.json")}, tmp_path / "out")
    assert counts["samples"].came == 0
    assert list((tmp_path / "out").iterdir()) == []


def test_the_same_shard_gives_the_same_bytes(tmp_path):
    digests = set()
    for turn in ("one", "two"):
        root = tmp_path / turn
        root.mkdir()
        write_tokenizer(root / "tokenizer.json")
        write_shards(root, "quiz", ANYRES, [question(number) for number in range(3)])
        digests.add(
            hashlib.sha256((root / "shards" / "quiz" / "anyres" / "00.lengths.parquet").read_bytes()).hexdigest()
        )
    assert len(digests) == 1


def test_an_unknown_chat_format_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match="did you mean 'vlmill'"):
        parse_block(CountTokens, {"chat": "vlmil"}, "measure")
