"""What a file, a folder or a dataset on the Hub holds: its files, the row shape that reads them, and a few samples.

`vlmill new` shows it and writes a recipe of it (recipe_text.py). Of the format with the most bytes files are opened
until a kind fits (attempts.py). Columns are also recognised by their names and values (columns.py), for `table` and
`web_table`, or are named on the command line.
"""

from __future__ import annotations

import glob
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vlmill.pipeline.boxes.recognition import SeenBoxes
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.places import suggest_near
from vlmill.pipeline.inputs.files import InputFile, list_input_files, open_input
from vlmill.pipeline.inputs.hub_files import is_hub
from vlmill.pipeline.proposal.annotations import list_annotated
from vlmill.pipeline.proposal.attempts import (
    FORMATS,
    TRIED,
    Attempt,
    choose_attempt,
    fits_rows,
    try_kind,
    try_kinds,
    try_rows,
)
from vlmill.pipeline.proposal.columns import Cells, name_columns, recognise_columns, recognise_nested
from vlmill.pipeline.proposal.document_columns import (
    OWN,
    PAGES,
    SCANS,
    hold_marked_images,
    name_lists,
    recognise_documents,
)
from vlmill.pipeline.proposal.image_ids import find_image_ids
from vlmill.pipeline.proposal.joined_rows import join_rows
from vlmill.pipeline.proposal.place_names import (
    PACKED,
    Wrapped,
    describe_left,
    describe_splits,
    find_split_column,
    find_wrapped,
    get_suffix,
    list_packed,
    make_pattern,
    read_whole,
    split_names,
    spread_names,
)
from vlmill.pipeline.proposal.seen_boxes import list_box_notes, recognise_in_pages
from vlmill.pipeline.proposal.sidecars import (
    Beside,
    describe_numeric,
    has_sidecars,
    list_described,
    list_pages,
    list_unread_files,
    name_by_folders,
)
from vlmill.pipeline.proposal.text_notes import list_text_notes
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.formats.csv_rows import DELIMITERS, has_header
from vlmill.pipeline.sources.formats.packed import strip_packing
from vlmill.pipeline.sources.formats.records import read_column, read_first_records
from vlmill.pipeline.sources.image_places import ABSOLUTE, CUT, find_image_place, find_tail, get_absolute

FIRST = 5
"""Files that are opened until a kind fits: the first, or of PDFs as many from all over the place."""

IDS = "images are named by ids, no paths: say in the options of a table what files are called, such as '{image}.jpg'"

NO_HEADER = "the first line is a row and names no columns: they are column_1, column_2 and so on"

ABOUT = frozenset({"state.json", "dataset_info.json", "dataset_dict.json"})
"""What `save_to_disk` of datasets and LLaMA-Factory have beside the rows."""

CRAWLED = frozenset({".html", ".htm", ".xhtml", ".md", ".warc", ".gz"})
"""How files end that hold pages, as crawlers and trafilatura leave them."""

PART = re.compile(
    r"[-_.]?((train|test|validation|data|default|part|shard)[-_.]?)?\d+([-_]of[-_]\d+)?\Z|\A(train|data|default)\Z"
)
"""What of a file's name says which part of a dataset it is."""


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
    samples: int = 0  # about so many all files give
    images: str | None = None  # where the paths of its images start
    listed: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # rows to be written, of a folder of pictures
    notes: tuple[str, ...] = ()  # what a person should know
    boxes: tuple[SeenBoxes, ...] = ()  # coordinates that its texts seem to hold


