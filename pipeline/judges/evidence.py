"""What speaks for which language in a text, in nats, and what its neighbours add.

Part of the language judge. A text has one score per `Column`; only differences between them mean something. They add up from

    characters   what its character sets cost Chinese, Japanese and Korean (`script.Traits`; the better of simplified and
                 traditional for the whole text, so that 国際, which mixes them, is Japanese)
    grammar      function characters of Chinese: 是 我 的 在
    inflection   kana, Hangul: particles and endings that Chinese does not have
    bare         a long run of Han without either is a sentence, and Chinese
    model        fastText on the Han, kana and Hangul alone; at most `model` x `FLOOR` nats, so it decides only short texts
    matrix       which script the running words are in: a Chinese sentence with English terms, or an English one with a quotation
    context      the languages around it, near ones most

and the text belongs to the highest if it leads by a margin, or to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipeline.judges import lid
from pipeline.judges.prose import CJK, prose, without_quotations, words
from pipeline.judges.script import Trait, measure


class Column(IntEnum):
    """Chinese, Japanese and Korean are told apart by evidence; of the others only whether they are wanted matters."""

    ZH = 0
    JA = 1
    KO = 2
    WANTED = 3
    UNWANTED = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each kind of evidence may say; 0 leaves it out."""

    characters: float = 1.0
    model: float = 0.35  # of its log probabilities: it is sure and wrong about one short text in twenty
    matrix: float = 16.0  # when all words, and enough of them, are in one script
    context: float = 6.0  # in the middle of one language; less than one character that decides


FLOOR = -4.0  # nats: below 2 % fastText's probabilities carry nothing
BARE_FROM, BARE, BARE_MOST = 6, 0.3, 6.0  # kanji without kana run to some six characters in headings and names
RARE, RARE_MOST = 3.0, 4.0  # old spelling: ln(12 % / 0.1 %) each, but names hold several (齋藤, 國學院大學)
HANGUL = 2.0  # each syllable for Korean
NO_HANGUL = 2.5  # Korean that writes a whole text in hanja is rare outside Korean pages
QUOTED = 0.2  # of a letter: what counts of quotations and brackets
HAN_PER_WORD, SYLLABLES_PER_WORD = 1.6, 3.0
MATRIX_WORDS = 8.0  # from which the share of each script says all it can
FUNCTION_WORDS = 0.5  # that a function character outside of quotations adds: it joins what stands around it
STRAY = 0.1  # of the words: fewer in another script are terms, and no language of the text
MODEL_CHARACTERS = 300
SURE = 12.0  # nats: a neighbour that is this sure counts fully
WORDS_TO_COUNT = 4.0  # and this long
TURN, NEXT, BEFORE, FADE, ANYWHERE = 2.0, 1.0, 0.2, 0.3, 0.03  # a heading belongs to what follows it
MIXED = 0.7  # of the context counts for texts in two scripts, which say more themselves
UNSURE = 0.1  # of a full neighbour: what counts against any context


@dataclass(frozen=True, slots=True)
class Reading:
    """Own scores (texts, columns), -inf where a language has no letters in the text, and words (texts,)."""

    scores: np.ndarray
    words: np.ndarray


def read(texts: Sequence[str], unwanted: Callable[[str], bool] | None, weights: Weights) -> Reading:
    """Every text by itself. With `unwanted` (of a language code) other scripts are told apart too, else all are wanted. Pure."""
    sums, other_words = _measured(texts)
    inner = _han_scores(sums, weights)
    _add_model(inner, texts, weights)
    han_words = sums[:, Trait.han] / HAN_PER_WORD + (sums[:, Trait.kana] + sums[:, Trait.hangul]) / SYLLABLES_PER_WORD
    balance = han_words + FUNCTION_WORDS * sums[:, Trait.function]
    total = np.maximum(balance + other_words, 1e-9)
    matrix = weights.matrix * (balance - other_words) / total * np.minimum(1, total / MATRIX_WORDS)
    scores = np.full((len(texts), len(Column)), -np.inf)
    some = han_words > 0
    lead = inner - inner.max(axis=1, keepdims=True) + matrix[:, None]
    scores[some, : Column.WANTED] = lead[some]
    for index in np.flatnonzero(other_words > STRAY * (han_words + other_words)):
        scores[index, Column.WANTED :] = _other(texts[index], unwanted)
    return Reading(scores, han_words + other_words)


def with_context(reading: Reading, turns: Sequence[int | None], weights: Weights) -> np.ndarray:
    """Scores of one sample's texts with what their neighbours say; `turns` are None in documents. Pure.

    Neighbours count for the languages that a text could be in: an English page says nothing about two lone kanji.
    """
    votes = _votes(reading)
    near = np.array(_near(votes, turns)).reshape(votes.shape)
    near[np.isneginf(reading.scores)] = 0.0
    mixed = np.isfinite(reading.scores[:, Column.WANTED :]).any(axis=1) & np.isfinite(reading.scores[:, Column.ZH])
    most = np.where(mixed, MIXED, 1)[:, None] * np.full(len(Column), weights.context)
    most[:, Column.KO] += NO_HANGUL * (weights.context > 0)  # among Hangul, hanja alone are no surprise
    return np.asarray(reading.scores + most * near / (near.sum(axis=1, keepdims=True) + UNSURE))


