"""Step `read`: rows of input files become samples and the table of their images.

The one place where what a source yields gets its ids. The tables are written as they come, so memory holds one row of
an input file, one row group of each table, and the addresses and digests of the partition's images.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import zip_longest
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.errors import BadFileError, SourceError
from vlmill.pipeline.core.excerpt import escape_text, make_excerpt
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.names import IMAGES_FILE, REFUSED_FILE, SAMPLES_FILE, UNREAD_FILE, name_input
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    IMAGES,
    NO_PAGE,
    REFUSED,
    SAMPLES,
    Sample,
    SampleId,
    sample_to_row,
)
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs
from vlmill.pipeline.sources import OnBadFile, Page, Picture, Source, SourceRow
from vlmill.pipeline.sources.ahead import FilesAhead
from vlmill.pipeline.sources.data_uris import is_data_uri, read_data_uri
from vlmill.pipeline.sources.entities import holds_blanks, resolve_entities
from vlmill.pipeline.sources.files import Files
from vlmill.pipeline.sources.page_faults import lose_faulty_pages
from vlmill.pipeline.steps.row_sample import RowRange, choose_rows

MAX_CHARACTERS = 1_000_000
"""By default. Later steps hold one sample at a time, and at most about 300 bytes for each of its characters."""

LONGEST_ID = 1000
"""Characters of the id of a row; more are cut."""


@dataclass(frozen=True)
class Read:
    """Step: rows of input files, in a scaled run those of them whose hash is below `bound`.

    Leaves `samples.parquet`, `images.parquet`, `refused.parquet` and `unread.json`.

    An image that several nodes name by one address, or that several rows carry with the same bytes, stands in the table
    once. Files that rows name are read here, so that from now on the run holds them; one that is not there is an image
    with a reason.

    Counts `rows` of the input files, kept where at least one sample came of them, and `pages`, which rows fan out to:
    each kept one is a sample, and a row that is lost as a whole counts as one. Each lost page stands in
    `refused.parquet`, with the reason, the source's message and the beginning of the row.
    """

    name: ClassVar[str] = "read"
    version: ClassVar[int] = 37

    source: Source
    name_of_source: str
    ranges: tuple[RowRange, ...]  # of each input file one, in the order of the files
    licence: str = ""
    on_bad_file: OnBadFile = "error"
    bound: int | None = None  # of the rows' hashes (row_sample.py); None: every row
    max_characters: int = MAX_CHARACTERS  # of a sample's texts and addresses
    unescape: bool = False  # whether HTML entities in texts are resolved
    images: str = field(default="", metadata=RUNTIME)  # folder or fsspec URL that paths of image files start from

    @property
    def pure(self) -> bool:
        """Whether neither a time limit has a say nor what else lies in a folder."""
        return not (self.source.isolated or self.source.opens)

    @property
    def reads(self) -> tuple[str, ...]:
        """The input files alone."""
        return tuple(map(name_input, range(len(self.ranges))))

    def made_by(self) -> Mapping[str, str]:
        """The library that writes the tables, and those that make pictures of pages."""
        libraries = ("pyarrow", "pillow", "pypdfium2") if self.source.isolated else ("pyarrow",)
        return {library: version(library) for library in libraries}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Read every row that was chosen.

        Raises:
            BadFileError: files have not the form of the source, or are damaged, and are not skipped; with all of them.
            SourceError: a file has not all the rows.
        """
        rows, pages, unread, faults = Count(), Count(), _Unread(), list[str]()
        with (
            _Table(folder / SAMPLES_FILE, SAMPLES, repeats=True) as samples,
            _Table(folder / IMAGES_FILE, IMAGES, repeats=False) as table,
            _Table(folder / REFUSED_FILE, REFUSED, repeats=True) as refused,
        ):
            files = FilesAhead(Files(self.images))
            images = _Images(table, files)
            for document, row in files.follow(self._read_files(inputs, faults)):
                made, lost = self._samples(document, row, images)
                unread.note({key for page in row.pages for key in page.unread})
                for sample in made:
                    samples.add(sample_to_row(sample), sum(len(node.text or "") for node in sample.nodes))
                for one in lost:
                    refused.add(one, len(one["detail"]) + len(one["excerpt"]))
                    pages.lose(Reason(one["reason"]))
                pages.keep(len(made))
                note_work(rows=1, failed=len(lost))
                if made:
                    rows.keep()
                else:
                    rows.lose(Reason(lost[0]["reason"]))
        if faults:
            raise BadFileError(*faults)
        unread.write(folder / UNREAD_FILE)
        return {"rows": rows, "pages": pages}

    def _read_files(self, inputs: Inputs, faults: list[str]) -> Iterator[tuple[SampleId, SourceRow]]:
        """The chosen rows of each file with their ids; `faults` gets what is wrong with files that are not skipped."""
        for place, wanted in enumerate(self.ranges):
            try:
                for row in self._rows(inputs[name_input(place)], wanted):
                    yield SampleId(self.name_of_source, wanted.file, row.row), row
            except BadFileError as error:
                faults += error.faults

    def _rows(self, input_file: Path, wanted: RowRange) -> Iterator[SourceRow]:
        """The chosen rows of a file, each exactly once. Raises BadFileError for one that is not skipped."""
        numbers: Sequence[int] = range(wanted.start, wanted.stop)
        if self.bound is not None:
            numbers = choose_rows(self.name_of_source, *wanted, self.bound)
        for expected, row in zip_longest(numbers, self._sound_rows(input_file, wanted, numbers)):
            if row is None or row.row != expected:
                raise SourceError(self._describe_rows(input_file, wanted, expected, row))
            sound = lose_faulty_pages(row)
            yield replace(sound, pages=tuple(map(resolve_entities, sound.pages))) if self.unescape else sound

    def _describe_rows(self, path: Path, wanted: RowRange, expected: int | None, row: SourceRow | None) -> str:
        """What is wrong with rows that are not those that were asked for: one came, or none, in place of another."""
        place = f"{self.name_of_source}/{wanted.file}"
        if row is None:
            return (
                f"{place}: survey counts {wanted.stop:,} rows or more, and rows gives none from row {expected} on: "
                f"either {path} changed while it was read, or survey and rows in the code of kind "
                f"{self.source.kind!r} do not go over the same rows"
            )
        due = "the end" if expected is None else f"row {expected}"
        return (
            f"{place}: reading [{wanted.start}, {wanted.stop}), expected {due}, found row {row.row}: either the file "
            f"changed while it was read, or the code of kind {self.source.kind!r} does not give each row that it is "
            "asked for once, in order"
        )

    def _sound_rows(self, input_file: Path, wanted: RowRange, numbers: Sequence[int]) -> Iterator[SourceRow]:
        """What the source yields, and a lost row in the place of each one from where a file is damaged that is skipped.

        Raises BadFileError for one that is not skipped.
        """
        following, coming = wanted.start, iter(numbers)
        try:
            AT_WORK.note(SampleId(self.name_of_source, wanted.file, next(coming, wanted.stop)))
            for row in self.source.rows(input_file, numbers):
                following = row.row + 1
                yield row
                AT_WORK.note(SampleId(self.name_of_source, wanted.file, next(coming, wanted.stop)))
        except BadFileError as error:
            if self.on_bad_file == "error":
                raise
            fault = str(error).removeprefix(f"{input_file}: ")
            hidden = (row for row in numbers if row >= following)
            yield from (SourceRow(row, failed=((Reason.BAD_FILE, fault),)) for row in hidden)

    def _samples(
        self, document: SampleId, row: SourceRow, images: _Images
    ) -> tuple[list[Sample], list[dict[str, Any]]]:
        """The samples of a row with this id, and of what else there might have been the rows of REFUSED."""
        places = row.failed_pages or [NO_PAGE] * len(row.failed)
        made = list[Sample]()
        upstream_id = _bound_id(row.upstream_id)
        lose = partial(_lose_page, document, upstream_id)
        lost = [lose(at, *why, row.excerpt) for at, why in zip(places, row.failed, strict=True)]
        for page in row.pages:
            if fault := self._find_fault(page):
                texts = [node.text or node.url for node in page.nodes]
                lost.append(lose(page.page, *fault, make_excerpt(texts)))
            else:
                numbers = [images.number(picture) for picture in page.pictures]
                made.append(self._sample(document, upstream_id, page, numbers))
        return made, lost if made or lost else [lose(NO_PAGE, Reason.EMPTY_ROW, "nothing came of it", "")]

    def _find_fault(self, page: Page) -> tuple[Reason, str] | None:
        """Why a page can be no sample, whatever its source made of it."""
        strings = _list_strings(page)
        characters = sum(map(len, strings))
        if characters > self.max_characters:
            return Reason.TOO_MANY_CHARACTERS, (
                f"{characters:,} characters, allowed {self.max_characters:,} "
                f"(sources.{self.name_of_source}.max_characters)"
            )
        if self.unescape and holds_blanks(page):
            return Reason.EMPTY_ROW, "no text but entities that stand for blanks"
        return None if _is_unicode(strings) else (Reason.BAD_ROW, NO_UTF8)

    def _sample(self, document: SampleId, upstream_id: str, page: Page, numbers: list[int]) -> Sample:
        """The sample of a page of a row whose pictures have these numbers in the image table."""
        return Sample(
            id=document._replace(page=page.page),
            nodes=tuple(
                node if node.image is None else replace(node, image=numbers[node.image], url=_name_address(node.url))
                for node in page.nodes
            ),
            group=page.group or ("" if page.page == NO_PAGE else str(document)),
            licence=page.licence or self.licence,
            url=page.url,
            upstream_id=upstream_id,
            signals={
                name: float(number) for name, number in page.signals.items() if number is not None and isfinite(number)
            },
        )


