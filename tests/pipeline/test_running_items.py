"""Items that take far longer than others are done a second time; what comes first counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vlmill.pipeline.engine import executor, running_items
from vlmill.pipeline.engine.executor import IoBound
from vlmill.pipeline.engine.running_items import ALONE_S, LEAST_S, SETTLED, SHORT_S, SLOW, RunningItems


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(running_items, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_straggler_is_sent_again_once_and_what_comes_second_is_given_up(clock):
    running = RunningItems()
    running.add("a", 0)
    running.add("b", 1)
    assert running.find_straggler(4) is None
    clock.now = 30.0
    assert running.take("a") == 0
    assert running.finish(0) == []
    clock.now = SLOW * 30.0
    assert running.find_straggler(4) is None
    clock.now += 1
    assert running.find_straggler(4) == 1
    running.add("b again", 1)
    assert running.find_straggler(4) is None
    assert running.take("b again") == 1
    assert running.finish(1) == ["b"]
    assert running.take("b") is None
    assert not len(running)


def test_an_item_that_waited_for_room_is_no_straggler(clock):
    running = RunningItems()
    for number in range(3):
        running.add(number, number)
    assert running.find_straggler(2) is None
    clock.now = 1.0
    running.take(0)
    running.finish(0)
    clock.now = 1000.0  # the third may have begun only now
    running.add("late", 3)
    assert running.find_straggler(2) is None
    running.take("late")
    running.finish(3)
    clock.now = 1001.0
    running.take(1)
    running.finish(1)
    assert running.find_straggler(2) is None
    clock.now += max(LEAST_S, SLOW * 1001) + 1
    assert running.find_straggler(2) == 2


def test_an_item_whose_process_died_is_on_its_way_where_another_of_it_is(clock):
    running = RunningItems()
    running.add("a", 0)
    running.add("a again", 0)
    assert running.take("a") == 0
    assert running.is_running(0)
    assert running.take("a again") == 0
    assert not running.is_running(0)


def test_an_item_without_others_to_compare_it_with_is_done_again_only_where_that_is_asked_for(clock):
    running = RunningItems()
    running.add("a", 0)
    assert running.find_straggler(2, ALONE_S) is None
    clock.now = ALONE_S + 1
    assert running.find_straggler(2) is None
    assert running.find_straggler(2, ALONE_S) == 0


def test_more_processes_pay_where_those_that_are_there_would_take_long(clock):
    running = RunningItems()
    for number in range(9):
        running.add(number, number)
    clock.now = SHORT_S
    assert not running.is_worth_more(1000)
    clock.now += 1  # none is done so far
    assert running.is_worth_more(1)
    for number in range(SETTLED):
        running.finish(number)
        clock.now += 0.1
    assert not running.is_worth_more(10_000)  # a start is no pace
    running.finish(SETTLED)
    assert not running.is_worth_more(290)  # ten a second
    assert running.is_worth_more(310)
    clock.now += SHORT_S - 1
    assert not running.is_worth_more(1)
    clock.now += 4 * SHORT_S  # the others take longer
    assert running.is_worth_more(1)


def test_of_items_that_wait_for_others_there_are_more_once_that_pays(clock):
    running, many = RunningItems(), IoBound(0.25, 8)
    assert executor._count_sent(None, 2, running, 100) == 4
    assert executor._count_sent(many, 2, running, 100) == 2
    assert executor._count_sent(IoBound(0.25, 1), 2, running, 100) == 1
    clock.now = SHORT_S + 1
    assert executor._count_sent(many, 2, running, 100) == 8
