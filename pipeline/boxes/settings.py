"""What a recipe says of coordinates: how the texts of a source have them, and how the model is to see them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from pydantic.dataclasses import dataclass

from vlmill.pipeline.boxes.forms import FORMS, Form, Order, Shape, Unit, find_shape
from vlmill.pipeline.core.config import STRICT, KindOf

GROUP = "region"
"""The group of a pattern in which the numbers stand."""
LONGEST_PATTERN = 500


@dataclass(frozen=True, config=STRICT)
class SourceBoxes:
    """Coordinates in the texts of a source: boxes, points or polygons, and what their numbers are of.

    A `form` brings pattern, order and unit; with a `pattern` of one's own order and unit are needed.
    """

    form: Annotated[str, KindOf(FORMS)] | None = None  # a named form
    pattern: str | None = None  # in its place a regular expression (RE2) whose group (?P<region>...) holds the numbers
    order: Order | None = None  # of the numbers, where it is not the form's
    unit: Unit | None = None  # what the numbers count, where it is not the form's
    frame: Literal["image", "square"] = "image"  # what they are of: the image, or the centred square it is padded to
    image: Literal["only", "first", "before"] = "only"  # of the sample, or the last one before the text
    upright: bool = True  # they are of the image as its EXIF turns it; false: of the pixels as the file stores them

    def __post_init__(self) -> None:
        """Refuse what says too little or too much, and patterns that no text can be searched with."""
        if (self.form is None) == (self.pattern is None):
            raise ValueError(f"one of form ({', '.join(sorted(FORMS))}) and pattern has to be there")
        if self.pattern is not None:
            if self.order is None or self.unit is None:
                raise ValueError("with a pattern, order and unit have to be there as well")
            check_pattern(self.pattern)

    @property
    def notation(self) -> Form:
        """The form, with the order and unit that stand here."""
        if self.form is None:
            return Form(self.pattern or "", self.order or "xyxy", self.unit or "fraction")  # all are there
        known = FORMS[self.form]
        return _change_form(known, self.order, self.unit)

    @property
    def shape(self) -> Shape:
        """What its regions are."""
        return find_shape(self.notation.order)


@dataclass(frozen=True, config=STRICT)
class ModelBoxes:
    """How the model is to see coordinates, whatever the form of their sources; without the block, as each source does.

    Numbers are of the view: what the image policy makes of the image.
    """

    form: Annotated[str, KindOf(FORMS)] | None = None  # written in place of the source's; null: only its numbers change
    order: Order | None = None  # else the form's, or the source's
    unit: Unit | None = None  # else the form's, or the source's
    frame: Literal["view", "image", "square"] = (
        "view"  # what numbers are of: what the model sees, the whole image, or the centred square it is padded to
    )
    decimals: Annotated[int, pydantic.Field(ge=0, le=6)] | None = None  # else the source's; in another unit 3 or none

    def __post_init__(self) -> None:
        """Refuse forms that are more than their numbers, and nobody can write."""
        if self.form is not None and not FORMS[self.form].write:
            raise ValueError(f"form: {self.form} holds what is shown as well, and cannot be written; leave it out")

    def choose_notation(self, source: SourceBoxes) -> Form:
        """The form in which a source's regions are written."""
        known = source.notation if self.form is None else FORMS[self.form]
        return _change_form(known, self.order, self.unit)

    def find_misfit(self, source: SourceBoxes) -> str | None:
        """Why a source's regions cannot be written so; None if they can."""
        if self.form is None and self.unit is not None and (source.notation.bins or source.notation.cells):
            return f"the recipe's `boxes` have numbers of unit {self.unit} and no form, and {source.form} has tokens"
        shape = find_shape(self.choose_notation(source).order)
        if shape == source.shape:
            return None
        return f"the recipe's `boxes` have the model see each region as {shape}, and this source has {source.shape}"


def check_pattern(pattern: str) -> None:
    """Check that a pattern is one of RE2, which takes time linear in the text, and has the group.

    Raises:
        ValueError: it is not; the message says what is wrong.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"pattern: {len(pattern)} characters, allowed {LONGEST_PATTERN}")
    if re.findall(r"\(\?P?<(\w+)>", pattern) != [GROUP]:
        raise ValueError(f"pattern: {pattern!r} has to have one named group, (?P<{GROUP}>...), around the numbers")
    try:
        empty = pc.extract_regex_span(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(f"pattern: {pattern!r} is no regular expression of RE2: {error}") from None
    if empty[0].is_valid:
        raise ValueError(f"pattern: {pattern!r} matches an empty text")


def _change_form(form: Form, order: Order | None, unit: Unit | None) -> Form:
    """A form with another order or unit; numbers in another unit are no bins and no cells."""
    if unit is None:
        return replace(form, order=order or form.order)
    return replace(form, order=order or form.order, unit=unit, bins=False, cells=False)
