"""Verdicts applied: what falls, what falls with it, and what the books say."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    write_verdicts,
)
from vlmill.pipeline.verdicts.apply import apply_verdicts, read_verdicts_by_sample
from vlmill.pipeline.verdicts.audit import list_causes

GOOD = ImageStats(0, None, width=10, height=10)
DEAD = ImageStats(0, Reason.UNDECODABLE)


def sample(*nodes: Node) -> Sample:
    return Sample(SampleId("quiz", "a.parquet", 0), nodes)


def text(role="none", turn=0):
    return Node("text", role, turn, text="words")


def image(number=0, role="none", turn=0, required=False):
    return Node("image", role, turn, image=number, required=required)


def turn(number):
    return text("user", number), text("assistant", number)


def drop(node, filter_="ratio", reason=Reason.IMAGE_RATIO):
    return Verdict(0, node, filter_, reason)


def test_a_sample_that_nobody_speaks_against_stays_whole():
    outcome = apply_verdicts(sample(text(), image(), text()), [], [GOOD])
    assert outcome.sample is None
    assert outcome.nodes == (None, None, None)
    assert outcome.kept == (0, 1, 2)


def test_a_sample_falls_with_the_image_that_leaves_too_few_whoever_drops_it():
    page = sample(text(), image(0), image(1), text())
    least = Verdict(0, LEAST_IMAGES, "shape", Reason.TOO_FEW_IMAGES, 1)
    late = [least, drop(1, "image_quality", Reason.BLANK_IMAGE), drop(2, "dedupe", Reason.NEAR_IMAGE)]
    assert apply_verdicts(page, late[:2], [GOOD, GOOD]).sample is None
    outcome = apply_verdicts(page, late, [GOOD, GOOD])
    assert outcome.sample is Reason.TOO_FEW_IMAGES
    few = Reason.TOO_FEW_IMAGES
    assert outcome.nodes == (few, Reason.BLANK_IMAGE, Reason.NEAR_IMAGE, few)
    early = [drop(1, "image_quality", Reason.BLANK_IMAGE), drop(2, "image_quality", Reason.BLANK_IMAGE), least]
    assert apply_verdicts(page, early, [GOOD, GOOD]).sample is few
    assert apply_verdicts(page, [least], [GOOD, DEAD]).sample is None


def test_a_lost_image_of_a_document_falls_alone():
    outcome = apply_verdicts(sample(text(), image(0), image(1), text()), [drop(2)], [DEAD, GOOD])
    assert outcome.sample is None
    assert outcome.nodes == (None, Reason.UNDECODABLE, Reason.IMAGE_RATIO, None)
    assert outcome.kept == (0, 3)


def test_a_failed_required_image_takes_the_sample_with_its_own_reason():
    outcome = apply_verdicts(sample(image(required=True), *turn(0)), [], [DEAD])
    assert outcome.sample is Reason.UNDECODABLE
    assert outcome.nodes == (Reason.UNDECODABLE,) * 3


def test_a_dropped_required_image_takes_the_sample_as_a_consequence():
    outcome = apply_verdicts(sample(image(required=True), *turn(0)), [drop(0)], [GOOD])
    assert outcome.sample is Reason.REQUIRED_LOST
    assert outcome.nodes == (Reason.IMAGE_RATIO, Reason.REQUIRED_LOST, Reason.REQUIRED_LOST)


def test_a_required_image_that_render_failed_with_takes_the_sample_with_its_own_reason():
    outcome = apply_verdicts(sample(image(required=True), *turn(0)), [drop(0, "render", Reason.UNRENDERABLE)], [GOOD])
    assert outcome.sample is Reason.UNRENDERABLE


@pytest.mark.parametrize("half", [1, 2])
def test_a_turn_falls_whole_and_the_image_that_later_turns_see_stays(half):
    outcome = apply_verdicts(
        sample(image(role="user"), *turn(0), *turn(1)), [drop(half, "text", Reason.NEAR_TEXT)], [GOOD]
    )
    other = 3 - half
    assert outcome.sample is None
    assert outcome.nodes[half] is Reason.NEAR_TEXT
    assert outcome.nodes[other] is Reason.TURN_LOST
    assert outcome.kept == (0, 3, 4)


def test_an_image_that_only_the_lost_turn_could_see_falls_with_it():
    last = (image(role="user", turn=1, required=True), *turn(1))
    verdicts = [drop(3, "text", Reason.NEAR_TEXT), drop(0, "later", Reason.NEAR_TEXT)]
    outcome = apply_verdicts(sample(*turn(0), *last), verdicts[:1], [GOOD])
    assert outcome.nodes == (None, None, Reason.TURN_LOST, Reason.NEAR_TEXT, Reason.TURN_LOST)
    assert apply_verdicts(sample(*turn(0), *last), verdicts, [GOOD]).sample is Reason.NOTHING_LEFT


def test_a_conversation_without_turns_is_nothing_even_with_image_and_system_prompt():
    outcome = apply_verdicts(sample(text("system"), image(role="user"), *turn(0)), [drop(2)], [GOOD])
    assert outcome.sample is Reason.NOTHING_LEFT
    assert outcome.nodes == (Reason.NOTHING_LEFT, Reason.TURN_LOST, Reason.IMAGE_RATIO, Reason.TURN_LOST)


def test_a_document_of_which_every_node_fell_is_nothing():
    outcome = apply_verdicts(sample(image(0), image(1)), [drop(1)], [DEAD, GOOD])
    assert outcome.sample is Reason.NOTHING_LEFT
    assert outcome.nodes == (Reason.UNDECODABLE, Reason.IMAGE_RATIO)


def test_a_consequence_has_the_cause_that_a_person_can_change():
    def find(one, verdicts, stats=()):
        return list(list_causes(one, apply_verdicts(one, verdicts, stats)))

    asked = sample(text("user"), image(0, "user", required=True), text("assistant"))
    assert find(asked, [drop(1)], [GOOD]) == [(Reason.REQUIRED_LOST, Reason.IMAGE_RATIO)]
    assert find(asked, [], [GOOD]) == []
    page = sample(text(), image(0), image(1), text())
    language = [drop(0, "language", Reason.LANGUAGE), drop(3, "language", Reason.LANGUAGE)]
    assert find(page, [*language, drop(1), drop(2)], [GOOD, GOOD]) == [(Reason.NOTHING_LEFT, Reason.LANGUAGE)]
    lost = [ImageStats(0, Reason.HTTP_CLIENT_ERROR), GOOD]
    few = Verdict(0, LEAST_IMAGES, "shape", Reason.TOO_FEW_IMAGES, 2.0)
    assert find(page, [few], lost) == [(Reason.TOO_FEW_IMAGES, Reason.HTTP_CLIENT_ERROR)]
    assert find(sample(text(), image(0)), [few], [GOOD]) == [], "it never had more"
    talk = sample(text("user", 0), text("assistant", 0), text("user", 1), text("assistant", 1))
    assert find(talk, [drop(1, "language", Reason.LANGUAGE)]) == [(Reason.TURN_LOST, Reason.LANGUAGE)]


def test_the_first_filter_of_the_recipe_gets_the_attribution():
    language, ratio = drop(WHOLE_SAMPLE, "language", Reason.LANGUAGE), drop(1)
    document = sample(text(), image())
    assert apply_verdicts(document, [language, ratio], [GOOD]).nodes == (Reason.LANGUAGE, Reason.LANGUAGE)
    assert apply_verdicts(document, [ratio, language], [GOOD]).nodes == (Reason.LANGUAGE, Reason.IMAGE_RATIO)
    assert apply_verdicts(document, [ratio, language], [DEAD]).nodes == (Reason.LANGUAGE, Reason.UNDECODABLE)
    required = sample(text(), image(required=True))
    assert apply_verdicts(required, [ratio, language], [GOOD]).sample is Reason.REQUIRED_LOST


def test_verdicts_are_gathered_in_recipe_order(tmp_path):
    write_verdicts(tmp_path / "a", [Verdict(3, 1, "a", Reason.IMAGE_RATIO), Verdict(0, -1, "a", Reason.NEAR_TEXT)])
    write_verdicts(tmp_path / "b", [Verdict(3, 0, "b", Reason.LANGUAGE)])
    inputs = {"a.verdicts.parquet": tmp_path / "a", "b.verdicts.parquet": tmp_path / "b"}
    found = read_verdicts_by_sample(inputs, ["b", "a"])
    assert {number: [verdict.filter for verdict in spoken] for number, spoken in found.items()} == {
        3: ["b", "a"],
        0: ["a"],
    }


roles = st.sampled_from(["none", "system", "user", "assistant"])
nodes = st.one_of(
    st.builds(text, roles, st.integers(0, 3)),
    st.builds(image, st.integers(0, 3), roles, st.integers(0, 3), st.booleans()),
)
dropping = st.sampled_from([reason for reason in Reason if not reason.failed])


@st.composite
def cases(draw):
    made = sample(*draw(st.lists(nodes, min_size=1, max_size=8)))
    spoken = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, len(made.nodes) - 1), dropping), max_size=6))
    verdicts = [Verdict(0, node, f"filter{filter_}", reason) for filter_, node, reason in sorted(spoken)]
    return made, verdicts, draw(st.lists(st.sampled_from([GOOD, DEAD]), min_size=4, max_size=4))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_node_is_kept_or_lost_for_a_reason_and_the_sample_goes_with_its_nodes(case):
    made, verdicts, image_stats = case
    outcome = apply_verdicts(made, verdicts, image_stats)
    lost = Counter(reason for reason in outcome.nodes if reason)
    assert len(outcome.nodes) == len(made.nodes) == len(outcome.kept) + sum(lost.values())
    assert (outcome.sample is not None) == (not outcome.kept)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_nothing_that_a_filter_or_the_world_spoke_against_is_kept(case):
    made, verdicts, image_stats = case
    outcome = apply_verdicts(made, verdicts, image_stats)
    dead = {index for index, node in enumerate(made.nodes) if node.image is not None and image_stats[node.image].reason}
    spoken = {verdict.node for verdict in verdicts}
    assert not set(outcome.kept) & (dead | spoken)
    if WHOLE_SAMPLE in spoken:
        assert outcome.sample is not None


@settings(max_examples=300, deadline=None)
@given(cases())
def test_no_half_turn_and_no_sample_without_its_required_images_is_kept(case):
    made, verdicts, image_stats = case
    outcome = apply_verdicts(made, verdicts, image_stats)
    if outcome.sample is not None:
        return
    spoken = [
        index for index, node in enumerate(made.nodes) if node.kind == "text" and node.role in {"user", "assistant"}
    ]
    for number in {made.nodes[index].turn for index in spoken}:
        assert len({outcome.nodes[index] is None for index in spoken if made.nodes[index].turn == number}) == 1
    fallen = [outcome.nodes[index] for index, node in enumerate(made.nodes) if node.required]
    assert set(fallen) <= {None, Reason.TURN_LOST}


@settings(max_examples=200, deadline=None)
@given(cases())
def test_a_later_filter_changes_no_earlier_attribution(case):
    made, verdicts, image_stats = case
    filters = sorted({verdict.filter for verdict in verdicts})
    for number in range(len(filters)):
        early = apply_verdicts(
            made, [verdict for verdict in verdicts if verdict.filter in filters[:number]], image_stats
        )
        late = apply_verdicts(made, verdicts, image_stats)
        assert all(before in {None, after} for before, after in zip(early.nodes, late.nodes, strict=True))
