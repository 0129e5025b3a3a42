"""Verify finds what no longer holds, from the sha256 of a file to what one step handed to the next."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.small import vlmill, write_recipe
from tests.pipeline.test_takedown import Elsewhere
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.seal import COMMENT, seal_yaml
from vlmill.pipeline.engine.chain import read_manifest, write_manifest
from vlmill.pipeline.engine.store import Receipt
from vlmill.pipeline.reports.verify import verify_in_workers, verify_run
from vlmill.pipeline.takedown.rules import LIST, TakedownList


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("input files"), dedupe={"buckets": 1})


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0) == 0
    return folder / "run"


@pytest.fixture
def run(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "run"))


def test_a_sound_run_has_nothing_to_say(built, capsys):
    assert list(verify_run(built)) == []
    assert vlmill("verify", built) == 0
    said = capsys.readouterr().out
    assert "is sound" in said
    assert "ot built yet" not in said


@pytest.mark.parametrize(
    ("until", "left"),
    [
        ("survey", "curate of papers, quiz, scans, web; dedupe; shard of"),
        ("curate", "Not built yet: dedupe; shard of"),
        ("dedupe", "Not built yet: shard of"),
        ("shard", "Not built yet: mixture of align; the build goes on with"),
    ],
)
def test_a_run_whose_build_was_ended_is_sound_as_far_as_it_is_built(recipe, tmp_path, capsys, until, left):
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--until", until) == 0
    capsys.readouterr()
    assert vlmill("verify", tmp_path / "run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert left in said
    assert f"what is built of {tmp_path / 'run'} is sound" in said
    assert vlmill("verify", tmp_path / "run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def miscount(root, folder, level, change):
    """Change a step's counts of the first partition, in receipt, manifest and sums alike, so that each balances."""
    receipts = read_manifest(root, folder)
    first = json.loads(json.dumps(receipts[0].to_json()))
    change(first["counts"][level])
    changed = Receipt.from_json(first)
    (root / folder / f"{changed.partition}.{changed.key[:12]}.receipt.json").write_text(
        json.dumps(changed.to_json(), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    )
    write_manifest(root, folder, [changed, *receipts[1:]])


def one_more(line):
    line["in"] += 1
    line["kept"] += 1


def another_reason(line):
    reason, number = next(iter(line["dropped"].items()))
    line["dropped"] = {"image_ratio" if reason != "image_ratio" else "language": number}


@pytest.mark.parametrize(
    ("folder", "level", "words"),
    [
        ("steps/quiz/read", "pages", "read counts 6 pages kept, its tables have 5"),
        ("steps/web/read", "rows", "read counts rows"),
        ("steps/web/image_stats", "images_measured", "image_stats counts"),
        ("steps/web/language", "filtered", "language counts"),
        ("steps/dedupe/resolve", "deduped", "the filters left"),
        ("steps/dedupe/resolve", "deduped_nodes", "the filters left"),
        ("shards/quiz/small", "samples", "its shards hold 5"),
        ("shards/quiz/small", "nodes", "measured"),
        ("shards/web/small", "images", "the verdicts come to"),
        ("shards/scans/small/lengths", "samples", "measured 4"),
        ("steps/mixtures/align/select", "samples", "select took in"),
    ],
)
def test_what_one_step_kept_is_what_the_next_one_took_in(run, folder, level, words):
    miscount(run, folder, level, one_more)
    assert any(words in line for line in verify_run(run)), list(verify_run(run))


def test_a_loss_entered_under_another_reason_is_found(run):
    folder = "shards/web/small"
    partition = next(
        number for number, receipt in enumerate(read_manifest(run, folder)) if receipt.counts["samples"]["dropped"]
    )
    receipts = read_manifest(run, folder)
    write_manifest(run, folder, [receipts[partition], *(r for n, r in enumerate(receipts) if n != partition)])
    miscount(run, folder, "samples", another_reason)
    assert any("the verdicts come to" in line for line in verify_run(run))


def test_a_file_that_is_missing_or_changed_is_named_with_the_receipt_whose_deletion_mends_it(run, recipe, capsys):
    shard = next((run / "shards").rglob("*.tar"))
    image_stats = next((run / "steps/web/image_stats").glob("00000-0000.*.image_stats.parquet"))
    receipts = [
        next(path for path in file.parent.glob("*.receipt.json") if file.name in path.read_text())
        for file in (shard, image_stats)
    ]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    image_stats.unlink()
    assert (
        list(verify_run(run))
        == [
            f"{shard.relative_to(run)}: its sha256 is not the one in its receipt {receipts[0].name}",
            f"{image_stats.relative_to(run)}: is missing; its receipt is {receipts[1].name}",
        ][:: 1 if shard < image_stats else -1]
    )
    assert vlmill("trace", run, "web/web.parquet#0") == 1
    assert f"{image_stats} is missing or damaged" in " ".join(capsys.readouterr().err.split())
    for receipt in receipts:
        receipt.unlink()
    assert vlmill("build", recipe, "--out", run, "--workers", 0) == 0
    assert list(verify_run(run)) == []


def test_what_is_damaged_is_an_error_without_a_stack_trace(run, capsys):
    manifest = run / "steps/web/language/manifest.json"
    kept = manifest.read_bytes()
    for text, said in (("{", "is damaged"), ("{}", "is no manifest"), ("[]", "is no manifest")):
        manifest.write_text(text)
        for command in ("verify", "report", "status"):
            assert vlmill(command, run) == 1
            assert f"{manifest} {said}" in " ".join(capsys.readouterr().err.split())
    manifest.write_bytes(kept)
    receipt = next((run / "steps/web/language").glob("*.receipt.json"))
    receipt.write_bytes(b"")
    assert list(verify_run(run)) == [f"{receipt.relative_to(run)}: differs from the manifest or is missing"]
    lock = run / "recipe.lock.yaml"
    lock.write_text(seal_yaml(lock.read_text().rpartition(COMMENT)[0].replace("kind: obelics", "kind: theirs")))
    assert vlmill("status", run) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "sources.web.kind: 'theirs' is unknown" in said
    assert "The lock is as it was written, so another installation of vlmill wrote it" in said
    assert "is damaged" not in said
    lock.write_text("a: [")
    assert vlmill("verify", run) == 1
    assert "The lock of a run is damaged" in capsys.readouterr().err


def test_workers_find_the_same_in_the_same_order(run, monkeypatch):
    """Whatever travels is pickled, and what was asked for last comes first."""
    monkeypatch.setattr("vlmill.pipeline.reports.verify_files.RECEIPTS", 1)
    assert list(verify_run(run, Elsewhere())) == []
    receipt = read_manifest(run, "steps/web/language")[0]
    (run / receipt.files[0].path).write_bytes(b"x")
    for path in sorted((run / "steps/quiz/read").glob("*.receipt.json")):
        path.unlink()
    found = list(verify_run(run))
    assert len(found) > 2
    assert list(verify_run(run, Elsewhere())) == found
    assert verify_in_workers(run, None, None) == found


def test_workers_count_the_same(run):
    manifest = run / "steps/web/image_stats/manifest.json"
    data = json.loads(manifest.read_text())
    for receipt in data["receipts"]:
        for line in (receipt["counts"]["images_measured"], data["counts"]["images_measured"]):
            line["in"], line["kept"] = line["in"] + 1, line["kept"] + 1
        key = receipt["key"][:12]
        (manifest.parent / f"{receipt['partition']}.{key}.receipt.json").write_text(json.dumps(receipt))
    manifest.write_text(json.dumps(data))
    found = list(verify_run(run))
    assert any("image_stats counts" in line for line in found)
    assert list(verify_run(run, Elsewhere())) == found


def accept_changes(run, change):
    """Change a stage's lock as if its step had made it so, where it was made and where it is read."""
    receipts = read_manifest(run, "steps/mixtures/align/lock")
    (file,) = [file for file in receipts[0].files if file.name == "mixture.lock.json"]
    data = json.loads((run / file.path).read_bytes())
    shown = change(data)
    for path in (run / file.path, run / "mixtures/align/mixture.lock.json"):
        path.write_text(json.dumps(data))
    files = tuple(
        replace(other, sha256=hash_file(run / file.path)) if other == file else other for other in receipts[0].files
    )
    changed = replace(receipts[0], files=files)
    write_manifest(run, "steps/mixtures/align/lock", [changed])
    receipt = run / "steps/mixtures/align/lock" / f"{changed.partition}.{changed.key[:12]}.receipt.json"
    receipt.write_text(json.dumps(changed.to_json()))
    return shown


def test_a_shard_that_the_lock_does_not_know_is_named(run):
    shard = accept_changes(run, lambda data: data["sources"][0]["shards"].pop())
    found = list(verify_run(run))
    assert any(f"{shard['path']} stands in the manifest alone" in line for line in found)
    assert any("render kept" in line for line in found)


def test_a_plan_that_is_not_what_its_lock_says_is_found_by_the_command(run, capsys):
    accept_changes(run, lambda data: data["sources"][0].update(ids_sha256="0" * 64))
    assert vlmill("verify", run) == 1
    assert "mixtures/align: papers: the samples that the tables yield now are not" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mixture.lock.json", "stats.json", "held_out.parquet", "plan/00000.parquet"])
@pytest.mark.parametrize("damage", ["changed", "emptied", "gone"])
def test_what_a_trainer_reads_is_what_the_build_wrote_and_the_next_build_puts_it_right(
    run, recipe, name, damage, capsys
):
    path = run / "mixtures/align" / name
    if damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    elif damage == "emptied":
        path.write_bytes(b"{}")
    else:
        path.unlink()
    said = "is missing; the next build puts it there" if damage == "gone" else "is not what the build wrote"
    assert vlmill("verify", run) == 1
    assert f"mixtures/align/{name}: {said}" in " ".join(capsys.readouterr().out.split())
    assert vlmill("build", recipe, "--out", run, "--workers", 0) == 0
    assert list(verify_run(run)) == []


def test_another_tokenizer_than_the_one_that_counted_is_named(run):
    (run / "tokenizer.json").write_text((run / "tokenizer.json").read_text() + "\n")
    assert list(verify_run(run)) == [
        "tokenizer.json: is not the tokenizer that counted the tokens of mixtures/align; build again"
    ]


@pytest.mark.parametrize("name", ["shards/web/small/manifest.json", "steps/mixtures/align/plan/manifest.json"])
def test_a_file_that_is_cut_off_is_named_and_not_a_stack_trace(run, name, capsys):
    (run / name).write_bytes((run / name).read_bytes()[:100])
    assert vlmill("verify", run) == 1
    assert f"{name} is damaged" in " ".join(capsys.readouterr().err.split())


def test_a_copy_made_of_hard_links_stays_as_it_was(run, recipe, tmp_path):
    shutil.copytree(run, tmp_path / "before", copy_function=os.link)
    change = ["--accept-changes", "--set", "stages.align.mixture.held_out={web: 0.5}"]
    assert vlmill("build", recipe, "--out", run, "--workers", 0, *change) == 0
    assert list(verify_run(tmp_path / "before")) == []


def test_a_thing_on_the_list_that_is_still_there_is_named_and_so_is_a_file_that_should_be_gone(run):
    (run / LIST).write_text(TakedownList(ids=("web/web.parquet#0",)).to_yaml())
    assert list(verify_run(run)) == [f"web/00000-0000: holds what stands in {LIST}; the next build takes it out"]
    (run / LIST).unlink()
    table = next((run / "steps/quiz/read").glob("00000-0000.*.samples.parquet"))
    kept = table.read_bytes()
    assert vlmill("takedown", run, "--id", "quiz/quiz.parquet#0", "--workers", 0) == 0
    assert list(verify_run(run)) == []
    table.write_bytes(kept)
    assert list(verify_run(run)) == [f"{table.relative_to(run)}: holds what was taken down; the next build deletes it"]
