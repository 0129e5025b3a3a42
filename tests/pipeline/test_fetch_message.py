"""HTTP answers: what a head and a body say, whatever bytes come, and a whole partition of hostile ones at once."""

import gzip
import io
import zlib
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.servers import (
    STANDARD,
    Answer,
    Web,
    forever,
    picture,
    raw,
)
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import IMAGES, read_rows, write_rows
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.address import MAX_URL, FetchFailed
from vlmill.pipeline.fetch.message import MAX_HEAD, PIECE, AnswerHead, read_body, read_head

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LIMIT = 1 << 16


def said(answer, limit=LIMIT):
    """Head and body of an answer that ends where its bytes do."""
    reader = io.BytesIO(answer)
    head = read_head(reader)
    return head, read_body(reader, head, limit)


def body(answer, limit=LIMIT):
    return said(answer, limit)[1]


def failure(answer, limit=LIMIT):
    with pytest.raises(FetchFailed) as caught:
        said(answer, limit)
    return caught.value.reason


# -- heads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        (b"", []),
        (b"A: 1\r\nb : 2\r\nA:\t3 \r\n", [("a", "1"), ("b", "2"), ("a", "3")]),
        (b"A: 1\n", [("a", "1")]),
        (b"A: 1\r\n  more\r\n\tof it\r\nB: 2\r\n", [("a", "1 more of it"), ("b", "2")]),
        (b" folded into nothing\r\nA: 1\r\n", [("a", "1")]),
        (b"no colon\r\n and its fold\r\nA: 1\r\n", [("a", "1")]),
        (b"A: 1\0\rB: 2\x1b\r\n", [("a", "1  B: 2")]),
        (b"A: \xc3\xa9\r\n", [("a", "Ã©")]),
    ],
)
def test_a_head_has_its_headers_in_order_and_a_broken_line_hides_none(lines, fields):
    head, rest = said(OK + lines + b"\r\nbody")
    assert [(name, value.strip()) for name, value in head.fields] == fields
    assert rest == b"body"


def test_headers_are_found_by_name_and_words_across_all_of_a_name():
    head = AnswerHead(200, (("a", "Gzip , identity"), ("b", ""), ("a", "br,")))
    assert (head.get("a"), head.get("b"), head.get("c")) == ("Gzip , identity", "", "")
    assert head.get_all("a") == ["Gzip , identity", "br,"]
    assert head.words("a") == ["gzip", "identity", "br"]


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_answers_before_the_answer_are_skipped_with_their_headers(status):
    early = b"HTTP/1.1 %d Early\r\nLink: </style.css>\r\nContent-Length: 5\r\n\r\n" % status
    head, data = said(early + early + OK + b"A: 1\r\n\r\nbody")
    assert (head, data) == (AnswerHead(200, (("a", "1"),)), b"body")


