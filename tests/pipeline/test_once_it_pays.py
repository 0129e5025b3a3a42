"""Small runs stay in their process, larger ones go to Ray, and what has nothing to do starts nothing."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from vlmill.pipeline.core.errors import LackOfMemoryError
from vlmill.pipeline.engine import once_it_pays
from vlmill.pipeline.engine.executor import Inline, OnRay, open_executor
from vlmill.pipeline.engine.once_it_pays import SMALL, OnceItPays


class Larger(Inline):
    """Notes what it is given, and does it."""

    def __init__(self):
        self.given, self.is_open = [], False

    def each(self, function, items, memory=0, waiting=None):
        self.given.append((list(items), memory))
        return super().each(function, items, memory)


def open_pool(larger, *, at_once=False):
    @contextmanager
    def start():
        larger.is_open = True
        yield larger
        larger.is_open = False

    return OnceItPays(start, 2, at_once=at_once)


def double(number):
    if number < 0:
        raise LackOfMemoryError(f"row {number}: out of memory")
    return 2 * number


def test_a_small_run_stays_in_its_process_and_a_larger_one_goes_on_elsewhere():
    larger = Larger()
    pool = open_pool(larger)
    pool.expect(SMALL)
    assert list(pool.each(double, [1, 2])) == [(0, 2), (1, 4)]
    assert larger.given == []
    pool.expect(SMALL + 1)
    assert list(pool.each(double, [1, 2], 7)) == [(0, 2), (1, 4)]
    assert larger.given == [([1, 2], 7)]
    assert larger.is_open
    pool.close()
    assert not larger.is_open


def test_what_is_left_of_a_run_that_takes_long_goes_elsewhere_under_its_own_numbers(monkeypatch):
    monkeypatch.setattr(once_it_pays, "WORTH", 0.0)
    larger = Larger()
    assert list(open_pool(larger).each(double, [3, 4, 5])) == [(0, 6), (1, 8), (2, 10)]
    assert larger.given == [([4, 5], 0)]


def test_workers_that_are_asked_for_begin_with_the_first_item_and_not_before():
    larger = Larger()
    pool = open_pool(larger, at_once=True)
    assert list(pool.each(double, [])) == []
    assert not larger.is_open
    assert list(pool.each(double, [1])) == [(0, 2)]
    assert larger.given == [([1], 0)]


def test_items_that_lack_memory_here_and_there_are_named_in_one_error(monkeypatch):
    monkeypatch.setattr(once_it_pays, "WORTH", 0.0)
    done = []
    with pytest.raises(LackOfMemoryError) as error:
        done.extend(open_pool(Larger()).each(double, [-1, 2, -3, 4]))
    assert done == [(1, 4), (3, 8)]
    assert str(error.value).count("out of memory") == 2
    assert str(error.value).count("All other partitions are done") == 1


def test_the_executor_of_a_build_is_on_ray_once_it_is_asked_for():
    with open_executor(1, None) as pool:
        assert isinstance(pool, OnceItPays)
        assert list(pool.each(abs, [-1, 2])) == [(0, 1), (1, 2)]
        assert isinstance(pool._larger, OnRay)
