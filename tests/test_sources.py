"""Sources: every row of an origin file comes out once, as pages or with the reason why not."""

import io
import json
import tarfile
from itertools import pairwise

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import SourceError
from pipeline.images.decode import decode
from pipeline.keys import canonical
from pipeline.reasons import Reason
from pipeline.sample import Node
from pipeline.sources import SOURCES
from pipeline.sources.cauldron import Cauldron
from pipeline.sources.idl import Idl
from pipeline.sources.obelics import Obelics
from pipeline.sources.pdfa import Pdfa
from tests import upstream

ADDRESS = "http://img.test/a.png"


def rows(source, path, start=0, stop=None):
    return list(source.rows(path, start, len(source.survey(path)) if stop is None else stop))


def reasons(row):
    return [reason for reason, _ in row.failed]


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize("kind", SOURCES)
def test_the_table_names_each_source_as_it_calls_itself_and_its_options_have_a_key(kind):
    assert SOURCES[kind].kind == kind
    assert "seconds" not in canonical(SOURCES[kind]())


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
            pa.table({"images": [["u"]], "general_metadata": ["{}"]}),
            "column 'texts' is missing; it has images, general_metadata",
        ),
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
    for use in (Obelics().survey, lambda path: list(Obelics().rows(path, 0, 1))):
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


def test_the_survey_of_a_parquet_file_weighs_rows_by_their_group(tmp_path):
    small, large = (
        [([upstream.picture(0, (8, 8))], [("Q", "A")])],
        [([bytes(range(256)) * 400], [("Q", "A")])],
    )
    weights = Cauldron().survey(upstream.cauldron(tmp_path / "c", small * 3 + large * 2))
    assert len(weights) == 5
    assert max(weights[:3]) < 2_000 < min(weights[3:])


def test_an_empty_parquet_file_has_no_rows(tmp_path):
    assert Obelics().survey(upstream.obelics(tmp_path / "o", [])) == []


# -- tars ------------------------------------------------------------------------------------------------------------

LINES = ["A line", "and another"]


def scan(frames=1, **members):
    """Members of an IDL document."""
    images = [Image.open(io.BytesIO(upstream.picture(seed, mode="L"))) for seed in range(frames)]
    return {"json": upstream.idl_json([LINES] * frames), "tif": upstream.tiff(images), **members}


def packed(path, documents):
    return upstream.tar(
        path,
        [(f"{key}.{suffix}", data) for key, members in documents.items() for suffix, data in members.items()],
    )


def test_a_scan_keeps_its_bytes_and_its_text_is_supervised(tmp_path):
    members = scan()
    (row,) = rows(Idl(), packed(tmp_path / "t", {"0": {**members, "ocr": b"?", "pdf": b"never opened"}}))
    (page,) = row.pages
    assert page.nodes == (
        Node("image", image=0, required=True, url="0.tif#page=1"),
        Node("text", supervised=True, text="A line\nand another"),
    )
    assert page.pictures[0].data == members["tif"]
    assert page.page == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16", "CMYK"])
def test_frames_of_a_tif_become_pages_without_a_changed_pixel(tmp_path, mode):
    if mode == "I;16":
        frames = [Image.new(mode, (9, 7), level) for level in (300, 60_000)]
    else:
        frames = [Image.open(io.BytesIO(upstream.picture(seed, (9, 7)))).convert(mode) for seed in range(2)]
    (row,) = rows(Idl(), packed(tmp_path / "t", {"0": scan(2, tif=upstream.tiff(frames))}))
    assert [page.page for page in row.pages] == [0, 1]
    for page, frame in zip(row.pages, frames, strict=True):
        assert decode(page.pictures[0].data).tobytes() == decode(upstream.tiff([frame])).tobytes()
        assert page.pictures[0].data.startswith(b"\x89PNG")


def test_a_document_without_tif_is_rendered_from_its_pdf(tmp_path):
    members = {"json": upstream.idl_json([LINES]), "pdf": upstream.pdf([LINES])}
    (row,) = rows(Idl(long_side=200), packed(tmp_path / "t", {"0": members}))
    assert decode(row.pages[0].pictures[0].data).size == (142, 200)


