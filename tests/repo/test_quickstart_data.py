"""The data of the quickstart recipe: made by its script, small, balanced, and nothing repeats but what was planted."""

import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError
from tokenizers import Tokenizer

from tools.quickstart import generate, pages, scenes, train_tokenizer
from tools.quickstart.album import FORMS, encode
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.dedupe.picture import collect_pictures, measure_similarity
from vlmill.pipeline.filters.language import lid
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.steps.image_stats import compute_image_stats

DATA = generate.DATA
MANIFEST = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
PLANTED = MANIFEST["planted"]
MADE = [*generate.FILES, "manifest.json"]
OPTIONS = {
    "web": ("obelics", {"paragraphs": False}),
    "quiz": ("cauldron", {}),
    "scans": ("idl", {}),
    "papers": ("pdfa", {"long_side": 400, "max_pages": 4}),
}
HAN, KANA = re.compile("[\u4e00-\u9fff]"), re.compile("[\u3040-\u30ff]")


def files(folder):
    """Every generated file, by its path below the folder."""
    found = [
        path for name in MADE for path in ([folder / name] if (folder / name).is_file() else (folder / name).rglob("*"))
    ]
    return {str(path.relative_to(folder)): path for path in found if path.is_file()}


def content(path):
    """What a file holds beneath its compression: rows, members and texts in full, pictures by their size."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
        return [
            {**row, "images": [picture(i["bytes"]) if isinstance(i, dict) else i for i in row["images"] or []]}
            for row in rows
        ]
    if path.suffix == ".tar":
        return members(path)
    if path.name == "manifest.json":
        return json.loads(path.read_text(encoding="utf-8"))["planted"]
    return picture(path.read_bytes())


def members(path):
    with tarfile.open(path) as tar:
        return [
            (
                m.name,
                m.mtime,
                m.uid,
                m.mode,
                picture(tar.extractfile(m).read()) if m.name.endswith("tif") else text_of(tar.extractfile(m).read()),
            )
            for m in tar
        ]


def text_of(data):
    """The lines of a json; a PDF, written by hand, as it is."""
    try:
        return [page.get("lines", page)["text"] for page in json.loads(data)["pages"]]
    except ValueError:
        return data if data.startswith(b"%PDF") else "broken"


def picture(data):
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            return image.size, image.format
    except UnidentifiedImageError:
        return data


@pytest.fixture(scope="module")
def made_again(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    generate.main(folder)
    return folder


def test_the_script_makes_what_is_committed(made_again):
    committed, made = files(DATA), files(made_again)
    assert made.keys() == committed.keys()
    # other versions of Pillow or pyarrow, or another processor, may compress the same rows and pixels to other bytes
    same_versions = MANIFEST["made_by"] == generate.made_by()
    different = [name for name in made if made[name].read_bytes() != committed[name].read_bytes()]
    assert [name for name in different if same_versions or content(made[name]) != content(committed[name])] == []


def test_the_tokenizer_is_the_one_that_the_texts_give(made_again):
    train_tokenizer.main(made_again)
    assert (made_again / "tokenizer.json").read_bytes() == (DATA / "tokenizer.json").read_bytes()


def test_it_is_small_and_has_about_a_thousand_rows():
    assert sum(path.stat().st_size for path in files(DATA).values()) < 3_000_000
    assert 900 < sum(MANIFEST["rows"].values()) < 1200


@cache
def read():
    """Pages and failures by id, as the pipeline's own readers see the data."""
    found, failed = {}, defaultdict(list)
    for source, (kind, options) in OPTIONS.items():
        reader = SOURCES[kind](**options)
        for file in generate.FILES[source]:
            path = DATA / source / file
            for row in reader.rows(path, range(len(reader.survey(path)))):
                failed[f"{source}/{file}#{row.row}"] += [reason for reason, _ in row.failed]
                found |= {str(SampleId(source, file, row.row, page.page)): page for page in row.pages}
    return found, {row: Counter(reasons) for row, reasons in failed.items() if reasons}


def test_the_readers_lose_exactly_what_the_manifest_says():
    lost_on_reading = {Reason.BAD_ROW, Reason.EMPTY_ROW, Reason.BAD_PAGE, Reason.PAGE_CAP}
    expected = defaultdict(Counter)
    for entry in PLANTED:
        if entry["reason"] in lost_on_reading:
            expected[entry["id"].rpartition("#")[0] + f"#{SampleId.parse(entry['id']).row}"][entry["reason"]] += 1
    assert read()[1] == expected


