"""Text quality: drops paragraphs, then documents, that are no running text.

The measures are those of ROOTS and OBELICS (see `measures`).

Nodes first: each text by itself. Then the sample: what is left of its texts, as one. The same bounds can be set for
both. By default only what says one thing over and over goes, and what is unreadable, in any language; what was
published for English web pages is

    - text_quality:          # OBELICS, config_filter_web_documents.yaml
        node: {min_words: 4, max_words: 1000, max_character_repetition: 0.1, max_word_repetition: 0.1,
        max_special_characters: 0.3,
               min_stop_words: 0.3, max_flagged_words: 0.01, min_punctuation: 0.001}
        sample: {min_words: 10, max_words: 2000, max_character_repetition: 0.1, max_word_repetition: 0.2,
        max_special_characters: 0.275,
                 min_stop_words: 0.35, max_flagged_words: 0.01, min_punctuation: 0.03}

and, with the package wordfreq, `min_common_words: 0.8` of a text and 0.9 of a sample. Their perplexity is a signal
(pipeline/signals/perplexity.py).

These bounds are English's. Of clean prose in Korean, Finnish or Turkish they would leave next to nothing: what English
says with stop words, other languages say with endings, and where words are short, spaces are many. `languages: [en]`
asks them of samples that are in English, or in no language that can be told; of others is asked what is by default.

Word lists are looked up by language. A text whose language is open, or has no list, is not filtered by them, and marked
as a `Undecided`.
"""

from __future__ import annotations

import importlib.metadata
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, ImageStats, Role, Sample, Verdict
from vlmill.pipeline.filters import word_lists
from vlmill.pipeline.filters.base import Finding, Undecided, take_sources
from vlmill.pipeline.filters.language import lid
from vlmill.pipeline.filters.measures import (
    measure_character_repetition,
    measure_punctuation,
    measure_share,
    measure_special_characters,
    measure_unreadable_characters,
    measure_word_repetition,
    split_words,
)

Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=0)]
Fault = tuple[Reason, float]


@dataclass(frozen=True, config=STRICT)
class TextBounds:
    """What a text must keep to; None asks for nothing. Bounds that say "share" are from 0 to 1.

    Attributes:
        min_words: words it has at least; headings have few.
        max_words: words it has at most.
        max_character_repetition: share of repeated runs of 10 characters. Prose has up to 0.2, lists of similar names
            0.4, tables of contents with dotted lines 0.8, a row of one sign 1.
        max_word_repetition: share of repeated runs of 5 words. Prose has up to 0.2, reference pages 0.7, what was said
            over and over 1.
        max_special_characters: share of special characters, spaces and digits among them. English has 0.2, receipts
            0.5, code 0.7, tables of numbers 1.
        max_unreadable_characters: share of unreadable characters. What a PDF without a table of its characters gives
            has most.
        min_stop_words: share of stop words. Prose has 0.4, lists and keywords less than 0.1.
        min_common_words: share of words that people write: of English prose nearly all, of manuals full of code 0.8, of
            random letters none.
        max_flagged_words: share of flagged words.
        min_punctuation: share of punctuation marks among words and marks. Thai has none.
        ratios_from: words from which on a text is asked for the ratios of words: repetition, stop words, common words,
            flagged words.
            OBELICS asked all texts, and so took headings and captions of pictures.
        punctuation_from: words from which on a text is asked for its punctuation.
    """

    min_words: Number | None = None
    max_words: Number | None = None
    max_character_repetition: Share | None = 0.9
    max_word_repetition: Share | None = 0.9
    max_special_characters: Share | None = None
    max_unreadable_characters: Share | None = 0.2
    min_stop_words: Share | None = None
    min_common_words: Share | None = None
    max_flagged_words: Share | None = None
    min_punctuation: Share | None = None
    ratios_from: Number = 12
    punctuation_from: Number = 12

    def __post_init__(self) -> None:
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}: no text could pass")

    @property
    def by_list(self) -> bool:
        """Whether lists of words are asked, for which the language has to be known."""
        return any(bound is not None for bound in (self.min_stop_words, self.min_common_words, self.max_flagged_words))


