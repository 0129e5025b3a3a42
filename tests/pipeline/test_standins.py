"""Published datasets that recipes name, from stand-ins on a loopback Hub: good rows are read, odd ones are refused."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.hub import Hub
from tests.helpers.small import vlmill
from tests.helpers.standins import DATASETS, fill_hub, write_standins
from tests.helpers.standins.serve import find_repository, list_datasets, list_settings, use_hub
from vlmill.pipeline.inputs.files import list_input_files, open_input
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.sources import SOURCES

RECIPES = {path.stem: load_recipe(str(path))[0] for path in sorted(Path(str(files("vlmill.recipes"))).glob("*.yaml"))}
PUBLISHED = {name: recipe for name, recipe in RECIPES.items() if list_datasets(recipe)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The first three subsets of every dataset."""
    names = [f"{name}/{subset}" for name, dataset in DATASETS.items() for subset in dataset.subsets[:3]]
    return write_standins(tmp_path_factory.mktemp("standins"), names)


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
        rows = list(source.rows(path, 0, len(source.survey(path))))
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
    assert not vlmill("build", name, "--out", run, "--workers", 0, "--until", "curate", *list_settings(recipe, written))
    for label, source in recipe.sources.items():
        samples, reasons = count_expected(source, written[find_repository(source.root)])
        read = run / "steps" / label / "read"
        refused = [row for path in read.glob("*.refused.parquet") for row in pq.read_table(path).to_pylist()]
        assert Counter(row["reason"] for row in refused) == reasons
        assert sum(pq.read_metadata(path).num_rows for path in read.glob("*.samples.parquet")) == samples
