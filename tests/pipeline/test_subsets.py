"""Sources of many subsets: what becomes of them, from which listing, and what a run's lock keeps of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helpers.shapes import SHAPES
from tests.helpers.small import vlmill
from tests.helpers.upstream import parquet
from vlmill.pipeline.core.errors import RecipeError, SourceError
from vlmill.pipeline.inputs.files import list_input_files
from vlmill.pipeline.recipe.load import compose_recipe, load_readable, load_recipe
from vlmill.pipeline.recipe.subsets import name_subset

ROOT = "hf://datasets/acme/cauldron@main"
README = """---
license: other
configs:
- config_name: ai2d
  data_files:
  - {split: train, path: ai2d/train-*}
- config_name: FigureQA(MathV360K)
  data_files:
  - {split: train, path: figs/train-*}
  - {split: test, path: figs/test-*}
---
# A dataset
"""
FILES = {
    "README.md": README.encode(),
    "ai2d/train-00000-of-00001.parquet": b"1",
    "figs/train-00000-of-00001.parquet": b"2",
    "figs/test-00000-of-00001.parquet": b"3",
    "other/train-0.parquet": b"4",
}


def recipe(folder, name="recipe", **source):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "sources": {"all": {"kind": "cauldron", "subsets": "*", **source}}}))
    return str(path)


def copy_locally(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder)


def listed(path):
    """Source -> the names of its files."""
    found, _, _ = load_recipe(path)
    return {
        name: [
            file.name
            for file in list_input_files(name, place.root, place.files, subset=place.subset, split=place.split)
        ]
        for name, place in found.sources.items()
    }


def test_the_configs_of_a_readme_become_sources_on_the_hub_and_in_a_folder_alike(here, tmp_path):
    here.repository("acme/cauldron", FILES)
    wanted = {
        "all-FigureQA_MathV360K": ["figs/train-00000-of-00001.parquet"],
        "all-ai2d": ["ai2d/train-00000-of-00001.parquet"],
    }
    assert listed(recipe(tmp_path, root=ROOT)) == wanted
    assert listed(recipe(tmp_path, root=copy_locally(tmp_path / "copy", FILES))) == wanted
    found = compose_recipe(recipe(tmp_path, root=ROOT))
    assert {source.group for source in found.recipe.sources.values()} == {"all"}
    assert found.recipe.find_members("all") == found.recipe.find_members("all-*") == tuple(wanted)
    assert found.origins["sources", "all-ai2d", "kind"].endswith("recipe.yaml, line 4")
    assert found.origins["sources", "all-ai2d", "subset"].endswith("recipe.yaml, line 6")
    assert not [keys for keys in found.origins if keys[:2] == ("sources", "all")]


def test_a_split_is_that_of_every_subset_and_a_list_names_some(here, tmp_path):
    here.repository("acme/cauldron", FILES)
    local = copy_locally(tmp_path / "copy", FILES)
    assert listed(recipe(tmp_path, root=local, split="test")) == {
        "all-FigureQA_MathV360K": ["figs/test-00000-of-00001.parquet"]
    }
    for root in (ROOT, local):
        assert list(load_recipe(recipe(tmp_path, root=root, subsets=["ai2d"]))[0].sources) == ["all-ai2d"]
        with pytest.raises(RecipeError, match=r"sources\.all\.subsets: .* has no 'ai2b'; did you mean 'ai2d'\?"):
            load_recipe(recipe(tmp_path, root=root, subsets=["ai2d", "ai2b"]))


def test_without_configs_each_folder_is_a_subset_and_a_pattern_says_which_files(here, tmp_path):
    files = {name: data for name, data in FILES.items() if name != "README.md"}
    here.repository("acme/cauldron", files)
    for root in (ROOT, copy_locally(tmp_path / "copy", files)):
        assert sorted(listed(recipe(tmp_path, root=root))) == ["all-ai2d", "all-figs", "all-other"]
        place = listed(recipe(tmp_path, root=root, files="{subset}/t*-0000*.parquet"))
        assert place == {
            "all-ai2d": ["ai2d/train-00000-of-00001.parquet"],
            "all-figs": ["figs/test-00000-of-00001.parquet", "figs/train-00000-of-00001.parquet"],
        }
    flat = copy_locally(tmp_path / "flat", {"x-1.json": b"", "x-2.json": b"", "y[a]-1.json": b""})
    assert listed(recipe(tmp_path, root=flat, files="{subset}-?.json")) == {
        "all-x": ["x-1.json", "x-2.json"],
        "all-y_a": ["y[a]-1.json"],
    }


def test_subsets_named_beside_files_are_taken_without_the_hub_and_their_images_may_be_archives(here, tmp_path):
    images = f"zip://::{ROOT}/{{subset}}/train_images.zip"
    path = recipe(
        tmp_path, root=ROOT, files="{subset}/train-*.parquet", images=images, subsets=["ai2d", "spot-the-diff"]
    )
    found = load_recipe(path)[0].sources
    assert {name: (place.files, place.images) for name, place in found.items()} == {
        f"all-{name}": (f"{name}/train-*.parquet", f"zip://::{ROOT}/{name}/train_images.zip")
        for name in ("ai2d", "spot-the-diff")
    }
    assert not here.requests
    local = recipe(
        tmp_path, root=copy_locally(tmp_path / "copy", FILES), files="{subset}/train-*.parquet", subsets=["b"]
    )
    with pytest.raises(RecipeError, match=r"has no 'b'"):
        load_recipe(local)


def test_values_of_one_subset_are_set_by_its_name_and_its_files_can_be_elsewhere(tmp_path):
    root = copy_locally(tmp_path / "copy", FILES)
    sets = {"sources.all-ai2d.priority": "4", "sources.all.licence": "CC0-1.0"}
    sources = {"all-ai2d": str(tmp_path / "mine" / "*.parquet")}
    found = load_recipe(recipe(tmp_path, root="/nowhere"), {"all": f"{root}/", **sources}, sets=sets)[0].sources
    assert {name: (place.priority, place.licence) for name, place in found.items()} == {
        "all-ai2d": (4, "CC0-1.0"),
        "all-FigureQA_MathV360K": (0, "CC0-1.0"),
    }
    assert found["all-ai2d"].root == str(tmp_path / "mine")


def test_a_pattern_moves_every_source_that_it_fits_and_that_is_not_named(tmp_path):
    names = ["ai2d", "dvqa", "vqa"]
    path = recipe(tmp_path, root=ROOT, files="{subset}/*.parquet", subsets=names)
    both = {"all-*": str(tmp_path / "mine/*.parquet"), "all-vqa": str(tmp_path / "vqa/*.parquet")}
    for sources in (both, dict(reversed(both.items()))):
        found, _, _ = load_recipe(path, sources)
        assert {name: (place.root, place.files) for name, place in found.sources.items()} == {
            "all-ai2d": (str(tmp_path / "mine"), "*.parquet"),
            "all-dvqa": (str(tmp_path / "mine"), "*.parquet"),
            "all-vqa": (str(tmp_path / "vqa"), "*.parquet"),
        }
    with pytest.raises(RecipeError, match=r"--source other-\*: the recipe has no such source or benchmark"):
        load_recipe(path, {"other-*": str(tmp_path)})


def test_where_subsets_cannot_be_listed_nothing_is_said_of_what_names_them(tmp_path):
    path = recipe(tmp_path, root="/nowhere", files="{subset}/*.parquet", subsets=["ai2d", "dvqa"])
    data = yaml.safe_load(Path(path).read_text())
    mixtures = {
        "plain": {"shares": {"all-ai2d": 1, "all-dvqa": 1, "lost": 1}, "sequence_length": 9},
        "published": {"published": "the_cauldron/sft", "sources": {"*": "all-*"}},
    }
    data["policies"] = {"small": {"kind": "letterbox"}}
    data["stages"] = [{"name": name, "policy": "small", "mixture": mixture} for name, mixture in mixtures.items()]
    Path(path).write_text(yaml.safe_dump(data))
    found = load_readable(path, {"all-ai2d": "/elsewhere"}, sets={"sources.all-dvqa.priority": "1"})
    (fault,) = found.faults
    assert "no file matches /nowhere/*/*.parquet" in fault
    assert found.unreadable == {"all"}
    later = [f"stages.plain.mixture: the recipe has no source {name!r}" for name in ("all-ai2d", "lost")]
    assert [found.concerns(fault) for fault in later] == [True, False]


def test_all_sources_whose_subsets_cannot_be_listed_are_named_and_the_others_are_read(tmp_path):
    path = recipe(tmp_path, root=copy_locally(tmp_path / "copy", FILES))
    lost = {name: {"kind": "cauldron", "root": f"/nowhere/{name}", "subsets": "*"} for name in ("one", "two")}
    data = yaml.safe_load(Path(path).read_text())
    Path(path).write_text(yaml.safe_dump({**data, "sources": {**lost, **data["sources"]}}))
    found = load_readable(path)
    one, two = found.faults
    assert "/nowhere/one" in one
    assert "/nowhere/two" in two
    assert found.unreadable == {"one", "two"}
    assert {"all-ai2d", "all-FigureQA_MathV360K"} <= set(found.mapping["sources"])
    with pytest.raises(SourceError, match=r"(?s)/nowhere/one.*/nowhere/two"):
        compose_recipe(path)


def write_rows(folder, *subsets):
    for subset in subsets:
        (folder / subset).mkdir(parents=True, exist_ok=True)
        parquet(folder / subset / "train-0.parquet", [SHAPES["cauldron"].row(len(subset))])


def test_a_run_keeps_the_subsets_that_it_began_with_until_changes_are_accepted(tmp_path, capsys):
    write_rows(tmp_path / "data", "aa", "bbb")
    path = recipe(tmp_path, root="data", files="{subset}/train-*.parquet")
    build = ("build", path, "--out", tmp_path / "run", "--workers", 0, "--until", "curate")
    assert vlmill(*build) == 0
    lock = tmp_path / "run/recipe.lock.yaml"
    before = lock.read_bytes()
    assert sorted(yaml.safe_load(before)["sources"]) == ["all-aa", "all-bbb"]
    write_rows(tmp_path / "data", "cccc")
    assert vlmill(*build) == 0
    assert lock.read_bytes() == before
    assert list(load_recipe(path)[0].sources) == ["all-aa", "all-bbb", "all-cccc"], "a new run has all"
    assert vlmill(*build, "--set", "sources.all.licence=x") == 1, "another licence is another recipe, as ever"
    assert "sources.all-aa.licence" in capsys.readouterr().err
    assert vlmill(*build, "--accept-changes") == 0
    assert sorted(yaml.safe_load(lock.read_text())["sources"]) == ["all-aa", "all-bbb", "all-cccc"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subsets": 3}, r'subsets: "\*" for all, or a list of names, not 3'),
        ({"subsets": []}, "or a list of names"),
        ({"subsets": [3]}, "or a list of names"),
        ({"subsets": [".."], "files": "{subset}/*"}, r"has no '\.\.'"),
        ({"subset": "a"}, "leave one out"),
        ({"files": "*.parquet"}, r"files: beside `subsets` it has \{subset\} once"),
        ({"files": "{subset}/{subset}"}, "once"),
        ({"files": "{subset}/*", "split": "train"}, "leave one out"),
        ({"files": "{subset}/nothing-*"}, "no file matches"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(tmp_path, change, message):
    with pytest.raises((RecipeError, SourceError), match=message):
        load_recipe(recipe(tmp_path, root=copy_locally(tmp_path / "copy", FILES), **change))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("configs: [{config_name: a, data_files: ../../*}]", "leads out of the dataset's folder"),
        ("configs: [{config_name: a, data_files: /etc/*}]", "leads out"),
        ("configs: [{config_name: a/b, data_files: x}, {config_name: 'a b', data_files: x}]", "two subsets would both"),
        ("configs: [3]", "a config without a name"),
        ("configs: [{config_name: a, data_files: [{split: train, path: [a, b]}]}]", "several patterns"),
        ("configs: {", r"README\.md is no YAML"),
        (f"configs: {'[' * 10**5}", "nested deeper"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_hostile_readme_is_refused(tmp_path, head, message):
    root = copy_locally(tmp_path / "copy", {"README.md": f"---\n{head}\n---\n".encode(), "x": b""})
    with pytest.raises((RecipeError, SourceError), match=message):
        load_recipe(recipe(tmp_path, root=root))


def test_names_of_subsets_that_become_one_are_refused_and_none_leads_anywhere(tmp_path):
    assert name_subset("s", "ai2d(cauldron,llava_format)") == "s-ai2d_cauldron_llava_format"
    assert name_subset("s", "../../x") == "s-x"
    root = copy_locally(tmp_path / "copy", {"a(b)/train-0": b"", "a[b]/train-0": b""})
    with pytest.raises(RecipeError, match="two subsets would both be the source 'all-a_b'"):
        load_recipe(recipe(tmp_path, root=root))


def test_a_source_that_has_the_name_of_a_subset_is_refused(tmp_path):
    path = recipe(tmp_path, root=copy_locally(tmp_path / "copy", FILES))
    data = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    data["sources"] = {"all-ai2d": {"kind": "cauldron", "files": "x"}, **data["sources"]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(RecipeError, match="there is a source 'all-ai2d' already"):
        load_recipe(path)
