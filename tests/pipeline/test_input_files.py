"""Input files on this machine and on what fsspec reads: their order, their content, and how steps get to read them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import fsspec
import pytest

import vlmill
from tests.helpers.upstream import obelics
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.inputs import copies, files
from vlmill.pipeline.inputs.files import hash_input, list_input_files, open_input, open_inputs, open_local
from vlmill.pipeline.recipe.overrides import move_source
from vlmill.pipeline.sources.obelics import Obelics
from vlmill.pipeline.steps.survey import Survey, cut_rows


@pytest.fixture
def memory():
    """A file system that is not this machine's."""
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/bucket/b.tar": b"second", "/bucket/a.tar": b"first"})
    yield "memory://bucket"
    filesystem.rm("/bucket", recursive=True)


def test_a_file_of_this_machine_is_read_where_it_lies(tmp_path):
    path = obelics(tmp_path / "web.parquet", [["a text"]])
    (input_file,) = list_input_files("web", str(tmp_path), "*.parquet", ranged=lambda _: True)
    with open_input(input_file) as found:
        assert found == path
    assert hash_input(input_file) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def test_a_file_elsewhere_is_copied_for_as_long_as_it_is_read(memory):
    input_files = list_input_files("papers", memory, "*.tar")
    assert [input_file.name for input_file in input_files] == ["a.tar", "b.tar"]
    assert hash_input(input_files[0]) == (hashlib.sha256(b"first").hexdigest(), 5)
    with open_local(input_files[1]) as copy:
        assert copy.read_bytes() == b"second"
    assert not copy.exists()


def test_where_nothing_is_found_the_way_to_say_where_it_is_is_named(tmp_path, memory):
    for root in (str(tmp_path), memory, str(tmp_path / "none")):
        with pytest.raises(
            SourceError, match=r"no file matches .*/\*\.parquet.*; say where they are with --source web=PATH"
        ):
            list_input_files("web", root, "*.parquet")
        with pytest.raises(SourceError, match=r"--source exam=PATH.* a pattern such as .*/\*\.json, which takes the"):
            list_input_files("exam.test", root, "data.json")
    (tmp_path / "scans.jsonl").write_text("{}")
    with pytest.raises(SourceError, match=r"scan\.jsonl \(did you mean '.*/scans\.jsonl'\?\); say where they are"):
        list_input_files("web", str(tmp_path), "scan.jsonl")
    with pytest.raises(SourceError, match=r"no file matches .*/scan\*\.json; say where they are"):
        list_input_files("web", str(tmp_path), "scan*.json")
    with pytest.raises(SourceError, match="neither a pattern of files nor a split"):
        list_input_files("web", str(tmp_path), None)


@pytest.mark.parametrize(
    ("root", "pattern", "why"),
    [
        ("crawl", "train-*.tsv", r"\(in data/ there are some: data/train-\*\.tsv\); .* such as .*/\*\.tsv"),
        ("crawll", "*.tsv", r"\(there is no such folder; did you mean '.*crawl'\?\)"),
        ("~/crawl", "*.tsv", "write the whole path in place of ~"),
        ("crawl", "/crawl/data/train-1.tsv", "and not a path of its own"),
    ],
)
def test_why_nothing_is_found_is_said_where_it_shows(root, pattern, why, tmp_path):
    (tmp_path / "crawl/data").mkdir(parents=True)
    (tmp_path / "crawl/data/train-1.tsv").touch()
    with pytest.raises(SourceError, match=why):
        list_input_files("web", str(tmp_path / root), pattern)


def test_a_survey_cuts_by_rows_and_by_bytes(tmp_path):
    path = obelics(tmp_path / "web.parquet", [[f"text {row}"] for row in range(7)])
    short = obelics(tmp_path / "short.parquet", [["text"]])
    inputs = {"input-0": path, "input-1": short}
    counts = Survey(Obelics(), rows=3, size=1 << 30, files=("web", "short")).run(inputs, tmp_path)
    cut, alone = json.loads((tmp_path / "cuts.json").read_text())
    assert [tuple(chunk[:2]) for chunk in cut] == [(0, 3), (3, 6), (6, 7)]
    assert [sum(chunk[2] for chunk in cut), *(chunk[2] for chunk in alone)] == [
        sum(Obelics().survey(path)),
        *Obelics().survey(short),
    ]
    assert (counts["surveyed"].kept, counts["files"].kept) == (8, 2)
    assert cut_rows([5, 5, 20, 1], rows=9, size=10) == [(0, 2, 10), (2, 3, 20), (3, 4, 1)]
    assert cut_rows([], rows=9, size=10) == []


