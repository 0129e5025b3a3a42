"""Language: drops what is written in unwanted languages, Chinese by default, and keeps the rest.

Nodes and turns first: each text node by its own evidence and its neighbours' (`evidence`), so a Chinese paragraph
leaves an English page alone and a kanji heading stays on a Japanese one. Then samples: one that is mostly unwanted goes
as a whole.

Chinese is every Chinese language in Han characters, simplified or traditional, and in Bopomofo. Japanese without kana
and Korean with hanja are not; neither are romanised Chinese, a Han quotation in a sentence of another language, or
code. A listing is in the language of its comments. A text without letters is in no language and stays, unless its
sample goes.

What cannot be decided is marked as `Undecided` and kept or dropped by `in_doubt`.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, suggest_names
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
from vlmill.pipeline.filters.language.prose import CJK

BATCH = 64  # samples read at once
CHARACTERS = 1 << 16  # read of a text: any longer one has shown its language by then
MOST = 30.0  # nats: where the odds of a certain case are cut off
MISTAKEN = {"cn": "zh", "tw": "zh", "hk": "zh", "jp": "ja", "kr": "ko", "cz": "cs", "gr": "el", "ua": "uk"}
"""Codes of countries that are taken for those of languages."""
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
        sources: those that it is asked of, by name or by a pattern such as `cauldron-*`; none: all.
    """

    name: ClassVar[str] = "language"
    version: ClassVar[int] = 2
    image_stats: ClassVar[tuple[str, ...]] = ()

    drop: tuple[str, ...] | None = None
    keep: tuple[str, ...] | None = None
    sample_share: float = Field(default=0.8, gt=0.0, le=1.0)
    threshold: float = Field(default=0.88, gt=0.5, lt=1.0)
    in_doubt: Literal["keep", "drop"] = "keep"
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.drop is not None and self.keep is not None:
            raise ValueError("names languages to drop and to keep; give one of the two")
        if self.drop is None and self.keep is None:
            object.__setattr__(self, "drop", ("zh",))
        if self.keep == ():
            raise ValueError("keep names no language, so all texts would go; name those that stay, such as [en]")
        for code in (*(self.drop or ()), *(self.keep or ())):
            if code not in lid.list_codes():
                raise ValueError(f"{code!r} is no language code: {_suggest_code(code)}")

    def made_by(self) -> Mapping[str, str]:
        """The model and the package that runs it."""
        return {"lid.176.ftz": lid.SHA256, "fasttext-predict": importlib.metadata.version("fasttext-predict")}

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Finding]:
        """Verdicts with the probability that a node, or the share of a sample, is unwanted as their score."""
        del image_stats
        waiting = take_sources(samples, self.sources)
        while batch := list(islice(waiting, BATCH)):
            yield from self.filter_batch(batch, Weights())

    def filter_batch(self, batch: Sequence[tuple[int, Sample]], weights: Weights) -> Iterator[Finding]:
        """The same for one batch, with evidence weighed as given."""
        only_han = self.drop is not None and HAN_LANGUAGES.keys() >= set(self.drop)  # then other scripts need no model
        taken = [(row, sample, nodes) for row, sample in batch if (nodes := _list_readable(sample, only_han=only_han))]
        texts = [(sample.nodes[node].text or "")[:CHARACTERS] for _, sample, nodes in taken for node in nodes]
        reading = score_texts(texts, None if only_han else self._unwanted, weights)
        margins, sizes = self._margins(reading.scores), reading.words.tolist()
        start = 0
        for row, sample, nodes in taken:
            part = slice(start, start := start + len(nodes))
            turns = [None if sample.nodes[node].role == "none" else sample.nodes[node].turn for node in nodes]
            if len(nodes) > 1 and min(map(abs, margins[part])) < bound_context(weights) + self._margin:
                alone = LanguageScores(reading.scores[part], reading.words[part])
                margins[part] = self._margins(add_context(alone, turns, weights))
            if turns[0] is not None:  # a conversation: each text counts the same, however long the answers
                sizes[part] = [float(size > 0) for size in sizes[part]]
            yield from self._findings(row, nodes, margins[part], sizes[part])

    def _findings(
        self, row: int, nodes: Sequence[int], margins: Sequence[float], sizes: Sequence[float]
    ) -> Iterator[Finding]:
        """Findings on the text nodes of one sample, each unwanted by a margin and of a size."""
        dropped, bad = dict[int, float](), 0.0
        for node, margin, size in zip(nodes, margins, sizes, strict=True):
            if abs(margin) < self._margin:
                yield Undecided(row, node)
            if margin >= self._margin or (margin > -self._margin and self.in_doubt == "drop"):
                dropped[node] = margin
                bad += size
        if dropped and bad >= self.sample_share * sum(sizes):
            yield Verdict(row, WHOLE_SAMPLE, self.name, Reason.LANGUAGE, bad / sum(sizes))
        else:
            for node, margin in dropped.items():
                yield Verdict(row, node, self.name, Reason.LANGUAGE, 1 / (1 + math.exp(-margin)))

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


def _suggest_code(code: str) -> str:
    """What may be meant by a code that is none: a country's, or one with a script or region behind it."""
    if code in lid.SINITIC:
        return "it is part of zh"
    start = code.lower().replace("_", "-").partition("-")[0]
    meant = MISTAKEN.get(start, start)
    return f"did you mean {meant!r}?" if meant in lid.list_codes() else suggest_names(code, sorted(lid.list_codes()))


def _list_readable(sample: Sample, *, only_han: bool) -> list[int]:
    """Text nodes, if any of them can be unwanted."""
    nodes = [index for index, node in enumerate(sample.nodes) if node.text]
    if only_han and not any(CJK.search(sample.nodes[index].text or "") for index in nodes):
        return []
    return nodes
