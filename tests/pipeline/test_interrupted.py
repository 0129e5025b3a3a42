"""Ctrl-C: a command says whether it goes on, and ends with 130."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.small import vlmill


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
