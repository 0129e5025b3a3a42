"""Mixtures through the API: compared with each other, and those that others published."""

from __future__ import annotations

import polars as pl
import pytest
import yaml

import vlmill
from tests.helpers.small import RECIPE, write_recipe
from vlmill.mixtures.config import UNITS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixtures")
    (stage,) = RECIPE["stages"]
    stages = [stage, {**stage, "name": "tune", "mixture": {**stage["mixture"], "shares": {"quiz": 1}}}]
    return vlmill.build(write_recipe(folder / "input files", stages=stages), folder / "run", workers=0)


def test_a_difference_is_what_one_stage_plans_less_what_the_other_does(run):
    found = vlmill.compare_mixtures(run.stage("align"), run.stage("tune"))
    assert set(found["before"]) == {f"{run.folder}:align"}
    planned = [
        {entry["name"]: entry["planned"] for entry in run.stage(name).stats["sources"]} for name in ("align", "tune")
    ]
    for row in found.to_dicts():
        for unit in UNITS:
            was, will = (stage.get(row["source"], {}).get(unit, 0) for stage in planned)
            assert row[unit] == will - was
    assert set(found["source"]) == {*planned[0]}


def test_a_run_beside_itself_differs_in_nothing_in_any_of_its_stages(run):
    found = vlmill.compare_mixtures(run, run.folder)
    assert found["after"].unique(maintain_order=True).to_list() == [f"{run.folder}:align", f"{run.folder}:tune"]
    assert found.select(UNITS).sum().row(0) == (0,) * len(UNITS)


def test_what_was_not_published_is_null():
    found = vlmill.compare_mixtures("prismatic:llava-v15", "prismatic:llava-lrv")
    assert found["visual"].null_count() == found.height
    assert found["samples"].null_count() < found.height
    with pytest.raises(vlmill.RecipeError, match="no published mixture"):
        vlmill.compare_mixtures("prismatik", "prismatic")


def test_published_mixtures_are_listed_and_loaded_by_name():
    listed = vlmill.list_published()
    for name, stages in listed.group_by("name", maintain_order=True).agg("stage").rows():
        assert list(vlmill.load_published(name).stages) == stages
    with pytest.raises(vlmill.RecipeError, match="did you mean 'prismatic'"):
        vlmill.load_published("prismatik")


def test_realised_percentages_of_a_published_stage_add_up_and_one_stage_is_chosen():
    found = vlmill.compare_published("llava_onevision")
    sums = found.group_by("stage").agg(pl.col("realised").sum())
    assert sums["realised"].to_list() == pytest.approx([100.0] * sums.height)
    one = vlmill.compare_published("llava_onevision", "single_image")
    assert one.equals(found.filter(pl.col("stage") == "single_image"))
    with pytest.raises(vlmill.RecipeError, match="single_image"):
        vlmill.compare_published("llava_onevision", "single_images")


def test_an_imported_mixture_is_read_as_a_published_one(tmp_path):
    datasets = [{"json_path": "/d/ai2d_2k.json", "sampling_strategy": "first:10%"}, {"json_path": "/d/chart.json"}]
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({"datasets": datasets}))
    data = vlmill.import_mixture(tmp_path / "theirs.yaml", sequence_length=1024)
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(data))
    published = vlmill.load_published(tmp_path / "ours.yaml")
    assert published.stages["theirs"].mixture.sequence_length == 1024
    assert vlmill.compare_published(tmp_path / "ours.yaml")["given"].to_list() == ["x 1, first:10%", "x 1"]
    with pytest.raises(vlmill.RecipeError, match="there is no such file"):
        vlmill.import_mixture(tmp_path / "none.yaml")
