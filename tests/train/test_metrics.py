"""Metrics of answers: known examples of the published formulas, and what holds for any answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmill.train.metrics import (
    METRICS,
    compute_anls,
    compute_exact_match,
    compute_relaxed_accuracy,
    compute_vqa_accuracy,
    normalise_answer,
)

ANSWERS = st.text(max_size=12) | st.sampled_from(
    ["yes", "The cat.", "3.5", "1,000", "45%", "dont", "two", "0", "-1e3", "nan"]
)


@pytest.mark.parametrize("name", METRICS)
@given(answer=ANSWERS, references=st.lists(ANSWERS, min_size=1, max_size=10))
def test_every_metric_is_a_share(name, answer, references):
    assert 0 <= METRICS[name](answer, references) <= 1


@pytest.mark.parametrize("name", METRICS)
@given(answer=ANSWERS)
def test_the_reference_itself_is_right(name, answer):
    assert METRICS[name](answer, [answer]) == 1


@pytest.mark.parametrize("metric", [compute_exact_match, compute_anls, compute_relaxed_accuracy])
@given(answer=ANSWERS, references=st.lists(ANSWERS, min_size=1, max_size=4), more=ANSWERS)
def test_one_more_reference_takes_nothing_away_where_the_best_one_counts(metric, answer, references, more):
    assert metric(answer, [*references, more]) >= metric(answer, references)


@pytest.mark.parametrize("metric", [compute_exact_match, compute_vqa_accuracy, compute_anls])
@given(one=ANSWERS, other=ANSWERS)
def test_answer_and_a_single_reference_may_change_places(metric, one, other):
    assert metric(one, [other]) == metric(other, [one])


@given(ANSWERS)
def test_what_is_normalised_stays_as_it_is(answer):
    assert normalise_answer(normalise_answer(answer)) == normalise_answer(answer)


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("The dog", "dog"),
        ("A man, a plan", "man plan"),
        ("Two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("3.5 m.", "3.5 m"),
        ("100,978", "100978"),
        ("yes/no", "yes no"),
        ("at 2:50 pm", "at 2:50 pm"),
        ("the girl's hat?", "girl's hat"),
        (" red\n\tand  blue ", "red and blue"),
    ],
)
def test_answers_are_compared_as_the_vqa_challenge_does(answer, left):
    assert normalise_answer(answer) == left


@pytest.mark.parametrize(("agreeing", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_over_ten_humans(agreeing, accuracy):
    assert compute_vqa_accuracy("Red.", ["red"] * agreeing + ["blue"] * (10 - agreeing)) == pytest.approx(accuracy)


@given(agreeing=st.integers(0, 9))
def test_one_more_human_who_agrees_never_lowers_vqa_accuracy(agreeing):
    humans = ["red"] * agreeing + ["blue"] * (10 - agreeing)
    assert compute_vqa_accuracy("red", ["red", *humans[:-1]]) >= compute_vqa_accuracy("red", humans)


def test_a_single_reference_stands_for_all_humans():
    assert compute_vqa_accuracy("the red one", ["Red 1"]) == 1
    assert compute_vqa_accuracy("green", ["red"]) == 0


@pytest.mark.parametrize(
    ("answer", "references", "similarity"),
    [
        ("2019", ["2018"], 0.75),
        ("Coca Cola", ["coca  cola"], 1.0),
        ("kitten", ["sitting"], 1 - 3 / 7),
        ("abcd", ["abxy"], 0.0),  # half of the letters differ: another answer
        ("abcde", ["abxye"], 0.6),
        ("", ["x"], 0.0),
        ("cola", ["pepsi", "coca cola", "colas"], 0.8),
    ],
)
def test_anls_counts_letters_and_gives_nothing_for_another_answer(answer, references, similarity):
    assert compute_anls(answer, references) == pytest.approx(similarity)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("105", "100", 1),
        ("106", "100", 0),
        ("-95", "-100", 1),
        ("0.44", "45%", 1),
        ("0", "0.0", 1),
        ("0.01", "0", 0),
        ("Blue", "blue", 1),
        ("blues", "blue", 0),
        ("inf", "1e308", 0),
        ("five", "5", 0),
    ],
)
def test_relaxed_accuracy_lets_numbers_be_five_per_cent_off_and_words_not(answer, reference, right):
    assert compute_relaxed_accuracy(answer, [reference]) == right


def test_exact_is_letter_by_letter():
    assert compute_exact_match("Red", ["red"]) == 0
    assert compute_exact_match("red", ["blue", "red"]) == 1
