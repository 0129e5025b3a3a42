"""Reads one HTTP/1 answer, head and body, within bounds that no server can lift.

Part of fetch. Functions of a reader, which knows nothing of sockets. Why not http.client: it reads a chunk of size -1
to its end, skips 100 and no other 1xx, takes a head that breaks off for a whole one, loses all headers behind a line
without a colon, and keeps reading trailers for as long as they come.

    head      at most `MAX_HEAD` bytes, those of earlier 1xx answers included
    body      at most the bytes allowed; a promise of more is refused before anything is read
    chunks    lines of at most `MAX_LINE` bytes, together at most `MAX_HEAD` and a sixteenth of the bytes allowed;
              trailers are not read
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.address import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_HEAD = 1 << 18
MAX_LINE = 1 << 10
PIECE = 1 << 16
"""Bytes that are read at once."""

_STATUS = re.compile(rb"HTTP/[01]\.\d+[ \t]+(\d{3})(?:[ \t].*)?", re.DOTALL)
_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;.*)?\r?\n", re.DOTALL)

_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), 127), " ")
"""What must not stand in a header is read as a space (RFC 9110, 5.5); bytes from 128 on may be UTF-8."""


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Status and headers of an answer: names in lower case, values as Latin-1, in the order they came."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()

    def get_all(self, name: str) -> list[str]:
        """The values of all headers called `name` (lower case)."""
        return [value for field, value in self.fields if field == name]

    def get(self, name: str) -> str:
        """The value of the first header called `name` (lower case); empty where there is none."""
        return next(iter(self.get_all(name)), "")

    def words(self, name: str) -> list[str]:
        """What stands between commas in all headers called `name`, in lower case."""
        pieces = ",".join(self.get_all(name)).lower().split(",")
        return [word for piece in pieces if (word := piece.strip())]


def read_head(reader: io.BufferedIOBase) -> AnswerHead:
    """The head of the answer; those of 1xx before it are skipped, but for 101, after which no HTTP is spoken.

    Raises:
        FetchFailed: CONNECTION for what is not HTTP or breaks off, TOO_MANY_BYTES past `MAX_HEAD`.
    """
    left = MAX_HEAD

    def line() -> bytes:
        nonlocal left
        found = reader.readline(left + 1)
        left -= len(found)
        if left < 0:
            raise FetchFailed(Reason.TOO_MANY_BYTES, f"over {MAX_HEAD} bytes before the body")
        if not found.endswith(b"\n"):
            raise FetchFailed(
                Reason.CONNECTION, "closed " + ("within the head" if found else "without an answer"), again=True
            )
        return found.rstrip(b"\r\n")

    while True:
        start = line()
        status = _STATUS.fullmatch(start)
        if not status:
            raise _make_http_failure(f"status line {start[:80]!r}")
        head = AnswerHead(int(status[1]), _parse_headers(iter(line, b"")))
        if not 100 <= head.status < 200 or head.status == 101:
            return head


def _parse_headers(lines: Iterable[bytes]) -> tuple[tuple[str, str], ...]:
    """Headers, folded ones joined. A line without a colon is none, and takes no other with it."""
    fields: list[tuple[str, list[str]]] = []
    values: list[str] = []  # of the header that a folded line goes on with
    for line in lines:
        text = line.decode("latin-1").translate(_CONTROLS)
        if line[:1] in {b" ", b"\t"}:
            values.append(text.strip())
            continue
        name, colon, value = text.partition(":")
        values = [value.strip()]
        if colon:
            fields.append((name.strip().lower(), values))
    return tuple((name, " ".join(values)) for name, values in fields)


def read_body(reader: io.BufferedIOBase, head: AnswerHead, limit: int) -> bytes:
    """The body, at most `limit` bytes of it, and all that was promised.

    Raises:
        FetchFailed: TOO_MANY_BYTES, TRUNCATED_BODY, CONNECTION for what is not HTTP, NOT_AN_IMAGE for a transfer coding
            that was not asked for.
    """
    coding, promised = [word for word in head.words("transfer-encoding") if word != "identity"], None
    if coding == ["chunked"]:
        pieces = _read_chunks(reader, limit)
    elif coding:
        raise FetchFailed(Reason.NOT_AN_IMAGE, f"Transfer-Encoding {', '.join(coding)!r}, which was not asked for")
    else:
        promised = _parse_length(head)
        if promised is not None and promised > limit:
            raise FetchFailed(Reason.TOO_MANY_BYTES, f"{promised} bytes promised, {limit} allowed")
        pieces = _read_pieces(reader, limit + 1 if promised is None else promised)
    body = io.BytesIO()  # not a list: of the smallest pieces that would take 40 times their bytes
    for piece in pieces:
        if body.tell() + len(piece) > limit:
            raise FetchFailed(Reason.TOO_MANY_BYTES, f"over {limit} bytes")
        body.write(piece)
    if promised is not None and body.tell() < promised:
        raise FetchFailed(Reason.TRUNCATED_BODY, f"{body.tell()} of {promised} bytes", again=True)
    return body.getvalue()


def _parse_length(head: AnswerHead) -> int | None:
    """The Content-Length; None where there is none, or none that is a number.

    Raises:
        FetchFailed: CONNECTION where there are two.
    """
    words = [word for word in head.words("content-length") if word.isascii() and word.isdecimal()]
    lengths = {int(word.lstrip("0")[:20] or "0") for word in words}  # 20 digits are too many for any body
    if len(lengths) > 1:
        raise _make_http_failure(f"Content-Length {' and '.join(map(str, sorted(lengths)))}")
    return next(iter(lengths), None)


def _read_pieces(reader: io.BufferedIOBase, size: int) -> Iterator[bytes]:
    """The next `size` bytes, or what there is of them."""
    while size and (piece := reader.read(min(size, PIECE))):
        size -= len(piece)
        yield piece


def _read_chunks(reader: io.BufferedIOBase, limit: int) -> Iterator[bytes]:
    """The bytes of a chunked body (RFC 9112, 7.1), up to its last chunk."""
    framing = MAX_HEAD + limit // 16
    while True:
        line = reader.readline(MAX_LINE)
        size, framing = _parse_size(line), framing - len(line)
        if not size:
            return
        if framing < 0:
            raise FetchFailed(Reason.TOO_MANY_BYTES, f"over {MAX_HEAD + limit // 16} bytes of chunk sizes")
        if size > limit:
            raise FetchFailed(Reason.TOO_MANY_BYTES, f"a chunk of {size} bytes, {limit} allowed")
        for piece in _read_pieces(reader, size):
            size -= len(piece)
            yield piece
        end = reader.readline(2)
        if size or end in {b"", b"\r"}:
            raise _cut_chunk()
        if end not in {b"\r\n", b"\n"}:
            raise _make_http_failure(f"{end!r} after a chunk")


def _parse_size(line: bytes) -> int:
    found = _SIZE.fullmatch(line)
    if found:
        return int(found[1], 16)
    raise (
        _make_http_failure(f"chunk size {line[:80]!r}")
        if line.endswith(b"\n") or len(line) == MAX_LINE
        else _cut_chunk()
    )


def _cut_chunk() -> FetchFailed:
    return FetchFailed(Reason.TRUNCATED_BODY, "it ends within a chunk", again=True)


def _make_http_failure(what: str) -> FetchFailed:
    return FetchFailed(Reason.CONNECTION, f"not HTTP: {what}", again=True)
