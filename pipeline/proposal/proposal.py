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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.utils import glob_translate

from vlmill.pipeline.boxes.recognition import SeenBoxes
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.places import suggest_near
from vlmill.pipeline.inputs.files import InputFile, list_input_files
from vlmill.pipeline.inputs.hub_files import is_hub
from vlmill.pipeline.proposal.annotations import list_annotated
from vlmill.pipeline.proposal.attempts import (
    FORMATS,
    TRIED,
    Attempt,
    choose_attempt,
    fits_rows,
    try_rows,
)
from vlmill.pipeline.proposal.columns import Cells, name_columns, recognise_columns, recognise_nested
from vlmill.pipeline.proposal.document_columns import (
    OWN,
    PAGES,
    SCANS,
    describe_mixed_parts,
    hold_marked_images,
)
from vlmill.pipeline.proposal.joined_rows import join_rows
from vlmill.pipeline.proposal.looked_files import Opened, note_lost_images, open_files
from vlmill.pipeline.proposal.page_texts import OF_A_PAGE, is_one_page
from vlmill.pipeline.proposal.place_names import (
    PACKED,
    Wrapped,
    describe_left,
    find_wrapped,
    get_suffix,
    list_packed,
    make_pattern,
    read_whole,
    split_names,
)
from vlmill.pipeline.proposal.row_ids import add_row_id
from vlmill.pipeline.proposal.seen_boxes import list_box_notes, recognise_in_pages
from vlmill.pipeline.proposal.sidecars import (
    KNOWN,
    Beside,
    describe_numeric,
    has_sidecars,
    list_described,
    list_pages,
    list_undecoded,
    list_unread_files,
    name_by_folders,
)
from vlmill.pipeline.proposal.text_notes import list_text_notes
from vlmill.pipeline.proposal.unread_speakers import describe_speakers
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.formats.packed import strip_packing
from vlmill.pipeline.sources.image_places import (
    CUT,
    explain_outside,
    find_image_place,
    find_tail,
    get_absolute,
    tell_unpacking,
)

IDS = "images are named by ids, no paths: say in the options of a table what files are called, such as '{image}.jpg'"

IMAGELESS = (
    "rows whose column of images is empty are lost, since what they ask may be about an image; where they are of text "
    "alone, a second source with the same files and without `image` in its options reads just these"
)

UNSHOWN = (
    "no row that was looked at shows a picture, and picture files are there ({count:,}): rows name them in a column or "
    "a key (--column image=COLUMN, or turn_image=KEY), or a file has the name of its picture (a.json beside a.png)"
)

LONGEST_NAME = 40
"""Characters of the name of a recipe."""

ABOUT = frozenset({"state.json", "dataset_info.json", "dataset_dict.json"})
"""What `save_to_disk` of datasets and LLaMA-Factory have beside the rows."""

CRAWLED = frozenset({".html", ".htm", ".xhtml", ".md", ".warc", ".gz"})
"""How files end that hold pages, as crawlers and trafilatura leave them."""

PART = re.compile(
    r"[-_.]?((train|test|validation|data|default|part|shard)[-_.]?)?\d+([-_]of[-_]\d+)?\Z"
    r"|\A(train|data|default|rows|dataset|metadata|annotations|captions)\Z"
)
"""What of a file's name says which part of a dataset it is, or no more than that it is one: its folder names it."""


@dataclass(frozen=True)
class Proposal:
    """What is in a place, and how it is read."""

    place: str
    name: str  # for the recipe and its source
    suffixes: Mapping[str, tuple[int, int]]  # end of a file's name -> files and bytes
    root: str
    files: str  # which files below `root`: a pattern such as data/*.parquet
    columns: Mapping[str, str]  # of the first row -> what is in it
    chosen: Attempt | None  # None where no kind fits
    others: tuple[Attempt, ...] = ()  # what was tried besides, the best first
    samples: int = 0  # about so many all files give
    images: str | None = None  # where the paths of its images start
    listed: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # rows to be written, of a folder of pictures
    notes: tuple[str, ...] = ()  # what a person should know
    boxes: tuple[SeenBoxes, ...] = ()  # coordinates that its texts seem to hold


