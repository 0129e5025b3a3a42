"""What a file, a folder or a dataset on the Hub holds: its files, the row shape that reads them, and a few samples.

`vlmill new` shows it and writes a recipe of it (proposal_recipe.py). The kinds are tried on the first rows of the first
file of each format. The one that makes samples of the most rows is taken, of equal ones that which leaves the fewest
columns unread. Columns are also recognised by their names and values (columns.py), for `table` and `web_table`.
"""

from __future__ import annotations

import glob
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import SourceError, VlmillError
from vlmill.pipeline.inputs.files import InputFile, list_input_files, open_input
from vlmill.pipeline.inputs.hub import is_hub
from vlmill.pipeline.reports.columns import Cells, recognise_columns
from vlmill.pipeline.reports.place_names import describe_left, get_suffix, make_pattern, split_names
from vlmill.pipeline.reports.sidecars import has_sidecars, list_described
from vlmill.pipeline.sources import SOURCES, Page, Source, SourceRow
from vlmill.pipeline.sources.formats.records import read_first_records

TRIED = 20
"""Rows of a file that each kind is tried on."""

FIRST = 5
"""PDFs that are opened until one has a text."""

ENOUGH = 0.5
"""The share of these that have to become samples."""

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


ABOUT = frozenset({"state.json", "dataset_info.json", "dataset_dict.json"})
"""What `save_to_disk` of datasets leaves beside the tables."""

PART = re.compile(
    r"[-_.]?((train|test|validation|data|default|part|shard)[-_.]?)?\d+([-_]of[-_]\d+)?\Z|\A(train|data|default)\Z"
)
"""What of a file's name says which part of a dataset it is."""


@dataclass(frozen=True)
class Attempt:
    """A kind with options, and what it made of the first rows."""

    kind: str
    options: Mapping[str, Any]
    tried: int
    pages: tuple[Page, ...]
    why: str = ""  # the first row that failed, or why the file is not of this kind

    @property
    def share(self) -> float:
        """Of the rows that became samples."""
        return len(self.pages) / self.tried if self.tried else 0.0

    @property
    def rank(self) -> tuple[float, int, int]:
        """The better of two has the higher: more samples, fewer images lost, fewer columns unread."""
        lost = sum(picture.reason is not None for page in self.pages for picture in page.pictures)
        return self.share, -lost, -len(self.unread)

    @property
    def unread(self) -> set[str]:
        """Columns that say something and are not read."""
        return {key for page in self.pages for key in page.unread}


@dataclass(frozen=True)
class Proposal:
    """What is in a place, and how it is read."""

    place: str
    name: str  # for the recipe and its source
    suffixes: Mapping[str, tuple[int, int]]  # end of a file's name -> files and bytes
    root: str
    files: str  # pattern below root
    columns: Mapping[str, str]  # of the first row -> what is in it
    chosen: Attempt | None  # None where no kind fits
    others: tuple[Attempt, ...] = ()  # what was tried besides, the best first
    images: str | None = None  # where the paths of its images start
    listed: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # rows to be written, of a folder of pictures
    notes: tuple[str, ...] = ()  # what a person should know


def examine_place(place: str) -> Proposal:
    """Look at a file, a folder, an address that fsspec reads, or `hf://datasets/OWNER/NAME`.

    Raises:
        SourceError: there is nothing, or nothing that any kind could read.
    """
    root, name, files = _list_files(place)
    suffixes = _count_suffixes(files)
    data = [suffix for suffix in FORMATS if suffix in suffixes]
    if not data or has_sidecars(files):
        return _examine_pictures(place, root, name, files, suffixes)
    suffix = max(data, key=lambda one: suffixes[one][1])
    found = [file.name for file in files if get_suffix(file.name) == suffix]
    names, left = split_names(found)
    wanted = {*names}
    chosen = [file for file in files if file.name in wanted]
    pattern = make_pattern(names, left)
    attempts, cells = list[Attempt](), Cells(())
    for file in chosen[: FIRST if suffix == ".pdf" else 1]:  # each of these is one row
        if any(one.share >= ENOUGH for one in attempts):
            break
        with open_input(_as_read(file)) as path:
            attempts += _try_kinds(path, suffix)
            cells = Cells(read_first_records(path, TRIED) if suffix not in {".tar", ".pdf"} else ())
            attempts += [_try_kind(path, kind, options) for kind, options in recognise_columns(cells)]
    fitting = [one for one in attempts if one.share >= ENOUGH]
    best = max(fitting, key=lambda one: one.rank, default=None)
    ranked = tuple(sorted((one for one in attempts if one is not best), key=lambda one: -one.share))
    saved = sum(PurePosixPath(file.name).name in ABOUT for file in files)
    images = _find_images(root, best) if best and SOURCES[best.kind].opens else None
    notes = [*_list_notes(suffixes, suffix, saved, best, images, root), *([describe_left(left)] if left else [])]
    columns = {column: cells.describe(column) for column in cells.columns}
    return Proposal(place, name, suffixes, root, pattern, columns, best, ranked, images, notes=tuple(notes))


def _list_files(place: str) -> tuple[str, str, list[InputFile]]:
    """The root, a name, and the files below it."""
    if is_hub(place) or "://" in place:
        root = place.rstrip("/")
        files = list_input_files("new", root, "**")
        return root, name_place(root), files
    path = Path(place).resolve()
    if path.is_file():
        stem = PART.sub("", path.stem)
        return (
            str(path.parent),
            _make_name(stem or path.parent.name),
            list_input_files("new", str(path.parent), glob.escape(path.name)),
        )
    if not path.is_dir():
        raise SourceError(f"{place}: there is no such file or folder; a dataset on the Hub is hf://datasets/OWNER/NAME")
    return str(path), _make_name(path.name), list_input_files("new", str(path), "**")


