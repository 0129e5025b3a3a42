"""The render step: what the filters left, in shards, with every loss in the books."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    IMAGES,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    read_image_stats,
    read_rows,
    read_samples,
    read_verdicts,
    write_image_stats,
    write_rows,
    write_samples,
    write_verdicts,
)
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.navit import NaViT
from vlmill.pipeline.shards.byte_ranges import ByteRange, ShardStorage
from vlmill.pipeline.shards.writer import read_members
from vlmill.pipeline.steps.render import Render
from vlmill.pipeline.verdicts.apply import apply_verdicts, read_verdicts_by_sample

SMALL = Letterbox(side=28)


def png(size=(20, 10), colour=(200, 30, 90)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def document(row, *nodes):
    return Sample(SampleId("web", "a.parquet", row), nodes)


def text(words="words"):
    return Node("text", text=words)


def image(number, required=False):
    return Node("image", image=number, required=required, url=f"http://img.example/{number}")


def question(row, number):
    user, assistant = Node("text", "user", text="?"), Node("text", "assistant", supervised=True, text="!")
    return document(row, Node("image", "user", image=number, required=True), user, assistant)


def partition(folder, samples, pictures, verdicts=(), group=4096):
    """Write what the steps before render leave; a picture is its bytes, or the reason why there are none."""
    folder.mkdir(exist_ok=True)
    image_stats = []
    for number, data in enumerate(pictures):
        if isinstance(data, Reason):
            image_stats.append(ImageStats(number, data))
            continue
        try:
            width, height = Image.open(io.BytesIO(data)).size
        except OSError:
            width, height = 20, 10
        image_stats.append(ImageStats(number, None, hashlib.sha256(data).hexdigest(), "PNG", "RGB", width, height))
    rows = (image_row(number, data) for number, data in enumerate(pictures))
    write_samples(folder / "samples.parquet", samples)
    write_rows(folder / "images.parquet", IMAGES, rows, group=group)
    write_image_stats(folder / "image_stats.parquet", image_stats)
    write_verdicts(folder / "ratio.verdicts.parquet", verdicts)
    return {path.name: path for path in folder.iterdir()}


def image_row(number, data):
    empty = dict.fromkeys(IMAGES.names)
    return (
        {**empty, "image": number, "bytes": data}
        if isinstance(data, bytes)
        else {**empty, "image": number, "reason": str(data)}
    )


def render(tmp_path, inputs, policy=SMALL, **bounds):
    folder = tmp_path / "out"
    folder.mkdir()
    counts = Render(policy, ("ratio",), 3, 1, **bounds).run(inputs, folder)
    return folder, {level: count.to_json() for level, count in counts.items()}


def stored(folder):
    """All samples of all shards: (index row, JSON, members)."""
    found = []
    for index in sorted(folder.glob("*.index.parquet")):
        tar, rows = index.name.replace(".index.parquet", ".tar"), list(read_rows(index))
        spans = [ByteRange(tar, row["offset"], row["size"]) for row in rows]
        for row, members in zip(rows, read_members(ShardStorage(str(folder)), spans), strict=True):
            found.append((row, json.loads(members["json"]), members))
    return found


def test_a_document_keeps_its_order_when_a_dead_image_falls(tmp_path):
    samples = [document(0, text("a"), image(0), text("b"), image(1), text("c"))]
    folder, counts = render(tmp_path, partition(tmp_path / "in", samples, [Reason.TIMED_OUT, png()]))
    ((row, record, members),) = stored(folder)
    assert [node.get("text", "picture") for node in record["nodes"]] == ["a", "b", "picture", "c"]
    assert list(members) == ["json", "2.canvas.webp"]
    assert row["key"] == "000030001000000"
    assert counts["samples"] == {"in": 1, "kept": 1, "dropped": {}, "failed": {}}
    assert counts["images"] == {"in": 2, "kept": 1, "dropped": {}, "failed": {"timed_out": 1}}
    assert counts["nodes"] == {"in": 5, "kept": 4, "dropped": {}, "failed": {"timed_out": 1}}


def test_what_is_stored_shows_the_model_what_the_policy_draws(tmp_path):
    folder, _ = render(tmp_path, partition(tmp_path / "in", [document(0, image(0))], [png((50, 9))]))
    ((row, _, members),) = stored(folder)
    (layout,) = SMALL.layout([(50, 9)])
    (tile,) = SMALL.tiles({"canvas": Image.open(io.BytesIO(members["0.canvas.webp"]))}, layout)
    (drawn,) = SMALL.tiles(SMALL.render(Image.open(io.BytesIO(png((50, 9)))), layout), layout)
    assert np.array_equal(tile, drawn)
    assert row["images"] == [{"node": 0, "width": 50, "height": 9, "rows": 1, "columns": 1, "tiles": 1, "tokens": 4}]


def test_webdataset_decodes_the_pictures(tmp_path):
    folder, _ = render(
        tmp_path, partition(tmp_path / "in", [document(0, text(), image(0))], [png((28, 28), (9, 8, 7))])
    )
    (shown,) = webdataset.WebDataset(str(folder / "00.tar"), shardshuffle=False).decode("pil")
    assert shown["1.canvas.webp"].getpixel((3, 3)) == (9, 8, 7)
    assert shown["json"]["nodes"][0]["text"] == "words"


def test_keys_keep_the_row_of_the_partition_so_they_tell_which_samples_went(tmp_path):
    samples = [document(row, text()) for row in range(3)]
    verdicts = [Verdict(1, -1, "ratio", Reason.IMAGE_RATIO)]
    folder, counts = render(tmp_path, partition(tmp_path / "in", samples, [], verdicts))
    assert [row["key"][-6:] for row, _, _ in stored(folder)] == ["000000", "000002"]
    assert counts["samples"]["dropped"] == {"image_ratio": 1}


def test_a_size_that_the_policy_cannot_answer_is_a_verdict(tmp_path):
    samples = [document(0, text(), image(0), image(1)), question(1, 0), question(2, 1)]
    inputs = partition(tmp_path / "in", samples, [png((40, 1)), png()])
    folder, counts = render(tmp_path, inputs, NaViT(shortest=28, longest=56, split=True))
    found = list(read_verdicts(folder / "render.verdicts.parquet"))
    assert found == [Verdict(row, node, "render", Reason.UNRENDERABLE) for row, node in [(0, 1), (1, 0)]]
    assert [row["input_row"] for row, _, _ in stored(folder)] == [0, 2]
    assert counts["samples"] == {"in": 3, "kept": 2, "dropped": {}, "failed": {"unrenderable": 1}}
    assert counts["images"] == {"in": 4, "kept": 2, "dropped": {}, "failed": {"unrenderable": 2}}


def test_bytes_that_turn_out_broken_are_a_verdict(tmp_path):
    inputs = partition(tmp_path / "in", [document(0, text(), image(0), image(1))], [b"no picture", png()])
    folder, counts = render(tmp_path, inputs)
    assert list(read_verdicts(folder / "render.verdicts.parquet")) == [Verdict(0, 1, "render", Reason.UNDECODABLE)]
    assert counts["images"]["failed"] == {"undecodable": 1}
    assert len(stored(folder)[0][1]["nodes"]) == 2


def test_a_filter_who_spoke_first_keeps_the_attribution(tmp_path):
    verdicts = [Verdict(0, 1, "ratio", Reason.IMAGE_RATIO)]
    inputs = partition(tmp_path / "in", [document(0, text(), image(0))], [b"no picture"], verdicts)
    folder, counts = render(tmp_path, inputs)
    assert list(read_verdicts(folder / "render.verdicts.parquet")) == []
    assert counts["images"] == {"in": 1, "kept": 0, "dropped": {"image_ratio": 1}, "failed": {}}


def test_layouts_are_of_the_images_that_are_left(tmp_path):
    policy = AnyRes(side=28, pinpoints=((28, 28), (56, 28), (28, 56)), many="letterbox")
    inputs = partition(tmp_path / "in", [document(0, image(0), image(1))], [b"no picture", png((80, 30))])
    folder, _ = render(tmp_path, inputs, policy)
    ((row, _, members),) = stored(folder)
    assert row["images"][0]["tiles"] == policy.layout([(80, 30)])[0].tiles == 3
    assert list(members) == ["json", "0.canvas.webp", "0.overview.webp"]


def test_nothing_kept_is_no_shard_and_all_in_the_books(tmp_path):
    folder, counts = render(tmp_path, partition(tmp_path / "in", [question(0, 0)], [Reason.HTTP_CLIENT_ERROR]))
    assert [path.name for path in folder.iterdir()] == ["render.verdicts.parquet"]
    assert counts["samples"] == {"in": 1, "kept": 0, "dropped": {}, "failed": {"http_client_error": 1}}
    assert counts["nodes"]["failed"] == {"http_client_error": 3}


def test_a_retried_image_takes_the_place_of_the_one_that_failed(tmp_path):
    samples = [document(0, image(0), image(1), image(2))]
    inputs = partition(tmp_path / "in", samples, [png(), png(colour=(1, 1, 1)), png()])
    write_rows(tmp_path / "in" / "supplement.parquet", IMAGES, [image_row(1, png(colour=(250, 250, 250)))])
    folder, _ = render(tmp_path, {**inputs, "supplement.parquet": tmp_path / "in" / "supplement.parquet"})
    ((_, _, members),) = stored(folder)
    middle = Image.open(io.BytesIO(members["1.canvas.webp"]))
    assert middle.getpixel((14, middle.height // 2)) == (250, 250, 250)


def test_images_may_be_named_in_any_order_and_by_several_samples(tmp_path):
    order = [(5, 0), (2, 5), (0, 1), (4, 3), (1, 2)]
    colours = [(number * 40, 0, 0) for number in range(6)]
    samples = [document(row, *(image(number) for number in numbers)) for row, numbers in enumerate(order)]
    inputs = partition(tmp_path / "in", samples, [png((20, 20), colour) for colour in colours], group=2)
    folder, _ = render(tmp_path, inputs)
    for numbers, (_, _, members) in zip(order, stored(folder), strict=True):
        shown = [Image.open(io.BytesIO(members[f"{place}.canvas.webp"])).getpixel((9, 9)) for place in (0, 1)]
        assert shown == [colours[number] for number in numbers]


def test_facts_of_another_decoder_are_the_machines_trouble(tmp_path):
    inputs = partition(tmp_path / "in", [document(0, image(0))], [png()])
    write_image_stats(inputs["image_stats.parquet"], [ImageStats(0, None, "", "PNG", "RGB", 10, 20)])
    with pytest.raises(StoreError, match="another decoder"):
        render(tmp_path, inputs)


def test_the_step_names_the_files_and_libraries_that_decide_its_bytes():
    step = Render(SMALL, ("language", "dedupe"), 0, 0)
    assert step.reads[-2:] == ("language.verdicts.parquet", "dedupe.verdicts.parquet")
    assert {"pillow", "pyarrow", "webp"} <= step.made_by().keys()


nodes = st.one_of(st.builds(text), st.builds(image, st.integers(0, 4), st.booleans()))
fates = st.sampled_from([png(), png((3, 50)), png((40, 1)), b"no picture", Reason.TIMED_OUT])


@st.composite
def partitions(draw):
    samples = [document(row, *draw(st.lists(nodes, min_size=1, max_size=4))) for row in range(draw(st.integers(1, 5)))]
    places = [(row, node) for row, sample in enumerate(samples) for node in (-1, *range(len(sample.nodes)))]
    dropped = draw(st.lists(st.sampled_from(places), max_size=3, unique=True))
    verdicts = [Verdict(row, node, "ratio", Reason.IMAGE_RATIO) for row, node in dropped]
    return samples, draw(st.lists(fates, min_size=5, max_size=5)), verdicts


@settings(max_examples=40, deadline=None)
@given(partitions(), st.integers(1, 3))
def test_everything_is_in_a_shard_or_in_the_books(tmp_path_factory, made, bound):
    samples, pictures, verdicts = made
    tmp_path = tmp_path_factory.mktemp("case")
    inputs = partition(tmp_path / "in", samples, pictures, verdicts)
    policy = NaViT(shortest=28, longest=56, split=True)
    folder, counts = render(tmp_path, inputs, policy, samples=bound)
    shown = stored(folder)
    for level in counts.values():
        assert level["in"] == level["kept"] + sum(level["dropped"].values()) + sum(level["failed"].values())
    assert counts["samples"]["in"] == len(samples)
    assert counts["samples"]["kept"] == len(shown)
    assert counts["nodes"]["kept"] == sum(row["nodes"] for row, _, _ in shown)
    assert counts["images"]["kept"] == sum(len(row["images"]) for row, _, _ in shown)
    assert [row["key"] for row, _, _ in shown] == sorted({row["key"] for row, _, _ in shown})


@settings(max_examples=40, deadline=None)
@given(partitions())
def test_settling_again_with_renders_verdicts_tells_what_the_shards_hold(tmp_path_factory, made):
    tmp_path = tmp_path_factory.mktemp("case")
    inputs = partition(tmp_path / "in", *made)
    folder, _ = render(tmp_path, inputs, NaViT(shortest=28, longest=56, split=True))
    shown = {row["input_row"]: row["nodes"] for row, _, _ in stored(folder)}
    later = {**inputs, "render.verdicts.parquet": folder / "render.verdicts.parquet"}
    verdicts, image_stats = (
        read_verdicts_by_sample(later, ["ratio", "render"]),
        read_image_stats(inputs["image_stats.parquet"]),
    )
    again = [
        apply_verdicts(sample, verdicts.get(row, []), image_stats)
        for row, sample in enumerate(read_samples(inputs["samples.parquet"]))
    ]
    assert shown == {row: len(outcome.kept) for row, outcome in enumerate(again) if outcome.sample is None}


def test_the_same_partition_gives_the_same_bytes(tmp_path):
    samples = [document(row, text(), image(row % 3)) for row in range(6)]
    inputs = partition(tmp_path / "in", samples, [png((30, 9)), png((9, 30)), png()])
    digests = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        folder, _ = render(tmp_path / name, inputs, samples=4)
        digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert digests[0] == digests[1]
    assert len(digests[0]) == 7
