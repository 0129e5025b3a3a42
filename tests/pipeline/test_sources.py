"""Sources: every row of an input file comes out once, as pages or with the reason why not."""

import json
import pickle
from itertools import pairwise

import fsspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import upstream
from tests.helpers.shapes import SHAPES
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import SourceError, StoreError
from vlmill.pipeline.core.keys import canonicalise_value
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node, read_rows, read_samples
from vlmill.pipeline.inputs.files import InputFile, hash_input, list_input_files
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.cauldron import Cauldron
from vlmill.pipeline.sources.evaluation import Evaluation
from vlmill.pipeline.sources.files import Files
from vlmill.pipeline.sources.finevision import FineVision
from vlmill.pipeline.sources.interleaved import Interleaved
from vlmill.pipeline.sources.obelics import Obelics
from vlmill.pipeline.sources.page_faults import find_page_fault
from vlmill.pipeline.sources.pairs import PairsSource, PairsWdsSource
from vlmill.pipeline.sources.rendered_text import RenderedText
from vlmill.pipeline.sources.websight import WebSight
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import RowRange

ADDRESS = "http://img.test/a.png"


def rows(source, path, start=0, stop=None):
    return list(source.rows(path, range(start, len(source.survey(path)) if stop is None else stop)))


def reasons(row):
    return [reason for reason, _ in row.failed]


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


# -- every source ----------------------------------------------------------------------------------------------------


DOCUMENTS = frozenset({"obelics", "web_documents", "file_documents", "mmc4", "comm", "mint_documents"})
"""Kinds whose images may be lost alone."""
PAGED = frozenset({"idl", "pdfa", "pdf"})
"""Kinds whose rows are documents of several samples."""
TARS = frozenset({"idl", "pdfa", "mint_documents", "pairs_wds", "rendered_text"})


@pytest.fixture(params=sorted(SHAPES))
def shape(request):
    """One of the shapes of upstream, and the source that reads it, which the first word of its name says."""
    found, kind = SHAPES[request.param], request.param.split()[0]
    return found, parse_block(SOURCES[kind], dict(found.options), request.param)


def test_every_source_is_held_to_what_follows():
    shown = {name.split()[0] for name in SHAPES}
    assert shown == set(SOURCES), f"add to SHAPES in tests/helpers/shapes.py: {sorted(set(SOURCES) - shown)}"


@pytest.fixture
def several(shape, tmp_path):
    """A file with a bad row among four good ones."""
    found, source = shape
    good = [found.row(number) for number in range(4)]
    return source, found.write(tmp_path / "several", [*good[:2], found.bad, *good[2:]])


def test_the_table_names_each_source_as_it_calls_itself_and_its_options_have_a_key(shape):
    _, source = shape
    assert SOURCES[source.kind] is type(source)
    assert "seconds" not in canonicalise_value(source)
    assert pickle.loads(pickle.dumps(source)) == source  # it travels to workers


def test_a_bad_row_is_lost_alone_and_says_why(several):
    source, path = several
    found = rows(source, path)
    assert [row.row for row in found] == [0, 1, 2, 3, 4]
    assert [len(row.pages) for row in found] == [1, 1, 0, 1, 1]
    assert [reasons(row) for row in found] == [[], [], [Reason.BAD_ROW], [], []]
    assert found[2].failed[0][1]
    assert [find_page_fault(page) for row in found for page in row.pages] == [None] * 4


def test_rows_read_in_pieces_are_the_rows_read_at_once(several):
    source, path = several
    whole = rows(source, path)
    for cuts in ([0, 2, 2, 5],) if source.isolated else ([0, 2, 2, 5], [0, 1, 3, 5], [0, 4, 5]):
        assert [row for start, stop in pairwise(cuts) for row in source.rows(path, range(start, stop))] == whole


def test_some_rows_of_a_file_are_those_of_all_its_rows(several):
    source, path = several
    whole = rows(source, path)
    for numbers in ([1, 4],) if source.isolated else ([0], [4], [1, 3], [0, 2, 3], [0, 4], []):
        assert list(source.rows(path, numbers)) == [whole[number] for number in numbers]


