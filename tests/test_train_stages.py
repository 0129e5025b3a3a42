"""All stages of a recipe in order, as `vlmill train` runs them."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import yaml
from rich.console import Console

from pipeline.errors import RecipeError, StoreError
from tests.stages import ANYRES, LETTERBOX, MACHINE, model_settings, question, write_run
from train.run import train_stages

CONSOLE = Console(quiet=True)
TRAIN = {"steps": 1, "rows": 2, "learning_rate": {"text": 1e-3}, "evaluate": 2}


@pytest.fixture
def run(tmp_path):
    """A run of two stages, letterboxed images first, locked to its recipe."""
    made = {"quiz": [question(number) for number in range(16)]}
    policies = {"small": LETTERBOX, "tiles": ANYRES}
    stages = []
    for name, (policy, settings) in zip(("align", "instruct"), policies.items(), strict=True):
        write_run(tmp_path, made, settings, stage=name, hold_out=2)
        stages.append({"name": name, "policy": policy, "mixture": {"sources": {"quiz": 1}}, "train": TRAIN})
    recipe = {
        "name": "two-stages",
        "sources": {"quiz": {"kind": "cauldron", "files": "*.parquet"}},
        "policies": {name: {"kind": policy.kind, **asdict(policy)} for name, policy in policies.items()},
        "stages": stages,
        "model": asdict(model_settings()),
    }
    (tmp_path / "recipe.lock.yaml").write_text(yaml.safe_dump(to_lists(recipe)))
    return tmp_path


def to_lists(value):
    if isinstance(value, dict):
        return {name: to_lists(item) for name, item in value.items()}
    return [to_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def test_every_stage_is_trained_and_starts_from_the_one_before(run):
    first, second = train_stages(run, None, CONSOLE, MACHINE)
    assert (first.stage, second.stage) == ("align", "instruct")
    assert second.scores["quiz"].samples == 2
    assert (second.export / "processor_config.json").exists()
    # one more run finds all of it done
    before = {path: path.stat().st_mtime_ns for path in (run / "train").glob("**/*.safetensors")}
    assert train_stages(run, None, CONSOLE, MACHINE) == [first, second]
    assert {path: path.stat().st_mtime_ns for path in (run / "train").glob("**/*.safetensors")} == before


def test_a_stage_alone_wants_the_one_before_to_be_trained(run):
    with pytest.raises(StoreError, match="stage 'align' is not trained yet.*vlmill train .* --stage align"):
        train_stages(run, "instruct", CONSOLE, MACHINE)
    (only,) = train_stages(run, "align", CONSOLE, MACHINE)
    assert only.stage == "align"
    (then,) = train_stages(run, "instruct", CONSOLE, MACHINE)
    assert then.stage == "instruct"


def test_a_stage_that_the_recipe_lacks_is_refused_with_the_nearest_name(run):
    with pytest.raises(RecipeError, match="did you mean 'align'"):
        train_stages(run, "aling", CONSOLE, MACHINE)
