"""examples/pages_to_rows.py: a page gives the same row from HTML, WARC and a column, and `new` knows the rows."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.upstream import picture as make_picture
from vlmill.pipeline.proposal.proposal import examine_place

SCRIPT = Path(__file__).parents[2] / "examples" / "pages_to_rows.py"
ADDRESS = "https://example.org/a/page.html"
PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>Gates</title><script>var a = "<p>no</p>";</script>
<link rel="canonical" href="https://example.org/a/page.html"></head><body><nav><ul><li>Home</li></ul></nav>
<h1>Gates of Köln</h1><p>The <b>first</b>
gate &amp; the wall.<img src="../i/1.jpg" alt="gate">It is open.</p>
<figure><img data-src="https://img.example.org/2.jpg" src="data:image/gif;base64,R0lG"></figure><img alt="none">
<footer><p>All rights reserved</p></footer></body></html>"""
TEXTS = ["Gates of Köln", "The first gate & the wall.", None, "It is open.", None]
IMAGES = [None, None, "https://example.org/i/1.jpg", None, "https://img.example.org/2.jpg"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pages_to_rows", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_record(body, *headers, kind="response", address=ADDRESS, status="200 OK"):
    """A record of a WARC file with an answer of HTTP."""
    answer = b"\r\n".join(
        [f"HTTP/1.1 {status}".encode(), b"Content-Type: text/html; charset=utf-8", *headers, b"", body]
    )
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {address}\r\nContent-Length: {len(answer)}\r\n\r\n"
    return head.encode() + answer + b"\r\n\r\n"


def split_chunks(body, size=100):
    """A body as servers send it that do not know its length."""
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


def write_html(folder):
    (folder / "page.html").write_text(PAGE, encoding="utf-8")


def write_warc(folder):
    body = PAGE.encode()
    (folder / "a.warc").write_bytes(make_record(body, kind="request") + make_record(body))


def write_packed_warc(folder):
    body = PAGE.encode()
    packed = make_record(split_chunks(gzip.compress(body)), b"Transfer-Encoding: chunked", b"Content-Encoding: gzip")
    (folder / "a.warc.gz").write_bytes(gzip.compress(packed))


def write_column(folder):
    pq.write_table(pa.table({"url": [ADDRESS], "html": [PAGE]}), folder / "a.parquet")


@pytest.mark.parametrize("write", [write_html, write_warc, write_packed_warc, write_column])
def test_a_page_is_the_same_row_from_every_form(script, tmp_path, write):
    (tmp_path / "crawl").mkdir()
    write(tmp_path / "crawl")
    out = tmp_path / "rows.jsonl"
    assert script.write_rows(tmp_path / "crawl", out, "html") == 1
    (row,) = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert row.pop("file", None) == ("crawl/page.html" if write is write_html else None)
    assert row == {"url": ADDRESS, "texts": TEXTS, "images": IMAGES}
    found = examine_place(str(out))
    assert (found.chosen.kind, len(found.chosen.pages)) == ("web_documents", 1)


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        ("404 Not Found", (), b"<p>There is no such page.</p>", "status 404, no page: "),
        ("302 Found", (b"Location: /b",), b"<p>The document has moved.</p>", "status 302, no page: "),
        ("503", (), b"<p>Try again later.</p>", "status 503, no page: "),
        ("200 OK", (b"Content-Encoding: br",), b"\x8b\x02\x80packed\x03", "packed as br, not read: "),
    ],
)
def test_answers_that_are_no_page_are_named_and_make_no_row(script, tmp_path, capsys, status, headers, body, said):
    unpacked = make_record(PAGE.encode(), b"Content-Encoding: br")  # as many crawlers store it
    other = make_record(body, *headers, address=f"{ADDRESS}?gone", status=status)
    (tmp_path / "a.warc").write_bytes(other + unpacked)
    assert script.write_rows(tmp_path / "a.warc", tmp_path / "rows.jsonl") == 1
    assert json.loads((tmp_path / "rows.jsonl").read_text())["texts"] == TEXTS
    assert f"{said}{ADDRESS}?gone" in capsys.readouterr().out


