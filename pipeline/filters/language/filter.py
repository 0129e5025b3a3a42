"""Language: drops what is written in unwanted languages, Chinese by default, and keeps the rest.

Paragraphs first: each by its own evidence and its neighbours' (`evidence`), so a Chinese paragraph leaves an English
page alone and a kanji heading stays on a Japanese one. A node is a paragraph where its source divides texts, and may
hold several in answers and pages: then it goes for one in Chinese, Japanese or Korean that is unwanted, and for
languages of other scripts, which are uncertain in short paragraphs, as the mean of all by words says. Then samples: one
that is mostly unwanted goes as a whole.

Chinese is every Chinese language in Han characters, simplified or traditional, and in Bopomofo. Japanese without kana
and Korean with hanja are not; neither are romanised Chinese, a Han quotation in a sentence of another language, or
code. A listing is in the language of its comments. A text without letters is in no language and stays, unless its
sample goes.

What cannot be decided is marked as `Undecided` and kept or dropped by `in_doubt`. `strict` keeps no Han character
outside Japanese and Korean (`recognition`).
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, ImageStats, Sample, Verdict
from vlmill.pipeline.filters.base import Finding, Undecided, take_sources
from vlmill.pipeline.filters.language import lid
from vlmill.pipeline.filters.language.evidence import (
    Column,
    LanguageScores,
    Weights,
    add_context,
    bound_context,
    score_texts,
)
from vlmill.pipeline.filters.language.prose import CJK, split_paragraphs
from vlmill.pipeline.filters.language.recognition import count_foreign_han
from vlmill.pipeline.filters.language.script import HAN

BATCH = 64  # samples read at once
CHARACTERS = 1 << 16  # judged at once: any longer paragraph has shown its language by then
MOST = 30.0  # nats: where the odds of a certain case are cut off
Part = tuple[int, str]
"""The node of a paragraph, and its text."""
HAN_LANGUAGES = {"zh": Column.ZH, "ja": Column.JA, "ko": Column.KO}


@dataclass(frozen=True, config=STRICT)
class Language:
    """Drops nodes, and samples that are mostly made of them, by language.

    Attributes:
        drop: codes of unwanted languages; `["zh"]` if neither this nor `keep` is given.
        keep: codes of the only wanted languages, instead of `drop`.
        sample_share: a sample goes as a whole when at least this share of it is unwanted: of its words in documents, of
            its text nodes in conversations.
        threshold: probability from which a node counts as unwanted, and below one minus which as wanted; between the
            two it is undecided. The default takes two nats, more than the model alone can say.
        in_doubt: the outcome of an undecided node.
        strict: drops every node with a Han character, or Bopomofo, in a paragraph that is not recognised as Japanese or
            Korean: quotations, names and code too. Such a paragraph stays if it has kana or Hangul, is Japanese or
            Korean rather than Chinese with the probability of `threshold`, and rather than any other language; one of
            Han alone, if its neighbours make it so, and another paragraph of its sample is in that language by itself.
        sources: those that it is asked of, by name or by a pattern such as `cauldron-*`; none: all.
    """

    name: ClassVar[str] = "language"
    version: ClassVar[int] = 3
    image_stats: ClassVar[tuple[str, ...]] = ()

    drop: tuple[str, ...] | None = None
    keep: tuple[str, ...] | None = None
    sample_share: float = Field(default=0.8, gt=0.0, le=1.0)
    threshold: float = Field(default=0.88, gt=0.5, lt=1.0)
    in_doubt: Literal["keep", "drop"] = "keep"
    strict: bool = False
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.drop is not None and self.keep is not None:
            raise ValueError("names languages to drop and to keep; give one of the two, and null for the other")
        if self.drop is None and self.keep is None:
            object.__setattr__(self, "drop", ("zh",))
        if self.keep == ():
            raise ValueError("keep names no language, so all texts would go; name those that stay, such as [en]")
        for code in (*(self.drop or ()), *(self.keep or ())):
            if code not in lid.list_codes():
                raise ValueError(f"{code!r} is no language code: {lid.suggest_code(code)}")
        if self.strict and not self._unwanted("zh"):
            raise ValueError("strict keeps no Chinese, which is not unwanted here: drop zh, or leave strict out")

    def made_by(self) -> Mapping[str, str]:
        """The model and the package that runs it."""
        return {"lid.176.ftz": lid.SHA256, "fasttext-predict": importlib.metadata.version("fasttext-predict")}

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Finding]:
        """Verdicts with the probability that a node, or the share of a sample, is unwanted as their score.

        Those of `strict` alone have the number of Han characters.
        """
        del image_stats
        waiting = take_sources(samples, self.sources)
        while batch := list(islice(waiting, BATCH)):
            yield from self.filter_batch(batch, Weights())

    def filter_batch(self, batch: Sequence[tuple[int, Sample]], weights: Weights) -> Iterator[Finding]:
        """The same for one batch, with evidence weighed as given."""
        only_han = self.drop is not None and HAN_LANGUAGES.keys() >= set(self.drop)  # then other scripts need no model
        taken = [(row, sample, _split_nodes(sample)) for row, sample in batch if not only_han or self._concerns(sample)]
        texts = [text for _, _, parts in taken for _, text in parts]
        reading = score_texts(texts, None if only_han else self._unwanted, weights)
        start = 0
        for row, sample, parts in taken:
            part = slice(start, start := start + len(parts))
            scores = self._add_context(
                LanguageScores(reading.scores[part], reading.words[part]), sample, parts, weights
            )
            yield from self._findings(row, sample, parts, scores)

    def _concerns(self, sample: Sample) -> bool:
        """Whether a sample has letters that languages in Han characters are written with."""
        texts = [node.text for node in sample.nodes if node.text]
        return any(CJK.search(text) or (self.strict and HAN.search(text)) for text in texts)

    def _add_context(
        self, alone: LanguageScores, sample: Sample, parts: Sequence[Part], weights: Weights
    ) -> LanguageScores:
        """What the neighbours of a sample's paragraphs add, where it could change an outcome."""
        sure = bound_context(weights) + self._margin
        if len(parts) < 2 or (not self.strict and min(map(abs, self._margins(alone.scores))) >= sure):
            return alone
        nodes = [sample.nodes[node] for node, _ in parts]
        turns = [None if node.role == "none" else node.turn for node in nodes]
        return LanguageScores(add_context(alone, turns, weights), alone.words)

    def _findings(self, row: int, sample: Sample, parts: Sequence[Part], reading: LanguageScores) -> Iterator[Finding]:
        """Findings on the text nodes of one sample: for unwanted languages, and else for Han under `strict`."""
        margins, words = self._margins(reading.scores), reading.words.tolist()
        foreign = self._count_foreign_han(parts, reading.scores)
        dropped, bad, total = dict[int, float](), 0.0, 0.0
        for node, places in groupby(range(len(parts)), lambda place: parts[place][0]):
            own = list(places)
            margin = _join_margins([(parts[place][1], margins[place], words[place]) for place in own])
            if abs(margin) < self._margin:
                yield Undecided(row, node)
            if goes := self._goes(margin):
                dropped[node] = margin
            if sample.nodes[node].role == "none":
                total += sum(words[place] for place in own)
                bad += sum(words[place] for place in own if goes and self._goes(margins[place]))
            else:  # a conversation: each text counts the same, however long the answers
                total += (spoken := float(any(words[place] > 0 for place in own)))
                bad += spoken * goes
        if dropped and bad >= self.sample_share * total:
            yield Verdict(row, WHOLE_SAMPLE, self.name, Reason.LANGUAGE, bad / total if total else 1.0)
            return
        for node, margin in dropped.items():
            yield Verdict(row, node, self.name, Reason.LANGUAGE, 1 / (1 + math.exp(-margin)))
        for node, number in foreign.items():
            if node not in dropped:
                yield Verdict(row, node, self.name, Reason.HAN_CHARACTERS, number)

    def _goes(self, margin: float) -> bool:
        return margin >= self._margin or (margin > -self._margin and self.in_doubt == "drop")

    def _count_foreign_han(self, parts: Sequence[Part], scores: np.ndarray) -> dict[int, int]:
        """The nodes that have to go under `strict`, and how many Han characters each has that are not wanted."""
        wanted = [column for code, column in HAN_LANGUAGES.items() if not self._unwanted(code)]
        found = dict[int, int]()
        if self.strict:
            numbers = count_foreign_han([text for _, text in parts], scores, wanted, self._margin)
            for (node, _), number in zip(parts, numbers, strict=True):
                if number:
                    found[node] = found.get(node, 0) + number
        return found

    @property
    def _margin(self) -> float:
        """The threshold in nats."""
        return math.log(self.threshold / (1 - self.threshold))

    def _unwanted(self, code: str) -> bool:
        return code in self.drop if self.drop is not None else code not in (self.keep or ())

    def _margins(self, scores: np.ndarray) -> list[float]:
        """By how many nats unwanted languages lead (or, negative, trail); -MOST for texts in no language."""
        bad = [column for code, column in HAN_LANGUAGES.items() if self._unwanted(code)] + [Column.UNWANTED]
        good = [column for column in Column if column not in bad]
        worst, best = scores[:, bad].max(axis=1), scores[:, good].max(axis=1)
        none = np.isneginf(worst)
        margins = np.where(none, -MOST, np.clip(np.where(none, 0, worst) - best, -MOST, MOST))
        return [float(margin) for margin in margins]


def _split_nodes(sample: Sample) -> list[Part]:
    """The paragraphs of all text nodes."""
    return [
        (index, text)
        for index, node in enumerate(sample.nodes)
        for text in split_paragraphs(node.text or "", CHARACTERS)
    ]


def _join_margins(parts: Sequence[tuple[str, float, float]]) -> float:
    """The margin of a node, from those of its paragraphs: text, margin and words of each.

    The worst of those with Chinese, Japanese or Korean letters, and the mean of all by words, whichever is higher.
    """
    worst = max((margin for text, margin, _ in parts if len(parts) == 1 or CJK.search(text)), default=-MOST)
    words = sum(size for _, _, size in parts)
    return max(worst, sum(margin * size for _, margin, size in parts) / words) if words else worst
