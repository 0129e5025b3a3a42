"""The whole run as a scaled one foretells it: rows exactly, the rest in proportion."""

import json
import shutil

import pytest

from tests.helpers.small import vlmill, write_recipe
from tests.pipeline.test_scale import SIZES, recipe  # noqa: F401 - a fixture
from vlmill.pipeline.checks.extrapolate import extrapolate_run
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.timings import TIMINGS, TimingLog
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.verify import list_manifests


@pytest.fixture(scope="module")
def scaled(recipe, tmp_path_factory):  # noqa: F811
    root = tmp_path_factory.mktemp("scaled") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--scale", 0.1) == 0
    return root


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):  # noqa: F811
    root = tmp_path_factory.mktemp("whole") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return root


def list_folder_bytes(root, source):
    return sum(
        file.size
        for path in list_manifests(root)
        for receipt in read_manifest(root, str(path.parent.relative_to(root)))
        for file in receipt.files
        if str(path.relative_to(root)).split("/")[1] == source
    )


def test_rows_are_those_of_the_whole_run_and_samples_and_bytes_come_near(scaled, whole):
    found = {of.source: of for of in extrapolate_run(scaled).sources}
    assert {source: of.rows for source, of in found.items()} == SIZES
    assert found["web"].samples == pytest.approx(read_funnel(whole)["web"]["samples"]["kept"], rel=0.02)
    assert found["web"].costs.bytes == pytest.approx(list_folder_bytes(whole, "web"), rel=0.35)


def test_the_whole_run_foretells_itself(whole):
    found = {of.source: of for of in extrapolate_run(whole).sources}
    for source in SIZES:
        assert found[source].samples == read_funnel(whole)["" + source]["samples"]["kept"]
        assert found[source].costs.bytes == list_folder_bytes(whole, source)


def test_every_task_that_was_done_is_timed_and_times_stand_in_the_log_alone(scaled, tmp_path):
    keys = {
        (str(path.parent.relative_to(scaled)), receipt.key)
        for path in list_manifests(scaled)
        for receipt in read_manifest(scaled, str(path.parent.relative_to(scaled)))
    }
    assert {*TimingLog(scaled).read()} == keys
    assert all(seconds > 0 for seconds in TimingLog(scaled).read().values())
    copy = shutil.copytree(scaled, tmp_path / "run")
    shutil.rmtree(copy / "logs")
    assert vlmill("verify", copy) == 0
    assert extrapolate_run(copy).total.timed == 0
    assert extrapolate_run(copy).total.bytes == extrapolate_run(scaled).total.bytes


def test_times_grow_with_the_rows_and_what_was_done_in_full_stays(scaled, tmp_path):
    copy = shutil.copytree(scaled, tmp_path / "run")
    lines = [json.loads(line) for line in (copy / TIMINGS).read_text().splitlines()]
    (copy / TIMINGS).write_text("".join(json.dumps({**line, "seconds": 1.0}) + "\n" for line in lines) + "{cut")
    found = {of.source: of for of in extrapolate_run(copy).sources}
    web, tasks = found["web"], {line["folder"] for line in lines if line["folder"].split("/")[1] == "web"}
    scaled_tasks = sum(line["folder"] in tasks and not line["folder"].endswith("/survey") for line in lines)
    assert web.costs.seconds == pytest.approx(1 + scaled_tasks * SIZES["web"] / web.read)
    assert extrapolate_run(copy).hours(2) == pytest.approx(extrapolate_run(copy).total.seconds / 7200)


def test_requests_are_the_addresses_that_were_asked_for(tmp_path):
    path = write_recipe(tmp_path / "input files")
    assert vlmill("build", path, "--out", tmp_path / "run", "--workers", 0, "--scale", 0.5) == 0
    found = {of.source: of for of in extrapolate_run(tmp_path / "run").sources}
    (receipt, *more) = read_manifest(tmp_path / "run", "steps/web/fetch")
    assert found["web"].requests == sum(one.counts["fetched"]["in"] for one in (receipt, *more))
    assert found["quiz"].requests == 0


def test_check_prints_the_whole_run(recipe, scaled, capsys):  # noqa: F811
    assert vlmill("check", recipe, "--from-run", scaled) == 0
    printed = capsys.readouterr().out
    assert "2,000" in printed
    assert "time of one core" in printed
    assert vlmill("check", recipe, "--from-run", scaled, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sources"][1]["rows"] == SIZES["web"]


def test_of_a_run_of_all_rows_nothing_is_said_to_be_extrapolated(recipe, scaled, tmp_path, capsys):  # noqa: F811
    path, run = write_recipe(tmp_path / "input files"), tmp_path / "run"
    assert vlmill("build", path, "--out", run, "--workers", 0) == 0
    capsys.readouterr()
    assert vlmill("check", path, "--from-run", run) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{run} has all rows: this is what it holds and took, and nothing is extrapolated." in said
    assert "Fewer samples" not in said
    assert vlmill("check", recipe, "--from-run", scaled) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Fewer samples will be kept" in said
    assert "has all rows" not in said
