"""What an HTTP answer is worth: may it be used, does it unpack, is it an image at all.

Part of fetch. Pure functions of headers and bytes. Whether an image can be decoded is found out later, by image stats.
"""

from __future__ import annotations

import io
import re
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.address import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_REFUSALS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Words of X-Robots-Tag that opt an image out; `none` is short for `noindex, nofollow`."""

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Words of X-Robots-Tag whose colon does not follow a crawler's name."""

_NAME = re.compile(r"(?=.*[a-z*])[\w*.-]+")  # in linear time on any text
"""A crawler's name has a letter and no spaces, other than the hour of a date that a comma split off."""

BUSY = frozenset({408, 425, 429})
"""Client errors that pass: request time-out, too early, too many requests."""

PARTS = frozenset({206, 226})
"""Answers that are a part of a thing, or what has changed of it; neither is asked for."""

_GZIP = b"\x1f\x8b"
_FED, _GIVEN = 1 << 14, 1 << 16
"""Packed bytes that are unpacked at once, and the most that are made of them at once."""


def check_status(status: int, retry_after: str | None = None) -> None:
    """Accept an answer that has an image whole: 2xx, but for those that have no body or a part.

    Raises:
        FetchFailed: EMPTY_BODY for 204 and 205, TRUNCATED_BODY for `PARTS`, HTTP_CLIENT_ERROR, HTTP_UNEXPECTED for what
            is neither an image nor an error, HTTP_SERVER_ERROR for 5xx and what no range knows, as RFC 9110, 15 has it.
    """
    detail, pause = f"HTTP {status}", parse_retry_after(retry_after)
    match status // 100:
        case 2 if status in PARTS:
            raise FetchFailed(Reason.TRUNCATED_BODY, f"{detail}, a part that was not asked for")
        case 2 if status in {204, 205}:
            raise FetchFailed(Reason.EMPTY_BODY, detail)
        case 2:
            return
        case 1 | 3:
            raise FetchFailed(Reason.HTTP_UNEXPECTED, detail)
        case 4:
            raise FetchFailed(Reason.HTTP_CLIENT_ERROR, detail, again=status in BUSY, pause=pause)
        case _:
            raise FetchFailed(Reason.HTTP_SERVER_ERROR, detail, again=True, pause=pause)


def find_opt_out(headers: Iterable[str], crawler: str) -> str | None:
    """The word by which X-Robots-Tag headers keep an image from `crawler` (lower case), or None.

    A name before a word scopes it and those after it, up to the next name or the end of the header:
    `otherbot: noai, vlmill: noindex`. Words without a name are for all clients.
    """
    for header in headers:
        scope = "*"
        for part in header.lower().split(","):
            name, colon, rest = (piece.strip() for piece in part.partition(":"))
            if colon and name not in _WITH_VALUE and _NAME.fullmatch(name):
                scope = name
            word = rest if colon else name
            if scope in {"*", crawler} and word in _REFUSALS:
                return word
    return None


def decode_body(data: bytes, encoding: str, limit: int) -> bytes:
    """A body without its Content-Encoding. We ask for none; some stores have nothing else.

    A gzip file may have many members (RFC 1952, 2.2); what follows the last and is none is left out.

    Raises:
        FetchFailed: TOO_MANY_BYTES past `limit` bytes (no more are unpacked) or 64 members and one for each KiB of it,
            TRUNCATED_BODY, or NOT_AN_IMAGE for another encoding.
    """
    if encoding in {"", "identity"} or not data:
        return data
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise FetchFailed(Reason.NOT_AN_IMAGE, f"Content-Encoding {encoding!r}, which was not asked for")
    plain, members, end = io.BytesIO(), 0, 0
    try:
        while not members or data.startswith(_GZIP, end):
            members += 1
            if members > 64 + limit // 1024:
                raise FetchFailed(Reason.TOO_MANY_BYTES, f"over {64 + limit // 1024} gzip members")
            end = _unpack_member(data, end, plain, limit)
    except EOFError:
        raise FetchFailed(
            Reason.TRUNCATED_BODY, f"Content-Encoding {encoding}: the body ends early", again=True
        ) from None
    except zlib.error as error:
        raise FetchFailed(Reason.NOT_AN_IMAGE, f"Content-Encoding {encoding}: {error}") from None
    return plain.getvalue()


def _unpack_member(data: bytes, start: int, plain: io.BytesIO, limit: int) -> int:
    """Append what the zlib stream or gzip member at `start` unpacks to, and say where it ends.

    Raises:
        FetchFailed: TOO_MANY_BYTES past `limit` bytes in all.
        EOFError: the data end before it does.
        zlib.error: it is none.
    """
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # + 32: a zlib or a gzip header
    while not unpacker.eof:
        fed = data[start : start + _FED]
        piece = unpacker.decompress(fed, _GIVEN)
        start += len(fed) - len(unpacker.unconsumed_tail) - len(unpacker.unused_data)
        if plain.tell() + len(piece) > limit:
            raise FetchFailed(Reason.TOO_MANY_BYTES, f"over {limit} bytes when unpacked")
        if not (fed or piece or unpacker.eof):
            raise EOFError
        plain.write(piece)
    return start


def check_image(data: bytes, media_type: str) -> None:
    """Accept what Pillow may open: a signature that one of its formats knows, or, for those without one, `image/*`.

    Markup is none whatever it calls itself: pages that servers send in place of an image, and SVG.

    Raises:
        FetchFailed: EMPTY_BODY or NOT_AN_IMAGE.
    """
    if not data:
        raise FetchFailed(Reason.EMPTY_BODY, "0 bytes")
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    declared = media_type.startswith("image/") and media_type != "image/svg+xml"
    if start.startswith(b"<") or not (declared or _has_signature(data[:16])):
        raise FetchFailed(Reason.NOT_AN_IMAGE, f"{media_type or 'no media type'}, starts with {start[:24]!r}")


def _has_signature(prefix: bytes) -> bool:
    """Whether a format that Pillow can open accepts these 16 bytes (it answers with a text when it lacks the codec)."""
    answers = (accept(prefix.ljust(16, b"\0")) for accept in list_signatures())
    return any(answer and not isinstance(answer, str) for answer in answers)


@cache
def list_signatures() -> list[Callable[[bytes], bool | str]]:
    """Pillow's tests of an image's first bytes.

    The first call imports all its plugins, which no two threads may do at once.
    """
    from PIL import Image  # noqa: PLC0415 - 40 ms, and only the process that downloads needs them

    Image.init()
    return [accept for _, accept in Image.OPEN.values() if accept]


def parse_retry_after(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date, 0 and more; None if it is unreadable.

    Any number is possible, infinity too: the opener makes no pause that reaches beyond its deadline.
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:  # the numbers of a date are neither bounded nor checked before they are used
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ArithmeticError, LookupError, TypeError, ValueError):  # TypeError: a date without a zone
        return None