def test_the_survey_weighs_every_row(several):
    source, path = several
    weights = source.survey(path)
    assert len(weights) == 5
    assert all(isinstance(weight, int) and weight >= 0 for weight in weights)
    assert sum(weights)


def test_nodes_point_at_the_pictures_of_their_page_and_answers_or_texts_alone_are_supervised(several):
    source, path = several
    for page in (page for row in rows(source, path) for page in row.pages):
        shown = [node for node in page.nodes if node.kind == "image"]
        assert [node.image for node in shown] == list(range(len(page.pictures)))
        assert all(node.required == (source.kind not in DOCUMENTS) for node in shown)
        said = [node for node in page.nodes if node.kind == "text"]
        assert all(node.supervised == (node.role in {"none", "assistant"}) for node in said)
        assert any(node.supervised for node in page.nodes)
        spoken = [(node.turn, node.role) for node in said if node.role != "none"]
        assert spoken == [(place // 2, ("user", "assistant")[place % 2]) for place in range(len(spoken))]


def test_pictures_are_addresses_bytes_or_files_as_the_source_declares(several):
    source, path = several
    pictures = [picture for row in rows(source, path) for page in row.pages for picture in page.pictures]
    assert all((picture.url is not None) == source.fetches for picture in pictures)
    assert source.opens or all(picture.path is None for picture in pictures)


def test_samples_are_named_by_file_and_row_and_the_books_add_up(several, tmp_path):
    source, path = several
    counts = Read(source, "web", (RowRange("a/file", 1, 5),), images=str(tmp_path)).run({"input-0": path}, tmp_path)
    ids = [str(sample.id) for sample in read_samples(tmp_path / "samples.parquet")]
    page = ".0" if source.kind in PAGED else ""
    assert ids == [f"web/a/file#{row}{page}" for row in (1, 3, 4)]
    assert counts["rows"].to_json() == {"in": 4, "kept": 3, "dropped": {}, "failed": {"bad_row": 1}}


MEANT = {
    "video": "a.mp4",
    "videos": ["a.mp4"],
    "video_path": "a",
    "audio": {"path": "a.wav"},
    "audios": ["a.wav"],
    "sound": "a.wav",
    "speech": "a.wav",
    "image": "b.png",
    "images": ["b.png"],
    "image_2": "b.png",
    "image_path": "b.png",
    "system": "Speak French.",
    "system_prompt": "Speak French.",
    "tools": [{"name": "weather"}],
    "functions": [{"name": "weather"}],
    "tool_calls": [{"name": "weather"}],
    "function_call": {"name": "weather"},
    "chosen": "Good.",
    "rejected": "Bad.",
    "rejected_response": "Bad.",
    "history": ["Before."],
    "reasoning_content": "Hm.",
    "objects": {"bbox": [[1, 2, 3, 4]]},
    "label": False,
    "loss": False,
    "train": False,
    "weight": 0,
}
"""Keys that carry meaning, as trainers and exports write them."""

IMAGE_KEYS = frozenset({"image", "images", "image_2", "image_path"})
MEDIA_KEYS = frozenset({"video", "videos", "video_path", "audio", "audios", "sound", "speech"})
ONE_PICTURE = frozenset({"pairs", "pairs_wds", "rendered_text", "idl", "pdfa", "pdf"})
"""Sources whose rows have one picture each, whatever keys beside it say of it."""


def reflected(source, key, before, after):
    """Whether a sample is another for what stands under a key, or the key is the same thing again, or is noted."""
    if source.kind == "evaluation":  # nothing is supervised from it, and the recipe names the columns that count
        added = [picture.reason for picture in after.pictures[len(before.pictures) :]]
        return added == [Reason.UNSUPPORTED_MEDIA] * (key in MEDIA_KEYS)
    if key in IMAGE_KEYS:
        shown = len(after.pictures) > len(before.pictures)
        return shown or (bool(before.pictures) and (key == "image_path" or source.kind in ONE_PICTURE))
    return any(node.role == "system" and node.text == MEANT[key] for node in after.nodes)


def test_what_carries_meaning_is_in_the_sample_or_fails_the_row_and_nulls_beside_are_nothing(shape, tmp_path):
    found, source = shape
    plain = found.row(0)
    keys = [key for key in MEANT if key not in found.said(plain)]
    nothing = dict.fromkeys([*keys, "score"])
    there = [nothing, *({**nothing, key: MEANT[key]} for key in keys), {**nothing, "score": 0.5}]
    alone = found.write(tmp_path / "alone", [plain])
    if alone.suffix in {".csv", ".tsv"}:  # which has strings alone
        there = [{key: "" if value is None else str(value) for key, value in row.items()} for row in there]
    ((before,),) = (row.pages for row in rows(source, alone))
    without, *more, scored = rows(source, found.write(tmp_path / "more", [found.beside(plain, row) for row in there]))
    assert len(more) == len(keys)
    assert without.pages[0].nodes == before.nodes
    assert [len(row.pages) for row in (without, scored)] == [1, 1]
    assert any(name.endswith("score") for name in scored.pages[0].unread)
    for key, row in zip(keys, more, strict=True):
        if row.pages:
            assert reflected(source, key, before, row.pages[0]), f"{key} is lost in silence"
        else:
            assert reasons(row)[0] in {Reason.UNSUPPORTED_MEDIA, Reason.UNSUPPORTED_CONTENT}, key
            assert key in row.failed[0][1]


def test_what_is_named_otherwise_than_expected_is_an_error_that_lists_what_is_there(shape, tmp_path):
    found, source = shape
    path = found.write(tmp_path / "misspelt", [found.misspelt] * 2)
    with pytest.raises(SourceError) as wrong:
        source.survey(path)
    assert all(part in str(wrong.value) for part in ("misspelt", *found.named))


@pytest.mark.parametrize(
    "content",
    [b"<html>404</html>\n", b"version https://git-lfs.github.com/spec/v1\n", b"\x1f\x8b\x08packed", bytes(700)],
)
def test_a_file_of_another_format_is_an_error_that_names_it(shape, tmp_path, content):
    _, source = shape
    path = tmp_path / "other.format"
    path.write_bytes(content)
    if source.kind in TARS and not any(content):
        assert source.survey(path) == []  # a tar of nothing is zeros
        return
    for use in (source.survey, lambda path: list(source.rows(path, range(1)))):
        with pytest.raises(SourceError, match=r"other\.format.*(expected|it is packed \(gzip\): unpack it)"):
            use(path)


def test_a_file_without_rows_has_none(shape, tmp_path):
    found, source = shape
    path = found.write(tmp_path / "empty", [])
    assert source.survey(path) == []
    assert list(source.rows(path, range(0))) == []


# -- Parquet ---------------------------------------------------------------------------------------------------------


def test_a_web_document_keeps_the_order_of_its_texts_and_images(tmp_path):
    (row,) = rows(Obelics(), upstream.obelics(tmp_path / "o", [["Before", ADDRESS, "After", "http://img.test/b.png"]]))
    (page,) = row.pages
    assert [(node.kind, node.text, node.image, node.required, node.supervised) for node in page.nodes] == [
        ("text", "Before", None, False, True),
        ("image", None, 0, False, False),
        ("text", "After", None, False, True),
        ("image", None, 1, False, False),
    ]
    assert [picture.url for picture in page.pictures] == [ADDRESS, "http://img.test/b.png"]
    assert page.url == "http://web.test/0"


def test_the_end_of_document_mark_that_upstream_left_in_texts_is_cut_out(tmp_path):
    mark = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
    path = upstream.obelics(tmp_path / "o", [[mark, f"One {mark} two", ADDRESS], [mark, f"{mark} {mark}"]])
    first, second = rows(Obelics(), path)
    assert [node.text for node in first.pages[0].nodes] == ["One", "two", None]
    assert reasons(second) == [Reason.EMPTY_ROW]


def test_paragraphs_of_obelics_are_nodes_of_their_own_unless_the_recipe_says_otherwise(tmp_path):
    mark = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
    path = upstream.obelics(tmp_path / "o", [["One\n\nTwo\nlines\n\n\n", ADDRESS, f"{mark}Three{mark}Four"]])
    (whole,), (parts,) = rows(Obelics(paragraphs=False), path), rows(Obelics(), path)
    assert [node.text for node in whole.pages[0].nodes] == ["One\n\nTwo\nlines", None, "Three", "Four"]
    assert [node.text for node in parts.pages[0].nodes] == ["One", "Two\nlines", None, "Three", "Four"]


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"texts": [["a", None]]}, "lists of one length"),
        ({"images": [None]}, "lists of one length"),
        ({"texts": [["a", "b", "c"]]}, "place 1 holds an image and a text"),
        ({"texts": [["a", None, None]]}, "place 2 holds nothing"),
        ({"general_metadata": ["[]"]}, "general_metadata"),
        ({"general_metadata": ["{"]}, "general_metadata"),
        ({"general_metadata": ["[" * 100_000]}, "general_metadata"),
    ],
)
def test_a_document_whose_lists_do_not_match_is_a_bad_row(tmp_path, columns, detail):
    (row,) = rows(Obelics(), upstream.obelics(tmp_path / "o", [["a", ADDRESS, "c"]], **columns))
    assert not row.pages
    assert reasons(row) == [Reason.BAD_ROW]
    assert detail in row.failed[0][1]


