"""Coordinates that nobody has described: recognised with what they count and are of, or said to be in doubt."""

from __future__ import annotations

import random
import re

import pytest
import yaml
from PIL import Image
from tokenizers import AddedToken, Tokenizer

import vlmill
from tests.helpers.small import vlmill as run_command
from tests.helpers.stages import write_tokenizer
from tests.helpers.upstream import encoded, json_lines
from tests.pipeline.test_boxes import WRITTEN
from vlmill.pipeline.boxes import FORMS, SourceBoxes
from vlmill.pipeline.boxes.notations import find_notations
from vlmill.pipeline.boxes.recognition import SeenText, recognise_boxes
from vlmill.pipeline.boxes.regions import find_spans
from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.pipeline.chat.settings import find_format
from vlmill.pipeline.checks.lacking_tokens import list_marks
from vlmill.pipeline.reports.funnel import read_funnel

LONG = ((640, 480), (480, 640), (800, 500))
LARGE = ((2000, 1500), (1500, 2200))
SQUARE = ((300, 300),)


def whole(left, right):
    return lambda values: left + ", ".join(str(int(value)) for value in values) + right


def decimal(values):
    return f"A dog at [{', '.join(f'{value:.3f}' for value in values)}]."


def pairs(values):
    return [[int(x), int(y)] for x, y in zip(values[::2], values[1::2], strict=True)]


BBOX = whole('[{"bbox_2d": [', '], "label": "dog"}]')
BARE = whole("It is [", "].")


def draw_box(size, chance):
    (left, right), (top, bottom) = (sorted(chance.uniform(0, side) for _ in "ab") for side in size)
    return left, top, right, bottom


def order_box(box, order):
    left, top, right, bottom = box
    return {
        "xyxy": box,
        "yxyx": (top, left, bottom, right),
        "xywh": (left, top, right - left, bottom - top),
        "cxcywh": ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top),
        "points": (left, top),
        "polygon": (left, top, right, top, right, bottom, left, bottom),
    }[order]


def make_texts(write, *, order="xyxy", unit=1, frame="image", sizes=LONG, count=24, known=True):
    """Texts with a box each, anywhere in its picture; `unit` parts of a side, or pixels."""
    chance, made = random.Random(5), []
    for number in range(count):
        size = sizes[number % len(sizes)]
        box = draw_box(size, chance)
        of = size
        if frame == "square":
            of = (max(size),) * 2
            box = tuple(place + (of[at % 2] - size[at % 2]) / 2 for at, place in enumerate(box))
        if unit != "pixels":
            box = tuple(unit * place / of[at % 2] for at, place in enumerate(box))
        made.append(SeenText(write(order_box(box, order)), size if known else None))
    return made


TOLD = [
    (decimal, {}, {"form": "llava"}),
    (BARE, {"unit": 1000}, {"form": "internvl"}),
    (BARE, {"unit": "pixels"}, {"form": "internvl", "unit": "pixels"}),
    (BARE, {"unit": "pixels", "sizes": LARGE}, {"form": "internvl", "unit": "pixels"}),
    (BARE, {"unit": 1000, "sizes": LARGE}, {"form": "internvl"}),
    (BARE, {"unit": "pixels", "order": "xywh"}, {"order": "xywh", "unit": "pixels"}),
    (BARE, {"unit": "pixels", "order": "yxyx"}, {"order": "yxyx", "unit": "pixels"}),
    (decimal, {"order": "cxcywh"}, {"order": "cxcywh", "unit": "fraction"}),
    (BBOX, {"unit": "pixels"}, {"form": "qwen2_5_vl"}),
    (BBOX, {"unit": 1000}, {"form": "qwen3_vl"}),
    (whole("<point>", "</point>"), {"unit": 100, "order": "points"}, {"order": "points", "unit": 100}),
    (whole('{"point_2d": [', "]}"), {"unit": 1000, "order": "points"}, {"order": "points", "unit": 1000}),
    (whole("click (", ")"), {"unit": "pixels", "order": "points"}, {"order": "points", "unit": "pixels"}),
    (
        lambda values: f"<quad>{','.join(f'({x},{y})' for x, y in pairs(values))}</quad>",
        {"unit": 1000, "order": "polygon"},
        {"order": "polygon", "unit": 1000},
    ),
    (lambda values: f'{{"polygon": {pairs(values)}}}', {"unit": "pixels", "order": "polygon"}, {"order": "polygon"}),
    (
        lambda values: "X:{:.0f} Y:{:.0f} with Width:{:.0f} Height:{:.0f}".format(*values),
        {"unit": "pixels", "order": "xywh"},
        {"order": "xywh", "unit": "pixels"},
    ),
    (whole("<|det|>[[", "]]<|/det|>"), {"unit": 1000}, {"order": "xyxy", "unit": 1000}),
]


