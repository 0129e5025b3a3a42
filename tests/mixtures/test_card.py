"""The data card of a run: what stands in it, that it is the same on every machine, and that it follows the run."""

import shutil

import pytest
import yaml
from huggingface_hub import DatasetCardData

from tests.helpers.small import RECIPE, vlmill, write_recipe
from vlmill.mixtures.report.card import choose_licence, make_card, name_size
from vlmill.pipeline.core.yaml_format import format_yaml

DESCRIBED = {
    **RECIPE["sources"],
    "web": {**RECIPE["sources"]["web"], "homepage": "https://example.org/web", "citation": "arXiv:2306.16527"},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("input files"), sources=DESCRIBED)


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return root


@pytest.fixture
def run(built, tmp_path):
    return shutil.copytree(built, tmp_path / "run")


def read_card(root):
    """The metadata and the text."""
    _, header, text = (root / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), text


def test_the_metadata_is_what_the_hub_reads(built):
    header, text = read_card(built)
    assert header == {
        "pretty_name": "small",
        "license": "cc0-1.0",
        "task_categories": ["image-text-to-text"],
        "size_categories": ["n<1K"],
        "viewer": False,
    }
    assert DatasetCardData(**header).to_dict()["license"] == "cc0-1.0"
    assert "vlmill export DIR --stage STAGE --to parquet" in text


def test_the_card_says_where_data_come_from_what_was_lost_and_what_is_trained_on(built):
    _, text = read_card(built)
    assert "| web | obelics | CC0-1.0 | other files | https://example.org/web | arXiv:2306.16527 | 1 |" in text
    assert "| quiz | cauldron | CC0-1.0 | other files | unknown | unknown | 1 |" in text
    assert "| web | rows | 8 | 8 | 0 | 0 |" in text
    assert "| web | samples | language | language | 1 |" in text
    assert "| web | images | not_an_image | fetch | 1 |" in text or "| web | images | not_an_image |" in text
    assert "## Mixture of stage align" in text
    assert "| scans | 20.00% |" in text
    assert "held against no benchmark" in text
    assert "vlmill build recipe.lock.yaml" in text
    assert "pyarrow " in text


def test_the_card_names_no_place_of_the_machine_and_is_the_same_in_another_folder(built, run):
    assert str(built) not in (built / "README.md").read_text()
    assert str(built.parents[1]) not in (built / "README.md").read_text()
    assert make_card(run) == (built / "README.md").read_text()


def test_verify_sees_a_card_that_was_edited_and_the_next_build_writes_it_anew(recipe, run, capsys):
    before = (run / "README.md").read_text()
    (run / "README.md").write_text(before.replace("CC0-1.0", "MIT"))
    assert vlmill("verify", run) == 1
    assert "README.md: is not what the run comes to" in capsys.readouterr().out
    assert vlmill("build", recipe, "--out", run, "--workers", 0) == 0
    assert (run / "README.md").read_text() == before
    assert vlmill("verify", run) == 0


def test_another_homepage_needs_no_word_and_runs_nothing_again(recipe, run, capsys):
    arguments = ("--set", "sources.web.homepage=https://example.org/new")
    receipts = {path: path.stat().st_mtime_ns for path in run.rglob("*.receipt.json")}
    assert vlmill("build", recipe, "--out", run, "--workers", 0, *arguments) == 0
    assert "https://example.org/new" in (run / "README.md").read_text()
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.receipt.json")} == receipts


def test_a_build_that_stops_early_leaves_no_card(recipe, run):
    assert vlmill("build", recipe, "--out", run, "--workers", 0, "--until", "curate") == 0
    assert not (run / "README.md").exists()


def test_a_takedown_writes_the_card_anew(run):
    before = (run / "README.md").read_text()
    assert vlmill("takedown", run, "--id", "quiz/quiz.parquet#3", "--workers", 0) == 0
    assert (run / "README.md").read_text() == make_card(run) != before
    assert "taken_down" in (run / "README.md").read_text() or "takedown" in (run / "README.md").read_text()
    assert vlmill("verify", run) == 0


@pytest.mark.parametrize(
    ("licences", "header"),
    [
        (["MIT", "MIT"], {"license": "mit"}),
        (["MIT", ""], {"license": "unknown"}),
        (["MIT", "CC0-1.0"], {"license": "other", "license_name": "several"}),
        (["house licence"], {"license": "other", "license_name": "house licence"}),
    ],
)
def test_the_licence_is_that_of_all_sources_or_none(licences, header):
    assert choose_licence(licences) == header


@pytest.mark.parametrize(
    ("samples", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (123_456, "100K<n<1M"), (10**12, "n>1T")]
)
def test_the_size_is_the_hubs_name_for_it(samples, name):
    assert name_size(samples) == name


def test_a_bar_in_a_name_does_not_break_a_table(recipe, tmp_path):
    other = tmp_path / "recipe.yaml"
    data = yaml.safe_load(recipe.read_text())
    data["sources"] = {"quiz": {**data["sources"]["quiz"], "root": str(recipe.parent), "homepage": "a|b"}}
    data["stages"], data["tokenizer"] = [], None
    other.write_text(format_yaml(data))
    assert vlmill("build", other, "--out", tmp_path / "run", "--workers", 0) == 0
    assert "a\\|b" in (tmp_path / "run/README.md").read_text()