def test_letters_of_patterns_in_names_of_folders_and_files_are_letters(tmp_path):
    folder = tmp_path / "a[1]" / "b*"
    (folder / "c[x]").mkdir(parents=True)
    for name in ("one[1].csv", "one1.csv", "two.csv", "c[x]/three.csv"):
        (folder / name).write_text("")

    def named(pattern):
        return [file.name for file in list_input_files("web", str(folder), pattern)]

    assert named("one[1].csv") == ["one[1].csv"]  # though it matches one1.csv
    assert named("one[[]1].csv") == ["one[1].csv"]
    assert named("one[12].csv") == ["one1.csv"]
    assert named("*.csv") == ["one1.csv", "one[1].csv", "two.csv"]
    assert named("**/*.csv") == ["c[x]/three.csv", "one1.csv", "one[1].csv", "two.csv"]
    assert [file.sha256 or hash_input(file)[1] for file in list_input_files("web", str(folder), "two.csv")] == [0]


def test_a_file_or_pattern_on_the_command_line_may_lie_in_such_a_folder(tmp_path):
    folder = tmp_path / "a[1]"
    folder.mkdir()
    for name in ("one[1].csv", "one1.csv"):
        (folder / name).write_text("")
    for place, expected in (("one[1].csv", ["one[1].csv"]), ("*.csv", ["one1.csv", "one[1].csv"])):
        data = {"sources": {"web": {"files": "gone"}}}
        move_source(data, "web", str(folder / place))
        source = data["sources"]["web"]
        assert [file.name for file in list_input_files("web", source["root"], source["files"])] == expected


def test_a_file_elsewhere_that_changes_between_hashing_and_reading_ends_the_build(tmp_path, memory):
    """Else rows of one file would stand under the sha256 of another; the next build reads it as it is now."""
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/bucket/rows.jsonl", b'{"messages": [{"role": "user", "content": "a"}]}\n')
    (listed,) = list_input_files("chat", memory, "*.jsonl")
    sha256, _ = hash_input(replace(listed, stamp=""))
    known = replace(listed, stamp="", sha256=sha256)
    with open_inputs({"input-0": known}) as opened:
        assert opened["input-0"].read_bytes().startswith(b'{"messages"')
    filesystem.pipe("/bucket/rows.jsonl", b'{"messages": []}\n')
    with pytest.raises(SourceError, match=f"rows.jsonl has changed since it was hashed .{sha256}.; run again"):
        open_inputs({"input-0": known}).__enter__()


def test_a_build_compares_what_it_reads_with_what_it_hashed(tmp_path, memory, monkeypatch):
    filesystem, hashed = fsspec.filesystem("memory"), files.hash_input
    rows = [
        {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": "It."}]}
        for n in range(9)
    ]
    filesystem.pipe("/bucket/rows.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    recipe = {"name": "moved", "seed": 1, "sources": {"chat": {"kind": "chat", "root": memory, "files": "*.jsonl"}}}

    def change(input_file):
        found = hashed(input_file)
        filesystem.pipe("/bucket/rows.jsonl", b"{}\n")
        copies._KEPT["copied"].version = ("", "")  # as in another process
        return found

    monkeypatch.setattr(files, "hash_input", change)
    with pytest.raises(SourceError, match="rows.jsonl has changed since it was hashed"):
        vlmill.build(recipe, tmp_path / "run", workers=0, until="curate")
    monkeypatch.setattr(files, "hash_input", hashed)
    filesystem.pipe("/bucket/rows.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows[:4]).encode())
    run = vlmill.build(recipe, tmp_path / "run", workers=0, until="curate")
    assert run.samples().collect()["id"].n_unique() == 4
