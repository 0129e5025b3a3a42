"""Which images the shape filter drops, and which samples it finds too few or too many left in."""

from __future__ import annotations

import pytest

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    read_verdicts,
    write_verdicts,
)
from vlmill.pipeline.filters import Shape


def verdicts(filter_, *sizes):
    """What is said about one document with images of these sizes; None is one that failed."""
    image_stats = [
        ImageStats(image, None, width=size[0], height=size[1]) if size else ImageStats(image, Reason.UNDECODABLE)
        for image, size in enumerate(sizes)
    ]
    nodes = (Node("text", text="words"), *(Node("image", image=image) for image in range(len(sizes))))
    return [
        (verdict.node, verdict.reason, verdict.score)
        for verdict in filter_.decide([(0, Sample(SampleId("web", "a", 0), nodes))], image_stats)
    ]


def test_bounds_are_inclusive():
    filter_ = Shape(min_side=100, max_side=400, max_ratio=2.0)
    assert verdicts(filter_, (100, 100), (400, 400), (200, 100), (100, 200)) == []


def test_each_bound_has_its_reason_and_tells_the_offending_number():
    filter_ = Shape(min_side=100, max_side=400, max_ratio=2.0)
    assert verdicts(filter_, (99, 300), (300, 401), (300, 101)) == [
        (1, Reason.IMAGE_TOO_SMALL, 99),
        (2, Reason.IMAGE_TOO_LARGE, 401),
        (3, Reason.IMAGE_RATIO, pytest.approx(300 / 101)),
    ]


def test_an_area_beyond_what_float32_holds_exactly_is_written(tmp_path):
    found = [Verdict(0, 1, "shape", Reason.IMAGE_TOO_LARGE, area) for area in (5000 * 4201, 16_777_217)]
    write_verdicts(tmp_path / "shape.verdicts.parquet", found)
    assert [verdict.score for verdict in read_verdicts(tmp_path / "shape.verdicts.parquet")] == [
        pytest.approx(verdict.score) for verdict in found
    ]


def test_the_defaults_leave_screenshots_panoramas_and_thumbnails_and_drop_icons_and_rules():
    assert verdicts(Shape(), (1920, 1080), (4000, 500), (64, 64), (600, 16), (1200, 60)) == [
        (4, Reason.IMAGE_TOO_SMALL, 16),
        (5, Reason.IMAGE_RATIO, 20),
    ]


def test_a_source_has_its_own_bounds_in_the_place_of_the_others():
    settings = {"min_side": 32, "by_source": {"w?b": {"min_side": 150, "min_images": 1}, "*": {"max_ratio": 1}}}
    filter_ = parse_block(Shape, settings, "filters.shape")
    assert verdicts(filter_, (149, 149), (1500, 150)) == [
        (1, Reason.IMAGE_TOO_SMALL, 149),
        (LEAST_IMAGES, Reason.TOO_FEW_IMAGES, 1),
    ]
    assert verdicts(parse_block(Shape, settings | {"by_source": {"x": {"min_side": 150}}}, ""), (40, 40)) == []
    with pytest.raises(RecipeError, match=r"by_source\.web.*min_side 9 is above max_side 8"):
        parse_block(Shape, {"by_source": {"web": {"min_side": 9, "max_side": 8}}}, "filters.shape")


def test_an_image_that_failed_gets_no_second_reason():
    assert verdicts(Shape(), None, (640, 480)) == []


def test_a_sample_goes_when_too_few_images_are_left_after_failures_and_bounds():
    assert verdicts(Shape(min_images=2), (640, 480), None, (8, 8)) == [
        (3, Reason.IMAGE_TOO_SMALL, 8),
        (WHOLE_SAMPLE, Reason.TOO_FEW_IMAGES, 1),
    ]


def test_a_sample_with_enough_images_is_told_how_many_it_may_not_fall_below():
    assert verdicts(Shape(min_images=2), (640, 480), (640, 480)) == [(LEAST_IMAGES, Reason.TOO_FEW_IMAGES, 2)]


def test_a_sample_goes_when_too_many_images_are_left():
    assert verdicts(Shape(max_images=1), (640, 480), (640, 480)) == [(WHOLE_SAMPLE, Reason.TOO_MANY_IMAGES, 2)]
    assert verdicts(Shape(max_images=1), (640, 480), (8, 8)) == [(2, Reason.IMAGE_TOO_SMALL, 8)]


def test_a_sample_without_images_stays_unless_some_are_asked_for():
    assert verdicts(Shape()) == []
    assert verdicts(Shape(min_images=1)) == [(WHOLE_SAMPLE, Reason.TOO_FEW_IMAGES, 0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_side": 500, "max_side": 400}, "min_side 500 is above max_side 400"),
        ({"min_images": 5, "max_images": 4}, "min_images 5 is above max_images 4"),
        ({"max_ratio": 0.5}, "greater than or equal to 1"),
    ],
)
def test_bounds_that_nothing_could_pass_are_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        parse_block(Shape, values, "filters.shape")
