"""What speaks for which language in a text, in nats, and what its neighbours add.

Part of the language filter. A text has one score per `Column`; only differences between them mean something. They add
up from

    characters   what its character sets cost Chinese, Japanese and Korean (`script.Trait`)
    grammar      function characters of Chinese: 是 我 的 在
    inflection   kana and Hangul: particles and endings that Chinese does not have
    bare         a long run of Han without either is a sentence, and Chinese
    model        fastText on the Han, kana and Hangul; bounded, so that it decides nothing alone
    matrix       the script of the running words: a Chinese sentence with English terms, or an English one that quotes
    context      the languages around it, near ones most

and the text belongs to the highest if it leads by a margin, else to none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vlmill.pipeline.filters.language import lid
from vlmill.pipeline.filters.language.prose import CJK, extract_prose, is_plain, remove_quotations, split_running_words
from vlmill.pipeline.filters.language.script import Trait, measure_traits


class Column(IntEnum):
    """Evidence distinguishes Chinese, Japanese and Korean; of the others only whether they are wanted matters."""

    ZH = 0
    JA = 1
    KO = 2
    WANTED = 3
    UNWANTED = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each kind of evidence may say; 0 leaves it out."""

    characters: float = 1.0  # with grammar, inflection and bare
    model: float = 0.35  # of its log probabilities: on short texts it is often sure and wrong
    matrix: float = 16.0  # nats, when all words, and enough of them, are in one script
    context: float = 6.0  # nats, in the middle of one language; less than one character that decides (`script.MISSING`)


FLOOR = math.log(lid.LEAST)
BARE_FROM, BARE, BARE_MOST = (
    3,
    0.3,
    6.0,
)  # nats per character: Japanese gets along without kana in headings and names, the longer the less
STOPPED = 3.0  # nats, if it ends or holds a sentence: of Japanese texts without kana one in a hundred does
OLD, OLD_MOST = (
    3.0,
    4.0,
)  # ln(13 % / 0.1 %), rounded down, for each old character; but names hold several (齋藤, 國學院大學)
HANGUL = 2.0  # each syllable, for Korean
NO_HANGUL = 2.5  # against Korean: whole texts in hanja are rare outside Korean pages
HAN_PER_WORD, SYLLABLES_PER_WORD, LETTERS_PER_WORD = 1.6, 3.0, 5.0
FUNCTION_WORDS = 0.5  # words that a function character adds: it joins what stands around it into a sentence
MATRIX_WORDS = 8.0  # from which on the share of each script says all it can
FEW_LETTERS = 0.3  # of other scripts for each of Han, kana and Hangul: below one word in ten
STRAY = 0.1  # of the words: so few in another script are terms
QUOTED = 0.2  # of a letter: what counts of quotations and brackets
MODEL_CHARACTERS, MODEL_LETTERS = 300, 1200  # that fastText sees of a text
SURE = 12.0  # nats: a neighbour that is this sure counts fully,
ENOUGH = 4.0  # words: and this long
CERTAIN = 3.0  # times: what fastText says about other scripts counts more on longer texts, up to 12 words
TURN, NEXT, BEFORE, FADE, ANYWHERE = 2.0, 1.0, 0.2, 0.3, 0.03  # a heading belongs to what follows it
MIXED = 0.7  # of the context counts for texts in two scripts, which say more themselves
UNSURE = 0.05  # of a full neighbour: what counts against any context


@dataclass(frozen=True, slots=True)
class LanguageScores:
    """Scores (texts, columns), -inf where a text has no letters of a language, and words (texts,)."""

    scores: np.ndarray
    words: np.ndarray


def score_texts(texts: Sequence[str], unwanted: Callable[[str], bool] | None, weights: Weights) -> LanguageScores:
    """Every text by itself.

    With `unwanted` (of a language code) other scripts are distinguished too, else all are wanted. Pure.
    """
    cleaned = _clean_texts(texts)
    inner = _score_inner(cleaned.sums, texts, weights)
    han, kana, hangul, function = cleaned.sums[:, [Trait.HAN, Trait.KANA, Trait.HANGUL, Trait.FUNCTION]].T
    own = han / HAN_PER_WORD + (kana + hangul) / SYLLABLES_PER_WORD
    joined = own + FUNCTION_WORDS * function
    total = np.maximum(joined + cleaned.words, 1e-9)
    matrix = weights.matrix * (joined - cleaned.words) / total * np.minimum(1, total / MATRIX_WORDS)
    scores = np.full((len(texts), len(Column)), -np.inf)
    scores[:, : Column.WANTED] = np.where(own > 0, (inner - inner.max(axis=1, keepdims=True)).T + matrix, -np.inf).T
    for index in np.flatnonzero(cleaned.words > STRAY * (own + cleaned.words)).tolist():
        scores[index, Column.WANTED :] = _score_other(cleaned.prose[index], cleaned.words[index], unwanted)
    return LanguageScores(scores, own + cleaned.words)


