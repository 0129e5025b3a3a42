"""The list of what may not be in a run, and what falls under it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.core.yaml_format import format_yaml, read_yaml
from vlmill.pipeline.fetch.address import FetchFailed, parse_address
from vlmill.pipeline.fetch.opt_outs import normalise_address
from vlmill.pipeline.takedown.marks import parse_marked

LIST = "takedowns.yaml"
HEAD = (
    "# What was taken down here. Every build in this folder keeps it out; copy this file to keep it out of another.\n"
)


@dataclass(frozen=True, slots=True)
class TakedownList:
    """The list, each part sorted.

    Pure data: what it matches depends on the data alone, however they are partitioned.
    """

    domains: tuple[str, ...] = ()  # of images and documents, with their sub-domains
    ids: tuple[str, ...] = ()  # of samples
    rows: tuple[str, ...] = ()  # `ID MARK`: by what the row of a sample is known if it stands elsewhere; see `marks.py`
    sha256: tuple[str, ...] = ()  # of images' bytes as they came
    texts: tuple[str, ...] = ()  # sha256 of all text of a document whose copies go with it
    urls: tuple[str, ...] = ()  # of images and documents, in their one spelling

    def __bool__(self) -> bool:
        return any(getattr(self, rule.name) for rule in fields(self))

    def __or__(self, other: TakedownList) -> TakedownList:
        """Both lists in one."""
        names = [rule.name for rule in fields(self)]
        return TakedownList(**{name: tuple(sorted({*getattr(self, name), *getattr(other, name)})) for name in names})

    def __sub__(self, other: TakedownList) -> TakedownList:
        """What stands on this list alone."""
        names = [rule.name for rule in fields(self)]
        return TakedownList(**{name: tuple(sorted({*getattr(self, name)} - {*getattr(other, name)})) for name in names})

    def labels(self) -> list[str]:
        """What is said of things that fall under each rule, such as `domain example.org`."""
        words = {"domains": "domain", "ids": "id", "sha256": "sha256", "texts": "text", "urls": "url"}
        return [f"{word} {value}" for name, word in words.items() for value in getattr(self, name)]

    @classmethod
    def read(cls, root: Path) -> TakedownList:
        """The list of a run, in its one spelling however it was written; empty where nothing was taken down.

        Raises:
            StoreError: the file is no such list.
        """
        path = root / LIST
        if not path.exists():
            return cls()
        try:
            listed = read_yaml(path)
            for name, values in listed.items():
                if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                    raise TypeError(f"{name}: a list of texts is expected, not {values!r}")  # noqa: TRY301
            found = cls(**{name: tuple(values) for name, values in listed.items()})
            for row in found.rows:
                parse_marked(row)
            rest = parse_rules(found.urls, found.sha256, found.ids, found.domains)
            return cls(texts=found.texts, rows=found.rows) | rest
        except (RecipeError, TypeError, ValueError, AttributeError, StoreError) as error:
            raise StoreError(
                f"{path} is no list of takedowns ({error}); it has the keys "
                f"{', '.join(f.name for f in fields(cls))}, each with a list"
            ) from error

    def to_yaml(self) -> str:
        """What stands in the file."""
        listed = {rule.name: list(getattr(self, rule.name)) for rule in fields(self)}
        return HEAD + format_yaml(listed, width=1000)

    def address(self) -> Callable[[str | None], str]:
        """A function that says which rule an address falls under: `url ...`, `domain ...`, or nothing.

        Addresses are compared as on lists of opt-outs, so https and `www.` name what http and the bare host do.
        """
        urls, domains = {_normalise_address(url): url for url in self.urls}, set(self.domains)

        def rule(url: str | None) -> str:
            if not url:
                return ""
            if listed := urls.get(_normalise_address(url)):
                return f"url {listed}"
            labels = get_host(url).split(".")
            found = (name for start in range(len(labels)) if (name := ".".join(labels[start:])) in domains)
            return next((f"domain {name}" for name in found), "")

        return rule


def spell_address(url: str) -> str:
    """The one spelling of an address, as fetch knows it; what is no web address stays as it is."""
    with suppress(FetchFailed):
        return parse_address(url).url
    return url.strip()


def _normalise_address(url: str) -> str:
    """What web addresses of the same thing have in common; anything else as it is."""
    with suppress(FetchFailed):
        return normalise_address(parse_address(url).url)
    return url.strip()


def get_host(url: str) -> str:
    """The host of an address in lower case; empty where it has none."""
    with suppress(FetchFailed):
        return parse_address(url).host
    return ""


def parse_rules(urls: Sequence[str], sha256: Sequence[str], ids: Sequence[str], domains: Sequence[str]) -> TakedownList:
    """The list that the command line asks for.

    Raises:
        StoreError: a value is not what its option takes.
    """
    for digest in sha256:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise StoreError(
                f"--sha256 {digest}: a sha256 has 64 hexadecimal digits; `vlmill trace DIR ID` shows those of a "
                "sample's images"
            )
    if not all(url.strip() for url in urls):
        raise StoreError("--url: give the address of an image or a document, such as http://example.org/7.png")
    for name in ids:
        try:
            SampleId.parse(name)
        except ValueError as error:
            raise StoreError(f"--id {name}: {error}") from None
    for domain in domains:
        if not re.fullmatch(r"[a-z0-9._-]+", get_host(f"http://{domain}/")) or {"/", ":", "@"} & set(domain):
            raise StoreError(
                f"--domain {domain}: give a host such as example.org, without http:// and path; sub-domains are "
                "included"
            )
    listed = TakedownList(
        domains=tuple(get_host(f"http://{domain}/") for domain in domains),
        ids=tuple(ids),
        sha256=tuple(digest.lower() for digest in sha256),
        urls=tuple(spell_address(url) for url in urls),
    )
    return listed | TakedownList()
