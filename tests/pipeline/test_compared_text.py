"""Characters that show nothing make no difference to dedupe, decontamination and takedown."""

from __future__ import annotations

import hashlib
import random
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from tests.pipeline.test_decontaminate import LONG, asked_by, found_in, search_for, told
from tests.pipeline.test_dedupe import document, run
from tests.pipeline.test_dedupe_text import prose, similar
from vlmill.pipeline.core.compared_text import IGNORABLE, clean_text, fold_text, remove_ignorable, split_words
from vlmill.pipeline.dedupe.text import make_text_key
from vlmill.pipeline.takedown.steps import hash_text

HIDDEN = {
    "soft hyphen": "\u00ad",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "zero-width non-joiner": "\u200c",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "variation selector": "\ufe0f",
    "supplementary variation selector": "\U000e0101",
    "right-to-left mark": "\u200f",
    "isolate": "\u2066",
    "override": "\u202e",
    "grapheme joiner": "\u034f",
}


def sprinkled(text: str, character: str, share: float, seed: int = 0) -> str:
    """The text with the character behind that share of its letters."""
    draw = random.Random(seed)
    return "".join(letter + character * (letter.isalpha() and draw.random() < share) for letter in text)


def test_the_table_is_unicodes():
    listed = {point for start, stop in IGNORABLE for point in range(start, stop + 1)}
    ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}")
    assert listed == {point for point in range(0x110000) if ignorable.match(chr(point))}


@pytest.mark.parametrize("character", HIDDEN.values(), ids=HIDDEN)
def test_characters_that_show_nothing_split_no_words(character):
    text = prose(200, 3)
    assert similar(text, sprinkled(text, character, 0.3)) == 1.0
    assert split_words(sprinkled("which bridge is it", character, 1.0)) == ["which", "bridge", "is", "it"]
    assert make_text_key(sprinkled("Which bridge?", character, 0.5)) == make_text_key("Which bridge?")


@pytest.mark.parametrize("character", HIDDEN.values(), ids=HIDDEN)
def test_a_document_with_hidden_characters_is_a_duplicate(character):
    text = prose(120, 4)
    found = run([document(0, text), document(1, sprinkled(text, character, 0.2))])
    assert [verdict.reason for verdict in found.values()] == ["exact_text"]


@pytest.mark.parametrize("character", HIDDEN.values(), ids=HIDDEN)
def test_a_question_with_hidden_characters_is_found(tmp_path, character):
    search = search_for(tmp_path / "item", asked_by(LONG, (), "The stone bridge."))
    assert found_in(search, told(sprinkled(LONG, character, 0.3), "Nobody knows.")) == [0]


def test_a_takedown_names_a_text_by_what_shows():
    node = {"kind": "text", "text": "the words", "required": False}
    assert hash_text([node]) == hashlib.sha256(b"the words").hexdigest()
    assert hash_text([{**node, "text": "\ufeffthe wo\u00adrds"}]) == hash_text([node])
    assert hash_text([{**node, "text": "\u200b"}]) == ""


def test_joiners_make_a_difference_where_they_show_and_only_to_exact_duplicates():
    persian, hindi, family = "نامه\u200cای", "क्\u200dष", "👨\u200d👩\u200d👧"
    for text in (persian, hindi, family):
        assert make_text_key(text) != make_text_key(remove_ignorable(text))
        assert fold_text(text) == fold_text(remove_ignorable(text))
    assert clean_text("❤\ufe0f\u200d🔥") == "❤\u200d🔥"
    assert clean_text("bri\u200ddge \u200c na\u200cïve") == "bridge naïve"


@given(st.text())
def test_what_is_compared_holds_nothing_that_does_not_show(text):
    for made in (fold_text(text), remove_ignorable(clean_text(text))):
        assert remove_ignorable(made) == made
    assert clean_text(clean_text(text)) == clean_text(text)


def test_no_character_becomes_one_that_shows_nothing():
    made = {chr(point): unicodedata.normalize("NFKC", chr(point)) for point in range(0x110000)}
    assert not [each for each, form in made.items() if remove_ignorable(each) and remove_ignorable(form) != form]
