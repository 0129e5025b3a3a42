"""What trace says of the training steps that see a sample, and why none does."""

import copy

from tests.helpers.small import RECIPE, vlmill, write_recipe
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.losses import list_losses


def test_a_sample_that_no_step_sees_says_why(tmp_path, capsys):
    (stage,) = copy.deepcopy(RECIPE["stages"])
    stage["mixture"]["shares"] = {"web": 0.5, "scans": 0.5}
    stage["train"] |= {"steps": 1, "sequences": 1}
    other = {**copy.deepcopy(stage), "name": "tune"}
    other["mixture"]["shares"] = {"quiz": 1}
    root = tmp_path / "run"
    recipe = write_recipe(tmp_path, stages=[stage, other])
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0

    def trace(name):
        capsys.readouterr()
        assert vlmill("trace", root, name) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "stage align: no step sees it: its mixture does not name quiz" in trace("quiz/quiz.parquet#0")
    losses = list_losses(root, read_locked_recipe(root), "web")
    lost = next(loss for loss in losses if loss.node == -1)
    assert f"stage align: no step sees it: it was lost before: {lost.reason}" in trace(lost.id)
