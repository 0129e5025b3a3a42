"""Questions of benchmarks with a word changed: found, unless the change makes another question."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.small import NOUNS
from tests.pipeline.test_decontaminate import ANSWERED, LONG, PROSE, asked_by, found_in, search_for, told
from vlmill.pipeline.core.sample import Node, Sample, SampleId
from vlmill.pipeline.decontaminate.alignment import align_words
from vlmill.pipeline.decontaminate.slots import find_slots
from vlmill.pipeline.decontaminate.texts import split_passages

PLACES = range(len(LONG.split()))
CHANGES = {
    "replaced": lambda words, place: [*words[:place], "lighthouse", *words[place + 1 :]],
    "left out": lambda words, place: [*words[:place], *words[place + 1 :]],
    "added": lambda words, place: [*words[:place], "lighthouse", *words[place:]],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("role", ["user", "none"])
def test_a_question_is_found_whichever_word_was_changed(tmp_path, change, role):
    search = search_for(tmp_path / "item", asked_by(LONG, (), "The stone bridge."))
    changed = [" ".join(CHANGES[change](LONG.split(), place)) for place in PLACES]
    assert [found_in(search, told(text, "Nobody knows.", role)) for text in changed] == [[0]] * len(changed)


@pytest.mark.parametrize("change", CHANGES)
def test_a_short_question_with_a_word_changed_counts_with_an_answer_of_two_words(tmp_path, change):
    search = search_for(tmp_path / "item", asked_by(ANSWERED, (), "Anna Maria Keller"))
    for place in range(len(ANSWERED.split())):
        changed = " ".join(CHANGES[change](ANSWERED.split(), place))
        assert found_in(search, told(changed, "It was Anna Maria Keller.")) == [0]
        assert found_in(search, told(changed, "It was Otto Braun.")) == []
    one_word = search_for(tmp_path / "short", asked_by(ANSWERED, (), "Keller"))
    assert found_in(one_word, told(ANSWERED, "Keller")) == [0]
    assert found_in(one_word, told(ANSWERED.replace("small", "large"), "Keller")) == []


@pytest.mark.parametrize(
    "changed",
    [
        LONG.replace("river", "3 rivers"),
        LONG.replace("two", "7"),
        LONG.replace("the two", "the"),
        LONG.replace("railway came", "train drove"),
        LONG.replace("bridges", "small gates"),
    ],
)
def test_a_number_or_two_words_make_another_question(tmp_path, changed):
    """`the two` is found: the word is no digit."""
    search = search_for(tmp_path / "item", asked_by(LONG, (), "The stone bridge."))
    assert found_in(search, told(changed, "Nobody knows.")) == (
        [0] if changed == LONG.replace("the two", "the") else []
    )


def test_a_number_of_the_question_may_not_be_another_or_missing(tmp_path):
    question = LONG.replace("two", "12")
    search = search_for(tmp_path / "item", asked_by(question, (), "The stone bridge."))
    assert found_in(search, told(question, "")) == [0]
    for other in ("13", "twelve", ""):
        assert found_in(search, told(question.replace("12", other), "")) == []


SCENE = "Is the number of {} things that are to the left of the {} cube less than the number of {} ones?"
COLOURS = ["red", "blue", "green", "brown"]


def test_a_word_that_the_benchmark_varies_makes_another_question(tmp_path):
    held = [(a, b, c) for a, b, c in itertools.product(COLOURS[:3], repeat=3) if (a, b, c) != ("red", "red", "red")]
    search = search_for(tmp_path / "items", *(asked_by(SCENE.format(*slots), (), "yes") for slots in held))
    for colours in itertools.product(COLOURS, repeat=3):
        expected = [held.index(colours)] if colours in held else []
        assert found_in(search, told(SCENE.format(*colours), "yes")) == expected, colours


def test_a_question_alone_has_no_slots(tmp_path):
    alone = search_for(tmp_path / "alone", asked_by(SCENE.format("red", "blue", "green"), (), "yes"))
    assert found_in(alone, told(SCENE.format("red", "blue", "brown"), "yes")) == [0]


def test_words_with_a_question_that_differs_are_named_node_by_node(tmp_path):
    search = search_for(tmp_path / "item", asked_by(LONG, (), "The stone bridge."))
    changed = LONG.replace("mill", "lighthouse")
    nodes = [Node("text", text=text) for text in (PROSE, " ".join(changed.split()[:9]), " ".join(changed.split()[9:]))]
    own = list(split_passages(0, Sample(SampleId("train", "f", 0), tuple(nodes)), search.benchmarks))
    (hit,) = search.hits(own, [None] * len(own))
    assert hit.nodes == (1, 2)
    assert 0.9 < hit.score < 1


def slots_of(*texts):
    """Of each text, the words that vary and the words before which others have more."""
    names = {word: number for number, word in enumerate(sorted({word for text in texts for word in text.split()}), 1)}
    found = find_slots([np.array([names[word] for word in text.split()], np.uint32) for text in texts])
    return [
        [word for word, slot in zip(text.split(), one[1::2], strict=True) if slot]
        for text, one in zip(texts, found, strict=True)
    ]


def test_slots_are_what_stands_between_the_same_words():
    assert slots_of("what is the colour of the cube", "what is the size of the cube") == [["colour"], ["size"]]
    assert slots_of("is the big red cube near the door", "is the big ball near the door") == [["red", "cube"], ["ball"]]
    assert slots_of("what is the colour of the cube", "where do the small birds hide in winter") == [[], []]
    assert slots_of("what is this", "what is this") == [[], []]
    assert slots_of("how many birds hide in the image", "where do dogs sleep in the image") == [[], []]


def test_a_question_with_enough_words_of_its_own_has_no_slots():
    own, other = " ".join(NOUNS[:8]), "so what is the size of the cube"
    assert slots_of(f"{' '.join(NOUNS[:4])} so what is the colour of the cube", other)[0] == ["colour"]
    assert slots_of(f"{own} so what is the colour of the cube", other)[0] == []
    asked = f"{own} is the colour of the cube"
    assert slots_of(asked, asked.replace("cube", "ball")) == [["cube"], ["ball"]]


words = st.lists(st.integers(1, 4), max_size=12)


@given(st.lists(st.lists(st.integers(1, 5), max_size=9), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_slots_do_not_depend_on_the_order_of_questions(questions, draw):
    order = draw.sample(range(len(questions)), len(questions))
    found = find_slots([np.array(question, np.uint32) for question in questions])
    again = find_slots([np.array(questions[place], np.uint32) for place in order])
    assert [one.tolist() for one in again] == [found[place].tolist() for place in order]
    assert [one.size for one in found] == [2 * len(question) + 1 for question in questions]


def least_edits(question, passage):
    """By the definition: the least distance to any stretch."""

    def distance(one, other):
        row = list(range(len(other) + 1))
        for number, word in enumerate(one, 1):
            before, row = row, [number]
            for place, said in enumerate(other, 1):
                row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (word != said)))
        return row[-1]

    spans = itertools.combinations_with_replacement(range(len(passage) + 1), 2)
    return min(distance(question, passage[start:stop]) for start, stop in spans)


@given(words.filter(bool), words)
def test_an_alignment_has_the_fewest_edits_and_its_words_are_the_same(question, passage):
    found = align_words(np.array(question, np.uint32), np.array(passage, np.uint32))
    assert [question[place] for place in found.asked] == [passage[place] for place in found.places]
    assert sum(each.edits for each in found.differences) == least_edits(question, passage)
    covered = [place for each in found.differences for place in range(each.start, each.stop)]
    assert sorted([*found.asked.tolist(), *covered]) == list(range(len(question)))
