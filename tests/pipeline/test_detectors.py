"""Signals that find things in images: text, its language, and faces; what ends them; and a build that goes by them."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import models
from tests.helpers.signals import (
    CHINESE,
    JAPANESE,
    PoisonedFaces,
    PoisonedText,
    draw_faces,
    draw_poison,
    draw_text,
    write_partition,
)
from tests.helpers.small import vlmill
from tests.helpers.upstream import cauldron
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import read_verdicts
from vlmill.pipeline.core.scores import read_scores
from vlmill.pipeline.images.views import WholeView
from vlmill.pipeline.signals.detector import make_detection, measure_covered, pad_picture
from vlmill.pipeline.signals.faces import Faces
from vlmill.pipeline.signals.text_in_image import (
    LEAST_SIDE,
    MOST_RATIO,
    MOST_TEXT,
    TextInImage,
    measure_chinese,
    measure_han,
)
from vlmill.pipeline.signals.weights import resolve_weights
from vlmill.pipeline.steps.score import ScoreSignal


def read_pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    models.save_yunet(folder / "yunet.onnx")
    models.save_centerface(folder / "centerface.onnx")
    models.save_onnx_mean(folder / "mean.onnx")
    (folder / "text.onnx").write_text("no model")
    return folder


def make_faces(folder, model="yunet", kind=Faces, **settings):
    pytest.importorskip("cv2")
    return resolve_weights(parse_block(kind, {"model": f"{model}.onnx", **settings}, "faces"), "faces", folder)


def score(signal, inputs, folder):
    folder.mkdir()
    counts = ScoreSignal("seen", signal).run(inputs, folder)
    tables = (read_scores(folder / "seen.scores.parquet"), pl.read_parquet(folder / "seen.detections.parquet"))
    return counts["scored"], *tables


# -- boxes -------------------------------------------------------------------------------------------------------------


def test_a_whole_view_keeps_shape_and_never_enlarges():
    assert WholeView(64).draw(Image.new("RGB", (640, 320))).shape == (32, 64, 3)
    assert WholeView(64).draw(Image.new("RGB", (40, 50))).shape == (50, 40, 3)
    assert WholeView(64).draw(Image.new("RGB", (1, 6400))).shape == (64, 1, 3)


def test_a_box_is_in_shares_of_the_picture_and_cut_at_its_edges():
    picture = np.zeros((100, 200, 3), np.uint8)
    found = make_detection([(-5, 10), (50, 0), (60, 50), (0, 60)], picture, 0.51239, "a")
    assert (found.left, found.top, found.right, found.bottom) == (0, 0, 0.3, 0.6)
    assert (found.confidence, found.text) == (0.5124, "a")


def test_what_several_boxes_cover_counts_once():
    picture, half = np.zeros((10, 20, 3), np.uint8), [(0, 0), (9, 0), (9, 9), (0, 9)]
    assert measure_covered([half], picture) == measure_covered([half, half], picture) == 0.5
    assert measure_covered([[(-50, -50), (50, -50), (50, 50), (-50, 50)]], picture) == 1
    assert measure_covered([], picture) == 0


@given(width=st.integers(1, 300), height=st.integers(1, 300), least=st.integers(1, 200), multiple=st.integers(1, 40))
def test_padding_keeps_the_picture_and_reaches_the_side(width, height, least, multiple):
    picture = np.zeros((height, width, 3), np.uint8)
    padded = pad_picture(picture, least, multiple)
    assert (padded[:height, :width] == picture).all()
    assert padded.sum() == 3 * 255 * (padded.shape[0] * padded.shape[1] - height * width)
    for side, before in zip(padded.shape, (height, width), strict=False):
        assert side % multiple == 0
        assert max(before, least) <= side < max(before, least) + multiple


# -- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "han", "chinese"),
    [
        (["我们的数据没有备份", "请打开这个文件"], 1, 1),
        (["設定會在重新啟動之後生效", "請按下確定"], 1, 1),
        (["ファイルを開いて", "新規作成", "印刷"], 7 / 14, 0),
        (["서울특별시", "문서 열기"], 0, 0),
        (["Open the window", "and close the door"], 0, 0),
        (["口", "一", "OK"], 0.5, 0),
        (["这个", "OK"], 0.5, 0),
        (["The quick brown fox jumps over the dog", "我们的数据没有备份"], 9 / 40, 0.4),
        ([], 0, 0),
        (["12:30", "--"], 0, 0),
    ],
)
def test_the_language_of_what_was_read(lines, han, chinese):
    assert measure_han(lines) == pytest.approx(han, abs=0.02)
    assert measure_chinese(lines) == pytest.approx(chinese, abs=0.2)
    assert (measure_chinese(lines) > 0) == (chinese > 0)


class Reading:
    """What RapidOCR gives."""

    def __init__(self, *lines, score=0.9):
        self.boxes = np.array([[[0, 0], [40, 0], [40, 20], [0, 20]]] * len(lines)) if lines else None
        self.txts, self.scores = lines or None, (score,) * len(lines) or None


def test_the_text_that_is_stored_is_bounded_and_all_of_it_counts():
    lines = ("a" * (MOST_TEXT - 10), "b" * 30, "c c")
    values, found = TextInImage().look(lambda _: Reading(*lines), np.zeros((20, 80, 3), np.uint8))
    assert [len(one.text) for one in found] == [MOST_TEXT - 10, 10, 0]
    assert values[1:3] == (3, MOST_TEXT + 22)
    assert TextInImage().look(lambda _: Reading(), np.zeros((20, 80, 3), np.uint8)) == ((0, 0, 0, 0, 0), [])


def test_a_line_that_is_hardly_legible_counts_and_tells_no_language():
    picture, lines = np.zeros((20, 80, 3), np.uint8), ("我们的数据没有备份", "请打开这个文件")
    values = [TextInImage().look(lambda _, s=s: Reading(*lines, score=s), picture)[0] for s in (0.79, 0.8)]
    assert [tuple(found[1:]) for found in values] == [(2, 16, 0, 0), (2, 16, 1, 1)]


@given(width=st.integers(1, 1280), height=st.integers(1, 1280))
def test_a_reader_never_gets_a_picture_that_is_thinner_than_it_can_take(width, height):
    seen = []
    TextInImage().look(lambda pixels: seen.append(pixels.shape) or Reading(), np.zeros((height, width, 3), np.uint8))
    assert min(seen[0][:2]) >= max(LEAST_SIDE, max(seen[0][:2]) / MOST_RATIO)


def test_text_in_pictures_is_read_where_it_stands(tmp_path):
    pytest.importorskip("rapidocr")
    english = draw_text("Open the window", "and close the door")
    thin = [draw_faces(size=(1, 900)), draw_faces(size=(900, 1))]
    inputs = write_partition(tmp_path / "in", [[english, "a text", CHINESE], [JAPANESE, 3, None, *thin]])
    count, table, found = score(TextInImage(), inputs, tmp_path / "out")
    assert (count.came, count.kept) == (6, 6)
    values = {(row["sample"], row["node"]): row for row in table.iter_rows(named=True)}
    texts = {place: rows["text"].to_list() for place, rows in found.group_by("sample", "node", maintain_order=True)}
    assert texts[0, 0] == ["Open the window", "and close the door"]
    assert values[0, 0]["seen_lines"] == 2
    assert values[0, 0]["seen_characters"] == 28
    assert 0.15 < values[0, 0]["seen_area"] < 0.7
    first = found.row(0, named=True)
    assert first["left"] == pytest.approx(10 / 300, abs=0.03)
    assert first["right"] == pytest.approx((10 + 22 * 0.5 * 15) / 300, abs=0.1)
    assert first["bottom"] < 0.55
    assert values[0, 2]["seen_han"] == values[0, 2]["seen_chinese"] == 1
    assert "".join(texts[0, 2]) == "我们的数据没有备份请打开这个文件"
    assert values[1, 0]["seen_chinese"] == values[0, 0]["seen_han"] == 0
    assert values[1, 0]["seen_han"] > 0
    for place in ((1, 1), (1, 3), (1, 4)):
        assert [values[place][name] for name in TextInImage().columns("seen")] == [0, 0, 0, 0, 0]


# -- faces -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["yunet", "centerface"])
def test_faces_are_found_where_they_are_whatever_was_seen_before(detectors, model):
    signal = make_faces(detectors, model)
    found, places = signal.load(), [(1, 1), (6, 2)]
    seen = read_pixels(draw_faces(*places))
    first = signal.look(found, seen)
    signal.look(found, read_pixels(draw_faces((0, 0), size=(64, 600))))
    assert signal.look(found, seen) == first
    (count, area, largest), boxes = first
    assert count == len(boxes) == (2 if model == "yunet" else count)
    for (column, row), box in zip(places, (boxes[0], boxes[-1]), strict=True):
        middle = ((box.left + box.right) / 2 * 320, (box.top + box.bottom) / 2 * 192)
        assert np.allclose(middle, (32 * column + 16, 32 * row + 16), atol=17)
        assert box.confidence > 0.9
    assert largest == pytest.approx(32 * 32 / (320 * 192), rel=0.05)
    assert area >= 1.9 * largest
    assert signal.look(found, read_pixels(draw_faces())) == ((0, 0, 0), [])


@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_a_face_detector_gets_pictures_of_one_shape(width, height):
    """OpenCV keeps sizes of the last input inside a network."""
    signal, seen = Faces(model="x.onnx", longest=300), []
    signal.look(lambda pixels: seen.append(pixels.shape) or [], np.zeros((height, width, 3), np.uint8))
    assert seen == [(320, 320, 3)]


def test_a_face_is_the_same_share_of_a_larger_picture(detectors):
    signal = make_faces(detectors)
    small = read_pixels(draw_faces((2, 3), size=(640, 480)))
    large = Image.open(io.BytesIO(draw_faces((2, 3), size=(640, 480)))).resize((1280, 960), Image.Resampling.NEAREST)
    (values, (box,)), (expected, (same,)) = (
        signal.look(signal.load(), picture) for picture in (signal.view().draw(large), small)
    )
    assert values == expected
    assert replace(box, confidence=same.confidence) == same


def test_a_file_that_is_no_face_detector_is_named(detectors):
    with pytest.raises(RecipeError, match=r"model: .*mean.onnx is no face detector .*allowed: YuNet, CenterFace"):
        make_faces(detectors, "mean").load()
    with pytest.raises(RecipeError, match=r"model: .*text.onnx is no ONNX file that OpenCV reads"):
        make_faces(detectors, "text").load()
    with pytest.raises(RecipeError, match="faces are found on CPUs; take 0"):
        make_faces(detectors, resources={"gpus": 1}).load()
    with pytest.raises(RecipeError, match="text_in_image reads on CPUs; take 0"):
        parse_block(TextInImage, {"resources": {"gpus": 1}}, "text").load()


# -- pictures that end the model ---------------------------------------------------------------------------------------


def test_a_picture_that_kills_or_hangs_a_detector_is_a_verdict(detectors, tmp_path):
    pictures = [[draw_faces((0, 0))], [draw_poison(250)], [draw_faces((1, 1)), draw_poison(251), draw_faces((2, 2))]]
    inputs = write_partition(tmp_path / "in", pictures)
    signal = make_faces(detectors, kind=PoisonedFaces, seconds=10, batch=1, longest=320)
    count, table, found = score(signal, inputs, tmp_path / "out")
    assert table["reason"].to_list() == [None, "crashed", None, "timed_out", None]
    assert table["seen_count"].to_list() == [1, None, 1, None, 1]
    assert found.select("sample", "node").rows() == [(0, 0), (2, 0), (2, 2)]
    assert count.lost == {Reason.CRASHED: 1, Reason.TIMED_OUT: 1}
    lost = [(one.sample, one.node, one.reason) for one in read_verdicts(tmp_path / "out/seen.verdicts.parquet")]
    assert lost == [(1, 0, Reason.CRASHED), (2, 1, Reason.TIMED_OUT)]


def test_a_picture_that_kills_the_reader_costs_that_picture_alone(tmp_path):
    pytest.importorskip("rapidocr")
    inputs = write_partition(tmp_path / "in", [[draw_text("before"), draw_poison(250), draw_text("after")]])
    _, table, found = score(PoisonedText(batch=1), inputs, tmp_path / "out")
    assert table["reason"].to_list() == [None, "crashed", None]
    assert found.select("node", "text").rows() == [(0, "before"), (2, "after")]


# -- a build -----------------------------------------------------------------------------------------------------------


def test_a_build_drops_chinese_in_pictures_and_says_so(tmp_path):
    pytest.importorskip("rapidocr")
    pictures = [CHINESE, JAPANESE, draw_text("Open the window")]
    cauldron(tmp_path / "quiz.parquet", [([data], [("What does it say?", "See there")]) for data in pictures])
    recipe = {
        "name": "seen",
        "sources": {"quiz": {"kind": "cauldron", "files": "quiz.parquet", "licence": "CC0-1.0"}},
        "signals": {"ocr": {"kind": "text_in_image"}},
        "filters": [{"threshold": {"any": {"ocr_chinese": {"max": 0.2}}}}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert vlmill("build", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--workers", 0) == 0
    import vlmill as api

    run = api.open_run(tmp_path / "run")
    verdicts = run.verdicts(step="threshold").collect()
    assert verdicts.select("sample", "node", "reason").rows() == [(0, 0, "signal:ocr_chinese")]
    assert "我们的数据没有备份" in run.detections("ocr").collect()["text"].to_list()
    changed = run.what_if({"threshold.any.ocr_chinese.max": 1})
    assert changed.sources["quiz"]["samples"].then == 3
    recipe["signals"]["ocr"]["longest"] = 640
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    again = {
        step.folder: step.reasons
        for step in api.forecast_changes(str(tmp_path / "recipe.yaml"), tmp_path / "run")
        if step.outcome == "run again"
    }
    assert again["steps/quiz/ocr"] == ("signal.longest: 1280 there, 640 here",)
    assert again["steps/quiz/threshold"] == ("reads steps/quiz/ocr",)
