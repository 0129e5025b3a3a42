"""Addresses of images: their one spelling, their mirrors, and where a connection may go.

Part of fetch. `parse_address` knows names alone; `resolve_host` asks for the addresses of a name and refuses all of
them if one is not public, so that a connection to one that it returned cannot end inside this network, whatever the
name says a moment later.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from vlmill.pipeline.core.reasons import Reason

PORTS = {"http": 80, "https": 443}
"""The schemes that are opened, with their ports."""

KEPT = "%/:=&?~+!$,;'@()*[]"
"""Beside letters and digits, what stands in a path or query as it is; the rest is percent-encoded as UTF-8."""

_CARRIERS = tuple(
    ipaddress.ip_network(block)
    for block in (
        "::/96",  # IPv4-compatible, RFC 4291
        "::ffff:0:0/96",  # IPv4-mapped, RFC 4291
        "64:ff9b::/96",  # NAT64, RFC 6052
        "64:ff9b:1::/48",  # NAT64, RFC 8215
        "2001::/32",  # Teredo, RFC 4380
        "2002::/16",  # 6to4, RFC 3056
        "fec0::/10",  # site-local, RFC 3879
    )
)
"""IPv6 blocks that lead to an IPv4 address or to a site, which may be private; releases of `ipaddress` differ over
some."""

_PRIVATE_IN_FACT = tuple(
    ipaddress.ip_network(block)
    for block in (
        "168.63.129.16/32",  # the host of a virtual machine in Azure, its metadata and keys among them
        "192.88.99.0/24",  # relays of 6to4, RFC 7526
        "2001:20::/28",  # ORCHIDv2, names and no places, RFC 7343
        "3fff::/20",  # documentation, RFC 9637
        "5f00::/16",  # segments of a domain, RFC 9602
    )
)
"""Blocks that the registry calls global, or that older releases of `ipaddress` do not know, and that lead to no host of
the internet."""

LOCAL_NAMES = frozenset({"localhost", "local", "internal"})
"""Last labels of names that no host of the internet has."""

MAX_URL = 1 << 16
MAX_HOST = 253
MAX_ENCODED = 8
"""Characters of an address, and of a host in its ASCII form (RFC 1035); how often a mirrored path may be encoded."""

Resolver = Callable[..., list[Any]]
"""`socket.getaddrinfo`, or what stands in for it in tests."""


class FetchFailed(Exception):  # noqa: N818 - a fact about an address, not a programming error
    """An address gave no image. `again` says whether another try may; `pause` how many seconds the server asked for."""

    def __init__(self, reason: Reason, detail: str, *, again: bool = False, pause: float | None = None) -> None:
        super().__init__(reason, detail)
        self.reason, self.again, self.pause = reason, again, pause
        self.detail = "".join(
            sign if sign.isprintable() else "?" for sign in detail[:200]
        )  # of servers, for files and terminals

    def __str__(self) -> str:
        """`reason: detail`, which is all that img2dataset hands on of an exception."""
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where one request goes."""

    scheme: str
    host: str  # lower case, internationalised names in their ASCII form, IPv6 without brackets
    port: int
    path: str  # with the query, percent-encoded

    @property
    def authority(self) -> str:
        """The host with its port unless that is the scheme's own, as the Host header wants it."""
        return self._bracketed if self.port == PORTS[self.scheme] else self.endpoint

    @property
    def endpoint(self) -> str:
        """The host always with its port."""
        return f"{self._bracketed}:{self.port}"

    @property
    def url(self) -> str:
        """The address in its one spelling: ASCII, no fragment, no port that goes without saying."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_address(url: str) -> Target:
    """The target that an address names. A pure function.

    Raises:
        FetchFailed: BAD_URL for another scheme, no host, a user name, a port or host that cannot be, or more than
            `MAX_URL` characters.
    """
    _check_length(url)
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = (parts.hostname or "").rstrip(".").encode("idna").decode("ascii")
        path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=KEPT)
    except ValueError as error:
        raise FetchFailed(Reason.BAD_URL, str(error)) from None
    if parts.scheme not in PORTS:
        raise FetchFailed(Reason.BAD_URL, f"scheme {parts.scheme!r}, not http or https")
    if not host or len(host) > MAX_HOST or not host.isprintable() or " " in host:
        raise FetchFailed(Reason.BAD_URL, f"host {host!r}")
    if "@" in parts.netloc:
        raise FetchFailed(Reason.BAD_URL, "it carries a user name")
    return Target(parts.scheme, host, PORTS[parts.scheme] if port is None else port, path)


def _check_length(url: str) -> None:
    if len(url) > MAX_URL:
        raise FetchFailed(Reason.BAD_URL, f"{len(url)} characters, {MAX_URL} allowed")


def resolve_redirect(url: str, location: str) -> str:
    """The address that a redirect from `url` leads to.

    Raises:
        FetchFailed: BAD_URL for a location that is none.
    """
    _check_length(location)
    try:
        # headers are read as Latin-1, and servers mean UTF-8
        return parse_address(urljoin(url, location.encode("latin-1").decode("utf-8", "replace"))).url
    except ValueError as error:
        raise FetchFailed(Reason.BAD_URL, f"redirected to {location!r}: {error}") from None


def apply_mirror(url: str, mirrors: Mapping[str, str]) -> str:
    """`url` with the longest prefix that has a mirror replaced by it.

    Raises:
        FetchFailed: FORBIDDEN_ADDRESS for a path with `..`, however it is spelled, which could lead out of the mirror.
    """
    prefix = max((prefix for prefix in mirrors if url.startswith(prefix)), key=len, default="")
    if not prefix:
        return url
    rest = url[len(prefix) :]
    if _leads_out(rest.partition("?")[0]):
        raise FetchFailed(Reason.FORBIDDEN_ADDRESS, f"{rest} leads out of the mirror of {prefix}")
    return mirrors[prefix] + rest


def _leads_out(path: str) -> bool:
    """Whether a server could take a segment for `..`: encoded once or more, behind a backslash, before a parameter."""
    for _ in range(MAX_ENCODED):
        path, before = unquote(path), path
        if path == before:
            break
    else:
        return True
    return any(segment.partition(";")[0].strip() == ".." for segment in path.replace("\\", "/").split("/"))


def is_public(address: str) -> bool:
    """Whether an IP address is public by the registries that `ipaddress` knows, and in fact."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.is_global and not (
        ip.is_multicast or ip.is_reserved or any(ip in block for block in (*_CARRIERS, *_PRIVATE_IN_FACT))
    )


