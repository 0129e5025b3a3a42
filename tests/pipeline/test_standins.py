"""Published datasets that recipes name, from stand-ins on a loopback Hub: good rows are read, odd ones are refused."""

from __future__ import annotations

import io
import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.helpers.hub import Hub
from tests.helpers.small import vlmill
from tests.helpers.standins import DATASETS, fill_hub, write_standins
from tests.helpers.standins.material import Material
from tests.helpers.standins.serve import find_repository, list_datasets, list_settings, use_hub
from tests.helpers.standins.table import render_table
from tests.helpers.upstream import json_lines
from vlmill.pipeline.inputs.files import list_input_files, open_input
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.sources import SOURCES

RECIPES = {path.stem: load_recipe(str(path))[0] for path in sorted(Path(str(files("vlmill.recipes"))).glob("*.yaml"))}
PUBLISHED = {
    name: recipe for name, recipe in RECIPES.items() if list_datasets(recipe) and not (recipe.stages or recipe.signals)
}


UNUSUAL = (
    "HuggingFaceM4/the_cauldron/nlvr2",  # two images a row
    "HuggingFaceM4/FineVision/text_OpenMathInstruct-2",
    "lmms-lab/LLaVA-OneVision-Data/GeoQA+(MathV360K)",
    "lmms-lab/LLaVA-OneVision-Data/ai2d(cauldron,llava_format)",
    "lmms-lab/LLaVA-OneVision-Data/magpie_pro(l3_80b_st)",  # without images
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The first two subsets of every dataset, and those that are unlike them."""
    names = [f"{name}/{subset}" for name, dataset in DATASETS.items() for subset in dataset.subsets[:2]]
    return write_standins(tmp_path_factory.mktemp("standins"), [*names, *UNUSUAL])


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub that huggingface_hub asks in the place of the real one."""
    with Hub() as hub, use_hub(hub, tmp_path_factory.mktemp("cache")):
        yield hub


def read_file(standin, commit, name):
    """(samples, row -> reasons) of a file of a stand-in, as vlmill reads it from the Hub."""
    dataset = standin.dataset
    source = SOURCES[dataset.kind](**dataset.options)
    root = f"hf://datasets/{dataset.repository}@{commit}"
    (file,) = list_input_files("source", root, name, ranged=source.ranged)
    with open_input(file) as path:
        rows = list(source.rows(path, range(len(source.survey(path)))))
    refused = {row.row: tuple(reason.value for reason, _ in row.failed) for row in rows if row.failed}
    return sum(len(row.pages) for row in rows), refused


@pytest.mark.parametrize("name", DATASETS)
def test_every_good_row_is_read_and_every_odd_one_refused_for_its_reason(name, written, hub):
    standin = written[name]
    assert standin.files
    commit = fill_hub(hub, {name: standin})[name]
    for file, contents in standin.files.items():
        assert read_file(standin, commit, file) == (contents.samples, dict(contents.refused)), file
        assert contents.samples


def count_expected(source, standin):
    """(samples, reason -> how often) of the files that a source reads of a stand-in."""
    found = list_input_files("source", source.root, source.files, subset=source.subset, split=source.split)
    contents = [standin.files[file.name] for file in found]
    reasons = Counter(reason for one in contents for lost in one.refused.values() for reason in lost)
    return sum(one.samples for one in contents), reasons


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_recipe_is_built_from_the_hub_and_loses_the_odd_rows_alone(name, hub, tmp_path):
    recipe = PUBLISHED[name]
    written = write_standins(tmp_path, list_datasets(recipe), rows=3)
    fill_hub(hub, written)
    run = tmp_path / "run"
    settings = [*list_settings(recipe, written), "--set", "expect.kept=0"]  # three pages of few words meet no bounds
    assert not vlmill("build", name, "--out", run, "--workers", 0, "--until", "curate", *settings)
    for label, source in recipe.sources.items():
        samples, reasons = count_expected(source, written[find_repository(source.root)])
        read = run / "steps" / label / "read"
        refused = [row for path in read.glob("*.refused.parquet") for row in pq.read_table(path).to_pylist()]
        assert Counter(row["reason"] for row in refused) == reasons
        assert sum(pq.read_metadata(path).num_rows for path in read.glob("*.samples.parquet")) == samples


@pytest.mark.parametrize(
    ("name", "subset", "split", "files"),
    [
        ("HuggingFaceM4/OBELICS", "opt_out_docs_removed_2023_07_12", "train", 2),
        ("HuggingFaceM4/the_cauldron", "nlvr2", "train", 2),
        ("HuggingFaceM4/Docmatix", "images", "train", 1),
        ("lmms-lab/LLaVA-OneVision-Data", "GeoQA+(MathV360K)", "train", 2),
        ("lmms-lab/LLaVA-OneVision-Data", "ai2d(cauldron,llava_format)", "train", 2),
        ("HuggingFaceTB/smoltalk", "all", "test", 1),
    ],
)
def test_subsets_and_splits_are_found_as_the_cards_name_them(name, subset, split, files, written, hub):
    commit = fill_hub(hub, {name: written[name]})[name]
    found = list_input_files("source", f"hf://datasets/{name}@{commit}", None, subset=subset, split=split)
    assert len(found) == files
    assert {file.name for file in found} <= set(written[name].files)


def test_the_same_bytes_are_written_again_and_rows_are_numbered_by_subset(tmp_path):
    names = ["liuhaotian/LLaVA-Instruct-150K", "TIGER-Lab/Mantis-Instruct/star", "pixparse/idl-wds"]
    rows = {names[0]: 1, f"{names[0]}/sharegpt": 3, f"{names[0]}/gqa": 0, names[1]: 2}
    first, again = (write_standins(tmp_path / place, names, rows, odd=False) for place in "ab")
    assert {name: standin.read_files() for name, standin in first.items()} == {
        name: standin.read_files() for name, standin in again.items()
    }
    conversations = json.loads((first[names[0]].root / "llava_v1_5_mix665k.json").read_text())
    assert sum("image" not in row for row in conversations) == 3
    assert len(conversations) == len(DATASETS[names[0]].subsets) - 2 + 3
    assert not any("gqa" in row.get("image", "") for row in conversations)
    assert not any(contents.refused for standin in first.values() for contents in standin.files.values())


def test_pictures_come_in_every_mode_and_texts_in_two_languages_with_copies():
    material = Material("any")
    drawings = [material.picture(number) for number in range(18)]
    modes = {Image.open(io.BytesIO(drawing.data)).mode for drawing in drawings}
    assert modes == {"RGB", "L", "RGBA", "P"}
    assert {Image.open(io.BytesIO(drawing.data)).format for drawing in drawings} == {"PNG", "JPEG"}
    assert len({Image.open(io.BytesIO(drawing.data)).size for drawing in drawings}) > 4
    assert drawings[7] == drawings[4]
    texts = [material.sentences(number) for number in range(18)]
    assert texts[7] == texts[4]
    assert len(set(texts)) == 17
    assert [number for number, text in enumerate(texts) if not text.isascii()] == [5, 13]


def test_the_page_about_datasets_is_made_of_the_registry():
    page = Path(__file__).parents[2] / "docs/datasets.md"
    assert render_table() in page.read_text(encoding="utf-8"), (
        "python -m tests.helpers.standins.table > docs/datasets.md"
    )


def test_a_context_stands_before_its_question_and_strings_are_spoken_by_turns(tmp_path):
    about = json_lines(tmp_path / "a.jsonl", [{"ask": "Why?", "say": "So.", "about": " B "}, {"ask": "Q", "say": "A"}])
    source = SOURCES["instructions"](question="ask", answer="say", context="about")
    said = [[(node.role, node.text) for node in row.pages[0].nodes] for row in source.rows(about, range(2))]
    assert said == [[("user", " B \nWhy?"), ("assistant", "So.")], [("user", "Q"), ("assistant", "A")]]
    turns = json_lines(tmp_path / "b.jsonl", [{"conversations": ["A", "B", "C", "D"]}])
    (row,) = SOURCES["chat"]().rows(turns, range(1))
    spoken = [(node.role, node.turn, node.supervised) for node in row.pages[0].nodes]
    assert spoken == [("user", 0, False), ("assistant", 0, True), ("user", 1, False), ("assistant", 1, True)]