@pytest.mark.parametrize("metadata", [None, "", "{}", '{"url": null}'])
def test_a_document_without_metadata_has_no_address(tmp_path, metadata):
    (row,) = rows(Obelics(), upstream.obelics(tmp_path / "o", [["a"]], general_metadata=[metadata]))
    assert row.pages[0].url == ""


def test_a_string_that_is_no_utf8_makes_its_row_bad_and_no_other(tmp_path):
    path = upstream.obelics(tmp_path / "o", [["good"], ["spoiltX"], ["good"]])
    table = pq.read_table(path)
    spoilt = pa.array([[b"good"], [b"spoilt\xff"], [b"good"]], pa.list_(pa.binary())).view(pa.list_(pa.string()))
    pq.write_table(table.set_column(3, "texts", spoilt), path)
    assert [reasons(row) for row in rows(Obelics(), path)] == [[], [Reason.BAD_ROW], []]


def test_a_conversation_has_its_images_first_and_supervises_its_answers(tmp_path):
    images = [upstream.picture(1), upstream.picture(2)]
    path = upstream.cauldron(tmp_path / "c", [(images, [("What?", "A dog."), ("Where?", "There.")])])
    (page,) = rows(Cauldron(), path)[0].pages
    assert page.nodes == (
        Node("image", "user", 0, image=0, required=True, url="0.png"),
        Node("image", "user", 0, image=1, required=True, url="1.png"),
        Node("text", "user", 0, text="What?", url="quiz"),
        Node("text", "assistant", 0, supervised=True, text="A dog.", url="quiz"),
        Node("text", "user", 1, text="Where?", url="quiz"),
        Node("text", "assistant", 1, supervised=True, text="There.", url="quiz"),
    )
    assert [picture.data for picture in page.pictures] == images