def test_images_of_markdown_leave_the_text(script, tmp_path):
    rows = tmp_path / "a.jsonl"
    said = "# Gates\n\nThe first. ![a gate](../i/1.jpg 'gate') It is open."
    rows.write_text(json.dumps({"url": ADDRESS, "markdown": said}) + "\n" + json.dumps({"url": ADDRESS}))
    assert script.write_rows(rows, tmp_path / "rows.jsonl", "markdown") == 1
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["texts"] == ["# Gates\n\nThe first.", None, "It is open."]
    assert row["images"] == [None, "https://example.org/i/1.jpg", None]


@pytest.mark.parametrize("beside", [True, False], ids=["below the rows", "elsewhere"])
def test_images_that_lie_beside_pages_become_paths_and_pages_without_a_row_are_named(script, tmp_path, capsys, beside):
    crawl, out = tmp_path / "crawl", (tmp_path if beside else tmp_path / "rows") / "rows.jsonl"
    (crawl / "a").mkdir(parents=True)
    out.parent.mkdir(exist_ok=True)
    for name in ("1.png", "a/2 b.png", "3.png"):
        (crawl / name).write_bytes(make_picture(3))
    link = '<base href="https://example.org/"><img src="/1.png"><img src="2%20b.png?v=1"><img src="gone.png">'
    (crawl / "a" / "page.html").write_text(f"<p>One.</p>{link}<img srcset='../3.png 1x, ../4.png 2x'>")
    (crawl / "read.md").write_text("A [![badge](1.png)](https://a.test/) and <img width=9 src='3.png'> B ![](3.png)")
    (crawl / "wide.htm").write_text("<p>Wide</p>", encoding="utf-16")
    (crawl / "empty.html").write_text("")
    (crawl / "packed.html").write_bytes(b"PK\x03\x04\x00\x00\x00")
    assert script.write_rows(crawl, out) == 3
    page, read, wide = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    top = "crawl/" if beside else ""
    assert page["file"] == f"{top}a/page.html"
    shown = [f"{top}1.png", f"{top}a/2 b.png", "https://example.org/gone.png", f"{top}3.png"]
    assert page["images"] == [None, *shown]
    assert read["texts"] == ["A", None, "and", None, "B", None]
    assert [one for one in read["images"] if one] == [f"{top}1.png", f"{top}3.png", f"{top}3.png"]
    assert wide["texts"] == ["Wide"]
    said = capsys.readouterr().out
    assert said.splitlines()[:2] == [f"no text and no image: {top}{name}.html" for name in ("empty", "packed")]
    assert ("paths of images start from" in said) is not beside
    if beside:
        assert examine_place(str(out)).chosen.kind == "file_documents"


def test_a_missing_image_of_a_saved_page_is_a_missing_file_and_no_address(script, tmp_path):
    (tmp_path / "saved/page_files").mkdir(parents=True)
    (tmp_path / "saved/page_files/1.png").write_bytes(make_picture(3))
    head = "<link rel=canonical href=https://example.org/pages/page><p>One.</p>"
    images = ["page_files/1.png", "page_files/2.png", "old_files/3.png", "elsewhere/4.png", "5.png", "/6.png"]
    (tmp_path / "saved/page.html").write_text(head + "".join(f"<img src={image}>" for image in images))
    assert script.write_rows(tmp_path / "saved", tmp_path / "rows.jsonl") == 1
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["images"] == [
        None,
        *(f"saved/{image}" for image in images[:3]),
        *(f"https://example.org/{path}" for path in ("pages/elsewhere/4.png", "pages/5.png", "6.png")),
    ]


def test_a_place_that_is_not_there_and_rows_that_are_are_named(tmp_path):
    (tmp_path / "there.jsonl").touch()
    for place, out, said in (("gone", "a.jsonl", "there is no"), (".", "there.jsonl", "is there already: delete it")):
        command = [sys.executable, SCRIPT, tmp_path / place, tmp_path / out]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (found.returncode, said in found.stderr, "Traceback" in found.stderr) == (2, True, False)
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    "page", ["", "<p>", "</nav><p>a</div>", "<nav><p>b", "<img><svg/>c", "\x00<!--", "<p>&#x;<![CDATA["]
)
def test_broken_pages_give_lists_of_one_length(script, page):
    row = script.make_row(page, "")
    assert len(row["texts"]) == len(row["images"])
    assert all((text is None) or (image is None) for text, image in zip(row["texts"], row["images"], strict=True))
