"""What is left at the end of a build: `min_images` counts it, and what cannot be said of it is no success."""

from __future__ import annotations

import pytest
import yaml

from tests.helpers.small import prose, vlmill
from tests.helpers.upstream import obelics, picture
from vlmill.pipeline.reports.funnel import find_steps_by_reason, read_funnel, sample_losses


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Three documents with a picture each, of which two are the same."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "served").mkdir()
    for number, seed in enumerate((0, 1, 0)):
        (folder / f"served/{number}.png").write_bytes(picture(seed, (160, 120)))
    documents = [[prose(n), f"http://img.small.test/{n}.png", prose(100 + n)] for n in range(3)]
    obelics(folder / "web.parquet", documents)
    recipe = {
        "name": "least",
        "sources": {
            "web": {"kind": "obelics", "files": "web.parquet", "serve": {"http://img.small.test/": "served"}},
        },
        "dedupe": {"across_documents": True},
        "filters": [{"shape": {"min_images": 1}}],
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert vlmill("build", folder / "recipe.yaml", "--out", folder / "run", "--workers", 0) == 0
    return folder / "run"


def test_a_sample_that_dedupe_takes_the_last_image_of_is_dropped_for_too_few(built, capsys):
    funnel = read_funnel(built)
    assert funnel["web"]["samples"]["dropped"] == {"too_few_images": 1}
    assert funnel["web"]["images"]["dropped"] == {"exact_image": 1}
    assert find_steps_by_reason(built, "web")["too_few_images"] == ["shape"]
    (loss,) = sample_losses(built, funnel, "too_few_images", 5)[:1]
    assert (loss.kind, loss.filter, loss.score) == ("sample", "shape", 1)
    assert vlmill("verify", built) == 0
    capsys.readouterr()
    assert vlmill("trace", built, loss.id) == 0
    assert "shape drops the sample: too_few_images (fewer than 1 are left)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_statistics_of_a_run_without_stages_are_an_error(built, capsys, more):
    assert vlmill("stats", built, *more) == 1
    assert "has no stages, so it has no mixtures" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_scoring_without_held_out_samples_is_an_error(built, monkeypatch, capsys, more):
    monkeypatch.setattr("vlmill.train.run.evaluate_stage", lambda *_: ("tune", {}))
    assert vlmill("evaluate", built, *more) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "stage tune has no held-out samples; set them in its mixture" in said
    assert "--accept-changes && vlmill train" in said
