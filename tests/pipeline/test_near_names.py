"""What is misspelt, or stands where something else belongs: the message names what was meant, and no internals."""

from __future__ import annotations

import dataclasses
import errno
import os
from itertools import pairwise
from pathlib import Path

import pytest

from tests.helpers.small import vlmill, write_input_files, write_recipe
from vlmill.mixtures.build import read_stage_mixture
from vlmill.mixtures.export.formats import FORMATS
from vlmill.mixtures.export.run_export import READ_BY
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.files import explain_refused_write, write_atomically
from vlmill.pipeline.proposal.recipe_text import BENCHMARK
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import read_lock
from vlmill.pipeline.recipe.mapping import find_recipe, list_differences
from vlmill.pipeline.reports.trace import find_id

OWN = """from dataclasses import dataclass

@dataclass(frozen=True)
class Shouting:
    name = "shouting"

    def decide(self, samples, image_stats):
        return []

@dataclass(frozen=True)
class Vivid:
    name = "vivid"

    def score(self, model, batch):
        return [0] * batch.size
"""


@pytest.fixture
def recipe(tmp_path):
    write_input_files(tmp_path)
    return write_recipe(tmp_path)


@pytest.fixture
def first(recipe):
    """The name of a source of the recipe."""
    return next(iter(load_recipe(str(recipe))[0].sources))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run beside its recipe."""
    folder = tmp_path_factory.mktemp("small")
    recipe = write_recipe(folder)
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0) == 0
    return folder / "run"


@pytest.mark.parametrize("key", ["text_qualit.node.min_words", "langauge.in_doubt", "thresold.any.a.min"])
def test_a_misspelt_filter_of_the_command_line_is_no_key_of_a_recipe(recipe, key):
    with pytest.raises(RecipeError, match=f"--set {key}: .*did you mean '(text_quality|language|threshold)'"):
        load_recipe(str(recipe), sets={key: "1"})


def test_a_misspelt_source_of_the_command_line_is_named_with_the_one_that_is_there(recipe, first):
    with pytest.raises(RecipeError, match=rf"did you mean 'sources\.{first}', which is there"):
        load_recipe(str(recipe), sets={f"sources.{first[:-1]}.priority": "2"})


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [("filters", "[{shoutin: null}]", "shouting"), ("signals", "{a: {kind: vivd}}", "vivid")],
)
def test_what_custom_code_brings_is_offered_as_well(recipe, key, value, meant):
    with pytest.raises(RecipeError, match=f"did you mean {meant!r}"):
        load_recipe(str(recipe), sets={key: value}, filters=[("own.py", OWN)])


@pytest.mark.parametrize("given", ["[fragments/web_bounds]", "fragments/web_bounds"])
def test_a_name_under_include_is_shown_as_the_mapping_that_it_should_be(recipe, given):
    recipe.write_text(f"include: {given}\n{recipe.read_text()}")
    with pytest.raises(RecipeError, match=r"include: \[\{recipe: fragments/web_bounds\}\]"):
        load_recipe(str(recipe))


def test_a_recipe_file_that_is_not_there_is_offered_the_one_beside(recipe):
    with pytest.raises(RecipeError, match=f"did you mean '.*{recipe.name}'"):
        find_recipe(str(recipe.with_name(f"{recipe.stem}x.yaml")))


@pytest.mark.parametrize("command", ["status", "report", "stats"])
def test_a_recipe_in_the_place_of_a_run_is_called_a_file(recipe, capfd, command):
    assert vlmill(command, recipe) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "is a file, and a run is a folder" in said
    assert f"--out {recipe}" not in said
    with pytest.raises(StoreError, match="is a file"):
        read_lock(recipe)


def test_code_is_compared_by_its_sha256_and_not_shown():
    held = {"custom_filters": {"a.py": {"sha256": "ab" * 32, "code": "secret = 1"}}}
    other = {"custom_filters": {"a.py": {"sha256": "cd" * 32, "code": "secret = 2"}}}
    for before, now in [({}, held), (held, other), (held, {})]:
        said = list_differences(before, now)
        assert "secret" not in said
        assert "abababababab..." in said
        assert said.count("\n") == 0
    assert list_differences(held, held) == ""


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_takes_no_files_is_named_without_temporary_names(tmp_path, monkeypatch, number):
    def refuse(path, *_, **__):
        raise OSError(number, "no", str(path))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(OSError, match="no") as told:
        write_atomically(tmp_path / "a.yaml", "b")
    said = explain_refused_write(told.value)
    assert f"{tmp_path / 'a.yaml'} cannot be made or opened" in said
    assert ".tmp-" not in said
    assert "--out" not in said, "it may have been given, or be none of the command's, or a file was to be read"
    assert explain_refused_write(FileNotFoundError(errno.ENOENT, "no", "a")) == ""
    assert explain_refused_write(FileNotFoundError(errno.ENOENT, "no", str(tmp_path / "a"))) == "", "was to be read"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
@pytest.mark.parametrize("option", ["stats --html", "report --html", "export --to parquet --out", "disclose --out"])
def test_a_file_system_without_files_is_told_by_the_name_that_was_given(small, capsys, option):
    command, *options = option.split()
    place = "/proc/there.html"
    assert vlmill(command, small, *options, place) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"error: {place} cannot be made or opened: nothing can be made in its folder")


@pytest.mark.parametrize("command", ["stats", "report"])
def test_a_page_is_not_written_in_the_place_of_a_device_or_pipe_nor_read_from_it(small, tmp_path, capsys, command):
    os.mkfifo(tmp_path / "pipe")
    assert vlmill(command, small, "--html", tmp_path / "pipe") == 1
    assert "pipe cannot be written: it is there, and no regular file" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()


def test_a_run_below_a_file_names_what_is_there(small, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert vlmill("build", small.parent / "recipe.yaml", "--out", tmp_path / "file") == 1
    assert f"error: {tmp_path / 'file'} cannot be made or opened: it is there, and no folder" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("new", "row.jsonl"), "rows.jsonl"),
        (("status", "rum"), "run"),
        (("train", "rum"), "run"),
        (("check", "recipe.yml"), "recipe.yaml"),
        (("trace", "run", "web/wep.parquet#0"), "web.parquet"),
        (("trace", "run", "wep/web.parquet#0"), "web"),
    ],
)
def test_a_misspelt_file_folder_or_run_is_named_with_what_is_there(small, monkeypatch, capsys, arguments, near):
    monkeypatch.chdir(small.parent)
    Path("rows.jsonl").write_text("{}\n")
    Path("runs").write_text("no run")
    assert vlmill(*arguments) == 1
    said = capsys.readouterr().err
    assert f"did you mean {near!r}?" in said
    assert vlmill("trace", "run", "web/other_words_altogether#0") == 1
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_data_in_the_place_of_a_recipe_are_told_what_writes_one(tmp_path, name, capsys):
    (tmp_path / name).write_text("[]\n")
    assert vlmill("build", tmp_path / name) == 1
    assert f"vlmill new {tmp_path / name} looks at data" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("stage", [{"name": "a", "policy": "smal", "mixture": {}}])
def test_a_policy_that_cannot_be_read_is_not_said_to_be_missing_from_a_list_of_none(recipe, stage):
    sets = {"policies": "{small: {kind: leterbox, side: 56, patch: 14}}", "stages": f"[{stage}]"}
    with pytest.raises(RecipeError) as told:
        load_recipe(str(recipe), sets=sets)
    assert "allowed: none" not in str(told.value)


def test_paragraphs_of_help_fill_a_narrow_terminal(capfd, monkeypatch):
    """A line breaks where the next word has no room, but for the ends of paragraphs, and examples stand apart."""
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    monkeypatch.setenv("COLUMNS", "80")
    assert vlmill("new", "--help") == 0
    lines = [line.rstrip() for line in capfd.readouterr().out.split("╭")[0].splitlines()]
    start = next(place for place, line in enumerate(lines) if "It reads rows of several" in line)
    paragraph = lines[start : lines.index("", start)]
    for line, following in pairwise(paragraph):
        assert len(line) + len(following.split()[0]) > 76, (line, following)
    assert any(line.startswith("     vlmill new") for line in lines)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shards/web/small/00000-0000.0123456789ab.00.tar:000000000000000", "no such shard"),
        ("https://img.example.org/1.jpg", "no sample of the run has the address https://img"),
        ("rows.jsonl#3", "one looks like source/file.parquet#12"),
    ],
)
def test_what_is_no_sample_id_is_told_what_it_is(tmp_path, name, said):
    with pytest.raises(StoreError, match=said) as told:
        find_id(tmp_path, name)
    assert ("or give a shard and a key" in str(told.value)) == name.startswith("rows")


@pytest.mark.parametrize("trainer", ["openai", "trl", "energon"])
def test_a_trainer_in_the_place_of_a_format_is_told_which_format_it_reads(trainer):
    assert {name for name in FORMATS if f"{name} " in READ_BY} == {*FORMATS}
    assert trainer in READ_BY.lower()


@pytest.mark.parametrize("more", [{}, {"unit": "token"}, {"sequence_lenght": 512}, {"held_out": 3}])
@pytest.mark.parametrize("wrong", [["papres"], ["papres", "nothing"]])
def test_each_wrong_source_of_a_mixture_is_named_whatever_else_is_wrong_in_it(recipe, more, wrong):
    found = load_recipe(str(recipe))[0]
    shares = dict.fromkeys([next(iter(found.sources)), *wrong], 1)
    mixture = {"shares": shares, "sequence_length": 512, **more}
    stage = dataclasses.replace(found.stages[0], mixture=mixture)
    with pytest.raises(RecipeError) as told:
        read_stage_mixture(found, stage)
    for name in wrong:
        assert f"the recipe has no source {name!r}" in str(told.value)
    assert len(told.value.faults) == len(wrong) + bool(more)


def test_a_written_recipe_says_how_data_are_compared_with_benchmarks(recipe, first, tmp_path, monkeypatch):
    said = BENCHMARK.replace("..., ", "")
    recipe.write_text(f"{said}\n{recipe.read_text()}")
    assert "mmmu" in load_recipe(str(recipe))[0].decontaminate.against
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"question": "What is it?", "answer": "A gate."}\n' * 4)
    assert vlmill("new", tmp_path / "a.jsonl") == 0
    assert BENCHMARK in (tmp_path / "a.yaml").read_text()


def test_a_value_that_a_shell_took_apart_is_said_to_want_quotes(capsys, tmp_path):
    assert vlmill("what-if", tmp_path, "--set", "language=keep:[en", "language=de]") == 2
    assert "quote them" in " ".join(capsys.readouterr().err.replace("│", " ").split())
