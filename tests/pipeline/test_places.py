"""Places: an address is refused where a path is meant, and no local folder takes its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

import vlmill
from vlmill.pipeline.cli import app
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.places import resolve_place, take_local_path, take_run_folder
from vlmill.pipeline.inputs.files import list_input_files


def list_paths() -> list[tuple[str, str]]:
    """Every argument and option of a command that is a path."""
    group = typer.main.get_command(app)
    return [
        (name, parameter.opts[-1])
        for name, command in group.commands.items()
        for parameter in command.params
        if Path in {parameter.type_descriptor.annotation, *get_args(parameter.type_descriptor.annotation)}
    ]


WORDS = {
    "check": ["quickstart"],
    "preview": ["quickstart"],
    "build": ["quickstart"],
    "what-if": ["quickstart"],
    "ablate": ["quickstart"],
    "new": ["."],
}
"""What a command needs before its options, other than DIR."""


@pytest.mark.parametrize(("command", "option"), list_paths())
def test_a_command_refuses_an_address_in_the_place_of_a_path(command, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["gs://bkt/out"] if not option.startswith("-") else [*WORDS.get(command, ["."]), option, "gs://bkt/out"]
    needed = ["--to", "llava", *([] if option == "--out" else ["--out", "x"])] if command == "export" else []
    result = CliRunner().invoke(app, [command, *given, *needed])
    assert isinstance(result.exception, StoreError), result.output
    assert str(result.exception).startswith("gs://bkt/out: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["what-if", "gs://bkt/out"], ["diff", "gs://bkt/out:align", "x"], ["build", "s3://bkt/recipe.yaml"]]
)
def test_so_does_a_command_whose_argument_is_a_name_or_a_path(arguments):
    assert isinstance(CliRunner().invoke(app, arguments).exception, StoreError)


@pytest.mark.parametrize(
    "call",
    [
        lambda: vlmill.build("quickstart", out="gs://bkt/out"),
        lambda: vlmill.open_run("gs://bkt/out"),
        lambda: vlmill.check_recipe("quickstart", out="gs://bkt/out"),
        lambda: vlmill.load_recipe("quickstart", run="gs://bkt/out"),
        lambda: vlmill.ablate("quickstart", out="gs://bkt/out"),
    ],
)
def test_so_does_the_api(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"gs://bkt/out.*s3://BUCKET/RUN"):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["run", "a:b/c", "/x/s3:y/z", "build/s3:/b", "run:align"])
def test_a_path_is_taken_as_it_is(place):
    assert take_local_path(place) == Path(place)


@pytest.mark.parametrize(
    ("place", "resolved"),
    [
        ("data", "/base/data"),
        ("../data", "/data"),
        ("/data", "/data"),
        ("a::b", "/base/a::b"),
        ("s3://bucket/data", "s3://bucket/data"),
        ("zip://::data.zip", "zip://::/base/data.zip"),
        ("zip://images::../data.zip", "zip://images::/data.zip"),
        ("zip://images::/data.zip", "zip://images::/data.zip"),
        ("zip://images::s3://bucket/data.zip", "zip://images::s3://bucket/data.zip"),
    ],
)
def test_a_relative_place_starts_from_the_recipe_also_within_the_address_of_an_archive(place, resolved):
    assert resolve_place(place, Path("/base")) == resolved


LATIN = os.fsdecode(b"caf\xe9")
"""A name in Latin-1, as old disks and archives have them."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", LATIN],
        ["build", "quickstart", "--out", f"{LATIN}/run"],
        ["build", "quickstart", "--out", "run", "--source", f"web={LATIN}"],
        ["new", f"{LATIN}.jsonl", "--out", "mine.yaml"],
        ["what-if", "quickstart", "--out", LATIN],
    ],
)
def test_a_command_names_a_path_that_is_not_utf8(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, StoreError)
    assert r"caf\xe9" in str(error)
    assert "not UTF-8" in str(error)
    assert not list(tmp_path.iterdir())


def test_so_it_does_where_the_working_folder_is_called_so_or_is_gone(tmp_path, monkeypatch):
    (folder := tmp_path / LATIN).mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(StoreError, match=r"caf\\xe9/run: this name is not UTF-8"):
        take_local_path("run")
    with pytest.raises(StoreError, match=r"caf\\xe9/run: this name is not UTF-8"):
        take_run_folder("run")
    take_run_folder("s3://bucket/run")
    folder.rmdir()
    with pytest.raises(StoreError, match="run: the working folder has been removed"):
        take_local_path("run")


def test_an_input_file_whose_name_is_not_utf8_is_named_before_anything_is_read(tmp_path):
    for name in ("plain.jsonl", f"{LATIN}.jsonl", f"{LATIN}.txt"):
        (tmp_path / name).touch()
    with pytest.raises(StoreError, match=r"^caf\\xe9.jsonl: this name is not UTF-8.* convmv "):
        list_input_files("chat", str(tmp_path), "*.jsonl")
    assert [file.name for file in list_input_files("chat", str(tmp_path), "plain*")] == ["plain.jsonl"]


def test_names_are_said_to_be_read_as_ascii_where_python_does(tmp_path):
    """As with an environment that asks for no UTF-8; the same command then tells how to ask for it."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "vlmill.pipeline.cli", "build", "quickstart", "--out", "café"]
    ended = subprocess.run(command, env=plain, cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 1
    assert b"as ascii; set PYTHONUTF8=1" in ended.stderr, ended.stderr


def test_output_of_another_encoding_shows_other_letters_as_escapes(tmp_path):
    """Such as that of a terminal without UTF-8; before, the first such letter ended the command."""
    (tmp_path / "café.jsonl").write_text('{"question": "Where is it?", "answer": "It is there."}\n')
    other = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "vlmill.pipeline.cli", "new", "café.jsonl", "--out", "café.yaml"]
    ended = subprocess.run(command, env=other, cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert rb"wrote caf\xe9.yaml" in ended.stdout
