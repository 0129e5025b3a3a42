"""The trainer's data: who reads which sequences, what they hold, what is refused; the loader keeps nothing."""

from __future__ import annotations

import io
import threading
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.stages import (
    ANYRES,
    LETTERBOX,
    article,
    model_settings,
    question,
    write_run,
)
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.chat.encode import IGNORE, join_segment, load_tokenizer
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.seal import read_sealed_json, seal_json
from vlmill.pipeline.images import pixels
from vlmill.train.batch import PADDING, Document, pad_sequences
from vlmill.train.data import Reader, decode_stored, load_batches, load_step_batches
from vlmill.train.families import find_family
from vlmill.train.settings import Training

SOURCES = {"quiz": [question(number) for number in range(30)], "web": [article(number) for number in range(10)]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), SOURCES, hold_out=2)


def reader(root, loss="answers", policy=None):
    mixture = PlannedMixture(root, "align")
    return Reader(
        mixture,
        load_tokenizer(mixture.tokenizer, mixture.chat),
        find_family(model_settings(), policy or mixture.policy),
        loss,
    )


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


# -- which steps


def test_a_loader_that_begins_at_any_step_of_any_epoch_gives_what_one_from_the_start_gives(run):
    planned = PlannedMixture(run, "align").sequences
    training = Training(learning_rate={"text": 1.0}, sequences=2, epochs=3)
    steps = 3 * planned // 2

    def load(start):
        with closing(load_step_batches(reader(run), training, range(start, steps), 0, 1, 2, 2)) as batches:
            return [batch.ids.tolist() for (batch,) in batches]

    whole = load(0)
    assert len(whole) == steps
    for start in (1, planned // 2, planned // 2 + 1, steps - 1):
        assert load(start) == whole[start:]
    each = planned // 2
    assert whole[:each] != whole[each : 2 * each] != whole[2 * each : 3 * each]


# -- what a sequence holds


def test_a_row_is_the_documents_that_the_plan_lists(run):
    found = reader(run).sequence(0)
    made = {(0, row): nodes for row, (nodes, _) in enumerate(SOURCES["quiz"])} | {
        (1, row): nodes for row, (nodes, _) in enumerate(SOURCES["web"])
    }
    segments = PlannedMixture(run, "align").sequence(0)
    assert len(found) == len(segments) > 1
    tokenizer = reader(run).tokenizer
    for document, segment in zip(found, segments, strict=True):
        expected = join_segment(
            made[segment.source, segment.row], document.layouts, tokenizer, PlannedMixture(run, "align").chat
        )
        assert (document.ids, document.labels) == (expected.ids, expected.labels)
        assert document.source == segment.source


def test_tiles_are_those_of_the_image_policy(run):
    document = reader(run).sequence(0)[0]
    _, (image,) = SOURCES["quiz"][0]
    (layout,) = ANYRES.layout([image.size])
    tiles = ANYRES.tiles(ANYRES.render(image, layout), layout)  # the shards are stored without loss
    np.testing.assert_array_equal(document.tiles[0], tiles)


@pytest.mark.parametrize("quality", [None, 95, 40])
@pytest.mark.parametrize("size", [(1, 1), (97, 31), (336, 336)])
def test_pixels_are_those_that_pillow_reads_from_what_it_wrote(quality, size):
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3))
    noise[:, : size[0] // 2] //= 16  # half of it smooth
    _, data = pixels.encode_image(Image.fromarray(noise.astype(np.uint8)), quality)
    np.testing.assert_array_equal(decode_stored(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_segment_from_the_middle_of_a_document_has_its_own_images(run):
    whole = reader(run).document(Segment(1, 0, 3))
    tail = reader(run).document(Segment(1, 0, 3, 2, 5))  # behind the first text and image
    assert len(tail.tiles) == 1
    np.testing.assert_array_equal(tail.tiles[0], whole.tiles[1])
    assert tail.ids[1:] == whole.ids[-len(tail.ids) + 1 :]


def test_every_row_of_every_block_can_be_read_and_no_other(run):
    mixture = PlannedMixture(run, "align")
    assert len(mixture.lock["plan"]["blocks"]) > 1
    assert all(mixture.sequence(number) for number in range(mixture.sequences))
    with pytest.raises(IndexError, match="has sequences 0 to"):
        mixture.sequence(mixture.sequences)


def test_held_out_samples_stand_in_no_row(run):
    mixture = PlannedMixture(run, "align")
    planned = {
        (item.source, item.shard, item.row) for number in range(mixture.sequences) for item in mixture.sequence(number)
    }
    held_out = {(item.source, item.shard, item.row) for item in mixture.held_out()}
    assert held_out == {(0, 1, 4), (0, 1, 5), (1, 0, 8), (1, 0, 9)}
    assert held_out.isdisjoint(planned)
    assert {(0, 0, 4), (0, 0, 5)} <= planned


# -- packing


def documents(*lengths):
    return [
        Document(source, list(range(100, 100 + length)), [IGNORE] + [7] * (length - 1))
        for source, length in enumerate(lengths)
    ]


def test_positions_start_again_in_every_document_and_in_the_padding():
    batch = pad_sequences([documents(3, 2), documents(7)], pad=9)
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6]]
    assert batch.documents.tolist() == [[0, 0, 0, 1, 1, 2, 2], [0] * 7]
    assert batch.ids[0].tolist() == [100, 101, 102, 100, 101, 9, 9]
    assert batch.sources[0].tolist() == [0, 0, 0, 1, 1, PADDING, PADDING]
    assert batch.labels[0].tolist() == [IGNORE, 7, 7, IGNORE, 7, IGNORE, IGNORE]
    assert (batch.tokens, batch.supervised) == (12, 9)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3), st.booleans())
