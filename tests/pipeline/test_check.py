"""vlmill check: all that is wrong before any work, how much there is, and that a build begins with it."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

import vlmill as api
from tests.helpers.small import RECIPE, vlmill, write_recipe
from tests.helpers.upstream import cauldron, json_array, json_lines, obelics, pdf, pdfa_json, picture, talk, tar
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.estimate import estimate_stage_tokens
from vlmill.pipeline.checks.estimate import extrapolate_costs
from vlmill.pipeline.checks.looked_rows import LookedFile, share_rows
from vlmill.pipeline.checks.sample_costs import Costs
from vlmill.pipeline.core.sample import read_images, read_samples
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.sources.image_places import ABSOLUTE, CUT

URL = "http://img.small.test/"


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path)


def list_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_check(capsys, *arguments):
    status = vlmill("check", *arguments, "--json")
    shown = capsys.readouterr()
    return status, json.loads(shown.out), shown.err


# -- faults ------------------------------------------------------------------------------------------------------------

FAULTS = {
    "unknown key": ({"sources.quiz.licens": "x"}, "sources.quiz.licens: unknown key 'licens'"),
    "wrong value": ({"fetch.threads": "many"}, "fetch.threads: Input should be a valid integer"),
    "unknown kind": ({"sources.quiz.kind": "cauldro"}, "sources.quiz.kind: 'cauldro' is unknown"),
    "unknown filter": ({"filters.languag.drop": "[zh]"}, "filters.languag: 'languag' is unknown"),
    "unknown mixture source": ({"stages.align.mixture.shares.wep": "1"}, "no source 'wep'"),
    "held out of a stage that does not train on it": (
        {"stages.align.mixture.shares": "{web: 1}", "stages.align.mixture.held_out": "{quiz: 0.1}"},
        "stages.align.mixture.held_out: 'quiz' is no entry of this mixture; this stage does not train on it: leave it",
    ),
    "unknown held-out entry": (
        {"stages.align.mixture.held_out": "{wep: 0.1}"},
        "stages.align.mixture.held_out: 'wep' is no entry of this mixture; did you mean 'web'?",
    ),
    "unknown policy": ({"stages.align.policy": "smal"}, "stages.align.policy: policy 'smal' does not stand"),
    "tower size": ({"model.vision.image_size": "84"}, "policies.small.side is 56, and model.vision.image_size is 84"),
    "chat format": ({"chat": "idefics"}, "chat: llava spells images as format 'vlmill' does"),
    "family": ({"model.family": "lava"}, "model.family: there is no 'lava'"),
    "budget": (
        {"stages.align.mixture.epochs": "null", "stages.align.mixture.sequences": "3"},
        "2 steps of 2 sequences want 4 sequences, and the plan has 3",
    ),
    "tokenizer": ({"tokenizer": "gone.json"}, "tokenizer: there is no file"),
    "missing list": ({"filters.opt_out.domains": "[gone.txt]"}, "gone.txt; the path of a list is relative"),
    "bad list": ({"filters.opt_out.sha256": "[recipe.yaml]"}, "recipe.yaml, line 1"),
    "served folder": ({"sources.web.serve": f"{{{URL}: gone}}"}, f"sources.web.serve.{URL}: there is no folder"),
    "image folder": ({"sources.quiz.images": "gone"}, "sources.quiz.images: there is no folder"),
    "image archive": ({"sources.quiz.images": "zip://a::gone.zip"}, "sources.quiz.images: there is no file /"),
    "local files": ({"sources.papers.files": "gone.tar"}, "source 'papers': no file matches"),
    "wrong form": ({"sources.scans.files": "quiz.parquet"}, "source scans (kind idl): "),
    "wrong column": (
        {"sources.web.files": "quiz.parquet"},
        "if the files are of another row shape: --set sources.web.kind=KIND",
    ),
    "benchmark of another kind": (
        {"decontaminate": "{against: {held: {files: quiz.parquet, kind: websight}}}"},
        "another row shape: --set decontaminate.against.held.kind=KIND",
    ),
    "file system": ({"sources.papers.root": "nosuch://bucket"}, "source 'papers': nosuch://bucket cannot be read"),
    "benchmark": (
        {"decontaminate": "{against: {held: {files: gone.parquet, kind: cauldron}}}"},
        "source 'held': no file matches",
    ),
}


def set_all(sets):
    return [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("kind", FAULTS)
def test_each_kind_of_fault_is_found_alone_and_ends_a_build_before_it_writes(kind, sound, capsys):
    sets, message = FAULTS[kind]
    run = sound.parent / f"run of {kind}"
    assert vlmill("build", sound, "--out", run, "--workers", 0, *set_all(sets)) == 1
    assert message in capsys.readouterr().err
    assert not run.exists()


NAMELESS = ["{files: null, subset: en, split: train}", "{files: null}"]


@pytest.mark.parametrize(
    ("block", "place"),
    [
        *(("sources.quiz", place) for place in (*NAMELESS, "{files: null, subsets: [en]}")),
        *(("decontaminate.against.held", place) for place in NAMELESS),
    ],
)
def test_a_source_or_benchmark_without_files_is_one_fault(block, place, sound, capsys):
    sets = {f"{block}.{key}": value for key, value in (part.split(": ", 1) for part in place[1:-1].split(", "))}
    held = {"decontaminate": "{against: {held: {kind: cauldron}}}"} if block != "sources.quiz" else {}
    _, said, _ = read_check(capsys, sound, *set_all({**held, **sets}))
    assert len(said["faults"]) == 1, said["faults"]


NAMED = "{image: image, question: question, answer: answer}"


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("{files: held.jsonl}", "none can be read (undecodable: no bytes in the row)"),
        (
            f"{{files: held.jsonl, kind: table, root: gone, options: {NAMED}}}",
            "none can be read (missing_file: a/2.png)",
        ),
        (f"{{files: held.jsonl, kind: table, options: {NAMED}}}", ""),
        ("{files: held.jsonl, options: {images: []}}", ""),
        ("{files: {test: held.jsonl}}", "decontaminate.against.held.kind=table with options"),
    ],
)
def test_a_benchmark_none_of_whose_pictures_can_be_read_is_a_fault_before_a_build(held, message, tmp_path, capsys):
    path = write_recipe(tmp_path)
    for folder in (tmp_path, tmp_path / "gone"):
        (folder / "a").mkdir(parents=True)
        rows = [{"question": f"What is {row}?", "answer": "It.", "image": f"a/{row}.png"} for row in range(3)]
        json_lines(folder / "held.jsonl", rows)
    (tmp_path / "a" / "1.png").write_bytes(picture(1))  # one of three is enough
    against = ("--set", f"decontaminate={{against: {{held: {held}}}}}")
    _, said, _ = read_check(capsys, path, *against)
    assert [fault for fault in said["faults"] if "benchmark 'held" in fault and message in fault] == said["faults"]
    assert bool(said["faults"]) == bool(message)
    if message:
        assert vlmill("build", path, "--out", tmp_path / "run", "--workers", 0, *against) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_all_kinds_of_faults_in_one_recipe_are_said_at_once_by_check_and_build(recipe, capsys, tmp_path):
    (tmp_path / "papers.tar").unlink()
    (tmp_path / "tokenizer.json").write_text("{}")
    extra = {
        name: {**RECIPE["sources"]["quiz"], "files": "quiz.parquet"} for name in ("shapeless", "elsewhere", "keyed")
    }
    extra["shapeless"]["kind"] = "cauldro"
    extra["elsewhere"]["root"] = "nosuch://bucket"
    extra["keyed"]["licens"] = "x"
    write_recipe(tmp_path, sources={**RECIPE["sources"], **extra}, fetch={"threads": "many"})
    together = {
        **FAULTS["unknown filter"][0],
        **FAULTS["tower size"][0],
        **FAULTS["missing list"][0],
        **FAULTS["served folder"][0],
        **FAULTS["benchmark"][0],
        **FAULTS["budget"][0],
        "stages.align.mixture.shares.shapeless": "0.1",
    }
    messages = (
        "sources.shapeless.kind: 'cauldro' is unknown",
        "sources.keyed.licens: unknown key 'licens'",
        "fetch.threads: Input should be a valid integer",
        "filters.languag: 'languag' is unknown",
        "policies.small.side is 56",
        "2 steps of 2 sequences want 4 sequences",
        "tokenizer.json is no tokenizer.json",
        "gone.txt; the path of a list is relative",
        f"sources.web.serve.{URL}: there is no folder",
        "source 'papers': no file matches",
        "source 'elsewhere': nosuch://bucket cannot be read",
        "source 'held': no file matches",
    )
    status, found, said = read_check(capsys, recipe, *set_all(together))
    assert status == 1
    assert [message for message in messages if not any(message in fault for fault in found["faults"])] == []
    assert [message for message in messages if message not in said] == []
    assert len(found["faults"]) == len(messages), "and nothing that follows from these alone"
    assert {one["source"] for one in found["sources"]} == {"web", "quiz", "scans", "keyed"}
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0, *set_all(together)) == 1
    said = capsys.readouterr().err
    assert [message for message in messages if message not in said] == []
    assert not (tmp_path / "run").exists()


def test_an_entry_without_a_source_is_said_and_what_is_held_out_of_it_is_not(sound, capsys):
    shares = {"stages.align.mixture.shares": "{webb: 1}", "stages.align.mixture.held_out": "{web: 0.1}"}
    status, found, _ = read_check(capsys, sound, *set_all(shares))
    assert status == 1
    (fault,) = [fault for fault in found["faults"] if "mixture" in fault]
    assert "the recipe has no source 'webb', and no group of sources; did you mean 'web'?" in fault


def test_what_follows_from_a_fault_is_not_said_again(sound, capsys, tmp_path):
    sets = ("--set", "tokenizer=[5]", "--set", "sources.web.filez=x", "--set", "policies.small.side=wide")
    assert vlmill("build", sound, "--out", tmp_path / "run", "--workers", 0, *sets) == 1
    said = capsys.readouterr().err
    assert "tokenizer: Input should be a valid string" in said
    assert "unknown key 'filez'" in said
    assert "policies.small.side: Input should be a valid integer" in said
    assert "stages need one" not in said
    assert said.replace("(--set policies.small.side)", "").count("policies.small") == 1


def test_the_api_builds_nothing_of_a_recipe_whose_inputs_are_not_there(recipe, tmp_path):
    (tmp_path / "papers.tar").unlink()
    (tmp_path / "scans.tar").unlink()
    with pytest.raises(api.SourceError) as raised:
        api.build(recipe, tmp_path / "run", workers=0)
    assert len(raised.value.faults) == 2
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_too_small_is_a_fault(recipe, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    result = api.check_recipe(recipe)
    assert "has 5 bytes free, and the run needs about" in result.faults[0]
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 1
    assert "has 5 bytes free" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_pretrained_tower_on_this_machine_is_compared_with_the_policy(recipe, tmp_path):
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower/config.json").write_text(json.dumps({"vision_config": {"image_size": 84, "patch_size": 14}}))
    settings = {"model.vision": {"kind": "pretrained", "path": str(tmp_path / "tower")}}
    assert "model.vision.image_size is 84" in api.check_recipe(recipe, settings=settings).faults[0]


def test_a_folder_of_images_that_is_not_there_is_said_once(tmp_path):
    said = [{"from": "human", "value": "<image>Where?"}, {"from": "gpt", "value": "Here."}]
    (tmp_path / "talk.json").write_text(json.dumps([{"image": "a.png", "conversations": said}]))
    sources = {"talk": {"kind": "llava", "files": "talk.json", "images": "gone"}}
    recipe = write_recipe(tmp_path, filters=[], stages=[], dedupe=None, sources=sources)
    assert api.check_recipe(recipe).faults == (f"sources.talk.images: there is no folder {tmp_path}/gone",)


# -- a build that goes on ----------------------------------------------------------------------------------------------


def test_a_build_that_goes_on_does_not_look_for_images_that_it_has(recipe, tmp_path, capsys):
    command = ("build", recipe, "--out", tmp_path / "run", "--workers", 0)
    assert vlmill(*command, "--until", "curate") == 0
    shutil.rmtree(tmp_path / "served")
    assert vlmill(*command) == 0
    assert vlmill("build", recipe, "--out", tmp_path / "other", "--workers", 0) == 1
    assert "there is no folder" in capsys.readouterr().err


# -- the estimate ------------------------------------------------------------------------------------------------------


def test_what_is_there_is_counted_and_nothing_is_written(recipe, capsys, tmp_path):
    before = list_files(tmp_path)
    status, found, _ = read_check(capsys, recipe, "--out", tmp_path / "run", "--workers", 3)
    assert (status, found["faults"], found["workers"]) == (0, [], 3)
    counts = {one["source"]: (one["rows"], one["samples"], one["images"]) for one in found["sources"]}
    assert counts == {"web": (8, 8, 9), "quiz": (8, 8, 8), "scans": (3, 3, 3), "papers": (1, 2, 2)}
    assert {one["source"]: one["rests_on"] for one in found["sources"]}["quiz"] == "8 rows of quiz.parquet"
    assert found["totals"]["rows"] == 20
    assert found["totals"]["hours"] > 0
    assert list_files(tmp_path) == before


def test_an_estimate_is_what_the_build_makes(recipe, tmp_path):
    estimate = api.check_recipe(recipe).estimate
    run = api.build(recipe, tmp_path / "run", workers=0)
    settings = read_locked_recipe(run.folder)
    for one in estimate.sources:
        tables = [partition.paths(run.folder) for partition in list_raw_tables(run.folder, settings, one.source)]
        samples = [sample for paths in tables for sample in read_samples(paths["samples.parquet"])]
        assert (one.rows, one.samples) == (len({sample.id.row for sample in samples}), len(samples))
        assert one.images == sum(node.image is not None for sample in samples for node in sample.nodes)
        images = [len(row["bytes"] or b"") for paths in tables for row in read_images(paths)]
        assert sum(images) * 0.6 < one.image_bytes < sum(images) * 1.5
        shards = sum(tar.stat().st_size for tar in (run.folder / f"shards/{one.source}/small").glob("*.tar"))
        assert 0 < one.shard_bytes["small"] <= shards
        assert shards < 1.5 * one.shard_bytes["small"] + 10_240 * len(tables)  # a tar ends with up to so many zeros
        tables_of_source = sum(path.stat().st_size for path in list_files(run.folder / f"steps/{one.source}"))
        assert tables_of_source < one.table_bytes * 2.5  # receipts and verdicts of dedupe, too
        if one.measured > 1:  # a machine so busy that one row takes seconds measures no other, and the first costs more
            assert one.table_bytes / 1.5 < tables_of_source


def test_a_file_that_is_one_row_stands_for_one_whatever_its_size(tmp_path, capsys):
    for number, pages in enumerate((9, 1, 1)):
        (tmp_path / f"{number}.pdf").write_bytes(pdf([[f"page {page}"] for page in range(pages)]))
    write_recipe(tmp_path, sources={"papers": {"kind": "pdf", "files": "*.pdf"}}, stages=[], model={})
    _, found, _ = read_check(capsys, tmp_path / "recipe.yaml")
    assert [one["rows"] for one in found["sources"]] == [3]


def test_a_first_file_of_one_row_does_not_stand_for_files_of_one_row(tmp_path, capsys):
    for part, number in enumerate((1, 100, 100)):
        rows = [{"question": f"What is {row + 100}?", "answer": "It is."} for row in range(number)]
        json_lines(tmp_path / f"{part}.jsonl", rows)
    source = {"kind": "table", "files": "*.jsonl", "options": {"question": "question", "answer": "answer"}}
    write_recipe(tmp_path, sources={"quiz": source}, stages=[], model={})
    _, found, _ = read_check(capsys, tmp_path / "recipe.yaml")
    assert [one["rows"] for one in found["sources"]] == [201]


@pytest.mark.parametrize("rows", [1, 3])
def test_files_of_equally_many_rows_have_as_many_each_whatever_their_sizes(tmp_path, capsys, rows):
    for part in range(60):
        said = "long " * (200 if part % 3 == 0 else 1)  # those that are looked at among them
        json_lines(tmp_path / f"{part:02}.jsonl", [{"question": f"{row}?", "answer": said} for row in range(rows)])
    source = {"kind": "table", "files": "*.jsonl", "options": {"question": "question", "answer": "answer"}}
    write_recipe(tmp_path, sources={"quiz": source}, stages=[], model={})
    _, found, _ = read_check(capsys, tmp_path / "recipe.yaml")
    assert [one["rows"] for one in found["sources"]] == [60 * rows]


def test_an_estimate_rests_on_rows_of_several_files_in_proportion_to_their_rows(tmp_path, capsys):
    for part, (rows, shown) in enumerate([(20, 1), (20, 3), (20, 3), (40, 3)]):
        images = [[picture(9 * row + place, (64, 64)) for place in range(shown)] for row in range(rows)]
        cauldron(tmp_path / f"quiz-{part}.parquet", [(some, [("What is it?", f"Thing {part}.")]) for some in images])
    source = {"kind": "cauldron", "files": "quiz-*.parquet"}
    write_recipe(tmp_path, sources={"quiz": source}, stages=[], model={})
    _, found, _ = read_check(capsys, tmp_path / "recipe.yaml")
    (quiz,) = found["sources"]
    assert quiz["rests_on"].endswith("rows of 4 of 4 files")
    assert quiz["rows"] == 100
    assert quiz["images"] == pytest.approx(260, rel=0.1)  # by the first file 100


def test_rows_of_other_files_that_give_no_sample_are_named_with_their_file(tmp_path, capsys):
    for part, number in enumerate((3, 2, 3)):
        rows = [{"question": f"What is {row}?", "answer": "" if part == 1 else "It."} for row in range(number)]
        json_lines(tmp_path / f"{part}.jsonl", rows)
    source = {"kind": "table", "files": "*.jsonl", "options": {"question": "question", "answer": "answer"}}
    write_recipe(tmp_path, sources={"quiz": source}, stages=[], model={})
    _, found, _ = read_check(capsys, tmp_path / "recipe.yaml")
    (quiz,) = found["sources"]
    assert (quiz["measured"], quiz["unreadable"]) == (8, 2)
    assert "2 of them give no sample (row 0 of 1.jsonl: empty_row: no answer, and 1 more row)" in quiz["rests_on"]


def test_rows_are_shared_out_in_proportion_and_to_the_last():
    files = [LookedFile(name, Path(name), rows, 1) for name, rows in (("a", 1), ("b", 10), ("c", 1000), ("d", 989))]
    for wanted in (1, 2, 8, 100, 1999, 2000, 5000):
        taken = share_rows(files, wanted)
        assert sum(one.rows for one in taken) == min(wanted, 2000)
        assert all(0 < one.rows <= known.rows for one in taken for known in files if known.name == one.name)
    assert {one.name: one.rows for one in share_rows(files, 100)} == {"b": 1, "c": 50, "d": 49}
    assert share_rows(files, 0) == [LookedFile("a", Path("a"), 0, 1)]


def test_rows_that_were_not_read_are_like_those_that_were(tmp_path, capsys):
    for part in range(3):
        rows = [([picture(n, (64, 64))], [(f"What is in {n}?", f"Thing {n}")]) for n in range(250)]
        cauldron(tmp_path / f"quiz-{part}.parquet", rows)
    source = {"kind": "cauldron", "files": "quiz-*.parquet"}
    write_recipe(tmp_path, sources={"quiz": source}, stages=[], model={})
    _, found, _ = read_check(capsys, tmp_path / "recipe.yaml")
    (quiz,) = found["sources"]
    assert (quiz["rows"], quiz["samples"], quiz["images"]) == (750, 750, 750)
    assert 0 < quiz["measured"] <= 100
    assert quiz["rests_on"].endswith("rows of 3 of 3 files")
    _, found, _ = read_check(capsys, tmp_path / "recipe.yaml", "--limit", 300)
    assert [found["totals"][name] for name in ("rows", "samples", "images")] == [300, 300, 300]
    assert found["totals"]["image_bytes"] == pytest.approx(quiz["image_bytes"] * 300 / 750, rel=0.2)


def test_images_that_are_addresses_are_requests_and_what_they_hold_is_not_known(recipe, capsys):
    _, found, _ = read_check(capsys, recipe, "--set", "sources.web.serve={}")
    web = next(one for one in found["sources"] if one["source"] == "web")
    assert web["requests"] == 8
    assert (web["image_bytes"], web["table_bytes"], web["shard_bytes"]["small"]) == (None, None, None)
    assert "images are addresses" in web["rests_on"]
    assert web["seconds"]["fetch"] == pytest.approx(8 / 64)
    assert found["totals"]["image_bytes"] is None
    assert vlmill("check", recipe, "--set", "sources.web.serve={}") == 0
    assert "A request is assumed to take 1 s" in capsys.readouterr().out


def test_hosts_that_fetch_would_refuse_are_named_with_what_allows_them(tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("url,text\nhttp://10.0.0.3/a.png,A dog\nhttp://example.org/b.png,A cat\n")
    source = {"kind": "web_table", "files": "pairs.csv", "options": {"image": "url", "caption": "text"}}
    recipe = write_recipe(tmp_path, stages=[], sources={"web": source})
    assert vlmill("check", recipe) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "web: images at 10.0.0.3 will not be fetched: no public host" in said
    allow = "sources.web.fetch.allow_hosts=[10.0.0.3]"
    assert f"--set '{allow}'" in said
    for allowed in (allow, "fetch.mirrors={'http://10.0.0.3/': 'http://127.0.0.1:9/'}"):
        assert vlmill("check", recipe, "--set", allowed) == 0
        assert "will not be fetched" not in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["fetch.retries=many", "sources.web.fetch.retries=many", "fetch=[1]"])
def test_of_hosts_nothing_is_said_where_what_allows_them_cannot_be_read(tmp_path, capsys, wrong):
    (tmp_path / "pairs.csv").write_text("url,text\nhttp://10.0.0.3/a.png,A dog\n")
    source = {"kind": "web_table", "files": "pairs.csv", "options": {"image": "url", "caption": "text"}}
    recipe = write_recipe(tmp_path, stages=[], sources={"web": source})
    assert vlmill("check", recipe, "--set", wrong) == 1
    said = "".join(capsys.readouterr())
    assert "fetch" in said
    assert "10.0.0.3" not in said


def test_what_allows_a_host_keeps_what_else_the_source_says_of_fetching(tmp_path, capsys):
    rows = ("http://10.0.0.3/a.png,A dog", "http://10.0.0.4/b.png,A cat", "http://10.0.0.5/c.png,A cow")
    (tmp_path / "pairs.csv").write_text("\n".join(("url,text", *rows, "")))
    fetch = {"allow_hosts": ["10.0.0.3"], "mirrors": {"http://10.0.0.4/": "http://127.0.0.1:9/"}}
    source = {"kind": "web_table", "files": "pairs.csv", "options": {"image": "url", "caption": "text"}, "fetch": fetch}
    recipe = write_recipe(tmp_path, stages=[], sources={"web": source})
    assert vlmill("check", recipe) == 0
    said = " ".join(capsys.readouterr().out.split())
    allow = re.search(r"web: images at 10\.0\.0\.5 will not be fetched: .* allow it: --set '([^']*)'", said)
    assert allow is not None, said
    assert vlmill("check", recipe, "--set", allow[1]) == 0
    assert "will not be fetched" not in capsys.readouterr().out


def test_a_first_row_that_gives_no_sample_is_named_with_its_reason(recipe, capsys, tmp_path):
    cauldron(tmp_path / "quiz.parquet", [([b""], [("What?", "That")]), ([picture(1, (64, 64))], [("What?", "This")])])
    status, found, _ = read_check(capsys, recipe)
    quiz = next(one for one in found["sources"] if one["source"] == "quiz")
    assert (status, quiz["unreadable"]) == (0, 1)
    assert "1 of them give no sample (row 0: " in quiz["rests_on"]
    assert not any("give no sample" in said for said in found["warnings"])
    good, bad = ([picture(1, (64, 64))], [("What?", "This")]), ([b""], [("What?", "That")])
    cauldron(tmp_path / "quiz.parquet", [bad, good, bad])
    status, found, _ = read_check(capsys, recipe)
    warned = "source quiz: 2 of the 3 rows that were looked at give no sample (row 0: "
    assert (status, sum(said.startswith(warned) for said in found["warnings"])) == (0, 1)
    cauldron(tmp_path / "quiz.parquet", [([b""], [("What?", "That")])])
    status, found, _ = read_check(capsys, recipe)
    assert status == 1
    assert "source 'quiz': no row that was read gives a sample" in found["faults"][0]


def test_a_row_of_which_one_page_is_lost_gives_samples(recipe, capsys, tmp_path):
    pages = [["first line", "second line"], []]
    tar(tmp_path / "papers.tar", {"a.json": pdfa_json(pages), "a.pdf": pdf(pages)})
    status, found, _ = read_check(capsys, recipe)
    papers = next(one for one in found["sources"] if one["source"] == "papers")
    assert (status, papers["rows"], papers["samples"], papers["unreadable"]) == (0, 1, 1, 0)
    assert "give no sample" not in papers["rests_on"]
    pages = [[], []]
    tar(tmp_path / "papers.tar", {"a.json": pdfa_json(pages), "a.pdf": pdf(pages)})
    status, found, _ = read_check(capsys, recipe)
    assert status == 1
    assert "1 of them give no sample (row 0: empty_row: " in found["faults"][0]


def test_costs_of_a_partition_count_for_each_and_those_of_a_row_for_each():
    measured = Costs(10, {"table_bytes": 1100.0}, {"read": 3.0})
    empty = Costs(0, {"table_bytes": 100.0}, {"read": 1.0})
    found = extrapolate_costs(measured, empty, 1000, 4)
    assert (found.rows, found.amounts, found.seconds) == (1000, {"table_bytes": 100_400.0}, {"read": 204.0})
    assert extrapolate_costs(measured, empty, 10, 1) == measured


def test_tokens_of_a_stage_follow_from_its_budget():
    def estimate(**budget):
        return estimate_stage_tokens(MixtureSettings(sequence_length=100, **budget), {"web": 1000, "quiz": 50})

    assert estimate(shares={"web": 1, "quiz": 1}, epochs=2) == 2100
    assert estimate(repeat={"web": 1, "quiz": 4}) == 1200
    assert estimate(shares={"web": 1}, tokens=77) == 77
    assert estimate(shares={"web": 1}, sequences=3) == 300
    assert estimate(shares={"web": 1, "other": 1}) is None
    assert estimate(shares={"web": 1, "quiz": 0}, held_out={"quiz": 1}) == 1000


def test_a_hub_that_does_not_answer_is_asked_once_for_many_sources_and_the_others_are_named(
    tmp_path, capsys, monkeypatch, waits
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    subsets = [f"s{number}" for number in range(12)]
    source = {"kind": "cauldron", "root": "hf://datasets/acme/sets@main", "files": "{subset}/*", "subsets": subsets}
    path = tmp_path / "far.yaml"
    path.write_text(json.dumps({"name": "far", "sources": {"far": source}}))
    status, _, error = read_check(capsys, path)
    assert status == 1
    assert error.count("http://127.0.0.1:9 cannot be reached") == 1
    assert "far-s0, far-s1, far-s10, far-s11, far-s2" in error
    assert "Retrying" not in error
    assert "--source NAME=PATH" in error
    assert len(waits) == 5  # of one repository


def test_of_many_repositories_one_is_asked_first_and_the_others_are_named_if_the_hub_does_not_answer(
    tmp_path, capsys, monkeypatch, waits
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    sources = {f"s{n}": {"kind": "cauldron", "root": f"hf://datasets/acme/s{n}", "files": "*"} for n in range(9)}
    path = tmp_path / "far.yaml"
    path.write_text(json.dumps({"name": "far", "sources": sources}))
    status, _, error = read_check(capsys, path)
    assert status == 1
    assert error.count("http://127.0.0.1:9 cannot be reached") == 1
    assert "8 more sources are on the Hub and were not looked at: s1, s2, s3" in error
    assert len(waits) == 5


# -- image files that rows name ----------------------------------------------------------------------------------------


def write_talk(folder, there):
    """A recipe of eight rows that name pictures, of which some are `there`, in the folder `photos/small`."""
    (folder / "photos" / "small").mkdir(parents=True)
    for row in there:
        (folder / "photos" / "small" / f"{row}.png").write_bytes(picture(row))
    rows = [{"image": f"{row}.png", "conversations": talk("<image>What?", f"Shape {row}.")} for row in range(8)]
    json_array(folder / "rows.json", rows)
    sources = {"talk": {"kind": "llava", "files": "rows.json", "images": "photos"}}
    return write_recipe(folder, sources=sources, stages=[], dedupe=None)


def test_image_files_of_which_none_is_where_the_recipe_says_are_a_fault_that_says_where_they_are(tmp_path, capsys):
    recipe = write_talk(tmp_path, range(8))
    status, found, _ = read_check(capsys, recipe)
    place = tmp_path / "photos"
    (fault,) = found["faults"]
    assert status == 1
    assert fault == (
        f"source 'talk': none of 8 image files that rows name, such as 0.png, is under {place}; they are in "
        f"{place / 'small'}: --set sources.talk.images={place / 'small'}"
    )
    status, found, _ = read_check(capsys, recipe, "--set", f"sources.talk.images={place / 'small'}")
    assert (status, found["faults"], found["warnings"]) == (0, [], [])


def test_image_files_that_are_nowhere_are_a_fault_and_a_few_that_are_missing_a_warning(tmp_path, capsys):
    recipe = write_talk(tmp_path, range(3, 8))
    _, found, _ = read_check(capsys, recipe, "--set", "sources.talk.images=photos/small")
    assert found["faults"] == []
    place = tmp_path / "photos" / "small"
    assert found["warnings"] == [f"talk: 3 of 8 images that were looked for are not there, such as 0.png under {place}"]
    for file in place.iterdir():
        file.unlink()
    _, found, _ = read_check(capsys, recipe)
    assert found["faults"][0].endswith("say where they are: --set sources.talk.images=FOLDER")


@pytest.mark.parametrize("end", [".tar", ".tar.gz"])
def test_images_in_a_tar_are_named_with_what_unpacks_it(tmp_path, capsys, end):
    recipe = write_talk(tmp_path, range(8))
    packed = tmp_path / "photos" / f"all of it{end}"
    with tarfile.open(packed, "w:gz" if end.endswith("gz") else "w") as archive:
        archive.add(tmp_path / "photos" / "small", arcname=".")
    shutil.rmtree(tmp_path / "photos" / "small")
    (fault,) = read_check(capsys, recipe)[1]["faults"]
    beside = shutil.copy(tmp_path / "rows.json", tmp_path / "photos" / "rows.json")
    (note,) = [one for one in examine_place(str(beside)).notes if "no image file" in one]
    command = re.search("; a tar there has some: (.+), and say where they are then: ", fault)[1]
    assert note.endswith(f"; a tar has some, unpack it: {command}")
    subprocess.run(command, shell=True, check=True)
    assert str(tmp_path / "photos" / "all of it") in read_check(capsys, recipe)[1]["faults"][0]


def test_a_damaged_tar_and_one_of_other_files_are_not_named(tmp_path, capsys):
    recipe = write_talk(tmp_path, ())
    (tmp_path / "photos" / "a.tar").write_bytes(b"no tar")
    tar(tmp_path / "photos" / "b.tar", {"other.png": picture(1)})
    assert read_check(capsys, recipe)[1]["faults"][0].endswith("; say where they are: --set sources.talk.images=FOLDER")


def test_a_plan_is_not_called_short_where_no_image_was_found(tmp_path, capsys):
    recipe = write_talk(tmp_path, ())
    written = yaml.safe_load(recipe.read_text())
    (stage,) = copy.deepcopy(RECIPE["stages"])
    stage["mixture"]["shares"] = {"talk": 1}
    recipe.write_text(yaml.safe_dump({**written, "stages": [stage]}))
    _, found, _ = read_check(capsys, recipe)
    assert [len(found["faults"]), found["warnings"]] == [1, []]
    for row in range(8):
        (tmp_path / "photos" / f"{row}.png").write_bytes(picture(row))
    _, found, _ = read_check(capsys, recipe)
    assert found["faults"] == []
    assert any("its mixture plans about" in one for one in found["warnings"])


def test_absolute_paths_of_images_are_said_to_be_absolute_or_found_where_they_are(tmp_path, capsys):
    recipe = write_talk(tmp_path, range(8))
    (tmp_path / "other").mkdir()
    rows = json.loads((tmp_path / "rows.json").read_text())

    def check(folder, number, *options):
        changed = [{**row, "image": f"{folder}/{row['image']}"} for row in rows[:number]]
        json_array(tmp_path / "rows.json", [*changed, *rows[number:]])
        return read_check(capsys, recipe, *options)[1]

    small = tmp_path / "photos" / "small"
    (warning,) = check("/data/alice", 3, "--set", "sources.talk.images=photos/small")["warnings"]
    cut = CUT.format(path="/data/alice/0.png", begin="/data/alice/", folder=small)
    assert warning.endswith(f"such as /data/alice/0.png under {small} ({cut})")
    (fault,) = check("/data/alice", 8)["faults"]
    assert fault.endswith(f" ({cut})")
    (fault,) = check("/data/alice", 8, "--set", "sources.talk.images=other")["faults"]
    assert fault.endswith(f" (/data/alice/0.png: {ABSOLUTE})")
    (fault,) = check(small, 8, "--set", "sources.talk.images=other")["faults"]
    assert fault.endswith(f"they are in {small}: --set sources.talk.images={small}")


# -- images that are lost wherever they come from ----------------------------------------------------------------------

BARE = """
from dataclasses import dataclass
from typing import ClassVar
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture
from vlmill.pipeline.sources.formats.json_rows import JsonSource


