"""Which characters a text is made of, and which language's character sets know them.

Part of the language filter. The national character sets are the evidence that tells Chinese from Japanese
without kana: each lists what its language writes with, and Python carries them all. A character that no Chinese
set has (関, 込) is Japanese; one that the Japanese set lacks (这, 們) is Chinese; and one set must hold all of a
text, so 国際, simplified and traditional at once, is Japanese. The costs follow shares of running text, counted
on 31,000 Han characters of news and law:

    share of characters outside    Chinese, simplified    Chinese, traditional    Japanese
    GB 2312                        < 0.01 %               25 %                    26 %
    Big5, level 1                  28 %                   0.1 %                   14 %
    JIS X 0208                     24 %                   1 %                     < 0.01 %
    JIS X 0208, level 1            28 %                   13 %                    0.1 %
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import cache

import numpy as np


class Trait(IntEnum):
    """What is added up over the characters of a text; columns of `measure_traits`.

    Costs are nats against a language.
    """

    HAN = 0
    KANA = 1
    HANGUL = 2
    LETTER = 3  # of any other script
    NOT_SIMPLIFIED = 4
    NOT_TRADITIONAL = 5
    NOT_JAPANESE = 6
    OLD_JAPANESE = 7  # characters of names, and of spelling before 1946
    NOT_KOREAN = 8
    INFLECTION = 9  # nats for Japanese
    GRAMMAR = 10  # nats for Chinese: function characters that are rare between kanji
    FUNCTION = 11  # all function characters of Chinese
    FULL_STOP = 12


MISSING = 8.0  # ln(25 % / 0.01 %): every fourth or fifth character of the one language is missing in the other's set
LESSER = 2.0  # level 2 of Big5, rare in Chinese
UNUSUAL = 4.0  # outside KS X 1001, which has one form of each character (畵, not 畫)
STRONG = frozenset("是我也就或其而之如此於且你那把被")  # 1 nat; each also lives in a few Japanese words (是非, 自我)
WEAK = frozenset("的在不了和到將将若可以為与從，")  # noqa: RUF001 - 0.5 nats; the wide comma is Chinese, Japanese writes 、
FUNCTION = STRONG | frozenset(
    "的在不了和到將将若可以為为与與從从這这個个們们哪什么麼吗嗎呢吧啊很都还還没沒有能会會要让讓给給请請对對所但因果然后後时時上中下里裡用使及等每各"
)
LOOKALIKE = frozenset("ニロエカタトハヘリーノ")  # what OCR reads for 二口工力夕卜八入丿 and 一
BORROWED = "の"  # Chinese shop signs and titles use it
BLOCK = 4096  # texts whose characters are counted at once: 8 MB of counts
SURROGATES = range(0xD840, 0xD88E)  # first halves of the Han planes in UTF-16

HAN = re.compile(
    "[\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3105-\u312f\u3190-\u31ef\u3220-\u3247\u3280-\u32b0"
    "\u32c0-\u32cb\u3358-\u3370\u337b-\u337f\u33e0-\u33fe\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00016fe2\U00016fe3\U00016ff0\U00016ff1\U0001f210-\U0001f23b\U0001f240-\U0001f251\U00020000-\U0003ffff]"
)
"""A Han character of any block, or what is made of them: radicals, strokes, iteration marks, Bopomofo, circled and
squared forms."""
KANA = re.compile(
    "["
    + "".join(
        chr(point)
        for point in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FB), *range(0xFF66, 0xFF70), *range(0xFF71, 0xFF9E))
        if chr(point) not in LOOKALIKE and chr(point) != BORROWED
    )
    + "]"
)
"""A kana that only Japanese is written with: Chinese signs borrow one, and OCR reads others for Han."""
HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb\uffa1-\uffdc]")


def measure_traits(texts: Sequence[str]) -> np.ndarray:
    """Sums of every `Trait` over each text: float64 (texts, traits). Half and full width count the same. Pure."""
    classes, values = _make_table()
    sums, counts = np.empty((len(texts), len(Trait))), np.empty((min(len(texts), BLOCK), len(values)))
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        for row, text in enumerate(block):
            units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
            counts[row] = np.bincount(classes[units], minlength=len(values))
        sums[start : start + len(block)] = counts[: len(block)] @ values
    return sums


@cache
def _make_table() -> tuple[np.ndarray, np.ndarray]:
    """The class of each UTF-16 unit, and the traits of each class: all characters fall into fewer than 256."""
    numbers: dict[tuple[tuple[Trait, float], ...], int] = {(): 0}
    classes = np.zeros(1 << 16, np.uint8)
    for unit in range(1 << 16):
        found = {Trait.HAN: 1.0} if unit in SURROGATES else _find_traits(chr(unit))
        if found:
            classes[unit] = numbers.setdefault(tuple(found.items()), len(numbers))
    values = np.zeros((len(numbers), len(Trait)))
    for pairs, number in numbers.items():
        for trait, value in pairs:
            values[number, trait] = value
    return classes, values


def _find_traits(character: str) -> Mapping[Trait, float]:  # noqa: PLR0911 - one line for each script
    point = ord(character)
    if point in range(0x4E00, 0xA000) or point in range(0x3400, 0x4DC0):
        return _find_han_traits(character)
    if point in range(0xAC00, 0xD7A4) or point in range(0x3131, 0x318F):
        return {Trait.HANGUL: 1}
    if point in range(0x3041, 0x3097) or point in range(0x30A1, 0x30FB) or character in "ーゝゞヽヾ":
        return {Trait.KANA: 1, Trait.INFLECTION: 0.5 if character in LOOKALIKE else 1 if character == BORROWED else 2}
    if character in "々〆":
        return {Trait.HAN: 1, Trait.INFLECTION: 1.5}
    if character == "。":
        return {Trait.FULL_STOP: 1}
    if character in WEAK:
        return {Trait.GRAMMAR: 0.5}
    if point in range(0x3105, 0x3130) or point in range(0x31A0, 0x31C0):  # Bopomofo
        return {Trait.HAN: 1, Trait.NOT_JAPANESE: MISSING, Trait.NOT_KOREAN: MISSING}
    folded = unicodedata.normalize("NFKC", character) if point >= 0x2E80 else character
    if len(folded) == 1 and folded != character:
        return _find_traits(folded)
    if character == "\N{IDEOGRAPHIC NUMBER ZERO}" or point in range(0x2E80, 0x2FD6) or point in range(0xF900, 0xFB00):
        return {Trait.HAN: 1}
    return {Trait.LETTER: 1} if character.isalpha() else {}


def _find_han_traits(character: str) -> Mapping[Trait, float]:
    simplified, japanese = _encode_character(character, "gb2312"), _encode_character(character, "euc_jp")
    modern = len(japanese) == 2  # three bytes are JIS X 0212, which no modern text uses
    return {
        Trait.HAN: 1,
        Trait.NOT_SIMPLIFIED: 0 if simplified else MISSING,
        Trait.NOT_TRADITIONAL: _score_not_traditional(
            _encode_character(character, "big5hkscs"), elsewhere=bool(simplified) or modern
        ),
        Trait.NOT_JAPANESE: 0 if modern else MISSING,
        Trait.OLD_JAPANESE: modern and japanese >= b"\xd0\xa1",  # level 2, from row 48 on
        Trait.NOT_KOREAN: 0 if _encode_character(character, "euc_kr") else UNUSUAL,
        Trait.GRAMMAR: 1 if character in STRONG else 0.5 if character in WEAK else 0,
        Trait.FUNCTION: character in FUNCTION,
    }


def _score_not_traditional(code: bytes, *, elsewhere: bool) -> float:
    if not code:
        return MISSING
    if b"\xa4\x40" <= code <= b"\xc6\x7e":  # level 1
        return 0
    if b"\xc9\x40" <= code <= b"\xf9\xd5":  # level 2
        return LESSER
    return (
        MISSING if elsewhere else 0
    )  # of Hong Kong's additions some are Cantonese (嚟), others simplified forms (国, 会)


def _encode_character(character: str, codec: str) -> bytes:
    try:
        return character.encode(codec)
    except UnicodeEncodeError:
        return b""
