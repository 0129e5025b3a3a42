"""Metrics of an answer against its references, as published.

Each is a pure function to [0, 1]; METRICS has all of them.

A sample of ours carries one reference for each answer. Published benchmarks have several (ten humans in VQAv2), so the
functions take any number; what their formula makes of a single one is said where it is not plain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product

Metric = Callable[[str, Sequence[str]], float]
"""From an answer and its references, of which there is at least one."""

THRESHOLD = 0.5
"""Of ANLS: answers that differ in so large a share of their letters are another answer, not one misread."""

TOLERANCE = 0.05
"""Of relaxed accuracy: how far a number may be off, as a share of the right one."""

NUMBERS: Mapping[str, str] = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
ARTICLES = frozenset({"a", "an", "the"})
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
"""All but the apostrophe and the colon, which mark possessives and times."""

CONTRACTED: Mapping[str, str] = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
    "n't've": "could had might must should would",
    "'ve": "could i might must not should they we what where who would you",
    "'d": "he how it somebody someone something that there they where who you",
    "'d've": "he i it she somebody someone something there they we who you",
    "'ll": "how it somebody someone something they what who why you",
    "'re": "there they what why you",
    "'s": "he how somebody someone something that there what when where who why",
    "": "i'm ma'am o'clock 'twas y'all y'all'll y'all'd've 'ow's'at",
}
"""Contractions that VQAv2's evaluation knows: ending -> what stands before it."""


def compute_exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference, letter by letter; both as they are given."""
    return float(answer in references)


def compute_vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """The accuracy of VQA: min(humans that gave this answer / 3, 1).

    It is averaged over all subsets that leave one human out.

    Antol et al. 2015 (VQA), section 5, and the evaluation code of VQAv2; answers are compared as `normalise_answer`
    leaves them. Where there is one reference it stands for all humans: 1 if it is the answer, else 0.
    """
    said, humans = normalise_answer(answer), [normalise_answer(reference) for reference in references]
    if len(humans) == 1:
        return float(said == humans[0])
    agreeing = humans.count(said)
    # leaving out a human that agrees leaves one fewer; there are `agreeing` of the former and the rest of the latter
    left, whole = min(max(agreeing - 1, 0) / 3, 1.0), min(agreeing / 3, 1.0)
    return (agreeing * left + (len(humans) - agreeing) * whole) / len(humans)


def compute_anls(answer: str, references: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the nearest reference.

    1 - d / (length of the longer), and 0 from d of half its length on.

    Biten et al. 2019 (ST-VQA), equation 1, with its threshold of 0.5; its mean over questions is the ANLS of DocVQA
    (Mathew et al. 2021). Case and runs of white space do not count, as in its evaluation.
    """
    return max(_compute_similarity(_fold_text(answer), _fold_text(reference)) for reference in references)


def compute_relaxed_accuracy(answer: str, references: Sequence[str]) -> float:
    """1 for a number within 5 % of a reference that is one, or the same word as a reference, ignoring case.

    Masry et al. 2022 (ChartQA), section 5.1, after Methani et al. 2020 (PlotQA). A percentage is divided by 100.
    """
    return float(any(_match_relaxed(answer, reference) for reference in references))


METRICS: Mapping[str, Metric] = {
    "exact": compute_exact_match,
    "vqa": compute_vqa_accuracy,
    "anls": compute_anls,
    "relaxed": compute_relaxed_accuracy,
}


def normalise_answer(answer: str) -> str:
    """An answer as the evaluation code of VQAv2 compares it; applied twice it changes nothing more.

    Lower case; without periods that do not stand before a digit, without other punctuation, and without articles;
    number words up to ten as digits; contractions with their apostrophes. Punctuation becomes a space, or nothing where
    a space is beside it, or anywhere in an answer with a comma between digits, so that 100,978 is 100978.
    """
    text = " ".join(answer.split())
    grouped = re.search(r"\d,\d", text) is not None
    kept = text
    for mark in PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if beside or grouped else " ")
    kept = re.sub(r"\.(?!\d)", "", kept)
    words = (NUMBERS.get(word, word) for word in kept.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _list_contractions() -> dict[str, str]:
    """Contractions by every way to spell them without some of their apostrophes."""
    words = [f"{stem}{ending}" for ending, stems in CONTRACTED.items() for stem in stems.split()]
    return {
        "".join(part for pair in zip(word.split("'"), (*marks, ""), strict=True) for part in pair): word
        for word in words
        for marks in product(("", "'"), repeat=word.count("'"))
    }


CONTRACTIONS = _list_contractions()


def _fold_text(text: str) -> str:
    return " ".join(text.lower().split())


def _compute_similarity(one: str, other: str) -> float:
    longer = max(len(one), len(other))
    if not longer:
        return 1.0
    distance = _compute_distance(one, other) / longer
    return 1 - distance if distance < THRESHOLD else 0.0


def _compute_distance(one: str, other: str) -> int:
    """Insertions, deletions and exchanges of letters that make one text the other (Wagner and Fischer 1974)."""
    row = list(range(len(other) + 1))
    for above, letter in enumerate(one, start=1):
        corner, row[0] = row[0], above
        for place, against in enumerate(other, start=1):
            corner, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, corner + (letter != against))
    return row[-1]


def _match_relaxed(answer: str, reference: str) -> bool:
    said, right = _parse_number(answer), _parse_number(reference)
    if said is None or right is None:
        return answer.strip().lower() == reference.strip().lower()
    return abs(said - right) <= TOLERANCE * abs(right)


def _parse_number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
