"""Pictures with a file of each that says what it shows, for `vlmill new`: a `.txt` with a caption, or a `.json`.

It lies beside the picture, or by the same name in another folder. A `.json` with a conversation may be about several
pictures, `a_1.png` and `a_2.png` beside `a.json`. Of a scan it may be what an OCR program wrote
(page_texts.py), also in one file for all pages, or as hOCR (hocr.py).
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.proposal.attempts import FORMATS
from vlmill.pipeline.proposal.hocr import read_hocr
from vlmill.pipeline.proposal.page_texts import list_read_pages, read_page_text
from vlmill.pipeline.proposal.place_names import get_suffix
from vlmill.pipeline.sources.conversation import FROM
from vlmill.pipeline.sources.formats.packed import strip_packing
from vlmill.pipeline.sources.known_keys import PICTURES

KNOWN = frozenset(f".{suffix}" for suffix in PICTURES)

SAID = (".txt", ".json", ".hocr")
"""How files end that say something of one picture, the first before the next."""
READ = frozenset({*SAID, ".md", ""})
"""How files end that say something of pictures, and those that are about the whole folder."""

ROWS = FORMATS.keys() - {".json", ".pdf"}
"""How files of rows end; beside them pictures are what rows name. A stray file of any other form says nothing."""
UNDECODED = frozenset({".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".eps"})
"""How pictures end that nothing here decodes."""

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "images", "img", "pictures"})
"""Names of folders that say nothing of a picture."""
LETTER = re.compile(r"[^\W\d_]")
WORDS = re.compile(r"[^\W_]+")

NUMBERED = re.compile(r"(.*?)[-_. ]?(\d{1,9})", re.DOTALL)
"""The name of one of several pictures: what they have in common, and its number."""

LOOKED_AT = 3
"""Files of conversations about numbered pictures that are read to know them."""

NAMED = 3
"""Files that a note names."""
LARGEST = 1 << 29
"""Bytes of a file that is read whole."""


def has_sidecars(files: Sequence[InputFile]) -> bool:
    """Whether most JSON files have the name of a picture, and no file holds rows of another form."""
    data = [file.name for file in files if get_suffix(file.name) == ".json"]
    beside = {file.name for (_, suffix), file in match_files(files).items() if suffix == ".json"}
    left = [file for file in files if get_suffix(file.name) == ".json" and file.name not in beside]
    numbered = _number_pictures(file.name for file in files if get_suffix(file.name) in KNOWN)
    talks = [file for file in left if drop_suffix(file.name) in numbered]
    if len(talks) > 1 and all(map(_read_talk, talks[:LOOKED_AT])):
        beside |= {file.name for file in talks}
    others = {strip_packing(get_suffix(file.name)) for file in files} & ROWS
    return len(beside) > len(data) / 2 and not others


@dataclass(frozen=True)
class Beside:
    """Pictures, and what files beside them say."""

    rows: Sequence[Mapping[str, Any]]
    """Of each picture: `image`, its name, and the keys of its `.json`, or `caption` from its `.txt`. Of several with
    one `.json`: their names. One of which nothing is said has no more than its name; a build counts it as failed."""
    alone: Sequence[str]  # names of such files without a picture
    numeric: int = 0  # `.txt` files without a letter, such as boxes for detectors: no captions
    read: int = 0  # pages whose text was made of the words and lines of OCR
    broken: Sequence[str] = ()  # `.json` files that hold no JSON
    other: Sequence[str] = ()  # files in another encoding than UTF-8

    @property
    def described(self) -> list[Mapping[str, Any]]:
        """The rows of which something is said."""
        return [row for row in self.rows if len(row) > 1]

    def list_notes(self) -> Iterator[str]:
        """What a person should know."""
        bare = [str(row["image"]) for row in self.rows if len(row) == 1]
        if bare:
            yield (
                f"{len(bare):,} of {len(self.rows):,} pictures have no .txt, .json or .hocr file that says anything, "
                f"and give no sample: {_name_some(bare)}"
            )
        if left := _list_left_out(bare, [*self.described, *({"image": one} for one in self.alone)]):
            yield (
                f"{len(left):,} of these have the name of such a file and more, and no text shows them: "
                f"{_name_some(left)}. Where a .json file is about several pictures, call all of them by number in "
                "their order, such as a_1.png and a_2.png beside a.json"
            )
        if self.broken:
            yield f"{len(self.broken):,} .json files are no JSON and say nothing: {_name_some(self.broken)}"
        if self.other:
            yield (
                f"{len(self.other):,} files are not in UTF-8 and say nothing: {_name_some(self.other)}; convert them, "
                "such as with: iconv -f LATIN1 -t UTF-8 FILE > OTHER"
            )
        if self.read:
            yield (
                f"the texts of {self.read:,} pages were made of the words and lines in results of OCR, in their order "
                "and without their boxes: look at some"
            )
        if self.numeric:
            yield f"{describe_numeric(self.numeric)}, and are no captions"
        if self.alone:
            yield f"{len(self.alone):,} of .txt, .json and .hocr files are beside no picture: {_name_some(self.alone)}"


def match_files(files: Sequence[InputFile]) -> dict[tuple[str, str], InputFile]:
    """Picture and `.txt`, `.json` or `.hocr` -> the file that says what it shows.

    That is `a.json` or `a.png.json` beside `a.png`; else the only one called so, where one picture alone is.
    """
    pictures = [file.name for file in files if get_suffix(file.name) in KNOWN]
    texts = [(_name_described(file.name), get_suffix(file.name), file) for file in files if _is_text(file.name)]
    beside = {(stem, suffix): file for stem, suffix, file in texts}
    stems = Counter(PurePosixPath(drop_suffix(name)).name for name in pictures)
    names = Counter((PurePosixPath(stem).name, suffix) for stem, suffix, _ in texts)
    elsewhere = {(PurePosixPath(stem).name, suffix): file for stem, suffix, file in texts}
    found = dict[tuple[str, str], InputFile]()
    for name in pictures:
        stem = drop_suffix(name)
        last = PurePosixPath(stem).name
        for suffix in SAID:
            if (stem, suffix) in beside:
                found[name, suffix] = beside[stem, suffix]
            elif stems[last] == 1 == names[last, suffix]:
                found[name, suffix] = elsewhere[last, suffix]
    return found


def list_described(files: Sequence[InputFile]) -> Beside:
    """The pictures among files, with what is said of each."""
    matched = match_files(files)
    rows, broken, other, numeric, read = list[Mapping[str, Any]](), list[str](), list[str](), 0, 0
    for name in (file.name for file in files if get_suffix(file.name) in KNOWN):
        strange = [one for suffix in SAID if (one := matched.get((name, suffix))) and _read_text(one) is None]
        other += [file.name for file in strange]
        said = _read_json(matched[name, ".json"]) if (name, ".json") in matched else {}
        broken += [matched[name, ".json"].name] if said is None and not strange else []
        if not said and (name, ".hocr") in matched:
            said = read_hocr(_read_text(matched[name, ".hocr"]) or "")
        text = read_page_text(said)
        read += bool(text)
        caption = (_read_text(matched[name, ".txt"]) or "").strip() if (name, ".txt") in matched else ""
        if caption and not LETTER.search(caption):
            caption, numeric = "", numeric + 1
        told = _describe_page(said, text) if text else said if isinstance(said, dict) else _name_turns(said)
        row = {**told, **({"caption": caption} if caption else {})}
        rows.append({"image": name, **{key: value for key, value in row.items() if key != "image"}})
    used = {file.name for file in matched.values()}
    alone = [file for file in files if _is_text(file.name) and file.name not in used]
    talks = _match_numbered([str(row["image"]) for row in rows if len(row) == 1], alone)
    together = {name for _, shown, _ in talks for name in shown}
    rows = [row for row in rows if row["image"] not in together]
    rows += [{"image": list(shown), **said} for _, shown, said in talks]
    left = [file.name for file in alone if file.name not in {name for name, *_ in talks}]
    return Beside(rows, left, numeric, read, broken, list(dict.fromkeys(other)))


def _match_numbered(
    bare: Sequence[str], alone: Sequence[InputFile]
) -> list[tuple[str, Sequence[str], Mapping[str, Any]]]:
    """Conversations about several pictures: the name of their `.json`, the pictures by their numbers, what is said.

    Args:
        bare: pictures of which nothing is said.
        alone: files that are beside no picture.
    """
    numbered, found = _number_pictures(bare), list[tuple[str, Sequence[str], Mapping[str, Any]]]()
    for file in alone:
        shown = numbered.get(drop_suffix(file.name)) if get_suffix(file.name) == ".json" else None
        if shown and (said := _read_talk(file)):
            rest = {key: value for key, value in said.items() if key not in {"image", "images"}}
            found.append((file.name, shown, rest))
    return found


def _number_pictures(names: Iterable[str]) -> dict[str, list[str]]:
    """What the names of numbered pictures have in common -> those pictures, by their numbers."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if match := NUMBERED.fullmatch(drop_suffix(name)):
            numbered.setdefault(match[1], []).append((int(match[2]), name))
    return {stem: [name for _, name in sorted(pairs)] for stem, pairs in numbered.items()}


