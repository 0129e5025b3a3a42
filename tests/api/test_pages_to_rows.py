"""examples/pages_to_rows.py: a page gives the same row from HTML, WARC and a column, and `new` knows the rows."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlmill.pipeline.reports.proposal import examine_place

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


def make_record(body, *headers, kind="response", address=ADDRESS):
    """A record of a WARC file with an answer of HTTP."""
    answer = b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Type: text/html; charset=utf-8", *headers, b"", body])
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
    assert row == {"url": ADDRESS, "texts": TEXTS, "images": IMAGES}
    found = examine_place(str(out))
    assert (found.chosen.kind, len(found.chosen.pages)) == ("web_documents", 1)


def test_images_of_markdown_leave_the_text(script, tmp_path):
    rows = tmp_path / "a.jsonl"
    said = "# Gates\n\nThe first. ![a gate](../i/1.jpg 'gate') It is open."
    rows.write_text(json.dumps({"url": ADDRESS, "markdown": said}) + "\n" + json.dumps({"url": ADDRESS}))
    assert script.write_rows(rows, tmp_path / "rows.jsonl", "markdown") == 1
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["texts"] == ["# Gates\n\nThe first.", None, "It is open."]
    assert row["images"] == [None, "https://example.org/i/1.jpg", None]


@pytest.mark.parametrize(
    "page", ["", "<p>", "</nav><p>a</div>", "<nav><p>b", "<img><svg/>c", "\x00<!--", "<p>&#x;<![CDATA["]
)
def test_broken_pages_give_lists_of_one_length(script, page):
    row = script.make_row(page, "")
    assert len(row["texts"]) == len(row["images"])
    assert all((text is None) or (image is None) for text, image in zip(row["texts"], row["images"], strict=True))
