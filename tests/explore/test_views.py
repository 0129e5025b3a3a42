"""What the views of `vlmill explore` are told, beside what the API says of the same run."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import polars as pl
import pytest
from PIL import Image

import vlmill
from tests.explore.conftest import build_run
from tests.helpers.small import RECIPE
from tests.helpers.vectors import make_vectors, write_vectors
from vlmill.explore.bounds import apply_settings
from vlmill.explore.duplicates import diff_texts
from vlmill.explore.find import Finder
from vlmill.explore.state import Explorer
from vlmill.explore.trainer_view import list_segments
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.recipe.lock import read_lock, read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.what_if import WhatIfAnswer, compare_partition
from vlmill.pipeline.reports.what_if_verdicts import enter_filters, enter_render, enter_resolved, list_partitions


@pytest.fixture(scope="module")
def opened(explorer):
    return explorer.opened


# -- overview and index


def test_the_funnel_is_that_of_the_report(run, ask):
    totals = ask("overview")["totals"]
    kinds = {source["name"]: source["kind"] for source in ask("overview")["sources"]}
    assert kinds == {name: settings.kind for name, settings in read_locked_recipe(run).sources.items()}
    funnel = vlmill.open_run(run).funnel()
    for level, line in totals.items():
        mine = funnel.filter(pl.col("level") == level)
        assert line["in"] == mine["count"].sum()
        assert line["kept"] == mine.filter(pl.col("outcome") == "kept")["count"].sum()


def test_samples_by_outcome_are_those_of_the_funnel(run, ask):
    funnel = vlmill.open_run(run).funnel().filter(pl.col("level") == "samples")
    for source in ("web", "quiz"):
        counts = ask("counts", source=source)
        assert (
            counts["outcome"]["kept"]
            == funnel.filter((pl.col("source") == source) & (pl.col("outcome") == "kept"))["count"].sum()
        )
        assert counts["fits"] == funnel.filter(pl.col("source") == source)["count"].sum()


def test_tokens_of_what_is_kept_are_those_of_the_shards(run, ask):
    whole = sum(
        pl.read_parquet(path, glob=False).select(pl.col("text").sum() + pl.col("visual").sum()).item()
        for path in run.glob("shards/*/small/lengths/*.lengths.parquet")
    )
    assert sum(one["tokens"] for one in ask("held").values()) == whole > 0


def test_an_index_is_made_once_and_anew_when_the_run_changes(run, explorer, monkeypatch, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    copy = Explorer(tmp_path / "run")
    copy.make_index()
    first = copy.opened.index.folder
    assert copy.describe_index()["changed"] is False
    path = next((tmp_path / "run/steps").glob("web/threshold/manifest.json"))
    path.write_text(path.read_text() + "\n")
    assert copy.describe_index()["changed"] is True
    copy.make_index()
    assert copy.opened.index.folder != first
    assert not first.exists()
    assert explorer.opened.index.folder.exists()


def test_the_index_holds_no_text_or_address_of_the_data(run, opened):
    texts = [
        node["text"] for nodes in vlmill.open_run(run).samples().collect()["nodes"] for node in nodes if node["text"]
    ]
    held = b"".join(path.read_bytes() for path in opened.index.folder.iterdir())
    assert texts
    assert not any(text[:30].encode() in held for text in texts)
    assert b"://" not in held


# -- samples


def test_histograms_filter_each_other_and_not_themselves(run, ask, opened):
    api = vlmill.open_run(run)
    rows = api.samples().select("source", "partition", "sample", "nodes").collect()
    lengths = [sum(len(node["text"] or "") for node in nodes) for nodes in rows["nodes"]]
    red = api.scores("red").filter(pl.col("red").is_not_null()).collect()
    edge = opened.index.dimensions["characters"].edges[10]
    counts = ask("counts", range=[f"characters:{edge}.."], show="characters,red")
    assert counts["fits"] == sum(length >= edge for length in lengths)
    assert sum(counts["histograms"]["characters"]) == len(lengths)
    chosen = rows.filter(pl.Series([length >= edge for length in lengths]))
    left = red.join(chosen, on=["source", "partition", "sample"], how="semi")
    assert sum(counts["histograms"]["red"]) == len(left) < len(red)


def test_a_range_of_an_image_asks_for_samples_that_have_one_such(run, ask):
    stats = vlmill.open_run(run).image_stats().collect().filter(pl.col("height") > 100)
    images = set(stats.select("source", "partition", "image").iter_rows())
    rows = vlmill.open_run(run).samples().select("source", "partition", "nodes").collect()
    fits = sum(
        any((source, partition, node["image"]) in images for node in nodes)
        for source, partition, nodes in rows.iter_rows()
    )
    assert ask("counts", range=["short_side:101.."])["fits"] == fits > 0


@pytest.mark.parametrize(
    ("text", "found"), [("gardener", True), ("GARDENER walked", True), ('"walked the gardener"', False)]
)
def test_words_are_found_in_texts_whatever_their_case(ask, text, found):
    assert bool(ask("counts", text=text)["fits"]) is found
    for line in ask("samples", text=text):
        assert "gardener" in line["text"].lower()


def test_no_word_finds_everything(ask):
    assert ask("counts", text='""')["fits"] == ask("index")["samples"]


def test_an_id_finds_its_sample_alone(ask):
    (line,) = ask("samples", text="quiz/quiz.parquet#3")
    assert line["id"] == "quiz/quiz.parquet#3"
    assert ask("find", id="quiz/quiz.parquet#3")["number"] == line["number"]


def test_the_id_of_a_row_finds_its_sample_and_stands_beside_it(ask):
    (line,) = ask("samples", text="Doc-02")
    assert line["id"] == "web/web.parquet#2"
    assert ask(f"samples/{line['number']}")["upstream_id"] == "doc-02"


def test_samples_come_in_order_page_by_page_without_any_twice(ask):
    falling = [line["values"]["characters"][0] for line in ask("samples", order="-characters", number=48)]
    assert falling == sorted(falling, reverse=True)
    size = ask("index")["samples"]
    pages = [line["number"] for first in range(0, size, 5) for line in ask("samples", first=first, number=5)]
    assert sorted(pages) == list(range(size))
    assert pages != sorted(pages)


def test_a_sample_says_what_trace_says(run, ask):
    api = vlmill.open_run(run)
    lost = next(loss for loss in api.losses("web") if loss.node >= 0)
    number = ask("find", id=lost.id)["number"]
    shown, traced = ask(f"samples/{number}"), api.trace(lost.id)
    assert [node["reason"] or None for node in shown["nodes"]] == [
        reason and str(reason) for reason in traced.outcome.nodes
    ]
    assert [node["text"] for node in shown["nodes"]] == [node.text or "" for node in traced.sample.nodes]
    assert [one["reason"] for one in shown["verdicts"]] == [str(verdict.reason) for verdict in traced.verdicts]


def test_a_kept_sample_is_shown_as_the_trainer_sees_it(run, ask):
    number = next(line["number"] for line in ask("samples", outcome="kept", source="quiz"))
    seen = ask(f"samples/{number}/segments")
    assert seen["seen"]["align"] == len(seen["cards"]) > 0
    assert seen["cards"][0]["id"] == ask(f"samples/{number}")["id"]
    assert any(run.get("supervised") for run in seen["cards"][0]["text"])


def test_a_kept_sample_that_no_plan_holds_says_why_as_its_trace_does(tmp_path):
    mixture = {"shares": {"web": 0.5, "quiz": 0.5}, "epochs": 1, "sequence_length": 512, "held_out": {"quiz": 0.3}}
    explorer = Explorer(build_run(tmp_path, "run", stages=[{**RECIPE["stages"][0], "mixture": mixture}]))
    explorer.make_index()
    opened, run = explorer.opened, vlmill.open_run(tmp_path / "run")
    outcomes = opened.index.column("outcome")
    seen = {number: list_segments(opened, number) for number in range(opened.index.size)}
    without = {number: one["absent"]["align"] for number, one in seen.items() if one["absent"]}
    assert "held_out" in {why.partition(":")[0] for why in without.values()}
    for number, one in seen.items():
        assert (number in without) == (opened.index.outcomes[outcomes[number]] == "kept" and not one["cards"])
    for number in list(without)[:5]:
        assert without[number] == run.find_uses(str(opened.reader.read_sample(number).id))["align"].why


def test_neighbours_are_the_nearest_by_cosine(opened, tmp_path, monkeypatch):
    """Of vectors that are written here: a signal that makes them needs torch."""
    index = opened.index
    starts = [*index.starts.tolist(), index.size]
    tables, vectors = {}, make_vectors(index.size, spread=1.0)
    for place, (source, partition, start) in enumerate(index.partitions):
        folder = tmp_path / f"{source}.{partition}"
        found = write_vectors(folder, "shade", vectors[start : starts[place + 1]], lost=[0] if not start else [])
        tables[source, partition] = next(iter(found.values()))
    finder = Finder(opened.run.folder, opened.run.recipe, index)
    monkeypatch.setattr(finder, "_list_tables", lambda _: tables)
    near = finder.find_neighbours("shade", 3, 5)
    cosines = vectors.astype(np.float32) @ vectors[3].astype(np.float32)
    cosines[[0, 3]] = -2  # the sample itself, and one without a vector
    assert [one.number for one in near] == np.argsort(-cosines)[:5].tolist()
    assert [one.similarity for one in near] == pytest.approx(np.sort(cosines)[::-1][:5], abs=2e-3)
    with pytest.raises(vlmill.StoreError, match="no vector of this sample"):
        finder.find_neighbours("shade", 0, 5)


def test_a_card_names_the_pictures_that_can_be_drawn_alone(client, ask):
    asked = 0
    for line in ask("samples", source="web", number=48):
        for node in ask(f"samples/{line['number']}")["nodes"]:
            picture = node["picture"]
            asked += node["kind"] == "image"
            if picture:
                place = f"{picture['source']}/{picture['partition']}/{picture['image']}"
                assert client.get(f"/picture/{place}?side=720").status_code == 200
            else:
                assert node["kind"] == "text" or node["reason"]
    assert asked


def test_pictures_are_drawn_small_and_in_a_form_of_ours(run, client, ask):
    picture = next(line["picture"] for line in ask("samples", outcome="kept") if line["picture"])
    answer = client.get(f"/picture/{picture['source']}/{picture['partition']}/{picture['image']}?side=96")
    assert answer.headers["content-type"] == "image/webp"
    drawn = Image.open(io.BytesIO(answer.content))
    assert (drawn.format, max(drawn.size)) == ("WEBP", 96)
    for path, status in (("web/00000-0000/99999", 404), ("nothing/x/0", 404), ("web/00000-0000/0?side=9000", 404)):
        assert client.get(f"/picture/{path}").status_code == status


def test_a_file_that_is_gone_says_that_the_run_has_changed(run, client, monkeypatch):
    def read(*_):
        raise FileNotFoundError("samples")

    monkeypatch.setattr("vlmill.explore.samples.SampleReader.describe_samples", read)
    answer = client.get("/api/samples")
    assert (answer.status_code, "read it again" in answer.json()["error"]) == (409, True)


# -- thresholds


def ask_what_if(run, settings, folder):
    """What other filters would keep with the verdicts of dedupe as they stand, which is what a slider answers."""
    now = run.recipe
    then = parse_block(Recipe, apply_settings(read_lock(run.folder), settings), "then")
    answer, partitions = WhatIfAnswer(), list_partitions(run.folder, now)
    enter_filters(run.folder, now, then, None, partitions, folder)
    enter_resolved(run.folder, now, partitions)
    enter_render(run.folder, now, partitions)
    for partition in partitions:
        partition.then.update({name: partition.now[name] for name in ("dedupe", "render")})
        compare_partition(partition, answer)
    return answer


def make_ready(sliders, key):
    """Wait until a slider answers."""
    until = time.monotonic() + 60
    while not sliders.prepare(key).ready:
        assert not sliders.prepare(key).error
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("threshold.any.red.min", (0.2, 0.45, 0.9)),
        ("threshold.any.red.max", (0.35, 0.6)),
        ("threshold.any.wow.max", (10.0, 28.0)),
        ("shape.min_side", (16.0, 61.0, 110.0, 5000.0)),
        ("shape.max_ratio", (1.5, 2.5, 9.0)),
        ("shape.max_pixels", (13000.0, 1e9)),
    ],
)
def test_a_slider_counts_what_what_if_counts(opened, tmp_path, key, values):
    make_ready(opened.sliders, key)
    for number, value in enumerate(values):
        found = opened.sliders.answer(key, value, None)
        (tmp_path / str(number)).mkdir()
        answer = ask_what_if(opened.run, dict([found["setting"]]), tmp_path / str(number))
        for level in ("samples", "nodes", "images"):
            lines = [levels[level] for levels in answer.sources.values()]
            assert found["levels"][level]["came"] == sum(line.came for line in lines)
            assert found["levels"][level]["then"] == sum(line.then for line in lines), (level, value)
        lines = {source: levels["samples"] for source, levels in answer.sources.items()}
        for source, line in lines.items():
            told = found["sources"][source]
            assert (told["now"], told["newly_dropped"], told["newly_kept"]) == (
                line.now,
                line.newly_dropped,
                line.newly_kept,
            )


def test_beside_a_bound_lie_the_values_nearest_to_it(ask, opened):
    make_ready(opened.sliders, "threshold.any.red.min")
    found = ask("slide", key="threshold.any.red.min", value=0.4)
    assert all(line["value"] < 0.4 for line in found["lost"])
    assert all(line["value"] >= 0.4 for line in found["kept"])
    for side in ("lost", "kept"):
        apart = [abs(line["value"] - 0.4) for line in found[side]]
        assert apart == sorted(apart)
        assert {line["source"] for line in found[side]} <= {"web"}  # the bound is asked of it alone
    assert "+        min: 0.4" in found["diff"]
    assert "-        min: 0.3" in found["diff"]


def test_a_bound_beyond_its_other_side_is_refused(ask, opened):
    for key, value in (("threshold.any.red.max", 0.2), ("shape.min_side", 30000)):
        make_ready(opened.sliders, key)
        assert "could pass" in ask("slide", key=key, value=value, status=404)["error"]


def test_a_setting_is_answered_with_duplicates_resolved_anew(run, ask):
    answer = ask("what-if", set="shape.min_side=110")
    assert answer["totals"]["samples"]["then"] < answer["totals"]["samples"]["now"]
    assert "min_side: 110" in answer["diff"]
    assert "nothing" in ask("what-if", set="shape.nothing=1", status=404)["error"]


# -- duplicates


def test_clusters_hold_what_dedupe_dropped_for_each_kept_sample(run, ask):
    verdicts = vlmill.open_run(run).verdicts(step="dedupe").filter(pl.col("other") != "").collect()
    found = ask("duplicates")
    assert found["dropped"] == len(verdicts) > 0
    assert {one["keeper"]: one["dropped"] for one in found["clusters"]} == dict(
        verdicts.group_by("other").len().iter_rows()
    )
    cluster = ask("cluster", keeper=found["clusters"][0]["keeper"])
    assert cluster["keeper"]["id"] == found["clusters"][0]["keeper"]
    member = cluster["members"][0]
    beside = ask("compare", one=cluster["keeper"]["number"], other=member["number"], node=member["node"])
    assert [side["id"] for side in beside["sides"]] == [cluster["keeper"]["id"], member["id"]]


def test_a_difference_of_texts_puts_both_together_again():
    before, after = "the old bridge was built  of wood\nin 1902", "the new bridge was built  of stone\nin 1902"
    spans = diff_texts(before, after)
    assert "".join(text for kind, text in spans if kind != "dropped") == before
    assert "".join(text for kind, text in spans if kind != "kept") == after
    assert [text for kind, text in spans if kind == "dropped"] == ["new ", "stone\n"]


# -- mixtures, build, training


def test_a_mixture_that_is_not_changed_has_the_numbers_that_were_planned(ask):
    (stage,) = ask("mixtures")
    solved = ask("mixtures/align")
    for entry, one in zip(stage["entries"], solved["entries"], strict=True):
        assert (one["repetition"], one["planned"]) == (entry["repetition"], entry["planned"])
    assert solved["diff"] == ""


def test_a_changed_share_is_solved_and_written_down(ask):
    change = json.dumps({"shares": {"web": 3.0}, "unit": "tokens", "epochs": 2})
    solved = ask("mixtures/align", change=change)
    declared = [entry["declared"] for entry in solved["entries"]]
    assert sorted(declared) == pytest.approx([1 / 7, 6 / 7])
    assert [entry["realised"]["tokens"] for entry in solved["entries"]] == pytest.approx(declared)
    assert "web: 3.0" in solved["diff"]
    assert "no entry" in ask("mixtures/align", change=json.dumps({"shares": {"x": 1}}), status=404)["error"]
    assert "not mixed" in ask("mixtures/nothing", status=404)["error"]


def test_a_build_shows_its_phases_losses_and_hosts(run, ask):
    build = ask("build")
    assert [phase["phase"] for phase in build["phases"]][:2] == ["survey: hash", "survey"]
    assert all(phase["seconds"] is not None for phase in build["phases"])
    assert build["running"] is None
    (host,) = build["hosts"]
    assert host["host"] == "img.small.test"
    assert host["asked"] > host["failed"] > 0
    assert {"step": "language", "source": "web", "level": "nodes", "reason": "language"}.items() <= next(
        one for one in build["dropped"] if one["step"] == "language"
    ).items()
    assert build["disk"]["folders"]["steps"] > 0


def test_a_command_that_has_not_ended_is_at_work_or_was_interrupted(run, tmp_path):
    import os
    import shutil

    from vlmill.explore.building import find_running, list_phases, read_tail

    lines = [
        {"event": "begin", "command": "build", "pid": os.getpid(), "time": "2026-01-01T00:00:00+00:00"},
        {"event": "phase", "phase": "curate", "tasks": 9, "time": "2026-01-01T00:00:01+00:00"},
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "ph')
    events = read_tail(path)
    assert find_running(events)["alive"] is True
    assert list_phases(events)[0]["seconds"] is None
    shutil.copy(path, tmp_path / "other")
    assert find_running([{**lines[0], "pid": 2**22 + 1}])["alive"] is False


def test_curves_of_a_training_are_means_of_its_log(tmp_path):
    from vlmill.explore.building import POINTS, describe_training

    (tmp_path / "train/tune").mkdir(parents=True)
    lines = [{"step": n, "loss": 8.0 - n / 1000, "sources": {"web": {"loss": float(n)}}} for n in range(2 * POINTS)]
    (tmp_path / "train/tune/log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (stage,) = describe_training(tmp_path)
    assert len(stage["steps"]) == POINTS
    assert stage["steps"][-1] == 2 * POINTS
    assert stage["sources"]["web"][0] == 0.5