def test_a_conversation_may_do_without_images_but_not_without_turns_answers_or_bytes(tmp_path):
    image = upstream.picture()
    turns = [("Q", "A")]
    conversations = [
        ([], turns),
        ([image], []),
        ([image], [("Q", None)]),
        ([image], [("Q", " ")]),
        ([image], [(None, "A")]),
        ([None], turns),
    ]
    found = rows(Cauldron(), upstream.cauldron(tmp_path / "c", conversations))
    assert [len(row.pages) for row in found] == [1, 0, 0, 0, 0, 0]
    assert [reasons(row) for row in found] == [[], [Reason.EMPTY_ROW], *[[Reason.BAD_ROW]] * 4]


@pytest.mark.parametrize("text", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_other_layouts_of_the_same_type_are_read_as_well(tmp_path, text):
    table = {
        "images": pa.array([[None]], pa.large_list(pa.null())),
        "texts": pa.array([["a"]], pa.list_(pa.string())).cast(pa.large_list(pa.large_string())),
        "general_metadata": pa.array(["{}"]).cast(text),
    }
    pq.write_table(pa.table(table), tmp_path / "o")
    assert rows(Obelics(), tmp_path / "o")[0].pages[0].nodes == (Node("text", supervised=True, text="a"),)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            pa.table({"images": [[1]], "texts": [["t"]], "general_metadata": ["{}"]}),
            r"column 'images' is list<element: int64>, expected list<item: string>",
        ),
        (
            pa.table({"images": ["u"], "texts": [["t"]], "general_metadata": ["{}"]}),
            "column 'images' is string",
        ),
    ],
)
def test_a_parquet_file_of_another_form_is_named_with_what_was_found_and_expected(tmp_path, table, said):
    path = tmp_path / "other.parquet"
    pq.write_table(table, path)
    for use in (Obelics().survey, lambda path: list(Obelics().rows(path, range(1)))):
        with pytest.raises(SourceError, match=said) as wrong:
            use(path)
        assert "other.parquet" in str(wrong.value)