def _lose_page(
    document: SampleId, upstream_id: str, page: int, reason: Reason, detail: str, begins: str
) -> dict[str, Any]:
    """The row of REFUSED that says why there is no sample of a page, or of a whole row."""
    place = document._replace(page=page)._asdict()
    told = {"reason": str(reason), "detail": escape_text(detail), "excerpt": begins}
    return {**place, "upstream_id": upstream_id, **told}


def _name_address(url: str | None) -> str | None:
    """The address of an image; None where the image itself stands in it."""
    return None if is_data_uri(url) else url


def _bound_id(upstream_id: str) -> str:
    """The id of a row as a table can hold it."""
    return upstream_id[:LONGEST_ID].encode("utf-8", "backslashreplace").decode()


NO_UTF8 = "a string holds half of a surrogate pair, which no text in UTF-8 can hold"


def _list_strings(page: Page) -> list[str]:
    """All strings of a page that its sample will hold; of an image that stands in its address there is none."""
    strings = [page.url, page.group, page.licence]
    for node in page.nodes:
        strings += [node.text or "", _name_address(node.url) or ""]
    return strings


def _is_unicode(strings: Sequence[str]) -> bool:
    """Whether all can be written: JSON may hold half of a surrogate pair, UTF-8 may not."""
    try:
        "".join(strings).encode()
    except UnicodeEncodeError:
        return False
    return True