@dataclass(frozen=True, config=STRICT)
class TextQuality:
    """Drops text nodes, and samples by the texts that are left of them.

    Attributes:
        node: bounds of each text.
        sample: bounds of all texts of a sample together.
        languages: those that the bounds were made for. Samples that are recognised as another, by all of their texts,
            are asked for the default bounds instead, and for the flagged words of their language; none: all samples.
        roles: whose texts are filtered: none are documents and pages, user and assistant the turns of conversations.
        flagged_words: lists by language code, in place of ours.
        sources: those that it is asked of, by name or by a pattern such as `cauldron-*`; none: all.
    """

    name: ClassVar[str] = "text_quality"
    version: ClassVar[int] = 2
    image_stats: ClassVar[tuple[str, ...]] = ()

    node: TextBounds = field(default_factory=TextBounds)
    sample: TextBounds = field(default_factory=TextBounds)
    languages: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ("none",)
    flagged_words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for code in self.languages:
            if code not in lid.list_codes():
                raise ValueError(f"languages: {code!r} is no language code: {lid.suggest_code(code)}")
        for code in self.flagged_words:
            if code not in lid.list_codes():
                raise ValueError(f"flagged_words: {code!r} is no language code: {lid.suggest_code(code)}")
            if code in word_lists.UNSPACED:
                raise ValueError(f"flagged_words: {code} is a language that is written without spaces")

    def made_by(self) -> Mapping[str, str]:
        """The tables of characters; with lists of words, these and the language model.

        Raises:
            RecipeError: a list is asked for whose package is not installed.
        """
        made_by = {"unicode": unicodedata.unidata_version}
        if self.languages or self.node.by_list or self.sample.by_list:
            packages: tuple[str, ...] = ("stopwordsiso", "fasttext-predict")
            if any(bounds.min_common_words is not None for bounds in (self.node, self.sample)):
                word_lists.get_common_words("")
                packages += ("wordfreq",)
            made_by |= {name: importlib.metadata.version(name) for name in packages} | {"lid.176.ftz": lid.SHA256}
        return made_by

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Finding]:
        """Verdicts with the offending number of words, or share, as their score."""
        del image_stats
        for row, sample in take_sources(samples, self.sources):
            if any(node.role in self.roles for node in sample.nodes):
                yield from self._sample(row, sample)

    def _sample(self, row: int, sample: Sample) -> Iterator[Finding]:
        code, of_node, of_sample = self._choose_bounds(sample)
        left, spoken = list[str](), list[str]()
        for index, node in enumerate(sample.nodes):
            if node.text is None or node.role not in self.roles:
                continue
            found = split_words(node.text)
            fault, decided = self._ask(of_node, node.text, found, code)
            if not decided:
                yield Undecided(row, index)
            if fault:
                yield Verdict(row, index, self.name, *fault)
            else:
                left.append(node.text)
                spoken += found
        fault, decided = self._ask(of_sample, "\n\n".join(left), spoken, code)
        if not decided:
            yield Undecided(row, WHOLE_SAMPLE)
        if fault:
            yield Verdict(row, WHOLE_SAMPLE, self.name, *fault)

    def _choose_bounds(self, sample: Sample) -> tuple[str | None, TextBounds, TextBounds]:
        """The language of a sample, where it is asked for, and the bounds of each text and of all together."""
        if not self.languages:
            return None, self.node, self.sample
        whole = "\n".join(node.text for node in sample.nodes if node.text)
        code = word_lists.guess_language(whole, word_lists.OF_SAMPLE)
        if code is None or code in self.languages:
            return code, self.node, self.sample
        return code, _keep_flagged_words(self.node), _keep_flagged_words(self.sample)

    def _ask(self, bounds: TextBounds, text: str, found: Sequence[str], code: str | None) -> tuple[Fault | None, bool]:
        """The first fault of a text, and whether everything that was asked could be decided.

        `code` is its language, None where that is open.
        """
        fault, long = _find_fault_of_form(bounds, text, found), len(found) >= bounds.ratios_from
        return self._by_list(bounds, text, found, code) if fault is None and long and bounds.by_list else (fault, True)

    def _by_list(
        self, bounds: TextBounds, text: str, found: Sequence[str], code: str | None
    ) -> tuple[Fault | None, bool]:
        code = code or word_lists.guess_language(text)
        decided = True
        for bound, sign, reason, get_words in (
            (bounds.min_stop_words, 1, Reason.STOP_WORDS, word_lists.get_stop_words),
            (bounds.min_common_words, 1, Reason.COMMON_WORDS, word_lists.get_common_words),
            (bounds.max_flagged_words, -1, Reason.FLAGGED_WORDS, self._flagged),
        ):
            if bound is None:
                continue
            words = get_words(code) if code else None
            decided = decided and words is not None
            if words is not None and sign * (value := measure_share(found, words)) < sign * bound:
                return (reason, value), True
        return None, decided

    def _flagged(self, code: str) -> Collection[str] | None:
        given = self.flagged_words.get(code)
        return frozenset(word.lower() for word in given) if given is not None else word_lists.FLAGGED.get(code)


def _keep_flagged_words(bounds: TextBounds) -> TextBounds:
    """The default bounds, with those of flagged words: these have lists by language."""
    return TextBounds(max_flagged_words=bounds.max_flagged_words)


def _find_fault_of_form(bounds: TextBounds, text: str, found: Sequence[str]) -> Fault | None:
    """The first fault of a text that no list is needed for."""
    long = len(found) >= bounds.ratios_from
    if bounds.min_words is not None and len(found) < bounds.min_words:
        return Reason.TOO_FEW_WORDS, len(found)
    if bounds.max_words is not None and len(found) > bounds.max_words:
        return Reason.TOO_MANY_WORDS, len(found)
    checks: tuple[tuple[float | None, Reason, Callable[[], float]], ...] = (
        (bounds.max_character_repetition, Reason.CHARACTER_REPETITION, lambda: measure_character_repetition(text)),
        (bounds.max_special_characters, Reason.SPECIAL_CHARACTERS, lambda: measure_special_characters(text)),
        (bounds.max_unreadable_characters, Reason.UNREADABLE_CHARACTERS, lambda: measure_unreadable_characters(text)),
        (bounds.max_word_repetition if long else None, Reason.WORD_REPETITION, lambda: measure_word_repetition(found)),
    )
    for bound, reason, measure in checks:
        if bound is not None and (value := measure()) > bound:
            return reason, value
    asked = bounds.min_punctuation is not None and len(found) >= bounds.punctuation_from
    if asked and (value := measure_punctuation(text)) < (bounds.min_punctuation or 0):
        return Reason.PUNCTUATION, value
    return None
