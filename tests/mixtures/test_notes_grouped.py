"""Notes that say the same of several sources are one line."""

from __future__ import annotations

from vlmill.mixtures.report.grouped import group_notes

NOTES = [
    "at 1 of the budget the shares add up to 0.85; they are read as proportions",
    "web: passed 12.3 times; a smaller max_repetition would bound that",
    "web: 1,150 samples without a licence",
    "quiz: passed 9.87 times; a smaller max_repetition would bound that",
    "scans2: passed 5 times; a smaller max_repetition would bound that",
    "quiz: 20 samples without a licence",
]


def test_three_sources_share_a_line_where_the_first_of_them_stood_and_two_do_not():
    assert group_notes(NOTES) == [
        NOTES[0],
        "web, quiz, scans2: passed 12.3, 9.87 and 5 times; a smaller max_repetition would bound that",
        NOTES[2],
        NOTES[5],
    ]


def test_a_number_that_all_have_stands_once_and_pairs_of_sources_stay_told_apart():
    pairs = [("a", "b", 2), ("a", "c", 3), ("b", "c", 2)]
    notes = [f"{one} and {other}: {count} pairs alike by 0.5 or more" for one, other, count in pairs]
    assert group_notes(notes) == ["a and b; a and c; b and c: 2, 3 and 2 pairs alike by 0.5 or more"]
    assert group_notes(["a: v1 has 1", "b: v1 has 1", "c: v1 has 1"]) == ["a, b, c: v1 has 1"]


def test_other_words_are_other_notes():
    notes = ["web: 1 text is long", "quiz: 2 texts are long", "scans: 3 images are large"]
    assert group_notes(notes) == notes