def name_place(place: str) -> str:
    """The name of the recipe of an address."""
    return _make_name(place.removeprefix("hf://datasets/").partition("@")[0])


def _make_name(text: str) -> str:
    """A name that a recipe and a source may have."""
    kept = "".join(letter.lower() if letter.isascii() and letter.isalnum() else "_" for letter in text)
    return "_".join(part for part in kept.split("_") if part)[:40] or "data"


def _count_suffixes(files: Sequence[InputFile]) -> dict[str, tuple[int, int]]:
    """End of a name -> files and bytes, the most bytes first."""
    counts, sizes = Counter[str](), Counter[str]()
    for file in files:
        counts[get_suffix(file.name)] += 1
        sizes[get_suffix(file.name)] += file.size
    return {suffix: (counts[suffix], size) for suffix, size in sizes.most_common()}


def _as_read(file: InputFile) -> InputFile:
    """The file, read by range where it is a Parquet file on the Hub."""
    return InputFile(
        file.source, file.number, file.name, file.url, file.size, file.sha256, file.name.endswith(".parquet")
    )


def _try_kinds(path: Path, suffix: str) -> Iterator[Attempt]:
    """Each kind for files that end so, with the options that its sets have; of one kind the best."""
    for kind in FORMATS[suffix]:
        found = [_try_kind(path, kind, options) for options in OPTIONS.get(kind, ({},))]
        yield max(found, key=lambda one: one.rank)


def _try_kind(path: Path, kind: str, options: Mapping[str, Any]) -> Attempt:
    """What a kind makes of the first rows of a file."""
    source: Source = parse_block(SOURCES[kind], dict(options), f"options of {kind}")
    try:
        rows = list(source.rows(path, range(min(TRIED, len(source.survey(path))))))
    except VlmillError as error:
        return Attempt(kind, options, 0, (), str(error))
    made = tuple(page for row in rows for page in row.pages[:1])
    return Attempt(kind, options, len(rows), made, _find_failure(rows))


def _find_failure(rows: Sequence[SourceRow]) -> str:
    """Why the first row that failed did."""
    return next((f"row {row.row}: {detail or reason}" for row in rows for reason, detail in row.failed), "")


def _find_images(root: str, attempt: Attempt) -> str | None:
    """The folder below `root`, itself or at most two below, where the images that rows name lie; None where none do."""
    named = [picture.path for page in attempt.pages for picture in page.pictures if picture.path]
    start = Path(root)
    if not named or not start.is_dir():
        return None
    folders = [start, *sorted(path for path in (*start.glob("*"), *start.glob("*/*")) if path.is_dir())]
    found = [(sum((folder / path).is_file() for path in named), folder) for folder in folders[:1000]]
    most, folder = max(found, key=lambda one: one[0])
    return str(folder) if most else None


def _examine_pictures(
    place: str, root: str, name: str, files: Sequence[InputFile], suffixes: Mapping[str, tuple[int, int]]
) -> Proposal:
    """A folder of picture files, each with a `.txt` or `.json` file beside it that says what it shows."""
    listed, left = list_described(files)
    if not listed:
        said = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, (count, _) in suffixes.items())
        advice = (
            "pictures without texts give nothing to train on: put the caption of a.jpg into a.txt beside it, or into "
            'a.json as {"caption": "..."}, or name pictures and texts in the columns of a CSV file'
            if left
            else f"it reads {', '.join(FORMATS)}, and folders of pictures with a .txt or .json file each"
        )
        raise SourceError(f"{place}: no kind reads what is there ({said}); {advice}")
    cells = Cells(listed[:TRIED])
    attempts = [_try_rows(listed[:TRIED], kind, options) for kind, options in recognise_columns(cells)]
    best = max((one for one in attempts if one.share >= ENOUGH), key=lambda one: one.rank, default=None)
    notes = (f"{left:,} pictures have no .txt or .json file that says anything and are left out",) if left else ()
    columns = {column: cells.describe(column) for column in cells.columns}
    others = tuple(one for one in attempts if one is not best)
    return Proposal(place, name, suffixes, root, f"{name}.jsonl", columns, best, others, root, tuple(listed), notes)


def _try_rows(rows: Sequence[Mapping[str, Any]], kind: str, options: Mapping[str, Any]) -> Attempt:
    """What a kind makes of rows that are not in a file yet."""
    with tempfile.TemporaryDirectory(prefix="vlmill-new-") as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return _try_kind(path, kind, options)


def _list_notes(
    suffixes: Mapping[str, tuple[int, int]],
    suffix: str,
    saved: int,
    best: Attempt | None,
    images: str | None,
    root: str,
) -> Iterator[str]:
    """What a person should know."""
    others = [one for one in suffixes if one in FORMATS and one != suffix]
    if suffix == ".arrow" and ".json" in others and suffixes[".json"][0] <= saved:
        others.remove(".json")
    if others:
        yield f"files that end in {', '.join(others)} are left out; look at them with: vlmill new FILE"
    if best is None:
        return
    if best.share < 1:
        yield f"{best.tried - len(best.pages)} of the first {best.tried} rows give no sample; {best.why}"
    opened = any(picture.path for page in best.pages for picture in page.pictures)
    if opened and images is None:
        yield f"no image file that rows name was found below {root}; say where they are with `images`"
