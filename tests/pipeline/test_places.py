"""Places: an address is refused where a path is meant, and no local folder takes its name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

import vlmill
from vlmill.pipeline.cli import app
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.places import resolve_place, take_local_path


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
