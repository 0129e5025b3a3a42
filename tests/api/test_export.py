"""Exports of a built run: what they hold beside the run's own reader, resume, receipts, takedowns, refusals."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter

import polars as pl
import pyarrow.parquet as pq
import pytest

import vlmill
from tests.helpers.killing import killed_at
from tests.helpers.small import RECIPE, prose, write_recipe
from tests.helpers.small import vlmill as command
from vlmill.mixtures.export import folder as folders
from vlmill.mixtures.export import stage_records
from vlmill.mixtures.lineage import LineageTables
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.sample import IMAGES
from vlmill.pipeline.engine.store import Store

SMALL = {"shard_samples": 7}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Several partitions, documents that are cut, samples that are held out and that come several times."""
    stage, folder = RECIPE["stages"][0], tmp_path_factory.mktemp("input files")
    mixture = {**stage["mixture"], "held_out": {"quiz": 0.3}, "sequence_length": 160, "epochs": 2}
    recipe = write_recipe(folder, stages=[{**stage, "mixture": mixture}])
    return vlmill.build(recipe, tmp_path_factory.mktemp("built") / "run", workers=0)


def list_files(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def read_part(folder, part):
    return [row for path in sorted((folder / part).glob("*.parquet")) for row in pl.read_parquet(path).to_dicts()]


def join_text(row):
    return "".join(
        "<image>" if part["text"] is None else part["text"] for one in row["messages"] for part in one["content"]
    )


def join_nodes(sample):
    document = all(node.role == "none" for node in sample.nodes)
    parts = [
        "<image>" if node.text is None else node.text + ("\n\n" if document and node is not sample.nodes[-1] else "")
        for node in sample.nodes
    ]
    return "".join(parts)


def assert_upstream_ids(run, source, rows):
    """Rows of an export have what their input rows call themselves: here all but those of a table without ids."""
    named = dict(run.samples(source).select("id", "upstream_id").collect().rows())
    assert {row["id"]: row["upstream_id"] for row in rows} == {row["id"]: named[row["id"]] for row in rows}
    assert all(row["upstream_id"] for row in rows) is (source != "quiz")


# -- what is in them ---------------------------------------------------------------------------------------------------


def test_an_export_of_the_plan_is_the_plan_with_originals(run, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_records, "CHUNK", 5)
    done = run.export("parquet", tmp_path / "out", stage="align", **SMALL)
    stage, mixture = run.stage("align"), PlannedMixture(run.folder, "align")
    lineages = LineageTables(mixture)
    planned = list(stage.samples())
    segments = [segment for number in range(mixture.sequences) for segment in mixture.sequence(number)]
    rows = read_part(tmp_path / "out", "data/train")
    assert [(row["id"], row["source"], row["licence"], row["sequence"]) for row in rows] == [
        (sample.id, sample.source, sample.licence, sample.sequence) for sample in planned
    ]
    for row, sample, segment in zip(rows, planned, segments, strict=True):
        nodes = lineages.find(segment)["nodes"][segment.first : segment.last]
        assert [hashlib.sha256(image["bytes"]).hexdigest() for image in row["images"]] == [
            node["sha256"] for node in nodes if node["sha256"]
        ]
        if sample.begin == 0 and sample.end == -1:
            assert join_text(row) == join_nodes(sample)
    held = read_part(tmp_path / "out", "data/validation")
    assert [row["id"] for row in held] == [sample.id for sample in stage.held_out()]
    assert held
    assert (done.outcome, done.records) == ("made", len(rows) + len(held))
    assert len(list((tmp_path / "out/data/train").iterdir())) == -(-len(rows) // 7)


def test_the_segments_of_a_document_add_up_to_it(run, tmp_path):
    run.export("parquet", tmp_path / "out", stage="align")
    mixture, parts = PlannedMixture(run.folder, "align"), dict[str, dict[tuple[int, int], str]]()
    segments = [segment for number in range(mixture.sequences) for segment in mixture.sequence(number)]
    whole = {}
    for segment, row in zip(segments, read_part(tmp_path / "out", "data/train"), strict=True):
        parts.setdefault(row["id"], {})[segment.first, segment.begin] = join_text(row)
        (nodes,) = mixture.nodes([segment])
        whole[row["id"]] = "".join("<image>" if node.text is None else node.text for node in nodes)
    cut = {sample.id for sample in run.stage("align").samples() if sample.end != -1}
    assert cut
    for name in cut:
        text = "".join(text for _, text in sorted(parts[name].items()))
        assert "".join(text.split()) == "".join(whole[name].split())
    remarks = json.loads((tmp_path / "out/export.json").read_text())["remarks"]
    assert remarks["continued"] >= len(cut)
    assert f"`continued`, {remarks['continued']}" in (tmp_path / "out/README.md").read_text()


def test_samples_once_have_their_weights(run, tmp_path):
    run.export("parquet", tmp_path / "out", stage="align", order="samples")
    stage = run.stage("align")
    planned = {source["label"]: source["planned"]["samples"] for source in stage.lock["sources"]}
    shown = Counter(sample.id for sample in stage.samples() if sample.nodes)
    for source, number in planned.items():
        rows = read_part(tmp_path / "out", f"{source}/train")
        assert len({row["id"] for row in rows}) == len(rows)
        assert sum(row["weight"] for row in rows) == number
        assert {row["id"] for row in rows} == {name for name in shown if name.startswith(f"{source}/")}
        assert_upstream_ids(run, source, rows)
    table = (tmp_path / "out/README.md").read_text()
    assert f"| quiz | train | {len(read_part(tmp_path / 'out', 'quiz/train'))} |" in table


def test_pictures_of_the_policy_are_those_of_the_shards(run, tmp_path):
    run.export("parquet", tmp_path / "out", stage="align", images="policy")
    rows = read_part(tmp_path / "out", "data/train")
    for row, sample in zip(rows, run.stage("align").samples(), strict=True):
        assert [image["bytes"] for image in row["images"]] == [parts["canvas"] for parts in sample.images]


def test_without_a_stage_it_is_what_was_kept(run, tmp_path):
    done = run.export("parquet", tmp_path / "out", **SMALL)
    kept = run.funnel().filter((pl.col("level") == "samples") & (pl.col("outcome") == "kept"))
    counts = dict(kept.select("source", "count").rows())
    images = run.image_stats().filter(pl.col("reason").is_null()).collect()["sha256"].to_list()
    for source, number in counts.items():
        rows = read_part(tmp_path / "out", f"{source}/train")
        assert len(rows) == number
        assert_upstream_ids(run, source, rows)
        assert {hashlib.sha256(image["bytes"]).hexdigest() for row in rows for image in row["images"]} <= {*images}
    assert done.records == sum(counts.values())
    assert prose(0) in join_text(read_part(tmp_path / "out", "web/train")[0])


# -- files and receipts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["parquet", "llava", "messages", "webdataset"])
def test_exports_are_the_same_bytes_and_every_file_is_listed(run, tmp_path, to):
    one, other = (run.export(to, tmp_path / name, stage="align", **SMALL).folder for name in ("one", "other"))
    files = list_files(one)
    assert files == list_files(other)
    said = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=one, capture_output=True, check=False)
    assert said.returncode == 0
    listed = {line.split("  ", 1)[1] for line in (one / "SHA256SUMS").read_text().splitlines()}
    assert listed == files.keys() - {"SHA256SUMS", "export.json"}
    receipt = json.loads((one / "export.json").read_text())
    assert (receipt["run"], receipt["stage"], receipt["files"]) == ("small", "align", len(listed))
    assert receipt["recipe_sha256"] == hashlib.sha256((run.folder / "recipe.lock.yaml").read_bytes()).hexdigest()
    assert str(tmp_path) not in "".join(path.read_text(errors="replace") for path in one.glob("*.*"))


def test_an_export_that_is_there_is_checked_and_left(run, tmp_path, capsys):
    arguments = ("export", run.folder, "--stage", "align", "--to", "messages", "--out", tmp_path / "out")
    assert command(*arguments) == 0
    assert "see " in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert command(*arguments) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    picture = next((tmp_path / "out/images").rglob("*.png"))
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-1] + b"x")
    assert command(*arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["outcome"], told["why"]) == (
        "replaced",
        f"{picture.relative_to(tmp_path / 'out')} is missing, or not as it was written",
    )
    assert picture.read_bytes() == whole


