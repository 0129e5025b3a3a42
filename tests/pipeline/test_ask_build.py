"""Builds that ask a server: paid once whatever is killed, the same bytes, thresholds, reports, takedowns, no key."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.helpers.chat_server import ChatServer, choose_rating, name_request, rate, read_prompt, refuse, reply
from tests.helpers.killing import killed_at
from tests.helpers.small import RECIPE, product, vlmill, write_recipe
from vlmill.pipeline.core.answers import read_answers
from vlmill.pipeline.core.names import JOURNAL_SUFFIX
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.sample import read_samples
from vlmill.pipeline.reports.asked import read_asked
from vlmill.pipeline.reports.verify import verify_run
from vlmill.pipeline.signals import ask_worker

KEY = "sk-Very5ecret"
FORM = {"relevance": "1-5", "clarity": "1-5"}


def answer(body):
    """Ratings of pictures, captions of texts."""
    return rate(body) if "Answer with" in read_prompt(body) else reply(f"Caption {name_request(body)[:12]}.")


def recipe_blocks(endpoint):
    shared = {"kind": "ask", "endpoint": endpoint, "model": "judge", "price": {"input": 2, "output": 10}}
    stage = RECIPE["stages"][0]
    mixture = {
        "entries": {"web": 0.5, "quiz": {"share": 0.5, "where": "rating_relevance_max >= 4"}},
        "epochs": 1,
        "sequence_length": 512,
    }
    return {
        "sources": {name: RECIPE["sources"][name] for name in ("web", "quiz")},
        "signals": {
            "rating": {**shared, "of": "pairs", "prompt": "Does this fit? {text}", "answer": FORM},
            "caption": {**shared, "prompt": "Describe it.", "answer": "text"},
        },
        "filters": [{"language": {"drop": ["zh"]}}, {"threshold": {"any": {"rating_relevance": {"min": 3}}}}],
        "stages": [{**stage, "mixture": mixture}],
    }


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(ask_worker, "FIRST_WAIT", 0.01)


@pytest.fixture(scope="module")
def server():
    with ChatServer(answer) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory, server):
    folder = tmp_path_factory.mktemp("ask")
    write_recipe(folder, **recipe_blocks(server.endpoint))
    assert build(folder, folder / "run") == 0
    return folder


@pytest.fixture
def asked(server):
    """The requests of one test alone."""
    server.decide = answer
    server.forget()
    yield server
    server.decide = answer


def build(folder, out, *more, workers=0):
    return vlmill("build", folder / "recipe.yaml", "--out", out, "--workers", workers, *more)


def hash_signals(root):
    files = sorted(path for name in ("rating", "caption") for path in root.glob(f"steps/*/{name}/*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_all_answers(root, name, source):
    return [one for path in sorted(root.glob(f"steps/{source}/{name}/*.answers.parquet")) for one in read_answers(path)]


def test_ratings_are_values_for_thresholds_conditions_and_reports(folder, capsys):
    root = folder / "run"
    scores = pl.concat(pl.read_parquet(path) for path in root.glob("steps/*/rating/*.scores.parquet"))
    verdicts = pl.concat(pl.read_parquet(path) for path in root.glob("steps/*/threshold/*.verdicts.parquet"))
    below = (scores["rating_relevance"] < 3).sum()
    assert 0 < below < scores.height
    assert verdicts["reason"].to_list() == ["signal:rating_relevance"] * below
    columns = pl.read_parquet(next(root.glob("shards/quiz/small/signals/*.signals.parquet"))).columns
    assert {"rating_clarity_max", "caption_characters"} <= set(columns)
    assert list(verify_run(root)) == []
    assert vlmill("report", root, "--section", "signals") == 0
    told = capsys.readouterr().out
    assert "rating_relevance" in told
    assert "questions" in told
    page = folder / "stats.html"
    assert vlmill("stats", root, "--html", page) == 0
    assert "Signal rating_clarity" in page.read_text()
    assert not list(root.rglob(f"*{JOURNAL_SUFFIX}"))


def test_the_report_says_what_was_asked_and_what_it_cost(folder):
    found = {(one.signal, one.source): one for one in read_asked(folder / "run")}
    assert found.keys() == {(name, source) for name in ("caption", "rating") for source in ("web", "quiz")}
    quiz = found["rating", "quiz"]
    assert (quiz.units, quiz.questions, quiz.requests, quiz.failures, quiz.bad, quiz.unanswered) == (8, 8, 8, 0, 0, 0)
    assert (quiz.input_tokens, quiz.output_tokens) == (800, 56)
    assert quiz.cost == pytest.approx((800 * 2 + 56 * 10) / 1e6)


def test_a_check_foretells_requests_tokens_and_money(folder, capsys, asked):
    assert vlmill("check", folder / "recipe.yaml", "--json") == 0
    totals = json.loads(capsys.readouterr().out)["totals"]["asked"]
    done = read_asked(folder / "run")
    for name in ("rating", "caption"):
        assert totals[name]["requests"] >= sum(one.units for one in done if one.signal == name)
        assert totals[name]["requests"] <= 2 * sum(one.units for one in done if one.signal == name)
        expected = totals[name]["input_tokens"] * 2 + totals[name]["output_tokens"] * 10
        assert totals[name]["cost"] == pytest.approx(expected / 1e6)
    assert totals["caption"]["output_tokens"] == 512 * totals["caption"]["requests"]
    assert vlmill("check", folder / "recipe.yaml") == 0
    said = capsys.readouterr().out
    assert said.count("signal rating: at most") == 1
    assert "signals: " not in said  # a line of models that are loaded here
    assert not asked.bodies()


def test_any_number_of_workers_leaves_the_same_bytes(folder, asked, tmp_path):
    assert build(folder, tmp_path / "run", workers=2) == 0
    assert hash_signals(tmp_path / "run") == hash_signals(folder / "run")
    assert product(tmp_path / "run") == product(folder / "run")
    assert len(asked.bodies()) == sum(one.questions for one in read_asked(folder / "run"))


def test_a_second_build_and_another_threshold_ask_nothing(folder, asked, tmp_path):
    root = shutil.copytree(folder / "run", tmp_path / "run")
    assert build(folder, root) == 0
    more = ("--accept-changes", "--set", "threshold.any.rating_relevance.min=2")
    assert build(folder, root, *more) == 0
    assert not asked.bodies()


def test_another_address_or_concurrency_is_no_other_recipe(folder, asked, tmp_path):
    root = shutil.copytree(folder / "run", tmp_path / "run")
    moved = ("--set", "signals.rating.endpoint=http://127.0.0.1:9/v1", "--set", "signals.caption.concurrency=2")
    assert build(folder, root, *moved) == 0
    assert not asked.bodies()
    assert product(root) == product(folder / "run")


# -- kills and faults --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def curated(folder):
    assert build(folder, folder / "curated", "--until", "curate") == 0
    return folder / "curated"


def build_signals(folder, out):
    return build(folder, out, "--until", "signals")


def test_killed_at_any_commit_nothing_that_was_answered_is_asked_again(server, asked, tmp_path):
    caption = recipe_blocks(server.endpoint)["signals"]["caption"]
    blocks = {"sources": {"quiz": RECIPE["sources"]["quiz"]}, "filters": [], "stages": []}
    write_recipe(tmp_path, **blocks, signals={"caption": {**caption, "concurrency": 1}})
    assert build(tmp_path, tmp_path / "curated", "--until", "curate") == 0
    whole = shutil.copytree(tmp_path / "curated", tmp_path / "whole")
    assert build_signals(tmp_path, whole) == 0
    wanted, questions = hash_signals(whole), len(asked.bodies())
    befores = list[int]()
    for point in range(0, 1000, 5):
        root = shutil.copytree(tmp_path / "curated", tmp_path / f"killed-{point}")
        asked.forget()
        if not killed_at(point, build_signals, tmp_path, root):
            break
        befores.append(len(asked.bodies()))
        assert build_signals(tmp_path, root) == 0
        assert len(asked.bodies()) == questions
        assert hash_signals(root) == wanted
        shutil.rmtree(root)
    assert len(set(befores)) > 2


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_killed_between_answers_only_those_on_their_way_are_asked_again(
    where, folder, curated, asked, tmp_path, request
):
    root = tmp_path / "run"
    if where == "folder":
        shutil.copytree(curated, root)
    else:
        root = RunPath(f"{request.getfixturevalue('s3')}/run")
        for path in curated.rglob("*"):
            if path.is_file():
                (root / path.relative_to(curated)).put_file(path)
    left = [9]

    def stop(body):
        left[0] -= 1
        return answer(body) if left[0] >= 0 else refuse(401, "out of money")

    asked.decide = stop
    assert build_signals(folder, root) == 1
    assert left[0] < 0
    (journal, *_) = root.rglob(f"*{JOURNAL_SUFFIX}")
    if where == "folder":
        with journal.open("ab") as file:  # a line that a kill cut
            file.write(b'{"request": "abc", "te')
    asked.decide = answer
    assert build_signals(folder, root) == 0
    refused = len(asked.bodies()) - sum(one.questions for one in read_asked(root))
    assert 1 <= refused <= 16  # what the server refused when it stopped
    assert hash_signals(root) == hash_signals(folder / "run")
    assert not list(root.rglob(f"*{JOURNAL_SUFFIX}"))


def test_a_dead_server_ends_the_build_and_the_same_command_goes_on(folder, curated, asked, tmp_path, capsys):
    root = shutil.copytree(curated, tmp_path / "run")
    asked.decide = lambda _: refuse(503, "starting")
    assert build(folder, root, "--set", "signals.caption.retries=1", "--set", "signals.rating.retries=1") == 1
    assert "run the same command again when it does" in " ".join(capsys.readouterr().err.split())
    asked.decide = answer
    assert build(folder, root) == 0
    assert product(root) == product(folder / "run")


def test_a_changed_prompt_asks_anew_and_a_partition_that_changed_only_what_is_new(folder, asked, tmp_path):
    root = shutil.copytree(folder / "run", tmp_path / "run")
    for receipt in (root / "steps/quiz/caption").glob("*.receipt.json"):
        receipt.unlink()
    assert build(folder, root, "--until", "signals") == 0
    assert not asked.bodies()
    more = ("--accept-changes", "--set", "signals.caption.prompt=What is it?")
    assert build(folder, root, "--until", "signals", *more) == 0
    assert {read_prompt(body) for body in asked.bodies()} == {"What is it?"}


# -- takedowns and keys ------------------------------------------------------------------------------------------------


def test_a_takedown_takes_answers_along_and_asks_nothing(folder, asked, tmp_path):
    root = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    placed = read_all_answers(root, "caption", "quiz")
    (table,) = root.glob("steps/quiz/read/00000-0000*.samples.parquet")
    row = next(row for row, sample in enumerate(read_samples(table)) if sample.id.row == 1)
    gone = next(one.answer.text for one in placed if one.sample == row)
    journal = root / f"steps/quiz/caption/00000-0000{JOURNAL_SUFFIX}"
    journal.write_text(json.dumps({"text": gone}) + "\n")
    assert vlmill("takedown", root, "--id", "quiz/quiz.parquet#1", "--workers", 0) == 0
    assert not asked.bodies()
    assert not journal.exists()
    assert gone not in {one.answer.text for one in read_all_answers(root, "caption", "quiz")}
    assert len(read_all_answers(root, "caption", "quiz")) == len(placed) - 1
    assert vlmill("verify", root) == 0


def test_the_key_is_in_no_file_of_a_run_and_in_nothing_that_is_said(folder, asked, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    root, more = tmp_path / "run", []
    for name in ("rating", "caption"):
        more += ["--set", f"signals.{name}.api_key={{env: JUDGE_KEY}}", "--set", f"signals.{name}.retries=1"]
    asked.decide = lambda body: refuse(500, f"Bearer {KEY} is out of order")
    assert build(folder, root, *more) == 1
    asked.decide = lambda body: refuse(400, f"{KEY} may not") if choose_rating(body) == 1 else answer(body)
    assert build(folder, root, *more) == 0
    assert vlmill("report", root) == 0
    assert vlmill("check", folder / "recipe.yaml", "--out", root, *more) == 0
    told = capfd.readouterr()
    assert KEY not in told.out + told.err
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert "JUDGE_KEY" in (root / "recipe.lock.yaml").read_text()
    tables = (pl.read_parquet(path) for path in files if path.name.endswith(".answers.parquet"))
    assert KEY not in "".join(str(table.to_dicts()) for table in tables)


def test_a_variable_that_is_not_set_is_said_before_any_work(folder, tmp_path, capsys):
    more = ("--set", "signals.rating.api_key={env: NO_SUCH_KEY}")
    assert build(folder, tmp_path / "run", *more) == 1
    assert "variable NO_SUCH_KEY is not set" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run/steps").exists()
