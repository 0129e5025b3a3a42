"""Rows in packed files are those of what comes out, by their numbers; a cut file and one that fills disks are bad."""

import bz2
import gzip
import json
from dataclasses import replace

import fsspec
import pyarrow as pa
import pytest
import yaml

import vlmill as api
from tests.helpers.small import vlmill
from tests.helpers.upstream import json_array, json_lines, separated
from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.inputs.files import hash_input, list_input_files, open_input
from vlmill.pipeline.sources.formats import packed
from vlmill.pipeline.sources.instructions import Instructions
from vlmill.pipeline.sources.table import TableSource

WRITERS = {".jsonl": json_lines, ".json": json_array, ".csv": separated, ".tsv": separated}
PACKERS = {
    ".gz": lambda data: gzip.compress(data[:40], mtime=0) + gzip.compress(data[40:], mtime=0),
    ".bz2": bz2.compress,
    ".zst": lambda data: b"".join(pa.compress(part, "zstd", asbytes=True) for part in (data[:40], data[40:])),
}
ROWS = [{"question": f"What is {row}?", "answer": f"It is {row}."} for row in range(30)]
SOURCE = TableSource(question="question", answer="answer")


def write_packed(folder, ending, packer, rows=ROWS):
    plain = WRITERS[ending](folder / f"rows{ending}", rows)
    path = folder / f"rows{ending}{packer}"
    path.write_bytes(PACKERS[packer](plain.read_bytes()))
    return plain, path


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("ending", WRITERS)
def test_rows_are_those_of_what_comes_out(ending, packer, tmp_path):
    plain, path = write_packed(tmp_path, ending, packer)
    assert SOURCE.survey(path) == SOURCE.survey(plain)
    assert list(SOURCE.rows(path, [3, 17])) == list(SOURCE.rows(plain, [3, 17]))
    assert [row.row for row in SOURCE.rows(path, range(20, 40))] == list(range(20, 30))


def test_a_file_that_changed_is_unpacked_again(tmp_path):
    _, path = write_packed(tmp_path, ".jsonl", ".gz")
    assert len(SOURCE.survey(path)) == 30
    write_packed(tmp_path, ".jsonl", ".gz", ROWS[:7])
    assert len(SOURCE.survey(path)) == 7


@pytest.mark.parametrize(("stamp", "times"), [("the first", 1), ("", 2)])
def test_a_packed_file_elsewhere_is_unpacked_once_where_its_version_is_known(stamp, times, tmp_path, monkeypatch):
    _, path = write_packed(tmp_path, ".jsonl", ".gz")
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/{tmp_path.name}/rows.jsonl.gz", path.read_bytes())
    unpacked, unpack = [], packed.unpack_file
    monkeypatch.setattr(packed, "unpack_file", lambda *paths: (unpacked.append(paths), unpack(*paths)))
    (file,) = list_input_files("a", f"memory://{tmp_path.name}", "*.gz")
    for _ in range(2):
        with open_input(replace(file, stamp=stamp)) as copy:
            assert len(SOURCE.survey(copy)) == len(list(SOURCE.rows(copy, range(30)))) == 30
    memory.rm(f"/{tmp_path.name}", recursive=True)
    assert len({path for path, _ in unpacked}) == len(unpacked) == times


def test_the_packed_file_is_hashed(tmp_path):
    _, path = write_packed(tmp_path, ".jsonl", ".gz")
    (file,) = list_input_files("a", str(tmp_path), "*.gz")
    assert hash_input(file) == (hash_file(path), path.stat().st_size)


@pytest.mark.parametrize("packer", PACKERS)
def test_a_cut_file_is_bad(packer, tmp_path):
    _, path = write_packed(tmp_path, ".jsonl", packer)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadFileError, match=r"rows\.jsonl\.\w+: cut, damaged or not packed with"):
        SOURCE.survey(path)


def test_a_file_that_holds_far_more_than_its_size_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "USUAL", 1000)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * (1 << 20)))
    with pytest.raises(BadFileError, match=r"more than [\d,]+ bytes come out of its 1,\d+, and more than 200 times"):
        Instructions().survey(path)
    monkeypatch.setattr(packed, "USUAL", 500_000)
    with pytest.raises(BadFileError, match=r"more than 500,000 bytes come out of its 1,\d+, and more than 200 times"):
        Instructions().survey(path)
    monkeypatch.setattr(packed, "USUAL", 1 << 20)
    assert Instructions().survey(path) == []


def test_new_reads_packed_rows_and_a_build_by_its_recipe_keeps_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for part in range(2):
        rows = [{"question": f"What is {part} and {row}?", "answer": f"It is {row}."} for row in range(8)]
        plain, path = write_packed(tmp_path / "data", ".jsonl", ".gz", rows)
        path.rename(path.with_name(f"part-{part}.jsonl.gz"))
        plain.unlink()
    (tmp_path / "data" / "notes.gz").write_bytes(b"x")
    assert vlmill("new", "data", "--out", "data.yaml") == 0
    (settings,) = yaml.safe_load((tmp_path / "data.yaml").read_text())["sources"].values()
    assert (settings["kind"], settings["files"]) == ("instructions", "*.jsonl.gz")
    sets = ("--set", "dedupe=null", "--set", "stages=[]", "--set", "filters=[]", "--set", "partition.rows=3")
    assert vlmill("build", "data.yaml", "--out", "run", "--workers", 0, *sets) == 0
    kept = api.open_run(tmp_path / "run").samples("data").collect()
    assert len(kept) == 16
    assert json.dumps(kept["file"].unique().sort().to_list()) == '["part-0.jsonl.gz", "part-1.jsonl.gz"]'
