"""`vlmill new`: what data are, and a recipe for them that builds."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import zipfile

import pytest
from PIL import Image

import vlmill as api
from tests.helpers.shapes import SHAPES
from tests.helpers.small import vlmill
from tests.helpers.upstream import arrow, json_array, json_lines, parquet, pdf, picture, separated, talk, tar
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.inputs.files import list_input_files
from vlmill.pipeline.proposal import columns
from vlmill.pipeline.proposal.columns import Cells
from vlmill.pipeline.proposal.nested_columns import list_dotted
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.proposal.table import explain_nothing, list_samples
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.file_names import fill_template

ROWS = range(30)


def write_photos(folder, suffix="png"):
    for row in ROWS:
        (folder / f"{row}.{suffix}").write_bytes(picture(row, (64, 48)))


def table(folder):
    (folder / "photos").mkdir()
    write_photos(folder / "photos")
    rows = [{"Photo": f"photos/{row}.png", "Question": f"What is {row}?", "Answer": f"It is {row}."} for row in ROWS]
    return separated(folder / "quiz.csv", rows)


def pictures(folder):
    there = folder / "photos"
    there.mkdir()
    write_photos(there)
    for row in ROWS:
        (there / f"{row}.txt").write_text(f"A picture of shapes, the {row}th.\n")
    (there / "more.png").write_bytes(picture(99))
    return there


def llava(folder):
    (folder / "coco").mkdir()
    write_photos(folder / "coco")
    rows = [{"image": f"{row}.png", "conversations": talk(f"<image>\nWhat is {row}?", f"It is {row}.")} for row in ROWS]
    return json_array(folder / "talk.json", rows)


def messages(folder):
    rows = [{"messages": talk(f"What is {row}?", f"It is {row}.", keys=("role", "content"))} for row in ROWS]
    return json_lines(folder / "talk.jsonl", rows)


def saved(folder):
    rows = [{"pixels": {"bytes": picture(row, (64, 48)), "path": None}, "text": f"Shape {row}."} for row in ROWS]
    return arrow(folder / "data-00000-of-00001.arrow", rows)


def cauldron(folder):
    shape = SHAPES["cauldron"]
    return shape.write(folder / "train-00000.parquet", [shape.row(row) for row in ROWS])


def finevision(folder):
    shape = SHAPES["finevision"]
    return shape.write(folder / "train-00000.parquet", [shape.row(row) for row in ROWS])


def webdataset(folder):
    members = [(f"{row:03d}.{suffix}", data) for row in ROWS for suffix, data in SHAPES["pairs_wds"].row(row).items()]
    return tar(folder / "00000.tar", members)


def interleaved(folder):
    rows = [
        {
            "images": [{"bytes": picture(row), "path": None}],
            "messages": talk("<image>What?", "A.", keys=("role", "content")),
        }
        for row in ROWS
    ]
    return parquet(folder / "a.parquet", rows)


def addresses(folder):
    rows = [
        {"url": f"http://img.test/{row}.png", "caption": f"Shapes, the {row}th.", "similarity": 0.3} for row in ROWS
    ]
    return parquet(folder / "a.parquet", rows)


def web_table(folder):
    rows = [{"link": f"http://img.test/{row}", "question": f"What is {row}?", "answer": "This."} for row in ROWS]
    return json_lines(folder / "a.jsonl", rows)


def lettered(folder):
    rows = [{"q": f"Which {row}?", "A": "this", "B": "that", "correct": "AB"[row % 2]} for row in ROWS]
    return separated(folder / "exam.csv", rows)


def choices(folder):
    rows = [{"question": f"Which {row}?", "choices": ["this", "that"], "answer": row % 2} for row in ROWS]
    return json_lines(folder / "a.jsonl", rows)


DATA = {
    table: ("table", {"image": "Photo", "question": "Question", "answer": "Answer"}),
    pictures: ("table", {"image": "image", "caption": "caption"}),
    llava: ("llava", {}),
    messages: ("chat", {}),
    saved: ("table", {"image": "pixels", "caption": "text"}),
    cauldron: ("cauldron", {}),
    finevision: ("finevision", {}),
    webdataset: ("pairs_wds", {}),
    interleaved: ("interleaved", {"images": "images", "turns": "messages"}),
    addresses: ("pairs", {"url": "url", "caption": "caption"}),
    web_table: ("web_table", {"image": "link", "question": "question", "answer": "answer"}),
    lettered: ("table", {"question": "q", "answer": "correct", "choices": ["A", "B"]}),
    choices: ("table", {"question": "question", "answer": "answer", "choices": "choices"}),
}


@pytest.mark.parametrize("write", DATA, ids=lambda write: write.__name__)
def test_each_form_of_data_is_recognised_and_its_recipe_loads(write, tmp_path, monkeypatch, capfd):
    kind, options = DATA[write]
    place = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert vlmill("new", place, "--out", "mine.yaml") == 0
    assert f"kind    {kind}:" in " ".join(capfd.readouterr().out.split(" ")).replace("kind     ", "kind    ")
    found = examine_place(str(place))
    assert (found.chosen.kind, dict(found.chosen.options)) == (kind, options)
    assert len(found.chosen.pages) == found.chosen.tried == 20
    recipe = api.load_recipe("mine.yaml").recipe
    (source,) = recipe.sources.values()
    assert source.kind == kind
    lines = (tmp_path / "mine.yaml").read_text().splitlines()
    assert sum("#" in line for line in lines) > len(lines) / 2, "most lines have a comment"


@pytest.mark.parametrize("write", [table, pictures, llava, saved], ids=lambda write: write.__name__)
def test_the_recipe_finds_the_pictures_and_builds(write, tmp_path, monkeypatch, capfd):
    folder = tmp_path / "of [1] *"  # letters that patterns have
    folder.mkdir()
    place = write(folder)
    monkeypatch.chdir(folder)
    assert vlmill("new", place, "--out", "mine.yaml") == 0
    assert vlmill("build", "mine.yaml", "--out", "run", "--workers", 0, "--set", "dedupe=null") == 0
    source = next(iter(api.load_recipe("mine.yaml").recipe.sources))
    samples = api.open_run("run").samples(source).collect()
    assert len(samples) == len(ROWS)
    failed = read_funnel(folder / "run")[source]["rows"]["failed"]
    assert failed == ({"empty_row": 1} if write is pictures else {}), "the picture without a text is counted"
    assert "kept of" in capfd.readouterr().out


def semicolons(folder):
    lines = ["image;caption", *(f'{row}.png;"A shape, the {row}th"' for row in ROWS)]
    (folder / "a[1].csv").write_text("\n".join(lines))
    write_photos(folder)
    return folder / "a[1].csv"


def papers(folder):
    there = folder / "papers [2]"
    there.mkdir()
    (there / "0.PDF").write_bytes(pdf([[]]))  # a scan, say
    for number in range(1, 4):
        (there / f"{number}.pdf").write_bytes(pdf([[f"Line {number}"], ["more"]]))
    return there


def documents(folder):
    rows = [SHAPES["web_documents in JSON Lines"].row(row) for row in ROWS]
    return json_lines(folder / "part-00000.jsonl", rows)


def matched(folder):
    return json_lines(folder / "docs_no_face_shard_0_v3.jsonl", [SHAPES["mmc4"].row(row) for row in ROWS])


@pytest.mark.parametrize(
    ("write", "kind", "options", "files"),
    [
        (semicolons, "table", {"image": "image", "caption": "caption"}, 1),
        (papers, "pdf", {}, 4),
        (documents, "web_documents", {"url": "general_metadata.url"}, 1),
        (matched, "mmc4", {}, 1),
    ],
)
def test_odd_names_and_other_forms_are_recognised_and_their_files_found(write, kind, options, files, tmp_path):
    found = examine_place(str(write(tmp_path)))
    assert (found.chosen.kind, dict(found.chosen.options)) == (kind, options)
    assert len(list_input_files("source", found.root, found.files)) == files


def test_pictures_without_a_text_are_listed_for_a_build_to_count_and_texts_without_a_picture_are_named(tmp_path):
    place = pictures(tmp_path)
    (place / "gone.txt").write_text("A picture that was deleted.")
    found = examine_place(str(place))
    assert len(found.listed) == len(ROWS) + 1
    assert {"image": "more.png"} in found.listed
    assert found.notes == (
        "1 of 31 pictures have no .txt, .json or .hocr file that says anything, and give no sample: more.png",
        "1 of .txt, .json and .hocr files are beside no picture: gone.txt",
    )


def test_nothing_is_overwritten(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    place = messages(tmp_path)
    assert vlmill("new", place) == 0
    before = (tmp_path / "talk.yaml").read_bytes()
    assert vlmill("new", place) == 1
    assert "is there already" in capfd.readouterr().err
    assert (tmp_path / "talk.yaml").read_bytes() == before


def test_what_no_kind_reads_is_described_with_the_nearest_kinds(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    place = json_lines(tmp_path / "odd.jsonl", [{"left": 1, "right": "two"}])
    assert vlmill("new", place) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "left (number) right (text)" in said
    assert "llava: " in said
    assert "named by dotted keys" not in said
    assert not (tmp_path / "odd.yaml").exists()
    nested = json_lines(tmp_path / "nested.jsonl", [{"talk": {"turns": [{"by": "agent", "minutes": 3}]}}])
    assert vlmill("new", nested) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "what is within an object is named by dotted keys" in said
    assert "docs/adding.md, A custom source" in said


@pytest.mark.parametrize("there", ["photos", "words", "nothing"])
def test_a_folder_without_data_says_what_is_there_and_what_would_do(there, tmp_path):
    if there == "photos":
        write_photos(tmp_path)
    if there == "words":
        (tmp_path / "a.docx").write_text("words")
    with pytest.raises(SourceError) as caught:
        examine_place(str(tmp_path))
    assert {"photos": "put the caption of a.jpg into a.txt", "words": "1 .docx", "nothing": "no file"}[there] in str(
        caught.value
    )


def test_a_dataset_on_the_hub_is_read_by_range_and_pinned_later(here, tmp_path, monkeypatch):
    shape = SHAPES["cauldron"]
    rows = shape.write(tmp_path / "a.parquet", [shape.row(row) for row in ROWS]).read_bytes()
    here.repository(
        "acme/Quiz-Set", {"data/train-00000.parquet": rows, "data/train-00001.parquet": rows, "README.md": b""}
    )
    monkeypatch.chdir(tmp_path)
    assert vlmill("new", "hf://datasets/acme/Quiz-Set") == 0
    recipe = api.load_recipe("acme_quiz_set.yaml").recipe
    source = recipe.sources["acme_quiz_set"]
    assert (source.kind, source.root, source.files) == (
        "cauldron",
        "hf://datasets/acme/Quiz-Set@main",
        "data/*.parquet",
    )


def test_a_missing_place_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SourceError, match="no such file or folder"):
        examine_place(str(tmp_path / "gone"))


def test_json_says_the_same_for_machines(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert vlmill("new", table(tmp_path), "--json") == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["kind"], said["samples_of_rows"], said["recipe"]) == ("table", [20, 20], "quiz.yaml")


def test_several_paths_are_sources_of_one_recipe_each_under_a_name_of_its_own(tmp_path, monkeypatch, capfd):
    for write, folder in ((llava, "a"), (messages, "b"), (pictures, "c")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    assert vlmill("new", "a/talk.json", "b/talk.jsonl", "c/photos") == 0
    assert "source talk_2: b/talk.jsonl" in capfd.readouterr().out
    recipe = api.load_recipe("talk_talk_2_photos.yaml").recipe
    kinds = {name: source.kind for name, source in recipe.sources.items()}
    assert kinds == {"talk": "llava", "talk_2": "chat", "photos": "table"}
    text = (tmp_path / "talk_talk_2_photos.yaml").read_text()
    assert text.startswith("# Written by `vlmill new a/talk.json b/talk.jsonl c/photos`. ")
    assert "      repeat: {talk: 1, talk_2: 1, photos: 1}" in text
    assert "epochs: 16 " in text
    assert "of about 90 samples" in text
    (tmp_path / "shares.yaml").write_text(re.sub(r"( +)repeat: .*\n +# (shares: .*)", r"\1\2", text))
    assert [vlmill("check", name) for name in ("talk_talk_2_photos.yaml", "shares.yaml")] == [0, 0]
    assert vlmill("new", "a/talk.json", "b/talk.jsonl", "--column", "turns=messages", "--out", "other.yaml") == 1
    assert "--column is for one path" in capfd.readouterr().err


def test_cells_are_described_by_what_they_hold():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    rows = [
        {"a": buffer.getvalue(), "b": "x.jpg", "c": "https://a.test/1", "d": ["x.jpg", "y.png"], "e": None, "f": 0},
        {"a": {"bytes": b"", "path": "x"}, "b": "y.PNG", "c": "words", "d": [], "e": "", "f": 1.5},
        {"g": True},
    ]
    cells = Cells(rows)
    assert [cells.describe(name) for name in cells.columns] == [
        "picture",
        "path of a picture",
        "address or text",
        "list of paths of pictures",
        "nothing",
        "number",
        "true or false",
    ]


def test_ids_are_no_captions_and_a_conversation_with_odd_rows_is_one(tmp_path):
    rows = [
        {
            "id": f"chart_{row}",
            "image": f"a/{row}.png",
            "title": "A chart.",
            "conversations": talk("<image>What?" if row % 3 else "<image><image>What?", "A"),
        }
        for row in ROWS
    ]
    found = examine_place(str(json_array(tmp_path / "talk.json", rows)))
    assert (found.chosen.kind, len(found.chosen.pages)) == ("llava", 13), "a third of the rows have two marks"
    assert "row 0: 2 times <image> for 1 images, and 6 more rows" in " ".join(found.notes)
    lone = [{"image_id": f"x{row}", "image": f"a/{row}.png", "sha256": f"{row}f"} for row in ROWS]
    assert examine_place(str(json_array(tmp_path / "lone.json", lone))).chosen is None


@pytest.mark.parametrize("start", ["", "images/2024/"])
def test_pictures_in_a_zip_file_are_found_and_built_by_a_recipe_that_may_be_moved(start, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for row in ROWS:
            archive.writestr(f"{start}p/{row}.png", picture(row, (64, 48)))
    (tmp_path / "broken.zip").write_bytes(b"PK")
    separated(tmp_path / "quiz.csv", [{"photo": f"p/{row}.png", "question": "What?", "answer": row} for row in ROWS])
    monkeypatch.chdir(tmp_path)
    assert vlmill("new", "quiz.csv", "--out", "mine.yaml") == 0
    assert api.load_recipe("mine.yaml").recipe.sources["quiz"].images == f"zip://{start.rstrip('/')}::all.zip"
    monkeypatch.chdir("/")
    assert vlmill("check", tmp_path / "mine.yaml") == 0
    arguments = ("--out", tmp_path / "run", "--workers", 0, "--set", "dedupe=null", "--set", "stages=[]")
    assert vlmill("build", tmp_path / "mine.yaml", *arguments) == 0
    assert len(api.open_run(tmp_path / "run").samples("quiz").collect()) == len(ROWS)


def test_what_is_not_trained_on_is_said_of_preferences_and_histories(tmp_path):
    rows = [{"prompt": "What?", "chosen": "This.", "rejected": "That.", "history": [["a", "b"]]} for _ in ROWS]
    said = explain_nothing(examine_place(str(json_lines(tmp_path / "dpo.jsonl", rows))))
    assert "preferences, histories" in said
    assert "make a file without: chosen, rejected, history" in said
    other = [{"a": [1], "b": {"c": 2}} for _ in ROWS]
    assert "preferences" not in explain_nothing(examine_place(str(json_lines(tmp_path / "other.jsonl", other))))


@pytest.mark.parametrize(
    "write",
    [
        lambda folder, rows: json_lines(folder / "a.jsonl", rows),
        lambda folder, rows: json_array(folder / "a.json", rows),
        lambda folder, rows: separated(folder / "a.csv", rows),
        lambda folder, rows: parquet(folder / "a.parquet", rows),
    ],
)
@pytest.mark.parametrize("last", ["validation", "train"])
def test_a_column_of_splits_is_looked_at_all_over_a_file(tmp_path, write, last):
    rows = [{"instruction": "Q", "output": "A", "split": "train" if row < 7900 else last} for row in range(8000)]
    notes = " ".join(examine_place(str(write(tmp_path, rows))).notes)
    assert ("column split says of rows that they are of train, validation" in notes) == (last == "validation")


TALK = talk("<image>\nWhat?", "This.")
BY_ID = {
    "questions": lambda row: {"image_id": f"a{row}", "id": row, "question": "What?", "answer": "This."},
    "numbers": lambda row: {"answer": row, "question": "How many?", "imageId": row},
    "captions": lambda row: {"image": f"a{row}", "caption": f"Shape {row}."},
    "turns": lambda row: {"id": f"a{row}", "conversations": TALK},
    "llava": lambda row: {"id": str(row), "image": f"a{row}", "conversations": TALK},
}


@pytest.mark.parametrize("form", BY_ID)
@pytest.mark.parametrize("end", ["jpg", "PNG"])
def test_ids_of_images_are_completed_by_what_their_files_end_with(tmp_path, form, end):
    (folder := tmp_path / "photos" / "2017").mkdir(parents=True)
    names = [f"{'' if form == 'numbers' else 'a'}{row}" for row in ROWS]
    for name in names:
        (folder / f"{name}.{end}").write_bytes(b"")
    rows = json_lines(tmp_path / "rows.jsonl", map(BY_ID[form], ROWS))
    for place in (tmp_path, rows):
        found = examine_place(str(place))
        assert (found.chosen.kind, found.chosen.options["file"], found.images) == (
            "table",
            f"{{image}}.{end}",
            str(folder),
        )
        assert found.chosen.paths == [f"{name}.{end}" for name in names[:20]]
        assert not any("image}" in note or "not read" in note for note in found.notes)


BY_NUMBER = ["{image}.png", "COCO_val2014_{image:012}.png", "frame-{image}.png", "1_{image:03}.png"]


@pytest.mark.parametrize("file", BY_NUMBER)
def test_a_recipe_of_images_by_ids_builds(tmp_path, file):
    (tmp_path / "photos").mkdir()
    write_photos(tmp_path / "photos")
    for row in ROWS:
        name = fill_template(file, {"image": row + 95})
        (tmp_path / f"photos/{row}.png").rename(tmp_path / f"photos/{name}")
    rows = [{"image_id": row + 95, "question": "What?", "answer": f"Shape {row}."} for row in ROWS]
    separated(tmp_path / "quiz.csv", rows)
    assert examine_place(str(tmp_path / "quiz.csv")).chosen.options["file"] == file
    assert vlmill("new", tmp_path / "quiz.csv", "--out", tmp_path / "mine.yaml") == 0
    arguments = ("--out", tmp_path / "run", "--workers", 0, "--set", "dedupe=null", "--set", "stages=[]")
    assert vlmill("build", tmp_path / "mine.yaml", *arguments) == 0
    assert read_funnel(tmp_path / "run")["quiz"]["images"]["kept"] == len(ROWS)


@pytest.mark.parametrize("start", ["", "file://"])
def test_absolute_paths_are_of_this_machine_or_said_to_be_of_another(tmp_path, start):
    (folder := tmp_path / "photos" / "here").mkdir(parents=True)
    (rows := tmp_path / "rows").mkdir()
    write_photos(folder)

    def examine(path):
        found = [{"image": f"{start}{path}/{row}.png", "caption": f"Shape {row}."} for row in ROWS]
        return examine_place(str(json_lines(rows / "rows.jsonl", found)))

    assert examine(folder).images == str(folder)
    lost = examine("/data/alice")
    assert lost.images is None
    assert f"{start}/data/alice/0.png: its path is absolute and lies outside" in " ".join(lost.notes)


def test_ids_are_of_images_only_where_most_of_their_files_are_there(tmp_path):
    write_photos(tmp_path)
    rows = [{"image_id": row if row < 5 else f"b{row}", "question": "What?", "answer": row} for row in ROWS]
    place = str(json_lines(tmp_path / "rows.jsonl", rows))
    assert "file" not in examine_place(place).chosen.options
    named = {"image": ["answer"], "question": ["question"], "answer": ["image_id"]}
    assert "file" not in next(iter(columns.name_columns(Cells(rows), named)))[1]
    right = str(json_lines(tmp_path / "right.jsonl", [{"image_id": row, "asked": "A", "said": "B"} for row in ROWS]))
    options = examine_place(right, {"question": ["asked"], "answer": ["said"]}).chosen.options
    assert (options["image"], options["file"]) == ("image_id", "{image}.png")
    options = examine_place(right, {"question": ["asked"], "answer": ["image_id"]}).chosen.options
    assert "image" not in options


def test_a_column_of_splits_and_paths_without_an_end_are_noted(tmp_path):
    rows = [
        {"photo": f"p{row}", "question": "What?", "answer": "A", "part": "test" if row % 5 == 0 else "Train"}
        for row in ROWS
    ]
    place = str(separated(tmp_path / "quiz.csv", rows))
    named = {"image": ["photo"], "question": ["question"], "answer": ["answer"]}
    notes = " ".join(examine_place(place, named).notes)
    assert "column part says of rows that they are of test, train; all are trained on" in notes
    assert "such as '{image}.jpg'" in notes
    write_photos(tmp_path)
    whole = [{"photo": f"{row}.png", "question": "What?", "answer": "A", "part": "train"} for row in ROWS]
    assert examine_place(str(separated(tmp_path / "all.csv", whole)), named).notes == (
        "columns that are not read: part",
    )


WRAPPED = {
    "data": {"instruction": "Q", "output": "A"},
    "train-rows": {"id": "a", "image": "a.png", "conversations": talk("<image>\nWhat?", "This.")},
    "annotations": {"image": "a.png", "type": "vqa", "question": "What?", "answer": "This."},
}


@pytest.mark.parametrize("key", WRAPPED)
def test_rows_within_the_one_row_of_a_file_are_refused_with_what_takes_them_out(tmp_path, key):
    file = tmp_path / "my rows.json"
    file.write_text(json.dumps({"info": {"version": 1}, key: [WRAPPED[key] for _ in ROWS]}))
    path = {"train-rows": '.["train-rows"][]'}.get(key, f".{key}[]")
    with pytest.raises(SourceError) as refused:
        examine_place(str(file))
    said, rows = str(refused.value), tmp_path / "rows.jsonl"
    assert f"the whole file is one row, and what seem to be its rows lie within: 30 in its list {key};" in said
    assert said.endswith(
        f"make a file of them: jq -c {shlex.quote(path)} {shlex.quote(str(file))} > {rows} && vlmill new {rows}"
    )
    if key == "data":
        named = {"question": ["data.instruction"], "answer": ["data.output"]}
        assert examine_place(str(file), named).chosen.options == {
            "question": "data.instruction",
            "answer": "data.output",
        }


def test_rows_of_a_kind_that_reads_the_list_in_them_are_rows(tmp_path):
    shown = [{"image_name": f"{n}.png", "raw_url": f"http://a.org/{n}.png", "matched_text_index": n} for n in (0, 1)]
    page = {"url": "http://a.org", "text_list": ["One.", "Two."], "image_info": shown}
    (tmp_path / "page.json").write_text(json.dumps(page | {"similarity_matrix": [[0.3, 0.1], [0.1, 0.3]]}))
    found = examine_place(str(tmp_path / "page.json"))
    assert (found.chosen.kind, found.notes) == ("mmc4", ())


def test_a_file_that_is_one_row_with_rows_in_it_says_how_they_come_out(tmp_path, monkeypatch):
    looked = list[int]()
    monkeypatch.setattr(columns, "list_dotted", lambda rows: looked.append(len(rows)) or list_dotted(rows))
    keyed = {f"k{number}": {"image": f"{number}.png", "caption": "A shape."} for number in range(300)}
    (tmp_path / "keyed.json").write_text(json.dumps(keyed))
    said = explain_nothing(examine_place(str(tmp_path / "keyed.json")))
    taken = "jq -c 'to_entries[] | {key} + .value'"
    assert f"300 at keys of their own; to read these, make a file of them: {taken} {tmp_path}/keyed.json" in said
    assert "k39" not in said, "keys of rows are no columns"
    assert len(looked) < 5, "what lies within is not looked for once for each column"
    (tmp_path / "talk.json").write_text(json.dumps({"conversations": talk("What?", "This.")}))
    assert examine_place(str(tmp_path / "talk.json")).notes == ()


def test_of_many_columns_a_hundred_are_named(tmp_path):
    wide = {f"k{number}": number for number in range(300)}
    said = explain_nothing(examine_place(str(json_lines(tmp_path / "wide.jsonl", [wide] * 20))))
    assert "and 200 more columns\n" in said
    assert "k39 and 260 more keys" in said


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
def test_rows_at_keys_of_their_own_that_name_images_keep_them(tmp_path):
    """As OCR-VQA has them: the key is the name of the image, and each row has lists of questions and answers."""
    asked = {"imageURL": "http://img.test/a.jpg", "questions": ["Who?", "What?"], "answers": ["A.", "B."]}
    (tmp_path / "dataset.json").write_text(json.dumps({f"{number:04}": asked for number in ROWS}))
    for number in ROWS:
        (tmp_path / f"{number:04}.jpg").write_bytes(picture(number, (8, 8)))
    with pytest.raises(SourceError, match="30 at keys of their own") as told:
        examine_place(str(tmp_path))
    command = re.search(r"jq -c .* > \S+", str(told.value))[0]
    subprocess.run(command, shell=True, check=True)
    found = examine_place(str(tmp_path / "rows.jsonl"))
    assert found.chosen.options == {
        "image": "key",
        "file": "{image}.jpg",
        "question": "questions",
        "answer": "answers",
    }, "files that are here go before addresses"
    assert len(found.chosen.pages[0].nodes) == 5
    assert any("imageURL" in note for note in found.notes)


def test_packed_data_are_to_be_unpacked(tmp_path):
    (tmp_path / "rows.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SourceError, match=r"unpack rows\.tar\.gz first, such as with: gunzip -k "):
        examine_place(str(tmp_path / "rows.tar.gz"))


def test_a_table_that_is_not_in_utf_8_says_what_converts_it(tmp_path, monkeypatch, capsys):
    lines = ["Frage;Antwort", *("Wie groß?;Größer" for _ in ROWS)]
    (tmp_path / "excel.csv").write_bytes("\n".join(lines).encode("latin-1"))
    said = explain_nothing(examine_place(str(tmp_path / "excel.csv")))
    assert "row 0: column Frage is not in UTF-8; convert the file from what it is in (WINDOWS-1252, GB18030" in said
    assert "iconv -f ENCODING -t UTF-8 FILE > OTHER" in said
    (tmp_path / "excel.csv").write_bytes("Größe;Antwort\na;b".encode("latin-1"))
    with pytest.raises(SourceError, match="its header is not in UTF-8; convert the file"):
        SOURCES["table"](question="Frage", answer="Antwort").survey(tmp_path / "excel.csv")


def test_a_sample_names_a_role_once_for_a_picture_and_the_text_beside_it(tmp_path):
    rows = [{"image": f"{row}.png", "conversations": talk("<image>\nWhat?", "This.") * 2} for row in ROWS]
    write_photos(tmp_path)
    for row in rows:
        row["conversations"] = [dict(turn) for turn in row["conversations"]]
        row["conversations"][2]["value"] = "And?"
    lines = list(list_samples(examine_place(str(json_lines(tmp_path / "rows.jsonl", rows))).chosen))[:6]
    assert lines == [
        "sample 0",
        "  user: [image] 0.png",
        "        What?",
        "  assistant: This. (supervised)",
        "  user: And?",
        "  assistant: This. (supervised)",
    ]