def examine_place(
    place: str, named: Mapping[str, Sequence[str]] | None = None, taken: Collection[str] = ()
) -> Proposal:
    """Look at a file, a folder, an address that fsspec reads, or `hf://datasets/OWNER/NAME`.

    Args:
        place: where.
        named: what columns hold, if somebody says it: an option of kind `table` -> columns.
        taken: names that other sources of the recipe have; where this would have one of them, it gets a number.

    Raises:
        SourceError: there is nothing, or nothing that any kind could read, or no column of a name.
    """
    root, plain, files = _list_files(place)
    name = plain if plain not in taken else next(one for n in count(2) if (one := f"{plain}_{n}") not in taken)
    suffixes = _count_suffixes(files)
    data = [suffix for suffix in suffixes if strip_packing(suffix) in FORMATS]
    if not data or has_sidecars(files) or (set(data) == {".json"} and _tell_of_pictures(files)):
        return _examine_pictures(place, root, name, files, suffixes, named)
    suffix = max(data, key=lambda one: suffixes[one][1])
    found = [file.name for file in files if get_suffix(file.name) == suffix]
    names, left = split_names([one for one in found if PurePosixPath(one).name not in ABOUT] or found)
    opened = open_files(root, [file for file in files if file.name in {*names}], suffix, named)
    best = opened.best and add_row_id(opened.best, opened.cells.rows)
    names = [one for one in names if one not in opened.refused]
    wrapped = _find_wrapped(place, opened, names, found) if suffix == ".json" else None
    if wrapped and best and named is None and wrapped.holds(best.options, best.unread):
        raise SourceError(f"{place}: {wrapped.message}")
    ranked = tuple(sorted(opened.others, key=lambda one: (-one.share, "table" not in one.kind)))  # by its columns
    saved = sum(PurePosixPath(file.name).name in ABOUT for file in files)
    images = find_image_place(root, opened.first.paths) if opened.first and SOURCES[opened.first.kind].opens else None
    pattern = make_pattern(names, [one for one in found if one not in {*names}])
    columns = opened.cells.describe_all()
    samples, listed = _count_samples(opened, files, names), tuple[Mapping[str, Any], ...]()
    joined = join_rows(place, root, [file for file in files if file.name in {*names}], opened.file, images, best)
    if not joined and best and SOURCES[best.kind].opens:
        images = find_image_place(root, best.paths)  # of all files, where each has not a folder of its own
    notes = [*_list_notes(suffixes, suffix, saved, best, images, root)]
    notes += [describe_left(left)] if left else []
    if wrapped and not best:
        notes.append(wrapped.message)
    if misread := _describe_misread(best, opened.cells) if named is None else "":
        best, joined = None, None
        notes.append(misread)
    if not best and suffix == ".json" and opened.rows and is_one_page(opened.rows[0]):
        notes.append(OF_A_PAGE)
    if best:
        notes += [*opened.notes, *list_text_notes(best, opened.cells)]
        notes += [] if joined else note_lost_images(opened, images)
        if suffix == ".json":
            notes += [f"{one} is left out: it is about data" for one in found if PurePosixPath(one).name in ABOUT]
        matches = re.compile(glob_translate(pattern)).match
        notes += [
            f"no pattern of `files` leaves {one} out, so move it elsewhere: {why}"
            if matches(one)
            else f"{one} is left out: {why}"
            for one, why in opened.refused.items()
        ]
    if joined:
        best, listed, samples = joined.attempt, joined.rows, joined.samples
        pattern, images, notes = f"{name}.jsonl", root, [*notes, *joined.notes]
    boxes = tuple(recognise_in_pages(best.pages, images)) if best else ()
    notes += list_box_notes(boxes, name)
    return Proposal(
        place, name, suffixes, root, pattern, columns, best, ranked, samples, images, listed, tuple(notes), boxes
    )


def _count_samples(opened: Opened, files: Sequence[InputFile], names: Sequence[str]) -> int:
    """About so many samples all files of these names give: by the bytes of those that were looked at.

    Files of one row each are counted, and so are those whose sizes are not known.
    """
    if opened.best is None:
        return 0
    sizes = {file.name: file.size for file in files if file.name in {*names}}
    looked = [sizes[name] for name in opened.shares if name in sizes]
    counted = opened.best.tried <= len(looked) or not all(sizes.values())
    more = len(sizes) / len(looked) if counted else sum(sizes.values()) / sum(looked)
    return round(opened.best.samples * more)


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
    return "_".join(part for part in kept.split("_") if part)[:LONGEST_NAME] or "data"


def _count_suffixes(files: Sequence[InputFile]) -> dict[str, tuple[int, int]]:
    """End of a name -> files and bytes, the most bytes first."""
    counts, sizes = Counter[str](), Counter[str]()
    for file in files:
        counts[get_suffix(file.name)] += 1
        sizes[get_suffix(file.name)] += file.size
    return {suffix: (counts[suffix], size) for suffix, size in sizes.most_common()}


