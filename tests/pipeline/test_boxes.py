"""Coordinates in texts: found, read into pixels of the image, and written as a policy shows it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from transformers.models.kosmos2.processing_kosmos2 import coordinate_to_patch_index, patch_index_to_coordinate

from vlmill.pipeline.boxes import FORMS, ModelBoxes, Region, SourceBoxes
from vlmill.pipeline.boxes.forms import UnreadableRegionError, order_numbers, read_cells, read_corners, write_cells
from vlmill.pipeline.boxes.geometry import clip_corners, turn_point
from vlmill.pipeline.boxes.reading import OutsideFrameError, StoredImage, read_region
from vlmill.pipeline.boxes.regions import MOST_REGIONS, find_spans
from vlmill.pipeline.boxes.writing import BoxWriter
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import POLICIES
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.decode import decode_image, open_image, read_orientation
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.native import Native
from vlmill.pipeline.images.resize import Resize
from vlmill.pipeline.shards.writer import restore_texts

WRITTEN = {
    "llava": ("the [0.12, 0.5, 0.77, 1.0] one [1, 2, 3, 4]", ["[0.12, 0.5, 0.77, 1.0]"]),
    "qwen_vl": ("<ref>it</ref><box>(1,2),(30,40)</box>", ["<box>(1,2),(30,40)</box>"]),
    "qwen2_vl": (
        "<|object_ref_start|>it<|object_ref_end|><|box_start|>(1,2),(30,40)<|box_end|>",
        ["<|box_start|>(1,2),(30,40)<|box_end|>"],
    ),
    "qwen2_5_vl": ('[{"bbox_2d": [10, 20, 300, 400], "label": "2 cats"}]', ["[10, 20, 300, 400]"]),
    "qwen3_vl": ('[{"bbox_2d": [10, 20, 300, 400], "label": "é"}]', ["[10, 20, 300, 400]"]),
    "internvl": ("<box>[[1, 2, 30, 40], [5, 6, 70, 80]]</box>", ["[1, 2, 30, 40]", "[5, 6, 70, 80]"]),
    "paligemma": ("é <loc0001><loc0002><loc0300><loc0400> cat", ["<loc0001><loc0002><loc0300><loc0400>"]),
    "florence2": ("car<loc_1><loc_2><loc_300><loc_999>", ["<loc_1><loc_2><loc_300><loc_999>"]),
    "paligemma_points": ("<loc0001><loc0002> cat", ["<loc0001><loc0002>"]),
    "florence2_polygon": (
        "sign<loc_1><loc_2><loc_300><loc_2><loc_300><loc_40><loc_1><loc_40>",
        ["<loc_1><loc_2><loc_300><loc_2><loc_300><loc_40><loc_1><loc_40>"],
    ),
    "kosmos2": ("<object><patch_index_0044><patch_index_0863></object>", ["<patch_index_0044><patch_index_0863>"]),
    "molmo": (
        '<points x1="10.5" y1="20.0" x2="3.1" y2="4.0" alt="2 cats">2 cats</points>',
        ['x1="10.5" y1="20.0" x2="3.1" y2="4.0"'],
    ),
}
LRV = r"(?P<region>X:\s*\d+,?\s*Y:\s*\d+\D{1,20}Width:\s*\d+,?\s*Height:\s*\d+)"


def write(source, model, policy, text, size):
    """A text as a policy shows its image of `size`; None where a region is cut away."""
    (layout,) = policy.layout([size])
    writer, found = BoxWriter(source, model, policy), []
    for first, last in find_spans([text], source.notation.pattern)[0]:
        corners = read_region(text[first:last], source, StoredImage(size))
        region = Region(0, first, last, 1, corners)
        placed = writer.place(region, layout)
        if placed is None:
            return None
        found.append((region, placed))
    assert found
    made, written = writer.write(text, found, {1: layout})
    node = {"text": made, "boxes": [one.to_json() for one in written]}
    assert restore_texts({"nodes": [node]})["nodes"][0]["text"] == text
    return made


def test_every_form_is_shown():
    assert WRITTEN.keys() == FORMS.keys()


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_found_and_an_image_shown_as_it_is_leaves_its_text_alone(form):
    text, regions = WRITTEN[form]
    source = SourceBoxes(form=form)
    assert [text[first:last] for first, last in find_spans([text], source.notation.pattern)[0]] == regions
    for policy, size in ((Resize(side=400), (400, 400)), (Native(), (1064, 812))):
        assert write(source, ModelBoxes(), policy, text, size) == text


def test_a_letterbox_moves_fractions_of_the_image_and_leaves_those_of_the_square():
    text = "[0.00, 0.00, 1.00, 1.00] and [0.25, 0.50, 0.50, 1.00]"
    moved = "[0.00, 0.25, 1.00, 0.75] and [0.25, 0.50, 0.50, 0.75]"
    box = Letterbox(side=336)
    assert write(SourceBoxes(form="llava"), ModelBoxes(), box, text, (640, 320)) == moved
    square = SourceBoxes(form="llava", frame="square")
    assert write(square, ModelBoxes(), box, moved, (640, 320)) == moved
    assert write(square, ModelBoxes(frame="image"), box, moved, (640, 320)) == text
    assert write(SourceBoxes(form="llava"), ModelBoxes(frame="square"), Resize(), text, (640, 320)) == moved
    tall = "[0.25, 0.00, 0.75, 1.00]"
    assert write(SourceBoxes(form="llava"), ModelBoxes(), box, "[0.00, 0.00, 1.00, 1.00]", (320, 640)) == tall


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("llava", "[0.100, 0.250, 0.600, 0.750]"),
        ("qwen_vl", "<box>(100,250),(600,750)</box>"),
        ("qwen2_5_vl", "[64, 120, 384, 360]"),
        ("qwen3_vl", "[100, 250, 600, 750]"),
        ("paligemma", "<loc0256><loc0102><loc0768><loc0614>"),
        ("florence2", "<loc_100><loc_250><loc_600><loc_750>"),
        ("kosmos2", "<patch_index_0259><patch_index_0755>"),
    ],
)
def test_pixels_are_written_in_the_form_of_the_model(form, written):
    source = SourceBoxes(pattern=LRV, order="xywh", unit="pixels")
    text = "What is at X:64 Y:120 with Width:320 Height:240?"
    policy = Resize(side=640) if form != "qwen2_5_vl" else Native(patch=16, merge=2)
    assert write(source, ModelBoxes(form=form), policy, text, (640, 480)) == f"What is at {written}?"


def test_numbers_alone_change_where_the_model_has_no_form():
    source = SourceBoxes(pattern=LRV, order="xywh", unit="pixels")
    text = "at X:64 Y:120 with Width:320 Height:240"
    assert write(source, ModelBoxes(), Resize(side=320), text, (640, 480)) == "at X:32 Y:80 with Width:160 Height:160"
    thousand = write(source, ModelBoxes(unit=1000), Resize(), text, (640, 480))
    assert thousand == "at X:100 Y:250 with Width:500 Height:500"
    exact = write(source, ModelBoxes(unit="fraction", decimals=4), Resize(), text, (640, 480))
    assert exact == "at X:0.1000 Y:0.2500 with Width:0.5000 Height:0.5000"


def test_a_crop_cuts_boxes_and_loses_those_beside_it():
    source, policy = SourceBoxes(form="llava"), Crop(side=100)
    assert write(source, ModelBoxes(), policy, "[0.30, 0.10, 0.60, 0.90]", (200, 100)) == "[0.10, 0.10, 0.70, 0.90]"
    assert write(source, ModelBoxes(), policy, "[0.10, 0.10, 0.60, 0.90]", (200, 100)) == "[0.00, 0.10, 0.70, 0.90]"
    assert write(source, ModelBoxes(), policy, "[0.10, 0.10, 0.25, 0.90]", (200, 100)) is None
    points = SourceBoxes(form="molmo")
    shown = '<points x1="30.0" y1="10.0" x2="70.0" y2="50.0" alt="2 cats">2 cats</points>'
    moved = '<points x1="10.0" y1="10.0" x2="90.0" y2="50.0" alt="2 cats">2 cats</points>'
    assert write(points, ModelBoxes(), policy, shown, (200, 100)) == moved
    assert write(points, ModelBoxes(), policy, shown.replace("30.0", "20.0"), (200, 100)) is None


def test_a_polygon_is_cut_at_the_edge():
    source = SourceBoxes(pattern=r"poly (?P<region>\([^a-z]*\))", order="polygon", unit="pixels")
    text = "poly (0,10), (100,10), (100,90)."
    assert write(source, ModelBoxes(), Resize(side=100), text, (100, 100)) == text
    cut = write(source, ModelBoxes(), Crop(side=100), "poly (0,20), (150,20), (150,80).", (200, 100))
    assert cut == "poly (0,40), (0,20), (100,20), (100,80)."
    assert write(source, ModelBoxes(), Crop(side=100), "poly (0,20), (40,20), (40,80).", (200, 100)) is None


@pytest.mark.parametrize(
    ("text", "source", "fault"),
    [
        ("[0.1, 0.2, 1.2, 0.4]", SourceBoxes(form="llava"), OutsideFrameError),
        ("[-0.5, 0.2, 0.2, 0.4]", SourceBoxes(form="llava"), OutsideFrameError),
        ("[0.10, 0.02, 0.60, 0.90]", SourceBoxes(form="llava", frame="square"), OutsideFrameError),
        ("[0.5, 0.2, 0.1, 0.4]", SourceBoxes(form="llava"), UnreadableRegionError),
        ("[10, 20, 700, 40]", SourceBoxes(form="qwen2_5_vl"), OutsideFrameError),
        ("<patch_index_0001><patch_index_1024>", SourceBoxes(form="kosmos2"), UnreadableRegionError),
        ("1 2 3", SourceBoxes(pattern="(?P<region>.+)", order="xyxy", unit=1000), UnreadableRegionError),
        ("1 2 3 4", SourceBoxes(pattern="(?P<region>.+)", order="polygon", unit=1000), UnreadableRegionError),
    ],
)
def test_what_is_no_region_of_the_image_is_refused(text, source, fault):
    with pytest.raises(fault):
        read_region(text, source, StoredImage((640, 320)))


def test_a_rounding_beyond_an_edge_is_taken_to_it():
    assert read_region("[0, 0, 640.4, 322]", SourceBoxes(form="qwen2_5_vl"), StoredImage((640, 320))) == (
        (0, 0),
        (640, 320),
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_stored_pixels_turn_with_the_image(orientation):
    stored = Image.new("RGB", (60, 40))
    stored.paste((255, 255, 255), (5, 10, 20, 18))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    assert read_orientation(open_image(file.getvalue())) == orientation
    upright = decode_image(file.getvalue())
    assert upright.size == ImageOps.exif_transpose(Image.open(file)).size
    source = SourceBoxes(pattern="(?P<region>.+)", order="xyxy", unit="pixels", upright=False)
    (left, top), (right, bottom) = read_region("5 10 20 18", source, StoredImage(upright.size, orientation))
    assert (left, top, right, bottom) == upright.getbbox()
    assert turn_point((0, 0), (60, 40), 1) == (0, 0)


CORNERS = st.tuples(*[st.integers(0, 1000)] * 4).map(lambda at: tuple(zip(*map(sorted, (at[:2], at[2:])), strict=True)))


@given(CORNERS, st.sampled_from(["xyxy", "yxyx", "xywh", "cxcywh", "points"]))
@settings(deadline=None)
def test_orders_are_read_as_they_are_written(corners, order):
    assert read_corners(order_numbers(corners, order), order) == corners


@given(CORNERS.filter(lambda at: at[0][0] < at[1][0] and at[0][1] < at[1][1]))
@settings(deadline=None)
def test_cells_are_those_of_the_processor_of_kosmos(corners):
    fractions = tuple((x / 1000, y / 1000) for x, y in corners)
    cells = coordinate_to_patch_index(tuple(place for corner in fractions for place in corner), 32)
    assert tuple(write_cells(fractions, 32)) == cells
    assert read_cells(cells, 32) == pytest.approx(patch_index_to_coordinate(*cells, 32))


@given(CORNERS)
@settings(deadline=None)
def test_what_is_clipped_lies_in_the_view(corners):
    box = clip_corners(corners, "box", (700, 400))
    polygon = clip_corners((corners[0], (corners[1][0], corners[0][1]), corners[1]), "polygon", (700, 400))
    for found in (box, polygon):
        assert all(0 <= x <= 700 and 0 <= y <= 400 for x, y in found or ())


def test_a_pattern_takes_linear_time_and_a_text_has_an_end():
    import time

    begun = time.process_time()
    assert find_spans(["a" * 50_000 + "b"], "(?P<region>(?:a+)+c)") == [[]]
    many = find_spans(["[0.1, 0.2, 0.3, 0.4] " * (MOST_REGIONS + 50)], FORMS["llava"].pattern)[0]
    assert len(many) == MOST_REGIONS + 1
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({}, "one of form"),
        ({"form": "llava", "pattern": "(?P<region>a)"}, "one of form"),
        ({"form": "lava"}, "did you mean 'llava'"),
        ({"pattern": "(?P<region>a)"}, "order and unit"),
        ({"pattern": "a", "order": "xyxy", "unit": 10}, "one named group"),
        ({"pattern": "(?P<region>a*)", "order": "xyxy", "unit": 10}, "empty text"),
        ({"pattern": r"(?P<region>a)\1", "order": "xyxy", "unit": 10}, "RE2"),
        ({"form": "llava", "frame": "view"}, "frame"),
    ],
)
def test_settings_that_say_too_little_are_errors(block, said):
    with pytest.raises(RecipeError, match=said):
        parse_block(SourceBoxes, block, "boxes")


def test_forms_that_do_not_fit_are_told():
    assert "points" in ModelBoxes(form="llava").find_misfit(SourceBoxes(form="molmo"))
    assert "tokens" in ModelBoxes(unit="fraction").find_misfit(SourceBoxes(form="paligemma"))
    assert ModelBoxes(form="kosmos2").find_misfit(SourceBoxes(form="paligemma")) is None
    with pytest.raises(RecipeError, match="cannot be written"):
        parse_block(ModelBoxes, {"form": "molmo"}, "boxes")


def test_every_policy_places():
    assert all(hasattr(policy, "place") and hasattr(policy, "view") for policy in POLICIES.values())
