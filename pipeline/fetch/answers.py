"""What an HTTP answer is worth: may it be used, does it unpack, is it an image at all.

Part of fetch. Pure functions of headers and bytes. Whether an image can be decoded is found out later, by inspect.
"""

from __future__ import annotations

import re
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING

from pipeline.fetch.address import Failed
from pipeline.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_REFUSALS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Words of X-Robots-Tag that opt an image out; `none` is short for `noindex, nofollow`."""

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Words of X-Robots-Tag whose colon does not follow a crawler's name."""

_NAME = re.compile(r"[\w*.-]*[a-z*][\w*.-]*")
"""A crawler's name has a letter and no spaces, other than the hour of a date that a comma split off."""


def opted_out(headers: Iterable[str], crawler: str) -> str | None:
    """The word by which X-Robots-Tag headers keep an image from `crawler` (lower case), or None.

    A name before a word scopes it and those after it, up to the next name or the end of the header:
    `otherbot: noai, vlmill: noindex`. Words without a name are for everybody.
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


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """A body without its Content-Encoding. We ask for none; some stores have nothing else.

    Raises:
        Failed: TOO_MANY_BYTES past `limit` bytes (no more are unpacked), TRUNCATED_BODY, or NOT_AN_IMAGE for another encoding.
    """
    if encoding in {"", "identity"}:
        return data
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise Failed(Reason.NOT_AN_IMAGE, f"Content-Encoding {encoding!r}, which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # + 32: a zlib or a gzip header
    try:
        plain = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise Failed(Reason.NOT_AN_IMAGE, f"Content-Encoding {encoding}: {error}") from None
    if len(plain) > limit:
        raise Failed(Reason.TOO_MANY_BYTES, f"over {limit} bytes when unpacked")
    if not unpacker.eof:
        raise Failed(Reason.TRUNCATED_BODY, f"Content-Encoding {encoding}: the body ends early", again=True)
    return plain


def check_image(data: bytes, media_type: str) -> None:
    """Accept what Pillow may open: a signature that one of its formats knows, or, for those without one, `image/*`.

    Markup is none whatever it calls itself: pages that servers send in place of an image, and SVG.

    Raises:
        Failed: EMPTY_BODY or NOT_AN_IMAGE.
    """
    if not data:
        raise Failed(Reason.EMPTY_BODY, "0 bytes")
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    declared = media_type.startswith("image/") and media_type != "image/svg+xml"
    if start.startswith(b"<") or not (declared or _has_signature(data[:16])):
        raise Failed(Reason.NOT_AN_IMAGE, f"{media_type or 'no media type'}, starts with {start[:24]!r}")


def _has_signature(prefix: bytes) -> bool:
    """Whether a format that Pillow can open accepts these 16 bytes (it answers with a text when it lacks the codec)."""
    answers = (accept(prefix.ljust(16, b"\0")) for accept in signatures())
    return any(answer and not isinstance(answer, str) for answer in answers)


@cache
def signatures() -> list[Callable[[bytes], bool | str]]:
    """Pillow's tests of an image's first bytes. The first call imports all its plugins, which no two threads may do at once."""
    from PIL import Image  # noqa: PLC0415 - 40 ms, and only the process that downloads needs them

    Image.init()
    return [accept for _, accept in Image.OPEN.values() if accept]


def asked_pause(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if there is none that can be read."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return None
