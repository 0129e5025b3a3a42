"""Columns of a table that nobody has described: what their first cells hold, and what they are likely to be for.

For `vlmill new` (proposal.py). Images are recognised by what cells hold, texts by the names that the field has for
their columns, where cells hold texts. What lies within objects has dotted names (nested_columns.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import takewhile
from typing import Any

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.proposal.answer_naming import tell_naming
from vlmill.pipeline.proposal.captions import choose_captions
from vlmill.pipeline.proposal.cell_kinds import IN_ROW, LINKED, TEXTS, describe_values, hold_mostly, name_value
from vlmill.pipeline.proposal.column_names import (
    ABOUT,
    ANSWERS,
    BESIDE,
    CAPTIONS,
    CHOICES,
    LETTERED,
    LICENCES,
    LISTED,
    PARTS,
    QUESTIONS,
    TURNS,
    split_words,
)
from vlmill.pipeline.proposal.image_ids import ImageIds
from vlmill.pipeline.proposal.nested_columns import list_dotted, recognise_turns
from vlmill.pipeline.proposal.ocr_columns import find_boxes, find_ocr
from vlmill.pipeline.sources.known_keys import (
    classify_key,
    format_id,
    has_value,
    is_number,
)
from vlmill.pipeline.sources.nested import find_place
from vlmill.pipeline.sources.pairs import select_numbers

WITHIN = ("speaker", "said", "turn_image")
"""Options of kind `table` that name keys of turns."""
READ = ("ocr", "ocr_boxes")
"""Those that name what OCR read."""
ASKED = ("question", "answer", "choices")
"""Those of questions."""
NAMEABLE = ("image", "caption", *READ, *ASKED, "turns", "id", "licence", "system", "signals", *WITHIN)
"""All that name columns or keys."""
SEVERAL = ("image", "caption", "question", "choices", "turns", "turn_image", "signals")
"""Those that may name several."""
QUIZ = frozenset(ASKED)
FORMS = QUIZ | {"caption", "ocr", "turns"}
"""Those of any form that a row may have."""


@dataclass(frozen=True)
class Cells:
    """The first rows of a table."""

    rows: Sequence[Mapping[str, Any]]
    ids: ImageIds | None = None  # the column of ids that name image files
    where: str = ""  # what was looked at, for messages: a file or a place

    @cached_property
    def columns(self) -> list[str]:
        """Names, in the order in which rows have them."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def describe(self, column: str) -> str:
        """What is in a column, in a few words; `nothing` where all cells are empty."""
        return " or ".join(self._list_kinds(column)) or "nothing"

    def describe_all(self) -> dict[str, str]:
        """Columns and what is in them; of objects also what lies within, at dotted names."""
        found = dict[str, str]()
        for column in self.columns:
            within = [name for name in self.dotted if name.startswith(f"{column}.")]
            nested = self.describe(column) in {"object", "list of objects"}
            found |= {name: self.describe(name) for name in (column, *(within if nested else ()))}
        return found

    def hold(self, column: str, *kinds: str, mostly: bool = False) -> bool:
        """Whether cells hold anything, and all of these, or `mostly` more than half, one of these kinds."""
        found = [
            name_value(value) in kinds for value in self.list_values(column) if has_value(value) or is_number(value)
        ]
        return bool(found) and (2 * sum(found) > len(found) if mostly else all(found))

    @cached_property
    def dotted(self) -> list[str]:
        """The names of what lies within objects, as `meta.image.url`."""
        return list_dotted(self.rows)

    def list_values(self, column: str) -> list[Any]:
        """What is in a column, or at a dotted name, row by row."""
        return [find_place(row, column) for row in self.rows]

    def check_column(self, option: str, column: str) -> None:
        """Refuse a name of the command line that is in no row. Raises SourceError."""
        if column not in (*self.columns, *self.dotted) and not any(map(has_value, self.list_values(column))):
            there = ", ".join((*self.columns, *self.dotted)) or "none"
            raise SourceError(
                f"--column {option}={column}: there is no such column{self.add_where()}; the columns are {there}"
            )
        if option == "signals" and not any(select_numbers({"": one}, [""]) for one in self.list_values(column)):
            held = f"{self.describe(column)}{self.add_where()}"
            raise SourceError(f"--column signals={column}: it holds {held}, expected numbers")
        if option == "id" and not any(map(format_id, self.list_values(column))):
            held = f"{self.describe(column)}{self.add_where()}"
            raise SourceError(f"--column id={column}: it holds {held}, expected texts or whole numbers")

    def add_where(self) -> str:
        """What was looked at, at the end of a message; nothing where that is not known."""
        return f" in {self.where}" if self.where else ""

    def _list_kinds(self, column: str) -> list[str]:
        return describe_values(self.list_values(column))


