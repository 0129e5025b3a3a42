"""Colours of sources and reasons: stable, told apart, and legible on both grounds."""

from __future__ import annotations

import itertools

import pytest

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.page.colours import REASONS, SOURCES, choose_colours, choose_reason_colours, fill_reasons

FREQUENT = (
    *("language", "exact_image", "near_image", "exact_text", "near_text", "boilerplate_image", "image_too_small"),
    *("image_ratio", "undecodable"),
)


def measure_contrast(one, other):
    """Of two colours, as WCAG 2 has it."""

    def light(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_reason_has_its_colour_whatever_others_there_are():
    whole = choose_reason_colours([*map(str, Reason), "filter:mine"])
    assert choose_reason_colours(["near_text"]) == {"near_text": whole["near_text"]}
    assert choose_reason_colours(["filter:mine", "near_text"]) == {
        name: whole[name] for name in ("filter:mine", "near_text")
    }
    assert set(whole.values()) == set(REASONS)


def test_reasons_that_most_runs_have_are_told_apart():
    assert len(set(choose_reason_colours(FREQUENT).values())) == len(FREQUENT) == len(REASONS)


def test_reasons_of_one_colour_in_one_chart_are_told_apart_by_stripes():
    colours, filled = choose_reason_colours(map(str, Reason)), fill_reasons(map(str, Reason))
    assert all(colours[name] in fill for name, fill in filled.items()), "the colour is that of every chart"
    alone = fill_reasons(["http_client_error", "near_text"])
    assert alone == choose_reason_colours(alone)
    both = fill_reasons(["language", "http_client_error", "contained_text", "near_text"])
    assert len({*both.values()}) == 4
    assert both["language"] == colours["language"] == colours["http_client_error"] == colours["contained_text"]
    assert both["near_text"] == colours["near_text"]


def test_a_source_has_the_colour_of_its_place():
    names = [f"s{number}" for number in range(23)]
    found = choose_colours(names)
    assert len({found[name] for name in names[: len(SOURCES)]}) == len(SOURCES)
    assert found["s0"] == found[f"s{len(SOURCES)}"]
    assert not set(SOURCES) & set(REASONS)


@pytest.mark.parametrize("colours", [SOURCES, REASONS])
@pytest.mark.parametrize("ground", ["#ffffff", "#1b202a"])
def test_colours_are_seen_on_white_and_on_dark(colours, ground):
    assert min(measure_contrast(colour, ground) for colour in colours) > 1.3


def see_without_green(colour):
    """What somebody without green cones sees: Machado et al. 2009, deuteranopia, in linear light."""
    linear = [(int(colour[place : place + 2], 16) / 255) ** 2.2 for place in (1, 3, 5)]
    matrix = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
    return [
        max(0.0, sum(weight * part for weight, part in zip(row, linear, strict=True))) ** (1 / 2.2) for row in matrix
    ]


@pytest.mark.parametrize("colours", [SOURCES, REASONS])
def test_no_two_colours_look_the_same_without_green_cones(colours):
    seen = [see_without_green(colour) for colour in colours]
    apart = [
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for one, other in itertools.combinations(seen, 2)
    ]
    assert min(apart) > 0.05
