"""Images that stand in their own address: `data:image/png;base64,...` (RFC 2397), wherever a row names an image."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.base import Picture


def is_data_uri(address: str | None) -> bool:
    """Whether an address holds what it names."""
    return address is not None and address[:5].lower() == "data:"


BEGINNINGS = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD", "Qk0")
"""Of JPEG, PNG, WebP, GIF and BMP in base64."""
LEAST = 64
"""Letters of such a picture: fewer are a name."""
LONG, VARIED = 256, 16
"""Letters of a file: hardly any file system allows a name of so many (NAME_MAX is 255); and different ones of them."""
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")


def is_base64_picture(text: str | None) -> bool:
    """Whether a text is a picture in base64 without a `data:` before it."""
    return text is not None and text.startswith(BEGINNINGS) and len(text) >= LEAST and bool(BASE64.fullmatch(text))


def is_base64_file(text: str) -> bool:
    """Whether a text is too long for a name, and so is a file in base64, be it a picture or not."""
    if len(text) < LONG or not BASE64.fullmatch(text):
        return False
    return len({*text}) >= VARIED and not len("".join(text.split())) % 4


def read_data_uri(address: str) -> Picture:
    """The picture in a data URI; UNDECODABLE where there is none."""
    head, _, body = address.partition(",")
    if head.lower().endswith(";base64"):
        return read_base64(unquote_to_bytes(body).decode("ascii", "replace") if "%" in body else body)
    data = unquote_to_bytes(body)
    return Picture(data=data) if data else Picture(reason=Reason.UNDECODABLE, detail="an empty data URI")


def read_base64(text: str) -> Picture:
    """The picture that a string in base64 is, UNDECODABLE where it is none; white space around or in it is ignored."""
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    return Picture(data=data) if data else Picture(reason=Reason.UNDECODABLE, detail="no base64")
