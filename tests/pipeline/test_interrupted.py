"""Ctrl-C and SIGTERM: a command says whether it goes on, and ends with 130 or 143."""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest

from tests.helpers.small import vlmill
from vlmill.pipeline.core.event_log import EVENTS, EventLog
from vlmill.pipeline.engine.ray_cluster import _join_ray


def press_keys(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (("build", "quickstart"), "vlmill.api.builds.load_for_build"),
        (("evaluate", "run"), "vlmill.train.run.evaluate_stage"),
    ],
)
def test_work_that_goes_on_says_so(monkeypatch, tmp_path, capsys, command, function):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(function, press_keys)
    assert vlmill(*command) == 130
    assert capsys.readouterr().err == ("interrupted. What is done is kept: run the same command again to go on.\n")


def test_a_look_that_is_interrupted_promises_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("vlmill.train.loss_shares.read_weighted_stats", press_keys)
    (tmp_path / "run").mkdir()
    assert vlmill("stats", tmp_path / "run") == 130
    assert capsys.readouterr().err == "interrupted.\n"


@pytest.fixture
def ray_handler():
    """Ends the process with 15, as the handler that Ray puts in place does."""

    def handle(number: int, _: Any) -> None:
        sys.exit(number)

    before = signal.signal(signal.SIGTERM, handle)
    yield handle
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("joins", [False, True])
def test_sigterm_is_heeded_as_ctrl_c_is(monkeypatch, tmp_path, capsys, ray_handler, joins):
    def end(*_: Any, **__: Any) -> None:
        if joins:
            monkeypatch.setattr("ray.init", lambda **_: signal.signal(signal.SIGTERM, ray_handler))
            _join_ray(None, {})
        with EventLog(tmp_path).span("build"):
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            raise KeyboardInterrupt  # as Ray does, in the place of what its call was ended by

    monkeypatch.setattr("vlmill.pipeline.core.termination._CAME", threading.Event())
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("vlmill.api.builds.load_for_build", end)
    assert vlmill("build", "quickstart", "--out", tmp_path / "run") == 143
    assert capsys.readouterr().err == ("ended by SIGTERM. What is done is kept: run the same command again to go on.\n")
    *_, failed = (json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines())
    assert (failed["event"], failed["message"]) == ("failed", "ended by SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is ray_handler, "as before"
