"""Where texts may be cut: ends of lines and sentences in several scripts, never inside a character."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.helpers.chats import make_tokenizer
from tests.helpers.stages import write_tokenizer
from vlmill.pipeline.chat.breaks import STRETCH, find_breaks
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer, locate_tokens

CHAT = FORMATS["vlmill"]
LONG = "\n" + "z" * STRETCH  # so that the text before it is long enough to be cut
CHARACTERS = [(place, place + 1) for place in range(10_000)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokens") / "tokenizer.json"), CHAT)


def cut_by_characters(text):
    """The sentences of a text in which each character is a token."""
    given = text + LONG
    places = find_breaks(given, CHARACTERS[: len(given)]).ends
    return [given[first:last] for first, last in pairwise([0, *places])]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rains. It pours!  Why?", ["It rains. ", "It pours!  ", "Why?\n"]),
        ("He said “No.” Then (no.) she left", ["He said “No.” ", "Then (no.) she left\n"]),
        ("a list\n  - one\n\n  - two", ["a list\n", "  - one\n\n", "  - two\n"]),
        ("e.g. this, at 3.5 m, v1.2.", ["e.g. this, at 3.5 m, v1.2.\n"]),
        ("今日は。明日も！「はい。」終", ["今日は。", "明日も！", "「はい。」", "終\n"]),
        ("यह है। वह है।", ["यह है। ", "वह है।\n"]),
        ("أين؟ هنا۔ نعم", ["أين؟ ", "هنا۔ ", "نعم\n"]),
        ("ነው። አዎ", ["ነው። ", "አዎ\n"]),
        ("one\r\ntwo\u2028three", ["one\r\n", "two\u2028", "three\n"]),
    ],
)
def test_texts_end_sentences_as_their_scripts_do(text, sentences):
    assert cut_by_characters(text) == sentences


def test_a_line_that_ends_the_text_is_no_place(tokenizer):
    given = "word " * 60 + "end.\n\n \n"
    (spans,) = locate_tokens([given], tokenizer, CHAT)
    found = find_breaks(given, spans)
    assert not found.ends
    assert max(spans[place][0] for place in found.words) < len(given.rstrip())


def test_a_short_text_has_no_places():
    assert find_breaks("A. B. C.", CHARACTERS[:8]) == ([], [])


def test_long_lines_are_cut_between_words_or_characters():
    given = "some words " * 10 + "x" * 100
    found = find_breaks(given, CHARACTERS[: len(given)])
    assert not found.ends
    assert all(given[place - 1].isspace() for place in found.words if place <= 110)
    assert [place for place in found.words if place > 110] == [142, 174, 206]


@st.composite
def texts(draw):
    part = st.sampled_from(
        ["One two.", " ", "\n", "長い文。", "😀" * 3, "नमस्ते। ", "x" * 70, "… ", "a!? ", "\t\r\n"]
    ) | st.text(st.characters(codec="utf-8"), max_size=8)
    return "".join(draw(st.lists(part, max_size=40)))


WORDS = Tokenizer(models.WordLevel({"one": 0}, unk_token="one"))
WORDS.pre_tokenizer = pre_tokenizers.Whitespace()
TOKENIZERS = {
    "bytes": None,
    "spaces before words": Tokenizer.from_str(make_tokenizer("prefixed")),
    "spaces before the first word": Tokenizer.from_str(make_tokenizer("first")),
    "words": WORDS,
}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts())
def test_places_lie_between_characters_and_near_each_other(tokenizer, name, text):
    spans = (TOKENIZERS[name] or tokenizer).encode(text, add_special_tokens=False).offsets
    found = find_breaks(text, spans)
    places = [0, *sorted([*found.ends, *found.words]), len(spans)]
    assert len(set(places)) == len(places) or not spans
    assert not set(found.ends) & set(found.words)
    for place in places[1:-1]:
        assert max(stop for _, stop in spans[:place]) <= spans[place][0]
    between = [at for at in range(1, len(spans)) if max(stop for _, stop in spans[:at]) <= spans[at][0]]
    for first, last in pairwise(places):
        nearer = [at for at in between if first < at <= first + STRETCH]
        assert last - first <= STRETCH or len(spans) <= STRETCH or not nearer