@dataclass(frozen=True)
class Bare(JsonSource):
    kind: ClassVar[str] = "bare"

    def keys(self):
        return (("text",),)

    def reads(self):
        return ("text",)

    def shows(self):
        return ()

    def page(self, row):
        return Page((Node("text", text=row["text"]), Node("image", image=0)), (Picture(reason=Reason.MISSING_FILE),))
"""


def test_images_of_which_most_cannot_be_used_are_a_warning_wherever_their_bytes_are(tmp_path, capsys):
    (tmp_path / "own").mkdir()
    for number in range(4):
        (tmp_path / "own" / f"{number}.png").write_bytes(b"<title>Sign in</title>%d" % number)
    obelics(tmp_path / "pages.parquet", [[f"Page {n}", f"http://img.small.test/{n}.png"] for n in range(4)])
    broken = [([b"GIF, but for its bytes, %d" % n], [(f"What is {n}?", "Nothing")]) for n in range(4)]
    cauldron(tmp_path / "asked.parquet", [*broken, ([picture(1)], [("And?", "A picture")])])
    (tmp_path / "bare.jsonl").write_text("\n".join(json.dumps({"text": f"Page {n}"}) for n in range(4)))
    (tmp_path / "bare.py").write_text(BARE)
    sources = {
        "web": {"kind": "obelics", "files": "pages.parquet", "serve": {"http://img.small.test/": "own"}},
        "quiz": {"kind": "cauldron", "files": "asked.parquet"},
        "bare": {"kind": "bare", "files": "bare.jsonl"},
    }
    recipe = write_recipe(tmp_path, sources=sources, stages=[], dedupe=None)
    _, found, _ = read_check(capsys, recipe, "--filter", tmp_path / "bare.py")
    assert found["faults"] == []
    assert sorted(line.partition(";")[0] for line in found["warnings"]) == [
        "bare: 4 of 4 images that were looked at are lost (missing_file 4)",
        "quiz: 4 of 5 images that were looked at are lost (undecodable 4)",
        "web: 4 of 4 images that were looked at are lost (undecodable 4)",
    ]
    cauldron(tmp_path / "asked.parquet", [*broken[:2], *(([picture(n)], [("And?", "A picture")]) for n in range(2))])
    _, found, _ = read_check(capsys, recipe, "--filter", tmp_path / "bare.py")
    assert not any(line.startswith("quiz") for line in found["warnings"]), "no more than a half"


def test_shares_that_do_not_add_up_to_one_are_said_before_a_build(recipe, capsys):
    said = "align: the shares add up to 1.2; they are read as proportions"
    assert said not in read_check(capsys, recipe)[1]["warnings"]
    assert said in read_check(capsys, recipe, "--set", "stages.align.mixture.shares.web=0.6")[1]["warnings"]


def test_images_are_no_part_of_tables_that_are_smaller(tmp_path, capsys):
    for number in range(4):
        Image.new("RGB", (300, 200), (number, 9, 9)).save(tmp_path / f"{number}.bmp")
    rows = [json.dumps({"image": f"{number}.bmp", "caption": f"Field {number}."}) for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    source = {"kind": "table", "files": "rows.jsonl", "options": {"image": "image", "caption": "caption"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "flat", "sources": {"flat": source}}))
    assert vlmill("check", tmp_path / "recipe.yaml") == 0
    said = " ".join(capsys.readouterr().out.split())
    found = re.search(r"disk: tables ([\d.]+) kB, which hold images of ([\d.]+) kB, packed", said)
    assert found is not None, said
    assert float(found[1]) < float(found[2])


def test_pages_of_a_tiff_behind_its_first_are_said_before_and_after_a_build(tmp_path, capsys):
    pages = [Image.new("L", (60, 40), shade) for shade in (9, 90, 190)]
    pages[0].save(tmp_path / "book.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "page.tif")
    pages[0].save(tmp_path / "moving.gif", save_all=True, append_images=pages[1:])
    names = ("book.tif", "page.tif", "moving.gif")
    rows = [json.dumps({"image": name, "caption": f"A picture called {name}."}) for name in names]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    source = {"kind": "table", "files": "rows.jsonl", "options": {"image": "image", "caption": "caption"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "books", "sources": {"books": source}}))
    run, said = tmp_path / "run", "books: 1 TIFF with several pages: the first is read, 2 behind it are not"
    assert vlmill("check", tmp_path / "recipe.yaml") == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert vlmill("build", tmp_path / "recipe.yaml", "--out", run, "--workers", 0) == 0
    capsys.readouterr()
    assert vlmill("report", run, "--section", "funnel") == 0
    assert said in " ".join(capsys.readouterr().out.split())
    for row, told in enumerate((", the first of 3 pages,", "", "")):
        assert vlmill("trace", run, f"books/rows.jsonl#{row}") == 0
        text = " ".join(capsys.readouterr().out.split())
        assert (" 60x40" + told + " sha256 ") in text
    pages[0].save(tmp_path / "book.tif")
    assert vlmill("check", tmp_path / "recipe.yaml") == 0
    assert "several pages" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["web_documents", "table"])
def test_an_option_that_names_a_place_where_no_row_holds_anything_is_a_warning(kind, tmp_path, capsys):
    row = {"texts": ["A text."], "images": [None], "meta": {"page": "http://a.test/", "score": 1}}
    row |= {"asked": "What?", "said": "That."}
    write_recipe(tmp_path)
    json_lines(tmp_path / "rows.jsonl", [{**row, "meta": {}}, row])
    named = {"url": "meta.page"} if kind == "web_documents" else {"question": "asked", "answer": "said"}
    wrong = {**named, "signals": ["meta.skore"], **({"url": "meta.link"} if kind == "web_documents" else {})}
    warned = [
        f"source docs: options.{option} names 'meta.{place}', and none of the 2 {what} there"
        for option, place, what in [
            ("signals", "skore", "samples that were looked at has a number"),
            ("url", "link", "rows that were looked at has an address"),
        ]
        if option in wrong
    ]
    for options, expected in [({**named, "signals": ["meta.score"]}, []), (wrong, warned)]:
        sources = {"docs": {"kind": kind, "files": "rows.jsonl", "options": options}}
        changes = {"sources": sources, "stages": [], "dedupe": None, "filters": []}
        status, found, error = read_check(capsys, write_recipe(tmp_path, **changes))
        assert status == 0, error
        assert [line for line in found["warnings"] if "looked at has" in line] == expected