def resolve_host(
    target: Target, allowed: Collection[str], resolver: Resolver
) -> list[tuple[socket.AddressFamily, Any]]:
    """Families and socket addresses of a target.

    All are public unless its host is in `allowed` (`host` or `host:port`).

    Raises:
        FetchFailed: NAME_LOOKUP; FORBIDDEN_ADDRESS if a single one is not public.
    """
    try:
        found = resolver(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise FetchFailed(Reason.NAME_LOOKUP, error.strerror or "", again=error.errno == socket.EAI_AGAIN) from None
    except (ValueError, OverflowError) as error:
        raise FetchFailed(Reason.BAD_URL, str(error)) from None
    if target.host not in allowed and target.endpoint not in allowed:
        for *_, address in found:
            if not is_public(address[0]):
                raise FetchFailed(Reason.FORBIDDEN_ADDRESS, f"{target.host} resolves to {address[0]}")
    return [(family, address) for family, _, _, _, address in found]


UNFETCHED = "will not be fetched"
"""What is said of images at private hosts."""


def find_private_host(url: str, allowed: Collection[str]) -> str:
    """The host of an address that `resolve_host` is sure to refuse, or an empty text. A pure function: nobody is asked.

    It has its port, as `allow_hosts` takes it, unless that is the scheme's own.

    Sure are IP addresses that are not public, and names that are for this machine or network (RFC 6761, RFC 6762 and
    ICANN's `internal`), unless `allowed` has them. A malformed address has no host.
    """
    try:
        target = parse_address(url)
    except FetchFailed:
        return ""
    if target.host in allowed or target.endpoint in allowed:
        return ""
    try:
        private = not is_public(target.host)
    except ValueError:  # a name
        private = target.host.rpartition(".")[2] in LOCAL_NAMES
    return (target.host if target.port == PORTS[target.scheme] else target.endpoint) if private else ""
