"""A whole build of the quickstart loses what its manifest says was planted, for that reason, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.small import vlmill
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, read_image_stats, read_samples
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.verdicts.apply import apply_verdicts, read_verdicts_by_sample

MANIFEST = json.loads((Path(__file__).parents[2] / "recipes/quickstart/manifest.json").read_text(encoding="utf-8"))
READING = {"bad_row", "empty_row", "bad_page", "page_cap"}  # lost before there is a sample


@pytest.fixture(scope="module")
def fates(tmp_path_factory):
    """Sample id -> (sample, what became of it, its dedupe verdicts as (node, keeper))."""
    root = tmp_path_factory.mktemp("quickstart") / "run"
    assert vlmill("build", "quickstart", "--out", root, "--workers", 0) == 0
    assert vlmill("verify", root) == 0
    filters = (*(filter_.name for filter_ in read_locked_recipe(root).filters), "dedupe")
    resolved = {file.name: root / file.path for file in read_manifest(root, "steps/dedupe/resolve")[0].files}
    found = {}
    for source in read_locked_recipe(root).sources:
        files: dict[str, dict[str, Path]] = {}
        for step in ("read", "image_stats", *filters[:-1]):
            for receipt in read_manifest(root, f"steps/{source}/{step}"):
                files.setdefault(receipt.partition, {}).update({file.name: root / file.path for file in receipt.files})
        for part, inputs in files.items():
            inputs["dedupe.verdicts.parquet"] = resolved[f"{source}.{part}.dedupe.verdicts.parquet"]
            verdicts, image_stats = (
                read_verdicts_by_sample(inputs, filters),
                read_image_stats(inputs["image_stats.parquet"]),
            )
            for row, sample in enumerate(read_samples(inputs["samples.parquet"])):
                mine = verdicts.get(row, [])
                keepers = {(verdict.node, verdict.other) for verdict in mine if verdict.filter == "dedupe"}
                found[str(sample.id)] = (sample, apply_verdicts(sample, mine, image_stats), keepers)
    return found


def planted_in(sample_id):
    return [entry for entry in MANIFEST["planted"] if entry["id"] == sample_id and entry["outcome"] != "kept"]


def expected_nodes(sample, entries):
    """Node -> the entry that says why it is lost."""
    nodes = {}
    for entry in entries:
        turn = [
            place for place, node in enumerate(sample.nodes) if node.kind == "text" and node.turn == entry.get("turn")
        ]
        nodes |= dict.fromkeys([entry["node"]] if "node" in entry else turn, entry)
    return nodes


def test_rows_that_cannot_be_read_gave_no_sample_and_all_others_did(fates):
    for entry in MANIFEST["planted"]:
        assert (entry["id"] in fates) == (entry["reason"] not in READING), entry


def test_every_loss_was_planted_and_has_the_planted_reason_and_keeper(fates):
    for sample_id, (sample, outcome, keepers) in fates.items():
        entries = planted_in(sample_id)
        whole = [entry for entry in entries if "node" not in entry and "turn" not in entry]
        assert outcome.sample == (whole[0]["reason"] if whole else None), (sample_id, entries)
        if whole:
            assert "other" not in whole[0] or (WHOLE_SAMPLE, whole[0]["other"]) in keepers, whole[0]
            continue
        nodes = expected_nodes(sample, entries)
        for place, reason in enumerate(outcome.nodes):
            if place not in nodes:
                assert reason is None, (sample_id, place)
                continue
            entry = nodes[place]
            assert reason == entry["reason"] or ("turn" in entry and reason == "turn_lost"), (sample_id, place, entry)
            assert "other" not in entry or (place, entry["other"]) in keepers, entry
