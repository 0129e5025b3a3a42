"""Notes that say the same of several sources, as one line."""

from __future__ import annotations

import re
from collections.abc import Sequence

LEAST = 3
"""Notes that differ in their source and numbers alone become a line from so many on."""

NUMBER = re.compile(r"(?<!\w)\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")


def group_notes(notes: Sequence[str]) -> list[str]:
    """The notes of a stage, those that say the same of LEAST sources or more as one, where the first of them stood."""
    alike = dict[tuple[str, ...], list[str]]()
    for note in notes:
        label, colon, text = note.partition(": ")
        alike.setdefault(("", *NUMBER.split(text)) if colon else (label,), []).append(note)
    found = list[str]()
    for same in alike.values():
        found += [_join_notes(same)] if len(same) >= LEAST else same
    return found


def _join_notes(same: Sequence[str]) -> str:
    """`web, quiz and scans: passed 5, 6 and 7 times`: a number that all share stands once."""
    parts = [note.partition(": ") for note in same]
    numbers = [NUMBER.findall(text) for _, _, text in parts]
    said = [group[0] if len({*group}) == 1 else _list_words(group) for group in zip(*numbers, strict=True)]
    between = NUMBER.split(parts[0][2])
    text = "".join(f"{piece}{number}" for piece, number in zip(between, [*said, ""], strict=True))
    labels = [label for label, _, _ in parts]
    return f"{('; ' if any(' ' in label for label in labels) else ', ').join(labels)}: {text}"


def _list_words(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
