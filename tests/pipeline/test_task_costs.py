"""What a task costs whatever it holds is told from what its rows cost, and pairs grow faster than rows."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.small import vlmill, write_recipe
from tests.helpers.upstream import cauldron
from tests.pipeline.test_check_dedupe import draw_scenes
from vlmill.pipeline.checks.extrapolate import extrapolate_run
from vlmill.pipeline.checks.task_costs import (
    LEAST_SPREAD,
    Fixed,
    TaskCost,
    fit_fixed_costs,
    fit_intercept,
    grow_tasks,
    name_step,
)
from vlmill.pipeline.dedupe.candidates import IMAGE, count_neighbours, grow_measured, grow_pairs
from vlmill.pipeline.engine.scaling import count_source_partitions
from vlmill.pipeline.engine.timings import TIMINGS
from vlmill.pipeline.recipe.lock import read_locked_recipe

SLOPES = st.floats(0, 5)


def spreads(sizes: set[int]) -> bool:
    """Whether tasks of these sizes tell what each costs from what its rows cost."""
    return len(sizes) - sum(sizes) ** 2 / sum(size**2 for size in sizes) >= LEAST_SPREAD


SIZES = st.sets(st.integers(0, 1000), min_size=4).filter(spreads)


@given(st.floats(0, 100), st.lists(st.tuples(SLOPES, SIZES), min_size=1))
def test_the_intercept_of_lines_with_different_slopes_is_found(intercept, lines):
    groups = [[(size, intercept + slope * size) for size in sorted(sizes)] for slope, sizes in lines]
    assert fit_intercept(groups) == pytest.approx(intercept, abs=1e-6 + intercept * 1e-6)


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [[]],
        [[(100, 7.0)]],
        [[(100, 7.0), (100, 7.0)], [(3, 1.0)]],
        [[(1000, 7.0), (1001, 9.0), (1002, 2.0)]],
        [[(0, 0.0)]],
        [[(1, 0.0), (10, 50.0), (100, 900.0)]],
    ],
)
def test_where_sizes_tell_nothing_or_there_is_no_such_part_it_is_none(groups):
    assert fit_intercept(groups) == 0


def test_no_task_costs_less_than_what_every_task_costs():
    assert 0 < fit_intercept([[(1, 90.0), (2, 4.0), (50, 100.0)], [(1, 5.0), (9, 70.0), (30, 80.0)]]) <= 4.0


def test_what_every_task_costs_counts_for_each_task_and_the_rest_for_each_row():
    tasks = [TaskCost(f"{rows}", 100 + 10 * rows, 2.0 + 0.5 * rows, {}) for rows in (1, 5, 9)]
    fixed = fit_fixed_costs([[(int(task.partition), task) for task in tasks]])
    assert (fixed.bytes, fixed.seconds) == (pytest.approx(100), pytest.approx(2.0))
    grown = grow_tasks(tasks, fixed, 10, 4)
    assert (grown.bytes, grown.seconds) == (pytest.approx(4 * 100 + 1500), pytest.approx(4 * 2.0 + 75))
    assert (grown.tasks, grown.timed) == (3, 3)
    untimed = [TaskCost("a", 5, None, {}), TaskCost("b", 5, 3.0, {})]
    assert grow_tasks(untimed, Fixed(9, 9), 2, 2).seconds == 6, "no more is fixed than there is"
    assert grow_tasks(untimed[:1], Fixed(), 2, 2).seconds == 0


def test_the_folders_of_a_step_have_one_name():
    assert name_step("steps/web/read") == name_step("steps/quiz/read") == "steps/read"
    assert name_step("shards/web/large/lengths") == "shards/large/lengths"


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 6))
def test_neighbours_are_the_next_rows_of_a_group_up_to_the_cap(groups, cap):
    groups = sorted(groups)
    places = np.array(groups, np.uint64) << np.uint64(64 - IMAGE.group_bits)
    wanted = [min(cap, groups[row + 1 :].count(group)) for row, group in enumerate(groups)]
    assert count_neighbours(IMAGE, places, cap) == pytest.approx(np.mean(wanted) if wanted else 0)


def test_pairs_of_a_thing_grow_until_a_place_has_as_many_neighbours_as_it_is_compared_with():
    assert [grow_pairs(2.0, 64, times) for times in (1, 10, 32, 1000)] == [1, 10, 32, 32]
    assert grow_pairs(64.0, 64, 10) == 1
    assert grow_pairs(0.0, 64, 10) == 1


@given(st.integers(50, 300), st.integers(1, 10), st.integers(1, 64))
def test_measured_pairs_grow_as_among_things_that_are_all_alike(number, times, nearest):
    def count_measured(among):
        return sum(min(nearest, higher) for higher in range(among)) / among

    more = number * times
    found = grow_measured((number - 1) / 2, nearest, (more - 1) / (number - 1))
    assert found == pytest.approx(count_measured(more) / count_measured(number), rel=0.05)
    assert grow_measured(0, nearest, times) == 1


def test_the_pairs_of_the_whole_run_are_foretold_from_a_part(tmp_path):
    scenes = [([data], [("What stands in the corner?", "A block")]) for data in draw_scenes(100)]
    cauldron(tmp_path / "scenes.parquet", scenes)
    source = {"scenes": {"kind": "cauldron", "files": "scenes.parquet"}}
    recipe = write_recipe(tmp_path, sources=source, stages=[], policies={}, model={}, partition={"rows": 30})
    spent = {}
    for scale in (1, 0.4):
        root = tmp_path / f"{scale}"
        assert vlmill("build", recipe, "--out", root, "--workers", 0, "--scale", scale) == 0
        assert count_source_partitions(root, read_locked_recipe(root), "scenes") == 4
        found = json.loads((root / "steps/dedupe/pairs/manifest.json").read_text())
        pairs = {one["key"]: one["counts"]["image_pairs"]["kept"] for one in found["receipts"]}
        lines = [json.loads(line) for line in (root / TIMINGS).read_text().splitlines()]
        timed = [{**line, "seconds": pairs[line["key"]]} for line in lines if line["key"] in pairs]
        (root / TIMINGS).write_text("".join(json.dumps(line) + "\n" for line in timed))
        spent[scale] = extrapolate_run(root).shared.seconds, sum(pairs.values())
    assert spent[1][0] == pytest.approx(spent[1][1])
    assert spent[0.4][0] == pytest.approx(spent[1][1], rel=0.25)
    assert spent[0.4][1] < 0.43 * spent[1][1], "by rows it would be 0.45"
