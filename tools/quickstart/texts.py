"""Texts from templates: articles in ten languages, each a function of a random generator.

The words lie in `words/<language>.yaml`. English has topics of its own; the other languages tell of one small town.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

WORDS = Path(__file__).parent / "words"
SPACELESS = frozenset({"zh-hans", "zh-hant", "ja"})
"""Languages that set no space between sentences."""


@dataclass(frozen=True, slots=True)
class Article:
    """A title and sentences in the order in which they were drawn."""

    language: str
    title: str
    sentences: tuple[str, ...]

    def paragraphs(self, number: int) -> list[str]:
        """The sentences in `number` paragraphs of nearly equal length."""
        bounds = [len(self.sentences) * index // number for index in range(number + 1)]
        space = "" if self.language in SPACELESS else " "
        return [space.join(self.sentences[start:stop]) for start, stop in pairwise(bounds)]


@cache
def words(language: str) -> Mapping[str, Any]:
    """What `words/<language>.yaml` holds."""
    loaded: Mapping[str, Any] = yaml.safe_load((WORDS / f"{language}.yaml").read_text(encoding="utf-8"))
    return loaded


def fill(template: str, fillers: Mapping[str, Sequence[str]], rng: Random) -> str:
    """The template with each `{name}` replaced by a word drawn from `fillers[name]`, and a capital at its start."""
    text = re.sub(r"\{(\w+)\}", lambda match: rng.choice(fillers[match[1]]), template)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text) if "mood" in fillers else text  # English: an oak sign
    return text[0].upper() + text[1:]


def write(language: str, rng: Random, sentences: int) -> Article:
    """An article of so many different sentences. English ones keep to a topic, with a sentence in five from another."""
    book = words(language)
    if "topics" not in book:
        drawn = rng.sample(book["sentences"], min(sentences, len(book["sentences"])))
        return Article(language, fill(rng.choice(book["titles"]), book["fillers"], rng), _filled(drawn, book, rng))
    main, *others = rng.sample(sorted(book["topics"]), 4)
    asides = [book["topics"][other]["sentences"] for other in others]
    drawn = rng.sample(book["topics"][main]["sentences"], min(12, sentences - sentences // 5))
    drawn += rng.sample([sentence for aside in asides for sentence in aside], sentences - len(drawn))
    first, *rest = drawn
    rng.shuffle(rest)
    title = fill(rng.choice(book["topics"][main]["titles"]), book["fillers"], rng)
    return Article(language, title, _filled([first, *rest], book, rng))


def _filled(templates: Sequence[str], book: Mapping[str, Any], rng: Random) -> tuple[str, ...]:
    return tuple(fill(template, book["fillers"], rng) for template in templates)


def say(template: str, language: str, kind: str, colour: str) -> str:
    """What another language than English says about a shape: its `labels`, `question` or `answer`."""
    book = words(language)
    return str(book[template]).format(shape=book["shapes"][kind], colour=book["colours"][colour])
