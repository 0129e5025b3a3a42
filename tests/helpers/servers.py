"""A web server on loopback with good and hostile answers, for tests. It ends every thread that it starts."""

from __future__ import annotations

import gzip
import io
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def picture(shade: int = 0) -> bytes:
    """A small PNG, another one for each shade."""
    file = io.BytesIO()
    Image.new("L", (8, 8), shade).save(file, "PNG")
    return file.getvalue()


class Visit(BaseHTTPRequestHandler):
    """One request. An answer is a function of it."""

    protocol_version = "HTTP/1.1"
    server: _Server
    body = b""

    def do_POST(self) -> None:
        """The same with a body."""
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:
        """Note the request and give the path's answer; 404 where there is none."""
        self.close_connection = True
        path = self.path.partition("?")[0]
        with self.server.lock:
            self.server.seen.append(self)
        with suppress(ConnectionError, ssl.SSLError):  # the client has had enough, which many answers here are about
            self.server.answers.get(path, missing)(self)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def head(self, status: int = 200, **headers: str | int) -> None:
        """Send a status and headers (`Content_Type="image/png"`) and nothing else."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if self.command == "POST":  # a client of many requests would take it for kept alive
            self.send_header("Connection", "close")
        self.end_headers()

    def pause(self, seconds: float) -> bool:
        """Wait; True if the server is closing, and the answer should end."""
        return self.server.closing.wait(seconds)


Answer = Callable[[Visit], None]


def whole(body: bytes = b"", status: int = 200, **headers: str | int) -> Answer:
    """An answer with all its bytes."""

    def answer(visit: Visit) -> None:
        visit.head(status, **{"Content_Type": "image/png", "Content_Length": len(body), **headers})
        visit.wfile.write(body)

    return answer


def ranged(body: bytes) -> Answer:
    """An answer with the bytes that are asked for, as object storage gives them."""

    def answer(visit: Visit) -> None:
        first, last = map(int, visit.headers["Range"].removeprefix("bytes=").split("-"))
        part = body[first : last + 1]
        where = f"bytes {first}-{last}/{len(body)}"
        visit.head(206, Content_Type="application/x-tar", Content_Length=len(part), Content_Range=where)
        visit.wfile.write(part)

    return answer


def moved(location: str, status: int = 302) -> Answer:
    """A redirect."""
    return whole(b"", status, Location=location)


def later(seconds: float, answer: Answer) -> Answer:
    """The same answer after a while."""

    def wait(visit: Visit) -> None:
        if not visit.pause(seconds):
            answer(visit)

    return wait


def first(times: int, bad: Answer, good: Answer) -> Answer:
    """A bad answer so many times, then a good one."""
    asked = [0]

    def answer(visit: Visit) -> None:
        with visit.server.lock:
            asked[0] += 1
        (bad if asked[0] <= times else good)(visit)

    return answer


def missing(visit: Visit) -> None:
    """HTTP 404."""
    whole(b"not found", 404, Content_Type="text/plain")(visit)


def silent(visit: Visit) -> None:
    """Not a byte."""
    visit.pause(30)


def hang(visit: Visit) -> None:
    """Headers, then nothing."""
    visit.head(Content_Type="image/png", Content_Length=1000)
    visit.pause(30)


def _drip(visit: Visit, start: bytes) -> None:
    for byte in start + b"\x89" * 600:
        visit.wfile.write(bytes([byte]))
        if visit.pause(0.05):
            return


def drip(visit: Visit) -> None:
    """A byte of the body every 0.05 s, 30 s long."""
    visit.head(Content_Type="image/png", Content_Length=1000)
    _drip(visit, b"")


def drip_headers(visit: Visit) -> None:
    """A byte of the headers every 0.05 s."""
    _drip(visit, b"HTTP/1.1 200 OK\r\n")


def endless(visit: Visit) -> None:
    """A body without a length that does not end."""
    visit.head(Content_Type="image/png")
    while not visit.pause(0):
        visit.wfile.write(b"\x89" * 65536)


def endless_chunks(visit: Visit) -> None:
    """Chunks that do not end."""
    visit.head(Content_Type="image/png", Transfer_Encoding="chunked")
    while not visit.pause(0):
        visit.wfile.write(b"10000\r\n" + b"\x89" * 65536 + b"\r\n")


def chunked(visit: Visit) -> None:
    """A picture in chunks of 10 bytes."""
    visit.head(Content_Type="image/png", Transfer_Encoding="chunked")
    for start in range(0, len(picture()), 10):
        part = picture()[start : start + 10]
        visit.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
    visit.wfile.write(b"0\r\n\r\n")


def truncated(visit: Visit) -> None:
    """Half of the bytes promised."""
    visit.head(Content_Type="image/png", Content_Length=len(picture()))
    visit.wfile.write(picture()[: len(picture()) // 2])


def truncated_chunk(visit: Visit) -> None:
    """Half a chunk."""
    visit.head(Content_Type="image/png", Transfer_Encoding="chunked")
    visit.wfile.write(b"100\r\n" + picture())


def hang_up(visit: Visit) -> None:
    """The connection is closed without a word."""


def nonsense(visit: Visit) -> None:
    """Not HTTP."""
    visit.wfile.write(b"220 smtp.example.org ESMTP\r\n")


def gzip_bomb(visit: Visit) -> None:
    """16 MB of zeros in 16 kB."""
    whole(gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(1 << 24)), Content_Encoding="gzip")(visit)


def raw(answer: bytes) -> Answer:
    """These bytes and no others."""

    def write(visit: Visit) -> None:
        visit.wfile.write(answer)

    return write


def forever(start: bytes, again: bytes) -> Answer:
    """`start`, and then `again` without end."""

    def write(visit: Visit) -> None:
        visit.wfile.write(start)
        while not visit.pause(0):
            visit.wfile.write(again * (1 + 65536 // len(again)))

    return write


HTML = b"<!doctype html><title>Sign in</title><p>Not an image."
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'

STANDARD: Mapping[str, Answer] = {
    "/good.png": whole(picture()),
    "/chunked.png": chunked,
    "/packed.png": whole(gzip.compress(picture()), Content_Encoding="gzip"),
    "/half-packed.png": whole(gzip.compress(picture())[:-12], Content_Encoding="gzip"),
    "/brotli.png": whole(picture(), Content_Encoding="br"),
    "/not-packed.png": whole(picture(), Content_Encoding="gzip"),
    "/bomb.png": gzip_bomb,
    "/silent.png": silent,
    "/hang.png": hang,
    "/drip.png": drip,
    "/drip-headers.png": drip_headers,
    "/endless.png": endless,
    "/endless-chunks.png": endless_chunks,
    "/large.png": whole(picture() + bytes(1 << 17)),
    "/truncated.png": truncated,
    "/truncated-chunk.png": truncated_chunk,
    "/hang-up.png": hang_up,
    "/nonsense.png": nonsense,
    "/loop.png": moved("/loop.png"),
    "/moved.png": moved("good.png", 308),
    "/no-location.png": whole(b"", 302),
    "/metadata.png": moved("http://169.254.169.254/latest/meta-data/"),
    "/file.png": moved("file:///etc/passwd"),
    "/loopback.png": moved("http://127.0.0.1:1/"),
    "/localhost.png": moved("http://localhost:1/"),
    "/noai.png": whole(picture(), X_Robots_Tag="noai, noimageai"),
    "/noai-other.png": whole(picture(), X_Robots_Tag="otherbot: noai"),
    "/noai-ours.png": whole(picture(), X_Robots_Tag="otherbot: nofollow, vlmill: noai"),
    "/noai-dated.png": whole(picture(), X_Robots_Tag="unavailable_after: 25 Jun 2010 15:00:00 PST, noai"),
    "/error.png": whole(b"error", 500),
    "/forbidden.png": whole(b"no", 403),
    "/busy.png": whole(b"", 429, Retry_After="3600"),
    "/empty.png": whole(b""),
    "/html.jpg": whole(HTML, Content_Type="text/html"),
    "/html-as-image.jpg": whole(b"\xef\xbb\xbf \n" + HTML, Content_Type="image/jpeg"),
    "/svg.svg": whole(SVG, Content_Type="image/svg+xml"),
    "/no-type.png": whole(picture(), Content_Type=""),
    "/text.png": whole(b"temporarily moved", Content_Type="text/plain"),
}
"""A good answer, and every way in which we have seen one go wrong, by path."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.answers, self.seen, self.lock, self.closing = (
            dict(answers),
            list[Visit](),
            threading.Lock(),
            threading.Event(),
        )

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up, or does not like the certificate, is no news."""


class Web:
    """The server while the `with` block lasts. `answers` may be changed meanwhile."""

    def __init__(self, answers: Mapping[str, Answer] = STANDARD, certificate: Path | None = None) -> None:
        self._server = _Server(answers)
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def host(self) -> str:
        """`127.0.0.1:<port>`."""
        return f"127.0.0.1:{self.port}"

    @property
    def answers(self) -> dict[str, Answer]:
        """By path."""
        return self._server.answers

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"{self.scheme}://{self.host}{path}"

    def asked(self, path: str | None = None) -> list[Visit]:
        """The requests so far, or those for one path (with its query)."""
        with self._server.lock:
            return [visit for visit in self._server.seen if path in {None, visit.path}]
