"""Builds in which a server writes texts that become nodes: their places, filters, origin, the API, takedowns."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import vlmill as vlmill_api
from tests.helpers.chat_server import ChatServer, choose_rating, name_request, read_prompt, reply
from tests.helpers.small import RECIPE, product, vlmill, write_recipe
from tests.pipeline.test_ask_build import FORM, build
from vlmill.pipeline.core.sample import read_samples
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.verify import verify_run
from vlmill.pipeline.reports.what_if import answer_what_if


def write_blocks(endpoint, **captions):
    shared = {"kind": "ask", "endpoint": endpoint, "model": "writer", "answer": "text"}
    stage = RECIPE["stages"][0]
    mixture = {"shares": {"web": 0.5, "quiz": 0.5}, "epochs": 1, "sequence_length": 512}
    return {
        "sources": {name: RECIPE["sources"][name] for name in ("web", "quiz")},
        "signals": {
            "caption": {**shared, "prompt": "Describe it.", "writes": "beside", **captions},
            "rewrite": {**shared, "of": "texts", "prompt": "Say it in other words: {text}", "writes": "instead"},
            "rating": {**shared, "model": "judge", "of": "texts", "prompt": "Rate {text}", "answer": {"good": "1-5"}},
        },
        "filters": [
            {"language": {"drop": ["zh"]}},
            {"shape": {"max_ratio": 10, "sources": ["web"]}},
            {"threshold": {"any": {"rating_good": {"min": 1}}}},
        ],
        "stages": [{**stage, "mixture": mixture}],
    }


def write_or_rate(body):
    """Captions, other words, and a good rating."""
    prompt = read_prompt(body)
    if prompt.startswith("Rate"):
        return reply("5")
    if prompt.startswith("Say it"):
        return reply(f"In other words, {prompt.partition(': ')[2]}")
    return reply(
        f"这是一张图片，编号 {name_request(body)[:6]}，图中有一些东西。"
        if choose_rating(body) == 1
        else f"A grey picture {name_request(body)[:12]}."
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("write")
    with ChatServer(write_or_rate) as server:
        write_recipe(folder, **write_blocks(server.endpoint))
        assert build(folder, folder / "run") == 0
        yield folder, server


def read_shard_samples(root, source):
    import tarfile

    for path in sorted(root.glob(f"shards/{source}/small/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    yield json.loads(tar.extractfile(member).read())


def test_captions_stand_behind_their_images_and_rewritten_texts_in_the_place_of_theirs(written):
    root = written[0] / "run"
    samples = [*read_shard_samples(root, "quiz"), *read_shard_samples(root, "web")]
    assert samples
    captions = 0
    for sample in samples:
        kinds = [node["kind"] for node in sample["nodes"]]
        for place, node in enumerate(sample["nodes"]):
            if node["kind"] == "text" and node["text"].startswith("A grey picture"):
                captions += 1
                assert kinds[place - 1] == "image"
                assert (node["role"], node["turn"]) == (
                    sample["nodes"][place - 1]["role"],
                    sample["nodes"][place - 1]["turn"],
                )
            elif node["kind"] == "text":
                assert node["text"].startswith("In other words, ")
    assert captions > 5
    quiz = next(sample for sample in samples if sample["source"] == "quiz")
    assert [node["supervised"] for node in quiz["nodes"] if node["role"] == "assistant"] == [True, True]


def test_what_was_written_is_filtered_and_rated_like_any_other_text(written):
    root = written[0] / "run"
    verdicts = pl.concat(pl.read_parquet(path) for path in root.glob("steps/quiz/language/*.verdicts.parquet"))
    assert verdicts.filter(pl.col("reason") == "language").height > 0  # captions in Chinese, and no question falls
    assert not any("图片" in json.dumps(sample, ensure_ascii=False) for sample in read_shard_samples(root, "quiz"))
    scores = pl.concat(pl.read_parquet(path) for path in root.glob("steps/quiz/rating/*.scores.parquet"))
    assert scores.height == 8 * 4 + 8  # questions, answers and captions
    assert list(verify_run(root)) == []


def test_the_origin_of_what_was_written_is_in_trace_statistics_and_shards(written, capsys):
    folder, _ = written
    root = folder / "run"
    index = pl.concat(pl.read_parquet(path) for path in root.glob("shards/quiz/small/*.index.parquet"))
    origins = [json.loads(one["origin"]) for row in index["written"] for one in row]
    assert {(origin["signal"], origin["model"]) for origin in origins} == {("caption", "writer"), ("rewrite", "writer")}
    prompts = {origin["signal"]: origin["prompt_sha256"] for origin in origins}
    assert prompts["caption"] == hashlib.sha256(b"Describe it.").hexdigest()
    assert vlmill("trace", root, "quiz/quiz.parquet#1") == 0
    assert "written by writer for rewrite, prompt " in " ".join(capsys.readouterr().out.split())
    stats = json.loads((root / "mixtures/align/stats.json").read_text())
    quiz = next(source for source in stats["sources"] if source["name"] == "quiz")
    assert quiz["written"] == {"writer": quiz["available"]["samples"]}
    assert vlmill("stats", root) == 0
    assert "written by models in quiz: writer" in " ".join(capsys.readouterr().out.split())
    lineage = pl.read_parquet(next(root.glob("shards/quiz/small/*.lineage.parquet")))
    assert {"node", "url", "sha256", "origin"} == set(lineage["nodes"][0].struct.fields)


def test_samples_of_the_api_have_what_was_written_and_raw_samples_have_not(written):
    run = vlmill_api.open_run(written[0] / "run")
    shards = {sample["id"]: sample for sample in read_shard_samples(run.folder, "quiz")}
    samples, raw = (
        {row["id"]: row["nodes"] for row in frame.filter(pl.col("id").is_in(list(shards))).collect().to_dicts()}
        for frame in (run.samples("quiz"), run.raw_samples("quiz"))
    )
    assert samples.keys() == raw.keys() == shards.keys()
    for name, sample in shards.items():
        kept = {node["text"] for node in sample["nodes"] if node["kind"] == "text"}
        assert kept <= {node["text"] for node in samples[name]}
        assert all(node["origin"] for node in samples[name] if node["text"] in kept)
        assert not kept & {node["text"] for node in raw[name]}
        assert set(raw[name][0]) == set(samples[name][0]) - {"after", "origin"}


def test_samples_before_texts_are_written_say_what_to_do(written, tmp_path):
    run = vlmill_api.open_run(shutil.copytree(written[0] / "run", tmp_path / "run"))
    (run.folder / "steps/quiz/written/manifest.json").unlink()
    with pytest.raises(vlmill_api.NotBuiltError, match=r"steps/quiz/written is not complete.*vlmill.build\(RECIPE"):
        run.samples("quiz")
    assert run.raw_samples("quiz").collect().height == run.samples("web").collect().height


def test_a_caption_falls_with_its_image_and_takes_no_turn_along(written, tmp_path):
    folder, server = written
    root = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    server.forget()
    _, foretold = answer_what_if(str(folder / "recipe.yaml"), root, {"shape.max_ratio": "1.2"}, [])
    assert build(folder, root, "--accept-changes", "--set", "shape.max_ratio=1.2") == 0
    assert not server.bodies()
    funnel = read_funnel(root)
    for source, levels in foretold.sources.items():
        assert {level: kept.then for level, kept in levels.items()} == {
            level: funnel[source][level]["kept"] for level in levels
        }
    nodes = [node for sample in read_shard_samples(root, "web") for node in sample["nodes"]]
    assert {node["kind"] for node in nodes} == {"text"}
    assert all(node["text"].startswith("In other words, ") for node in nodes)
    assert list(verify_run(root)) == []


def test_a_run_with_written_texts_is_the_same_with_workers_and_after_a_takedown_holds_none_of_them(written, tmp_path):
    folder, server = written
    assert build(folder, tmp_path / "run", workers=2) == 0
    assert product(tmp_path / "run") == product(folder / "run")
    root = tmp_path / "run"
    (table,) = root.glob("steps/quiz/written/00000-0000*.samples.parquet")
    (gone,) = (sample for sample in read_samples(table) if sample.id.row == 1)
    texts = [node.text for node in gone.nodes if node.origin]
    assert len(texts) == 5
    server.forget()
    assert vlmill("takedown", root, "--id", "quiz/quiz.parquet#1", "--workers", 0) == 0
    assert not server.bodies()
    assert vlmill("verify", root) == 0
    tables = [path for path in root.rglob("*.parquet") if path.name.endswith((".samples.parquet", ".answers.parquet"))]
    held = "".join(str(pl.read_parquet(path).to_dicts()) for path in tables)
    assert not [text for text in texts if text in held and "Nothing" not in text]  # others say that too


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"answer": FORM}, "writes: only texts"), ({"of": "samples", "prompt": "{text}"}, "writes: only texts")],
)
def test_ratings_and_conversations_become_no_nodes(changes, message):
    from vlmill.pipeline.core.config import parse_block
    from vlmill.pipeline.core.errors import RecipeError
    from vlmill.pipeline.signals.ask import Ask

    block = {"endpoint": "http://a/v1", "model": "m", "prompt": "p", "answer": "text", "writes": "beside", **changes}
    with pytest.raises(RecipeError, match=message):
        parse_block(Ask, block, "signals.caption")
