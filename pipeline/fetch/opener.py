"""Opens one address safely: bounds on where it leads, how long it takes and how much comes.

Part of fetch. Nothing here reads the environment (no proxies) or knows a scheme but http and https. Names are resolved
once per request, every address is checked, and the connection goes to exactly a checked one, while the certificate is
checked against the name. Redirects go through the same door.
"""

from __future__ import annotations

import errno
import io
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.address import (
    FetchFailed,
    Resolver,
    Target,
    apply_mirror,
    parse_address,
    resolve_host,
    resolve_redirect,
)
from vlmill.pipeline.fetch.answers import BUSY, check_image, check_status, decode_body, list_signatures
from vlmill.pipeline.fetch.message import PIECE, AnswerHead, read_body, read_head
from vlmill.pipeline.fetch.opt_outs import OptOuts
from vlmill.pipeline.fetch.politeness import Politeness
from vlmill.pipeline.fetch.reservations import find_header_reservation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vlmill.pipeline.fetch import Fetch
    from vlmill.pipeline.fetch.host_files import HostRules

T = TypeVar("T")
Take = Callable[[AnswerHead, io.BufferedIOBase], T]
"""What is made of an answer."""
NOTHING = OptOuts()
MOST = 8
"""Times the bytes that are wanted of a file, which may come."""
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
FIRST_PAUSE_S = 0.5
"""Before the first retry; doubled for each further one, unless the server asks for another pause. None reaches beyond
`deadline_s`."""


@dataclass(frozen=True, slots=True)
class FetchedImage:
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


class ClockedSocket(io.RawIOBase):
    """A connected socket, whose every wait the clock bounds."""

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


