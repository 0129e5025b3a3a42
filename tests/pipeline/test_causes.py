"""Messages of rows that are refused, with alike ones as one."""

from __future__ import annotations

import pytest

from vlmill.pipeline.reports import causes
from vlmill.pipeline.reports.causes import group_causes


def count_messages(*messages):
    return [one.number for one in group_causes((str(row), message) for row, message in enumerate(messages))]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("it has 3 values, expected 4", "it has 12 values, expected 4"),
        ("turn 0 is 'a', expected a text", "turn 7 is 'b \\'c\\' d', expected a text"),
        ('image is "it\'s", expected a path', 'image is "so: what", expected a path'),
        ("an image is on the web: http://a.org/1.png", "an image is on the web: https://b.org/x/y.jpg?a"),
        ("no file a/b.png: it's gone", "no file /data/c: it's gone"),
    ],
)
def test_messages_that_differ_in_values_are_one_cause(one, other):
    assert count_messages(one, other) == [2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no JSON: Extra data: line 1 column 5", "no JSON: Expecting value: line 1 column 1"),
        ("turn 1: it has no text", "turn 2: its speaker is unknown"),
        ("the row's turns don't begin", "the row's turns won't begin"),
    ],
)
def test_causes_behind_one_beginning_are_several(one, other):
    assert count_messages(one, other, one) == [2, 1]


def test_causes_without_number_are_bounded(monkeypatch):
    monkeypatch.setattr(causes, "GROUPS", 3)
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    assert count_messages(*(f"no such thing: {word}" for word in words), "no such thing: alpha") == [2, 2, 1, 1]