def test_the_manifest_speaks_the_pipelines_language():
    places = [(entry["id"], entry.get("node"), entry.get("turn"), entry["outcome"]) for entry in PLANTED]
    assert len(set(places)) == len(places)
    for entry in PLANTED:
        assert str(SampleId.parse(entry["id"])) == entry["id"]
        assert (entry["outcome"] == "kept") == (entry["reason"] == "")
        if entry["reason"]:
            assert (entry["outcome"] == "failed") == Reason(entry["reason"]).failed


def test_everything_that_the_pipeline_exists_for_is_planted():
    planted = Counter(entry["reason"] for entry in PLANTED)
    wanted = (
        "language exact_text near_text exact_image near_image boilerplate_image image_too_small image_ratio "
        "required_lost nothing_left page_cap"
    )
    wanted += (
        " bad_row empty_row bad_page http_client_error not_an_image empty_body undecodable bad_url forbidden_address "
        "too_many_pixels"
    )
    assert set(wanted.split()) <= set(planted)
    across = {
        (SampleId.parse(entry["id"]).source, SampleId.parse(entry["other"]).source)
        for entry in PLANTED
        if "other" in entry
    }
    assert {("web", "web"), ("web", "quiz"), ("quiz", "quiz"), ("scans", "scans")} <= across


def test_keepers_stand_before_their_duplicates():
    for entry in PLANTED:
        if "other" in entry:
            kept, lost = SampleId.parse(entry["other"]), SampleId.parse(entry["id"])
            assert (generate.PRIORITIES[kept.source], kept) <= (generate.PRIORITIES[lost.source], lost)
            assert kept != lost or entry["node"] > 0


def nodes():
    return [(sample, index, node) for sample, page in read()[0].items() for index, node in enumerate(page.nodes)]


def test_fasttext_finds_chinese_where_it_was_planted_and_nowhere_else():
    whole = {
        entry["id"]
        for entry in PLANTED
        if entry["reason"] == "language" and "node" not in entry and "turn" not in entry
    }
    parts = {(entry["id"], entry.get("node"), entry.get("turn")) for entry in PLANTED if entry["reason"] == "language"}
    for sample, index, node in nodes():
        planted = (
            sample in whole
            or (sample, index, None) in parts
            or ((sample, None, node.turn) in parts and node.role == "user")
        )
        if node.text and len(node.text) > 25:
            found = lid.predict_languages(node.text.replace("\n", " "))
            assert (max(found, key=found.get) == "zh") == planted, (sample, index, node.text)


def shingles(text, size=5):
    """Runs of five words, of characters in Chinese and Japanese."""
    words = re.findall(r"\w", text) if HAN.search(text) and KANA.search(text) else re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + size]) for start in range(max(1, len(words) - size + 1))}


def of_one_source(pair):
    return len({sample.partition("/")[0] for sample in pair}) == 1


def test_texts_repeat_only_where_it_was_planted():
    planted = {
        frozenset((entry["id"], entry["other"])) for entry in PLANTED if "other" in entry and "node" not in entry
    }
    planted = {pair for pair in planted if of_one_source(pair) and not min(pair).startswith("quiz/")}
    texts = {
        sample: "\n".join(node.text for node in page.nodes if node.text)
        for sample, page in read()[0].items()
        if not sample.startswith("quiz/")
    }
    cut, holders = {sample: shingles(text) for sample, text in texts.items() if text}, defaultdict(list)
    for sample, runs in cut.items():
        for run in runs:
            holders[run].append(sample)
    alike = {frozenset(pair) for group in holders.values() for pair in combinations(group, 2)}
    similar = {
        pair
        for pair in filter(of_one_source, alike)
        if len(set.intersection(*(cut[s] for s in pair))) >= 0.7 * len(set.union(*(cut[s] for s in pair)))
    }
    assert similar == planted


def test_pictures_look_alike_only_where_it_was_planted():
    """As the pipeline's own measure has it, which says 0.97 and more of planted copies."""
    planted = {name for entry in PLANTED for name in (entry["id"], entry.get("other"))}
    shown = [
        compute_image_stats(0, picture.data)
        for sample, page in read()[0].items()
        if sample not in planted
        for picture in page.pictures
        if picture.data
    ]
    pictures = collect_pictures(shown)
    flat = pictures.small[:, 0].reshape(len(shown), -1).astype(float)
    likely = np.argwhere(np.triu(np.corrcoef(flat), 1) > 0.7)
    assert measure_similarity(pictures[likely[:, 0]], pictures[likely[:, 1]]).max() < 0.97


