"""The log of a run's commands, and what the options before a command change."""

from __future__ import annotations

import json

import pytest

from tests.helpers.small import vlmill, write_recipe
from vlmill.pipeline.core.event_log import EVENTS, LONGEST, EventLog


def interrupt(log):
    with log.span("build"):
        log.write("note", message="x" * 10_000)
        raise KeyboardInterrupt


def read_events(root):
    return [json.loads(line) for line in (root / EVENTS).read_text().splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    recipe, root = write_recipe(folder), folder / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--until", "shard") == 0
    return recipe, root


def test_a_build_logs_its_begin_each_phase_what_was_kept_and_its_end(built):
    _, root = built
    events = read_events(root)
    assert [events[0]["event"], events[0]["command"], events[0]["until"]] == ["begin", "build", "shard"]
    assert events[-1]["event"] == "end"
    begun = [event["phase"] for event in events if event["event"] == "phase"]
    assert begun == [event["phase"] for event in events if event["event"] == "phase_end"]
    assert {"survey", "curate", "shard"} <= {*begun}
    kept = {event["source"]: event["samples"] for event in events if event["event"] == "kept"}
    assert kept
    assert all(counts["in"] >= counts["kept"] > 0 for counts in kept.values())
    curate = next(event for event in events if event["event"] == "phase_end" and event["phase"] == "curate")
    assert curate["tasks"] > 0
    assert curate["work"]["rows"] > 0
    assert all(event["time"].endswith("+00:00") and event["pid"] for event in events)


def test_a_later_build_adds_to_the_log_and_an_error_is_logged_with_its_cause(built):
    recipe, root = built
    before = read_events(root)
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--set", "seed=999") == 1
    events = read_events(root)
    assert events[: len(before)] == before
    assert [event["event"] for event in events[len(before) :]] == ["begin", "failed"]
    assert events[-1]["error"] == "StoreError"
    assert "--accept-changes" in events[-1]["message"]


def test_a_takedown_leaves_no_message_of_earlier_commands(tmp_path):
    recipe, root = write_recipe(tmp_path), tmp_path / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    EventLog(root).write("warning", message="quiz/quiz.parquet#0 says: a secret")
    assert vlmill("takedown", root, "--id", "quiz/quiz.parquet#0", "--workers", 0) == 0
    events = read_events(root)
    assert [events[0]["event"], events[0]["command"], events[-1]["event"]] == ["begin", "takedown", "end"]
    assert "secret" not in (root / EVENTS).read_text()


def test_a_log_that_cannot_be_written_stops_nothing_and_long_messages_are_cut(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    EventLog(tmp_path).write("begin")
    log = EventLog(tmp_path / "new")
    with pytest.raises(KeyboardInterrupt):
        interrupt(log)
    _, note, failed = read_events(tmp_path / "new")
    assert len(note["message"]) == LONGEST
    assert (failed["error"], failed["message"]) == ("KeyboardInterrupt", "interrupted")


def test_quiet_prints_errors_alone_and_the_status_stays(built, capfd):
    recipe, root = built
    assert vlmill("-q", "build", recipe, "--out", root, "--workers", 0, "--until", "shard") == 0
    assert capfd.readouterr() == ("", "")
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--until", "shard", "--quiet") == 0
    assert capfd.readouterr() == ("", ""), "wherever it stands"
    assert vlmill("--quiet", "status", root / "not-there") == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "error:" in printed.err
    assert vlmill("status", root) == 0
    assert capfd.readouterr().out, "the next command is not quiet"


def test_verbose_shows_where_an_error_came_up(tmp_path, capfd):
    assert vlmill("--verbose", "status", tmp_path) == 1
    assert "Traceback" in capfd.readouterr().err
    assert vlmill("status", tmp_path) == 1
    assert "Traceback" not in capfd.readouterr().err
    assert vlmill("-q", "-v", "status", tmp_path) == 2


def test_the_help_says_what_exit_statuses_mean(capfd):
    assert vlmill("--help") == 0
    assert "130 interrupted" in capfd.readouterr().out
