"""What a build kept is reported at its end and compared with expectations; missing image files are retried."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.helpers.killing import killed_at
from tests.helpers.small import picture, product, vlmill, write_recipe
from tests.helpers.stages import write_tokenizer
from tests.helpers.upstream import cauldron, obelics
from vlmill.pipeline.core.sample import IMAGES, read_rows, write_rows
from vlmill.pipeline.page.report import render_report_page
from vlmill.pipeline.recipe.lock import select_shaping
from vlmill.pipeline.sources.image_places import ABSOLUTE, ELSEWHERE, ON_WEB, OUTSIDE, explain_outside
from vlmill.pipeline.steps.retry_images import RetryImages

GONE = 6
SOURCES = {"talk": {"kind": "llava", "files": "rows.json", "images": "pictures"}}
BARE = {"filters": [], "stages": [], "dedupe": None}


def talk(image=None):
    mark = "<image>\n" if image else ""
    turns = [{"from": "human", "value": f"{mark}What is it?"}, {"from": "gpt", "value": f"A thing called {image}."}]
    return {"conversations": turns, **({"image": image} if image else {})}


@pytest.fixture
def folder(tmp_path):
    """One row of text, and rows that name files which lie in another folder than the recipe says."""
    for name in ("pictures", "right"):
        (tmp_path / name).mkdir()
    names = [f"{number}.png" for number in range(GONE)]
    for number, name in enumerate(names):
        (tmp_path / "right" / name).write_bytes(picture(number, (96, 64)))
    (tmp_path / "rows.json").write_text(json.dumps([talk(), *map(talk, names)]))
    return tmp_path


def build(folder, *options, root="run", **changes):
    recipe = write_recipe(folder, **{**BARE, "sources": SOURCES, **changes})
    return vlmill("build", recipe, "--out", folder / root, "--workers", 0, *options)


def said(capsys):
    streams = capsys.readouterr()
    return " ".join((streams.out + streams.err).split())


@pytest.mark.parametrize("options", [(), ("--set", "policies={}")])
def test_what_fell_with_a_required_image_is_counted_by_what_the_image_went_for(tmp_path, capsys, options):
    sizes = [(200, 60), (24, 24), (24, 20), (600, 40)]
    rows = [([picture(50 + n, size)], [(f"What is in field {n}?", f"Thing {n}")]) for n, size in enumerate(sizes)]
    cauldron(tmp_path / "quiz.parquet", [*rows, ([picture(1, (90, 90)), picture(2, (9, 9))], [("Both?", "Yes")])])
    shape = {"shape": {"min_side": 32, "max_ratio": 10}}
    sources = {"quiz": {"kind": "cauldron", "files": "quiz.parquet"}}
    write_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "web.parquet").touch()
    assert build(tmp_path, *options, sources=sources, filters=[shape]) == 0
    words = said(capsys)
    assert "quiz 5 1 20.0% image_too_small 3, image_ratio 1 " in words
    assert "kept 1 of 5 rows as samples, 20.0% (image_too_small 3, image_ratio 1): vlmill report" in words
    assert "--source quiz --reason image_too_small" in words
    assert "required_lost" not in words
    assert vlmill("report", tmp_path / "run", "--source", "quiz", "--section", "funnel") == 0
    line = "required_lost: 4 samples went with a required image, which went for image_too_small 3, image_ratio 1"
    assert line in said(capsys)
    assert vlmill("report", tmp_path / "run", "--section", "funnel", "--json") == 0
    causes = json.loads(capsys.readouterr().out)["funnel"]["causes"]
    assert causes == {"quiz": {"required_lost": {"image_too_small": 3, "image_ratio": 1}}}
    page = render_report_page(tmp_path / "run")
    assert line in page
    assert "quiz: required_lost (image_too_small 3, image_ratio 1) loses 80% of 5 samples" in page
    assert vlmill("verify", tmp_path / "run") == 0


@pytest.mark.parametrize("options", [(), ("--set", "policies={}"), ("--until", "curate")])
def test_a_build_that_kept_little_says_why_and_what_to_do(folder, capsys, options):
    assert build(folder, *options) == 0
    words = said(capsys)
    assert "talk 7 1 14.3% missing_file 6" in words
    assert "warning: talk: kept 1 of 7 rows as samples, 14.3% (missing_file 6): vlmill report" in words
    assert (
        "6 images lost, since their own files or those of other images of the same sample are not under `images` "
        "(missing_file 6): vlmill report" in words
    )
    assert "--retry-failed" in words
    assert vlmill("status", folder / "run") == 0
    assert said(capsys).count("1 of 7 samples") == 1, "one source has no line of its own"
    assert vlmill("verify", folder / "run") == 0


def test_files_that_were_not_had_are_named_by_the_reason_that_a_report_takes(folder, capsys):
    (folder / "rows.json").write_text(json.dumps([talk(), talk("../a.png"), talk("../b.png"), talk("gone.png")]))
    assert build(folder) == 0
    words = said(capsys)
    assert (
        "3 images lost, since their own files or those of other images of the same sample are not under `images` "
        "(forbidden_address: absolute, or out of that folder) (forbidden_address 2, missing_file 1): vlmill report"
    ) in words
    assert f"vlmill report {folder / 'run'} --source talk --reason forbidden_address; put files there or" in words
    (line,) = (line for line in words.split("warning: ") if "not under `images`" in line)
    assert "--set sources.talk.images=FOLDER, then build with --retry-failed" in line


def test_a_path_out_of_the_folder_of_images_is_told_from_an_absolute_one(folder, capsys):
    paths = {"/data/alice/x.png": ABSOLUTE, "../a.png": OUTSIDE, "s3://bucket/x.png": ELSEWHERE}
    for path, why in paths.items():
        (folder / "rows.json").write_text(json.dumps([talk(), talk(path)]))
        assert build(folder, root=f"run{len(path)}") == 0
        said(capsys)
        assert vlmill("report", folder / f"run{len(path)}", "--source", "talk", "--reason", "forbidden_address") == 0
        assert why in said(capsys)
    assert explain_outside("HTTP://10.0.0.7/a.png") == "", "an address on the web is another matter"


@pytest.mark.parametrize("options", [(), ("--set", "policies={}"), ("--until", "curate")])
def test_a_source_of_which_nothing_was_kept_is_an_error_after_all_was_committed(folder, capsys, options):
    (folder / "rows.json").write_text(json.dumps([talk("gone.png"), {"conversations": "stringified"}]))
    assert build(folder, *options) == 1
    words = said(capsys)
    assert "error: talk: kept 0 of 2 rows as samples, 0.0% (bad_row 1, missing_file 1): vlmill report" in words
    assert "built" not in words
    assert vlmill("verify", folder / "run") == 0
    assert build(folder, *options, "--set", "expect.kept=0") == 0


def test_less_than_expected_is_an_error_and_enough_is_no_warning(folder, capsys):
    assert build(folder, expect={"kept": 0.5}) == 1
    assert "kept 1 of 7 rows as samples, 14.3%, expected are 50.0%" in said(capsys)
    of_its_own = {"talk": {**SOURCES["talk"], "expect": {"kept": 0.1}}}
    assert build(folder, expect={"kept": 0.5}, sources=of_its_own) == 0, "and the folder is not locked to it"
    assert "warning: talk: kept" not in said(capsys)
    assert build(folder, expect={"kept": 50}) == 1
    assert "expect.kept" in said(capsys)
    assert "expect" not in json.dumps(select_shaping({"expect": {"kept": 1}, "sources": of_its_own}))


def test_images_that_could_not_be_had_are_a_warning_though_documents_stay_without_them(tmp_path, capsys):
    address = "http://127.0.0.1:1/{}.png".format
    obelics(tmp_path / "docs.parquet", [["A text of some words.", address(1)], ["Another text of words.", address(2)]])
    sources = {"web": {"kind": "obelics", "files": "docs.parquet"}}
    assert build(tmp_path, sources=sources) == 0
    words = said(capsys)
    assert "web 2 2 100.0%" in words
    assert "warning: web: 2 of 2 images could not be had (forbidden_address 2): vlmill report" in words
    assert "--set 'sources.web.fetch.allow_hosts=[HOST]'" in words
    allowed = ("--set", "sources.web.fetch.allow_hosts=[127.0.0.1]")
    assert build(tmp_path, *allowed, sources=sources) == 1
    assert "sources.web.fetch: nothing there, {'allow_hosts': ['127.0.0.1']} here" in said(capsys)
    assert build(tmp_path, *allowed, "--accept-changes", sources=sources) == 0
    words = said(capsys)
    assert "2 of 2 images could not be had (connection 2): vlmill report" in words
    assert "allow_hosts=[HOST]" not in words
    assert vlmill("verify", tmp_path / "run") == 0


@pytest.mark.parametrize("own", [True, False])
def test_the_advice_on_private_hosts_keeps_those_that_the_source_has(tmp_path, capsys, own):
    obelics(tmp_path / "docs.parquet", [["A text of some words.", "http://127.0.0.1:1/1.png"]])
    block = {"fetch": {"allow_hosts": ["10.0.0.7:80"]}}
    sources = {"web": {"kind": "obelics", "files": "docs.parquet", **(block if own else {})}}
    changes = {"sources": sources, **({} if own else block)}
    assert build(tmp_path, **changes) == 0
    assert "--set 'sources.web.fetch.allow_hosts=[10.0.0.7:80, HOST]'" in said(capsys)
    followed = "sources.web.fetch.allow_hosts=[10.0.0.7:80, 127.0.0.1]"
    assert build(tmp_path, "--set", followed, "--accept-changes", **changes) == 0
    assert "forbidden_address" not in said(capsys)


def test_what_was_taken_down_is_not_missed(tmp_path):
    obelics(tmp_path / "docs.parquet", [["A text of some words."], ["Another text of other words."]])
    sources = {"web": {"kind": "obelics", "files": "docs.parquet"}}
    assert build(tmp_path, sources=sources) == 0
    for row in range(2):
        assert vlmill("takedown", tmp_path / "run", "--id", f"web/docs.parquet#{row}", "--workers", 0) == 0
    assert build(tmp_path, sources=sources) == 0


def test_files_that_were_missing_are_found_by_a_retry_and_by_nothing_else(folder, capsys):
    assert build(folder) == 0
    right = ("--set", "sources.talk.images=right")
    assert build(folder, *right) == 0
    assert "kept 1 of 7 rows as samples" in said(capsys), "what was committed stays"
    before = {
        path: path.stat().st_mtime_ns for path in (folder / "run/steps/talk/read").iterdir() if "receipt" in path.name
    }
    (folder / "right/5.png").rename(folder / "later.png")
    assert build(folder, *right, "--retry-failed") == 0
    assert "talk 7 6 85.7% missing_file 1" in said(capsys)
    shutil.rmtree(folder / "right")
    (folder / "right").mkdir()
    (folder / "later.png").rename(folder / "right/5.png")
    assert build(folder, *right, "--retry-failed") == 0, "what was found is not looked for again"
    assert "talk 7 7 100.0%" in said(capsys)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert vlmill("verify", folder / "run") == 0


def test_what_a_retry_makes_is_what_a_build_makes_that_found_the_files(folder):
    right = ("--set", "sources.talk.images=right")
    assert build(folder) == 0
    assert build(folder, *right, "--retry-failed") == 0
    assert build(folder, *right, root="other") == 0
    assert [sha for _, sha in sorted(product(folder / "run").items()) if _.endswith(".tar")] == [
        sha for _, sha in sorted(product(folder / "other").items()) if _.endswith(".tar")
    ]


def test_a_retry_killed_at_any_commit_ends_with_the_same_bytes(folder):
    right, deaths = ("--set", "sources.talk.images=right"), 0
    assert build(folder) == 0
    shutil.copytree(folder / "run", folder / "whole")
    assert build(folder, *right, "--retry-failed", root="whole") == 0
    for point in range(0, 1000, 60):
        root = folder / f"killed-{point}"
        shutil.copytree(folder / "run", root)
        command = ("build", folder / "recipe.yaml", "--out", root, "--workers", 0, *right, "--retry-failed")
        if not killed_at(point, vlmill, *command):
            break
        deaths += 1
        assert vlmill(*command) == 0
        assert product(root) == product(folder / "whole")
        assert vlmill("verify", root) == 0
    assert deaths > 1


def test_no_retry_brings_what_was_taken_down_while_its_file_was_missing(folder):
    assert build(folder) == 0
    for rule in (("--id", "talk/rows.json#1"), ("--url", "1.png")):
        assert vlmill("takedown", folder / "run", *rule, "--workers", 0) == 0
    assert build(folder, "--set", "sources.talk.images=right", "--retry-failed") == 0
    paths = sorted((folder / "run/steps/talk/retry").glob("*.supplement.parquet"))
    assert [[row["image"] for row in read_rows(path, ["image"])] for path in paths] == [[2, 3], [0, 1]]
    assert vlmill("verify", folder / "run") == 0


def test_a_round_counts_what_it_looked_for_and_keeps_what_rounds_before_it_found(tmp_path):
    rows = [
        {"image": 0, "bytes": b"there"},
        {"image": 1, "url": "a", "reason": "missing_file"},
        {"image": 2, "url": "b", "reason": "missing_file"},
        {"image": 3, "url": "c", "reason": "taken_down"},
        {"image": 4, "url": "../d", "reason": "forbidden_address"},
    ]
    write_rows(tmp_path / "images.parquet", IMAGES, rows)
    write_rows(tmp_path / "supplement.parquet", IMAGES, [{"image": 2, "bytes": b"B"}])
    (tmp_path / "files").mkdir()
    for name in "abc":
        (tmp_path / "files" / name).write_bytes(name.encode())
    (tmp_path / "out").mkdir()
    inputs = {name: tmp_path / name for name in ("images.parquet", "supplement.parquet")}
    counts = RetryImages(images=str(tmp_path / "files")).run(inputs, tmp_path / "out")
    found = [(row["image"], row["bytes"]) for row in read_rows(tmp_path / "out/supplement.parquet")]
    assert found == [(1, b"a"), (2, b"B")]
    assert counts["retried"].to_json() == {"in": 2, "kept": 1, "dropped": {}, "failed": {"forbidden_address": 1}}


def test_an_image_on_the_web_among_files_is_told_from_a_file_that_is_not_there(tmp_path, capsys):
    address = "HTTPS://img.test/pic.png"
    rows = [{"texts": ["Before the image.", None], "images": [None, shown]} for shown in ("a.png", address)]
    (tmp_path / "a.png").write_bytes(picture(1, (96, 64)))
    (tmp_path / "docs.json").write_text(json.dumps(rows))
    sources = {"docs": {"kind": "file_documents", "files": "docs.json"}}
    assert vlmill("check", write_recipe(tmp_path, **{**BARE, "sources": sources})) == 0
    assert f"docs: 1 of 2 images are lost, such as {address}: an address on the web" in said(capsys)
    assert build(tmp_path, sources=sources) == 0
    words = said(capsys)
    assert "docs 2 2 100.0%" in words
    assert "warning: docs: 1 image lost that its kind does not read" in words
    assert "put files there" not in words
    assert vlmill("report", tmp_path / "run", "--source", "docs", "--reason", "unsupported_media") == 0
    words = said(capsys)
    assert address in words
    assert ON_WEB in words


def test_a_mixture_that_cannot_be_made_says_why_its_source_fell_short(folder, capsys):
    (folder / "rows.json").write_text(json.dumps([{"conversations": "stringified"}]))
    write_tokenizer(folder / "tokenizer.json")
    train = {"learning_rate": {"projector": 1.0e-3}, "sequences": 2, "steps": 2}
    mixture = {"shares": {"talk": 1}, "sequence_length": 512}
    assert build(folder, stages=[{"name": "tune", "policy": "small", "mixture": mixture, "train": train}]) == 1
    words = said(capsys)
    assert "error: talk: kept 0 of 1 rows as samples, 0.0% (bad_row 1): vlmill report" in words
    assert "the first is talk/rows.json#0: " in words
    assert "none of talk holds any samples" in words
