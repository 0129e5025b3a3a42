"""Complete recipes, from the datasets that they name to trained stages: built from stand-ins, made small, and exported.

What was published of a stage's mixture is compared with what a plan over the stand-ins comes to. One recipe of each
model family is built and trained; all of them, and all entries of every mixture: `benchmarks/recipes.py`.
"""

from __future__ import annotations

import json
import math

import pytest
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoTokenizer

from tests.helpers.complete_recipes import build_small, compose_complete, list_complete_recipes, list_planned
from tests.helpers.hub import Hub
from tests.helpers.small import vlmill
from tests.helpers.stages import MACHINE
from tests.helpers.standins.serve import use_hub
from vlmill.train.run import train_stages
from vlmill.train.validate import validate_whole_recipe

RECIPES = list_complete_recipes()
FIRST = sorted({compose_complete(name).recipe.model["family"]: name for name in reversed(RECIPES)}.values())
"""The first recipe of each model family."""
NEAR = 0.25
"""Relative error of shares by published counts, beside two samples: filters do not lose as much of every source."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub in the place of the real one."""
    with Hub() as hub, use_hub(hub, tmp_path_factory.mktemp("cache")):
        yield hub


@pytest.mark.parametrize("name", RECIPES)
def test_a_complete_recipe_is_read_without_the_hub_and_shows_where_every_value_is_from(name, capsys):
    found = compose_complete(name)
    validate_whole_recipe(found.recipe)
    assert found.recipe.name == name
    assert not vlmill("check", name, "--show")
    shown = capsys.readouterr().out
    assert all(f"- name: {stage.name}  # " in shown for stage in found.recipe.stages)


def list_amounts(stats, published):
    """Of each source of a plan by repeats of all of it: label, share, share by published counts, samples planned."""
    found = {source["name"]: published[source["name"]] for source in stats["sources"]}
    amounts = {name: (item.entry.repeat or 1) * (item.amount or 0) for name, item in found.items()}
    whole = all(item.entry.share is None and item.entry.take == "all" for item in found.values())
    if whole and all(amounts.values()):
        for source in stats["sources"]:
            wanted = amounts[source["name"]] / sum(amounts.values())
            yield source["name"], source["realised"][stats["unit"]], wanted, source["planned"]["samples"]


@pytest.mark.parametrize("name", FIRST)
def test_every_stage_of_a_complete_recipe_is_built_with_the_published_proportions_trained_and_exported(
    name, hub, tmp_path
):
    built = build_small(name, hub, tmp_path)
    epochs = {stage["name"]: stage["mixture"]["epochs"] for stage in built.data["stages"]}
    for stage in built.published:
        stats = json.loads((built.run / "mixtures" / stage / "stats.json").read_text())
        for source, planned, wanted, sample in list_planned(stats, built.published[stage], epochs[stage]):
            assert planned == pytest.approx(wanted, abs=sample), (stage, source)
        for source, share, wanted, planned in list_amounts(stats, built.published[stage]):
            assert share == pytest.approx(wanted, rel=NEAR + 2 / planned), (stage, source)
    assert_trained(built)


def assert_trained(built):
    """Every stage trains, and its export is a model that transformers loads."""
    results = train_stages(built.run, None, MACHINE, Console(quiet=True))
    assert [result.stage for result in results] == [stage["name"] for stage in built.data["stages"]]
    for result in results:
        losses = [json.loads(line)["loss"] for line in result.log.read_text().splitlines()]
        assert losses
        assert all(math.isfinite(loss) for loss in losses)
        model = AutoModelForImageTextToText.from_pretrained(result.export, trust_remote_code=True)
        tokenizer = AutoTokenizer.from_pretrained(result.export)
        assert model.get_input_embeddings().num_embeddings >= len(tokenizer)
