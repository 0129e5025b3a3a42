"""Tables of any making: captions, questions and answers, or conversations, in columns that the recipe names.

For data that no other kind was made for, in Parquet, Arrow, CSV, TSV, JSON or JSON Lines:

    image      one or several columns, or none. For `table` an image is bytes, an object of bytes and path as the Hub
               has it, a data URI, or the path of a file, from the source's `images`; for `web_table` an address. A
               cell may hold a list of these, also one written as JSON, as CSV has it, or as Python prints one
    caption    what the image shows: a pair, as `pairs` makes it. Of several columns, and of a list of captions, the
               first counts that is not blank
    ocr        what OCR read in the picture: a text, or lines and words as programs list them (page_texts.py), whose
               boxes may have a column of their own. A pair, too
    question, answer, choices
               one turn; lists of questions and answers are several. A question in several columns is their texts, a
               line each (Alpaca's instruction and input). The choices follow the question with letters, and the answer
               is the letter of the one that it names (choices.py)
    turns      a conversation, as `llava` and `interleaved` read it; of several columns one after the other (TRL's
               prompt and completion). `speaker`, `said` and `speakers` say what its keys and speakers are called
               (speakers.py), `turn_image` which key of a turn holds images

A row is of one of these forms. Images stand before the first question, unless `<image>` says where. Where a
column of images is named, a row without any is bad, but for conversations: some of them are of text alone.

What lies within objects is named by dotted keys (nested.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import model_validator
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.cells import list_choices, list_values, parse_list, read_cell_text, take_first
from vlmill.pipeline.sources.choices import Naming, letter_choices
from vlmill.pipeline.sources.conversation import (
    SYSTEM,
    ConversationImage,
    read_marked_page,
    read_picture,
    read_text_page,
)
from vlmill.pipeline.sources.file_names import fill_template, list_fields
from vlmill.pipeline.sources.formats.parquet import Columns
from vlmill.pipeline.sources.formats.records import RecordSource
from vlmill.pipeline.sources.known_keys import get_given, has_value, is_number, names_file
from vlmill.pipeline.sources.marks import MARK, Mark, holds_mark, is_numbered
from vlmill.pipeline.sources.names import Names, list_names
from vlmill.pipeline.sources.nested import (
    check_lists,
    join_columns,
    lift_places,
    list_beside,
    list_heads,
    list_parents,
)
from vlmill.pipeline.sources.page_texts import read_cell
from vlmill.pipeline.sources.pairs import NO_LICENCE, make_pair_page, select_numbers
from vlmill.pipeline.sources.speakers import Speaker, lift_turns, rename_turns, show_turn_images

PAIR = {"question", "answer"}
"""Keys of an object in turns that is a question with its answer."""

PICTURE = frozenset({"bytes", "path", "url"})
"""Keys of an object that is an image."""

ASKING = frozenset({"user", "human"})


@dataclass(frozen=True, config=STRICT)
class TableSource(RecordSource):
    """Rows of named columns, with images in them or in files."""

    kind: ClassVar[str] = "table"
    opens: ClassVar[bool] = True

    image: Names = ()  # one column or several with images; docs/sources.md says what a cell holds
    file: str = ""  # the path of an image whose cell is an id: {image}.jpg, or {image:012}.jpg with zeros in front
    caption: Names = ()  # the column with what the image shows, or several, of which the first that has it counts
    ocr: str = ""  # the column with what OCR read in the image: a text, or lists or objects of lines and words
    ocr_boxes: str = ""  # the column with their boxes, where these are not within: words of one height make a line
    question: Names = ()  # one column with what is asked, or several that are a line each
    answer: str = ""  # the column with the answer
    choices: Names = ()  # one column with a list, or several, of what may be chosen; the answer becomes a letter
    answer_as: Naming = "any"  # how the answer names its choice; `any` is by letter, by number from 0 or in its words
    turns: Names = ()  # one column with a conversation, or several of one after the other
    speaker: str = ""  # the key of a turn that says who speaks; else from or role
    said: str = ""  # the key of a turn with what is said; else value or content
    speakers: Mapping[str, Speaker] = field(default_factory=dict)  # who speaks -> user, assistant or system
    turn_image: Names = ()  # the key of a turn that holds its images, or several
    mark: Mark = MARK  # where an image stands in a text, beside <image>; with a number <image {number}>
    system: str = ""  # the system prompt beside the turns; else system or system_prompt
    id: str = ""  # the column with the id of each row, also in dotted keys: samples keep it; else id, uuid or key
    licence: str = ""  # of each row; else all have the source's
    signals: tuple[str, ...] = ()  # columns of numbers that travel with the sample, by the last of dotted keys

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        """Refuse options that say nothing of a row, or two things."""
        asked = bool(self.question or self.answer or self.choices or self.answer_as != "any")
        forms = [bool(self.caption), bool(self.ocr), asked, bool(self.turns)]
        if sum(forms) != 1:
            raise ValueError("name the columns of one form: caption, or ocr, or question and answer, or turns")
        if self.file and (self.fetches or not self.image):
            raise ValueError("file is the path of an image: name its column with image, and take kind table")
        if self.file and {*list_fields(self.file)} != {"image"}:
            raise ValueError(f"file is {self.file!r}, expected a path with {{image}} in it, such as {{image}}.jpg")
        if (self.caption or self.ocr) and not self.image:
            raise ValueError("a caption or text of OCR belongs to an image: name its column with image")
        if self.ocr_boxes and not self.ocr:
            raise ValueError("ocr_boxes are about the texts of ocr: name their column")
        if asked:
            self._check_asked()
        if not self.turns and (self.speaker or self.said or self.speakers or self.turn_image or self.system):
            raise ValueError("speaker, said, speakers, turn_image and system are about turns: name their column")
        if self.mark != MARK and (self.caption or not self.image):
            raise ValueError("mark says where images stand in questions or turns: name their column with image")
        if self.turn_image and self.image:
            raise ValueError("images are named by image, for all of a row, or by turn_image, for each turn: name one")
        return self

    def _check_asked(self) -> None:
        if not (self.question and self.answer):
            raise ValueError(f"name both columns: question is {self.question!r}, answer is {self.answer!r}")
        if self.answer_as != "any" and not self.choices:
            raise ValueError("answer_as says how an answer names its choice: name the columns with choices")

    @cached_property
    def named(self) -> tuple[str, ...]:
        """The columns and dotted keys that the options name."""
        several = (self.image, self.caption, self.question, self.choices, self.turns)
        named = (*(name for names in several for name in list_names(names)), self.ocr, self.ocr_boxes, self.answer)
        return tuple(name for name in (*named, self.id, self.system, self.licence, *self.signals) if name)

    def columns(self) -> Columns:
        """Those that the options name, whatever they hold; but for dotted keys, of which files decide what they are."""
        return {name: pa.null() for name in self.named if "." not in name}

    def optional(self) -> Columns:
        """What dotted keys may mean, and a system prompt beside the turns."""
        return dict.fromkeys((*list_heads(self.named), *self._prompts), pa.null())

    @property
    def _prompts(self) -> Sequence[str]:
        """What the system prompt beside the turns may be called, where no option names it."""
        return SYSTEM if self.turns and not self.system else ()

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """What a row says. Not every row of JSON has all other columns."""
        said = (self.caption, self.ocr, self.question, self.answer, *list_names(self.turns))
        needed = [list_names(names) for names in said if names]
        shown = [(name,) for name in list_names(self.image) if "." in name and not self.turns]
        return tuple((*names, *(one.partition(".")[0] for one in names if "." in one)) for names in (*needed, *shown))

    def reads(self) -> Collection[str]:
        """All of these."""
        return frozenset({*self.columns(), *self.optional()})

    def shows(self) -> Collection[str]:
        """The columns of images; of images within turns the turns."""
        return list_names(self.turns if self.turn_image else self.image)

    def unread(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """See KeyedSource; also what stands beside dotted keys within the same objects."""
        lifted = lift_places(row, self.named)
        left = super().unread(lifted)
        places = [place for place, _ in list_parents(row, list_names(self.turns))]
        read = (*self.named, *(f"{place}.{name}" for place in places for name in self._prompts))
        pictured = any(has_value(lifted.get(name)) for name in self.shows())
        left = (*left, *list_beside(row, read, pictured=pictured))
        return tuple(one for one in left if one not in self.named or one == self.id)

    def read_image(self, place: str, value: Any) -> ConversationImage:
        """An image in a cell: its bytes, or the file that it names. Raises UnreadableRow."""
        if isinstance(value, bytes) and value:
            return ConversationImage(Picture(data=value), None)
        if self.file and isinstance(value, str | int) and (name := str(value).strip()):
            value = name if "." in name else fill_template(self.file, {"image": name})
        if isinstance(value, Mapping) and not PICTURE.intersection(value):
            raise UnreadableRow(_describe_object(place, value, "image"))
        return read_picture(place, value)

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample.

        Raises UnreadableRow as `conversation.read_marked_page` and `pairs.make_pair_page`, and for an image or a choice
        that is none.
        """
        parents = list(list_parents(row, list_names(self.turns)))
        check_lists(row, list_names(self.image), self.named)
        row = lift_places(row, self.named)
        listed = [self._read_images(name, row.get(name)) for name in list_names(self.image)]
        images = [image for several in listed for image in several]
        if self.image and not images and not self.turns:
            raise UnreadableRow(say_imageless(self.image))
        licence = row.get(self.licence) if self.licence else None
        signals = {name.rpartition(".")[2]: number for name, number in select_numbers(row, self.signals).items()}
        if self.caption or self.ocr:
            if len(images) != 1:
                raise UnreadableRow(
                    f"a {'caption' if self.caption else 'text of OCR'} of {len(images)} images, expected 1"
                )
            captions = [take_first(row.get(name)) for name in list_names(self.caption)]
            captions += [read_cell(self.ocr, row.get(self.ocr), row.get(self.ocr_boxes))] if self.ocr else []
            caption = next((one for one in captions if isinstance(one, str) and one.strip()), None)
            return make_pair_page(images[0].picture, caption, images[0].url, licence, signals)
        said = self._join_turns(row) if self.turns else self._make_turns(row)
        system = row.get(self.system) if self.system else _find_system(row, parents) if self.turns else None
        if self.turn_image:
            shown = list_names(self.turn_image)
            said, values = show_turn_images(said, shown)
            images = [self.read_image(f"{' or '.join(shown)} {place}", one) for place, one in enumerate(values)]
            page = read_marked_page(said, images, system)
        elif self.image:
            shown = _show_images(said, len(images), self.mark)
            gaps = shown is said and is_numbered(self.mark) and len(listed) > 1  # a number is that of a column
            places = [image for several in listed for image in (several or (None,) if gaps else several)]
            page = read_marked_page(shown, places, system, mark=self.mark)
        else:
            page = read_text_page(said, system)
        known = isinstance(licence, str) and licence.strip() not in NO_LICENCE
        return replace(page, licence=str(licence).strip() if known else "", signals=signals)

    def _read_images(self, name: str, cell: Any) -> list[ConversationImage]:
        """The images in a cell. Raises UnreadableRow."""
        return [self.read_image(f"{name} {n}" if n else name, value) for n, value in enumerate(list_values(cell))]

    def _join_turns(self, row: Mapping[str, Any]) -> Any:
        """The conversation in its columns; answers in others than the last are not supervised, as in TRL."""
        parts = [_split_pairs(join_columns(parse_list(row.get(name)))) for name in list_names(self.turns)]
        shown = list_names(self.turn_image)
        named = [name for name in (self.speaker, self.said, *shown) if name]
        parts = [lift_turns(part, named, shown) for part in parts]
        found = [rename_turns(part, self.speaker, self.said, self.speakers, shown) for part in parts]
        if len(found) == 1 or not all(isinstance(one, list) for one in found):
            return found[0]  # which says what is wrong with it
        before = [{**one, "loss": False} if isinstance(one, Mapping) else one for part in found[:-1] for one in part]
        return [*before, *found[-1]]

    def _join_questions(self, row: Mapping[str, Any]) -> Any:
        """The question, or the list of questions; of several columns the texts that are not blank, a line each."""
        names = list_names(self.question)
        if len(names) == 1:
            return row.get(names[0])
        return "\n".join(said for name in names if (said := read_cell_text(name, row.get(name)).strip()))

    def _make_turns(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Questions and answers as messages. Raises UnreadableRow."""
        questions, answers = self._join_questions(row), row.get(self.answer)
        name = " and ".join(list_names(self.question))
        asked_list, said_list = parse_list(questions), parse_list(answers)
        if isinstance(asked_list, list) and isinstance(said_list, list) and len(asked_list) == len(said_list):
            questions, answers = asked_list, said_list  # else a text such as [12, 30] is a text
        if not isinstance(
            questions, list
        ):  # one question; of several answers to it the first that says something counts
            given = answers if isinstance(answers, list) else [answers]
            questions, answers = [questions], [next((one for one in given if has_value(one) or is_number(one)), None)]
        if not isinstance(answers, list) or len(answers) != len(questions):
            number = len(answers) if isinstance(answers, list) else 1
            raise UnreadableRow(f"questions: {len(questions)}, answers: {number}, expected as many of both")
        values = list_choices([row.get(name) for name in list_names(self.choices)])
        choices = [read_cell_text("a choice", value) for value in values]
        chosen = any(choice.strip() for choice in choices)
        if chosen and len(questions) > 1:
            raise UnreadableRow(f"choices of {len(questions)} questions, expected 1", Reason.UNSUPPORTED_CONTENT)
        turns = []
        for question, answer in zip(questions, answers, strict=True):
            asked, said = read_cell_text(name, question), read_cell_text(self.answer, answer)
            if not asked.strip() or not said.strip():
                raise UnreadableRow(f"no {self.answer if asked.strip() else name}", Reason.EMPTY_ROW)
            if chosen:
                counted = is_number(answer) and not any(map(is_number, values))
                asked, said = letter_choices(asked, choices, said, self.answer_as, counted=counted)
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        return turns


@dataclass(frozen=True, config=STRICT)
class WebTableSource(TableSource):
    """Rows of named columns, with the addresses of images."""

    kind: ClassVar[str] = "web_table"
    opens: ClassVar[bool] = False
    fetches: ClassVar[bool] = True

    def read_image(self, place: str, value: Any) -> ConversationImage:
        """An image at an address. Raises UnreadableRow."""
        if isinstance(value, Mapping):
            raise UnreadableRow(_describe_object(place, value, "address"))
        if not isinstance(value, str) or not value.strip():
            raise UnreadableRow(
                f"{place} is {type(value).__name__}, expected an address; kind table reads images in rows"
            )
        return ConversationImage(Picture(url=value.strip()), value.strip())


def _describe_object(place: str, held: Mapping[str, Any], expected: str) -> str:
    """What is wrong with an object in place of an image, and which dotted name may lead to one in it."""
    found = next((key for key, value in held.items() if names_file(value)), next(iter(held), ""))
    within = f"; dotted keys lead to what is in it, such as {place.partition(' ')[0]}.{found}" if found else ""
    return f"{place} is an object of {', '.join(held) or 'nothing'}, expected an {expected}{within}"


def _find_system(row: Mapping[str, Any], parents: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    """The system prompt in the row, or in an object that its turns lie in. Raises UnreadableRow where they differ."""
    named = [(f"{place}.{name}", held.get(name)) for place, held in parents for name in SYSTEM]
    given = {**{name: row.get(name) for name in SYSTEM}, **dict(named)}
    return get_given(given, given)


def _split_pairs(turns: Any) -> Any:
    """Turns whose objects hold a question with its answer each, as messages; others as they are."""
    listed = isinstance(turns, list) and bool(turns)
    if not listed or not all(isinstance(one, Mapping) and one.keys() >= PAIR for one in turns):
        return turns
    said = list[dict[str, Any]]()
    for one in turns:
        more = {key: value for key, value in one.items() if key not in PAIR}
        said.append({"role": "user", "content": read_cell_text("question", one["question"])})
        said.append({**more, "role": "assistant", "content": read_cell_text("answer", one["answer"])})
    return said


def say_imageless(image: Names) -> str:
    """What is wrong with a row whose columns of images are empty."""
    return f"no {' or '.join(list_names(image))}"


def _shows_image(message: Mapping[str, Any], mark: str) -> bool:
    """Whether a message says where an image stands."""
    content = next((message[key] for key in ("content", "value") if message.get(key) is not None), None)
    if isinstance(content, str):
        return holds_mark(content, mark)
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, Mapping) and part.get("type") not in {None, "text"} for part in parts)


def _show_images(turns: Any, images: int, mark: str) -> Any:
    """The turns, with images before the first question where no message says where they stand."""
    messages = [turn for turn in turns if isinstance(turn, Mapping)] if isinstance(turns, list) else []
    asked = [turn for turn in messages if str(turn.get("role") or turn.get("from")).lower() in ASKING]
    if not asked or any(_shows_image(message, mark) for message in messages):
        return turns
    key = "content" if asked[0].get("content") is not None else "value"
    content = asked[0].get(key)
    shown = (
        f"{MARK * images}{content}" if isinstance(content, str) else [*[{"type": "image"}] * images, *(content or [])]
    )
    return [{**turn, key: shown} if turn is asked[0] else turn for turn in turns]