def test_after_101_no_http_is_spoken():
    assert read_head(io.BytesIO(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x05")).status == 101


# -- bodies ------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from(["%x", "%X", "000%x", "%x ;a=b", "%x\t;"])))
)
def test_a_chunked_body_comes_as_it_was_before_it_was_cut(parts):
    data = b"".join(part for part, _ in parts)
    packed = b"".join((form % len(part)).encode() + b"\r\n" + part + b"\r\n" for part, form in parts)
    assert body(CHUNKED + packed + b"0\r\n") == data
    assert body(CHUNKED + packed + b"0;last\r\nTrailer: yes\r\n\r\nHTTP/1.1 200 the next") == data
    assert failure(CHUNKED + packed) is Reason.TRUNCATED_BODY
    if data:
        assert failure(CHUNKED + packed + b"0\r\n", len(data) - 1) is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize(
    "size", [b"-1", b"-0", b"+4", b"0x4", b"4_0", b"", b" 4", b"four", b"4 4", b"\xb2", b"-ffffffffffffffff"]
)
def test_a_chunk_size_is_hexadecimal_digits_and_nothing_else(size):
    assert failure(CHUNKED + size + b"\r\nbody\r\n0\r\n\r\n") is Reason.CONNECTION


@pytest.mark.parametrize("size", [b"10001", b"fffffffffffffffffffff", b"8" * 1000])
def test_a_chunk_that_is_too_large_is_not_read_at_all(size):
    assert failure(CHUNKED + size + b"\r\n") is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (b"Content-Length: 4", None),
        (b"Content-Length: 4, 4\r\nContent-Length: 04", None),
        (b"Content-Length: -4", None),  # no number: what comes is the body, as browsers have it
        (b"Content-Length: +4\r\nContent-Length: 4_0", None),
        (b"Content-Length: \xb2", None),
        (b"Content-Length: ", None),
        (b"Content-Length: 5", Reason.TRUNCATED_BODY),
        (b"Content-Length: 65537", Reason.TOO_MANY_BYTES),
        (b"Content-Length: " + b"9" * 5000, Reason.TOO_MANY_BYTES),
        (b"Content-Length: 4\r\nContent-Length: 5", Reason.CONNECTION),
        (b"Transfer-Encoding: identity", None),
        (b"Transfer-Encoding: gzip, chunked", Reason.NOT_AN_IMAGE),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Reason.NOT_AN_IMAGE),
    ],
)
def test_a_body_is_as_long_as_its_headers_say_in_one_voice(headers, reason):
    answer = OK + headers + b"\r\n\r\nbody"
    if reason is None:
        assert body(answer) == b"body"
    else:
        assert failure(answer) is reason


class Endless(io.RawIOBase):
    """`start`, then `again` for ever; it knows how much was asked of it."""

    def __init__(self, start, again):
        self.rest, self.again, self.given = start, again, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        self.rest += self.again * (1 + (len(buffer) - len(self.rest)) // len(self.again))
        assert self.given < 1 << 24, "there is no end to it"
        buffer[:] = self.rest[: len(buffer)]
        self.rest = self.rest[len(buffer) :]
        self.given += len(buffer)
        return len(buffer)


ENDLESS = {
    "status-line": (b"HTTP/1.1 200 ", b"OK", Reason.TOO_MANY_BYTES),
    "1xx": (b"", b"HTTP/1.1 103 Early\r\nLink: <a>\r\n\r\n", Reason.TOO_MANY_BYTES),
    "headers": (OK, b"A: 1\r\n", Reason.TOO_MANY_BYTES),
    "header": (OK + b"A: ", b"1", Reason.TOO_MANY_BYTES),
    "folds": (OK + b"A: ", b"1\r\n ", Reason.TOO_MANY_BYTES),
    "lines": (OK, b"no colon\r\n", Reason.TOO_MANY_BYTES),
    "body": (OK + b"\r\n", b"\x89", Reason.TOO_MANY_BYTES),
    "chunks": (CHUNKED, b"4\r\nbody\r\n", Reason.TOO_MANY_BYTES),
    "chunk-of-minus-one": (CHUNKED + b"-1\r\n", b"\x89", Reason.CONNECTION),
    "chunk-of-minus-zero": (CHUNKED, b"-0\r\n\r\n", Reason.CONNECTION),
    "chunk-that-is-huge": (CHUNKED + b"7fffffffffffffff\r\n", b"\x89", Reason.TOO_MANY_BYTES),
    "chunk-without-an-end": (CHUNKED + b"4\r\nbody", b"body", Reason.CONNECTION),
    "chunk-size": (CHUNKED, b"0", Reason.CONNECTION),
    "chunk-extension": (CHUNKED + b"4;", b"a=b;", Reason.CONNECTION),
    "chunk-extensions": (CHUNKED, b"1;" + b"a" * 1000 + b"\r\nb\r\n", Reason.TOO_MANY_BYTES),
    "trailers": (CHUNKED + b"4\r\nbody\r\n0\r\n", b"A: 1\r\n", None),
    "answers": (OK + b"Content-Length: 4\r\n\r\nbody", OK + b"\r\n", None),
}
"""What answers begin with, what then comes without end, and the reason that they are given."""


@pytest.mark.parametrize(("start", "again", "reason"), ENDLESS.values(), ids=ENDLESS)
def test_no_answer_is_read_without_bound(start, again, reason):
    wire = Endless(start, again)
    reader = io.BufferedReader(wire, PIECE)
    if reason is None:
        assert read_body(reader, read_head(reader), LIMIT) == b"body"
    else:
        with pytest.raises(FetchFailed, match=f"^{reason}: "):
            read_body(reader, read_head(reader), LIMIT)
    assert wire.given <= 2 * (MAX_HEAD + LIMIT) + 2 * PIECE


FRAGMENTS = [
    OK, b"HTTP/1.1 103 Early Hints\r\n", b"HTTP/1.0 404\r\n", b"HTTP/1.1 ", b"099", b"\r\n", b"\r\n\r\n", b"\n", b"\r",
    b"\0", b" ", b":", b";", b"Transfer-Encoding: chunked\r\n", b"Content-Length: ", b"Content-Encoding: gzip\r\n",
    b"-1", b"0", b"4", b"body", b"fffffffffffffffff", b"\xff",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=8)).map(b"".join))
