"""A stage as a webdataset pipeline: the samples that our own reader has, less those held out, decoded."""

import io
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.helpers.stages import article, question, write_run
from vlmill.mixtures.reader import PlannedMixture
from vlmill.mixtures.webdataset import open_webdataset
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.seal import read_sealed_json, seal_json
from vlmill.pipeline.shards.writer import read_nodes


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    made = {"quiz": [question(number) for number in range(12)], "web": [article(number) for number in range(12)]}
    return write_run(tmp_path_factory.mktemp("built"), made, hold_out=3, per_shard=5)


@pytest.fixture(scope="module")
def mixture(built):
    return PlannedMixture(built, "align")


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read_free(mixture):
    """By id what our reader has, less what is held out."""
    held = set(mixture.held_out())
    free = [item for source in range(len(mixture.sources)) for item in mixture.samples(source) if item not in held]
    return {mixture.about(item)["id"]: stored for item, stored in zip(free, mixture.read(free), strict=True)}


def test_it_has_the_samples_of_our_reader_without_those_held_out(built, mixture):
    expected = read_free(mixture)
    found = {sample["json"]["id"]: sample for sample in open_webdataset(built, "align")}
    assert len(expected) == 18
    assert found.keys() == expected.keys()
    for name, sample in found.items():
        images = [node for node in sample["json"]["nodes"] if node["kind"] == "image"]
        assert read_nodes(sample["json"]) == expected[name].nodes
        assert tuple((node["width"], node["height"]) for node in images) == expected[name].sizes
        for node, parts in zip(images, expected[name].parts, strict=True):
            assert [part.split(".")[1] for part in node["parts"]] == list(parts)
            for part, data in zip(node["parts"], parts.values(), strict=True):
                assert np.array_equal(np.asarray(sample[part]), pixels(data))


def test_the_order_is_that_of_the_shards(built):
    places = [(sample["__url__"], sample["__key__"]) for sample in open_webdataset(built, "align")]
    assert places == sorted(places)
    assert len(set(places)) == len(places) == 18


def test_a_source_of_two_entries_comes_once(built, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(built, run)
    path = run / "mixtures" / "align" / "mixture.lock.json"
    lock = read_sealed_json(path, "")
    path.write_text(seal_json({**lock, "sources": [*lock["sources"], {**lock["sources"][0], "label": "again"}]}))
    assert sum(1 for _ in open_webdataset(run, "align")) == 18


def test_what_webdataset_adds_works_as_its_users_know_it(built):
    pairs = list(open_webdataset(built, "align").shuffle(10).to_tuple("__key__", "json").slice(3))
    assert all(isinstance(key, str) and "nodes" in record for key, record in pairs)
    assert len(pairs) == 3


def test_options_are_those_of_webdataset(built):
    with pytest.raises(TypeError, match="frobnicate"):
        open_webdataset(built, "align", frobnicate=1)
    repeated = open_webdataset(built, "align", resampled=True, seed=1).slice(1000)
    assert sum(1 for _ in repeated) == 1000


def test_it_travels_to_the_workers_of_a_loader(built):
    again = pickle.loads(pickle.dumps(open_webdataset(built, "align")))
    assert [sample["__key__"] for sample in again] == [sample["__key__"] for sample in open_webdataset(built, "align")]


def test_a_stage_that_is_not_there_is_said_with_the_next_command(built):
    with pytest.raises(StoreError, match="no mixture for stage 'alien'; make it with: vlmill build"):
        open_webdataset(built, "alien")
