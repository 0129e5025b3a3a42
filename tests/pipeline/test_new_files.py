"""`vlmill new` on many files: it looks at rows of several, judges by all of them, and says where they differ."""

from __future__ import annotations

import json

import pytest

from tests.helpers.small import vlmill
from tests.helpers.upstream import json_lines, parquet, picture, separated, talk
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.inputs.files import list_input_files
from vlmill.pipeline.proposal import looked_files
from vlmill.pipeline.proposal.proposal import examine_place


def ask(row, **more):
    return {"messages": talk(f"What is {row}?", f"It is {row}.", keys=("role", "content")), **more}


def test_many_files_of_one_row_are_judged_by_rows_of_many(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    for number in range(60):
        row = ask(number) if number % 15 else {"messages": []}  # the first is bad
        json_lines(tmp_path / f"data/{number:02}.jsonl", [row])
    monkeypatch.chdir(tmp_path)
    assert vlmill("new", "data", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["samples_of_rows"], found["files_looked_at"]) == ("chat", [16, 20], [20, 60])
    (note,) = found["notes"]
    assert note.startswith("4 of 20 rows in 20 of 60 files give no sample; 00.jsonl: row 0: no turns")
    assert "# the row shape; 16 of 20 rows in 20 of 60 files give samples" in (tmp_path / "data.yaml").read_text()


def test_a_first_file_that_is_not_like_the_others_does_not_decide(tmp_path):
    json_lines(tmp_path / "0.jsonl", [{"question": f"What is {row}?", "answer": "It."} for row in range(3)])
    for number in range(1, 4):
        json_lines(tmp_path / f"{number}.jsonl", [ask(row) for row in range(30)])
    found = examine_place(str(tmp_path))
    assert found.chosen.kind == "chat"
    assert (len(found.chosen.pages), found.chosen.tried, found.samples) == (60, 60, 90)
    (note,) = [one for one in found.notes if "0.jsonl" in one]
    assert note.startswith("no pattern of `files` leaves 0.jsonl out, so move it elsewhere: its rows are not")
    assert note.endswith("kind instructions reads them, as a source of their own")


def test_what_columns_are_for_is_told_by_rows_of_all_files_and_columns_that_some_lack_are_said(tmp_path):
    for number in range(3):
        said = "A shape, {}." if number else ""
        rows = [
            {"image": f"{row}.png", "caption_en": said.format(9 * number + row), "caption_zh": f"{row}个红色的图形。"}
            for row in range(8)
        ]
        json_lines(tmp_path / f"{number}.jsonl", [{**one, **({"score": 1} if number == 2 else {})} for one in rows])
    found = examine_place(str(tmp_path))
    assert dict(found.chosen.options) == {"image": "image", "caption": "caption_en"}
    assert "files differ in their columns: score is in 1 of 3" in found.notes
    assert "8 of 24 rows in 3 of 3 files give no sample; 0.jsonl: row 0: no text, and 7 more rows" in found.notes


def test_a_named_column_may_be_in_any_of_the_files_and_one_in_none_is_refused(tmp_path):
    separated(tmp_path / "a.csv", [{"q": f"What is {row}?", "said": "It."} for row in range(4)])
    separated(tmp_path / "b.csv", [{"q": f"What is {row}?", "told": "It."} for row in range(8)])
    found = examine_place(str(tmp_path), {"question": ["q"], "answer": ["told"]})
    assert [file.name for file in list_input_files("a", found.root, found.files)] == ["b.csv"]
    assert any(one.startswith("a.csv is left out: no kind reads it (") for one in found.notes)
    with pytest.raises(SourceError, match="answer=gone: there is no such column in a.csv and 1 other file; the"):
        examine_place(str(tmp_path), {"question": ["q"], "answer": ["gone"]})


def test_images_of_one_file_that_lie_elsewhere_are_said(tmp_path):
    (tmp_path / "photos").mkdir()
    for row in range(8):
        (tmp_path / f"photos/{row}.png").write_bytes(picture(row))
    for name, start in (("a", ""), ("b", ""), ("c", "other/")):
        rows = [{"image": f"{start}{row}.png", "caption": f"A shape, {name} {row}."} for row in range(8)]
        json_lines(tmp_path / f"{name}.jsonl", rows)
    found = examine_place(str(tmp_path))
    assert found.images == str(tmp_path / "photos")
    (note,) = [one for one in found.notes if "c.jsonl" in one]
    assert note.startswith(f"no image file that c.jsonl names, such as other/0.png, is below {tmp_path}/photos, where")


def test_other_files_are_looked_at_as_far_as_they_may_be_read(tmp_path, monkeypatch):
    for number in range(9):
        json_lines(tmp_path / f"{number}.jsonl", [ask(row) for row in range(30)])
    assert examine_place(str(tmp_path)).chosen.files == (5, 9)
    monkeypatch.setattr(looked_files, "READ", 2 * (tmp_path / "3.jsonl").stat().st_size)
    assert examine_place(str(tmp_path)).chosen.files == (3, 9)


def test_copies_of_files_elsewhere_are_bounded(tmp_path, monkeypatch):
    for number in range(9):
        json_lines(tmp_path / f"{number}.jsonl", [ask(row) for row in range(30)])
        parquet(tmp_path / f"{number}.parquet", [ask(row) for row in range(30)])
    there = "memory://new/{}"
    import fsspec

    memory = fsspec.filesystem("memory")
    for end in ("jsonl", "parquet"):
        memory.put(str(tmp_path / f"*.{end}"), f"/new/{end}/")
    size = (tmp_path / "3.jsonl").stat().st_size
    monkeypatch.setattr(looked_files, "COPIED", size)
    assert examine_place(there.format("jsonl")).chosen.files == (2, 9)
    assert examine_place(there.format("parquet")).chosen.files == (1 + looked_files.RANGED, 9)
    memory.rm("/new", recursive=True)


@pytest.mark.parametrize("file", ["rows.jsonl", "train-00000-of-00002.jsonl", "metadata.jsonl", "data.jsonl"])
def test_a_file_whose_name_says_nothing_is_called_as_its_folder(tmp_path, file):
    """So the recipes of two such files are not built in one folder."""
    (folder := tmp_path / "Book covers").mkdir()
    assert examine_place(str(json_lines(folder / file, [ask(row) for row in range(9)]))).name == "book_covers"
    assert examine_place(str(json_lines(folder / "covers.jsonl", [ask(row) for row in range(9)]))).name == "covers"