@example(CHUNKED + b"-1\r\nbody")
def test_any_bytes_are_an_answer_within_the_limit_or_a_failure(answer):
    for start in (b"", OK, CHUNKED):
        with suppress(FetchFailed):
            assert len(body(start + answer, 6)) <= 6


# -- a partition of them -----------------------------------------------------------------------------------------------

WEB: dict[str, Answer] = {name: forever(start, again) for name, (start, again, _) in ENDLESS.items()}


def good(*headers: bytes, start: bytes = OK) -> bytes:
    """An answer with a picture."""
    return b"".join(
        [start, *(header + b"\r\n" for header in headers), b"Content-Length: %d\r\n\r\n" % len(picture()), picture()]
    )


def only(status: bytes, *headers: bytes) -> bytes:
    """An answer without a body."""
    return b"".join(
        [b"HTTP/1.1 " + status + b"\r\n", *(header + b"\r\n" for header in headers), b"Content-Length: 0\r\n\r\n"]
    )


def packed(data: bytes, encoding: bytes = b"Content-Encoding: gzip") -> bytes:
    return OK + encoding + b"\r\nContent-Type: image/png\r\n\r\n" + data


HALVES = gzip.compress(picture()[:40]) + gzip.compress(picture()[40:])

PAUSES = [
    b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", b"Mon, 01 Jan 0000 00:00:00 GMT",
    b"Mon, 01 Jan 10000 00:00:00 GMT", b"Mon, 99 Xyz 2026 99:99:99 GMT",
    b"Mon, 01 Jan 2026 00:00:00 +99999999999999999999", b"Mon, 01 Jan 2026 00:00:00", b"Sun Nov  6 08:49:37 1994",
    b"Mon, 01 Jan 0001 00:00:00 +2359", b"Fri, 31 Dec 9999 23:59:59 -2359", b"", b" ", b",", b"-1",
    b"-99999999999999999999", b"1e400", b"nan", b"inf", b"1.5", b"9" * 400, b"9" * 5000, b"0x10", b"\xb2", b"\xd9\xa7",
    b"\xff\xfe", b"\0", b"soon", b"Mon, 01 Jan", b"()", b"(", b"1 1 1 1 1", b"Jan " * 1000,
]  # fmt: skip

PLACES = [
    b"http://[::1", b"http://a..b/", b"http://a b/", b"http://a:99999/", b"http://a:x/", b"ttp:x",
    b"http://\xff\xfe\xfd/", b"http://" + b"a" * 64 + b"/", b"http://" + b"a." * 20000 + b"/", b"http://user@a/",
    b"javascript:alert(1)", b"file:///etc/passwd", b"/" + b"a" * (MAX_URL + 1), "http://\u2100.example/".encode(),
    b"http://\0/",
]  # fmt: skip

TAGS = [
    b"\xff\xfe",
    b"a" * 100_000 + b"!: all",
    b":" * 1000,
    b"," * 1000,
    b"otherbot: " * 1000,
    b"unavailable_after: " * 100,
]

