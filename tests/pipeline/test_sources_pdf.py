"""PDFs with no other text than their own: pages as samples, documents with their images in place, and hostile ones."""

from __future__ import annotations

import io
import json
import os
import signal
import time

import psutil
import pytest
from PIL import Image

from tests.helpers import upstream
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.sources.pdf import Pdf


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


def rows(source, path):
    return list(source.rows(path, range(len(source.survey(path)))))


def reasons(row):
    return [reason for reason, _ in row.failed]


def written(path, data):
    path.write_bytes(data)
    return path


def draw_page(lines, pictures):
    """A PDF of one page: (x, y, text) lines in the order given, and (x, y, width, height, colour) images of 4 x 3."""
    text = " ".join(f"BT /F 12 Tf {x} {y} Td ({said}) Tj ET" for x, y, said in lines)
    shown = " ".join(f"q {w} 0 0 {h} {x} {y} cm /I{n} Do Q" for n, (x, y, w, h, _) in enumerate(pictures))
    stream = f"{shown} {text}"
    names = " ".join(f"/I{n} {6 + n} 0 R" for n in range(len(pictures)))
    resources = f"/Resources<</Font<</F 3 0 R>>/XObject<<{names}>>>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[4 0 R]/Count 1>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 5 0 R{resources}>>".encode(),
        f"<</Length {len(stream)}>>stream\n{stream}\nendstream".encode(),
    ]
    for *_, colour in pictures:
        head = "<</Type/XObject/Subtype/Image/Width 4/Height 3/ColorSpace/DeviceRGB/BitsPerComponent 8/Length 36>>"
        objects.append(f"{head}stream\n".encode() + bytes(colour) * 12 + b"\nendstream")
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


RED, BLUE = (255, 0, 0), (0, 0, 255)


def colour_of(picture):
    return decode_image(picture.data).convert("RGB").getpixel((0, 0))


def test_each_page_of_a_file_is_its_picture_and_then_its_text(tmp_path):
    path = written(tmp_path / "a.pdf", upstream.pdf([["One line", "and another"], [], ["Third"]]))
    (row,) = rows(Pdf(long_side=200), path)
    assert [page.page for page in row.pages] == [0, 2]
    assert row.pages[0].nodes == (
        Node("image", image=0, required=True, url="a.pdf#page=1"),
        Node("text", supervised=True, text="One line\nand another"),
    )
    assert decode_image(row.pages[0].pictures[0].data).size == (142, 200)
    assert row.failed == ((Reason.EMPTY_ROW, "page 1 has no text layer: a scan, or a picture"),)
    assert row.failed_pages == (1,)


def test_a_document_is_its_texts_with_its_images_before_what_stands_below_them_in_their_column(tmp_path):
    left = [(50, 700 - 100 * n, f"left {n}") for n in range(4)]
    right = [(350, 700 - 100 * n, f"right {n}") for n in range(4)]
    pictures = [(350, 520, 100, 60, BLUE), (50, 620, 100, 60, RED)]
    path = written(tmp_path / "a.pdf", draw_page([*left, *right], pictures))
    ((page,),) = (row.pages for row in rows(Pdf(sample="document"), path))
    assert [node.text or colour_of(page.pictures[node.image]) for node in page.nodes] == [
        "left 0",
        RED,
        "left 1\nleft 2\nleft 3\nright 0\nright 1",
        BLUE,
        "right 2\nright 3",
    ]
    assert [node.url for node in page.nodes if node.image is not None] == [
        "a.pdf#page=1&image=0",
        "a.pdf#page=1&image=1",
    ]
    assert not any(node.required for node in page.nodes)


def test_an_image_behind_the_page_stands_before_its_text_and_one_below_all_at_the_end(tmp_path):
    lines = [(50, 700, "above"), (50, 400, "below")]
    behind = draw_page(lines, [(0, 0, 600, 800, RED)])
    last = draw_page(lines, [(50, 20, 60, 60, BLUE)])
    for data, kinds in ((behind, ["image", "text"]), (last, ["text", "image"])):
        ((page,),) = (row.pages for row in rows(Pdf(sample="document"), written(tmp_path / "a.pdf", data)))
        assert [node.kind for node in page.nodes] == kinds


