"""Questions with choices, as `table` (table.py) reads them: the choices follow with letters, the answer is a letter.

A choice has the letter and the number of its place in the row. A place that is empty keeps both: else an answer that
names what stands behind it would become the letter of another choice.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Literal

from vlmill.pipeline.sources.base import UnreadableRow

ASKED = "Answer with the option's letter from the given choices directly."
"""What follows lettered choices in LLaVA-1.5's data (arXiv 2310.03744, table 7)."""

LETTERED = re.compile(r"\(?([A-Za-z])[).:]\s*(\S.*)", re.DOTALL)
"""A choice with a letter in front."""

DIGITS = 9
"""Of a number that may be that of a choice."""

Naming = Literal["any", "letter", "number", "number_from_1", "words"]
"""How answers name a choice; `any` is by letter, by number from 0 or in its words."""

USUAL = ("letter", "number", "words")
"""Those of `any`."""


def letter_choices(
    question: str, choices: Sequence[str], answer: str, naming: Naming = "any", *, counted: bool = False
) -> tuple[str, str]:
    """The question with its choices, and the letter of the answer.

    Args:
        question: What is asked.
        choices: What may be chosen, with or without letters in front; blank where a place has no choice.
        answer: A letter, a number, or a choice.
        naming: Which of these it is.
        counted: Whether the answer came as a number and the choices as texts: then it is no choice's words.

    Raises:
        UnreadableRow: the answer is none of them, it names two, or there are more choices than letters.
    """
    letters = string.ascii_uppercase
    last = max((place for place, choice in enumerate(choices) if choice.strip()), default=-1)
    choices = choices[: last + 1]  # lists are padded to one length
    if len(choices) > len(letters):
        raise UnreadableRow(f"{len(choices)} choices, expected at most {len(letters)}")
    bare = _strip_letters(choices)
    there = sum(bool(choice.strip()) for choice in bare)
    all_named = list_named(choices, answer)
    usual = ("number",) if counted and "number" in all_named else USUAL
    ways = usual if naming == "any" else (naming,)
    named = {way: place for way, place in all_named.items() if way in ways}
    if not named:
        from_1 = "number_from_1" in all_named and "number" not in all_named
        hint = "; where numbers count from 1, answer_as: number_from_1 in the options says so" if from_1 else ""
        raise UnreadableRow(f"the answer {answer.strip()!r} is none of the {there} choices{hint}")
    if len({*named.values()}) > 1:
        told = ", ".join(f"{letters[place]} by its {way}" for way, place in named.items())
        raise UnreadableRow(
            f"the answer {answer.strip()!r} names two choices, {told}: the option answer_as says which counts"
        )
    listed = [f"{letters[place]}. {choice.strip()}" for place, choice in enumerate(bare) if choice.strip()]
    return "\n".join([question, *listed, ASKED]), letters[next(iter(named.values()))]


def list_named(choices: Sequence[str], answer: str) -> Mapping[str, int]:
    """The place of the choice that an answer names, in each of the ways in which it names one."""
    bare, said = _strip_letters(choices), answer.strip()
    letter = said.strip("().:").upper()
    places = dict[str, int]()
    if len(letter) == 1 and letter in string.ascii_uppercase:
        places["letter"] = string.ascii_uppercase.index(letter)
    if said.isdecimal() and len(said) <= DIGITS:
        places |= {"number": int(said), "number_from_1": int(said) - 1}
    whole = choices if len(choices) == len(bare) else [choice for choice in choices if choice.strip()]
    for one in (whole, bare):
        if "words" not in places and said in (held := [choice.strip() for choice in one]):
            places["words"] = held.index(said)
    if "words" not in places and (match := LETTERED.fullmatch(said)):  # "B. a dog"
        place = string.ascii_uppercase.index(match[1].upper())
        if place < len(bare) and bare[place].strip() == match[2].strip():
            places["words"] = place
    return {way: place for way, place in places.items() if 0 <= place < len(bare) and bare[place].strip()}


def _strip_letters(choices: Sequence[str]) -> Sequence[str]:
    """Choices without letters of their own, as ArxivQA writes them (`A) one`, `B) two`), where each has its own."""
    found = [LETTERED.fullmatch(choice.strip()) for choice in choices if choice.strip()]
    own = "".join(match[1].upper() for match in found if match)
    return [match[2] for match in found if match] if own == string.ascii_uppercase[: len(found)] else choices
