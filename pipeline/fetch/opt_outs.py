"""Lists of opt-outs: what their owners do not want used, and which images are not asked for because of them.

Part of fetch; the filter `opt_out` reads the same lists. They are plain UTF-8 text, one entry a line; blank lines and
lines that start with # are left out. Steps know them as `opt_out.<kind>.<number>.list`:

    urls      addresses of images or documents, compared after `normalise_address`
    domains   example.org stands for itself and all its sub-domains; so do *.example.org and .example.org
    sha256    of the bytes of images as they came, in hexadecimal

The addresses and domains of `takedowns.yaml` count as listed too: what was fetched of them would be removed at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import read_rows
from vlmill.pipeline.core.yaml_format import read_yaml
from vlmill.pipeline.fetch.address import KEPT

KINDS = ("urls", "domains", "sha256")
ADDRESSES = ("opt_out.urls.*.list", "opt_out.domains.*.list", "takedowns.yaml")
"""The lists that say of an address whether it may be asked for."""
DIGEST = re.compile(r"[0-9a-f]{64}")

LISTED = "its address is on a list of opt-outs"
LISTED_PAGES = "every document that shows it is on a list of opt-outs"


@dataclass(frozen=True, slots=True)
class OptOuts:
    """What stands in lists. Pure data."""

    urls: Collection[str] = frozenset()
    domains: Collection[str] = frozenset()
    sha256: Collection[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.urls or self.domains or self.sha256)

    @classmethod
    def read(cls, files: Mapping[str, Sequence[Path]]) -> Self:
        """What stands in the files of each kind.

        Raises:
            RecipeError: an entry of a list is none, or a list no text; the message names file and line.
        """
        return cls(**{kind: frozenset().union(*map(_make_reader(kind), paths)) for kind, paths in files.items()})

    @classmethod
    def given(cls, inputs: Mapping[str, Path]) -> Self:
        """What stands in those of a step's inputs that are lists, takedowns among them."""
        names = {kind: sorted(name for name in inputs if name.startswith(f"opt_out.{kind}.")) for kind in KINDS}
        listed = cls.read({kind: [inputs[name] for name in found] for kind, found in names.items()})
        if "takedowns.yaml" not in inputs:
            return listed
        gone = read_yaml(inputs["takedowns.yaml"])
        urls, domains = map(normalise_address, gone.get("urls", ())), map(_normalise_host, gone.get("domains", ()))
        return replace(listed, urls={*listed.urls, *urls}, domains={*listed.domains, *domains})

    def names(self, url: str | None) -> bool:
        """Whether an address is listed, or its host, or a domain that it is part of."""
        if not url:
            return False
        return (bool(self.urls) and normalise_address(url) in self.urls) or (
            bool(self.domains) and any(name in self.domains for name in _list_domains(url))
        )


def find_listed_images(listed: OptOuts, images: Iterable[Mapping[str, Any]], samples: Path | None) -> dict[int, str]:
    """The images of a partition that must not be requested, and why. Pure.

    They are those that are listed, or that only listed documents show.

    Args:
        listed: The lists; those of digests have no say here.
        images: Rows of images.parquet with `image` and `url`.
        samples: The partition's samples.parquet.
    """
    if not (listed.urls or listed.domains):
        return {}
    of_listed, of_others = set[int](), set[int]()
    if samples is not None:
        for row in read_rows(samples, ["url", "nodes.list.element.image"]):
            found = of_listed if listed.names(row["url"]) else of_others
            found.update(node["image"] for node in row["nodes"] if node["image"] is not None)
    refused = dict.fromkeys(of_listed - of_others, LISTED_PAGES)
    refused.update((row["image"], LISTED) for row in images if listed.names(row["url"]))
    return refused


def normalise_address(url: str) -> str:
    """What two addresses have in common if they name the same thing. Pure.

    The scheme, a `www.` in front, the scheme's own port, user names and fragments are left out; the host is in lower
    case and in its ASCII form; a path is never empty; path and query are percent-encoded as a request has them, and
    otherwise stay as they are, for a server may distinguish them.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return url.strip()
    shown = "" if port is None or port == {"http": 80, "https": 443}.get(parts.scheme.lower()) else f":{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"{_normalise_host(parts.hostname).removeprefix('www.')}{shown}{quote(path, safe=KEPT, errors='replace')}"


def _normalise_host(name: str | None) -> str:
    """A host in lower case and in its ASCII form, as far as it has one."""
    name = (name or "").rstrip(".").lower()
    try:
        return name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def _list_domains(url: str) -> Iterator[str]:
    """The host of an address, and every domain it is part of."""
    try:
        labels = _normalise_host(urlsplit(url.strip()).hostname).split(".")
    except ValueError:
        return
    yield from (".".join(labels[start:]) for start in range(len(labels)))


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_url(entry: str) -> str:
    if "://" not in entry:
        raise ValueError("an address starts with http:// or https://")
    return normalise_address(entry)


def _read_domain(entry: str) -> str:
    name = _normalise_host(entry.removeprefix("*").removeprefix("."))
    if not name or any(sign in name for sign in "/:@ *"):
        raise ValueError("a domain is a name such as example.org")
    return name


def _read_digest(entry: str) -> str:
    if not DIGEST.fullmatch(entry.lower()):
        raise ValueError("a sha256 has 64 hexadecimal digits")
    return entry.lower()


READ: Mapping[str, Callable[[str], str]] = {"urls": _read_url, "domains": _read_domain, "sha256": _read_digest}


def _make_reader(kind: str) -> Callable[[Path], Collection[str]]:
    return lambda path: _read_entries(os.fspath(path), path.stat().st_mtime_ns, kind)


def _name_list(path: Path) -> str:
    """What the recipe calls a list: a run's copies are lists/<sha256>.<name>, and editing one has no effect."""
    return path.name.partition(".")[2] if path.parent.name == "lists" else str(path)


@lru_cache(16)  # a process works on one partition after the other with the same lists
def _read_entries(path: str, changed: int, kind: str) -> frozenset[str]:
    """What stands in a list; `changed` distinguishes its editions."""
    del changed
    found, name = set[str](), _name_list(Path(path))
    try:
        with Path(path).open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                entry = line.strip()
                if entry and not entry.startswith("#"):
                    found.add(_read_entry(kind, entry, f"{name}, line {number}"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{name} is no UTF-8 text ({error}); a list has one entry a line, not compressed") from None
    return frozenset(found)


def _read_entry(kind: str, entry: str, where: str) -> str:
    try:
        return READ[kind](entry)
    except ValueError as error:
        raise RecipeError(f"{where}: {entry[:80]!r}: {error}") from None
