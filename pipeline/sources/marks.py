"""Where images stand in texts: `<image>`, or what the option `mark` of a source says beside it.

`<image {number}>` (MMMU) and `<|image_{number}|>` (Phi-3) name an image by its place in the row's list, from 1, and
`{index}` from 0. A mark without either, such as `<ImageHere>`, is another spelling of `<image>`: the next image. An
image that is named again is shown again, as Phi-3's processor does. An answer that names one shows none: a model that
writes texts has no way to say it, so its row is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.base import UnreadableRow

MARK = "<image>"
"""Where an image stands in a turn (LLaVA's `DEFAULT_IMAGE_TOKEN`)."""

OTHER_MARK = re.compile(r"(?:<(?:image|video|audio)>\s*)*<(video|audio)>([^\s<].*)?")
"""The first or last line of a question about a video or a sound. Within a line it is a word, as in a question about
HTML."""

BREAKS = "\r\n"
"""What only sets a mark apart from the text beside it."""

NEXT = -1
"""Stands for the next of the pictures beside the turns."""

FIRST = {"{number}": 1, "{index}": 0}
"""What stands for a number in a mark, and the number of the first image."""

NUMBER_FIELD = re.compile("|".join(map(re.escape, FIRST)))


class Named(NamedTuple):
    """An image that a text names by its number."""

    place: int  # in the row's list, from 0
    text: str  # the mark


def check_mark(mark: str) -> str:
    """A mark as an option may have it. Raises ValueError."""
    rest, fields = NUMBER_FIELD.subn("", mark)
    if fields > 1 or not rest.strip() or {"{", "}"} & {*rest.replace("{{", "").replace("}}", "")}:
        raise ValueError(
            f"mark is {mark!r}, expected a text such as <ImageHere> or {{{{image}}}}, or one with {{number}} (from 1) "
            "or {index} (from 0) in it once, such as <image {number}>"
        )
    return mark


Mark = Annotated[str, AfterValidator(check_mark)]


def is_numbered(mark: str) -> bool:
    """Whether a mark names images by numbers."""
    return any(one in mark for one in FIRST)


def holds_mark(text: str, mark: str) -> bool:
    """Whether a text shows an image."""
    return bool(_compile_mark(mark).search(text))


def split_text(text: str, mark: str) -> Iterator[str | int | Named]:
    """The parts of a text, which is cut where images stand: NEXT or a Named for each; blank texts are left out."""
    if not (found := list(_compile_mark(mark).finditer(text))):
        yield from [text] if text.strip() else []
        return
    first, end = next((number for name, number in FIRST.items() if name in mark), 0), 0
    for one in found:
        before = text[end : one.start()].rstrip(BREAKS)
        yield from _keep_said(before.lstrip(BREAKS) if end else before)
        yield NEXT if one["number"] is None else Named(int(one["number"]) - first, one[0])
        end = one.end()
    yield from _keep_said(text[end:].lstrip(BREAKS))


def find_medium(text: str) -> str:
    """`video` or `audio` where a mark of these stands beside a question, and is none of its words."""
    if not ("<video>" in text or "<audio>" in text) or "</" in text:
        return ""
    lines = text.strip().splitlines()
    found = OTHER_MARK.fullmatch(lines[0].strip()) or OTHER_MARK.fullmatch(lines[-1].strip())
    return found[1] if found else ""


@dataclass
class Places:
    """Which of the images beside the turns each mark means, in the order of the texts."""

    there: tuple[bool, ...]  # whether there is an image in each place of the row's list
    mark: str = MARK
    waiting: int = 0  # the place of the next image
    shown: dict[int, int] = field(default_factory=dict)  # place -> number among the pictures of the page
    named: str = ""  # the first mark with a number

    def find_place(self, piece: int | Named, *, answer: bool) -> int:
        """The place of the image that is meant. Raises UnreadableRow."""
        if isinstance(piece, Named):
            self.named = self.named or piece.text
            if answer:
                raise UnreadableRow(
                    f"an answer names an image, {piece.text}, and a text cannot show one again",
                    Reason.UNSUPPORTED_CONTENT,
                )
            if not 0 <= piece.place < len(self.there) or not self.there[piece.place]:
                raise UnreadableRow(f"{piece.text} names an image that is not there: the row has {sum(self.there)}")
            return piece.place
        if piece not in {NEXT, self.waiting}:
            raise UnreadableRow(f"a part shows image {piece}, where image {self.waiting} is next")
        self.waiting += 1
        return self.waiting - 1

    def check_all(self, parts: int = 0) -> None:
        """Raise UnreadableRow where images are left that no text shows, or marks that have none.

        Args:
            parts: images that stand in turns as parts of their own.
        """
        if self.named and self.waiting:
            raise UnreadableRow(f"images are marked by number, {self.named}, and in order by {MARK}")
        if not self.named and self.waiting != len(self.there):
            marks = MARK if self.mark == MARK else f"{MARK} or {self.mark}"
            if parts and not self.there:
                raise UnreadableRow(
                    f"{self.waiting} times {marks} in texts, where images are parts of their own ({parts}) and none is "
                    "left for a mark"
                )
            raise UnreadableRow(f"{self.waiting} times {marks} for {len(self.there)} images")
        left = [place for place, there in enumerate(self.there) if there and self.named and place not in self.shown]
        if left:
            raise UnreadableRow(f"image {left[0] + 1} of {len(self.there)}, counted from 1, is marked in no text")


def _keep_said(text: str) -> Iterator[str]:
    """A text beside a mark, unless it is blank."""
    if text.strip():
        yield text


@cache
def _compile_mark(mark: str) -> re.Pattern[str]:
    """What finds `<image>` and this mark."""
    name = next((one for one in FIRST if one in mark), "")
    before, _, after = mark.partition(name) if name else (mark, "", "")
    number = r"(?P<number>[0-9]{1,6})" if name else "(?P<number>(?!))?"
    return re.compile(f"{re.escape(before)}{number}{re.escape(after)}|{re.escape(MARK)}")