def test_an_export_that_is_cut_otherwise_replaces_what_is_there(run, tmp_path):
    run.export("llava", tmp_path / "out", stage="align", shard_samples=2)
    (tmp_path / "out/notes.txt").write_text("of somebody else")
    done = run.export("llava", tmp_path / "out", stage="align")
    assert (done.outcome, done.why) == ("replaced", "it was cut or drawn otherwise, or the run has changed since")
    (tmp_path / "out/notes.txt").unlink()
    assert list_files(tmp_path / "out") == list_files(run.export("llava", tmp_path / "new", stage="align").folder)


@pytest.mark.parametrize(
    ("to", "more", "said"),
    [
        ("messages", {"stage": "align"}, "to llava, asked for is messages"),
        ("llava", {}, "stage align, asked for is None"),
        ("llava", {"stage": "align", "order": "samples"}, "order plan, asked for is samples"),
    ],
)
def test_an_export_of_another_kind_is_not_deleted(run, tmp_path, to, more, said):
    run.export("llava", tmp_path / "out", stage="align")
    before = list_files(tmp_path / "out")
    with pytest.raises(StoreError, match=re.escape(said)):
        run.export(to, tmp_path / "out", **more)
    assert list_files(tmp_path / "out") == before


def export_messages(root, out):
    vlmill.open_run(root).export("messages", out, stage="align", shard_samples=20)


