"""Where policies say that a point lies, beside where a drawn rectangle is seen (`python -m benchmarks.place`: more)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.drawing import DRAWN, choose_box, draw, lay_out_one
from tests.helpers.processors import sizes
from vlmill.pipeline.images import POLICIES, Unrenderable
from vlmill.pipeline.images.crop import Crop

SIDES = st.integers(1, 3000)


def test_every_policy_is_drawn_under():
    assert {type(policy) for policy in DRAWN.values()} == {*POLICIES.values()}


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawn_rectangle_is_seen_where_it_was_placed(name):
    policy, generator, seen = DRAWN[name], random.Random(3), 0
    for size in sizes(10, seed=6):
        try:
            layout = lay_out_one(policy, name, size)
        except Unrenderable:
            continue
        for drawing in draw(policy, layout, choose_box(generator, policy, layout)):
            assert drawing.distance < 1, drawing
            seen += drawing.seen is not None
    assert seen >= 5


def test_what_a_crop_leaves_out_is_placed_beside_its_view():
    policy = Crop(side=100)
    (layout,) = policy.layout([(400, 200)])
    (gone,) = draw(policy, layout, (10, 50, 60, 100))
    assert gone.seen is None
    assert policy.place((60.0, 100.0), layout) == (-20.0, 50.0)
    (partly,) = draw(policy, layout, (80, 50, 160, 100))
    assert partly.placed == (0, 25, 30, 50)
    assert partly.distance < 1


@pytest.mark.parametrize("name", DRAWN)
@given(size=st.tuples(SIDES, SIDES))
@settings(max_examples=30, deadline=None)
def test_the_corners_of_an_image_lie_in_the_view_or_are_its_corners(name, size):
    policy = DRAWN[name]
    try:
        layout = lay_out_one(policy, name, size)
    except Unrenderable:
        return
    first, last, view = policy.place((0, 0), layout), policy.place(size, layout), policy.view(layout)
    if isinstance(policy, Crop):
        assert all(low <= 0.5 and high >= side - 0.5 for low, high, side in zip(first, last, view, strict=True))
    elif "letterbox" in name:
        assert max(high - low for low, high in zip(first, last, strict=True)) == pytest.approx(policy.side)
        assert all(low >= 0 and high <= policy.side for low, high in zip(first, last, strict=True))
    else:
        assert (first, last) == ((0, 0), pytest.approx(view))
