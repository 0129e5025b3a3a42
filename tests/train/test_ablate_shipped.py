"""The shipped ablations: each is read, planned, and trained for a step or two on a few rows of the data that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmill as api
from tests.helpers.stages import MACHINE
from vlmill.train.ablation.spec import find_ablation, read_ablation

ABLATIONS = sorted(path.stem for path in (Path(__file__).parents[2] / "recipes/ablations").glob("*.yaml"))
SCALE = 0.0035
"""Of rows, budgets and steps: 32 rows of each source, two steps of 600."""

FEW = {"epochs": {"set.stages.tune.mixture.epochs": 1}}
"""What keeps others short whose steps follow from the data."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A run whose files all of them share."""
    recipe = api.load_recipe("quickstart_ablations", scale=SCALE)
    return api.build(recipe, tmp_path_factory.mktemp("shipped") / "run", workers=0).folder


def list_small(name):
    return {"scale": SCALE, "seeds": [0], **FEW.get(name, {})}


@pytest.mark.parametrize("name", ABLATIONS)
def test_it_is_planned_and_trained_and_compared(name, built, tmp_path):
    found = api.ablate(name, tmp_path / name, source_run=built, settings=list_small(name), workers=0, machine=MACHINE)
    spec = read_ablation(find_ablation(name))
    assert set(found.report["variants"]) == set(spec.variants)
    assert set(found.report["differences"]) == set(spec.variants) - {spec.baseline}
    for variant in found.report["variants"].values():
        assert variant["cost"]["steps"] >= 1
        assert variant["cost"]["tokens"] > 0
