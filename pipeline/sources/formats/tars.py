"""WebDataset tars: which members make up a row, and where their bytes lie. Nothing is ever unpacked to disk.

A row is a run of members whose names agree up to the first dot of the last path component; the rest of the name, in
lower case, is the member's suffix (as `group_by_keys` in the webdataset package has it). As there, members without a
suffix do not end a row that they stand in. A member that no row can be made of becomes a row with a `trouble`, so that
everything in the tar is counted; but hidden files (`._0001.jpg` and `.DS_Store` of macOS) are no data.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from vlmill.pipeline.core.errors import BadFileError, SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.base import Page, Source, SourceRow, UnreadableRow, pick_items, read_pages
from vlmill.pipeline.sources.known_keys import AUDIO, PICTURES, VIDEO

Needs = Sequence[Sequence[str]]
"""What a row cannot do without: of each group of suffixes one, the first that it has."""

NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")
"""Key and suffix of a member's name."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member's bytes lie in the tar."""

    name: str
    offset: int
    size: int
    regular: bool  # a file, not a link or device

    @property
    def key(self) -> str:
        """What it has in common with the other members of its row; its whole name where it has no suffix."""
        match = NAME.fullmatch(self.name)
        return match[1] if match else self.name

    @property
    def suffix(self) -> str:
        """`json` of `a/b.json`, `seg.png` of `a/b.seg.png`, nothing of `README`."""
        match = NAME.fullmatch(self.name)
        return match[2].lower() if match else ""


@dataclass(frozen=True, slots=True)
class TarRow:
    """One row of a tar: its members by suffix."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    trouble: str = ""  # why no row can be made of it
    size: int = 0  # of all its members


class TarSource(Source, Protocol):
    """A source whose rows are the members of a tar that share a key.

    It names their suffixes, and says what a row becomes.
    """

    def needs(self) -> Needs:
        """The members that it cannot do without."""
        ...

    def reads(self) -> Collection[str]:
        """The suffixes of members that it looks at."""
        return tuple(suffix for group in self.needs() for suffix in group)

    def page(self, key: str, members: Mapping[str, bytes]) -> Page:
        """The sample, or the losses, of a row with the key and these members, by suffix. Raises UnreadableRow."""
        ...

    def survey(self, path: Path) -> list[int]:
        """Bytes of each row's members. Raises BadFileError as `index_rows`."""
        return [entry.size for entry in index_rows(path, self.needs())]

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """A page for each of the rows of these numbers. Raises BadFileError as `index_rows`."""
        entries = pick_items(index_rows(path, self.needs()), numbers)
        with path.open("rb") as file:
            yield from read_pages(
                ((number, _read_members(file, entry, self.needs())) for number, entry in entries),
                self._made,
                lambda row: row[0],
            )

    def _made(self, row: tuple[str, Mapping[str, bytes]]) -> Page:
        """The page of a row, which notes the members that were not looked at."""
        page = self.page(*row)
        return replace(
            page, unread=(*(f".{suffix}" for suffix in sorted({*row[1]}.difference(self.reads()))), *page.unread)
        )


def index_rows(path: Path, needs: Needs) -> list[TarRow]:
    """The rows of a tar in order; only its headers are read.

    Raises:
        BadFileError: it is no tar, is compressed, ends early, or holds something after its end; or no row has what it
            needs.
    """
    entries = [_make_entry(members) for members in _group_members(_read_headers(path))]
    if entries and not any(_has_members(entry, needs) for entry in entries):
        found = sorted({suffix for entry in entries for suffix in entry.members})
        raise BadFileError(
            f"{path}: no row has {_describe_needs(needs)}; its members are {', '.join(found) or 'without a suffix'}"
        )
    return entries


