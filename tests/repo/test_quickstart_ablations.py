"""The data of the shipped ablations: made by their script, true, balanced, and no picture twice."""

from __future__ import annotations

from collections import Counter
from random import Random

import pyarrow.parquet as pq
import pytest

from tests.repo.test_quickstart_data import picture
from tools.quickstart import ablations, scenes
from tools.quickstart.album import SEED
from tools.quickstart.generate import DATA

FOLDER = DATA / "ablations"
PICTURED = ("questions", "denials", "captions")
WORDS = {*scenes.COLOURS, *scenes.SHAPES}


def read(source):
    return pq.read_table(FOLDER / f"{source}.parquet").to_pylist()


def describe_row(row):
    """A row beneath the compression of its pictures."""
    shown = [picture(image["bytes"]) if isinstance(image, dict) else image for image in row["images"]]
    return {**row, "images": shown}


@pytest.mark.parametrize("source", ablations.MADE)
def test_the_script_makes_what_is_committed(source):
    """A few rows in all of each; the script takes seconds for the whole."""
    number, make = ablations.MADE[source]
    rows = read(source)
    assert len(rows) == number
    for index in (*range(12), number - 1):
        made = make(index, Random(f"{SEED}/ablations/{source}/{index}"))
        assert describe_row(rows[index]) == describe_row(made)


def test_no_picture_is_there_twice():
    shown = Counter(row["images"][0]["bytes"] for source in PICTURED for row in read(source))
    assert max(shown.values()) == 1
    assert sum(len(data) for data in shown) < 2_500_000


@pytest.mark.parametrize("index", range(30))
def test_what_is_asked_for_is_shown_or_is_not_as_the_answer_says(index):
    def shown_words(make, source):
        scene = ablations.draw_scene(index, rng := Random(f"{SEED}/ablations/{source}/{index}"))
        assert rng is not None
        words = {word for shape in scene.shapes for word in (shape.kind, shape.colour)}
        return words, make(index, Random(f"{SEED}/ablations/{source}/{index}"))["texts"]

    words, turns = shown_words(ablations.ask_absent, "denials")
    for turn in turns:
        (asked,) = WORDS & {*turn["user"].rstrip("?").split()}
        assert asked not in words
        assert turn["assistant"] in ("no", f"there is no {asked}", f"nothing is {asked}")
    words, turns = shown_words(ablations.ask_shown, "questions")
    for turn in turns:
        if turn["user"].startswith("Is there"):
            assert (turn["assistant"], WORDS & {*turn["user"].rstrip("?").split()} - words) == ("yes", set())
        elif turn["assistant"] in WORDS:
            assert turn["assistant"] in words


def test_guessing_the_most_frequent_answer_does_not_help():
    answers = Counter(turn["assistant"] for row in read("questions") for turn in row["texts"])
    assert answers.most_common(1)[0][1] < 0.2 * answers.total()
    for words in (scenes.COLOURS, scenes.SHAPES, scenes.COUNTS, scenes.PLACES):
        of_kind = Counter({word: answers[word] for word in words})
        assert of_kind.most_common(1)[0][1] < 1.6 / len(words) * of_kind.total()
