"""Entries of mixtures that mean several sources: groups, patterns, and what is held out of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import yaml

from tests.helpers.shapes import SHAPES
from tests.helpers.small import RECIPE, vlmill, write_recipe
from tests.helpers.upstream import parquet
from vlmill.mixtures.build import read_stage_mixture, read_stats, validate_mixtures, verify_locks
from vlmill.mixtures.members import list_members
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.recipe.load import load_recipe

SIZES = {"aa": 30, "bb": 10, "cb": 20}


def write_group(folder, *mixtures):
    """A recipe with a group `all` of three subsets and a source `quiz`, and a stage for each mixture."""
    for name, rows in SIZES.items():
        (folder / "all" / name).mkdir(parents=True, exist_ok=True)
        made = [SHAPES["cauldron"].row(1000 * len(name) + 100 * ord(name[0]) + row) for row in range(rows)]
        parquet(folder / "all" / name / "train-0.parquet", made)
    sources = {
        "quiz": RECIPE["sources"]["quiz"],
        "all": {"kind": "cauldron", "root": "all", "files": "{subset}/*.parquet", "subsets": "*"},
    }
    stages = [
        {"name": f"s{number}", "policy": "small", "mixture": {"sequence_length": 256, **mixture}}
        for number, mixture in enumerate(mixtures)
    ]
    return write_recipe(folder, sources=sources, stages=stages, model={}, filters=[], dedupe=None)


def members(folder, **mixture):
    recipe, _, _ = load_recipe(str(write_group(folder, mixture)))
    stage = recipe.stages[0]
    return dict(list_members(recipe, read_stage_mixture(recipe, stage), "here"))


def test_an_entry_means_a_source_or_a_group_or_what_a_pattern_matches_without_those_that_have_their_own(tmp_path):
    assert members(tmp_path, shares={"quiz": 1, "all": 2}) == {
        "quiz": ("quiz",),
        "all": ("all-aa", "all-bb", "all-cb"),
    }
    assert members(tmp_path, shares={"all-*b": 1, "all-aa": 2})["all-*b"] == ("all-bb", "all-cb")
    assert members(tmp_path, shares={"all": 1, "all-bb": 2}) == {"all": ("all-aa", "all-cb"), "all-bb": ("all-bb",)}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["al"], r"no source 'al', and no group of sources; did you mean 'all'\?"),
        (["all-x*"], "no source 'all-x\\*'"),
        (["all", "*-aa"], "'all-aa' is in '\\*-aa' and in 'all'"),
        (["all-bb", "all-*bb"], "all sources of 'all-\\*bb' have entries of their own"),
    ],
)
def test_an_entry_that_means_no_source_or_one_that_another_means_is_refused(tmp_path, names, message):
    with pytest.raises(RecipeError, match=message):
        members(tmp_path, shares=dict.fromkeys(names, 1))


def test_what_a_group_holds_out_no_other_stage_trains_on_by_whatever_name(tmp_path):
    shares = {"shares": {"all": 1}, "held_out": {"all": 0.2}}
    for other, wrong in (
        ({"shares": {"all-aa": 1}, "held_out": {"all-aa": 0.2}}, False),
        ({"shares": {"quiz": 1}}, False),
        ({"shares": {"all-aa": 1}}, True),
        ({"shares": {"all-*b": 1}, "held_out": {"all-*b": 0.1}}, True),
    ):
        recipe, _, _ = load_recipe(str(write_group(tmp_path, shares, other)))
        if wrong:
            with pytest.raises(RecipeError, match=r"keeps 0\.2 of 'all-(aa|bb)' for evaluation"):
                validate_mixtures(recipe)
        else:
            validate_mixtures(recipe)


def read_ids(root, stage):
    """Ids of the held-out samples of a stage, and of those that it plans."""
    mixture = PlannedMixture(root, stage)
    held = [mixture.about(segment)["id"] for segment in mixture.held_out()]
    planned = [
        mixture.about(segment)["id"] for place in range(mixture.sequences) for segment in mixture.sequence(place)
    ]
    return held, planned


def test_a_group_is_planned_by_the_sizes_of_its_sources_and_held_out_alike_by_any_name(tmp_path, capsys):
    group = {"repeat": {"all": 1, "quiz": 1}, "held_out": {"all": 0.3}}
    single = {"repeat": {"all-aa": 1, "all-*b": 2}, "held_out": {"all-aa": 0.3, "all-*b": 0.3}}
    path, root = write_group(tmp_path, group, single), tmp_path / "run"
    assert vlmill("build", path, "--out", root, "--workers", 0) == 0, capsys.readouterr().err
    held, planned = read_ids(root, "s0")
    other, twice = read_ids(root, "s1")
    assert sorted(held) == sorted(other)
    assert 0 < len(held) < 40
    assert not set(held) & {*planned, *twice}
    counts = pl.Series([name.split("/")[0] for name in planned + held]).value_counts()
    assert {row[0]: row[1] for row in counts.rows() if row[0] != "quiz"} == {f"all-{n}": s for n, s in SIZES.items()}
    times = pl.Series(twice).value_counts()
    assert set(times.filter(pl.col("").str.starts_with("all-aa"))["count"]) == {1}
    assert set(times.filter(pl.col("").str.starts_with("all-bb"))["count"]) == {2}
    lock = read_json(root / "mixtures/s1/mixture.lock.json")
    assert [(source["name"], source["label"]) for source in lock["sources"]] == [
        ("all-*b", "all-_b"),
        ("all-aa", "all-aa"),
    ]
    assert list(verify_locks(root)) == []
    stats = read_stats(root, "s0")["s0"]
    assert [source["name"] for source in stats["sources"]] == ["all", "quiz"]
    assert np.isclose(sum(source["realised"]["samples"] for source in stats["sources"]), 1)
    for command in (("verify", root), ("stats", root), ("stats", root, "--html", tmp_path / "page.html")):
        assert vlmill(*command) == 0, capsys.readouterr().err
    assert yaml.safe_load((root / "recipe.lock.yaml").read_text())["sources"]["all-aa"]["group"] == "all"


def test_a_source_that_is_held_out_whole_without_being_an_entry_is_rendered_and_kept_out(tmp_path, capsys):
    path = write_group(tmp_path, {"shares": {"all": 1}, "held_out": {"quiz": 1}})
    assert load_recipe(path)[0].list_policies("quiz") == ("small",)
    assert vlmill("build", path, "--out", tmp_path / "run", "--workers", 0) == 0
    assert "quiz holds nothing" not in " ".join(capsys.readouterr().out.split())
    mixture = PlannedMixture(tmp_path / "run", "s0")
    names = [source["name"] for source in mixture.lock["sources"]]
    assert names == ["all", "quiz"]
    held = {names[segment.source] for segment in mixture.held_out()}
    assert held == {"quiz"}
    assert read_stats(tmp_path / "run", "s0")["s0"]["sources"][1]["planned"]["samples"] == 0
