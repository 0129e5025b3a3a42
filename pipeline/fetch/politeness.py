"""How often one downloading process asks a host: so many addresses at a time, and fewer where the host fails.

Part of fetch. `Politeness` bounds the addresses of a host that are open at once. Each failure that may pass halves that
bound, down to one, each answer raises it by one again; a pause that the host asks for holds for all of its addresses;
one that has answered nothing `GIVE_UP` times in a row is asked no more. `NameCache` looks a name up once.
`spread_hosts` orders addresses so that threads meet different hosts.

Hosts that failed often are told to the processes that begin later (host_limits.py).

A build divides the bound of its recipe (`fetch.per_host`) by the number of processes that download at once on all
nodes, and runs no more of them than that bound, so the bound holds for the whole cluster.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.address import FetchFailed, Resolver
from vlmill.pipeline.fetch.host_limits import HostLimit

GIVE_UP = 20
"""Addresses of a host in a row that may fail without an answer before the others fail without a request."""

LONGEST_PAUSE_S = 30.0
"""Of those that a host asks for in an answer such as 429, the most that its other addresses wait."""

UNANSWERED = frozenset({Reason.NAME_LOOKUP, Reason.CONNECTION, Reason.TIMED_OUT})
"""Reasons after which a host has given no answer at all."""

TOLD = 5
"""Failures of a host that may pass, after which other processes are told of it."""

LOOKUPS = 16
"""Names that are looked up at a time."""


@dataclass
class _Host:
    limit: float
    open: int = 0
    unanswered: int = 0  # in a row
    rests_until: float = 0.0
    last: FetchFailed | None = None
    failures: int = 0  # that may pass, and those that other processes saw


class Politeness:
    """The hosts of one process, shared by its threads.

    Args:
        per_host: Addresses of a host that may be open at once.
        known: What other processes say of hosts.
    """

    def __init__(self, per_host: int, known: Mapping[str, HostLimit] = MappingProxyType({})) -> None:
        self._most = per_host
        self._hosts: defaultdict[str, _Host] = defaultdict(lambda: _Host(per_host))
        self._changed = threading.Condition()
        for name, said in known.items():
            rest = min(said.rests_until - time.time(), LONGEST_PAUSE_S)
            host = _Host(max(1.0, said.share * per_host), rests_until=time.monotonic() + max(0.0, rest))
            self._hosts[name], host.failures = host, TOLD

    def list_limits(self) -> dict[str, HostLimit]:
        """What other processes should know: of the hosts that have failed often, those that are well again included."""
        ahead = time.time() - time.monotonic()
        with self._changed:
            return {
                name: HostLimit(
                    round(host.limit / self._most, 4), round(host.rests_until + ahead, 1) if host.rests_until else 0.0
                )
                for name, host in self._hosts.items()
                if host.failures >= TOLD
            }

    @contextmanager
    def ask_host(self, name: str) -> Iterator[None]:
        """Wait until an address of a host may be opened; what happens within counts for its next ones.

        Raises:
            FetchFailed: the host has failed so often that it is asked no more.
        """
        host = self._enter(name)
        failed: FetchFailed | None = None
        try:
            yield
        except FetchFailed as error:
            failed = error
            raise
        finally:
            self._leave(host, failed)

    def _enter(self, name: str) -> _Host:
        with self._changed:
            host = self._hosts[name]
            while True:
                if host.unanswered >= GIVE_UP and host.last:
                    raise FetchFailed(
                        host.last.reason, f"{host.last.detail}; so did {GIVE_UP} addresses of the host before it"
                    )
                rest = host.rests_until - time.monotonic()
                if host.open < int(host.limit) and rest <= 0:
                    host.open += 1
                    return host
                self._changed.wait(rest if rest > 0 else None)

    def _leave(self, host: _Host, failed: FetchFailed | None) -> None:
        with self._changed:
            host.open -= 1
            if failed and (failed.again or failed.reason in UNANSWERED):
                host.limit, host.failures = max(1.0, host.limit / 2), host.failures + 1
                if failed.pause:
                    host.rests_until = time.monotonic() + min(failed.pause, LONGEST_PAUSE_S)
            else:
                host.limit = min(self._most, host.limit + 1)
            if failed and failed.reason in UNANSWERED:
                host.unanswered, host.last = host.unanswered + 1, failed
            else:
                host.unanswered = 0
            self._changed.notify_all()


class NameCache:
    """Looks each name up once, a few names at a time; one that is not found is not looked up again either."""

    def __init__(self, resolver: Resolver = socket.getaddrinfo) -> None:
        self._resolver, self._found = resolver, dict[tuple[Any, ...], Any]()
        self._locks: defaultdict[tuple[Any, ...], threading.Lock] = defaultdict(threading.Lock)
        self._lock, self._slots = threading.Lock(), threading.Semaphore(LOOKUPS)

    def look_up(self, host: str, port: int, **options: Any) -> Any:
        """As `socket.getaddrinfo`.

        Raises:
            OSError: the name is not found. One that may be another time (EAI_AGAIN) is looked up again.
        """
        key = (host, port, *sorted(options.items()))
        with self._lock:
            lock = self._locks[key]
        with lock:
            if key not in self._found:
                try:
                    with self._slots:
                        self._found[key] = self._resolver(host, port, **options)
                except socket.gaierror as error:
                    if error.errno == socket.EAI_AGAIN:
                        raise
                    self._found[key] = error
            found = self._found[key]
        if isinstance(found, socket.gaierror):
            raise socket.gaierror(*found.args)
        return found


def spread_hosts(urls: Sequence[str]) -> list[str]:
    """The same addresses, one of each host in turn; hosts and their addresses keep their order. Pure."""
    by_host: dict[str, deque[str]] = {}
    for url in urls:
        by_host.setdefault(urlsplit(url).netloc, deque()).append(url)
    spread, waiting = list[str](), list(by_host.values())
    while waiting:
        spread += [queue.popleft() for queue in waiting]
        waiting = [queue for queue in waiting if queue]
    return spread