def test_a_damaged_row_group_is_an_error_not_a_loss(tmp_path):
    path = upstream.obelics(tmp_path / "o.parquet", [[f"text {row} " * 50] for row in range(9)])
    middle = pq.ParquetFile(path).metadata.row_group(1).column(3).data_page_offset
    data = bytearray(path.read_bytes())
    data[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(SourceError, match="row group 1 is damaged"):
        rows(Obelics(), path)
    assert len(rows(Obelics(), path, 6, 9)) == 3


def test_no_flipped_byte_of_a_footer_ends_in_anything_but_an_error_that_names_the_file(tmp_path):
    path = upstream.obelics(tmp_path / "o.parquet", [["a text", "http://img.test/1"], ["another"]])
    whole, said = path.read_bytes(), set()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    names = [whole.index(name, footer) for name in (b"images", b"metadata", b"texts")]
    for place in (*names, *range(footer, len(whole), 13)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        for read, error in ((rows, SourceError), (lambda _, path: list(read_rows(path)), StoreError)):
            try:
                read(Obelics(), path)
            except error as caught:
                said.add((str(path) in str(caught), type(caught.__cause__)))
    assert (True, UnicodeDecodeError) in said
    assert all(named for named, _ in said)


def test_an_address_that_needs_one_more_package_names_it(monkeypatch):
    def lack(*_, **__):
        raise ImportError("Install gcsfs to access GCS")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lack)
    for use in (
        lambda: list_input_files("web", "gs://bucket/web", "*.parquet"),
        lambda: Files("gs://bucket/images").load("a.png"),
        lambda: hash_input(InputFile("web", 0, "a", "gs://bucket/a")),
    ):
        with pytest.raises(SourceError, match=r"gs://bucket/.*Install gcsfs to access GCS"):
            use()


def test_an_address_of_no_known_kind_is_an_error_of_its_source():
    with pytest.raises(SourceError, match="spam://bucket"):
        list_input_files("web", "spam://bucket", "*.parquet")


def test_the_survey_of_a_parquet_file_weighs_rows_by_their_group(tmp_path):
    small, large = (
        [([upstream.picture(0, (8, 8))], [("Q", "A")])],
        [([bytes(range(256)) * 400], [("Q", "A")])],
    )
    weights = Cauldron().survey(upstream.cauldron(tmp_path / "c", small * 3 + large * 2))
    assert len(weights) == 5
    assert max(weights[:3]) < 2_000 < min(weights[3:])


def test_nulls_everywhere_are_bad_or_empty_rows_and_no_errors(tmp_path):
    nothing = {
        Obelics(): {"images": None, "texts": None, "general_metadata": None},
        Cauldron(): {"images": None, "texts": None},
        FineVision(): {"images": None, "texts": [None]},
        Interleaved(): {"images": [None], "conversation": [None]},
        WebSight(): {"image": None, "text": None},
        PairsSource(): {"url": None, "caption": None},
        Evaluation(): {"question": None, "answer": None, "image": None},
    }
    for number, (source, row) in enumerate(nothing.items()):
        (found,) = rows(source, upstream.parquet(tmp_path / f"{number}.parquet", [row]))
        assert reasons(found) in ([Reason.BAD_ROW], [Reason.EMPTY_ROW])


def test_ratings_travel_as_signals_of_the_sample_and_of_each_turn(tmp_path):
    turns = [{"user": "Q", "assistant": "A", "source": None}] * 2
    row = {"images": [upstream.image(0)], "texts": turns, "source": "chartqa", "relevance_ratings": [5, None]}
    path = upstream.parquet(tmp_path / "f", [{**row, "relevance_min": 5, "formatting_min": None}])
    ((page,),) = (row.pages for row in rows(FineVision(), path))
    assert page.signals == {"relevance_min": 5.0, "relevance_ratings.0": 5.0}
    assert {node.url for node in page.nodes if node.kind == "text"} == {"chartqa"}


def test_an_image_may_be_all_that_the_first_question_says(tmp_path):
    image = upstream.picture()
    first, later, alone = rows(
        Cauldron(),
        upstream.cauldron(
            tmp_path / "c", [([image], [("", "A")]), ([image], [("Q", "A"), ("", "A")]), ([], [("", "A")])]
        ),
    )
    assert [(node.kind, node.role) for node in first.pages[0].nodes] == [("image", "user"), ("text", "assistant")]
    assert reasons(later) == reasons(alone) == [Reason.BAD_ROW]


def test_images_of_a_conversation_stand_where_it_marks_them(tmp_path):
    said = upstream.talk("Is <image> like <image>?", "No.", keys=("role", "content"))
    row = {"images": [upstream.image(1), {"bytes": None, "path": "b/2.png"}], "conversation": said}
    ((page,),) = (row.pages for row in rows(Interleaved(), upstream.parquet(tmp_path / "i", [row])))
    assert [node.text if node.kind == "text" else node.url for node in page.nodes] == [
        "Is ",
        "1.png",
        " like ",
        "b/2.png",
        "?",
        "No.",
    ]
    assert [(picture.data is None, picture.path) for picture in page.pictures] == [(False, None), (True, "b/2.png")]


def test_one_image_a_row_and_llavas_names_are_read_as_well(tmp_path):
    rows_there = [
        {"image": upstream.image(0), "conversations": upstream.talk("<image>\nQ", "A")},
        {"image": None, "conversations": upstream.talk("Q", "A")},
    ]
    source = Interleaved(images="image", turns="conversations")
    found = rows(source, upstream.parquet(tmp_path / "n", rows_there))
    assert [len(row.pages[0].pictures) for row in found] == [1, 0]


def test_turns_in_parts_and_a_system_prompt_in_a_column_are_read_as_well(tmp_path):
    parts = [{"type": "image", "text": None, "index": 0}, {"type": "text", "text": "Q", "index": None}]
    said = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{**parts[1], "text": "A"}]}]
    row = {"images": [upstream.image(0)], "messages": said, "system": "Be brief."}
    found = rows(Interleaved(turns="messages"), upstream.parquet(tmp_path / "i", [row, {**row, "system": None}]))
    assert [[node.text for node in row.pages[0].nodes] for row in found] == [
        ["Be brief.", None, "Q", "A"],
        [None, "Q", "A"],
    ]


