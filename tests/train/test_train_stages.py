"""All stages of a recipe in order, as `vlmill train` runs them."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from tests.helpers.stages import (
    ANYRES,
    LETTERBOX,
    MACHINE,
    model_settings,
    question,
    to_lists,
    write_run,
)
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.cli import training
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.recipe.lock import UNBUILT
from vlmill.train.run import train_stages
from vlmill.train.trace import find_steps, list_seen, list_trained_stages

CONSOLE = Console(quiet=True)
TRAIN = {"steps": 1, "sequences": 2, "learning_rate": {"text": 1e-3}, "evaluate": 2}


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


def test_every_stage_is_trained_and_starts_from_the_one_before(run):
    first, second = train_stages(run, None, MACHINE, CONSOLE)
    assert (first.stage, second.stage) == ("align", "instruct")
    assert second.scores["quiz"].samples == 2
    assert (second.export / "processor_config.json").exists()
    # one more run finds all of it done
    before = {path: path.stat().st_mtime_ns for path in (run / "train").glob("**/*.safetensors")}
    assert train_stages(run, None, MACHINE, CONSOLE) == [first, second]
    assert {path: path.stat().st_mtime_ns for path in (run / "train").glob("**/*.safetensors")} == before


def test_a_model_of_a_run_that_is_not_built_to_its_end_says_so_in_its_readme(run):
    said = "The run was not built to its end"
    (run / UNBUILT).write_text("filters.language.drop: [zh] -> [de]\n")
    (first,) = train_stages(run, "align", MACHINE, CONSOLE)
    assert said in (first.export / "README.md").read_text()
    (run / UNBUILT).unlink()
    (second,) = train_stages(run, "instruct", MACHINE, CONSOLE)
    assert said not in (second.export / "README.md").read_text()


def test_what_a_step_saw_and_which_steps_saw_a_sample_are_two_ways_through_one_plan(run):
    found = {step: [segment.id for segment in list_seen(run, "align", step)] for step in range(TRAIN["steps"])}
    assert list_trained_stages(run) == ["align", "instruct"]
    assert len(found[0]) > 1
    for name in {name for names in found.values() for name in names}:
        assert find_steps(run, "align", name) == [step for step, names in found.items() if name in names]
    (first, *_) = list_seen(run, "align", 0)
    mixture = PlannedMixture(run, "align")
    assert (first.sequence, first.tokens) == (0, mixture.sequence(0)[0].tokens)
    assert len(first.images) == 1
    assert find_steps(run, "align", "quiz/no-such#0") == []
    with pytest.raises(RecipeError, match="--step 9: stage 'align' has steps 0 to 0"):
        list(list_seen(run, "align", 9))
    with pytest.raises(RecipeError, match="--stage alin: .*did you mean .*align"):
        list(list_seen(run, "alin", 0))
    with pytest.raises(RecipeError, match="several stages, say which with --stage: align, instruct"):
        list(list_seen(run, None, 0))


def test_a_stage_alone_wants_the_one_before_to_be_trained(run):
    with pytest.raises(
        StoreError,
        match="stage 'align' is not trained yet, and its weights are wanted here.*vlmill train .* --stage align",
    ):
        train_stages(run, "instruct", MACHINE, CONSOLE)
    (only,) = train_stages(run, "align", MACHINE, CONSOLE)
    assert only.stage == "align"
    (then,) = train_stages(run, "instruct", MACHINE, CONSOLE)
    assert then.stage == "instruct"


def test_a_stage_that_the_recipe_lacks_is_refused_with_the_nearest_name(run):
    with pytest.raises(RecipeError, match="did you mean 'align'"):
        train_stages(run, "aling", MACHINE, CONSOLE)


def test_of_several_ranks_the_first_alone_says_where_the_model_lies(tmp_path, monkeypatch, capsys):
    result = SimpleNamespace(stage="align", export=tmp_path / "export")
    monkeypatch.setattr("vlmill.api.training.train_run", lambda *_: [result])
    said = {}
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        training.train(tmp_path)
        out = capsys.readouterr().out
        said[rank] = "trained align" in out
        assert said[rank] == out.startswith("loading torch and transformers\n")
    assert said == {"1": False, "0": True}