def _find_wrapped(place: str, opened: Opened, names: Sequence[str], found: Sequence[str]) -> Wrapped | None:
    """The rows within the one row of the file that was opened, of these of the files that were found."""
    path = Path(place)
    folder = place if path.is_dir() else str(path.parent) if path.is_file() else ""
    there = [opened.file, *(name for name in names if name != opened.file)] if path.is_dir() else [opened.file]
    shown, whole = [_show_file(place, name) for name in there], {*there} == {*found}
    return find_wrapped(shown, opened.rows or read_whole(Path(shown[0])), folder, whole=whole)


def _show_file(place: str, name: str) -> str:
    """A file of a place, as a command that is given here would name it."""
    path = Path(place)
    return str(path / name) if path.is_dir() else place if path.is_file() else name


def _tell_unpacking(place: str, name: str) -> str:
    """What unpacks a file of a place."""
    return f"{PACKED[get_suffix(name)]} {shlex.quote(_show_file(place, name))}"


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
        unread = "".join(f"; {one}" for one in list_undecoded({one: number for one, (number, _) in suffixes.items()}))
        raise SourceError(f"{place}: no kind reads what is there ({said}){numbers}{unread}; {advice}")
    cells = Cells(beside.described[:TRIED], where=place)
    options = recognise_columns(cells) if named is None else name_columns(cells, named)
    attempts = [try_rows(cells.rows, kind, one) for kind, one in options]
    if named is None and all(one.share < 1 for one in attempts if "caption" not in one.options):
        nested = ((kind, one) for kind, one in recognise_nested(cells) if "turns" in one or not fits_rows(attempts))
        attempts += [try_rows(cells.rows, kind, one) for kind, one in nested]
    best = choose_attempt(attempts)
    misread = _describe_misread(best, cells) if named is None else ""
    best = None if misread else best
    others = tuple(one for one in attempts if one is not best)
    best = best and add_row_id(best, cells.rows)
    columns = cells.describe_all()
    boxes = tuple(recognise_in_pages(best.pages, root)) if best else ()
    about_texts = list_text_notes(best, cells) if best else [misread] if misread else []
    lost = list(_note_lost_rows(best)) if best else []
    notes, file = (*told, *beside.list_notes(), *lost, *about_texts, *list_box_notes(boxes, name)), f"{name}.jsonl"
    listed, count = tuple(beside.rows), len(beside.described)
    return Proposal(place, name, suffixes, root, file, columns, best, others, count, root, listed, notes, boxes)


def _describe_misread(best: Attempt | None, cells: Cells) -> str:
    """Why rows are not to be read as `best` reads them; empty where nothing speaks against it."""
    return describe_speakers(best, cells) or describe_mixed_parts(best, cells)


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
    return beside, [*list_unread_files(taken), *notes]


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
    yield from _note_lost_rows(best)
    if best.imageless:
        yield IMAGELESS
    pictures = sum(count for one, (count, _) in suffixes.items() if one in KNOWN)
    if pictures and not any(page.pictures for page in best.pages):
        yield UNSHOWN.format(count=pictures)
    if hold_marked_images(best.pages):
        yield f"images that stand in texts as Markdown or HTML stay text; {PAGES}"
    yield from _note_images(best, images, root)


def _note_lost_rows(best: Attempt) -> Iterator[str]:
    """How many of the rows that were looked at give no sample, and why."""
    if none := best.tried - len(best.pages):
        yield f"{none} of {best.rows} {'gives' if none == 1 else 'give'} no sample; {best.why}"


def _note_images(best: Attempt, images: str | None, root: str) -> Iterator[str]:
    """What a person should know where the files of images that rows name were not found."""
    pictures = [picture for page in best.pages for picture in page.pictures]
    if images is None and 2 * sum(picture.path is not None for picture in pictures) >= max(1, len(pictures)):
        unpack = tell_unpacking(root, best.paths)
        ways = f"a tar has some, unpack it: {unpack}" if unpack else "say where they are with `images`"
        yield (
            f"no image file that rows name, such as {best.paths[0]}, was found below {root}, in its folders or zip "
            f"files; {ways}{'' if unpack else ', and unpack other archives'}"
        )
        if tail := find_tail(root, best.paths[0]):
            yield CUT.format(path=best.paths[0], begin=tail[0], folder=tail[1])
        elif get_absolute(best.paths[0]):
            yield f"{best.paths[0]}: {explain_outside(best.paths[0])}"
        if not any(PurePosixPath(path).suffix for path in best.paths):
            yield IDS
