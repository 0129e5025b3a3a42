"""Which kinds read rows that nobody has described: each is tried on the first rows of a file.

For `vlmill new` (proposal.py). The kind that makes samples of the most rows is taken, of equal ones that which leaves
the fewest columns unread. Options that say more of the same columns go before those that say less, even where some
rows are at odds with them: else one wrong answer would make questions with choices into questions without. So does what
reads a conversation before what takes a text beside it for a caption.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.proposal.column_names import TURNS
from vlmill.pipeline.reports.causes import describe_causes
from vlmill.pipeline.sources import SOURCES, Page, Source, SourceRow
from vlmill.pipeline.sources.table import say_imageless

TRIED = 20
"""Rows of a file that each kind is tried on."""

WHYS = 3
"""Files of which it is said why rows fail."""

ENOUGH = 0.5
"""The share of these that have to become samples."""

LARGER = 0.75
"""The share of the samples that others make, which options that read more columns have to make."""

LISTS = ("web_documents", "file_documents")
TABLES = ("obelics", "cauldron", "finevision", "websight", "chat", "instructions", "interleaved", "pairs", *LISTS)
OBJECTS = ("chat", "instructions", "llava", "web_llava", "mmc4", "comm", *LISTS)

FORMATS: Mapping[str, tuple[str, ...]] = {
    ".parquet": TABLES,
    ".arrow": TABLES,
    ".jsonl": OBJECTS,
    ".json": OBJECTS,
    ".csv": ("instructions",),
    ".tsv": ("instructions",),
    ".tar": ("pairs_wds", "rendered_text", "pdfa", "idl", "mint_documents", "pdf"),
    ".pdf": ("pdf",),
}
"""Which kinds read files that end so; of equal ones the first is taken."""

OPTIONS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "interleaved": tuple(
        {"images": images, "turns": turns}
        for images in ("images", "image")
        for turns in ("conversations", "messages", "conversation", "texts")
    ),
    "pairs": tuple(
        {"url": url, "caption": caption}
        for url in ("url", "URL", "image_url")
        for caption in ("caption", "text", "TEXT", "alt_text", "vlm_caption")
    ),
    "rendered_text": ({}, *({"text": [name]} for name in ("caption", "description", "alt_text", "label"))),
    "web_documents": ({}, {"url": "general_metadata.url"}),
    "instructions": (
        {},
        {"question": "question", "answer": "answer"},
        {"question": "prompt", "answer": "response"},
        {"question": "instruction", "answer": "response"},
        {"question": "query", "answer": "response"},
        {"question": "problem", "answer": "solution"},
    ),
}
"""Names of columns that upstream's sets have for these kinds; the others have one set of names."""


@dataclass(frozen=True)
class Attempt:
    """A kind with options, and what it made of the first rows."""

    kind: str
    options: Mapping[str, Any]
    tried: int
    pages: tuple[Page, ...]
    samples: int = 0  # about so many the whole file gives
    why: str = ""  # why the first rows failed that did, or why the file is not of this kind
    files: tuple[int, int] = (1, 1)  # that the rows are of, and of how many
    imageless: int = 0  # rows that gave none since their columns of images are empty

    @property
    def share(self) -> float:
        """Of the rows that became samples, where some have an image of those that have one."""
        tried = self.tried - (self.imageless if self.pages else 0)
        return len(self.pages) / tried if tried else 0.0

    @property
    def rows(self) -> str:
        """The rows that it was tried on, in words."""
        if self.files[1] == 1:
            return f"the first {self.tried} rows"
        return f"{self.tried} rows in {self.files[0]:,} of {self.files[1]:,} files"

    @property
    def rank(self) -> tuple[float, int, int]:
        """The better of two has the higher: more samples, fewer images lost, fewer columns unread."""
        lost = sum(picture.reason is not None for page in self.pages for picture in page.pictures)
        return self.share, -lost, -len(self.unread)

    @property
    def paths(self) -> list[str]:
        """Of image files that its pages name."""
        return [picture.path for page in self.pages for picture in page.pictures if picture.path]

    @property
    def unread(self) -> set[str]:
        """Columns that say something and are not read."""
        return {key for page in self.pages for key in page.unread}