def test_pages_of_a_pdf_are_rendered_in_order_grey_where_they_are_grey(tmp_path):
    members = [upstream.pdf([["one"], ["two"]]), upstream.pdf([["red"]], colour="1 0 0")]
    documents = {
        "a": {"pdf": members[0], "json": upstream.pdfa_json([["one"], ["two"]])},
        "b": {"json": upstream.pdfa_json([["red"]]), "pdf": members[1]},
    }
    grey, red = rows(Pdfa(long_side=300), packed(tmp_path / "t", documents))
    assert [(page.page, page.nodes[1].text, page.nodes[0].url) for page in grey.pages] == [
        (0, "one", "a.pdf#page=1"),
        (1, "two", "a.pdf#page=2"),
    ]
    pictures = [Image.open(io.BytesIO(page.pictures[0].data)) for row in (grey, red) for page in row.pages]
    assert [(picture.format, picture.mode, picture.size) for picture in pictures] == [("PNG", "L", (212, 300))] * 2 + [
        ("PNG", "RGB", (212, 300))
    ]
    assert pictures[0].tobytes() != pictures[1].tobytes()


def test_the_pixels_of_a_page_are_bounded_in_both_directions(tmp_path):
    documents = {
        "long": {"json": upstream.pdfa_json([["x"]]), "pdf": upstream.pdf([["x"]], size=(14_400, 200))},
        "tiny": {
            "json": upstream.pdfa_json([["x"]]),
            "pdf": upstream.pdf([["x"]], size=(72, 72)).replace(b"40 12 Td", b"10 20 Td"),
        },
    }
    found = rows(Pdfa(long_side=640), packed(tmp_path / "t", documents))
    sizes = [decode(page.pictures[0].data).size for row in found for page in row.pages]
    assert sizes == [(640, 9), (300, 300)]


def test_a_page_that_has_text_and_comes_out_empty_is_a_bad_page(tmp_path):
    members = {"json": upstream.pdfa_json([["text of a missing font"]]), "pdf": upstream.pdf([[]])}
    (row,) = rows(Pdfa(), packed(tmp_path / "t", {"0": members}))
    assert reasons(row) == [Reason.BAD_PAGE]
    assert "comes out empty" in row.failed[0][1]


def test_pages_without_text_over_the_cap_or_without_form_are_counted_one_by_one(tmp_path):
    pages = json.loads(upstream.pdfa_json([["one"], [" "], ["three"], ["four"], ["five"]]))
    pages["pages"][2] = None
    members = {
        "json": json.dumps(pages).encode(),
        "pdf": upstream.pdf([["one"], [], ["three"], ["four"], ["five"]]),
    }
    (row,) = rows(Pdfa(max_pages=4), packed(tmp_path / "t", {"0": members}))
    assert [page.page for page in row.pages] == [0, 3]
    assert sorted(reasons(row)) == sorted([Reason.EMPTY_ROW, Reason.BAD_PAGE, Reason.PAGE_CAP])


def test_text_of_other_pages_than_the_document_has_is_trusted_for_none(tmp_path):
    members = {
        "json": upstream.pdfa_json([["one"], ["two"]]),
        "pdf": upstream.pdf([["one"], ["two"], ["three"]]),
    }
    (row,) = rows(Pdfa(), packed(tmp_path / "t", {"0": members}))
    assert row.failed == (
        (Reason.BAD_PAGE, "page 0: text of 2 pages beside a pdf of 3"),
        (Reason.BAD_PAGE, "page 1: text of 2 pages beside a pdf of 3"),
    )


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"pdf": b"%PDF-1.4 but no more"}, Reason.BAD_PAGE),
        ({"pdf": b""}, Reason.BAD_PAGE),
        ({"json": b"{"}, Reason.BAD_ROW),
        ({"json": b"[" * 4_000}, Reason.BAD_ROW),
        ({"json": b"[]"}, Reason.BAD_ROW),
        ({"json": b"\xff\xfe"}, Reason.BAD_ROW),
        ({"json": b'{"pages": 3}'}, Reason.BAD_ROW),
        ({"json": b'{"pages": []}'}, Reason.EMPTY_ROW),
        ({"json": b'{"pages": [{"lines": {"text": [1]}}]}'}, Reason.BAD_PAGE),
        ({"mp4": b"film"}, Reason.UNSUPPORTED_MEDIA),
        ({"mp3": b"song"}, Reason.UNSUPPORTED_MEDIA),
        ({"zip": bytes(6_000)}, Reason.TOO_MANY_BYTES),
    ],
)
def test_a_document_that_cannot_be_read_is_lost_for_its_reason_and_the_next_is_read(tmp_path, members, reason):
    good = {"json": upstream.pdfa_json([["one"]]), "pdf": upstream.pdf([["one"]])}
    bad, after = rows(Pdfa(max_bytes=6_000), packed(tmp_path / "t", {"bad": {**good, **members}, "good": good}))
    assert not bad.pages
    assert reasons(bad) == [reason]
    assert len(after.pages) == 1


