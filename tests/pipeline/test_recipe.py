"""Recipes: what is read, what is refused and in which words, what a folder is locked to."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.engine.survey import InputRows, PlannedPartition, limit_rows
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.filters import Language, Shape
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.inputs.files import InputFile, list_input_files
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import lock_folder, read_locked_recipe, select_shaping
from vlmill.pipeline.recipe.overrides import set_value
from vlmill.pipeline.sources.obelics import Obelics
from vlmill.pipeline.steps.image_stats import ComputeImageStats
from vlmill.pipeline.steps.survey import cut_rows

GOOD = {
    "name": "small",
    "seed": 3,
    "sources": {"web": {"kind": "obelics", "files": "web/*.parquet", "licence": "CC0-1.0"}},
    "filters": [{"language": {"drop": ["zh"]}}, {"shape": {"max_ratio": 5}}],
    "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
}


def recipe_file(folder: Path, **changes: object) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return str(path)


def test_a_recipe_is_read_into_frozen_steps(tmp_path):
    recipe, _, base = load_recipe(recipe_file(tmp_path))
    assert base == tmp_path
    assert [filter_.name for filter_ in recipe.filters] == ["language", "shape"]
    assert recipe.policies["small"].kind == "letterbox"
    assert recipe.fetch_step("web").name == "fetch"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sauces": {}}, r"unknown key 'sauces'; did you mean 'sources'\?"),
        (
            {"filters": {"language": None}},
            r"filters: Input should be a list, an item for each key: - language: \{\}, not",
        ),
        (
            {"filters": {"language": {"drop": ["zh"]}, "shape": None}},
            r"filters: Input should be a list, an item for each key: - language: \{drop: \[zh\]\}, not",
        ),
        ({"stages": {"a": "b"}}, r"stages: Input should be a list, such as \[a, b\], not"),
        ({"filters": ["language"]}, r"filters\.0: one name with its settings, such as `language: \{\}`"),
        (
            {"sources": {"web": {"kind": "obelix", "files": "*"}}},
            r"sources\.web\.kind: 'obelix' is unknown; did you mean 'obelics'\?",
        ),
        ({"sources": {"web": {"kind": "obelics"}}}, r"sources\.web\.files: is missing"),
        (
            {"sources": {"web": {"kind": "obelics", "files": "*", "licens": "x"}}},
            r"unknown key 'licens'; did you mean 'licence'\?",
        ),
        ({"sources": {"we b": {"kind": "obelics", "files": "*"}}}, "may hold letters"),
        ({"sources": {}}, "needs at least one"),
        ({"filters": [{"langauge": None}]}, r"did you mean 'language'\?"),
        ({"filters": [{"language": None}, {"language": None}]}, "may stand once"),
        ({"filters": [{"shape": {"max_ration": 2}}]}, r"did you mean 'max_ratio'\?"),
        (
            {"filters": [{"shape": {"sources": ["web", "w*", "weeb"]}}]},
            r"filters\.shape\.sources: .*no source 'weeb'; did you mean 'web'",
        ),
        ({"seed": "many"}, r"seed: .*integer.*'many'"),
        ({"policies": {"small": {"kind": "letterbux"}}}, r"did you mean 'letterbox'\?"),
        (
            {"stages": [{"name": "a", "policy": "smal", "mixture": {}}]},
            r"policy 'smal' does not stand.*did you mean 'small'\?",
        ),
        ({"fetch": {"max_byte": 5}}, r"did you mean 'max_bytes'\?"),
    ],
)
def test_a_mistake_is_named_with_what_was_allowed(tmp_path, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file(tmp_path, **change))


def test_all_mistakes_are_named_at_once(tmp_path):
    change = {
        "sources": {"web": {"kind": "obelics"}, "b.c": {"kind": "obelics", "files": "*"}},
        "stages": [{"name": "a", "policy": "smal", "mixture": {}}],
    }
    with pytest.raises(RecipeError) as told:
        load_recipe(recipe_file(tmp_path, **change))
    for message in (
        "sources.web.files: is missing",
        "'b.c' is no name here",
        "policy 'smal'",
        "tokenizer: stages need",
    ):
        assert message in str(told.value)
    change = {"sources": {"web": {"kind": "obelix"}}, "seed": "x", "policies": {"small": {"kind": "crop", "fill": 1}}}
    with pytest.raises(RecipeError) as told:
        load_recipe(recipe_file(tmp_path, **change, filters=[{"shape": {"max_ratio": 0}}]))
    assert [": ".join(line.split(": ")[:2]) for line in str(told.value).splitlines()] == [
        "recipe.yaml: sources.web.kind",
        "recipe.yaml: seed",
        "recipe.yaml: filters.shape.max_ratio",
        "recipe.yaml: policies.small.fill",
    ]


def test_the_blocks_of_a_recipe_are_the_objects_that_the_engine_works_with(tmp_path):
    sources = {"web": {"kind": "obelics", "files": "*", "options": {"paragraphs": False}, "fetch": {"retries": 7}}}
    recipe, _, _ = load_recipe(recipe_file(tmp_path, sources=sources, fetch={"timeout_s": 3}, dedupe={"text": 0.9}))
    assert recipe.source("web") == Obelics(paragraphs=False)
    assert recipe.fetch_step("web") == Fetch(timeout_s=3, retries=7)
    assert recipe.policies == {"small": Letterbox(side=56, patch=14)}
    assert recipe.filters == (Language(drop=("zh",)), Shape(max_ratio=5))
    assert recipe.dedupe == Dedupe(text=0.9)
    assert recipe.image_stats == ComputeImageStats()
    assert recipe.rooted({"web": "there"}).sources["web"].root == "there"
    assert recipe.rooted({}) == recipe


def test_a_source_s_own_fetch_keys_and_the_recipe_s_are_checked_alike(tmp_path):
    sources = {"web": {"kind": "obelics", "files": "*", "fetch": {"retrys": 7}}}
    with pytest.raises(RecipeError, match=r"sources\.web\.fetch\.retrys: unknown key .*did you mean 'retries'"):
        load_recipe(recipe_file(tmp_path, sources=sources))
    sources = {"web": {"kind": "obelics", "files": "*", "options": {"paragrafs": True}}}
    with pytest.raises(RecipeError, match=r"sources\.web\.options\.paragrafs: .*did you mean 'paragraphs'"):
        load_recipe(recipe_file(tmp_path, sources=sources))
    sources = {"web": {"kind": "obelics", "files": "*", "options": {"kind": "pdfa"}}}
    with pytest.raises(RecipeError, match=r"sources\.web\.options: unknown key 'kind'"):
        load_recipe(recipe_file(tmp_path, sources=sources))


def test_a_folder_hides_no_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    assert load_recipe("quickstart")[0].name == "quickstart"
    (tmp_path / "photos").mkdir()
    with pytest.raises(RecipeError, match="photos is a folder; vlmill new photos"):
        load_recipe("photos")


def test_a_recipe_that_is_not_there_offers_the_shipped_ones(tmp_path):
    with pytest.raises(RecipeError, match=r"neither a file nor a shipped recipe; did you mean 'quickstart'\?"):
        load_recipe("quickstrat")
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        load_recipe(str(tmp_path / "recipe.yaml"))


def test_values_of_the_command_line_replace_those_of_the_file(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    sets = {"filters.language.drop": "[zh, ja]", "seed": "9", "sources.web.licence": "MIT", "partition.rows": "5"}
    recipe, data, _ = load_recipe(recipe_file(tmp_path), {"web": str(tmp_path / "elsewhere")}, 7, sets)
    assert recipe.filters[0].drop == ("zh", "ja")
    assert (recipe.seed, recipe.limit, recipe.partition.rows) == (9, 7, 5)
    assert recipe.sources["web"].licence == "MIT"
    assert recipe.sources["web"].root == str(tmp_path / "elsewhere")
    assert data["limit"] == 7
    with pytest.raises(RecipeError, match=r"no such source or benchmark; did you mean 'web'\?"):
        load_recipe(recipe_file(tmp_path), {"wep": "."})


@pytest.mark.parametrize(("name", "other"), [("llava-1.5", "llava-1"), ("v1.6.2", "v1.6")])
def test_a_name_with_dots_is_set_like_any_other_and_the_longest_name_counts(tmp_path, name, other):
    policies = dict.fromkeys((name, other), GOOD["policies"]["small"])
    path = recipe_file(tmp_path, policies=policies)
    recipe = load_recipe(path, sets={f"policies.{name}.side": "28", f"policies.{other}.patch": "7"})[0]
    assert (recipe.policies[name].side, recipe.policies[other].side) == (28, 56)
    assert (recipe.policies[name].patch, recipe.policies[other].patch) == (14, 7)
    whole = {f"policies.{name}": "{kind: letterbox, side: 42, patch: 14}"}
    recipe = load_recipe(path, sets=whole)[0]
    assert {each: policy.side for each, policy in recipe.policies.items()} == {name: 42, other: 56}
    with pytest.raises(RecipeError, match=r"side.*recipe\.yaml, line|\(--set "):
        load_recipe(path, sets={f"policies.{name}.side": "many"})


def test_a_folder_is_locked_to_what_shapes_the_output_and_to_no_place(tmp_path):
    _, data, _ = load_recipe(recipe_file(tmp_path, fetch={"threads": 3, "max_bytes": 1000}), {"web": str(tmp_path)})
    lock_folder(tmp_path, data, accept_changes=False)
    text = (tmp_path / "recipe.lock.yaml").read_text()
    assert str(tmp_path) not in text
    assert "threads" not in text
    assert "max_bytes" in text
    assert read_locked_recipe(tmp_path).name == "small"
    assert select_shaping(data) == yaml.safe_load(text)


def test_another_recipe_is_refused_with_the_difference_and_the_ways_out_once_something_was_made(tmp_path):
    lock_folder(tmp_path, {**GOOD, "seed": 2}, accept_changes=False)
    lock_folder(tmp_path, GOOD, accept_changes=False)
    receipt = tmp_path / "steps/web/survey/00000.0123456789ab.receipt.json"
    receipt.parent.mkdir(parents=True)
    receipt.touch()
    lock_folder(tmp_path, GOOD, accept_changes=False)
    with pytest.raises(StoreError, match=r"(?s)seed: 3 there, 4 here.*--out.*--accept-changes"):
        lock_folder(tmp_path, {**GOOD, "seed": 4}, accept_changes=False)
    lock_folder(tmp_path, {**GOOD, "seed": 4}, accept_changes=True)
    lock_folder(tmp_path, {**GOOD, "seed": 4}, accept_changes=False)


def test_files_are_ordered_by_name_whatever_the_file_system_says(tmp_path):
    for name in ("b/2.parquet", "a.parquet", "b/10.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [input_file.name for input_file in list_input_files("web", str(tmp_path), "**/*.parquet")] == [
        "a.parquet",
        "b/10.parquet",
        "b/2.parquet",
    ]


def test_the_limit_takes_rows_from_the_front():
    input_file, file = InputFile("web", 0, "a", ""), File("input", "", "", 0)
    parts = [
        PlannedPartition("web", 0, chunk, (InputRows(input_file, file, start, stop),))
        for chunk, (start, stop, _) in enumerate(cut_rows([1] * 10, 4, 100))
    ]
    assert [part.ranges for part in limit_rows(parts, 6)] == [(("a", 0, 4),), (("a", 4, 6),)]
    assert limit_rows(parts, None) == parts
    shared = [PlannedPartition("web", 0, 0, tuple(InputRows(input_file, file, 0, 3) for _ in range(3)))]
    assert [[found[1:] for found in part.ranges] for part in limit_rows(shared, 5)] == [[(0, 3), (0, 2)]]
    assert [[found[1:] for found in part.ranges] for part in limit_rows(shared, 6)] == [[(0, 3), (0, 3)]]


@pytest.mark.parametrize("key", ["filters.image_quality", "image_quality", "filters.image_quality.min_sharpness"])
def test_a_filter_that_the_recipe_does_not_name_is_asked_last_whether_it_is_set_whole_or_in_part(key):
    data = {"filters": [{"language": {"drop": ["zh"]}}]}
    set_value(data, key, "20" if key.endswith("sharpness") else "{min_sharpness: 20}")
    assert data["filters"] == [{"language": {"drop": ["zh"]}}, {"image_quality": {"min_sharpness": 20}}]
    with pytest.raises(RecipeError, match="no 'imagequality' in this list of 2"):
        set_value(data, "filters.imagequality", "{}")
