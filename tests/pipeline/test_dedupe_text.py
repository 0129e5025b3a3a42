"""Shingles, bands and similarity of texts."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlmill.pipeline.core.compared_text import IGNORABLE, UNSPACED
from vlmill.pipeline.dedupe.text import (
    BANDS,
    SHINGLE,
    compute_jaccard,
    hash_bands,
    hash_shingles,
    make_text_key,
)

WORDS = [f"word{number}" for number in range(3000)]


def spelled_out(words: str) -> set[tuple[str, ...]]:
    """The shingles as the module's first lines define them, letter by letter."""
    tokens, inside = [], False
    shown = "".join(letter for letter in words if not any(start <= ord(letter) <= stop for start, stop in IGNORABLE))
    for letter in unicodedata.normalize("NFKC", shown).casefold():
        if any(start <= ord(letter) <= stop for start, stop in UNSPACED):
            partition, alone = unicodedata.category(letter)[0] in "LMN", True
        else:
            partition, alone = unicodedata.category(letter)[0] in "LMN", False
        if partition and inside and not alone:
            tokens[-1] += letter
        elif partition:
            tokens.append(letter)
        inside = partition and not alone
    last = max(1, len(tokens) - SHINGLE + 1)
    return {tuple(tokens[start : start + SHINGLE]) for start in range(last)} if tokens else set()


def prose(number: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=number))


def similar(one: str, other: str) -> float:
    return compute_jaccard(hash_shingles(one), hash_shingles(other))


@given(st.text(alphabet="ab Z,.1²日本語ไทยहिन्दी\u0301\u00ad\u200d\ufe0f\nÉß", max_size=60))
def test_a_text_has_as_many_shingles_as_the_definition_says(words):
    assert hash_shingles(words).size == len(spelled_out(words))


@given(st.lists(st.sampled_from(list("abcd")), max_size=30), st.lists(st.sampled_from(list("abcd")), max_size=30))
def test_the_measured_similarity_is_the_jaccard_index_of_the_defined_sets(one, other):
    first, second = spelled_out(" ".join(one)), spelled_out(" ".join(other))
    if first or second:
        assert similar(" ".join(one), " ".join(other)) == round(len(first & second) / len(first | second), 4)


def test_any_code_point_can_stand_in_a_text():
    everything = "".join(map(chr, range(0, 0x110000, 7)))
    assert hash_shingles(everything).size > 10_000
    assert hash_shingles("\ud800 lonely surrogate").size == 1
    assert make_text_key("\ud800") != make_text_key("")


def test_punctuation_case_width_and_line_breaks_do_not_make_texts_different():
    assert similar("One, two: three; FOUR five SIX!", "one two\nthree “four” ｆｉｖｅ six") == 1.0


def test_words_of_spaced_scripts_stay_whole_and_unspaced_scripts_count_characters():
    assert hash_shingles("pneumonoultramicroscopic cat").size == 1
    assert hash_shingles("我们在北京吃饭").size == 3
    assert hash_shingles("नमस्ते दुनिया").size == 1  # two words, although vowel signs are no letters
    assert similar("我们在 北京吃饭", "我们在北京，吃饭") == 1.0


def test_where_a_word_ends_makes_a_difference():
    assert similar("foo bar a b c", "foob ar a b c") == 0.0


def test_a_text_without_letters_has_no_shingles():
    assert hash_shingles("").size == hash_shingles(" -- !? ").size == 0


def test_shingles_are_sorted_and_each_stands_once():
    found = hash_shingles("la " * 100 + prose(50, 1))
    assert (np.diff(found.astype(np.int64)) > 0).all()


def test_keys_keep_apart_what_short_texts_mean_and_forgive_white_space_and_composition():
    assert len({make_text_key(words) for words in ("2²", "22", "US", "us", "1-1", "1+1", "A", "A.")}) == 8
    assert make_text_key(" a\n b\t") == make_text_key("a b")
    assert make_text_key("e\u0301") == make_text_key("é")


def test_texts_that_are_nearly_the_same_share_a_band_and_others_do_not():
    missed, met = 0, 0
    for seed in range(150):
        original = prose(400, seed)
        words = original.split()
        for place in random.Random(seed).sample(range(0, 400, 10), 8):
            words[place] = "changed"
        assert 0.75 < similar(original, " ".join(words)) < 0.9
        one, other = hash_bands(hash_shingles(original)), hash_bands(hash_shingles(" ".join(words)))
        missed += not (one == other).any()
        met += bool((one == hash_bands(hash_shingles(prose(400, seed + 1000)))).any())
    assert missed <= 2
    assert met == 0


def test_hashes_are_fixed_for_good():
    words = "the quick brown fox jumps over the lazy dog"
    assert make_text_key(words) == GOLDEN_KEY
    assert hash_shingles(words).tolist() == GOLDEN_SHINGLES
    assert hash_bands(hash_shingles(words)).shape == (BANDS,)
    assert int(hash_bands(hash_shingles(words))[0]) == GOLDEN_BAND


GOLDEN_KEY = 17508867106794943787
GOLDEN_SHINGLES = [170961981, 547779712, 1316268963, 1974486345, 3770785510]
GOLDEN_BAND = 9259982661319141071