@pytest.mark.parametrize(("write", "made", "told"), TOLD)
def test_what_numbers_tell_is_decided_and_its_block_finds_them_again(write, made, told):
    texts = make_texts(write, **made)
    (seen,) = recognise_boxes(texts)
    assert told.items() <= dict(seen.settings).items()
    assert (seen.doubts, seen.regions, seen.settings.get("frame")) == ((), 24, None)
    source = SourceBoxes(**seen.settings)
    assert all(len(spans) == 1 for spans in find_spans([one.text for one in texts], source.notation.pattern))


@pytest.mark.parametrize(
    ("write", "made", "doubt"),
    [
        (decimal, {"frame": "square"}, "frame is square, or it is image by chance"),
        (decimal, {"sizes": SQUARE}, "whether the frame is image or square"),
        (decimal, {"frame": "square", "count": 3}, "whether the frame is image or square"),
        (BARE, {"unit": 1000, "known": False}, "sizes of pictures are not known"),
        (BARE, {"unit": "pixels", "count": 1}, "may as well be"),
        (whole('{"box_2d": [', "]}"), {"unit": 1000, "order": "yxyx"}, "whether y stands before x"),
    ],
)
def test_what_numbers_leave_open_is_a_doubt(write, made, doubt):
    (seen,) = recognise_boxes(make_texts(write, **made))
    assert doubt in "; ".join(seen.doubts)


@pytest.mark.parametrize("write", [decimal, lambda values: f"x={values[0]:.3f}, y={values[1]:.3f}"])
@pytest.mark.parametrize(
    ("strays", "unit", "regions", "said", "doubted"),
    [
        (1, "fraction", 24, "1 others of these are no fractions", False),
        (8, "fraction", 24, "8 others of these are no fractions", True),
        (30, "pixels", 30, "24 others of these are fractions", True),
    ],
)
def test_fractions_are_not_read_as_pixels_because_of_others_among_them(write, strays, unit, regions, said, doubted):
    other = BARE if write is decimal else lambda values: f"x={int(values[0])}, y={int(values[1])}"
    mixed = [*make_texts(write), *make_texts(other, unit="pixels", sizes=LARGE, count=strays)]
    (found,) = recognise_boxes(mixed)
    form = FORMS.get(found.settings.get("form", ""))
    assert found.settings.get("unit", form and form.unit) == unit
    assert found.regions == regions
    assert any(said in one for one in found.doubts) is doubted
    assert (said in found.why) is not doubted


def test_points_of_pixels_in_a_corner_are_no_fractions():
    texts = [SeenText(f"x={40 * number}.5, y={30 * number}.5", (1000, 800)) for number in range(24)]
    (found,) = recognise_boxes([SeenText("x=0.5, y=0.5", (1000, 800)), *texts])
    assert (found.settings["unit"], found.regions, found.doubts) == ("pixels", 25, ())


def test_one_region_where_a_square_has_padding_is_of_no_square():
    texts = make_texts(decimal, frame="square", count=40)
    edge = SeenText(decimal((0.2, 0.02, 0.9, 0.99)), LONG[0])
    (seen,) = recognise_boxes([*texts, edge])
    assert (dict(seen.settings), seen.doubts) == ({"form": "llava"}, ())


def test_numbers_of_resized_pictures_are_of_no_frame():
    texts = [SeenText(one.text, (640, 480)) for one in make_texts(BBOX, unit="pixels", sizes=((1280, 960),))]
    (seen,) = recognise_boxes(texts)
    assert "no order and unit" in str(seen)
    assert seen.doubts


@pytest.mark.parametrize(
    "text",
    [
        "sort [3, 1, 2, 4]",
        "f(1, 2) = 3",
        "(1999, 2020)",
        "as in [12, 13]",
        '"scores": [0.1, 0.9]',
        "1, 2, 3",
        "[]",
        "[1, 2",
    ],
)
def test_numbers_that_are_no_places_are_none(text):
    assert recognise_boxes([SeenText(f"{text} {number}", (640, 480)) for number in range(20)]) == []


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_recognised(form):
    text, regions = WRITTEN[form]
    found = [(notation, said) for notation, said in find_notations(text) if "[1, 2, 3, 4]" not in said]
    assert len(found) == len(regions)
    for notation, _ in found:
        spans = find_spans([text], notation.pattern)[0]
        assert spans
        if notation.form in {"paligemma", "florence2", "kosmos2", "molmo", "paligemma_points", "florence2_polygon"}:
            assert notation.form == form


