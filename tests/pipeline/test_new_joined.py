"""`vlmill new` on folders that hold rows and the pictures of these rows each."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.helpers.small import vlmill, write_recipe
from tests.helpers.upstream import json_lines, parquet, picture, separated
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.proposal.proposal import examine_place

SCENES = "abc"


def place_pictures(folder, scene, count=3):
    """Pictures that every scene calls by the same names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(picture(10 * SCENES.index(scene) + number))


def describe(scene):
    return [{"file_name": f"{number}.png", "text": f"Scene {scene}, view {number}."} for number in range(3)]


def list_pairs(found):
    """What each row of the list shows, and its text."""
    return [(row["file_name"], row["text"]) for row in found.listed]


DUE = [(f"{scene}/{number}.png", f"Scene {scene}, view {number}.") for scene in SCENES for number in range(3)]


@pytest.mark.parametrize("write", [lambda path, rows: json_lines(path.with_suffix(".jsonl"), rows), separated])
def test_a_text_is_beside_the_picture_of_its_own_folder(tmp_path, write):
    for scene in SCENES:
        place_pictures(tmp_path / "scenes" / scene, scene)
        write(tmp_path / "scenes" / scene / "metadata.csv", describe(scene))
    found = examine_place(str(tmp_path / "scenes"))
    assert list_pairs(found) == DUE
    assert (found.images, found.files, found.samples) == (str(tmp_path / "scenes"), "scenes.jsonl", 9)
    assert "3 files, with the folder before each path" in found.notes[-1]


def test_a_folder_within_each_folder_and_names_within_objects(tmp_path):
    for scene in SCENES:
        place_pictures(tmp_path / scene / "img", scene)
        rows = [{"asset": {"file": row["file_name"]}, "caption": row["text"]} for row in describe(scene)]
        json_lines(tmp_path / scene / "rows.jsonl", [*rows, {"asset": {"file": "gone.png"}, "caption": "Not there."}])
    found = examine_place(str(tmp_path), {"image": ["asset.file"], "caption": ["caption"]})
    shown = [row["asset"]["file"] for row in found.listed]
    assert shown == [f"{scene}/img/{name}.png" for scene in SCENES for name in (0, 1, 2, "gone")]


def test_pictures_of_one_folder_that_rows_of_several_name_stay_where_they_are(tmp_path):
    place_pictures(tmp_path / "a", "a")
    for scene in SCENES:
        (tmp_path / scene).mkdir(exist_ok=True)
        json_lines(tmp_path / scene / "rows.jsonl", describe(scene))
    found = examine_place(str(tmp_path))
    assert (found.listed, found.images) == ((), str(tmp_path / "a"))


def test_rows_that_cannot_be_read_are_counted(tmp_path):
    for scene in SCENES:
        place_pictures(tmp_path / scene, scene)
        json_lines(tmp_path / scene / "rows.jsonl", describe(scene))
    with (tmp_path / "b" / "rows.jsonl").open("a") as file:
        file.write('\n{"file_name": "0.png", "te')
    found = examine_place(str(tmp_path))
    assert list_pairs(found) == DUE
    assert any("1 rows of b/rows.jsonl cannot be read" in note for note in found.notes)


def test_tables_whose_paths_cannot_be_written_anew_are_refused(tmp_path):
    for scene in SCENES:
        place_pictures(tmp_path / scene, scene)
        parquet(tmp_path / scene / "rows.parquet", describe(scene))
    with pytest.raises(SourceError, match=r"as 0.png of b/rows.parquet, .* a source of each folder"):
        examine_place(str(tmp_path))


def test_the_recipe_reads_the_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for scene in SCENES:
        place_pictures(tmp_path / "scenes" / scene, scene)
        json_lines(tmp_path / "scenes" / scene / "rows.jsonl", describe(scene))
    assert vlmill("new", "scenes") == 0
    source = yaml.safe_load((tmp_path / "scenes.yaml").read_text())["sources"]["scenes"]
    assert (source["files"], source["images"]) == ("scenes.jsonl", "scenes")
    listed = [json.loads(line) for line in (tmp_path / "scenes.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in listed] == [name for name, _ in DUE]


def test_check_warns_of_a_recipe_whose_pictures_start_from_one_of_several_folders(tmp_path, capsys):
    path = write_recipe(tmp_path)
    for scene in SCENES:
        place_pictures(tmp_path / "scenes" / scene, scene)
        json_lines(tmp_path / "scenes" / scene / "rows.jsonl", describe(scene))
    place_pictures(tmp_path / "together", "a")
    asked = {
        "kind": "table",
        "root": "scenes",
        "files": "*/*.jsonl",
        "options": {"image": "file_name", "caption": "text"},
    }
    told = []
    for images in ("scenes/a", "together"):
        text = yaml.safe_dump({"sources": {"quiz": {**asked, "images": images}}, "name": "a", "stages": []})
        path.write_text(text)
        vlmill("check", path, "--json")
        told.append(str(json.loads(capsys.readouterr().out)))
    assert "scenes/a: its texts have pictures of another folder" in told[0].replace(f"{tmp_path}/", "")
    assert "b/rows.jsonl names 0.png" in told[0] or "c/rows.jsonl names 0.png" in told[0]
    assert "vlmill new FOLDER" in told[1], "pictures of no scene are those of another folder, too"
    (tmp_path / "scenes" / "b" / "rows.jsonl").unlink()
    (tmp_path / "scenes" / "c" / "rows.jsonl").unlink()
    path.write_text(yaml.safe_dump({"sources": {"quiz": {**asked, "images": "scenes/a"}}, "name": "a", "stages": []}))
    vlmill("check", path, "--json")
    assert "vlmill new FOLDER" not in capsys.readouterr().out