def test_a_border_is_where_positions_do_not_go_on_by_one_and_where_documents_change(lengths, left):
    """What transformers takes for the border of two documents (see train/data.py), and what we do."""
    batch = pad_sequences([documents(*row) for row in lengths], 0, left=left)
    for row, positions, numbers in zip(lengths, batch.positions.tolist(), batch.documents.tolist(), strict=True):
        padding = len(positions) - sum(row)
        ends = np.cumsum([padding, *row] if left and padding else row).tolist()
        borders = [end for end in ends if end < len(positions)]
        assert [place for place, (before, after) in enumerate(pairwise(positions), 1) if after - before != 1] == borders
        assert [place for place, (before, after) in enumerate(pairwise(numbers), 1) if after != before] == borders


# -- the loader


def test_batches_come_in_order_whatever_the_threads():
    def sequence(number):
        return [Document(0, [number, number], [IGNORE, number])]

    steps = [[[number], [number + 1]] for number in range(0, 40, 2)]
    for count in (1, 4):
        found = list(load_batches(sequence, iter(steps), 0, count, 3))
        assert [[micro.ids[0, 0].item() for micro in step] for step in found] == [
            [number, number + 1] for number in range(0, 40, 2)
        ]
    assert not threads()


def test_no_more_steps_are_read_ahead_than_allowed():
    asked = []

    def steps():
        for number in range(100):
            asked.append(number)
            yield [[number]]

    batches = load_batches(lambda number: [Document(0, [number, number], [IGNORE, number])], steps(), 0, 2, ahead=3)
    for taken in range(1, 6):
        next(batches)
        assert len(asked) == taken + 3
    batches.close()
    assert not threads()


def test_trouble_with_a_row_is_raised_in_its_step_and_ends_the_threads():
    def sequence(number):
        if number == 3:
            raise StoreError("sequence 3 is damaged")
        return [Document(0, [number, number], [IGNORE, number])]

    batches = load_batches(sequence, ([[number]] for number in range(9)), 0, 2, 4)
    assert [next(batches)[0].ids[0, 0].item() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StoreError, match="sequence 3 is damaged"):
        next(batches)
    assert not threads()


# -- what is refused


def changed(run, tmp_path, change):
    """A copy of the run's lock with something else in it, over the same files."""
    for path in run.iterdir():
        (tmp_path / path.name).symlink_to(path) if path.name != "mixtures" else None
    folder = tmp_path / "mixtures" / "align"
    folder.mkdir(parents=True)
    for path in (run / "mixtures" / "align").iterdir():
        if path.name != "mixture.lock.json":
            (folder / path.name).symlink_to(path)
    lock = read_sealed_json(run / "mixtures" / "align" / "mixture.lock.json", "")
    change(lock)
    (folder / "mixture.lock.json").write_text(seal_json(lock))
    return tmp_path


def test_shards_of_another_policy_are_refused(run, tmp_path):
    root = changed(run, tmp_path, lambda lock: lock["policy"].update(pinpoints=[[56, 56]]))
    with pytest.raises(StoreError, match="its shard counts 10, the image policy counts 24"):
        reader(root).sequence(0)


def test_a_policy_that_counts_otherwise_than_the_model_class_is_refused(run):
    other = type(ANYRES)(side=28, patch=14, pinpoints=((28, 28),))
    with pytest.raises(StoreError, match="the model class counts"):
        reader(run, policy=other).sequence(0)


def test_lengths_that_are_not_the_plans_are_refused(run):
    with pytest.raises(StoreError, match="the plan says 999"):
        reader(run).document(Segment(0, 0, 0, 0, 3, tokens=999))


def test_another_tokenizer_is_refused(run, tmp_path):
    root = changed(run, tmp_path, lambda lock: lock["tokenizer"].update(sha256="0" * 64))
    with pytest.raises(StoreError, match="is not the tokenizer that stage 'align' was measured with"):
        reader(root)


def test_a_damaged_shard_is_named(run, tmp_path):
    root = write_run(tmp_path, {"quiz": SOURCES["quiz"][:4]}, LETTERBOX)
    shard = next((root / "shards").glob("**/*.tar"))
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(StoreError, match="vlmill verify"):
        reader(root).sequence(0)


def test_a_damaged_picture_is_named(run):
    made = reader(run)
    (stored,) = made.mixture.read([Segment(0, 0, 0)])
    for broken in (b"", stored.parts[0]["canvas"][:20]):
        with pytest.raises(StoreError, match=r"\.tar row 0: a picture of \d+ bytes cannot be decoded"):
            made.document(Segment(0, 0, 0), replace(stored, parts=({**stored.parts[0], "canvas": broken},)))


def test_a_stage_without_a_mixture_says_how_to_make_it(tmp_path):
    with pytest.raises(StoreError, match="vlmill build"):
        PlannedMixture(tmp_path, "align")