def test_killed_anywhere_it_goes_on_and_ends_with_the_same_bytes(run, tmp_path):
    export_messages(run.folder, tmp_path / "whole")
    expected, kept = list_files(tmp_path / "whole"), []
    for point in range(5, 10_000, 11):
        out = tmp_path / f"killed-{point}"
        if not killed_at(point, export_messages, run.folder, out):
            break
        progress = out / folders.PROGRESS
        done = len(progress.read_text().splitlines()) - 1 if progress.exists() else 0
        times = {path: path.stat().st_mtime_ns for path in out.glob("data/*/*.jsonl")}
        complete = (out / "export.json").exists()
        again = run.export("messages", out, stage="align", shard_samples=20)
        assert again.outcome == ("unchanged" if complete else "resumed" if done > 0 else "made")
        assert sum(path.stat().st_mtime_ns == time for path, time in times.items()) >= done
        assert list_files(out) == expected
        kept.append(done)
    assert max(kept) > 1


def test_a_line_that_a_kill_cut_and_a_damaged_shard_are_made_again(run, tmp_path):
    folder = run.export("messages", tmp_path / "out", stage="align", shard_samples=20).folder
    expected = list_files(folder)
    made = folders.ExportFolder(folder, json.loads((folder / "export.json").read_text())["key"])
    shards = sorted(folder.glob("data/train/*.jsonl"))
    lines = [{"folder": "data/train", "records": 20, "pictures": 0, "remarks": {}, "members": []} for _ in shards[:2]]
    for line, path in zip(lines, shards, strict=False):
        name = str(path.relative_to(folder))
        line["files"] = [{"path": name, "sha256": expected[name], "size": path.stat().st_size}]
    shards[1].write_text("damaged")
    (folder / "export.json").unlink()
    text = "".join(json.dumps(line) + "\n" for line in ({"key": made.key}, *lines)) + '{"folder": "da'
    (folder / folders.PROGRESS).write_text(text)
    assert run.export("messages", folder, stage="align", shard_samples=20).outcome == "resumed"
    found = list_files(folder)
    changed = {name for name in expected if found[name] != expected[name]}
    assert changed <= {"README.md", "SHA256SUMS", "export.json"}  # the first line was written by hand, without counts


