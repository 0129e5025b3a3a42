"""What strangers wrote is shown on a terminal and never obeyed, by whichever command."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markup import escape
from rich.table import Table

from vlmill.pipeline.cli import main
from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.excerpt import HIDDEN
from vlmill.pipeline.core.terminal import SafeConsole, format_json, neutralise_text

ROOT = Path(__file__).parents[2]
TITLE = "\x1b]0;owned\x07"
"""Sets the title of a terminal's window. Rich itself leaves the bell at its end out."""
CONTROLS = (TITLE, "\x1b[2J", "\x9b2J", "\x85", "\u202eevil", "\x08\x7f\r", "\u200b", "\U000e0041")


def show(draw, **options):
    file = io.StringIO()
    draw(SafeConsole(file=file, width=60, highlight=False, **options))
    return file.getvalue()


def list_controls(text):
    return [match[0] for match in HIDDEN.finditer(text) if match[0] not in "\n\t"]


@pytest.mark.parametrize("text", CONTROLS)
def test_no_way_to_print_lets_a_control_through(text):
    def tabulate(console):
        table = Table("name", title=text)
        table.add_row(text)
        console.print(table)

    for draw in (
        lambda console: console.print(text, markup=False),
        lambda console: console.print(text, markup=False, soft_wrap=True),
        lambda console: console.print(f"[bold]{escape(text)}[/]"),
        lambda console: console.log(text, markup=False),
        tabulate,
    ):
        assert list_controls(show(draw)) == []


def test_colours_of_ours_stay():
    shown = show(lambda console: console.print(f"[red]a{TITLE}[/]"), force_terminal=True, color_system="standard")
    assert shown == "\x1b[31ma\\x1b]0;owned\x1b[0m\n"


@given(st.text())
def test_a_text_without_controls_is_shown_as_it_is_and_any_other_can_be_told(text):
    assert list_controls(neutralise_text(text)) == []
    if not list_controls(text):
        assert neutralise_text(text) == text


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_for_machines_has_the_same_values_and_no_control(value):
    assert json.loads(format_json(value)) == value
    assert list_controls(format_json(value)) == []


def test_errors_are_no_way_to_a_terminal(monkeypatch, capsys):
    def fail():
        raise VlmillError(f"web/{TITLE}.parquet#1 cannot be read")

    monkeypatch.setattr("vlmill.pipeline.cli.app", fail)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "error: web/\\x1b]0;owned.parquet#1 cannot be read\n"


def test_every_console_is_made_in_one_place():
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("pipeline", "mixtures", "train", "src/vlmill/api")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"Console", "print"}
    ]
    assert calls == []