class Opener:
    """Opens addresses by the rules of a fetch step. Any number of threads may share one.

    Whoever calls it has left out the addresses that are `listed` as opted out; it follows no redirect to one.
    """

    def __init__(
        self,
        rules: Fetch,
        resolver: Resolver = socket.getaddrinfo,
        listed: OptOuts = NOTHING,
        hosts: HostRules | None = None,
        politeness: Politeness | None = None,
    ) -> None:
        list_signatures()  # loaded before any thread asks
        self.rules, self.listed, self.resolver, self.hosts = rules, listed, resolver, hosts
        self.politeness = politeness or Politeness(rules.per_host)
        self.tls = ssl.create_default_context()
        self.mirrors = {
            parse_address(prefix).url: parse_address(mirror).url for prefix, mirror in rules.mirrors.items()
        }
        self.allowed = frozenset(host.lower() for host in rules.allow_hosts)

    def open(self, url: str) -> FetchedImage:
        """The image at `url`, tried again with growing pauses where that may help and the deadline leaves time.

        Raises:
            FetchFailed: says why there is none; nothing else is raised, whatever a server says.
        """
        return self._run_guarded(url, self._answer)

    def read_file(self, url: str, limit: int) -> bytes | None:
        """The first bytes of a file at `url`, at most `limit`; None where the host says that there is none (4xx).

        Raises:
            FetchFailed: as `open`.
        """

        def take(head: AnswerHead, reader: io.BufferedIOBase) -> bytes | None:
            if head.status // 100 == 4 and head.status not in BUSY:
                return None
            check_status(head.status, head.get("retry-after"))
            encoding = ", ".join(word for word in head.words("content-encoding") if word != "identity")
            return decode_body(read_body(reader, head, MOST * limit), encoding, MOST * limit)[:limit]

        return self._run_guarded(url, take)

    def _run_guarded(self, url: str, take: Take[T]) -> T:
        with suppress(MemoryError):  # left first, for what it was about to be let go
            try:
                with self._take_turn(url):
                    return self._tried(url, take)
            except (FetchFailed, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - it is about this address, and no more
                raise FetchFailed(Reason.FETCH_ERROR, f"{type(error).__name__}: {error}") from None
        raise FetchFailed(Reason.OUT_OF_MEMORY, "the downloading process may hold no more")

    def _take_turn(self, url: str) -> AbstractContextManager[None]:
        """Wait until the host of an address may be asked; what stands in for hosts is the user's own."""
        if apply_mirror(url, self.mirrors) != url:
            return nullcontext()
        return self.politeness.ask_host(parse_address(url).host)

    def _tried(self, url: str, take: Take[T]) -> T:
        clock, attempt = Clock(self.rules.timeout_s, self.rules.deadline_s), 0
        while True:
            try:
                return self._attempt(url, clock, take)
            except FetchFailed as failed:
                pause = FIRST_PAUSE_S * 2**attempt if failed.pause is None else failed.pause
                attempt += 1
                if not failed.again or attempt > self.rules.retries or pause >= clock.left():
                    raise
                time.sleep(pause)

    def _attempt(self, url: str, clock: Clock, take: Take[T]) -> T:
        for _ in range(MAX_REDIRECTS + 1):
            with _name_failures(clock), self._exchange(*self._choose_target(url), clock) as reader:
                head = read_head(reader)
                location = head.get("location") if head.status in REDIRECTS else ""
                if not location:
                    return take(head, reader)
            url = resolve_redirect(url, location)
            if self.listed.names(url):
                raise FetchFailed(Reason.OPT_OUT_LIST, f"redirected to {url}, which is on a list of opt-outs")
            if self.hosts and (kept := self.hosts.find(url)):
                raise FetchFailed(kept[0], f"redirected to {url}: {kept[1]}")
        raise FetchFailed(Reason.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS}")

    def _choose_target(self, url: str) -> tuple[Target, frozenset[str]]:
        """Where to ask for an address, and which hosts may be private.

        A mirror is one of them for what it stands for, and not for who names or redirects to it by itself.
        """
        mirrored = apply_mirror(url, self.mirrors)
        target = parse_address(mirrored)
        return target, self.allowed if mirrored == url else self.allowed | {target.endpoint}

    @contextmanager
    def _exchange(self, target: Target, allowed: frozenset[str], clock: Clock) -> Iterator[io.BufferedIOBase]:
        """Send a request; the answer is there to read."""
        with self._connect(target, allowed, clock) as connection:
            wire = ClockedSocket(connection, clock)
            wire.sendall(
                f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: {self.rules.user_agent}\r\n"
                "Accept: image/*, */*;q=0.5\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            with io.BufferedReader(wire, PIECE) as reader:
                yield reader

    def _connect(self, target: Target, allowed: frozenset[str], clock: Clock) -> socket.socket:
        """A connection to the first checked address that accepts one, with TLS for the target's name under https."""
        refusal: OSError = ConnectionError(f"{target.host} has no address")
        for family, address in resolve_host(target, allowed, self.resolver):
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

    def _answer(self, head: AnswerHead, reader: io.BufferedIOBase) -> FetchedImage:
        limit = self.rules.max_bytes
        check_status(head.status, head.get("retry-after"))
        if self.rules.honour_robots and (kept := find_header_reservation(head, self.rules.agent)):
            raise FetchFailed(*kept)
        encoding = ", ".join(word for word in head.words("content-encoding") if word != "identity")
        data = decode_body(read_body(reader, head, limit), encoding, limit)
        media_type = head.get("content-type").partition(";")[0].strip().lower()[:100]
        check_image(data, media_type)
        return FetchedImage(data, media_type)


@contextmanager
def _name_failures(clock: Clock) -> Iterator[None]:
    """Name what the network raises."""
    try:
        yield
    except TimeoutError:
        raise FetchFailed(Reason.TIMED_OUT, clock.verdict(), again=True) from None
    except ssl.SSLCertVerificationError as error:
        raise FetchFailed(Reason.CONNECTION, f"certificate: {error.verify_message}") from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from None
        raise FetchFailed(Reason.CONNECTION, error.strerror or str(error), again=True) from None
