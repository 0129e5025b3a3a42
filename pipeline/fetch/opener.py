"""Opens one address safely: bounds on where it leads, how long it takes and how much comes.

Part of fetch. Nothing here reads the environment (no proxies) or knows a scheme but http and https. Names are resolved once per
request, every address is checked, and the connection goes to exactly a checked one, while the certificate is checked against
the name. Redirects go through the same door.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.fetch.address import Failed, Resolver, Target, mirrored, parse, redirected, resolve
from pipeline.fetch.answers import asked_pause, check_image, opted_out, signatures, unpacked
from pipeline.fetch.opt_outs import OptOuts
from pipeline.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.fetch import Fetch

NOTHING = OptOuts()
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
BUSY = frozenset({408, 425, 429})
"""Client errors that pass: request time-out, too early, too many requests."""

FIRST_PAUSE_S = 0.5
"""Before the first retry; doubled for each further one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An image as it came."""

    data: bytes
    media_type: str  # as declared, lower case, without parameters; empty where none was


class Clock:
    """How long an address may still take: `timeout_s` for each wait, `deadline_s` for everything together."""

    def __init__(self, timeout_s: float, deadline_s: float) -> None:
        self.timeout_s, self.deadline_s, self.end = timeout_s, deadline_s, time.monotonic() + deadline_s

    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.end - time.monotonic()

    def wait(self) -> float:
        """Seconds that the next wait on the network may take. Raises TimeoutError after the deadline."""
        left = self.left()
        if left <= 0:
            raise TimeoutError
        return min(left, self.timeout_s)

    def verdict(self) -> str:
        """Which of the two limits a TimeoutError was about."""
        return f"silent for {self.timeout_s:g} s" if self.left() > 0 else f"not done after {self.deadline_s:g} s"


class Wire(io.RawIOBase):
    """A connected socket, whose every wait the clock bounds; all that http.client.HTTPResponse wants of one."""

    def __init__(self, connection: socket.socket, clock: Clock) -> None:
        self.connection, self.clock = connection, clock

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase. Raises OSError, TimeoutError among them."""
        self.connection.settimeout(self.clock.wait())
        return self.connection.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        self.connection.settimeout(self.clock.wait())
        self.connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """A reader over what comes; http.client asks for mode `rb`."""
        assert mode == "rb"
        return io.BufferedReader(self, 1 << 16)


class Opener:
    """Opens addresses by the rules of a fetch step. Any number of threads may share one.

    Whoever calls it has left out the addresses that are `listed` as opted out; it follows no redirect to one.
    """

    def __init__(self, rules: Fetch, resolver: Resolver = socket.getaddrinfo, listed: OptOuts = NOTHING) -> None:
        signatures()  # loaded before any thread asks
        self.rules, self.listed, self.resolver = rules, listed, resolver
        self.tls = ssl.create_default_context()
        self.mirrors = {parse(prefix).url: parse(mirror).url for prefix, mirror in rules.mirrors.items()}
        self.allowed = {host.lower() for host in rules.allow_hosts} | {
            parse(mirror).endpoint for mirror in self.mirrors.values()
        }

    def open(self, url: str) -> Answer:
        """The image at `url`, tried again with growing pauses where that may help and the deadline leaves time.

        Raises:
            Failed: says why there is none.
        """
        clock, attempt = Clock(self.rules.timeout_s, self.rules.deadline_s), 0
        while True:
            try:
                return self._attempt(url, clock)
            except Failed as failed:
                pause = FIRST_PAUSE_S * 2**attempt if failed.pause is None else failed.pause
                attempt += 1
                if not failed.again or attempt > self.rules.retries or pause >= clock.left():
                    raise
                time.sleep(pause)

    def _attempt(self, url: str, clock: Clock) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            with _failures(clock), self._exchange(parse(mirrored(url, self.mirrors)), clock) as response:
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or location is None:
                    return self._answer(response)
            url = redirected(url, location)
            if self.listed.names(url):
                raise Failed(Reason.OPT_OUT_LIST, f"redirected to {url}, which is on a list of opt-outs")
        raise Failed(Reason.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS}")

    @contextmanager
    def _exchange(self, target: Target, clock: Clock) -> Iterator[http.client.HTTPResponse]:
        """Send a request and read the answer's head."""
        with self._connect(target, clock) as connection:
            wire = Wire(connection, clock)
            wire.sendall(
                f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: {self.rules.user_agent}\r\n"
                "Accept: image/*, */*;q=0.5\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            with http.client.HTTPResponse(wire, method="GET") as response:  # type: ignore[arg-type]
                response.begin()
                yield response

    def _connect(self, target: Target, clock: Clock) -> socket.socket:
        """A connection to the first checked address that takes one, with TLS for the target's name where it is https."""
        refusal: OSError = ConnectionError(f"{target.host} has no address")
        for family, address in resolve(target, self.allowed, self.resolver):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(clock.wait())
                connection.connect(address)
                return self._secured(connection, target, clock)
            except OSError as error:
                connection.close()
                refusal = error
        raise refusal

    def _secured(self, connection: socket.socket, target: Target, clock: Clock) -> socket.socket:
        if target.scheme == "http":
            return connection
        connection.settimeout(clock.wait())
        return self.tls.wrap_socket(connection, server_hostname=target.host)

    def _answer(self, response: http.client.HTTPResponse) -> Answer:
        status, headers, limit = response.status, response.headers, self.rules.max_bytes
        if not 200 <= status < 300:
            reason = Reason.HTTP_CLIENT_ERROR if 400 <= status < 500 else Reason.HTTP_SERVER_ERROR
            again = status in BUSY or status >= 500
            raise Failed(reason, f"HTTP {status}", again=again, pause=asked_pause(headers.get("Retry-After")))
        crawler = self.rules.user_agent.partition("/")[0].lower()
        word = opted_out(headers.get_all("X-Robots-Tag", []), crawler) if self.rules.honour_robots else None
        if word:
            raise Failed(Reason.OPTED_OUT, f"X-Robots-Tag: {word}")
        data = unpacked(_body(response, limit), headers.get("Content-Encoding", "").strip().lower(), limit)
        media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()[:100]
        check_image(data, media_type)
        return Answer(data, media_type)


def _body(response: http.client.HTTPResponse, limit: int) -> bytes:
    """The body, at most `limit` bytes of it, and all that was promised."""
    promised = response.length
    if promised is not None and promised > limit:
        raise Failed(Reason.TOO_MANY_BYTES, f"{promised} bytes promised, {limit} allowed")
    data = response.read(limit + 1)
    if len(data) > limit:
        raise Failed(Reason.TOO_MANY_BYTES, f"over {limit} bytes")
    if promised is not None and len(data) < promised:  # a bounded read of http.client does not tell
        raise Failed(Reason.TRUNCATED_BODY, f"{len(data)} of {promised} bytes", again=True)
    return data


@contextmanager
def _failures(clock: Clock) -> Iterator[None]:
    """Name what the network raises."""
    try:
        yield
    except TimeoutError:
        raise Failed(Reason.TIMED_OUT, clock.verdict(), again=True) from None
    except ssl.SSLCertVerificationError as error:
        raise Failed(Reason.CONNECTION, f"certificate: {error.verify_message}") from None
    except http.client.IncompleteRead:
        raise Failed(Reason.TRUNCATED_BODY, "it ends within a chunk", again=True) from None
    except OSError as error:
        raise Failed(Reason.CONNECTION, error.strerror or str(error), again=True) from None
    except http.client.HTTPException as error:
        raise Failed(Reason.CONNECTION, f"not HTTP: {type(error).__name__} {error}", again=True) from None