def examine_place(place: str, named: Mapping[str, Sequence[str]] | None = None) -> Proposal:
    """Look at a file, a folder, an address that fsspec reads, or `hf://datasets/OWNER/NAME`.

    Args:
        place: where.
        named: what columns hold, if somebody says it: an option of kind `table` -> columns.

    Raises:
        SourceError: there is nothing, or nothing that any kind could read, or no column of a name.
    """
    root, name, files = _list_files(place)
    suffixes = _count_suffixes(files)
    data = [suffix for suffix in suffixes if strip_packing(suffix) in FORMATS]
    if not data or has_sidecars(files) or (set(data) == {".json"} and _tell_of_pictures(files)):
        return _examine_pictures(place, root, name, files, suffixes, named)
    suffix = max(data, key=lambda one: suffixes[one][1])
    found = [file.name for file in files if get_suffix(file.name) == suffix]
    names, left = split_names([one for one in found if PurePosixPath(one).name not in ABOUT] or found)
    opened = _open_files(root, [file for file in files if file.name in {*names}], suffix, named)
    if suffix != ".pdf" and fits_rows(opened.attempts):
        names = [one for one in names if one not in opened.refused]
    best = choose_attempt(opened.attempts)
    wrapped = _find_wrapped(place, opened, names, found) if suffix == ".json" else None
    if wrapped and best and named is None and wrapped.holds(best.options, best.unread):
        raise SourceError(f"{place}: {wrapped.message}")
    ranked = tuple(sorted((one for one in opened.attempts if one is not best), key=lambda one: -one.share))
    saved = sum(PurePosixPath(file.name).name in ABOUT for file in files)
    images = find_image_place(root, best.paths) if best and SOURCES[best.kind].opens else None
    notes = [*_list_notes(suffixes, suffix, saved, best, images, root)]
    notes += [describe_left(left)] if left else []
    if wrapped and not best:
        notes.append(wrapped.message)
    notes += [*opened.splits, *list_text_notes(best, opened.cells)] if best else []
    if best and suffix == ".pdf" and opened.refused:
        whys = "; ".join(opened.refused.values())
        notes.append(f"{len(opened.refused)} of {len(opened.refused) + 1} PDFs that were opened give no sample; {whys}")
    elif best:
        if suffix == ".json":
            notes += [f"{one} is left out: it is about data" for one in found if PurePosixPath(one).name in ABOUT]
        notes += [f"{one} is left out: no kind reads it ({why})" for one, why in opened.refused.items()]
    pattern = make_pattern(names, [one for one in found if one not in {*names}])
    columns = opened.cells.describe_all()
    samples, listed = best.samples * len(names) if best else 0, tuple[Mapping[str, Any], ...]()
    if joined := join_rows(place, root, [file for file in files if file.name in {*names}], opened.file, images, best):
        best, listed, samples = joined.attempt, joined.rows, joined.samples
        pattern, images, notes = f"{name}.jsonl", root, [*notes, *joined.notes]
    boxes = tuple(recognise_in_pages(best.pages, images)) if best else ()
    notes += list_box_notes(boxes, name)
    return Proposal(
        place, name, suffixes, root, pattern, columns, best, ranked, samples, images, listed, tuple(notes), boxes
    )


@dataclass(frozen=True)
class _Opened:
    """What the first files gave."""

    attempts: Sequence[Attempt]
    file: str  # the last file, which is the one that a kind fits, if any does
    cells: Cells  # of it
    refused: Mapping[str, str]  # files before it -> why no kind fits
    splits: Sequence[str] = ()  # what a person should know of its header and a column of splits


def _open_files(
    root: str, files: Sequence[InputFile], suffix: str, named: Mapping[str, Sequence[str]] | None
) -> _Opened:
    """Try kinds on files until one fits; what finds images by ids goes before what does not."""
    attempts, cells, refused, name = list[Attempt](), Cells(()), dict[str, str](), ""
    for file in spread_names(files, FIRST) if suffix == ".pdf" else files[:FIRST]:
        tried, name = list[Attempt](), file.name
        with open_input(_as_read(file)) as path:
            if named is None:
                tried += try_kinds(path, strip_packing(suffix))
            try:
                rows = read_first_records(path, TRIED) if suffix not in {".tar", ".pdf"} else ()
                cells = Cells(rows, find_image_ids(root, rows), name)
            except SourceError as error:
                tried.append(Attempt("table", {}, 0, (), why=str(error)))
            tried += [try_kind(path, kind, one) for kind, one in _list_options(cells, named)]
            if named is None and not fits_rows([one for one in tried if "caption" not in one.options]):
                documents = [try_kind(path, kind, one) for kind, one in recognise_documents(cells)]
                tried = documents if fits_rows(documents) else [*tried, *documents]
            if named is None and not fits_rows(tried):
                tried += [try_kind(path, kind, one) for kind, one in recognise_nested(cells)]
            splits = _note_splits(path, cells) if fits_rows(tried) else []
            if fits_rows(tried) and strip_packing(suffix) in DELIMITERS and not has_header(path):
                splits.append(NO_HEADER)
        by_ids = [one for one in tried if one.kind == "table" and "file" in one.options]
        tried = by_ids if fits_rows(by_ids) else tried
        attempts += tried
        if fits_rows(tried):
            return _Opened(attempts, name, cells, refused, splits)
        refused[file.name] = max(tried, key=lambda one: one.rank).why if tried else "it holds no rows"
    return _Opened(attempts, name, cells, refused)


