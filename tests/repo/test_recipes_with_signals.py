"""Shipped recipes with models: the published bounds, errors that say how to give a model, and builds with tiny ones."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from tests.helpers import models
from tests.helpers.hub import Hub
from tests.helpers.small import vlmill
from tests.helpers.standins import fill_hub, write_standins
from tests.helpers.standins.serve import list_datasets, list_settings, use_hub
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.signals.weights import check_weights

BOUNDS = {
    "obelics_quality": {
        "ppl": {"max_quantile": 0.95},  # Idefics2
        "fit": {"min": 0.15},  # MMC4
        "nsfw": {"max": 0.8},
    },
    "laion_quality": {
        "fit": {"min": 0.28},  # LAION-5B
        "aesthetic": {"min": 4.5},
        "watermark": {"max": 0.8},
        "nsfw": {"max": 0.8},
    },
    "documents_quality": {"ocr_area": {"min": 0.01}, "ocr_lines": {"min": 3}, "ocr_chinese": {"max": 0.2}},
}
SCORED = tuple(BOUNDS)
NEEDS = {
    "obelics_quality": ("wordfreq", "onnxruntime"),
    "laion_quality": ("onnxruntime",),
    "documents_quality": ("rapidocr",),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Tiny models."""
    place = tmp_path_factory.mktemp("models")
    models.save_clip(place / "clip")
    models.save_language_model(place / "language_model")
    models.save_onnx_mean(place / "mean.onnx")
    save_file({"weight": np.ones(8, np.float32)}, place / "head.safetensors")
    return place


def name_models(place, name):
    """The options that give a recipe's signals tiny models. The ONNX file takes pictures of 8 px."""
    mean = f"{{kind: onnx_classifier, model: {place}/mean.onnx, side: 8}}"
    given = {
        "ppl.model": f"{place}/language_model",
        "fit.model": f"{place}/clip",
        "aesthetic.model": f"{place}/clip",
        "aesthetic.head": f"{place}/head.safetensors",
        "watermark": mean,
        "nsfw": mean,
    }
    signals = load_recipe(name)[0].signals
    options = [f"signals.{key}={value}" for key, value in given.items() if key.partition(".")[0] in signals]
    return [part for option in options for part in ("--set", option)]


@pytest.mark.parametrize("name", SCORED)
def test_the_bounds_are_those_that_were_published(name):
    recipe = load_recipe(name)[0]
    filters = {filter_.name: filter_ for filter_ in recipe.filters}
    given = {
        column: {key: value for key, value in vars(bound).items() if value not in (None, False, ())}
        for column, bound in filters["threshold"].any.items()
    }
    assert given == BOUNDS[name]
    assert set(filters["threshold"].columns) <= set(recipe.list_values())
    assert (filters["language"].drop, filters["language"].strict) == (("zh",), True)


def test_obelics_has_both_the_bounds_of_the_fragment_and_those_of_common_words():
    text = next(one for one in load_recipe("obelics_quality")[0].filters if one.name == "text_quality")
    assert (text.node.min_common_words, text.sample.min_common_words) == (0.8, 0.9)
    assert (text.node.min_stop_words, text.sample.min_stop_words, text.languages) == (0.3, 0.35, ("en",))


def test_a_model_that_is_not_there_is_an_error_that_says_how_to_give_one(tmp_path):
    recipe = load_recipe("obelics_quality")[0]
    with pytest.raises(RecipeError, match=r"signals.ppl.model.path: there is no .*--set signals.ppl.model.path=/data"):
        check_weights(recipe.signals["ppl"], "signals.ppl", tmp_path)


@pytest.mark.parametrize("name", SCORED)
def test_a_recipe_scores_and_drops_what_stand_ins_hold(name, place, tmp_path):
    for package in NEEDS[name]:
        pytest.importorskip(package)
    recipe, run = load_recipe(name)[0], tmp_path / "run"
    with Hub() as hub, use_hub(hub, tmp_path / "cache"):
        written = write_standins(tmp_path / "standins", list_datasets(recipe), rows=3)
        fill_hub(hub, written)
        settings = [*list_settings(recipe, written), *name_models(place, name), "--set", "expect.kept=0"]
        assert not vlmill("build", name, "--out", run, "--workers", 0, "--until", "signals", *settings)
    for source in recipe.sources:
        for signal in recipe.signals:
            tables = [pl.read_parquet(path) for path in run.glob(f"steps/{source}/{signal}/*.scores.parquet")]
            assert sum(table.height for table in tables) > 0, (source, signal)
    verdicts = pl.concat(pl.read_parquet(path) for path in run.glob("steps/*/threshold/*.verdicts.parquet"))
    assert set(verdicts["reason"]) <= {f"signal:{column}" for column in BOUNDS[name]}
    assert verdicts.height > 0
