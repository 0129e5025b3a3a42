"""A run through the API: what a build returns, what its tables, pictures and stages hold, and what it is asked."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from PIL import Image

import vlmill
from tests.helpers.small import RECIPE, product, write_recipe
from tests.helpers.small import vlmill as command
from tests.helpers.stages import MACHINE
from tests.helpers.upstream import picture, talk
from vlmill.pipeline.core.sample import read_images, read_samples
from vlmill.pipeline.engine.partition_tables import list_raw_tables

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    stage = RECIPE["stages"][0]
    stages = [{**stage, "mixture": {**stage["mixture"], "held_out": {"quiz": 0.3}}}]
    return write_recipe(tmp_path_factory.mktemp("input files"), stages=stages)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    return vlmill.build(recipe, tmp_path_factory.mktemp("built") / "run", workers=0)


def list_tables(run):
    return [at for source in run.sources for at in list_raw_tables(run.folder, run.recipe, source)]


# -- builds


def test_a_build_makes_what_the_command_makes(recipe, run, tmp_path):
    assert command("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    assert product(run.folder) == product(tmp_path / "run")
    assert product(run.folder)


def test_a_build_says_nothing_unless_it_is_given_a_console(recipe, run, capsys):
    vlmill.build(recipe, run.folder, workers=0)
    assert capsys.readouterr() == ("", "")


def test_a_recipe_that_was_loaded_is_checked_as_it_is(recipe, tmp_path):
    loaded = vlmill.load_recipe(recipe, settings={"shape.max_ratio": 1.3})
    assert vlmill.check_recipe(loaded, tmp_path / "run", workers=0).faults == ()
    moved = vlmill.load_recipe(recipe, sources={"web": tmp_path / "nowhere"})
    assert any("nowhere" in fault for fault in vlmill.check_recipe(moved, workers=0).faults)
    with pytest.raises(TypeError, match="give load_recipe what is to be changed"):
        vlmill.check_recipe(loaded, settings={"seed": 3})


def test_one_file_of_code_needs_no_list_and_code_that_a_run_holds_is_named_in_python(recipe, tmp_path):
    shouting = EXAMPLES / "filters/shouting.py"
    assert vlmill.load_recipe(recipe, filters=str(shouting)).mapping["custom_filters"].keys() == {"shouting.py"}
    held = vlmill.build(vlmill.load_recipe(recipe, filters=shouting), tmp_path / "run", until="curate", workers=0)
    with pytest.raises(
        vlmill.VlmillError, match=r"with filters=\[FILE\] .*, or trust .*\n  trust_code=\['[0-9a-f]{64}'\]"
    ):
        held.what_if({"shouting.share": 0.5})
    assert held.what_if({"shouting.share": 0.5}, filters=shouting)


def test_a_recipe_is_loaded_with_other_values(recipe):
    loaded = vlmill.load_recipe(recipe, limit=2, settings={"filters.shape.max_ratio": 3, "seed": "7"})
    assert (loaded.name, loaded.recipe.limit, loaded.recipe.seed) == ("small", 2, 7)
    assert loaded.recipe.filters[1].max_ratio == 3
    with pytest.raises(vlmill.RecipeError, match="max_ration"):
        vlmill.load_recipe(recipe, settings={"filters.shape.max_ration": 3})


def test_a_loaded_recipe_is_built_with_a_custom_filter(recipe, tmp_path):
    loaded = vlmill.load_recipe(recipe, filters=[EXAMPLES / "filters/shouting.py"], settings={"shouting.share": 0.01})
    found = vlmill.build(loaded, tmp_path / "run", workers=0, until="curate").folder / "steps/quiz/shouting"
    assert found.is_dir()


def test_code_that_was_not_named_does_not_run(recipe, tmp_path):
    code = "raise SystemExit('it ran')\nclass A:\n    name = 'a'\n"
    held = {"a.py": {"sha256": hashlib.sha256(code.encode()).hexdigest(), "code": code}}
    path = tmp_path / "held.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), "custom_filters": held}))
    with pytest.raises(vlmill.RecipeError, match="code runs only if"):
        vlmill.load_recipe(path)


def test_a_build_that_keeps_too_little_is_an_error_and_keeps_what_it_made(recipe, tmp_path):
    loaded = vlmill.load_recipe(recipe, settings={"expect": {"kept": 1.0}})
    with pytest.raises(vlmill.VlmillError, match="web: kept"):
        vlmill.build(loaded, tmp_path / "run", workers=0, until="curate")
    assert vlmill.open_run(tmp_path / "run").samples().collect().height


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(vlmill.StoreError, match="holds no run"):
        vlmill.open_run(tmp_path)


# -- tables


def test_samples_are_those_of_the_partitions_with_their_ids(run):
    frame = run.samples().collect()
    expected = [
        (str(at), number, sample)
        for at in list_tables(run)
        for number, sample in enumerate(read_samples(at.paths(run.folder)["samples.parquet"]))
    ]
    rows = frame.to_dicts()
    assert [(f"{row['source']}/{row['partition']}", row["sample"]) for row in rows] == [
        (at, n) for at, n, _ in expected
    ]
    assert [row["id"] for row in rows] == [str(sample.id) for *_, sample in expected]
    assert any("." in row["id"].rpartition("#")[2] for row in rows), "pages have numbers"
    assert [len(row["nodes"]) for row in rows] == [len(sample.nodes) for *_, sample in expected]


def test_one_source_is_the_same_rows_alone_and_an_unknown_one_is_named(run):
    for table in (run.samples, run.images, run.image_stats, run.verdicts, run.refused):
        assert table("web").collect().equals(table().filter(pl.col("source") == "web").collect())
        with pytest.raises(vlmill.StoreError, match="did you mean 'web'"):
            table("webb")


def test_images_have_what_a_retry_brought(tmp_path):
    rows = [{"image": f"{number}.png", "conversations": talk("<image>What is it?", "A box")} for number in range(4)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "retry.yaml").write_text(
        yaml.safe_dump({"name": "retry", "sources": {"talk": {"kind": "llava", "files": "rows.json"}}, "dedupe": None})
    )
    for number in (0, 1, 3):
        (tmp_path / f"{number}.png").write_bytes(picture(number, (64, 64)))
    run = vlmill.build(tmp_path / "retry.yaml", tmp_path / "run", workers=0, until="curate")
    assert run.images().select("reason").collect()["reason"].to_list() == [None, None, "missing_file", None]
    (tmp_path / "2.png").write_bytes(picture(2, (64, 64)))
    run = vlmill.build(tmp_path / "retry.yaml", tmp_path / "run", workers=0, until="curate", retry_failed=True)
    (at,) = list_tables(run)
    assert "supplement.parquet" in at.files
    assert run.images().collect().drop("source", "partition").to_dicts() == list(read_images(at.paths(run.folder)))
    assert run.images().select("image", "reason").collect().rows() == [(number, None) for number in range(4)]
    assert run.picture("talk", at.partition, 2).size == (64, 64)


def test_verdicts_name_rows_of_samples(run):
    named = run.verdicts().join(run.samples(), on=["source", "partition", "sample"], how="left").collect()
    assert named["id"].null_count() == 0
    assert set(named["filter"]) == {"language", "dedupe"}
    assert "web/web.parquet#5" in {*named.filter(pl.col("filter") == "language")["id"]}


def test_the_funnel_adds_up_to_what_came_in(run):
    funnel = run.funnel()
    rows = funnel.filter((pl.col("source") == "web") & (pl.col("level") == "rows"))
    assert rows["count"].sum() == 8
    failed = funnel.filter((pl.col("level") == "images") & (pl.col("outcome") == "failed"))
    assert dict(failed.select("reason", "count").rows()) == {"http_client_error": 1, "not_an_image": 1}


def test_refused_rows_say_why(recipe, tmp_path):
    rows = [{"image": "a.png", "conversations": "no list"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = {"name": "refused", "sources": {"talk": {"kind": "llava", "files": "rows.json"}}}
    (tmp_path / "refused.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(vlmill.VlmillError):
        vlmill.build(tmp_path / "refused.yaml", tmp_path / "run", workers=0, until="curate")
    (row,) = vlmill.open_run(tmp_path / "run").refused().collect().to_dicts()
    assert (row["id"], row["page"], row["reason"]) == ("talk/rows.json#0", -1, "bad_row")


# -- pictures


def test_pictures_are_decoded_as_they_came(run):
    stats = {
        (row["source"], row["partition"], row["image"]): row
        for row in run.image_stats().filter(pl.col("reason").is_null()).collect().to_dicts()
    }
    seen = list(run.pictures())
    assert [(shown.source, shown.partition, shown.image) for shown in seen] == list(stats)
    for shown in seen:
        row = stats[shown.source, shown.partition, shown.image]
        assert (shown.sha256, shown.picture.size) == (row["sha256"], (row["width"], row["height"]))
    assert {shown.url for shown in run.pictures("quiz")} == {None}


def test_one_picture_is_had_by_its_place(run):
    shown = next(run.pictures("web"))
    assert run.picture(shown.source, shown.partition, shown.image).tobytes() == shown.picture.tobytes()
    with pytest.raises(vlmill.StoreError, match="has no image 999 of web/00000-0000"):
        run.picture("web", "00000-0000", 999)
    row = run.images("web").filter(pl.col("url").str.contains("missing")).collect().to_dicts()[0]
    with pytest.raises(vlmill.StoreError, match="was not had: http_client_error"):
        run.picture("web", row["partition"], row["image"])


# -- stages


def test_a_stage_has_its_shards_and_statistics(run):
    assert list(run.mixtures) == list(run.stages) == ["align"]
    stage = run.stage("align")
    shards = stage.shards()
    assert set(shards["source"]) == {"web", "quiz", "scans", "papers"}
    for path, sha256 in shards.select("path", "sha256").rows():
        assert hashlib.sha256((run.folder / path).read_bytes()).hexdigest() == sha256
    assert stage.stats["stage"] == "align"
    with pytest.raises(vlmill.StoreError, match="did you mean 'align'"):
        run.stage("aligne")


def test_a_stage_is_a_pipeline_of_webdataset_too(run):
    stage = run.stage(run.stages[0])
    shards = stage.shards()
    held_out = sum(1 for _ in stage.held_out())
    found = [sample["json"]["id"] for sample in stage.webdataset()]
    assert len(found) == len(set(found)) == shards["samples"].sum() - held_out


def test_a_stage_that_is_not_mixed_is_an_error(recipe, tmp_path):
    run = vlmill.build(recipe, tmp_path / "run", workers=0, until="survey")
    assert run.mixtures == {}
    with pytest.raises(vlmill.StoreError, match="has no mixture for stage 'align'"):
        run.stage("align")


def test_samples_of_a_stage_come_in_the_order_of_its_plan(run):
    stage = run.stage("align")
    plan = stage.plan().collect()
    assert plan["sequence"].to_list() == list(range(stage.sequences))
    samples = list(stage.samples())
    planned = [segment for row in plan["segments"].to_list() for segment in row]
    assert [sample.tokens for sample in samples] == [segment["tokens"] for segment in planned]
    assert [sample.source for sample in samples] == [stage.sources[segment["source"]] for segment in planned]
    ids = set(run.samples().collect()["id"])
    for sample in samples:
        assert sample.id in ids
        assert sample.licence == "CC0-1.0"
        assert len(sample.images) == sum(node.kind == "image" for node in sample.nodes)
        for pictures, image in zip(sample.pictures(), sample.images, strict=True):
            assert {name: picture.size for name, picture in pictures.items()} == {
                name: Image.open(io.BytesIO(data)).size for name, data in image.items()
            }
    assert [sample.id for sample in stage.samples(1, 2)] == [sample.id for sample in samples if sample.sequence == 1]


def test_what_is_held_out_is_in_no_sequence(run):
    stage = run.stage("align")
    held = {sample.id for sample in stage.held_out()}
    assert held
    assert not held & {sample.id for sample in stage.samples()}


def test_batches_are_those_of_the_trainer(run):
    stage = run.stage("align")
    steps = list(stage.batches())
    assert len(steps) == RECIPE["stages"][0]["train"]["steps"]
    tokens = stage.plan().collect()["tokens"].to_list()
    for number, (batch,) in enumerate(steps):
        assert batch.ids.shape[0] == 2
        assert batch.tokens == sum(tokens[2 * number : 2 * number + 2])
    (second,) = stage.batches(1, 2)
    assert second[0].ids.equal(steps[1][0].ids)
    halves = [next(iter(stage.batches(rank=rank, ranks=2)))[0] for rank in range(2)]
    assert sum(half.tokens for half in halves) == steps[0][0].tokens


def test_the_manual_names_the_fields_of_a_micro_batch_with_their_types(run):
    ((batch,),) = run.stage("align").batches(0, 1)
    page = (EXAMPLES.parent / "docs/api.md").read_text()
    table = page.partition("## What a micro-batch holds")[2].partition("## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    assert told.keys() == {field.name for field in dataclasses.fields(batch)}
    for name, shape in told.items():
        value = getattr(batch, name)
        if isinstance(value, torch.Tensor):
            assert shape.endswith(str(value.dtype).removeprefix("torch."))
            assert ("(sequences, length)" in shape) == (value.shape == batch.ids.shape)


def test_a_run_says_how_long_ranks_would_wait_for_each_other(run, capsys):
    alone, two = (run.stage("align").measure_imbalance(ranks) for ranks in (1, 2))
    assert alone.dealt == alone.in_order == 1
    assert two.steps == two.looked_at == 2
    assert 1 <= two.dealt < 2
    assert command("stats", run.folder, "--ranks", 2) == 0
    assert str(two) in " ".join(capsys.readouterr().out.split())
    assert command("stats", run.folder, "--ranks", 3) == 1
    assert "2 sequences cannot be cut into 1 micro-batches for each of 3 ranks" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.timeout(600)
def test_a_run_is_trained_and_evaluated(run, tmp_path, capsys):
    shutil.copytree(run.folder, tmp_path / "run")
    copy = vlmill.open_run(tmp_path / "run")
    (result,) = copy.train(machine=MACHINE)
    assert (result.stage, result.steps) == ("align", 2)
    assert (result.export / "config.json").is_file()
    logged = [json.loads(line) for line in result.log.read_text().splitlines()]
    assert [line["tokens"] for line in logged] == [batch.tokens for (batch,) in copy.stage("align").batches()]
    assert copy.evaluate(samples=1, machine=MACHINE)["quiz"].samples == 1
    assert capsys.readouterr().out == ""


# -- questions


def test_a_sound_run_breaks_no_promise_and_a_damaged_one_is_named(run, tmp_path):
    assert run.verify() == []
    shutil.copytree(run.folder, tmp_path / "run")
    shard = next((tmp_path / "run/shards").rglob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (line, *_) = vlmill.open_run(tmp_path / "run").verify()
    assert shard.name in line


def test_what_if_asks_for_other_settings_of_the_run_or_of_a_recipe(run, recipe, tmp_path):
    assert not run.what_if().changes
    answer = run.what_if({"shape.max_ratio": 1.3})
    assert answer.asked == ("shape",)
    assert answer.changes
    changed = tmp_path / "changed.yaml"
    changed.write_text(
        yaml.safe_dump({**yaml.safe_load(recipe.read_text()), "filters": [{"language": {"drop": ["ja"]}}]})
    )
    assert run.what_if(recipe=changed).sources["web"]["samples"].newly_kept == 1


def test_a_sample_is_traced(run):
    assert "language" in {verdict.filter for verdict in run.trace("web/web.parquet#5").verdicts}


# -- the example


def test_the_example_lists_images_and_opt_out_drops_them(recipe, run, tmp_path):
    folder = tmp_path / "input files"
    shutil.copytree(recipe.parent, folder)
    script = EXAMPLES / "list_images.py"
    rate = runpy.run_path(str(script))["rate"]
    ratings = sorted((rate(shown.picture), shown.sha256) for shown in run.pictures())
    most = (ratings[-1][0] + ratings[-2][0]) / 2
    said = subprocess.run(
        [sys.executable, str(script), str(run.folder), str(folder / "listed.txt"), str(most)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 images are on" in said.stdout
    assert (folder / "listed.txt").read_text().split() == [ratings[-1][1]]
    loaded = vlmill.load_recipe(folder / "recipe.yaml", settings={"filters.opt_out.sha256": ["listed.txt"]})
    after = vlmill.build(loaded, tmp_path / "run", workers=0, until="dedupe")
    dropped = after.verdicts().filter(pl.col("filter") == "opt_out").collect()
    place = next(shown for shown in run.pictures() if shown.sha256 == ratings[-1][1])
    assert set(dropped.select("source", "partition").rows()) == {(place.source, place.partition)}
