"""Bad input files: all are named at once, and a source that skips them counts each, and the rows that damage hides."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.small import vlmill
from tests.helpers.upstream import picture, tar
from vlmill.pipeline.core.errors import BadFileError, SourceError
from vlmill.pipeline.reports.funnel import read_funnel, sample_losses
from vlmill.pipeline.sources.formats.parquet import IMAGE, _choose_error
from vlmill.pipeline.sources.websight import WebSight
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import RowRange
from vlmill.pipeline.steps.survey import Survey

ROWS = 6


def write_rows(path, first, *, cut=0):
    talk = [
        [{"from": "human", "value": f"What is word {n}?"}, {"from": "gpt", "value": f"Word {n} is a reed."}]
        for n in range(first, first + ROWS)
    ]
    data = json.dumps([{"conversations": turns} for turns in talk])
    path.write_text(data[: len(data) - cut])


@pytest.fixture
def recipe(tmp_path):
    """Two sources: tables of JSON of which two of four are cut, and tars of which one of two is."""
    (tmp_path / "js").mkdir()
    (tmp_path / "tars").mkdir()
    for number, cut in enumerate((0, 40, 0, 60)):
        write_rows(tmp_path / f"js/{number}.json", 10 * number, cut=cut)
    for number in range(2):
        tar(tmp_path / f"tars/{number}.tar", {"a.png": picture(number), "a.txt": b"Reeds by the river."})
    whole = (tmp_path / "tars/1.tar").read_bytes()
    (tmp_path / "tars/1.tar").write_bytes(whole[:700])
    sources = {
        "talk": {"kind": "llava", "files": "js/*.json"},
        "pairs": {"kind": "pairs_wds", "files": "tars/*.tar"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "cut", "sources": sources, "dedupe": None}))
    return path


def test_all_bad_files_of_all_sources_are_named_with_the_way_to_go_on_without_them(recipe, tmp_path, capsys):
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    for name in ("js/1.json", "js/3.json", "tars/1.tar"):
        assert said.count(name) == 1, said
    assert "js/0.json" not in said
    assert said.count("source talk (kind llava): ") == 2
    assert said.count("if the files are of another row shape: --set sources.talk.kind=KIND") == 1
    for source in ("talk", "pairs"):
        assert f"--set sources.{source}.on_bad_file=skip" in said


def test_check_says_how_to_go_on_without_a_damaged_file(tmp_path, capsys):
    whole = pa.table({"caption": ["A dog."] * 9, "image": [None] * 9})
    pq.write_table(whole, tmp_path / "1.parquet")
    (tmp_path / "0.parquet").write_bytes((tmp_path / "1.parquet").read_bytes()[:99])
    source = {"kind": "table", "files": "*.parquet", "options": {"image": "image", "caption": "caption"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "cut", "sources": {"rows": source}}))
    assert vlmill("check", tmp_path / "recipe.yaml") == 1
    said = " ".join("".join(capsys.readouterr()).split())
    assert said.count("to go on with the other files: --set sources.rows.on_bad_file=skip") == 1
    options = "--set", "sources.rows.options={image: image, caption: captoin}"
    assert vlmill("check", tmp_path / "recipe.yaml", *options, "--set", "sources.rows.files=1.parquet") == 1
    assert "on_bad_file" not in "".join(capsys.readouterr())


def test_a_source_that_skips_bad_files_counts_them_and_shows_what_is_wrong(recipe, tmp_path, capsys):
    skips = ("--set", "sources.talk.on_bad_file=skip", "--set", "sources.pairs.on_bad_file=skip")
    root = tmp_path / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0, *skips) == 0
    assert "warning: talk: bad input files were skipped, 2 in all" in " ".join(capsys.readouterr().out.split())
    funnel = read_funnel(root)
    assert funnel["talk"]["files"] == {"in": 4, "kept": 2, "dropped": {}, "failed": {"bad_file": 2}}
    assert funnel["talk"]["rows"]["in"] == funnel["talk"]["rows"]["kept"] == 2 * ROWS
    assert funnel["pairs"]["files"]["failed"] == {"bad_file": 1}
    shown = {loss.id: loss.detail for loss in sample_losses(root, funnel, "bad_file", 9)}
    assert set(shown) == {"js/1.json", "js/3.json", "tars/1.tar"}
    assert shown["js/1.json"] == "the array has no end; the file stops within row 5, fetch it again"
    capsys.readouterr()
    assert vlmill("report", root, "--reason", "bad_file") == 0
    assert "js/3.json" in capsys.readouterr().out
    assert vlmill("status", root) == 0


def test_rows_behind_damage_are_lost_one_by_one_where_bad_files_are_skipped(tmp_path):
    path = tmp_path / "rows.parquet"
    images = [{"bytes": picture(n), "path": None} for n in range(8)]
    table = pa.table({"image": pa.array(images, IMAGE), "text": [f"Word {n} of the list." for n in range(8)]})
    pq.write_table(table, path, row_group_size=4, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(2).data_page_offset
    data[start + 8 : start + 60] = bytes(52)
    path.write_bytes(data)
    source = WebSight()
    with pytest.raises(BadFileError, match="row group 1 is damaged"):
        Read(source, "web", (RowRange("rows.parquet", 0, 8),)).run({"input-0": path}, make_folder(tmp_path, "error"))
    step = Read(source, "web", (RowRange("rows.parquet", 0, 8),), on_bad_file="skip")
    counts = step.run({"input-0": path}, make_folder(tmp_path, "skip"))
    assert counts["rows"].to_json() == {"in": 8, "kept": 4, "dropped": {}, "failed": {"bad_file": 4}}
    lost = pq.read_table(tmp_path / "skip" / "refused.parquet").to_pylist()
    assert [row["row"] for row in lost] == [4, 5, 6, 7]
    assert all(row["detail"].startswith("row group 1 is damaged") for row in lost)


def make_folder(parent, name):
    folder = parent / name
    folder.mkdir()
    return folder


def test_what_is_wrong_with_a_file_names_no_place_of_this_machine(recipe, tmp_path):
    folder = make_folder(tmp_path, "survey")
    source = WebSight()
    path = tmp_path / "no.parquet"
    path.write_bytes(b"nothing")
    Survey(source, 10, 1000, ("no.parquet",), "skip").run({"input-0": path}, folder)
    assert str(tmp_path) not in json.loads((folder / "bad_files.json").read_text())[0]["fault"]


def test_a_disk_or_network_that_fails_is_no_bad_file():
    class NetworkError(OSError):
        pass

    assert _choose_error(pa.ArrowInvalid("Corrupt snappy data")) is BadFileError
    assert _choose_error(OSError("Corrupt snappy compressed data")) is BadFileError
    assert _choose_error(OSError(5, "Input/output error")) is SourceError
    assert _choose_error(NetworkError("503")) is SourceError


def test_a_missing_column_is_offered_the_option_that_names_it(tmp_path, capsys):
    table = pa.table({"URL": ["http://img.example.test/0.png"], "TEXT": ["Reeds by the river."]})
    pq.write_table(table, tmp_path / "laion.parquet")
    (tmp_path / "front.csv").write_text("front,asked,said\na.png,What?,A reed.\n")
    (tmp_path / "front.jsonl").write_text('{"asked": "What?", "said": "A reed."}\n')
    options = {"image": ["front", "back"], "question": "asked", "answer": "said"}
    misspelt = {"question": "askt", "answer": "said"}
    sources = {
        "pairs": {"kind": "pairs", "files": "laion.parquet"},
        "cards": {"kind": "table", "files": "front.csv", "options": options},
        "talk": {"kind": "table", "files": "front.jsonl", "options": misspelt},
        "shots": {"kind": "websight", "files": "laion.parquet"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "cut", "sources": sources, "dedupe": None}))
    assert vlmill("check", path) == 1
    said = capsys.readouterr().err
    assert "column 'url' is missing; did you mean 'URL'? it has URL, TEXT; if it is called otherwise: --set sou" in said
    assert "no row has 'askt'; did you mean 'asked'? the first has asked, said; if it is called otherwise: --se" in said
    assert "--set sources.talk.options.question=COLUMN" in said
    assert "column 'back' is missing; it has front, asked, said; if it is called otherwise: --set sources.cards" in said
    assert said.count("called otherwise") == 3, "no option of a screenshot's names its columns"
    named = [f"--set=sources.pairs.options.{key}={column}" for key, column in (("url", "URL"), ("caption", "TEXT"))]
    assert vlmill("check", path, *named) == 1
    assert "sources.pairs" not in capsys.readouterr().err


def test_bad_files_that_are_skipped_may_come_first(recipe, tmp_path, capsys):
    skips = ("--set", "sources.talk.on_bad_file=skip", "--set", "sources.pairs.on_bad_file=skip")
    (tmp_path / "js/0.json").write_text("no JSON")
    (tmp_path / "tars/0.tar").write_bytes((tmp_path / "tars/1.tar").read_bytes())
    tar(tmp_path / "tars/2.tar", {"a.png": picture(3), "a.txt": b"Reeds by the river."})
    for command in (("check", recipe), ("preview", recipe), ("build", recipe, "--out", tmp_path / "run")):
        assert vlmill(*command, *skips) == 0, command
    capsys.readouterr()
    assert vlmill("check", recipe, *skips, "--json") == 0
    pairs, talk = json.loads(capsys.readouterr().out)["sources"]
    assert talk["rests_on"] == f"{ROWS} rows of js/2.json, one of 4 files"
    assert (pairs["rests_on"], pairs["rows"]) == ("1 row of tars/2.tar, one of 3 files", 1)  # by bytes
    (tmp_path / "tars/2.tar").unlink()
    for command in (("check", recipe), ("preview", recipe), ("build", recipe, "--out", tmp_path / "other")):
        assert vlmill(*command, *skips) == 1, command
        assert "tars/0.tar" in capsys.readouterr().err
