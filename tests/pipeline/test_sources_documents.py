"""Sources of documents in tars: every page comes out once, as a picture with its text or with the reason why not."""

import io
import json
import tarfile
import zlib

import psutil
import pytest
from PIL import Image

from tests.helpers import upstream
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.sources.idl import Idl
from vlmill.pipeline.sources.pdfa import Pdfa


def rows(source, path, start=0, stop=None):
    return list(source.rows(path, range(start, len(source.survey(path)) if stop is None else stop)))


def reasons(row):
    return [reason for reason, _ in row.failed]


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


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
        assert decode_image(page.pictures[0].data).tobytes() == decode_image(upstream.tiff([frame])).tobytes()
        assert page.pictures[0].data.startswith(b"\x89PNG")


def test_a_document_without_tif_is_rendered_from_its_pdf(tmp_path):
    members = {"json": upstream.idl_json([LINES]), "pdf": upstream.pdf([LINES])}
    (row,) = rows(Idl(long_side=200), packed(tmp_path / "t", {"0": members}))
    assert decode_image(row.pages[0].pictures[0].data).size == (142, 200)


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
    sizes = [decode_image(page.pictures[0].data).size for row in found for page in row.pages]
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
    monkeypatch.setattr("vlmill.pipeline.sources.formats.documents.render_pages", upstream.render_or_die)
    text = upstream.pdfa_json([["one"], ["two"], ["three"]])
    path = packed(tmp_path / "t", {"bad": {"json": text, "pdf": command}, "good": {"json": text, "pdf": b"FINE"}})
    bad, good = rows(Pdfa(seconds=0.5), path)
    assert [page.page for page in bad.pages] == [0]
    assert reasons(bad) == [reason] * 2
    assert [page.pictures[0].data for page in good.pages] == [b"FINE#0", b"FINE#1", b"FINE#2"]


def pdf_of_blanks(size):
    """A page whose instructions are so many blanks, packed."""
    page, packed_blanks = upstream.pdf([["one"]]), zlib.compress(b" " * size, 1)
    start, end = page.rindex(b"<</Length"), page.rindex(b"endstream")
    head = f"<</Filter/FlateDecode/Length {len(packed_blanks)}>>stream\n".encode()
    return page[:start] + head + packed_blanks + b"\n" + page[end:]


def test_a_document_may_take_no_more_memory_than_its_child_has(tmp_path, monkeypatch):
    text = upstream.pdfa_json([["one"]])
    large = {"json": text, "pdf": pdf_of_blanks(300 << 20)}
    path = packed(tmp_path / "t", {"large": large, "good": {"json": text, "pdf": upstream.pdf([["one"]])}})
    monkeypatch.setattr("vlmill.pipeline.sources.formats.documents.MEMORY", 200 << 20)
    bad, good = rows(Pdfa(), path)
    assert reasons(bad) == [Reason.CRASHED]
    assert len(good.pages) == 1


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
    members = [
        ("README", b"hi"),
        ("0.json", b"{}"),
        ("0.json", b"{}"),
        ("2.json", b""),
        ("2.tif", b""),
    ]
    upstream.tar(path, members)
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
        "0.json stands there twice",
        "2.json has no list of pages",
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
