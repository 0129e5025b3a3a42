"""Recipes that are made in Python: the run of the same file, paths from the working folder, errors with places."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import vlmill
from tests.helpers.small import product, write_recipe


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A recipe whose paths are relative, in the working folder."""
    file = write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = yaml.safe_load(file.read_text(encoding="utf-8").replace(str(tmp_path), "."))
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return Path(file.name)


@pytest.fixture
def data(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_it_makes_the_bytes_that_its_file_makes(file, data):
    of_file = vlmill.build(file, "of-file", workers=0)
    of_data = vlmill.build(data, "of-data", workers=0)
    assert product(of_file.folder) == product(of_data.folder)
    assert (of_file.folder / "recipe.lock.yaml").read_bytes() == (of_data.folder / "recipe.lock.yaml").read_bytes()
    vlmill.build(data, "of-file", workers=0)  # the folder is locked to the same recipe


def test_paths_and_tuples_are_what_yaml_has_in_their_place(file, data):
    for source in data["sources"].values():
        source["files"] = Path(source["files"])
    data["stages"] = tuple(data["stages"])
    assert vlmill.load_recipe(data).mapping == vlmill.load_recipe(file).mapping
    assert isinstance(data["stages"], tuple), "what was given stays as it is"


def test_every_call_that_takes_a_recipe_takes_one(data):
    assert vlmill.check_recipe(data).faults == ()
    run = vlmill.build(data, workers=0)
    assert run.folder == Path("build") / data["name"]
    assert {step.outcome for step in vlmill.forecast_changes(data, run.folder)} == {"kept"}
    assert not run.what_if(recipe=data).changes
    assert vlmill.load_recipe(data, settings={"name": "other"}).name == "other"


def test_a_fault_names_the_keys_that_lead_to_it(data):
    data["sources"]["web"]["kindd"] = "x"
    (fault,) = vlmill.check_recipe(data).faults[:1]
    assert "kindd" in fault
    assert fault.endswith("(recipe['sources']['web']['kindd'])")
    with pytest.raises(vlmill.RecipeError, match=r"\(recipe\['sources'\]\['web'\]\['kindd'\]\)"):
        vlmill.build(data, workers=0)
    assert not Path("build").exists()


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x"])
def test_what_yaml_has_not_is_named_with_its_place(data, value):
    data["sources"]["web"]["files"] = [value]
    with pytest.raises(
        vlmill.RecipeError, match=r"recipe\['sources'\]\['web'\]\['files'\]\[0\]=.* is a .*; a recipe holds"
    ):
        vlmill.load_recipe(data)


def test_it_may_include_files_of_the_working_folder(data):
    Path("part.yaml").write_text(yaml.safe_dump({"limit": 3}), encoding="utf-8")
    assert vlmill.load_recipe({**data, "include": [{"recipe": "part.yaml"}]}).recipe.limit == 3
    with pytest.raises(vlmill.RecipeError, match=r"recipe\['include'\]\[0\]: .*there is no file"):
        vlmill.load_recipe({**data, "include": [{"recipe": "gone.yaml"}]})