def recognise_nested(cells: Cells) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same as `recognise_columns`, with what lies within objects, and turns of any making."""
    columns = [*cells.columns, *cells.dotted]
    for kind, options in recognise_columns(cells, columns):
        yield kind, _add_turns(cells, kind, options)
    for name in columns:
        # a row whose turns are no list is a bad row, and speaks against no other
        listed = cells.hold(name, "list of objects", "list written as text", mostly=True)
        if not listed or _find_turns(cells, name, ()) is None:
            continue
        for kind, shown in (("table", IN_ROW), ("web_table", LINKED)):
            images = [one for one in columns if cells.hold(one, *shown) and not one.startswith(f"{name}.")]
            beside = {"image": images[0] if len(images) == 1 else images} if images else {}
            yield kind, _add_turns(cells, kind, {**beside, "turns": name})


def _find_turns(cells: Cells, turns: str, shown: Sequence[str]) -> dict[str, Any] | None:
    """How the turns in a column name keys and speakers; None where nobody speaks there."""
    return recognise_turns(cells.list_values(turns), partial(hold_mostly, kinds=shown))


def _add_turns(cells: Cells, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with how their turns name keys and speakers; images of turns give way to those of the row."""
    if not isinstance(turns := options.get("turns"), str):
        return options
    found = _find_turns(cells, turns, LINKED if kind == "web_table" else IN_ROW) or {}
    if "turn_image" in found and (image := options.get("image")):
        shown = found["turn_image"]
        within = {f"{turns}.{one}" for one in ([shown] if isinstance(shown, str) else shown)}
        if {*([image] if isinstance(image, str) else image)} <= within:
            options = {name: value for name, value in options.items() if name != "image"}
        else:
            del found["turn_image"]
    return {**options, **found}


