"""Items that take far longer than others are done a second time; what comes first counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vlmill.pipeline.engine import flights
from vlmill.pipeline.engine.flights import LEAST_S, SLOW, Flights


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(flights, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_straggler_is_sent_again_once_and_what_comes_second_is_given_up(clock):
    flying = Flights(4)
    flying.add("a", 0)
    flying.add("b", 1)
    assert flying.find_straggler() is None
    clock.now = 30.0
    assert flying.land("a") == 0
    assert flying.finish(0) == []
    clock.now = SLOW * 30.0
    assert flying.find_straggler() is None
    clock.now += 1
    assert flying.find_straggler() == 1
    flying.add("b again", 1)
    assert flying.find_straggler() is None
    assert flying.land("b again") == 1
    assert flying.finish(1) == ["b"]
    assert flying.land("b") is None
    assert not len(flying)


def test_an_item_that_waited_for_room_is_no_straggler(clock):
    flying = Flights(2)
    for number in range(3):
        flying.add(number, number)
    assert flying.find_straggler() is None
    clock.now = 1.0
    flying.land(0)
    flying.finish(0)
    clock.now = 1000.0  # the third may have begun only now
    flying.add("late", 3)
    assert flying.find_straggler() is None
    flying.land("late")
    flying.finish(3)
    clock.now = 1001.0
    flying.land(1)
    flying.finish(1)
    assert flying.find_straggler() is None
    clock.now += max(LEAST_S, SLOW * 1001) + 1
    assert flying.find_straggler() == 2


def test_an_item_whose_process_died_is_on_its_way_where_another_of_it_is(clock):
    flying = Flights(4)
    flying.add("a", 0)
    flying.add("a again", 0)
    assert flying.land("a") == 0
    assert flying.is_flying(0)
    assert flying.land("a again") == 0
    assert not flying.is_flying(0)