def test_rows_without_turns_in_the_column_that_is_named_have_them_in_another(tmp_path):
    ours, theirs = upstream.talk("Q", "A"), upstream.talk("Q", "A", keys=("role", "content"))
    there = [
        {"images": [], "conversations": ours, "messages": None},
        {"images": [], "conversations": None, "messages": theirs},
        {"images": [], "conversations": ours, "messages": theirs},
    ]
    found = rows(Interleaved(turns="conversations"), upstream.parquet(tmp_path / "i", there))
    assert [[node.text for node in row.pages[0].nodes] for row in found] == [["Q", "A"]] * 3


def test_two_pictures_of_one_key_are_not_taken_for_one(tmp_path):
    members = [{"jpg": upstream.picture(1, form="JPEG"), "png": upstream.picture(2), "txt": b"Two"}]
    (row,) = rows(PairsWdsSource(), upstream.members(tmp_path / "p.tar", members))
    assert reasons(row) == [Reason.UNSUPPORTED_MEDIA]


def test_members_and_keys_of_json_that_nobody_reads_are_noted(tmp_path):
    about = json.dumps({"url": ADDRESS, "width": 7, "score": 3}).encode()
    members = [{"jpg": upstream.picture(form="JPEG"), "txt": b"A dog", "json": about, "cls": b"1"}]
    (row,) = rows(PairsWdsSource(), upstream.members(tmp_path / "p.tar", members))
    assert row.pages[0].unread == (".cls", "json.score")


