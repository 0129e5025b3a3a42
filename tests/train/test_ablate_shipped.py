"""The shipped ablations: each is read, planned, and trained for two steps on a few rows of the data that ship.

Variants that differ in numbers alone (rates, steps, shares) are planned all, and trained once. `quickstart`, whose
recipe takes a build of four sources, is read alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import vlmill as api
from tests.helpers.stages import MACHINE
from vlmill.api.builds import build_recipe
from vlmill.api.training import train_run
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.terminal import make_console
from vlmill.train.ablation.plan import describe_plan, plan_runs
from vlmill.train.ablation.report import make_report
from vlmill.train.ablation.runs import prepare_runs
from vlmill.train.ablation.spec import find_ablation, list_trials, read_ablation
from vlmill.train.run import find_final_checkpoint

FOLDER = Path(__file__).parents[2] / "recipes/ablations"
ABLATIONS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SCALE = "0.0035"
"""Of rows, budgets and steps: 32 rows of each source, and two steps of 600."""

ALIKE = {
    "adapters": ["frozen", "full"],
    "bilinear": ["pool"],
    "connectors": ["pool", "bilinear", "perceiver"],
    "cross_attention": ["tokens-frozen", "cross-frozen"],
    "denials": ["without"],
    "epochs": ["twice", "thrice"],
    "instruct": ["base"],
    "one_stage": ["one-stage"],
    "perceiver": ["all", "pool"],
    "positions": ["rope-tie"],
    "splitting": ["never", "always"],
    "text_only": ["without", "fifth"],
    "upsampling": ["plain"],
    "vision_rate": ["frozen", "tenth", "fifth"],
}
"""Variants whose code another one runs as well, of theirs or of another ablation: they are not trained here."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A run whose files all of them share."""
    recipe = api.load_recipe("quickstart_ablations", scale=float(SCALE))
    return api.build(recipe, tmp_path_factory.mktemp("shipped") / "run", workers=0).folder


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name != "quickstart"])
def test_it_is_planned_and_trained(name, built, tmp_path):
    spec = read_ablation(find_ablation(name), {"scale": SCALE, "seeds": "[0]"})
    trials, make = list_trials(spec, {}, None), partial(build_recipe, workers=0, console=make_console(quiet=True))
    runs = prepare_runs(tmp_path, trials, make, built)
    plan = plan_runs(spec, trials, runs, tmp_path)
    assert set(plan.steps) == set(spec.variants)
    assert plan.samples > 2
    assert any("held-out samples" in sentence for sentence in describe_plan(plan))
    trained = {run: folder for run, folder in runs.items() if run[0] not in ALIKE.get(name, [])}
    for folder in trained.values():
        (*_, last) = train_run(folder, None, MACHINE)
        assert find_final_checkpoint(folder, last.stage) == last.checkpoint
        assert all(score.questions > 0 for score in last.scores.values())
    if len(trained) == len(runs):
        assert set(make_report(spec, runs)["differences"]) == set(spec.variants) - {spec.baseline}


@pytest.mark.parametrize("name", ABLATIONS)
def test_its_head_says_what_was_published_and_where(name):
    head = [line for line in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert head[0].startswith(f"# vlmill ablate {name}: ")
    assert any("arXiv" in line or "http" in line or "Published" in line for line in head)


def test_quickstart_is_read_whole_by_name():
    spec = read_ablation(find_ablation("quickstart"))
    assert len(list_trials(spec, {}, None)) == len(spec.variants) * len(spec.seeds)


def test_five_points_are_seen_with_the_seeds_that_are_shipped(built):
    """By the pilot's variation, on the held-out samples that the whole data have."""
    from vlmill.train.ablation.power import MEASURED, find_detectable

    seeds = {name: len(read_ablation(find_ablation(name)).seeds) for name in ABLATIONS if name != "quickstart"}
    assert {find_detectable(MEASURED, number, 380) <= 0.05 for number in seeds.values()} == {True}


def test_towers_of_ones_own_take_the_place_of_the_tiny_ones_in_the_same_file():
    own = {
        "model.vision": "{kind: clip, hidden_size: 16, layers: 1, heads: 1, image_size: 28, patch_size: 14}",
        "policies.shown.side": "28",
        "policies.shown.patch": "14",
        "stages.tune.train.steps": "3",
    }
    spec = read_ablation(find_ablation("image_fit"), own)
    trials = list_trials(spec, {}, None)
    assert {trial.recipe.policies["shown"].kind for trial in trials} == {"letterbox", "resize", "crop"}
    assert {trial.recipe.policies["shown"].side for trial in trials} == {28}
    assert {trial.recipe.model["vision"]["kind"] for trial in trials} == {"clip"}
    assert {trial.recipe.stages[-1].train["steps"] for trial in trials} == {3}


def test_language_models_of_ones_own_are_compared_without_the_stages_that_stand_for_their_pretraining():
    """As the head of instruct.yaml has it."""
    said = "{{tokenizer: quickstart/tokenizer.json, model.text: {{kind: pretrained, path: {}}}}}"
    base, instruct = said.format("a"), said.format("b")
    tune = "[{name: tune, policy: shown, train: {steps: 3, learning_rate: {projector: 1.0e-3}}, mixture: {shares: "
    tune += "{questions: 1}, sequence_length: 512, held_out: {questions: 0.25}}}]"
    sets = {"seeds": "[0]", "variants.base": base, "variants.instruct": instruct, "stages": tune}
    trials = list_trials(read_ablation(find_ablation("instruct"), sets), {}, None)
    assert {trial.variant: trial.recipe.model["text"]["path"] for trial in trials} == {"base": "a", "instruct": "b"}
    assert {tuple(stage.name for stage in trial.recipe.stages) for trial in trials} == {("tune",)}


def test_a_value_of_all_variants_goes_into_stages_that_a_variant_names_anew():
    sets = {"seeds": "[0]", "stages.tune.train.steps": "7"}
    trials = list_trials(read_ablation(find_ablation("one_stage"), sets), {}, None)
    steps = {trial.variant: [stage.train["steps"] for stage in trial.recipe.stages] for trial in trials}
    assert steps == {"two-stages": [200, 150, 7], "one-stage": [200, 7]}


def test_what_would_undo_a_variant_is_refused_with_the_way_out():
    with pytest.raises(
        RecipeError, match=r"undo what variant 'resize' sets.*--set variants.resize.policies.shown.kind="
    ):
        read_ablation(find_ablation("image_fit"), {"policies.shown": "{kind: crop}"})


def test_variants_and_seeds_are_changed_by_name():
    sets = {"seeds": "[4]", "variants.crop": "{policies.shown.side: 28}", "variants.resize.model.text.layers": "1"}
    spec = read_ablation(find_ablation("image_fit"), sets)
    assert spec.seeds == (4,)
    assert spec.list_changes("crop") == {"policies.shown.side": 28}
    assert spec.list_changes("resize") == {"policies.shown.kind": "resize", "model.text.layers": 1}
    with pytest.raises(RecipeError, match="there is no variant 'crip'.*did you mean 'crop'"):
        read_ablation(find_ablation("image_fit"), {"variants.crip.policies.shown.side": "28"})
