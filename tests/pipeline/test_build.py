"""The whole build: the same bytes on any number of workers and after kills, a funnel that adds up, clear errors."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from tests.helpers.killing import killed_at
from tests.helpers.object_storage import KEY, SECRET
from tests.helpers.small import RECIPE, product, prose, vlmill, write_recipe
from tests.helpers.upstream import obelics
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.reports.funnel import read_funnel, total_funnel


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("input files"))


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    """A build in this process, without Ray: what all others are held against."""
    root = tmp_path_factory.mktemp("built") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return root


def build_inline(recipe, root):
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0


# -- what comes out


def test_every_shard_is_read_back_by_webdataset(built):
    seen = 0
    for shard in sorted((built / "shards").rglob("*.tar")):
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil"):
            assert sample["json"]["nodes"]
            seen += 1
    assert seen == total_funnel(read_funnel(built))["samples"].kept


def test_the_books_add_up_at_every_level(built):
    books = read_funnel(built)
    assert set(books) == {"web", "quiz", "scans", "papers"}
    for lines in books.values():
        for line in lines.values():
            assert line["in"] == line["kept"] + sum(line["dropped"].values()) + sum(line["failed"].values())
    web = books["web"]
    assert web["rows"]["in"] == 8
    assert web["samples"]["dropped"]["language"] == 1
    assert sum(web["samples"]["dropped"].get(reason, 0) for reason in ("exact_text", "near_text")) == 1
    assert web["images"]["failed"] == {"http_client_error": 1, "not_an_image": 1}
    assert books["papers"]["samples"]["in"] == 2, "one PDF of two pages"


def test_verify_finds_nothing_in_a_sound_run_and_names_what_was_touched(built, tmp_path, capsys):
    assert vlmill("verify", built) == 0
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    shard = next((copy / "shards").rglob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    capsys.readouterr()
    assert vlmill("verify", copy) == 1
    assert str(shard.relative_to(copy)) in capsys.readouterr().out


def test_a_sample_is_traced_to_its_origin_and_a_drop_to_its_filter(built, capsys):
    assert vlmill("trace", built, "web/web.parquet#5") == 0
    said = capsys.readouterr().out
    assert "language drops" in said
    assert "lost: language" in said
    assert vlmill("trace", built, "web/web.parquet#1") == 0
    place = re.search(r"in (shards/\S+)", capsys.readouterr().out)[1]
    assert vlmill("trace", built, place) == 0
    assert "web/web.parquet#1" in capsys.readouterr().out
    assert vlmill("trace", built, "web/web.parquet#99") == 1
    assert "no such sample" in capsys.readouterr().err


def test_status_and_stats_speak_to_people_and_machines(built, capsys):
    assert vlmill("status", built) == 0
    assert "language 6 of 6" in " ".join(capsys.readouterr().out.split())
    assert vlmill("status", built, "--json") == 0
    assert json.loads(capsys.readouterr().out)["funnel"]["web"]["rows"]["in"] == 8
    assert vlmill("stats", built) == 0
    assert "quiz" in capsys.readouterr().out
    assert vlmill("stats", built, "--json") == 0
    assert "align" in json.loads(capsys.readouterr().out)


# -- the same bytes


def test_a_second_build_does_nothing(recipe, built):
    before = {
        path: path.stat().st_mtime_ns
        for path in built.rglob("*")
        if path.is_file() and path.suffix in {".parquet", ".tar"}
    }
    build_inline(recipe, built)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_bytes_do_not_depend_on_the_workers(recipe, built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a relative folder has to mean the same in every worker
    assert vlmill("build", recipe, "--out", "run", "--workers", 2) == 0
    assert product(tmp_path / "run") == product(built)


@pytest.mark.timeout(1800)
def test_on_object_storage_the_bytes_are_those_of_a_folder(recipe, built, s3, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = RunPath(f"{s3}/run")
    build_inline(recipe, root)
    assert product(root) == product(built)
    begun = {path: path.find_object().etag for path in root.glob("s*/**/*.json")}
    build_inline(recipe, root)
    assert {path: path.find_object().etag for path in root.glob("s*/**/*.json")} == begun
    assert vlmill("verify", root, "--workers", 0) == 0
    assert vlmill("status", root) == 0
    objects = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")}
    assert vlmill("takedown", root, "--id", "web/web.parquet#0", "--workers", 0) == 0
    assert vlmill("verify", root, "--workers", 0) == 0
    folder = {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()}
    assert {name for name in objects.keys() ^ folder if not name.startswith(".l")} == set()
    assert not [name for name, data in objects.items() if SECRET.encode() in data or KEY.encode() in data]
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(1800)
def test_killed_at_every_commit_point_it_ends_with_the_same_bytes(recipe, tmp_path):
    """A run is killed at each commit point of the first task that is to be done, until it is done; then of the next."""
    obelics(recipe.parent / "web-2.parquet", [[prose(number)] for number in range(50, 53)])
    small = write_recipe(
        recipe.parent,
        sources={"web": {**RECIPE["sources"]["web"], "files": "web*.parquet"}},
        filters=[{"language": None}],
        partition={"rows": 200},  # one, which both files share
        dedupe={"buckets": 1},
        stages=[{**RECIPE["stages"][0], "mixture": {"shares": {"web": 1}, "sequence_length": 512}}],
    )
    small = small.rename(small.with_name("killed.yaml"))
    write_recipe(recipe.parent)
    build_inline(small, tmp_path / "whole")
    root, point, deaths, before = tmp_path / "run", 0, 0, 0
    while killed_at(point, build_inline, small, root):
        done = len(list(root.glob("**/*.receipt.json")))
        deaths += 1
        point = 0 if done > before else point + 1
        before = done
        assert deaths < 1000, "no progress"
    assert deaths > 60
    assert product(root) == product(tmp_path / "whole")
    assert not list(root.glob("**/.tmp-*"))


def test_killed_at_random_moments_with_workers_it_ends_with_the_same_bytes(recipe, built, tmp_path):
    root = tmp_path / "run"
    command = [sys.executable, "-m", "vlmill.pipeline.cli", "build", str(recipe), "--out", str(root), "--workers", "2"]
    for wait in (3.0, 5.0, 7.0):
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(wait)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert product(root) == product(built)


def test_another_threshold_touches_no_image_and_the_way_back_is_free(recipe, built, tmp_path, capsys):
    root = tmp_path / "run"
    shutil.copytree(built, root)
    fetched = {receipt.partition: receipt.key for receipt in read_manifest(root, "steps/web/fetch")}
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--set", "filters.language.drop=[ja]") == 1
    assert "locked to another recipe" in capsys.readouterr().err
    assert (
        vlmill(
            "build", recipe, "--out", root, "--workers", 0, "--set", "filters.language.drop=[ja]", "--accept-changes"
        )
        == 0
    )
    assert read_funnel(root)["web"]["samples"]["dropped"].get("language", 0) == 0
    assert {receipt.partition: receipt.key for receipt in read_manifest(root, "steps/web/fetch")} == fetched
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--accept-changes") == 0
    assert product(root) == product(built)


def test_rebuild_makes_pure_steps_anew_and_never_touches_what_the_world_had_a_say_in(recipe, built, tmp_path, capsys):
    root = tmp_path / "run"
    shutil.copytree(built, root)

    def written(step):
        return {path: path.stat().st_ino for path in (root / step).glob("*.parquet")}

    impure = {step: written(step) for step in ("steps/web/fetch", "steps/papers/read", "steps/scans/read")}
    pure = written("steps/web/language")
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--rebuild", "--set", "seed=99") == 1
    assert "locked to another recipe" in capsys.readouterr().err
    assert written("steps/web/language") == pure, "a refused build removes nothing"
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--rebuild") == 0
    assert {step: written(step) for step in impure} == impure
    assert written("steps/web/language") != pure
    assert product(root) == product(built)


# -- bad input


def refused(capsys, folder, *arguments, **changes):
    """Build a changed recipe; it must end with 1, one clear error and no stack trace. Returns the error."""
    assert vlmill("build", write_recipe(folder, **changes), "--out", folder / "run", "--workers", 0, *arguments) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith("error:")
    return said


@pytest.fixture
def folder(recipe, tmp_path):
    shutil.copytree(recipe.parent, tmp_path / "input files")
    return tmp_path / "input files"


def test_a_file_that_is_no_parquet(capsys, folder):
    (folder / "web.parquet").write_text("these are not the bytes of a table")
    assert "web.parquet" in refused(capsys, folder)


def test_a_missing_column(capsys, folder):
    pq.write_table(pa.table({"images": [["http://a.test/1.png"]]}), folder / "web.parquet")
    assert "texts" in refused(capsys, folder)


def test_a_source_without_rows(capsys, folder):
    pq.write_table(pq.read_table(folder / "web.parquet").slice(0, 0), folder / "web.parquet")
    assert "hold no rows" in refused(capsys, folder)


def test_a_source_without_files(capsys, folder):
    said = refused(
        capsys, folder, sources={**RECIPE["sources"], "quiz": {"kind": "cauldron", "files": "nothing*.parquet"}}
    )
    assert "no file matches" in said
    assert "--source quiz=PATH" in said


def test_a_misspelt_key(capsys, folder):
    assert "did you mean 'sources'?" in refused(capsys, folder, sorces={})


def test_a_share_for_a_source_that_does_not_exist(capsys, folder):
    stage = {**RECIPE["stages"][0], "mixture": {**RECIPE["stages"][0]["mixture"], "shares": {"webb": 1.0}}}
    assert "did you mean 'web'?" in refused(capsys, folder, stages=[stage])


def test_a_phase_that_does_not_exist(capsys, folder):
    assert "choose among" in refused(capsys, folder, "--until", "renderr")


def test_a_second_build_in_the_same_folder(capsys, folder):
    with Store(folder / "run").locked():
        assert "another build or a training is at work" in refused(capsys, folder)


def test_a_full_disk_is_said_and_what_was_made_is_kept(recipe, built, tmp_path):
    """A limit on file sizes stands for the full disk: writing fails in the same place, with the same kind of error."""
    command = [
        sys.executable,
        "-m",
        "vlmill.pipeline.cli",
        "build",
        str(recipe),
        "--out",
        str(tmp_path / "run"),
        "--workers",
        "0",
    ]
    full = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)),
    )
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "error:" in full.stderr
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert product(tmp_path / "run") == product(built)