# -- pairs -----------------------------------------------------------------------------------------------------------


def test_a_pair_is_an_image_that_is_required_and_a_caption_that_is_supervised(tmp_path):
    laion = {"URL": ADDRESS, "TEXT": " A dog ", "LICENSE": "CC-BY-2.0", "similarity": 0.5, "punsafe": float("nan")}
    path = upstream.parquet(tmp_path / "p", [laion, {**laion, "LICENSE": "?"}, {**laion, "TEXT": " "}])
    source = PairsSource(url="URL", caption="TEXT", licence="LICENSE", signals=("similarity", "punsafe"))
    first, second, blank = rows(source, path)
    (page,) = first.pages
    assert page.nodes == (
        Node("image", image=0, required=True, url=ADDRESS),
        Node("text", supervised=True, text="A dog"),
    )
    assert [picture.url for picture in page.pictures] == [ADDRESS]
    assert (page.licence, page.signals) == ("CC-BY-2.0", {"similarity": 0.5})
    assert second.pages[0].licence == ""
    assert reasons(blank) == [Reason.EMPTY_ROW]


def test_a_column_of_another_type_is_named_with_both_types(tmp_path):
    path = upstream.parquet(tmp_path / "p", [{"url": ADDRESS, "caption": "A dog", "NSFW": "UNLIKELY"}])
    with pytest.raises(SourceError, match="column 'NSFW' is string, expected double"):
        PairsSource(signals=("NSFW",)).survey(path)


def test_a_pair_in_a_tar_takes_address_and_licence_from_its_json(tmp_path):
    about = json.dumps({"url": ADDRESS, "license": "CC0-1.0", "similarity": 0.25}).encode()
    good = {"webp": upstream.picture(form="WEBP"), "txt": "Ein Hund, süß".encode()}
    members = [{**good, "json": about}, good, {**good, "json": b"[]"}, {**good, "mp4": b""}, {**good, "txt": b" "}]
    found = rows(
        PairsWdsSource(licence="license", signals=("similarity",)), upstream.members(tmp_path / "p.tar", members)
    )
    (page,) = found[0].pages
    assert (page.nodes[0].url, page.licence, page.signals) == (ADDRESS, "CC0-1.0", {"similarity": 0.25})
    assert found[1].pages[0].nodes[0].url == "001.webp"
    assert [reasons(row) for row in found[2:]] == [
        [Reason.BAD_ROW],
        [Reason.UNSUPPORTED_MEDIA],
        [Reason.EMPTY_ROW],
    ]


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"text": "one\ntwo"}, "one\ntwo"),
        ({"text": ["one", "two"]}, "one\ntwo"),
        ({"lines": [{"text": "one", "bbox": [0, 0]}, {"text": "two"}]}, "one\ntwo"),
        ({"lines": ["one", "two"]}, "one\ntwo"),
    ],
)
def test_rendered_text_is_found_at_the_first_place_that_has_it(tmp_path, about, text):
    path = upstream.members(tmp_path / "r", [{"png": upstream.picture(), "json": json.dumps(about).encode()}])
    (page,) = rows(RenderedText(), path)[0].pages
    assert (page.nodes[1].text, page.nodes[1].supervised, page.nodes[0].required) == (text, True, True)


def test_where_rendered_text_stands_can_be_said(tmp_path):
    about = json.dumps({"ocr": {"said": "one"}}).encode()
    path = upstream.members(tmp_path / "r", [{"png": upstream.picture(), "json": about}])
    assert rows(RenderedText(text=("ocr.said",)), path)[0].pages[0].nodes[1].text == "one"


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 8), max_size=3))
def test_any_cut_of_a_parquet_file_gives_the_same_rows(tmp_path_factory, cuts):
    path = upstream.obelics(tmp_path_factory.mktemp("o") / "o", [[f"text {row}", ADDRESS] for row in range(7)] + [[]])
    bounds = [0, *sorted(cuts), 8]
    pieces = [row for start, stop in pairwise(bounds) for row in Obelics().rows(path, range(start, stop))]
    assert pieces == rows(Obelics(), path)