LAYOUTS = st.sampled_from(["single", "pair", "count"])


@given(number=st.integers(0, 10_000), layout=LAYOUTS, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_picture_shows_what_its_sentences_say(number, layout, seed):
    scene = scenes.imagine(number, Random(seed), layout)
    pixels = np.asarray(scenes.paint(scene))
    shown = {[*scenes.TONES, *scenes.COLOURS][index] for index in np.unique(pixels)} - set(scenes.TONES)
    assert shown == {shape.colour for shape in scene.shapes}
    inside = [
        shape.x - shape.radius >= 0
        and shape.x + shape.radius <= scene.size[0]
        and shape.y - shape.radius >= 0
        and shape.y + shape.radius <= scene.size[1]
        for shape in scene.shapes
    ]
    assert all(inside)
    said = scenes.describe(scene, Random(seed))
    assert {colour for colour in scenes.COLOURS if re.search(rf"\b{colour}\b", said)} == shown
    for question, answer in scenes.questions(scene, Random(seed)):
        if question.startswith("How many"):
            assert answer == scenes.COUNTS[len(scene.shapes) - 1]
        if question.startswith("What colour is the") and answer in scenes.COLOURS:
            assert answer in shown


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"grey png"}))
def test_every_kind_of_file_decodes_to_the_scene(form):
    painted = scenes.paint(scenes.imagine(3, Random(1), "single"))
    truth, seen = (
        np.asarray(image, dtype=int) for image in (painted.convert("RGB"), decode_image(encode(painted, form)))
    )
    assert seen.shape == truth.shape
    assert np.abs(seen - truth).mean() < 8


def test_guessing_the_most_frequent_answer_does_not_help():
    kinds = {
        "colour": scenes.COLOURS,
        "shape": scenes.SHAPES,
        "count": scenes.COUNTS,
        "place": scenes.PLACES,
        "pattern": scenes.PATTERNS,
        "choice": ("yes", "no"),
    }
    answers = [
        node.text
        for _, _, node in nodes()
        if node.role == "assistant" and node.text in {word for words in kinds.values() for word in words}
    ]
    assert len(answers) > 900
    assert Counter(answers).most_common(1)[0][1] < 0.08 * len(answers)
    for kind, words in kinds.items():
        of_kind = Counter(answer for answer in answers if answer in words)
        assert of_kind.most_common(1)[0][1] < {"choice": 0.65}.get(kind, 1.6 / len(words)) * of_kind.total(), kind


def test_boxes_lie_on_their_pages():
    for source in ("scans", "papers"):
        for file in generate.FILES[source]:
            with tarfile.open(DATA / source / file) as tar:
                for member in tar:
                    text = tar.extractfile(member).read() if member.name.endswith("json") else b""
                    for page in json.loads(text)["pages"] if text.endswith(b"}") else []:
                        for part in (page, page.get("words", page), page.get("lines", page)):
                            for left, top, width, height in part.get("bbox", []):
                                assert min(left, top, width, height) >= 0, member.name
                                assert max(left + width, top + height) <= 1, member.name


def test_pdfs_carry_the_words_that_their_json_says():
    sheets = [pages.leaflet(number, Random(number)) for number in range(3)]
    document = pypdfium2.PdfDocument(pages.pdf(sheets))
    said = json.loads(pages.pdfa(sheets))["pages"]
    assert len(document) == 3
    for page, truth in zip(document, said, strict=True):
        assert page.get_textpage().get_text_range().split() == truth["words"]["text"]


def tokenizer():
    return Tokenizer.from_file(str(DATA / "tokenizer.json"))


def test_special_tokens_have_stable_ids():
    assert [tokenizer().token_to_id(mark) for mark in train_tokenizer.SPECIAL] == list(
        range(len(train_tokenizer.SPECIAL))
    )
    assert tokenizer().get_vocab_size() == train_tokenizer.VOCABULARY


@given(st.text())
def test_any_text_survives_the_tokenizer(text):
    shipped = tokenizer()
    assert shipped.decode(shipped.encode(text).ids, skip_special_tokens=False) == text


def test_answers_are_short():
    assert all(
        len(tokenizer().encode(word).ids) <= 3
        for word in (*scenes.COLOURS, *scenes.SHAPES, *scenes.COUNTS, *scenes.PLACES, *scenes.PATTERNS)
    )
