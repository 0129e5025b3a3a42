"""Answers: who opted out, what unpacks, what is an image."""

import gzip
import io
import zlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.fetch.address import Failed
from pipeline.fetch.answers import asked_pause, check_image, opted_out, unpacked
from pipeline.reasons import Reason
from tests.servers import HTML, SVG, picture


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ([], None),
        (["all"], None),
        (["nofollow, noarchive"], None),
        (["noai"], "noai"),
        (["NoAI , NOIMAGEAI"], "noai"),
        (["nofollow", "noimageindex"], "noimageindex"),
        (["none"], "none"),
        (["vlmill: noindex"], "noindex"),
        (["VLMill:noai"], "noai"),
        (["*: noai"], "noai"),
        (["otherbot: noai"], None),
        (["otherbot: nofollow, noai"], None),
        (["otherbot: noai, vlmill: noimageai"], "noimageai"),
        (["vlmill: nofollow, otherbot: noai"], None),
        (["otherbot: noai", "noai"], "noai"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT, noai"], "noai"),
        (["unavailable_after: 2010-06-25T15:00:00+00:00, noai"], "noai"),
        (["otherbot: unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], None),
        (["max-snippet: 20, max-image-preview: large, noai"], "noai"),
        (["", ",", ":", "noai:"], None),
    ],
)
def test_x_robots_tag_speaks_to_everybody_or_to_the_crawler_that_it_names(headers, word):
    assert opted_out(headers, "vlmill") == word


@given(st.text())
def test_any_header_is_understood_somehow(header):
    opted_out([header], "vlmill")


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("", bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
    ],
)
def test_a_body_comes_out_of_its_content_encoding_as_it_was(encoding, pack):
    assert unpacked(pack(b"picture" * 100), encoding, 700) == b"picture" * 100


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (gzip.compress(bytes(701), mtime=0), "gzip", Reason.TOO_MANY_BYTES),
        (gzip.compress(bytes(1 << 24), mtime=0), "gzip", Reason.TOO_MANY_BYTES),
        (gzip.compress(b"picture", mtime=0)[:-9], "gzip", Reason.TRUNCATED_BODY),
        (b"picture", "gzip", Reason.NOT_AN_IMAGE),
        (b"picture", "br", Reason.NOT_AN_IMAGE),
    ],
)
def test_a_body_that_does_not_unpack_within_the_limit_fails(data, encoding, reason):
    with pytest.raises(Failed) as caught:
        unpacked(data, encoding, 700)
    assert caught.value.reason is reason


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "JPEG2000", "PPM", "AVIF"])
def test_a_known_signature_is_an_image_whatever_the_server_calls_it(form):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, form)
    for media_type in ("image/png", "text/html", "application/octet-stream", ""):
        check_image(file.getvalue(), media_type)


def test_a_format_without_a_signature_is_an_image_if_the_server_says_so():
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "TGA")
    check_image(file.getvalue(), "image/x-tga")
    with pytest.raises(Failed, match="application/octet-stream, starts with"):
        check_image(file.getvalue(), "application/octet-stream")


@pytest.mark.parametrize("data", [HTML, SVG, b"\xef\xbb\xbf\r\n  " + HTML, b"<svg>", b"\t<?php"])
@pytest.mark.parametrize("media_type", ["image/jpeg", "image/svg+xml", "text/html", ""])
def test_markup_is_no_image_whatever_the_server_calls_it(data, media_type):
    with pytest.raises(Failed) as caught:
        check_image(data, media_type)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_no_bytes_are_an_empty_body_and_packed_svg_is_no_image():
    with pytest.raises(Failed, match="empty_body"):
        check_image(b"", "image/png")
    with pytest.raises(Failed, match="not_an_image"):
        check_image(gzip.compress(SVG, mtime=0), "image/svg+xml")


@given(st.binary(max_size=80))
def test_any_bytes_are_judged_and_what_follows_a_signature_does_not_matter(data):
    with suppress(Failed):
        check_image(data, "")
    check_image(picture() + data, "")


def test_retry_after_is_seconds_or_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=100)
    assert asked_pause("7") == 7
    assert 90 < asked_pause(format_datetime(soon, usegmt=True)) <= 100
    assert asked_pause("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert [asked_pause(text) for text in (None, "", "soon", "-1", "²", "Fri, 31 Dec 1999 23:59:59 -0000")] == [
        None
    ] * 6
