"""Cutting samples: no token twice, none lost without a reason, images once and with text, order kept."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.synthetic import Store, image, text
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.report.stats import make_stats_table
from vlmill.mixtures.steps.cut import Bounds, Nodes, cut_sample
from vlmill.pipeline.chat.encode import WHOLE
from vlmill.pipeline.core.reasons import Reason


def nodes(*items, role="none", ends=(), words=(), lead=0):
    """Nodes from `t12` (12 tokens of text) and `i12` (an image of 12 tokens and one tile); `|` begins a new turn.

    Each text may be cut at those of `ends` and `words` that lie in it. Of answers all but `lead` tokens are supervised.
    """
    lengths, images, turns, turn = [], [], [], 0
    for item in items:
        if item == "|":
            turn += 1
            continue
        lengths.append(int(item[1:]))
        images.append(item[0] == "i")
        turns.append(turn)
    roles = ["none" if role == "none" else "assistant" if at % 2 else "user" for at in range(len(lengths))]
    taught = [not shown and role != "user" for shown, role in zip(images, roles, strict=True)]
    return Nodes(
        tokens=lengths,
        tiles=[int(image) for image in images],
        image=images,
        turn=turns,
        role=roles,
        supervised=[max(length - lead, 0) * taught for length, taught in zip(lengths, taught, strict=True)],
        lead=[lead] * len(lengths),
        ends=[find_inside(ends, *node) for node in zip(lengths, images, strict=True)],
        words=[find_inside(words, *node) for node in zip(lengths, images, strict=True)],
    )


def find_inside(places, length, shown):
    return [place for place in places if place < length and not shown]


def whole(*spans):
    return [Bounds(*span) for span in spans]


def test_a_document_is_cut_between_nodes():
    cut = cut_sample(nodes("t6", "i4", "t3", "t7", "i2", "t1"), 10, 9)
    assert cut.segments == whole((0, 2), (2, 4), (4, 6))
    assert not cut.lost


def test_a_document_is_cut_where_its_tiles_run_out():
    assert cut_sample(nodes("i1", "t1", "i1", "t1", "i1", "t1"), 100, 2).segments == whole((0, 4), (4, 6))


def test_a_text_longer_than_a_row_is_cut_at_the_last_end_of_a_sentence_that_fits():
    cut = cut_sample(nodes("t35", ends=[4, 9, 18, 22, 30], words=[6, 27]), 10, 9)
    spans = [(part.begin, part.end) for part in cut.segments]
    assert spans == [(0, 9), (9, 18), (18, 22), (22, 30), (30, WHOLE)]
    assert not cut.lost


def test_between_words_a_text_is_cut_only_where_no_sentence_ends():
    cut = cut_sample(nodes("t30", ends=[12, 13], words=[5, 10, 20]), 15, 9)
    assert cut.segments == [Bounds(0, 1, 0, 13), Bounds(0, 1, 13, 20), Bounds(0, 1, 20)]
    shortest = cut_sample(nodes("t30", ends=[1], words=[14]), 16, 9)
    assert shortest.segments == [Bounds(0, 1, 0, 14), Bounds(0, 1, 14)]


def test_in_rows_shorter_than_a_word_a_text_is_cut_between_tokens():
    assert cut_sample(nodes("t12"), 5, 9).segments == [Bounds(0, 1, 0, 5), Bounds(0, 1, 5, 10), Bounds(0, 1, 10)]


def test_a_text_that_fits_a_row_is_not_cut_but_where_images_would_stand_alone():
    ends = [4, 8]
    assert cut_sample(nodes("t3", "t9", ends=ends), 10, 9).segments == whole((0, 1), (1, 2))
    assert cut_sample(nodes("i5", "t9", ends=ends), 10, 9).segments == [Bounds(0, 2, 0, 4), Bounds(1, 2, 4)]


def test_a_page_longer_than_a_row_keeps_its_image_with_its_first_part():
    cut = cut_sample(nodes("i576", "t2500", ends=range(20, 2500, 20)), 2046, 64)
    assert cut.segments == [Bounds(0, 2, 0, 1460), Bounds(1, 2, 1460)]
    assert not cut.lost


def test_what_follows_a_cut_text_goes_on_in_its_last_segment():
    cut = cut_sample(nodes("t14", "i3", "t2", "t9", ends=[7]), 12, 9)
    assert cut.segments == [Bounds(0, 1, 0, 7), Bounds(0, 3, 7), Bounds(3, 4)]


def test_images_without_room_for_text_are_lost():
    cut = cut_sample(nodes("i8", "t9", ends=[5]), 10, 9)
    assert cut.segments == whole((1, 2))
    assert cut.lost == {0: Reason.NO_TEXT}


def test_an_image_longer_than_a_row_is_lost_and_the_text_around_it_stays():
    cut = cut_sample(nodes("t3", "i11", "t4"), 10, 9)
    assert cut.segments == whole((0, 1), (2, 3))
    assert cut.lost == {1: Reason.TOO_LONG}


def test_a_conversation_loses_whole_turns_from_its_end():
    cut = cut_sample(nodes("t2", "t2", "|", "t2", "t2", "|", "t2", "t2", role="chat"), 10, 9)
    assert cut.segments == whole((0, 4))
    assert cut.lost == {4: Reason.LATER_TURNS, 5: Reason.LATER_TURNS}


def test_a_conversation_whose_first_turn_does_not_fit_is_lost():
    cut = cut_sample(nodes("i9", "t9", "|", "t1", "t1", role="chat"), 10, 9)
    assert not cut.segments
    assert set(cut.lost.values()) == {Reason.TOO_LONG}


def test_an_answer_that_does_not_fit_is_truncated_where_the_mixture_says_so():
    talk = nodes("t2", "t3", "|", "t2", "t8", "|", "t1", "t1", role="chat", lead=1)
    cut = cut_sample(talk, 10, 9, truncate=True)
    assert cut.segments == [Bounds(0, 4, 0, 3)]
    assert cut.lost == {4: Reason.LATER_TURNS, 5: Reason.LATER_TURNS}
    assert talk.count_supervised(3, 0, 3) == 2


def test_what_is_no_supervised_answer_is_not_truncated():
    long_question = nodes("t12", "t3", role="chat")
    only_its_mark = nodes("t9", "t8", role="chat", lead=1)
    for talk in (long_question, only_its_mark):
        assert cut_sample(talk, 10, 9, truncate=True) == cut_sample(talk, 10, 9)
        assert not cut_sample(talk, 10, 9).segments


ITEMS = st.lists(st.builds("{}{}".format, st.sampled_from("ti"), st.integers(1, 90)) | st.just("|"), max_size=15)
PLACES = st.lists(st.integers(1, 90), unique=True).map(sorted)


@given(ITEMS, st.sampled_from(["none", "chat"]), PLACES, PLACES, st.integers(1, 60), st.integers(1, 4), st.booleans())
def test_every_token_is_in_one_segment_or_lost_for_a_reason(items, role, ends, words, tokens, tiles, truncate):
    sample = nodes(*items, role=role, ends=ends, words=words)
    cut = cut_sample(sample, tokens, tiles, truncate=truncate)
    spans = [list(sample.list_spans(part)) for part in cut.segments]
    covered = [span for part in spans for span in part]
    assert covered == sorted(covered)
    by_node = {at: [span for span in covered if span[0] == at] for at in range(len(sample.tokens))}
    truncated = cut.segments and cut.segments[-1].end != WHOLE
    for at, found in by_node.items():
        assert bool(found) != (at in cut.lost)
        if found:
            assert found[0][1] == 0
            assert all(one[2] == other[1] for one, other in pairwise(found))
            assert found[-1][2] == sample.tokens[at] or (truncated and at == cut.segments[-1].last - 1)
            assert len(found) == 1 or not sample.image[at]
    assert not truncated or (truncate and role == "chat")
    for mine in spans:
        assert sum(end - begin for _, begin, end in mine) <= tokens
        assert sum(sample.tiles[at] for at, _, _ in mine) <= tiles
        assert role == "chat" or not all(sample.image[at] for at, _, _ in mine)
    if role == "none":
        assert all(sample.image[at] for at in cut.lost)


def test_what_fits_stays_one_segment():
    assert cut_sample(nodes("i5", "t9", "t3", ends=[2, 4]), 17, 1).segments == whole((0, 3))


# -- what the statistics say of it


def mixture(**settings):
    return MixtureSettings(sequence_length=128, tiles_per_sequence=8, **{"repeat": {"web": 1}, **settings})


def test_statistics_say_what_was_cut_and_which_tokens_were_lost(tmp_path):
    store = Store(tmp_path)
    page = [image(40), text(300, ends=range(30, 300, 30))]
    talk = [text(20, "user"), text(50, "assistant"), text(10, "user", 1), text(100, "assistant", 1)]
    store.add("web", [page, [image(200), text(10)], talk, [text(60)]])
    _, stats = store.lock(mixture())
    (source,) = stats["sources"]
    assert source["cut"] == {"documents": 1, "segments": 3, "texts": 1}
    assert source["lost"]["tokens"] == {"too_long": 200, "later_turns": 110}
    assert source["lost"]["supervised"] == {"too_long": 0, "later_turns": 100}
    assert source["available"]["supervised"] == 300 + 10 + 50 + 60
    caption = make_stats_table(stats).caption
    assert "cut of web: documents 1 into segments 3, texts split 1" in caption
    assert "tokens later_turns 110, too_long 200; supervised later_turns 100" in caption


def test_a_truncated_answer_is_counted_with_the_tokens_that_it_lost(tmp_path):
    store = Store(tmp_path)
    store.add("web", [[text(20, "user"), text(300, "assistant"), text(5, "user", 1), text(9, "assistant", 1)]])
    lock, stats = store.lock(mixture(truncate=True))
    (source,) = stats["sources"]
    assert lock["truncate"]
    assert source["cut"] == {"answers": 1}
    assert source["lost"]["supervised"] == {"truncated": 300 - 106, "later_turns": 9}
    assert source["available"] | {"tiles": 0} == source["available"]
    assert (source["available"]["tokens"], source["available"]["supervised"]) == (128, 106)
    assert "answers truncated 1" in make_stats_table(stats).caption
    store.select(mixture())
    assert json.loads(store.inputs["web/selection.json"].read_text())["counts"]["samples"]["dropped"] == {"too_long": 1}


def test_a_plan_holds_each_part_of_a_text_once(tmp_path):
    store = Store(tmp_path)
    store.add("web", [[text(1000, ends=range(40, 1000, 40))], [text(90)], [image(30), text(120, ends=[50, 100])]])
    rows = store.plan(mixture())
    parts = sorted(
        (segment["row"], segment["first"], segment["begin"], segment["last"], segment["end"], segment["tokens"])
        for row in rows
        for segment in row["segments"]
    )
    assert parts[:2] == [(0, 0, 0, 1, 120, 122), (0, 0, 120, 1, 240, 122)]
    assert parts[8] == (0, 0, 960, 1, -1, 42)
    assert parts[9:] == [(1, 0, 0, 1, -1, 92), (2, 0, 0, 2, 50, 82), (2, 1, 50, 2, -1, 72)]