def add_context(reading: LanguageScores, turns: Sequence[int | None], weights: Weights) -> np.ndarray:
    """Scores of one sample's texts with what their neighbours say; `turns` are None in documents. Pure.

    Neighbours count for the languages that a text could be in: an English page says nothing about two lone kanji.
    """
    possible = np.isfinite(reading.scores)
    near = np.where(possible, _sum_near(_cast_votes(reading), turns), 0.0)
    mixed = possible[:, Column.ZH] & possible[:, Column.WANTED]
    most = np.full(reading.scores.shape, weights.context)
    most[mixed] *= MIXED
    if weights.context:
        most[:, Column.KO] += NO_HANGUL  # among Hangul, hanja alone are no surprise
    return np.asarray(reading.scores + most * near / (near.sum(axis=1, keepdims=True) + UNSURE))


def bound_context(weights: Weights) -> float:
    """How far, in nats, neighbours can at most move two languages apart."""
    return weights.context + (NO_HANGUL if weights.context else 0)


@dataclass(frozen=True, slots=True)
class _Cleaned:
    sums: np.ndarray  # (texts, traits)
    words: np.ndarray  # (texts,) in other scripts
    prose: Sequence[str]  # empty where other scripts play no part


def _clean_texts(texts: Sequence[str]) -> _Cleaned:
    """Traits and words of each text.

    Code is gone, and quotations hardly count where scripts or languages compete in one text.
    """
    sums, other_words, kept = measure_traits(texts), np.zeros(len(texts)), [""] * len(texts)
    letters = sums[:, [Trait.HAN, Trait.KANA, Trait.HANGUL]].sum(axis=1)
    disputed = _find_disputed(sums)
    for index in np.flatnonzero((sums[:, Trait.LETTER] > FEW_LETTERS * letters) | disputed).tolist():
        if not letters[index] and is_plain(texts[index]):
            kept[index], other_words[index] = texts[index], sums[index, Trait.LETTER] / LETTERS_PER_WORD
            continue
        whole = kept[index] = extract_prose(texts[index])
        matrix = remove_quotations(whole)
        if not any(map(str.isalpha, matrix)):
            matrix = whole
        other_words[index] = (1 - QUOTED) * split_running_words(matrix) + QUOTED * split_running_words(whole)
        if letters[index]:
            both = [_sum_lines(part) if disputed[index] else measure_traits([part])[0] for part in (matrix, whole)]
            sums[index] = (1 - QUOTED) * both[0] + QUOTED * both[1]
    return _Cleaned(sums, other_words, kept)


def _sum_lines(text: str) -> np.ndarray:
    """Sums of a text whose lines may be in simplified and in traditional characters.

    Each line pays for the better of the two.
    """
    lines = measure_traits(text.split("\n"))
    chinese = [Trait.NOT_SIMPLIFIED, Trait.NOT_TRADITIONAL]
    lines[:, chinese] = lines[:, chinese].min(axis=1, keepdims=True)
    return np.asarray(lines.sum(axis=0))


def _find_disputed(sums: np.ndarray) -> np.ndarray:
    """Whether a text has much of both Chinese and its neighbours in it, as one that quotes the other has."""
    chinese = sums[:, Trait.NOT_JAPANESE] + OLD * sums[:, Trait.OLD_JAPANESE] + sums[:, Trait.GRAMMAR]
    neighbours = _score_not_chinese(sums) + sums[:, Trait.INFLECTION] + HANGUL * sums[:, Trait.HANGUL]
    return np.asarray(np.minimum(chinese, neighbours) > 0.25 * np.maximum(chinese, neighbours))