def write_pointing(folder, unit):
    """A LLaVA-like file whose answers have boxes, and its pictures."""
    chance, rows = random.Random(2), []
    (folder / "pictures").mkdir(parents=True)
    for number in range(24):
        size = LONG[number % 3]
        (folder / "pictures" / f"{number}.jpg").write_bytes(encoded(Image.new("RGB", size, (number, 90, 9)), "JPEG"))
        box = draw_box(size, chance)
        box = box if unit == "pixels" else tuple(1000 * place / size[at % 2] for at, place in enumerate(box))
        turns = [("human", f"<image>\nWhere is dog {number}?"), ("gpt", BBOX(box))]
        turns = [{"from": who, "value": said} for who, said in turns]
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    json_lines(folder / "dogs.jsonl", rows)


@pytest.mark.parametrize(("unit", "form"), [("pixels", "qwen2_5_vl"), (1000, "qwen3_vl")])
def test_new_writes_boxes_that_are_certain_and_what_is_built_moves_them(unit, form, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_pointing(tmp_path / "data", unit)
    assert run_command("new", "data", "--out", "mine.yaml") == 0
    assert "20 regions in 20 of 40 texts look like coordinates" in re.sub(r"\s+", " ", capfd.readouterr().out)
    recipe = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert recipe["sources"]["data"]["boxes"] == {"form": form}
    assert run_command("build", "mine.yaml", "--out", "run", "--workers", "0") == 0
    assert read_funnel(tmp_path / "run")["data"]["boxes"]["kept"] >= 20


def test_new_leaves_boxes_out_that_are_in_doubt_and_says_why(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"url": f"http://img.test/{n}.jpg", "caption": one.text} for n, one in enumerate(make_texts(BBOX, unit=1000))
    ]
    json_lines(tmp_path / "dogs.jsonl", rows)
    assert run_command("new", "dogs.jsonl", "--out", "mine.yaml") == 0
    written = (tmp_path / "mine.yaml").read_text()
    assert "boxes" not in yaml.safe_load(written)["sources"]["dogs"]
    assert "# boxes: {form: qwen3_vl}" in written
    assert "sizes of pictures are not known" in written
    assert "Until sources.dogs has `boxes`" in re.sub(r"\s+", " ", capfd.readouterr().out)


def test_check_warns_of_boxes_without_a_block_and_of_tokens_that_a_tokenizer_lacks(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_pointing(tmp_path / "data", "pixels")
    assert run_command("new", "data", "--out", "mine.yaml") == 0
    recipe = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    block = recipe["sources"]["data"].pop("boxes")
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(recipe))
    (warning,) = vlmill.check_recipe(tmp_path / "bare.yaml").warnings
    assert "look like coordinates" in warning
    assert "boxes: {form: qwen2_5_vl}" in warning
    recipe["sources"]["data"]["boxes"] = block
    (tmp_path / "told.yaml").write_text(yaml.safe_dump(recipe))
    assert vlmill.check_recipe(tmp_path / "told.yaml").warnings == ()
    (tmp_path / "loc.yaml").write_text(yaml.safe_dump(recipe | {"boxes": {"form": "paligemma"}}))
    capfd.readouterr()
    assert run_command("check", "loc.yaml") == 0
    assert "tokens such as <loc0000>, <loc1023>" in re.sub(r"\s+", " ", capfd.readouterr().out)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("form", ["paligemma", "florence2", "kosmos2", "qwen2_vl"])
def test_location_tokens_stay_single_where_a_tokenizer_has_them(special, form, tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json")
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    chat, text = find_format("vlmill"), WRITTEN[form][1][0]
    marks = re.findall(r"<[^>]+>", text)
    assert len(load_tokenizer(tmp_path / "tokenizer.json", chat).encode(text).ids) > 3 * len(marks)
    add = plain.add_special_tokens if special else plain.add_tokens
    add([AddedToken(mark, special=special, normalized=False) for mark in dict.fromkeys(marks)])
    plain.save(str(tmp_path / "tokenizer.json"))
    ready = load_tokenizer(tmp_path / "tokenizer.json", chat)
    assert [mark for mark in ready.encode(text).tokens if mark in marks] == marks
    assert ready.token_to_id(marks[0]) == plain.token_to_id(marks[0])
    assert len(ready.encode("<|end|>").ids) > 1  # a mark of the chat is letters as ever


def test_marks_of_a_form_are_its_first_and_last_ones():
    assert list_marks(FORMS["paligemma"]) == ["<loc0000>", "<loc1023>"]
    assert list_marks(FORMS["kosmos2"]) == ["<patch_index_0000>", "<patch_index_1023>"]
    assert list_marks(FORMS["qwen2_vl"]) == ["<|box_start|>", "<|box_end|>"]
    assert list_marks(FORMS["llava"]) == []