def test_a_scan_has_no_text_but_is_a_document_of_its_picture(tmp_path):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(upstream.picture(1, (300, 400)))).save(buffer, "PDF")
    path = written(tmp_path / "scan.pdf", buffer.getvalue())
    (page,), (document,) = rows(Pdf(), path), rows(Pdf(sample="document"), path)
    assert reasons(page) == [Reason.EMPTY_ROW]
    assert [node.kind for node in document.pages[0].nodes] == ["image"]
    empty = written(tmp_path / "empty.pdf", upstream.pdf([[]]))
    assert [reasons(row) for row in rows(Pdf(sample="document"), empty)] == [[Reason.EMPTY_ROW]]


def test_pages_beyond_the_cap_are_counted(tmp_path):
    path = written(tmp_path / "a.pdf", upstream.pdf([["one"], ["two"], ["three"]]))
    for source in (Pdf(max_pages=1, long_side=100), Pdf(max_pages=1, sample="document")):
        (row,) = rows(source, path)
        assert len(row.pages) == 1
        assert reasons(row) == [Reason.PAGE_CAP] * 2


def test_members_of_a_tar_are_read_and_what_stands_beside_them_is_noted(tmp_path):
    good = {"pdf": upstream.pdf([["one"]])}
    beside = [
        good,
        {**good, "json": json.dumps({"title": "A"}).encode(), "txt": b"a"},
        {**good, "json": json.dumps({"tools": ["a"]}).encode()},
        {"pdf": b"%PDF-1.7 cut"},
    ]
    found = rows(Pdf(long_side=100), upstream.members(tmp_path / "a.tar", beside))
    assert [row.upstream_id for row in found] == [f"{place:03d}" for place in range(len(found))]
    assert [len(row.pages) for row in found] == [1, 1, 0, 0]
    assert found[1].pages[0].unread == (".txt", "json.title")
    assert [reasons(row) for row in found[2:]] == [[Reason.UNSUPPORTED_CONTENT], [Reason.BAD_ROW]]


def test_a_pdf_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    path = written(tmp_path / "a.pdf", upstream.pdf([["one"]]))
    (row,) = rows(Pdf(max_bytes=100), path)
    assert reasons(row) == [Reason.TOO_MANY_BYTES]


@pytest.mark.parametrize("data", [b"", b"<html>404</html>" + bytes(2000) + b"%PDF-1.4"])
def test_a_file_that_is_no_pdf_is_a_row_that_fails_if_its_name_says_so_and_else_an_error(tmp_path, data):
    (row,) = rows(Pdf(), written(tmp_path / "a.PDF", data))
    assert reasons(row) == [Reason.BAD_ROW]
    assert f"a.PDF is no PDF: it has {len(data)} bytes" in row.failed[0][1]
    with pytest.raises(SourceError, match=r"a\.bin: expected a PDF"):
        Pdf().survey(written(tmp_path / "a.bin", data))


def die_or_read(data, long_side, max_pages):
    """Stands in for the reader: the second page of a PDF that says CRASH or HANG does that."""
    yield {"pages": 3}
    for number in range(3):
        if number and b"CRASH" in data:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number and b"HANG" in data:
            time.sleep(600)
        yield {"text": f"page {number}"}
        yield upstream.picture(number)


@pytest.mark.parametrize(("command", "reason"), [(b"CRASH", Reason.CRASHED), (b"HANG", Reason.TIMED_OUT)])
def test_a_pdf_that_kills_or_stops_its_reader_loses_the_pages_not_yet_given(tmp_path, monkeypatch, command, reason):
    monkeypatch.setattr("vlmill.pipeline.sources.pdf.read_pages", die_or_read)
    path = upstream.members(tmp_path / "a.tar", [{"pdf": b"%PDF-" + command}, {"pdf": b"%PDF-FINE"}])
    bad, good = rows(Pdf(seconds=1), path)
    assert [page.page for page in bad.pages] == [0]
    assert (reasons(bad), bad.failed_pages) == ([reason] * 2, (1, 2))
    assert [page.page for page in good.pages] == [0, 1, 2]
