"""An S3 server in a process of its own on loopback, and a proxy before it that counts and makes faults, for tests."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY, SECRET = "AKIATESTKEY", "a-secret-that-nobody-repeats"

SERVER = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address=sys.argv[1], port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the tests close it, or are killed
"""


@contextmanager
def serve_objects() -> Iterator[int]:
    """The port of an S3 server (moto) that lives as long as the context."""
    command = [sys.executable, "-c", SERVER, "127.0.0.1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def make_bucket(port: int) -> str:
    """A new bucket, and its name."""
    name = f"bucket-{uuid.uuid4().hex}"
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    return name


def name_environment(port: int, address: str = "127.0.0.1") -> dict[str, str]:
    """What a process needs to reach the server."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{address}:{port}",
    }


@dataclass
class Request:
    """A request that came through the proxy."""

    method: str
    path: str  # with the query
    sent: int = 0  # bytes of the body of the answer


Fault = Callable[["_Handler", Request], bool]
"""What is done to a request in the place of passing it on; False passes it on all the same."""


def refuse(status: int, code: str) -> Fault:
    """Answer as S3 does where it refuses."""

    def answer(handler: _Handler, request: Request) -> bool:
        body = b"" if request.method == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
        handler.reply(status, {"Content-Type": "application/xml"}, body)
        return True

    return answer


def wait(seconds: float) -> Fault:
    """Pass it on later."""

    def answer(handler: _Handler, request: Request) -> bool:
        time.sleep(seconds)
        return False

    return answer


def cut(handler: _Handler, request: Request) -> bool:
    """Have the server do it, then close the connection without a word of it."""
    handler.ask(request)
    handler.close_connection = True
    return True


def cut_short(handler: _Handler, request: Request) -> bool:
    """Close the connection in the middle of the body."""
    status, headers, body = handler.ask(request)
    handler.reply(status, headers, body, upto=len(body) // 2)
    return True


@dataclass
class Proxy:
    """A proxy before an S3 server: notes requests, and makes faults where one is set."""

    behind: int
    requests: list[Request] = field(default_factory=list)
    fault: Fault | None = None
    meets: Callable[[Request], bool] = lambda _: True  # which requests have the fault
    left: int = 0  # times that the fault is still made

    def make_faults(self, fault: Fault, times: int, meets: Callable[[Request], bool] = lambda _: True) -> None:
        """Make a fault of the next requests that meet a condition."""
        self.fault, self.left, self.meets = fault, times, meets

    def count_bytes(self, part: str) -> int:
        """Bytes of answers about objects with `part` in their paths."""
        return sum(request.sent for request in self.requests if part in request.path)

    @contextmanager
    def serve(self) -> Iterator[int]:
        """Its port, as long as the context lives."""
        handler = type("Handler", (_Handler,), {"proxy": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    body = b""

    def log_message(self, *_: object) -> None:
        return

    def do_any(self) -> None:
        proxy, request = self.proxy, Request(self.command, self.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        proxy.requests.append(request)
        if proxy.left > 0 and proxy.meets(request):
            proxy.left -= 1
            if proxy.fault(self, request):
                return
        self.reply(*self.ask(request))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815

    def ask(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        """What the server behind answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.behind)
        try:
            connection.request(request.method, request.path, self.body, dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            request.sent = len(body)
            headers = {name: value for name, value in answer.getheaders() if name not in ("Connection", "Server")}
            return answer.status, headers, body
        finally:
            connection.close()

    def reply(self, status: int, headers: dict[str, str], body: bytes, upto: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "date"):
                self.send_header(name, value)
        told = next((value for name, value in headers.items() if name.lower() == "content-length"), len(body))
        self.send_header("Content-Length", str(told if self.command == "HEAD" else len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:upto])
        if upto is not None:
            self.close_connection = True
