"""The declared form of an answer, and prompts with placeholders: what a recipe says of them, and how answers are read.

Without files and network: everything here is pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.reasons import FILTER_NAME

SCALE = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
"""How recipes write a scale: `1-5` of integers, `0.0-1.0` of any numbers."""

LONGEST_RATING = 20_000
"""Characters of an answer that ratings are looked for in: its last ones, behind what a model thinks aloud."""

PLACEHOLDERS = ("text", "form")
"""What a prompt may hold in braces: the text that is asked about, and the form of the answer in words."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The numbers that a rating may be."""

    low: float
    high: float
    whole: bool  # integers alone

    @classmethod
    def parse(cls, text: str) -> Scale:
        """The scale that a recipe writes.

        Raises:
            ValueError: it is none.
        """
        found = SCALE.fullmatch(text)
        if not found or float(found[1]) >= float(found[2]):
            raise ValueError(f"{text!r} is no scale; write the least and the largest number, such as 1-5 or 0.0-1.0")
        return cls(float(found[1]), float(found[2]), "." not in text)

    def describe(self) -> str:
        """In words, for a prompt."""
        return f"{'an integer' if self.whole else 'a number'} from {self.low:g} to {self.high:g}"

    def read(self, value: Any) -> float | None:
        """The number that an answer holds; None where it is none of the scale."""
        if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        return None if self.whole and value != int(value) else float(value)


Scales = Mapping[str, Scale]
"""Name of a rating -> its scale."""


def check_form(form: Any) -> Any:
    """The value of the recipe's key `answer` as it is.

    Raises:
        ValueError: it is neither `text` nor a mapping of names to scales.
    """
    if form == "text":
        return form
    if not isinstance(form, Mapping) or not form:
        raise ValueError("give `text`, or a scale for each rating, such as {relevance: 1-5, clarity: 1-5}")
    for name, scale in form.items():
        if not isinstance(name, str) or not FILTER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is to name a column: it may hold small letters, digits and _")
        Scale.parse(str(scale))
    return {name: str(scale) for name, scale in form.items()}


def describe_form(scales: Scales) -> str:
    """The form of ratings in words, for a prompt."""
    said = ", ".join(f'"{name}": {scale.describe()}' for name, scale in scales.items())
    return f"a JSON object and nothing else, with {said}"


def make_schema(scales: Scales) -> dict[str, Any]:
    """The form of ratings as `response_format` of chat completions, for servers that hold a model to it."""
    kinds = {
        name: {"type": "integer", "minimum": int(scale.low), "maximum": int(scale.high)}
        if scale.whole
        else {"type": "number", "minimum": scale.low, "maximum": scale.high}
        for name, scale in scales.items()
    }
    schema = {"type": "object", "properties": kinds, "required": list(scales), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "ratings", "strict": True, "schema": schema}}


def read_ratings(content: str, scales: Scales) -> tuple[float, ...] | None:
    """The ratings in an answer, in the order of `scales`: those of the last object that has all of them.

    Of one scale a bare number will do. None where the answer is not of the form.
    """
    text = content[-LONGEST_RATING:]
    if len(scales) == 1:
        (scale,) = scales.values()
        if (alone := scale.read(text)) is not None:
            return (alone,)
    for found in _list_objects(text):
        values = [scale.read(found.get(name)) for name, scale in scales.items()]
        if None not in values:
            return tuple(value for value in values if value is not None)
    return None


def _list_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, the last first."""
    decoder = json.JSONDecoder()
    for place in reversed([match.start() for match in re.finditer(r"\{", text)]):
        try:
            found, _ = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def check_prompt(prompt: str, *, has_text: bool, rates: bool) -> None:
    """Refuse a prompt that cannot be filled.

    Args:
        prompt: As the recipe has it. Braces that are meant are doubled.
        has_text: Whether texts are asked about.
        rates: Whether the answer is ratings.

    Raises:
        ValueError: it has another placeholder than PLACEHOLDERS, or one that nothing fills, or lacks that of the text.
    """
    try:
        fields = [(name, form, how) for _, name, form, how in Formatter().parse(prompt) if name is not None]
    except ValueError as error:
        raise ValueError(f"{error}; write braces that are meant as {{{{ and }}}}") from None
    names = {name for name, _, _ in fields}
    for name, form, how in fields:
        if name not in PLACEHOLDERS or form or how:
            raise ValueError(
                f"{{{name}}} is no placeholder; {suggest_names(name, PLACEHOLDERS)}; write braces that are meant as "
                "{{ and }}"
            )
    if "text" in names and not has_text:
        raise ValueError("of an image alone there is no {text}; with `of: pairs` its texts go along")
    if has_text and "text" not in names:
        raise ValueError("it does not say where the text goes; put {text} there")
    if "form" in names and not rates:
        raise ValueError("of an answer that is a text there is no {form}")


def fill_prompt(prompt: str, text: str, form: str) -> str:
    """A prompt with its placeholders filled; where it does not name the form of ratings, that is added."""
    filled = prompt.format(text=text, form=form)
    named = any(name == "form" for _, name, _, _ in Formatter().parse(prompt))
    return filled if named or not form else f"{filled}\n\nAnswer with {form}."