def try_kinds(path: Path, suffix: str) -> Iterator[Attempt]:
    """Each kind for files that end so, with the options that its sets have; of one kind the best."""
    for kind in FORMATS[suffix]:
        found = max((try_kind(path, kind, one) for one in OPTIONS.get(kind, ({},))), key=lambda one: one.rank)
        if kind == "websight" and found.pages and not _shows_code(found.pages):
            found = replace(found, pages=(), samples=0, why="texts are no HTML")
        yield found


def _shows_code(pages: Sequence[Page]) -> bool:
    """Whether most texts begin as HTML does."""
    texts = [(node.text or "").lstrip() for page in pages for node in page.nodes if node.kind == "text"]
    return 2 * sum(text.startswith("<") for text in texts) > len(texts)


def try_kind(path: Path, kind: str, options: Mapping[str, Any]) -> Attempt:
    """What a kind makes of the first rows of a file."""
    source: Source = parse_block(SOURCES[kind], dict(options), f"options of {kind}")
    try:
        there = len(source.survey(path))
        rows = list(source.rows(path, range(min(TRIED, there))))
    except VlmillError as error:
        return Attempt(kind, options, 0, (), why=str(error).removeprefix(f"{path}: "))
    made = tuple(page for row in rows for page in row.pages[:1])
    samples = there * sum(len(row.pages) for row in rows) // max(1, len(rows))
    bare = say_imageless(options["image"]) if "image" in options else ""
    imageless = sum((Reason.BAD_ROW, bare) in row.failed for row in rows)
    return Attempt(kind, options, len(rows), made, samples, _find_failure(rows), imageless=imageless)


def name_attempt(one: Attempt) -> str:
    """What tells a kind with its options from others."""
    return f"{one.kind} {json.dumps(dict(one.options), sort_keys=True)}"


def merge_attempts(parts: Sequence[tuple[str, Attempt]], there: int) -> Attempt:
    """One kind with the same options on files of these names, as one; `there` is how many files there are."""
    first = parts[0][1]
    whys = [f"{name}: {one.why}" if there > 1 else one.why for name, one in parts if one.why]
    more = f"; and in {len(whys) - WHYS} more files" if len(whys) > WHYS else ""
    return replace(
        first,
        tried=sum(one.tried for _, one in parts),
        pages=tuple(page for _, one in parts for page in one.pages),
        samples=sum(one.samples for _, one in parts),
        imageless=sum(one.imageless for _, one in parts),
        why="; ".join(whys[:WHYS]) + more,
        files=(len(parts), there),
    )


def _find_failure(rows: Sequence[SourceRow]) -> str:
    """Why rows that failed did: the first of each cause."""
    failed = {f"{row.row}": detail or str(reason) for row in rows for reason, detail in row.failed[:1]}
    return describe_causes([(f"row {row}", detail) for row, detail in failed.items()])


def fits_rows(attempts: Sequence[Attempt]) -> bool:
    """Whether one of these makes samples of enough rows."""
    return any(one.share >= ENOUGH for one in attempts)


def choose_attempt(attempts: Sequence[Attempt]) -> Attempt | None:
    """The best; None where none makes samples of enough rows."""
    fitting = [one for one in attempts if one.share >= ENOUGH]
    talks = [one for one in fitting if any(node.role == "assistant" for page in one.pages for node in page.nodes)]
    spoken = {*TURNS, *(str(one.options["turns"]).partition(".")[0] for one in talks if "turns" in one.options)}
    whole = [
        one
        for one in fitting
        if not any(_says_more(other, one) for other in fitting)
        and not (talks and "caption" in one.options and one.unread.intersection(spoken))
    ]
    return max(whole, key=lambda one: one.rank, default=None)


def _says_more(one: Attempt, other: Attempt) -> bool:
    """Whether the options of `one` have all those of `other` and more, and nearly as many samples come of it."""
    less = {name: value for name, value in other.options.items() if name != "mark" or one.kind == other.kind}
    more = bool(less) and less.items() < one.options.items()  # a mark names no column
    return more and one.share >= LARGER * other.share


def try_rows(rows: Sequence[Mapping[str, Any]], kind: str, options: Mapping[str, Any]) -> Attempt:
    """What a kind makes of rows that are not in a file yet."""
    with tempfile.TemporaryDirectory(prefix="vlmill-new-") as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return try_kind(path, kind, options)