@pytest.mark.parametrize(("command", "reason"), [(b"CRASH", Reason.CRASHED), (b"HANG", Reason.TIMED_OUT)])
def test_a_document_that_kills_or_stops_its_reader_loses_the_pages_not_yet_given(
    tmp_path, monkeypatch, command, reason
):
    monkeypatch.setattr("pipeline.sources.documents.render", upstream.render_or_die)
    text = upstream.pdfa_json([["one"], ["two"], ["three"]])
    path = packed(tmp_path / "t", {"bad": {"json": text, "pdf": command}, "good": {"json": text, "pdf": b"FINE"}})
    bad, good = rows(Pdfa(seconds=0.5), path)
    assert [page.page for page in bad.pages] == [0]
    assert reasons(bad) == [reason] * 2
    assert [page.pictures[0].data for page in good.pages] == [b"FINE#0", b"FINE#1", b"FINE#2"]


def test_members_belong_together_by_their_name_up_to_the_first_dot(tmp_path):
    members = [
        ("a/1.json", b"1"),
        ("a/1.TIF", b"22"),
        ("a/1.ocr.json", b"333"),
        ("b/1.json", b"4444"),
        ("a.b/1.json", b"5"),
    ]
    assert Idl().survey(upstream.tar(tmp_path / "t", members)) == [6, 4, 1]


def test_a_member_that_belongs_to_no_document_is_a_bad_row_not_silence(tmp_path):
    path = tmp_path / "t"
    upstream.tar(path, [("README", b"hi"), ("._0.json", b"mac"), ("0.json", b"{}"), ("0.json", b"{}")])
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("1.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
    found = rows(Idl(), path)
    assert [reasons(row) for row in found] == [[Reason.BAD_ROW]] * 4
    assert [row.failed[0][1] for row in found] == [
        "README has no name of the form key.suffix",
        "._0.json has no name of the form key.suffix",
        "0.json stands there twice",
        "1.json is a link or a device",
    ]


def test_a_tar_that_is_cut_off_anywhere_is_an_error(tmp_path):
    whole = packed(tmp_path / "whole", {str(key): scan() for key in range(3)}).read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    for length in {0, 100, 512, 700, end // 2, end - 600, end - 1, end, end + 511}:
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"cut\.tar"):
            Idl().survey(tmp_path / "cut.tar")
    (tmp_path / "short.tar").write_bytes(whole[: end + 512])
    assert len(Idl().survey(tmp_path / "short.tar")) == 3


def test_what_is_no_plain_tar_is_an_error_that_says_so(tmp_path):
    whole = packed(tmp_path / "whole", {"0": scan(), "1": scan()}).read_bytes()
    damaged = bytearray(whole)
    second = whole.index(b"1.json\0")
    damaged[second : second + 512] = b"x" * 512
    negative = bytearray(whole)
    negative[124:136] = b"\xff" * 12
    for content in (b"PK\3\4" + bytes(2000), whole + whole, bytes(damaged), bytes(negative)):
        (tmp_path / "odd.tar").write_bytes(content)
        with pytest.raises(SourceError, match=r"odd\.tar"):
            Idl().survey(tmp_path / "odd.tar")


def test_an_empty_tar_has_no_rows(tmp_path):
    assert Idl().survey(upstream.tar(tmp_path / "t", {})) == []


# -- every source ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def origins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("origins")
    return [
        (Obelics(), upstream.obelics(folder / "o", [[f"text {row}", ADDRESS] for row in range(7)] + [[]])),
        (
            Cauldron(),
            upstream.cauldron(folder / "c", [([upstream.picture(row)], [("Q", f"A{row}")]) for row in range(8)]),
        ),
        (
            Idl(),
            packed(
                folder / "i", {str(key): {"json": b""} for key in range(8)}
            ),  # no child: each says its key and what it lacks
        ),
    ]


@settings(max_examples=15, deadline=None)
@given(which=st.integers(0, 2), cuts=st.lists(st.integers(0, 8), max_size=3))
def test_rows_read_in_pieces_are_the_rows_read_at_once(origins, which, cuts):
    source, path = origins[which]
    bounds = [0, *sorted(cuts), 8]
    assert len(source.survey(path)) == 8
    pieces = [row for start, stop in pairwise(bounds) for row in source.rows(path, start, stop)]
    assert pieces == rows(source, path)
    assert [row.row for row in pieces] == list(range(8))