# -- takedowns and refusals --------------------------------------------------------------------------------------------


def test_after_a_takedown_it_is_made_anew_without_what_went(run, tmp_path):
    root = shutil.copytree(run.folder, tmp_path / "run")
    run = vlmill.open_run(root)
    out = run.export("messages", tmp_path / "out", stage="align").folder
    gone = next(sample.id for sample in run.stage("align").samples() if sample.source == "quiz")
    run.takedown(ids=[gone], workers=0)
    again = run.export("messages", out, stage="align")
    assert (again.outcome, again.why) == ("replaced", "something was taken down since")
    assert not [path for path in out.rglob("*.json*") if f'"{gone}"' in path.read_text()]
    assert list_files(out) == list_files(run.export("messages", tmp_path / "new", stage="align").folder)


@pytest.mark.parametrize("stage", ["align", None])
def test_what_stands_on_the_list_of_takedowns_is_not_exported(run, tmp_path, stage):
    root = shutil.copytree(run.folder, tmp_path / "run")
    sample = next(sample.id for sample in run.stage("align").samples() if sample.source == "quiz")
    (root / "takedowns.yaml").write_text(f"ids: ['{sample}']\n")
    with pytest.raises(vlmill.StoreError, match=r"finish it: vlmill.open_run\(.*\).takedown\(\)"):
        vlmill.open_run(root).export("llava", tmp_path / "out", stage=stage)
    assert not (tmp_path / "out/export.json").exists()


def test_a_folder_of_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(vlmill.StoreError, match="holds something that is no export"):
        run.export("llava", tmp_path, stage="align")
    assert list_files(tmp_path).keys() == {"notes.txt"}


def test_a_list_that_leads_out_of_the_folder_deletes_nothing(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    run.export("llava", tmp_path / "out", stage="align")
    with (tmp_path / "out/SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  ../mine\n")
    run.export("llava", tmp_path / "out", stage="align")
    assert (tmp_path / "mine").exists()


def test_an_image_that_is_not_the_one_of_the_shards_is_an_error(run, tmp_path):
    root = shutil.copytree(run.folder, tmp_path / "run")
    for path in root.glob("steps/quiz/read/*.images.parquet"):
        table = pl.read_parquet(path)
        pq.write_table(table.with_columns(pl.col("bytes").reverse()).to_arrow().cast(IMAGES), path)
    for stage in ("align", None):
        with pytest.raises(vlmill.StoreError, match=r"vlmill.open_run\(.*\).verify\(\)"):
            vlmill.open_run(root).export("llava", tmp_path / f"out-{stage}", stage=stage)


def test_a_run_at_work_is_not_exported(run, tmp_path):
    with (
        Store(run.folder).locked(),
        pytest.raises(vlmill.StoreError, match="a build is at work in this folder; call again when it has ended"),
    ):
        run.export("llava", tmp_path / "out")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"to": "parkett"}, "did you mean 'parquet'"),
        ({"order": "random", "stage": "align"}, "order.*plan"),
        ({"images": "policy"}, "name one with `stage`"),
        ({"stage": "aligned"}, "did you mean 'align'"),
        ({"shard_samples": 0}, "one sample at least"),
    ],
)
def test_what_cannot_be_exported_is_said_with_what_can(run, tmp_path, asked, message):
    with pytest.raises(vlmill.VlmillError, match=message):
        run.export(**{"to": "llava", "out": tmp_path / "out", **asked})
    assert not (tmp_path / "out").exists()
