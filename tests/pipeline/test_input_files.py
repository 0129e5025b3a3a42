"""Input files on this machine and on what fsspec reads: their order, their content, and how steps get to read them."""

from __future__ import annotations

import hashlib

import fsspec
import pytest

from tests.helpers.upstream import obelics
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.inputs.files import hash_input, list_input_files, open_input, open_local
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
            SourceError, match=r"no file matches .*/\*\.parquet; say where they are with --source web=PATH"
        ):
            list_input_files("web", root, "*.parquet")
        with pytest.raises(
            SourceError, match=r"--source exam=PATH.* a pattern such as .*/\*\.parquet, which takes the"
        ):
            list_input_files("exam.test", root, "data.json")
    with pytest.raises(SourceError, match="neither a pattern of files nor a split"):
        list_input_files("web", str(tmp_path), None)


def test_a_survey_cuts_by_rows_and_by_bytes(tmp_path):
    path = obelics(tmp_path / "web.parquet", [[f"text {row}"] for row in range(7)])
    counts = Survey(Obelics(), rows=3, size=1 << 30).run({"input": path}, tmp_path)
    assert (tmp_path / "cuts.json").read_text() == "[[0,3],[3,6],[6,7]]"
    assert counts["surveyed"].kept == 7
    assert cut_rows([5, 5, 20, 1], rows=9, size=10) == [(0, 2), (2, 3), (3, 4)]
    assert cut_rows([], rows=9, size=10) == []