class _Unread:
    """Counts the rows that had a key which was not read.

    `{"keys": {key: rows}, "beyond": mentions of keys past the first CAP}`.
    """

    CAP = 1000
    LONGEST = 80  # characters of a key

    def __init__(self) -> None:
        self._keys, self._beyond = Counter[str](), 0

    def note(self, keys: Iterable[str]) -> None:
        """Count the keys of one row."""
        for key in sorted(keys):
            short = key[: self.LONGEST]
            if short in self._keys or len(self._keys) < self.CAP:
                self._keys[short] += 1
            else:
                self._beyond += 1

    def write(self, path: Path) -> None:
        """Write the counts, by key."""
        found = {"keys": dict(self._keys), "beyond": self._beyond}
        path.write_text(json.dumps(found, sort_keys=True) + "\n", encoding="ascii")


class _Table:
    """A Parquet file that is written row by row, in row groups of bounded size."""

    ROWS = 4096
    BYTES = 32 << 20

    def __init__(self, path: Path, schema: pa.Schema, *, repeats: bool) -> None:
        """Where no value `repeats`, looking for repeats would take a third of the time."""
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeats)
        self._pending = list[Mapping[str, Any]]()
        self._weight = self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def add(self, row: Mapping[str, Any], weight: int) -> None:
        """Append a row of about `weight` bytes."""
        self._pending.append(row)
        self._weight += weight
        self.count += 1
        if len(self._pending) >= self.ROWS or self._weight >= self.BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending, self._weight = [], 0


class _Images:
    """Numbers pictures in the order in which they first come, and writes each once."""

    def __init__(self, table: _Table, files: FilesAhead) -> None:
        self._table, self._files = table, files
        self._known: dict[str | bytes, int] = {}
        self._paths: dict[str, int] = {}

    def number(self, picture: Picture) -> int:
        """The picture's row in the image table. Each file is read once, and files with the same bytes are one image."""
        if picture.data is None and is_data_uri(address := picture.path or picture.url):
            return self.number(read_data_uri(address or ""))
        if picture.path is not None:
            if picture.path not in self._paths:
                found = self._files.load(picture.path)
                self._paths[picture.path] = self.number(
                    found if found.data is not None else replace(found, url=picture.path)
                )
            return self._paths[picture.path]
        mark = hashlib.sha256(picture.data).digest() if picture.data is not None else picture.url
        if mark is None:
            return self._add(picture)
        if mark not in self._known:
            self._known[mark] = self._add(picture)
        return self._known[mark]

    def _add(self, picture: Picture) -> int:
        number = self._table.count
        row = {
            "image": number,
            "url": picture.url,
            "reason": picture.reason,
            "detail": picture.detail,
            "media_type": picture.media_type,
            "bytes": picture.data,
        }
        self._table.add(row, len(picture.data or b""))
        return number
