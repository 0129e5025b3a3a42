"""Answers: who opted out, what unpacks, what is an image."""

import gzip
import io
import zlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.servers import HTML, SVG, picture
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.address import FetchFailed
from vlmill.pipeline.fetch.answers import check_image, check_status, decode_body, find_opt_out, parse_retry_after


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
    assert find_opt_out(headers, "vlmill") == word


@given(st.text())
def test_any_header_is_understood_somehow(header):
    find_opt_out([header], "vlmill")


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
    assert decode_body(pack(b"picture" * 100), encoding, 700) == b"picture" * 100


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
    with pytest.raises(FetchFailed) as caught:
        decode_body(data, encoding, 700)
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
    with pytest.raises(FetchFailed, match="application/octet-stream, starts with"):
        check_image(file.getvalue(), "application/octet-stream")


@pytest.mark.parametrize("data", [HTML, SVG, b"\xef\xbb\xbf\r\n  " + HTML, b"<svg>", b"\t<?php"])
@pytest.mark.parametrize("media_type", ["image/jpeg", "image/svg+xml", "text/html", ""])
def test_markup_is_no_image_whatever_the_server_calls_it(data, media_type):
    with pytest.raises(FetchFailed) as caught:
        check_image(data, media_type)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_no_bytes_are_an_empty_body_and_packed_svg_is_no_image():
    with pytest.raises(FetchFailed, match="empty_body"):
        check_image(b"", "image/png")
    with pytest.raises(FetchFailed, match="not_an_image"):
        check_image(gzip.compress(SVG, mtime=0), "image/svg+xml")


@given(st.binary(max_size=80))
def test_any_bytes_are_filtered_and_what_follows_a_signature_does_not_matter(data):
    with suppress(FetchFailed):
        check_image(data, "")
    check_image(picture() + data, "")


def test_retry_after_is_seconds_or_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=100)
    assert parse_retry_after("7") == 7
    assert 90 < parse_retry_after(format_datetime(soon, usegmt=True)) <= 100
    assert parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert [parse_retry_after(text) for text in (None, "", "soon", "-1", "²", "Fri, 31 Dec 1999 23:59:59 -0000")] == [
        None
    ] * 6


DATES = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Mon", "Sun", "x"]),
    st.integers(-9, 99),
    st.sampled_from(["Jan", "Dec", "x"]),
    st.integers(),
    st.integers(-1, 99),
    st.integers(-1, 99),
    st.integers(-1, 99),
    st.sampled_from(["GMT", "", "-0000", "PST", "é"]) | st.integers().map("{:+}".format),
)


@given(st.text() | st.integers().map(str) | st.floats().map(str) | DATES)
@example("Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
@example("Mon, 01 Jan 2026 00:00:00 +99999999999999999999")
@example("9" * 5000)
def test_any_retry_after_is_a_pause_of_nothing_or_more_or_none(text):
    pause = parse_retry_after(text)
    assert pause is None or pause >= 0


@given(st.integers(0, 999), st.text())
def test_every_status_is_taken_for_an_image_or_has_a_reason_of_its_range(status, retry_after):
    try:
        check_status(status, retry_after)
    except FetchFailed as failed:
        found = failed
    else:
        found = None
    if status in {*range(200, 300)} - {204, 205, 206, 226}:
        assert found is None
    else:
        assert found.detail.startswith(f"HTTP {status}")
        assert (found.reason is Reason.HTTP_CLIENT_ERROR) == (400 <= status < 500)
        assert (found.reason is Reason.HTTP_SERVER_ERROR) == (status < 100 or status >= 500)


def test_a_long_name_in_a_header_takes_no_longer_than_it_is_long():
    assert find_opt_out(["a" * (1 << 18) + "!: all"], "vlmill") is None


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.binary(max_size=8))
def test_all_members_of_a_gzip_file_are_unpacked_and_what_follows_is_left_out(parts, rest):
    data, whole = b"".join(gzip.compress(part, mtime=0) for part in parts), b"".join(parts)
    rest = rest.removeprefix(b"\x1f")  # which may be another member
    assert decode_body(data + rest, "gzip", len(whole)) == whole
    if whole:
        with pytest.raises(FetchFailed, match="too_many_bytes"):
            decode_body(data, "gzip", len(whole) - 1)


@given(st.binary(max_size=80), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_unpack_within_the_limit_or_fail(data, encoding):
    for packed in (data, gzip.compress(b"picture", mtime=0) + data, zlib.compress(data)[:-4] + data):
        with suppress(FetchFailed):
            assert len(decode_body(packed, encoding, 20)) <= 20


def test_more_members_than_a_picture_needs_are_too_many():
    with pytest.raises(FetchFailed, match="too_many_bytes: over 64 gzip members"):
        decode_body(gzip.compress(b"", mtime=0) * 65, "gzip", 700)