def recognise_columns(cells: Cells, names: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds and options that a table could be read with, the likeliest first; `names` are the columns, or all."""
    columns = names or cells.columns
    held = _find_images(cells, columns)
    linked = [name for name in columns if cells.hold(name, *LINKED)]
    pictures = [name for name in linked if classify_key(name) in {"image", "address"}]
    linked = pictures or linked  # others are pages
    paths = held or _find_images(cells, cells.dotted)
    ids = [cells.ids.column] if cells.ids and not paths else []  # files that are here go before addresses
    images = [("table", held or ids)] if held or ids else [("web_table", linked)] if linked else []
    for kind, named in images or [("table", [])]:
        shown: dict[str, Any] = {"image": named[0] if len(named) == 1 else named} if named else {}
        shown |= {"file": cells.ids.file} if ids and cells.ids else {}
        licence = next((name for name in columns if name.lower() in LICENCES), None)
        common = {**shown, **({"licence": licence} if licence else {})}
        if turns := _find_column(cells, columns, TURNS, "list of objects", "list written as text", mostly=True):
            yield kind, {**common, "turns": turns}
        parts = [_find_column(cells, columns, (name,), "list of objects") for name in PARTS]
        if all(parts):
            yield kind, {**common, "turns": parts}
        question = _find_column(cells, columns, QUESTIONS, *TEXTS, "list of texts")
        answer = _find_column(cells, columns, ANSWERS, *TEXTS, "number", "true or false", "list of texts")
        if question and answer and question != answer:
            more = _find_column(cells, columns, ("input", "inputs"), "text")
            if more and more != question:
                yield kind, {**common, "question": [question, more], "answer": answer}
            yield kind, {**common, "question": question, "answer": answer, **_find_choices(cells, columns, answer)}
            yield kind, {**common, "question": question, "answer": answer}
        caption = _find_column(cells, columns, CAPTIONS, *TEXTS)
        caption = caption or _find_column(cells, columns, LISTED, "list of texts")
        if named and caption:
            akin = {name: cells.list_values(name) for name in (caption, *_list_akin(cells, columns, caption))}
            yield kind, {**common, "caption": choose_captions(caption, akin)}
        if named and (read := find_ocr(columns, cells.list_values)):
            yield kind, {**common, **read}
        others = [name for name in columns if name not in named and cells.hold(name, *TEXTS) and not _is_name(name)]
        if named and len(others) == 1 and not _is_constant(cells, others[0]):
            yield kind, {**common, "caption": others[0]}


def name_columns(cells: Cells, named: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The kind and the options of a table whose columns somebody names; images are found where nobody does.

    Args:
        cells: the first rows.
        named: options of kind `table` -> columns.

    Raises:
        SourceError: there is no such option, or no such column.
    """
    for option, columns in named.items():
        if option not in NAMEABLE or not all(columns):
            said = f"{option}={', '.join(columns)}" if any(columns) else option
            raise SourceError(
                f"--column {said}: expected ROLE=COLUMN, where ROLE is {', '.join(NAMEABLE)}; or, of "
                "documents, texts, images, url, id"
            )
        if len(columns) > 1 and option not in SEVERAL:
            raise SourceError(
                f"--column {option}: {len(columns)} columns, expected 1; several may be {', '.join(SEVERAL)}"
            )
        for column in columns if option not in WITHIN else ():
            cells.check_column(option, column)
    given: dict[str, Any] = {name: found[0] if len(found) == 1 else list(found) for name, found in named.items()}
    given |= {"signals": list(named["signals"])} if "signals" in named else {}
    given = _find_other_half(cells, given)
    if "ocr" in given and "ocr_boxes" not in given:
        given |= find_boxes(given["ocr"], [*cells.columns, *cells.dotted], cells.list_values)
    flat = any(cells.hold(name, *IN_ROW, *LINKED) for name in cells.columns)
    looked_at = named.get("image", cells.columns if flat else cells.dotted)
    linked = [name for name in looked_at if cells.hold(name, *LINKED)]
    held = _find_images(cells, looked_at)
    used = {column for columns in named.values() for column in columns}
    shown = named.get("image") or [name for name in held or linked if name not in used]
    kind = "web_table" if shown and {*shown} <= {*linked} else "table"
    seen: dict[str, Any] = {"image": shown[0] if len(shown) == 1 else list(shown)} if shown else {}
    if cells.ids and kind == "table" and cells.ids.column in (shown or {cells.ids.column} - used):
        seen = {"image": cells.ids.column, "file": cells.ids.file}
    seen = {} if "turn_image" in named else seen
    if given.keys() & FORMS:
        whole = {**_add_turns(cells, kind, {**seen, **given}), **given}
        yield from ((kind, {**whole, **more}) for more in _list_choosing(cells, given, used))
        return
    for _, options in recognise_nested(cells):
        form = {name: value for name, value in options.items() if name not in {"image", "suffix"}}
        yield kind, {**seen, **form, **given}


def _list_choosing(cells: Cells, given: Mapping[str, Any], used: Collection[str]) -> Iterator[Mapping[str, Any]]:
    """What to add to options that are given: choices that are found, and how answers name them; or nothing."""
    if "choices" in given:
        choices = given["choices"]
        yield _tell_naming(cells, given["answer"], [choices] if isinstance(choices, str) else choices)
        return
    if "answer" in given:
        left = [name for name in cells.columns if name not in (*used, given["answer"], given["question"])]
        yield from filter(None, [_find_choices(cells, left, given["answer"])])
    yield {}


def _find_other_half(cells: Cells, given: dict[str, Any]) -> dict[str, Any]:
    """The options, with the question or the answer where one of them alone is given, by what columns are called.

    Raises:
        SourceError: there is no such column.
    """
    if not given.keys() & QUIZ or given.keys() & {"caption", "ocr", "turns"}:
        return given
    used = {name for value in given.values() for name in (value if isinstance(value, list) else [value])}
    columns = [name for name in (*cells.columns, *cells.dotted) if name not in used]
    for option, names in (("question", QUESTIONS), ("answer", ANSWERS)):
        found = _find_column(cells, columns, names, *TEXTS, "number", "true or false", "list of texts")
        if option not in given and not found:
            raise SourceError(
                f"no column{cells.add_where()} looks like the {option}: name it, too, with --column "
                f"{option}=COLUMN; the columns are {', '.join(columns) or 'none'}"
            )
        given = {option: found, **given}
    return given


def _find_images(cells: Cells, columns: Sequence[str]) -> list[str]:
    """The columns of images in rows or in files.

    Where some hold pictures, a path beside them says what the file was called, unless its column is one of images by
    its name. In some tables of benchmarks most cells hold a picture, and others the number of a row that has it.
    """
    held = [
        name
        for name in columns
        if cells.hold(name, *IN_ROW)
        or (classify_key(name) == "image" and hold_mostly(cells.list_values(name), ("picture",)))
    ]
    inside = [name for name in held if hold_mostly(cells.list_values(name), ("picture",))]
    named = [name for name in held if name not in inside and classify_key(name) == "image"]
    return held if named or not inside else inside


def _find_column(
    cells: Cells, columns: Sequence[str], names: Sequence[str], *kinds: str, mostly: bool = False
) -> str | None:
    """The first column with one of these names, else with one of them as a word, whose cells are of these kinds."""
    by_name = {column.lower(): column for column in reversed(columns)}
    by_word = {word: column for column in reversed(columns) for word in _split_words(column)}
    found = (known[name] for known in (by_name, by_word) for name in names if name in known)
    return next((column for column in found if cells.hold(column, *kinds, mostly=mostly)), None)


def _list_akin(cells: Cells, columns: Sequence[str], caption: str) -> list[str]:
    """Other columns of texts whose names have the same word for a caption."""
    word = next((one for one in CAPTIONS if one in _split_words(caption)), "")
    alike = [name for name in columns if name != caption and word in _split_words(name)]
    return [name for name in alike if cells.hold(name, *TEXTS, "list of texts")]


def _split_words(column: str) -> list[str]:
    """The words of a name; none where it says something about a question or an answer."""
    words = split_words(column)
    return [] if ABOUT.intersection(words) else words


def _is_name(column: str) -> bool:
    """Whether a column by its own name names the row or its file, or says something of a text, and is none."""
    return bool(BESIDE.intersection(split_words(column)))


def _is_constant(cells: Cells, column: str) -> bool:
    """Whether something within objects says the same of all of several rows."""
    values = cells.list_values(column) if column not in cells.columns else []
    return len(values) > 1 and all(value == values[0] for value in values)


def _find_choices(cells: Cells, columns: Sequence[str], answer: str) -> dict[str, Any]:
    """The options for choices: one column with lists, or those of letters from A on; and how answers name them."""
    if listed := _find_column(cells, columns, CHOICES, "list of texts", "list of numbers", "list written as text"):
        return {"choices": listed, **_tell_naming(cells, answer, [listed])}
    lettered = [name for name in ("A", "B", "C", "D", "E", "F") if name in columns]
    if len(lettered) < 2:
        spelt = {match[1].lower(): name for name in columns if (match := LETTERED.fullmatch(name))}
        lettered = list(takewhile(bool, (spelt.get(letter, "") for letter in "abcdefgh")))
    return {"choices": lettered, **_tell_naming(cells, answer, lettered)} if len(lettered) > 1 else {}


def _tell_naming(cells: Cells, answer: str, choices: Sequence[str]) -> Mapping[str, str]:
    """See answer_naming.py."""
    values = [cells.list_values(name) for name in (answer, *choices)]
    return tell_naming([(said, among) for said, *among in zip(*values, strict=True)])