def _note_splits(path: Path, cells: Cells) -> list[str]:
    """What a person should know of a column of splits, by rows from all over the file."""
    column = find_split_column(cells.rows)
    if column is None:
        return []
    try:
        return describe_splits(column, read_column(path, column))
    except SourceError:  # a part of the file is damaged, which a build says
        return describe_splits(column, cells.list_values(column))


def _list_options(cells: Cells, named: Mapping[str, Sequence[str]] | None) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Kinds and options for columns by their names, or as somebody names them."""
    if named is None:
        return recognise_columns(cells)
    return [name_lists(cells, named)] if "texts" in named else name_columns(cells, named)


def _list_files(place: str) -> tuple[str, str, list[InputFile]]:
    """The root, a name, and the files below it."""
    if is_hub(place) or "://" in place:
        root = place.rstrip("/")
        files = list_input_files("new", root, "**")
        return root, name_place(root), files
    path = Path(place).resolve()
    if path.is_file():
        stem = PART.sub("", path.name.removesuffix(get_suffix(path.name)))
        return (
            str(path.parent),
            _make_name(stem or path.parent.name),
            list_input_files("new", str(path.parent), glob.escape(path.name)),
        )
    if not path.is_dir():
        raise SourceError(
            f"{place}: there is no such file or folder"
            f"{suggest_near(place) or '; a dataset on the Hub is hf://datasets/OWNER/NAME'}"
        )
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


def _find_wrapped(place: str, opened: _Opened, names: Sequence[str], found: Sequence[str]) -> Wrapped | None:
    """The rows within the one row of the file that was opened, of these of the files that were found."""
    path = Path(place)
    folder = place if path.is_dir() else str(path.parent) if path.is_file() else ""
    there = [opened.file, *(name for name in names if name != opened.file)] if path.is_dir() else [opened.file]
    shown, whole = [_show_file(place, name) for name in there], {*there} == {*found}
    return find_wrapped(shown, opened.cells.rows or read_whole(Path(shown[0])), folder, whole=whole)


def _show_file(place: str, name: str) -> str:
    """A file of a place, as a command that is given here would name it."""
    path = Path(place)
    return str(path / name) if path.is_dir() else place if path.is_file() else name


def _tell_unpacking(place: str, name: str) -> str:
    """What unpacks a file of a place."""
    return f"{PACKED[get_suffix(name)]} {shlex.quote(_show_file(place, name))}"


def _as_read(file: InputFile) -> InputFile:
    """The file, read by range where it is a Parquet file on the Hub."""
    return InputFile(
        file.source, file.number, file.name, file.url, file.size, file.sha256, file.name.endswith(".parquet")
    )


def _examine_pictures(
    place: str,
    root: str,
    name: str,
    files: Sequence[InputFile],
    suffixes: Mapping[str, tuple[int, int]],
    named: Mapping[str, Sequence[str]] | None,
) -> Proposal:
    """A folder of picture files, each with a `.txt` or `.json` file beside it that says what it shows."""
    beside, told = _find_said(files)
    if not beside.described:
        packed = list_packed([file.name for file in files])
        said = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, (count, _) in suffixes.items())
        advice = (
            "pictures without texts give nothing to train on: put the caption of a.jpg into a.txt beside it, or into "
            'a.json as {"caption": "..."}, or name pictures and texts in the columns of a CSV file; '
            f"{SCANS}"
            if beside.rows
            else f"it reads {', '.join(FORMATS)}, and folders of pictures with a .txt or .json file each"
            + (f"; of pages {PAGES}" if {*suffixes} & CRAWLED and not packed else "")
            + ("" if packed else f"; {OWN}")
            + "".join(f"; unpack {one} first, such as with: {_tell_unpacking(place, one)}" for one in packed[:1])
        )
        numbers = f"; {describe_numeric(beside.numeric)}" if beside.numeric else ""
        raise SourceError(f"{place}: no kind reads what is there ({said}){numbers}; {advice}")
    cells = Cells(beside.described[:TRIED], where=place)
    options = recognise_columns(cells) if named is None else name_columns(cells, named)
    attempts = [try_rows(cells.rows, kind, one) for kind, one in options]
    best = choose_attempt(attempts)
    columns = cells.describe_all()
    others = tuple(one for one in attempts if one is not best)
    boxes = tuple(recognise_in_pages(best.pages, root)) if best else ()
    about_texts = list_text_notes(best, cells) if best else ()
    notes, file = (*told, *beside.list_notes(), *about_texts, *list_box_notes(boxes, name)), f"{name}.jsonl"
    listed, count = tuple(beside.rows), len(beside.described)
    return Proposal(place, name, suffixes, root, file, columns, best, others, count, root, listed, notes, boxes)


def _find_said(files: Sequence[InputFile]) -> tuple[Beside, list[str]]:
    """What is said of pictures: in files beside them, in annotations, or by their folders; and how that is known."""
    annotated = list_annotated(files)
    if annotated.rows:
        return Beside(annotated.rows, ()), annotated.list_notes()
    names, left = split_names([file.name for file in files])
    taken, notes = [file for file in files if file.name in {*names}], [describe_left(left)] if left else []
    beside = list_described(taken)
    if not beside.described and (pages := list_pages(taken)).rows:
        return pages, notes
    if not beside.described and (labelled := name_by_folders(taken)):
        named = "the caption of each picture is the name of its folder: change it in the list"
        return Beside(labelled, ()), [named, *list_unread_files(taken), *notes]
    return beside, notes


def _tell_of_pictures(files: Sequence[InputFile]) -> bool:
    """Whether files of JSON are about pictures here: annotations, or what OCR read on them."""
    return bool(list_annotated(files).rows or list_pages(files).rows)


def _list_notes(
    suffixes: Mapping[str, tuple[int, int]],
    suffix: str,
    saved: int,
    best: Attempt | None,
    images: str | None,
    root: str,
) -> Iterator[str]:
    """What a person should know."""
    others = [one for one in suffixes if strip_packing(one) in FORMATS and one != suffix]
    if suffix == ".arrow" and ".json" in others and suffixes[".json"][0] <= saved:
        others.remove(".json")
    if others:
        yield f"files that end in {', '.join(others)} are left out; look at them with: vlmill new FILE"
    if best is None:
        return
    if best.unread:
        yield f"columns that are not read: {', '.join(sorted(best.unread))}"
    if best.share < 1:
        yield f"{best.tried - len(best.pages)} of the first {best.tried} rows give no sample; {best.why}"
    if hold_marked_images(best.pages):
        yield f"images that stand in texts as Markdown or HTML stay text; {PAGES}"
    yield from _note_images(best, images, root)


def _note_images(best: Attempt, images: str | None, root: str) -> Iterator[str]:
    """What a person should know where the files of images that rows name were not found."""
    pictures = [picture for page in best.pages for picture in page.pictures]
    if images is None and 2 * sum(picture.path is not None for picture in pictures) >= max(1, len(pictures)):
        yield (
            f"no image file that rows name, such as {best.paths[0]}, was found below {root}, in its folders or zip "
            "files; say where they are with `images`, and unpack other archives"
        )
        if tail := find_tail(root, best.paths[0]):
            yield CUT.format(path=best.paths[0], begin=tail[0], folder=tail[1])
        elif get_absolute(best.paths[0]):
            yield f"{best.paths[0]}: {ABSOLUTE}"
        if not any(PurePosixPath(path).suffix for path in best.paths):
            yield IDS