TABLE: dict[str, tuple[bytes, Reason | None]] = {
    "plain": (good(), None),
    "early-hints": (good(start=b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK), None),
    "continue": (good(start=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK), None),
    "http-1.0": (good(start=b"HTTP/1.0 200\r\n"), None),
    "203": (good(start=b"HTTP/1.1 203 Non-Authoritative\r\n"), None),
    "broken-header": (good(b"no colon", b"\xff\xfe\0: 1", b": 2"), None),
    "many-headers": (good(*(b"A%d: 1" % number for number in range(2000))), None),
    "cookies": (good(*[b"Set-Cookie: a=" + b"b" * 5000] * 20), None),
    "types": (good(b"Content-Type: image/png; charset=\xff\xfe; charset=none", b"Content-Type: text/html"), None),
    "no-length": (packed(picture(), b"Content-Length: -5"), None),
    "members": (packed(HALVES), None),
    "members-and-padding": (packed(HALVES + bytes(100)), None),
    "identity-and-gzip": (
        packed(gzip.compress(picture()), b"Content-Encoding: identity\r\nContent-Encoding: gzip"), None,
    ),
    "half-a-member": (packed(HALVES[:-9]), Reason.TRUNCATED_BODY),
    "gzip-gzip": (
        packed(gzip.compress(gzip.compress(picture())), b"Content-Encoding: gzip, gzip"), Reason.NOT_AN_IMAGE,
    ),
    "br": (packed(picture(), b"Content-Encoding: br"), Reason.NOT_AN_IMAGE),
    "zstd": (packed(picture(), b"Content-Encoding: zstd"), Reason.NOT_AN_IMAGE),
    "no-encoding": (packed(picture(), b"Content-Encoding: \xff\xfe"), Reason.NOT_AN_IMAGE),
    "bomb-of-members": (packed(gzip.compress(b"") * 3000), Reason.TOO_MANY_BYTES),
    "bomb": (packed(gzip.compress(bytes(1 << 24))), Reason.TOO_MANY_BYTES),
    "bomb-deflate": (packed(zlib.compress(bytes(1 << 24)), b"Content-Encoding: deflate"), Reason.TOO_MANY_BYTES),
    "bomb-in-the-second-member": (
        packed(gzip.compress(picture()) + gzip.compress(bytes(1 << 24))), Reason.TOO_MANY_BYTES,
    ),
    "packed-nothing": (packed(b""), Reason.EMPTY_BODY),
    "204": (only(b"204 No Content"), Reason.EMPTY_BODY),
    "205": (only(b"205 Reset"), Reason.EMPTY_BODY),
    "204-with-a-body": (good(start=b"HTTP/1.1 204 No Content\r\n"), Reason.EMPTY_BODY),
    "206": (good(b"Content-Range: bytes 0-68/1000", start=b"HTTP/1.1 206 Partial Content\r\n"), Reason.TRUNCATED_BODY),
    "206-bare": (good(start=b"HTTP/1.1 206 Partial Content\r\n"), Reason.TRUNCATED_BODY),
    "101": (only(b"101 Switching Protocols", b"Upgrade: h2c"), Reason.HTTP_UNEXPECTED),
    **{
        str(status): (only(b"%d Elsewhere" % status), Reason.HTTP_UNEXPECTED)
        for status in (300, 301, 302, 303, 304, 305, 307, 308, 399)
    },
    "301-blank": (only(b"301 Moved", b"Location:  "), Reason.HTTP_UNEXPECTED),
    "301-itself": (only(b"301 Moved", b"Location: //"), Reason.TOO_MANY_REDIRECTS),
    "301-itself-again": (only(b"301 Moved", b"Location: http://"), Reason.TOO_MANY_REDIRECTS),
    "301-without-a-host": (only(b"301 Moved", b"Location: http:///none"), Reason.HTTP_CLIENT_ERROR),
    "304-elsewhere": (only(b"304 Not Modified", b"Location: /plain"), Reason.HTTP_UNEXPECTED),
    **{str(status): (only(b"%d No" % status), Reason.HTTP_CLIENT_ERROR) for status in (400, 416, 499)},
    **{
        f"{status:03}": (only(b"%03d What" % status), Reason.HTTP_SERVER_ERROR)
        for status in (0, 99, 500, 599, 600, 999)
    },
    **{
        status: (only(status.encode()), Reason.CONNECTION)
        for status in ("20", "2000", "-200", "+20", "2_0", "abc", "", "\xb2\xb2\xb2")
    },
    "http-2": (b"HTTP/2 200 OK\r\n\r\n", Reason.CONNECTION),
    "icy": (b"ICY 200 OK\r\n\r\n", Reason.CONNECTION),
    "http-0.9": (picture(), Reason.CONNECTION),
    "nothing": (b"", Reason.CONNECTION),
    "half-a-head": (OK + b"Content-Type: image/png\r\n", Reason.CONNECTION),
    "half-a-line": (OK + b"X-Robots-Ta", Reason.CONNECTION),
    "two-lengths": (good(b"Content-Length: 7"), Reason.CONNECTION),
    "huge-length": (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", Reason.TOO_MANY_BYTES),
    "te-gzip": (good(b"Transfer-Encoding: gzip"), Reason.NOT_AN_IMAGE),
    "robots-behind-a-broken-line": (good(b"no colon", b"X-Robots-Tag : noai"), Reason.OPTED_OUT),
    "robots-folded": (good(b"X-Robots-Tag: all,\r\n noai"), Reason.OPTED_OUT),
    **{
        f"pause-{number}": (only(b"503 Busy", b"Retry-After: " + pause), Reason.HTTP_SERVER_ERROR)
        for number, pause in enumerate(PAUSES)
    },
    **{
        f"place-{number}": (only(b"302 Found", b"Location: " + place), Reason.BAD_URL)
        for number, place in enumerate(PLACES)
    },
    **{f"tag-{number}": (good(b"X-Robots-Tag: " + tag), None) for number, tag in enumerate(TAGS)},
}  # fmt: skip
"""Answers by a name, with the reason that an address with it is given; None where the picture is kept."""


def test_a_partition_of_hostile_answers_ends_and_loses_nothing_that_is_good(tmp_path):
    answers = {f"/{number}": raw(answer) for number, (answer, _) in enumerate(TABLE.values())}
    expected = {name: reason for name, (_, reason) in TABLE.items()}
    for name, answer in WEB.items():
        answers[f"/{len(answers)}"] = answer
        expected[f"endless {name}"] = ENDLESS[name][2] or Reason.NOT_AN_IMAGE  # `body` is no picture
    answers["/good.png"] = STANDARD["/good.png"]
    with Web(answers) as web:
        pausing = "http://pausing.test/"  # its addresses do not wait for each other, as it has a mirror
        rows = [
            {
                **dict.fromkeys(IMAGES.names),
                "image": image,
                "url": f"{pausing}{image}" if name.startswith("pause") else web.url(f"/{image}"),
            }
            for image, name in enumerate(expected)
        ]
        rows += [
            {**dict.fromkeys(IMAGES.names), "image": len(rows) + more, "url": web.url(f"/good.png?{more}")}
            for more in range(20)
        ]
        write_rows(tmp_path / "images.parquet", IMAGES, iter(rows))
        out = tmp_path / "out"
        out.mkdir()
        fetch = Fetch(
            allow_hosts=(web.host,),
            mirrors={pausing: web.url("/")},
            timeout_s=30,
            deadline_s=60,
            retries=0,
            threads=16,
            max_bytes=LIMIT,
        )
        counts = fetch.run({"images.parquet": tmp_path / "images.parquet"}, out)
        found = list(read_rows(out / "images.parquet"))
        asked = [visit.path for visit in web.asked()]
        assert all(asked.count(f"/good.png?{more}") == 1 for more in range(20)), (
            "in one process, which nothing has ended"
        )
    assert {name: row["reason"] for name, row in zip(expected, found, strict=False)} == expected
    kept = [row["bytes"] for row in found if row["reason"] is None]
    assert set(kept) == {picture()}
    assert counts["fetched"].to_json()["kept"] == len(kept) == 20 + sum(reason is None for reason in expected.values())
    assert all(row["detail"].isprintable() and len(row["detail"]) <= 200 for row in found if row["reason"])