def _group_members(members: Iterable[Member]) -> Iterator[list[Member]]:
    """The members of each row; one without a suffix follows, alone, the row that it stands in."""
    row, alone = list[Member](), list[Member]()
    for member in members:
        if row and member.suffix and row[0].key != member.key:
            yield row
            yield from ([one] for one in alone)
            row, alone = [], []
        if member.suffix:
            row.append(member)
        elif row:
            alone.append(member)
        else:
            yield [member]
    yield from ([row] if row else [])
    yield from ([one] for one in alone)


def choose_members(entry: TarRow, needs: Needs) -> list[str]:
    """The suffix of each group that a row has. Raises UnreadableRow for a row that cannot be read, or lacks one."""
    if entry.trouble:
        raise UnreadableRow(entry.trouble)
    if media := sorted((VIDEO | AUDIO).intersection(entry.members)):
        raise UnreadableRow(f"{entry.key}.{media[0]}", Reason.UNSUPPORTED_MEDIA)
    if not _has_members(entry, needs):
        raise UnreadableRow(f"{entry.key} has {', '.join(sorted(entry.members))}; it needs {_describe_needs(needs)}")
    pictures = [suffix for suffix in PICTURES if suffix in entry.members]
    if PICTURES in needs and len(pictures) > 1:
        raise UnreadableRow(f"{entry.key} has {' and '.join(pictures)}, of which one is read", Reason.UNSUPPORTED_MEDIA)
    return [next(suffix for suffix in group if suffix in entry.members) for group in needs]


def read_member(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a member."""
    file.seek(member.offset)
    return file.read(member.size)


def _read_members(file: BinaryIO, entry: TarRow, needs: Needs) -> tuple[str, dict[str, bytes]] | UnreadableRow:
    """The key of a row, and its members by suffix."""
    try:
        choose_members(entry, needs)
    except UnreadableRow as unfit:
        return unfit
    return entry.key, {suffix: read_member(file, member) for suffix, member in entry.members.items()}


def _has_members(entry: TarRow, needs: Needs) -> bool:
    return all(not entry.members.keys().isdisjoint(group) for group in needs)


def _describe_needs(needs: Needs) -> str:
    return " and ".join(" or ".join(group) for group in needs)


def _make_entry(members: list[Member]) -> TarRow:
    key = members[0].key
    size = sum(member.size for member in members)
    suffixes = [member.suffix for member in members]
    for member in members:
        if not member.suffix:
            return TarRow(key, trouble=f"{member.name} has no name of the form key.suffix", size=size)
        if not member.regular:
            return TarRow(key, trouble=f"{member.name} is a link or a device", size=size)
        if suffixes.count(member.suffix) > 1:
            return TarRow(key, trouble=f"{member.name} stands there twice", size=size)
    return TarRow(key, dict(zip(suffixes, members, strict=True)), size=size)


def _read_headers(path: Path) -> Iterator[Member]:
    """Every member but folders and hidden files.

    `tarfile` takes a damaged header for the end of the archive, hence the checks.
    """
    end = 0
    try:
        length = path.stat().st_size
        with tarfile.open(path, "r:", errors="replace") as tar:
            while info := tar.next():
                if info.size < 0 or tar.offset <= end or info.offset_data + info.size > length:
                    raise BadFileError(f"{path}: the tar ends at byte {length}, within {info.name}; fetch it again")
                end = tar.offset
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header
                if not info.isdir() and not PurePosixPath(info.name).name.startswith("."):
                    yield Member(info.name, info.offset_data, info.size, info.isreg() and not info.issparse())
            end = tar.offset
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
    except tarfile.TarError as error:
        raise BadFileError(f"{path}: expected an uncompressed tar, found none or a damaged one ({error})") from error
    _check_end(path, end)


def _check_end(path: Path, end: int) -> None:
    """A tar ends with blocks of zeros, and nothing but zeros follows."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or any(block):
            raise BadFileError(f"{path}: at byte {end} stands neither a member nor the end of the tar; fetch it again")
        while block := file.read(1 << 20):
            if any(block):
                raise BadFileError(
                    f"{path}: holds data after its end at byte {end}; are these several tars in one file?"
                )