def _score_not_chinese(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[:, [Trait.NOT_SIMPLIFIED, Trait.NOT_TRADITIONAL]].min(axis=1))


def _score_inner(sums: np.ndarray, texts: Sequence[str], weights: Weights) -> np.ndarray:
    """Scores (texts, 3) of Chinese, Japanese and Korean by characters, and by the model where it could matter."""
    han, hangul = sums[:, Trait.HAN], sums[:, Trait.HANGUL]
    native = sums[:, Trait.KANA] + hangul
    bare = np.clip(BARE * (han - BARE_FROM), 0, BARE_MOST) + STOPPED * (sums[:, Trait.FULL_STOP] > 0)
    chinese = np.where(
        han > 0, sums[:, Trait.GRAMMAR] + bare * (native == 0) - _score_not_chinese(sums), -SURE - native
    )
    old = np.minimum(OLD * sums[:, Trait.OLD_JAPANESE], OLD_MOST)
    japanese = sums[:, Trait.INFLECTION] - sums[:, Trait.NOT_JAPANESE] - old
    korean = HANGUL * hangul - sums[:, Trait.NOT_KOREAN] - NO_HANGUL * (hangul == 0)
    inner = weights.characters * np.stack([chinese, japanese, korean], axis=1)
    second, first = np.sort(inner, axis=1)[:, -2:].T
    close = first - second < SURE + weights.model * -FLOOR + bound_context(weights)
    for index in np.flatnonzero(close & (han + native > 0) & (weights.model > 0)).tolist():
        found = lid.predict_languages("".join(CJK.findall(texts[index]))[:MODEL_CHARACTERS])
        inner[index] += [weights.model * _take_log(found.get(code, 0.0)) for code in ("zh", "ja", "ko")]
    return inner


def _score_other(text: str, length: float, unwanted: Callable[[str], bool] | None) -> tuple[float, float]:
    """Scores of wanted and unwanted languages in other scripts.

    What the model takes for Chinese there (Pinyin) is open.
    """
    if unwanted is None:
        return 0.0, -math.inf
    seen = text[:MODEL_LETTERS]
    found = lid.predict_languages(seen if seen.isascii() else CJK.sub(" ", seen))
    open_to_both = sum(found.pop(code, 0.0) for code in ("zh", "ja", "ko")) / 2
    good = bad = open_to_both
    for code, share in found.items():
        good, bad = (good, bad + share) if unwanted(code) else (good + share, bad)
    scale = min(CERTAIN, length / ENOUGH)
    return scale * _take_log(good), scale * _take_log(bad)


def _take_log(probability: float) -> float:
    return math.log(max(probability, lid.LEAST))


def _cast_votes(reading: LanguageScores) -> np.ndarray:
    """What each text says to its neighbours (texts, columns): one column, by how sure and how long it is."""
    second, first = np.sort(np.maximum(reading.scores, -1e9), axis=1)[:, -2:].T
    trust = np.clip((first - second) / SURE, 0, 1) * np.minimum(1, reading.words / ENOUGH)
    votes = np.zeros(reading.scores.shape)
    votes[np.arange(len(votes)), reading.scores.argmax(axis=1)] = trust
    return votes


def _sum_near(votes: np.ndarray, turns: Sequence[int | None]) -> np.ndarray:
    """The votes around each text: its turn in a conversation, what follows and goes before in a document.

    A little of all votes comes in too, as far as they agree: the turns of one conversation may each have their
    language.
    """
    close = BEFORE * _sum_before(votes) + NEXT * _sum_before(votes[::-1])[::-1]
    numbers = np.array([-1 if turn is None else turn for turn in turns])
    for turn in set(numbers[numbers >= 0].tolist()):
        here = numbers == turn
        close[here] = TURN * (votes[here].sum(axis=0) - votes[here])
    others = votes.sum(axis=0) - votes
    return np.asarray(close + ANYWHERE * others * others / np.maximum(others.sum(axis=1, keepdims=True), 1e-9))


def _sum_before(votes: np.ndarray) -> np.ndarray:
    """The votes before each text; what stands between it and them fades them, unless it says nothing itself."""
    sums = np.zeros(votes.shape)
    for index in range(1, len(votes)):
        vote = votes[index - 1]
        sums[index] = sums[index - 1] * (1 - (1 - FADE) * vote.sum()) + vote
    return sums
