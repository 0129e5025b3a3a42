"""vlmill clean: what a recipe has no use for is said with sizes, and nothing else ever goes."""

import json

import pytest
import yaml

import vlmill
from tests.helpers.small import vlmill as command
from tests.helpers.small import write_recipe
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.engine.store import Store


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def run(inputs, tmp_path):
    assert command("build", inputs, "--out", tmp_path / "run", "--workers", 0) == 0
    return vlmill.open_run(tmp_path / "run")


def list_files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_complete_run_has_nothing_to_clean(run, capsys):
    assert run.list_unused() == []
    assert command("clean", run.folder) == 0
    assert "everything in the folder is of use" in capsys.readouterr().out


def test_what_an_earlier_recipe_left_goes_and_a_build_then_has_nothing_to_do(run, inputs, capsys):
    changed = yaml.safe_load(inputs.read_text())
    del changed["sources"]["scans"]
    for stage in changed["stages"]:
        for form in ("shares", "entries", "repeat"):
            stage["mixture"].get(form, {}).pop("scans", None)
    changed["fetch"] = {**changed["fetch"], "max_bytes": 1 << 19}
    smaller = inputs.with_name("smaller.yaml")
    smaller.write_text(yaml.safe_dump(changed, sort_keys=False))
    assert command("build", smaller, "--out", run.folder, "--workers", 0, "--accept-changes") == 0
    again = vlmill.open_run(run.folder)
    found = {one.folder: one for one in again.list_unused()}
    assert found["steps/scans/read"].why == found["shards/scans/small"].why == "the recipe has no such step"
    assert found["steps/web/fetch"].why == "no manifest names them"  # images that were fetched under other bounds
    before = list_files(run.folder)
    capsys.readouterr()
    assert command("clean", run.folder) == 0
    assert list_files(run.folder) == before
    assert "nothing was removed; to do so: vlmill clean" in capsys.readouterr().out
    assert command("clean", run.folder, "--yes", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    after = list_files(run.folder)
    gone = before.keys() - after.keys()
    assert sum(one["files"] for one in said) == len(gone)
    assert sum(one["bytes"] for one in said) == sum(len(before[name]) for name in gone)
    assert not (run.folder / "steps" / "scans").exists()
    assert again.list_unused() == again.verify() == []
    assert command("build", smaller, "--out", run.folder, "--workers", 0) == 0
    kept = {name: data for name, data in list_files(run.folder).items() if not name.startswith("logs/")}
    assert kept == {name: data for name, data in after.items() if not name.startswith("logs/")}


def test_an_incomplete_step_is_left_alone(run):
    (run.folder / "steps/web/language/manifest.json").unlink()
    stray = run.folder / "steps/web/shape/stray.verdicts.parquet"
    stray.write_bytes(b"stray")
    assert [one.paths for one in run.clean()] == [("steps/web/shape/stray.verdicts.parquet",)]
    assert not stray.exists()
    assert list((run.folder / "steps/web/language").glob("*.receipt.json"))


def test_nothing_goes_while_a_build_is_at_work(run):
    with Store(run.folder).locked(), pytest.raises(StoreError, match="another build"):
        run.clean()