def _measured(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Traits of each text, with quotations and code taken back where scripts compete; running words of other scripts."""
    sums = measure(texts)
    letters = sums[:, Trait.han] + sums[:, Trait.kana] + sums[:, Trait.hangul]
    other_words = np.zeros(len(texts))
    disputed = _disputed(sums)
    for index in np.flatnonzero((sums[:, Trait.letter] > 0.3 * letters) | disputed):  # else below one word in ten
        whole = prose(texts[index])
        matrix = without_quotations(whole)
        if not any(character.isalpha() for character in matrix):
            matrix = whole
        if letters[index]:
            add_up = _line_by_line if disputed[index] else _at_once
            sums[index] = (1 - QUOTED) * add_up(matrix) + QUOTED * add_up(whole)
        other_words[index] = (1 - QUOTED) * words(matrix) + QUOTED * words(whole)
    return sums, other_words


def _at_once(text: str) -> np.ndarray:
    return np.asarray(measure([text])[0])


def _line_by_line(text: str) -> np.ndarray:
    """Sums of a text whose lines may be in simplified and in traditional characters: each pays for the better of the two."""
    lines = measure(text.split("\n"))
    chinese = [Trait.not_simplified, Trait.not_traditional]
    lines[:, chinese] = lines[:, chinese].min(axis=1, keepdims=True)
    return np.asarray(lines.sum(axis=0))


def _disputed(sums: np.ndarray) -> np.ndarray:
    """Whether a text has much of both Chinese and its neighbours in it, as one that quotes the other has."""
    for_chinese = sums[:, Trait.not_japanese] + RARE * sums[:, Trait.old_japanese] + sums[:, Trait.grammar]
    against = np.minimum(sums[:, Trait.not_simplified], sums[:, Trait.not_traditional])
    against = against + sums[:, Trait.inflection] + HANGUL * sums[:, Trait.hangul]
    return np.minimum(for_chinese, against) > 0.25 * np.maximum(for_chinese, against)


def _han_scores(sums: np.ndarray, weights: Weights) -> np.ndarray:
    """Scores (texts, 3) of Chinese, Japanese and Korean by characters alone."""
    han, hangul = sums[:, Trait.han], sums[:, Trait.hangul]
    native = sums[:, Trait.kana] + hangul
    bare = np.clip(BARE * (han - BARE_FROM), 0, BARE_MOST) * (native == 0)
    chinese = sums[:, Trait.grammar] + bare - np.minimum(sums[:, Trait.not_simplified], sums[:, Trait.not_traditional])
    rare = np.minimum(RARE * sums[:, Trait.old_japanese], RARE_MOST)
    japanese = sums[:, Trait.inflection] - sums[:, Trait.not_japanese] - rare
    korean = HANGUL * hangul - sums[:, Trait.not_korean] - NO_HANGUL * (hangul == 0)
    chinese = np.where(han > 0, weights.characters * chinese, -SURE - native)
    return np.stack([chinese, weights.characters * japanese, weights.characters * korean], axis=1)


def _add_model(inner: np.ndarray, texts: Sequence[str], weights: Weights) -> None:
    """Add fastText's opinion in place, where it and the context could still change the outcome."""
    if not weights.model:
        return
    first, second = np.sort(inner, axis=1)[:, :-3:-1].T
    for index in np.flatnonzero(first - second < weights.context - weights.model * FLOOR + SURE / 2):
        letters = "".join(CJK.findall(texts[index]))[:MODEL_CHARACTERS]
        if letters:
            found = lid.probabilities(letters)
            inner[index] += [weights.model * _nats(found.get(code, 0.0)) for code in ("zh", "ja", "ko")]


def _other(text: str, unwanted: Callable[[str], bool] | None) -> tuple[float, float]:
    """Scores of wanted and unwanted languages in other scripts."""
    if unwanted is None:
        return 0.0, -math.inf
    line = " ".join(CJK.sub(" ", prose(text)).split())[: 4 * MODEL_CHARACTERS]
    found = {code: share for code, share in lid.probabilities(line).items() if code not in {"zh", "ja", "ko"}}
    bad = sum(share for code, share in found.items() if unwanted(code))
    total = max(sum(found.values()), 1e-9)
    return _nats(1 - bad / total), _nats(bad / total)


def _nats(probability: float) -> float:
    return max(FLOOR, math.log(max(probability, 1e-9)))


def _votes(reading: Reading) -> np.ndarray:
    """What each text says about its neighbours: one column, by how sure and how long it is."""
    ordered = np.sort(np.maximum(reading.scores, -1e9), axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    trust = np.clip(lead / SURE, 0, 1) * np.minimum(1, reading.words / WORDS_TO_COUNT)
    votes = np.zeros(reading.scores.shape)
    votes[np.arange(len(votes)), reading.scores.argmax(axis=1)] = trust * (ordered[:, -1] > -1e9)
    return votes


def _near(votes: np.ndarray, turns: Sequence[int | None]) -> list[np.ndarray]:
    """The votes around each text: its turn in a conversation, what follows and goes before in a document, a little of all."""
    everything = votes.sum(axis=0)
    before, after = _fading(votes), _fading(votes[::-1])[::-1]
    by_turn: dict[int, np.ndarray] = {}
    for turn, vote in zip(turns, votes, strict=True):
        if turn is not None:
            by_turn[turn] = by_turn.get(turn, 0) + vote
    near = []
    for vote, turn, earlier, later in zip(votes, turns, before, after, strict=True):
        close = TURN * (by_turn[turn] - vote) if turn is not None else BEFORE * earlier + NEXT * later
        near.append(close + ANYWHERE * (everything - vote))
    return near


def _fading(votes: np.ndarray) -> list[np.ndarray]:
    """The votes before each text; only votes stand between it and those further off, not texts that say nothing."""
    sums = [np.zeros(votes.shape[1])]
    for vote in votes[:-1]:
        sums.append(sums[-1] * (1 - (1 - FADE) * vote.sum()) + vote)
    return sums