def _list_left_out(bare: Sequence[str], told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Pictures of which nothing is said, and whose names begin with that of a picture or file that says something.

    `a.left.png` and `a_2.png` begin with `a`.
    """
    stems = {drop_suffix(row["image"]) for row in told if isinstance(row["image"], str)}
    found = list[str]()
    for name in bare:
        path, stem = PurePosixPath(name), drop_suffix(name)
        numbered = NUMBERED.fullmatch(stem)
        dotted = str(path.with_name(path.name.partition(".")[0] or path.name))
        begun = {dotted, numbered[1] if numbered else stem} - {stem}
        found += [name] if begun & stems else []
    return found


def _read_talk(file: InputFile) -> Mapping[str, Any]:
    """The object in a `.json` file that holds a list, as of turns, or the turns that it is; nothing of any other."""
    said = _read_json(file) if file.size <= LARGEST else None
    told = said if isinstance(said, dict) else _name_turns(said)
    return told if any(isinstance(value, list) for value in told.values()) else {}


def list_pages(files: Sequence[InputFile]) -> Beside:
    """The pictures that results of OCR in other files name, with what is written on them; none where none do so."""
    pictures = {PurePosixPath(file.name).name: file.name for file in files if get_suffix(file.name) in KNOWN}
    told = [file for file in files if get_suffix(file.name) == ".json" and file.on_disk and file.size <= LARGEST]
    texts = dict(pair for file in told if pictures for pair in list_read_pages(_read_json(file), pictures))
    if not texts:
        return Beside((), ())
    rows = [{"image": name, **({"text": texts[name]} if name in texts else {})} for name in pictures.values()]
    return Beside(rows, (), read=len(texts))


def name_by_folders(files: Sequence[InputFile]) -> list[Mapping[str, Any]]:
    """Pictures in two folders or more, as sets of classes have them, with the name of the folder as their caption."""
    pictures = [PurePosixPath(file.name) for file in files if get_suffix(file.name) in KNOWN]
    folders = {path.parent.name for path in pictures}
    if len(folders) < 2 or "" in folders or folders & SPLITS:
        return []
    return [{"image": str(path), "caption": " ".join(WORDS.findall(path.parent.name))} for path in pictures]


def list_unread_files(files: Sequence[InputFile]) -> list[str]:
    """What a person should know of files beside pictures that nothing reads, such as metadata in YAML."""
    counts = Counter(suffix for file in files if (suffix := get_suffix(file.name)) not in {*KNOWN, *READ})
    notes = list_undecoded(counts)
    if named := _name_counts({suffix: number for suffix, number in counts.items() if suffix not in UNDECODED}):
        notes.append(
            f"files of other forms are not read ({named}): where they say what pictures show, make JSON Lines of them"
        )
    return notes


def list_undecoded(counts: Mapping[str, int]) -> list[str]:
    """What to do about pictures that nothing here decodes; `counts` has files by how their names end."""
    named = _name_counts({suffix: number for suffix, number in counts.items() if suffix.lower() in UNDECODED})
    return [f"pictures of these forms are not read ({named}): convert them to JPEG or PNG first"] if named else []


def _name_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {suffix}" for suffix, number in sorted(counts.items()))


def _name_some(names: Sequence[str]) -> str:
    """The first of these names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def describe_numeric(count: int) -> str:
    """Files of numbers."""
    return f"{count:,} .txt files hold numbers alone, as labels of detectors do"


def drop_suffix(name: str) -> str:
    """A name without its end."""
    return str(PurePosixPath(name).with_suffix(""))


def _is_text(name: str) -> bool:
    return get_suffix(name) in SAID


def _name_described(name: str) -> str:
    """The name, without its end, of the picture that a file of this name is about."""
    stem = drop_suffix(name)
    return drop_suffix(stem) if get_suffix(stem) in KNOWN else stem


def _name_turns(said: Any) -> Mapping[str, Any]:
    """A list of messages as the turns of a row; nothing of anything else."""
    turns = isinstance(said, list) and all(isinstance(one, dict) and {*FROM} & {*one} for one in said)
    return {"messages": said} if turns and said else {}


def _describe_page(said: Any, text: str) -> Mapping[str, Any]:
    """The text of a page, and what else is said of it in a word or number."""
    about = said if isinstance(said, dict) else {}
    simple = {key: value for key, value in about.items() if isinstance(value, str | int | float)}
    return {**simple, "text": text}


def _read_text(file: InputFile) -> str | None:
    """The text in a file, without the mark of its encoding that editors on Windows put first.

    That mark tells UTF-16; of any other encoding than UTF-8 nothing can be said, and there is None.
    """
    with open_input(file) as path:
        data = path.read_bytes()
    try:
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        return None


def _read_json(file: InputFile) -> Any:
    """What a file holds; None where it is no JSON."""
    try:
        return json.loads(_read_text(file) or "")
    except (ValueError, RecursionError):
        return None
