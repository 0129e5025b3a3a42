"""Published mixtures: what papers claim, held against what their own numbers make."""

import math

import pytest

from mixtures.mixture import Mixture
from mixtures.published import describe, load, names, realised
from mixtures.stats import difference
from pipeline.errors import RecipeError

STAGES = [(name, stage) for name in names() for stage in load(name).stages]


def counted(name, stage, unit="samples"):
    return describe(load(name).stages[stage])["total"][unit]


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_percentages_follow_from_the_counts_but_where_they_are_known_not_to(name, stage):
    found = load(name).stages[stage]
    shares = realised(found)
    wrong = {
        label
        for label, known in found.published.items()
        if known.percent is not None and abs(known.percent - shares[label]) > 0.05
    }
    assert wrong == set(found.disagree)
    assert set(found.published) <= set(found.mixture.labels())


def test_the_cauldron_has_all_59_rows_and_one_that_disagrees_with_its_own_factor():
    stage = load("the_cauldron").stages["sft"]
    assert len(stage.published) == 59
    assert stage.published["localized_narratives"].percent == 4.56
    assert realised(stage)["localized_narratives"] == pytest.approx(4.38, abs=0.005)
    assert sum(known.percent for known in stage.published.values()) == pytest.approx(99.98, abs=0.005)


def test_the_cauldron_adds_up_to_what_its_image_sets_were_counted_to():
    images = [known for known in load("the_cauldron").stages["sft"].published.values() if known.images]
    assert len(images) == 50
    assert sum(known.images for known in images) == 3_665_408
    assert sum(known.samples for known in images) == 30_344_030
    assert sum(known.supervised for known in images) == 462_118_359


@pytest.mark.parametrize(
    ("name", "stage", "samples", "claimed"),
    [
        ("llava_1_5", "sft", 664_000, 665_298),
        ("llava_next", "sft", 779_289, 738_590),
        ("llava_onevision", "mid", 1_211_000, 4_000_000),
        ("llava_onevision", "single_image", 2_621_993, 3_200_000),
        ("llava_onevision", "onevision", 1_866_651, 1_600_000),
        ("mantis_instruct", "card", 730_380, 721_000),
        ("prismatic", "llava-lvis4v-lrv", 2_462_194, 2_462_000),
    ],
)
def test_counts_and_claims_stand_side_by_side(name, stage, samples, claimed):
    assert counted(name, stage) == pytest.approx(samples, abs=0.5)
    assert load(name).stages[stage].claimed["samples"] == claimed


@pytest.mark.parametrize(
    ("stage", "entries", "uncounted"), [("mid", 8, 1), ("single_image", 90, 6), ("onevision", 82, 9)]
)
def test_llava_onevision_has_every_entry_of_its_files(stage, entries, uncounted):
    found = load("llava_onevision").stages[stage]
    assert len(found.mixture.labels()) == entries
    assert len(set(found.mixture.labels()) - set(found.published)) == uncounted


def test_strategies_of_llava_onevision_are_those_of_its_files():
    takes = [part.take for part in load("llava_onevision").stages["single_image"].mixture.resolved()]
    assert {take: takes.count(take) for take in set(takes)} == {
        "all": 73,
        "first:5%": 7,
        "first:1%": 4,
        "first:50%": 3,
        "first:10%": 2,
        "first:30%": 1,
    }


def test_idefics2_cuts_its_sources_to_their_own_lengths():
    lengths = [part.sequence_length for part in load("idefics2").stages["stage2"].mixture.resolved()]
    assert lengths == [None, 1536, 1024]


def test_two_published_mixtures_can_be_set_beside_each_other():
    stages = load("prismatic").stages
    found = difference(describe(stages["llava-v15"]), describe(stages["llava-lrv"]))
    assert found["lrv_instruct"]["samples"] == found["total"]["samples"] == 342_799
    assert found["llava_v1_5"] == {"samples": 0, "images": 0, "tokens": 0}


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_published_mixture_is_one_that_can_be_asked_for(name, stage):
    mixture = load(name).stages[stage].mixture
    assert isinstance(mixture, Mixture)
    assert all(label.replace("-", "").replace("_", "").replace("@", "").isalnum() for label in mixture.labels())
    assert math.isfinite(counted(name, stage))


def test_a_mixture_that_was_not_published_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'the_cauldron'"):
        load("cauldron")
