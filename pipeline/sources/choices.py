"""Questions with choices, as `table` (table.py) reads them: the choices follow with letters, the answer is a letter."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from vlmill.pipeline.sources.base import UnreadableRow

ASKED = "Answer with the option's letter from the given choices directly."
"""What follows lettered choices in LLaVA-1.5's data (arXiv 2310.03744, table 7)."""

LETTERED = re.compile(r"\(?([A-Za-z])[).:]\s*(\S.*)", re.DOTALL)
"""A choice with a letter in front."""


def letter_choices(question: str, choices: Sequence[str], answer: str) -> tuple[str, str]:
    """The question with its choices, and the letter of the answer.

    Args:
        question: What is asked.
        choices: What may be chosen, with or without letters in front.
        answer: A letter, a number from 0, or a choice.

    Raises:
        UnreadableRow: the answer is none of them, or there are more choices than letters.
    """
    letters = string.ascii_uppercase[: len(choices)]
    if len(choices) > len(string.ascii_uppercase):
        raise UnreadableRow(f"{len(choices)} choices, expected at most {len(string.ascii_uppercase)}")
    said, bare = answer.strip(), _strip_letters(choices)
    letter = said.strip("().:").upper()
    if said in choices or said in bare:
        letter = letters[(choices if said in choices else bare).index(said)]
    elif said.isdecimal() and int(said) < len(choices):
        letter = letters[int(said)]
    if len(letter) != 1 or letter not in letters:
        raise UnreadableRow(f"the answer {said!r} is none of the {len(choices)} choices")
    listed = [f"{name}. {choice.strip()}" for name, choice in zip(letters, bare, strict=True)]
    return "\n".join([question, *listed, ASKED]), letter


def _strip_letters(choices: Sequence[str]) -> Sequence[str]:
    """Choices without letters of their own, as ArxivQA writes them (`A) one`, `B) two`), where each has its own."""
    found = [LETTERED.fullmatch(choice.strip()) for choice in choices]
    own = "".join(match[1].upper() for match in found if match)
    return [match[2] for match in found if match] if own == string.ascii_uppercase[: len(choices)] else choices
