"""Opt-out: drops what its owners do not want used, as named in lists that the recipe gives.

Lists are plain UTF-8 text, one entry a line; blank lines and lines that start with # are left out. What is in a list is in the key of
the verdicts, so a new edition of a list is applied by the next build, and makes anew only what it touches.

    urls      addresses of images or documents, compared after `normalised`
    domains   example.org stands for itself and all its sub-domains; so do *.example.org and .example.org
    sha256    of the bytes of images as they came, in hexadecimal

The address of a document decides about the sample, that of an image about its node. Images are asked for the addresses that the
origin names, before mirrors. OBELICS took its list from Spawning's service, which answers addresses with opt-outs
(Laurencon et al. 2023, arXiv:2306.16527); write its answers to a file, and name that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic.dataclasses import dataclass

from pipeline.errors import RecipeError
from pipeline.reasons import Reason
from pipeline.sample import WHOLE_SAMPLE, ImageFacts, Sample, Verdict
from pipeline.settings import STRICT
from pipeline.step import RUNTIME

DIGEST = re.compile(r"[0-9a-f]{64}")
LISTS = ("urls", "domains", "sha256")


@dataclass(frozen=True, config=STRICT)
class OptOut:
    """Drops samples and image nodes whose address, domain or content is in a list. Paths are relative to the recipe.

    Attributes:
        urls: files of addresses.
        domains: files of domains.
        sha256: files of digests.
    """

    name: ClassVar[str] = "opt_out"
    version: ClassVar[int] = 1

    urls: tuple[str, ...] = field(default=(), metadata=RUNTIME)  # their content is in the key
    domains: tuple[str, ...] = field(default=(), metadata=RUNTIME)
    sha256: tuple[str, ...] = field(default=(), metadata=RUNTIME)

    @property
    def facts(self) -> tuple[str, ...]:
        """The digests of images, if there is a list of any."""
        return ("sha256",) if self.sha256 else ()

    @property
    def lists(self) -> Mapping[str, str]:
        """Its files, under names that say what they list."""
        return {
            f"{self.name}.{kind}.{place}.list": path for kind in LISTS for place, path in enumerate(getattr(self, kind))
        }

    def opened(self, paths: Mapping[str, Path]) -> OptOut:
        """The same judge with its files in these places."""
        return OptOut(**{kind: tuple(str(paths[name]) for name in self.lists if f".{kind}." in name) for kind in LISTS})

    def made_by(self) -> Mapping[str, str]:
        """Nothing but this file."""
        return {}

    def judge(self, samples: Iterable[tuple[int, Sample]], facts: Sequence[ImageFacts]) -> Iterator[Verdict]:
        """Verdicts on samples and on image nodes.

        Raises:
            RecipeError: an entry of a list is none; the message names file and line.
        """
        urls, domains, digests = (
            frozenset().union(*(_entries(path, Path(path).stat().st_mtime_ns, kind) for path in getattr(self, kind)))
            for kind in LISTS
        )

        def listed(url: str | None) -> bool:
            return bool(url) and (normalised(url or "") in urls or any(name in domains for name in _domains(url or "")))

        for row, sample in samples:
            if listed(sample.url):
                yield Verdict(row, WHOLE_SAMPLE, self.name, Reason.OPT_OUT_LIST)
                continue
            for index, node in enumerate(sample.nodes):
                if node.image is not None and (listed(node.url) or (digests and facts[node.image].sha256 in digests)):
                    yield Verdict(row, index, self.name, Reason.OPT_OUT_LIST)


def normalised(url: str) -> str:
    """What two addresses have in common if they name the same thing. Pure.

    The scheme, a `www.` in front, the scheme's own port, user names and fragments are left out; the host is in lower case and in
    its ASCII form; a path is never empty; path and query stay as they are, for a server may tell them apart.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return url.strip()
    shown = "" if port is None or port == {"http": 80, "https": 443}.get(parts.scheme.lower()) else f":{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{_host(parts.hostname).removeprefix('www.')}{shown}{parts.path or '/'}{query}"


def _host(name: str | None) -> str:
    """A host in lower case and in its ASCII form, as far as it has one."""
    name = (name or "").rstrip(".").lower()
    try:
        return name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def _domains(url: str) -> Iterator[str]:
    """The host of an address, and every domain it is part of."""
    try:
        labels = _host(urlsplit(url.strip()).hostname).split(".")
    except ValueError:
        return
    yield from (".".join(labels[start:]) for start in range(len(labels)))


def _read_url(entry: str) -> str:
    if "://" not in entry:
        raise ValueError("an address starts with http:// or https://")
    return normalised(entry)


def _read_domain(entry: str) -> str:
    name = _host(entry.removeprefix("*").removeprefix("."))
    if not name or any(sign in name for sign in "/:@ *"):
        raise ValueError("a domain is a name such as example.org")
    return name


def _read_digest(entry: str) -> str:
    if not DIGEST.fullmatch(entry.lower()):
        raise ValueError("a sha256 has 64 hexadecimal digits")
    return entry.lower()


READ: Mapping[str, Callable[[str], str]] = {"urls": _read_url, "domains": _read_domain, "sha256": _read_digest}


@lru_cache(16)  # a process judges one partition after the other with the same lists
def _entries(path: str, changed: int, kind: str) -> Collection[str]:
    """What stands in a list; `changed` tells its editions apart."""
    del changed
    found = set[str]()
    with Path(path).open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            entry = line.strip()
            if entry and not entry.startswith("#"):
                try:
                    found.add(READ[kind](entry))
                except ValueError as error:
                    raise RecipeError(f"{path}, line {number}: {entry[:80]!r}: {error}") from None
    return found
